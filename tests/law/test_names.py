"""What is said of each public name, in which words: docstrings, units, errors raised."""

import ast
import re

from tests.law.tree import MODULES, classes, functions, left, name_of, parsed, raises

UNITS = re.compile(r"(?i)\b(gfns?|gpas?|pfns?|hva|pages?|bytes?|KiB|ns|seconds?|idx|seqs?|orders?)\b")
NUMBERS = frozenset(
    [
        "start",
        "end",
        "npages",
        "gfn",
        "gpa",
        "hva",
        "pfn",
        "size",
        "address",
        "offset",
        "index",
        "page",
        "pages",
        "length",
        "error_offset",
        "iova",
        "at",
        "t",
        "since",
        "until",
        "ns",
        "seconds",
        "patience",
        "timeout",
    ]
)
"""Parameters that count pages, bytes or time."""
TYPED = re.compile(r"\b(Gfn|Gpa|Pfn|PageIndex)\b")


def test_every_public_name_says_what_it_is():
    """Each module, class, function and method that may be called from elsewhere has a docstring."""
    silent = [name_of(module) for module in MODULES if parsed(module).body and not ast.get_docstring(parsed(module))]
    silent += [function.place for function in functions() if not function.doc]
    silent += [
        f"{name_of(module)}: {node.name}" for module, node in classes() if node.name[0] != "_" and not ast.get_docstring(node)
    ]
    assert not left("docstrings", silent)


def test_public_class_names_are_unique():
    """Whoever looks for a class by its name finds one."""
    where: dict[str, list[str]] = {}
    for module, node in classes():
        if not node.name.startswith("_"):
            where.setdefault(node.name, []).append(name_of(module))
    assert not left("classes", [f"{name}: {', '.join(places)}" for name, places in where.items() if len(places) > 1])


def test_who_raises_says_so():
    """A public function that raises an error of gmemstate names it in its docstring: "Raises X"."""
    assert not left("raises", [function.place for function in functions() if raises(function) and "aises" not in function.doc])


def test_who_counts_names_the_unit():
    """A public function that is given, or returns, pages, bytes or times as numbers says in which unit."""
    silent = []
    for function in functions():
        arguments = function.node.args
        counted = [
            one.arg
            for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            if one.arg in NUMBERS and one.annotation is not None and re.search(r"\b(int|float)\b", ast.unparse(one.annotation))
        ]
        if function.node.returns is not None and TYPED.search(ast.unparse(function.node.returns)):
            counted.append("the result")
        if counted and not UNITS.search(function.doc):
            silent.append(f"{function.place}: {', '.join(counted)}")
    assert not left("units", silent)
