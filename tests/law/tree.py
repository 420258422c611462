"""The package as its source text: modules, their public names, and what each function raises and handles."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]
PACKAGE = TOP / "gmemstate"
MODULES = sorted(PACKAGE.rglob("*.py"))

ALLOWED = {"long": 1}
"""How many offenders each rule still lets pass."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Named(NamedTuple):
    """A public function or method, with the place where it stands."""

    place: str
    node: Function

    @property
    def doc(self) -> str:
        """Its docstring."""
        return ast.get_docstring(self.node) or ""


@cache
def parsed(module: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(module.read_text())


def name_of(module: Path) -> str:
    """The path of a module below the top."""
    return str(module.relative_to(TOP))


def classes() -> Iterator[tuple[Path, ast.ClassDef]]:
    """All classes of the package, nested ones too."""
    for module in MODULES:
        yield from ((module, node) for node in ast.walk(parsed(module)) if isinstance(node, ast.ClassDef))


def public(module: Path) -> Iterator[Named]:
    """The public functions of a module, and the public methods of its public classes."""
    for node in parsed(module).body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield Named(f"{name_of(module)}: {node.name}", node)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield Named(f"{name_of(module)}: {node.name}.{method.name}", method)


def functions() -> Iterator[Named]:
    """The public functions and methods of the package."""
    for module in MODULES:
        yield from public(module)


def own(node: ast.AST) -> Iterator[ast.AST]:
    """What stands in the body of a function itself, not in a function inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef):
            yield child
            yield from own(child)


@cache
def errors() -> frozenset[str]:
    """GmemstateError and what derives from it; and the functions that return such an error, to be raised by their caller."""
    found = {"GmemstateError"}
    while more := {node.name for _, node in classes() if {ast.unparse(base) for base in node.bases} & found} - found:
        found |= more
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, Function) and node.returns is not None and ast.unparse(node.returns) in found:
                found.add(node.name)
    return frozenset(found)


def raises(function: Named) -> bool:
    """Whether a function raises an error of gmemstate in its own body; verbs of the command line end with an exit code."""
    if any("click.command" in ast.unparse(mark) for mark in function.node.decorator_list):
        return False
    for node in own(function.node):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if (raised.attr if isinstance(raised, ast.Attribute) else getattr(raised, "id", "")) in errors():
                return True
    return False


def left(rule: str, offenders: list[str]) -> list[str]:
    """The offenders of a rule, unless they are no more than it still allows."""
    return offenders if len(offenders) > ALLOWED.get(rule, 0) else []
