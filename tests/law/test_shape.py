"""How large things are, and what a module may look into: lines, modules, columns, states."""

import ast
import re

from tests.law.tree import MODULES, TOP, left, name_of, parsed

SOURCES = [path for folder in ("gmemstate", "tests", "tools", "migrations") for path in sorted((TOP / folder).rglob("*.py"))]
WIDE = 128
LONG = 450
"""Lines of a module: one idea, about 400."""
"""Lines of .py files that the package had before it was laid out anew."""

DEPENDENT = frozenset(("VALUE", "ACTOR", "RESULT", "CONVERSION", "DETAIL"))
"""Columns of an event whose meaning depends on its kind: model and store read them, others read typed events."""


def test_no_line_is_wider_than_128_columns():
    """The linter exempts some long lines, e.g. of links; here none is."""
    wide = [
        f"{name_of(path)}:{number}"
        for path in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > WIDE
    ]
    assert not left("wide", wide)


def test_the_formatter_is_seldom_switched_off():
    """For tables that it would stretch over pages; fewer than 30 times in the package."""
    off = [
        f"{name_of(path)} ({n})" for path in MODULES for n in range(len(re.findall(r"# fmt: (?:skip|off)", path.read_text())))
    ]
    assert not left("fmt", off[29:])


def test_a_module_holds_one_idea():
    """None is longer than 450 lines."""
    lines = {name_of(path): path.read_text().count("\n") for path in MODULES}
    assert not left("long", [f"{name} ({count})" for name, count in lines.items() if count > LONG])


def test_columns_that_depend_on_the_kind_are_read_by_model_and_store():
    """Others take the typed event of a row, or a column by a constant of its kind; nobody takes a column by its number."""
    found = []
    for module in MODULES:
        if name_of(module).split("/")[1] in ("model", "store"):
            continue
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.Subscript):
                index = node.slice
                name = index.attr if isinstance(index, ast.Attribute) else getattr(index, "id", "")
                number = isinstance(index, ast.Constant) and isinstance(index.value, int)
                if name in DEPENDENT or (number and re.search(r"\brow$", ast.unparse(node.value))):
                    found.append(f"{name_of(module)}:{node.lineno}: {ast.unparse(node)}")
    assert not left("columns", found)


def test_a_state_is_asked_and_not_spelled_out():
    """Whether a range is in flight is a question to model.machines, not to the letters of its state."""
    found = []
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.Compare) and isinstance(node.left, ast.Constant) and node.left.value in ("(", ")", "/"):
                asked = [other for other in node.comparators if re.search(r"\bstate$", ast.unparse(other))]
                found += [f"{name_of(module)}:{node.lineno}: {ast.unparse(node)}"] * bool(asked)
    assert not left("states", found)
