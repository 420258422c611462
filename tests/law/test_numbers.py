"""Numbers of Linux stand in `gmemstate.model.linux` and nowhere else, and no name of an errno is the reader's own."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.model import linux

TOP = Path(__file__).parents[2]
LINUX = TOP / "gmemstate" / "model" / "linux.py"
MODULES = sorted((TOP / "gmemstate").rglob("*.py"))
OF_LINUX = {name for name in vars(linux) if name.isupper() and not name.startswith("_")} - {"ERRNO_NAMES", "ERRNO_NUMBERS"}
SYSTEM = re.compile(r"^\s*(?:import errno\b|from errno import)|\bos\.strerror\(", re.MULTILINE)


def number(value: ast.expr) -> bool:
    """Whether an expression is written in numbers alone."""
    allowed = (ast.Constant, ast.Tuple, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.expr_context)
    return all(isinstance(part, allowed) and not isinstance(getattr(part, "value", 0), str) for part in ast.walk(value))


def assigned(tree: ast.Module) -> Iterator[str]:
    """Names to which a module assigns a number, with those of a tuple."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and number(node.value):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))


@pytest.mark.parametrize("module", [pytest.param(path, id=str(path.relative_to(TOP))) for path in MODULES if path != LINUX])
def test_no_other_module_defines_a_number_of_linux(module: Path) -> None:
    """Neither under its own name nor as an errno that Linux has, nor by asking the reader's C library."""
    text = module.read_text()
    names = {name.lstrip("_") for name in assigned(ast.parse(text))}
    assert not names & (OF_LINUX | set(linux.ERRNO_NUMBERS))
    assert not SYSTEM.findall(text)


def test_each_number_is_used() -> None:
    """What no module reads is not kept."""
    others = "\n".join(path.read_text() for path in MODULES if path != LINUX) + LINUX.read_text().partition("_NAMES =")[0]
    assert not [name for name in OF_LINUX if len(re.findall(rf"\b{name}\b", others)) < 2]
