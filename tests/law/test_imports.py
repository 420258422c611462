"""Who imports whom: the contracts of `[tool.importlinter]`, each seen to refuse what it forbids, and no circles."""

import re
import shutil
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.law.tree import PACKAGE, TOP

CONTRACTS = [one["name"] for one in tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]]

PLANTED = {
    "packages": [
        ("store/schema.py", "from gmemstate.ingest import fact"),
        ("ingest/fact.py", "from gmemstate.convert.engine import ioctl"),
        ("convert/engine/ioctl.py", "if TYPE_CHECKING:\n    from gmemstate.ingest import fact"),
        ("audit/why.py", "from gmemstate.store import schema"),
        ("decode/errnos.py", "from gmemstate.messages import catalogue"),
        ("model/units.py", "from gmemstate.decode import errnos"),
        ("postmortem/words.py", "from gmemstate.ledger import ledger"),
        ("rooms_without_a_layer.py", '"""A package or module that no layer names."""'),
    ],
    "ingest": [
        ("ingest/readers/detect.py", "from gmemstate.ingest.correlate import tracker"),
        ("ingest/merge/clocks.py", "from gmemstate.ingest.readers import detect"),
        ("ingest/fact.py", "from gmemstate.ingest import input"),
    ],
    "convert": [("convert/engine/ioctl.py", "from gmemstate.convert.simulation import host")],
    "only the machines": [
        ("model/fold/apply.py", "from transitions import Machine"),
        ("store/schema.py", "import transitions"),
    ],
    "only the store": [
        ("model/record.py", "import sqlite3"),
        ("ledger/ledger.py", "from sqlalchemy import text"),
        ("cli/main.py", "def f():\n    from alembic import command"),
    ],
    "the command line knows": [
        ("cli/machine.py", "from gmemstate.model.machines import run"),
        ("cli/lists.py", "def f():\n    from gmemstate.audit import why"),
        ("cli/why.py", "if TYPE_CHECKING:\n    from gmemstate.store.record import StoredRecord"),
    ],
    "only the command line": [("text.py", "from rich.table import Table"), ("ledger/ledger.py", "import click")],
}
"""The beginning of a contract's name to modules, and what must not be imported there."""


def linted(folder: Path) -> str:
    """What import-linter says of the package in a folder."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )
    return re.sub(r"\n(?=\S)", " ", done.stdout) + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The sources and the law, without anything else."""
    folder = tmp_path_factory.mktemp("planted")
    shutil.copytree(PACKAGE, folder / "gmemstate", ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(TOP / "pyproject.toml", folder)
    return folder


def test_imports_keep_the_law():
    """All contracts hold."""
    said = linted(TOP)
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in said, said


@pytest.mark.parametrize(
    ("contract", "module", "planted"),
    [pytest.param(name, *plant, id=f"{name}-{plant[0]}") for name, plants in PLANTED.items() for plant in plants],
)
def test_a_forbidden_import_is_refused(copy, contract, module, planted):
    """By the contract that is about it."""
    path = copy / "gmemstate" / module
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + "\n" + planted + "\n")
    try:
        said = linted(copy)
    finally:
        path.write_text(before) if before is not None else path.unlink()
    assert re.search(rf"{contract}[^\n]{{0,150}}BROKEN|modules are not listed|rooms_without_a_layer", said), said


def test_each_contract_is_tried():
    """None is without a planted import."""
    assert all(sum(name.startswith(start) for start in PLANTED) == 1 for name in CONTRACTS)


def arrows(depth: int | None) -> dict[str, set[str]]:
    """Who imports whom, of modules (None) or of packages down to a depth; imports for type checkers included."""
    graph = grimp.build_graph("gmemstate", exclude_type_checking_imports=False, cache_dir=None)

    def place(module: str) -> str:
        return ".".join(module.split(".")[: None if depth is None else depth + 1])

    found: dict[str, set[str]] = {}
    for module in graph.modules - {"gmemstate"}:
        others = graph.find_modules_directly_imported_by(module)
        found.setdefault(place(module), set()).update(place(other) for other in others if place(other) != place(module))
    return found


@pytest.mark.parametrize("depth", [1, None], ids=["packages", "modules"])
def test_no_imports_go_in_a_circle(depth):
    """Neither of packages, nor of their parts, nor of modules."""
    TopologicalSorter(arrows(depth)).prepare()  # Raises CycleError, which names the circle
