"""Exports: lossless, always the same bytes, refused where they were altered, and read in place of a ledger."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gmemstate.answers import Exported
from gmemstate.jsonl import JsonlRecord, export
from gmemstate.ledger import Ledger, restore
from gmemstate.model.errors import CannotRead, UsageError
from tests.audit.verifier import ROOT, verify
from tests.traces import capture


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two captures."""
    where = tmp_path_factory.mktemp("whole") / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        ledger.ingest(capture("ip_eagain_pin"))
    return where


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    where = tmp_path / "copy.db"
    where.write_bytes(original.read_bytes())
    return where


def exported(where: Path, to: Path) -> Path:
    with Ledger.open(where, readonly=True) as ledger, to.open("w", encoding="utf-8", newline="\n") as file:
        export(ledger.record_, file)
    return to


def test_an_export_is_lossless_and_always_the_same(original: Path, tmp_path: Path) -> None:
    first, again = exported(original, tmp_path / "a.jsonl"), exported(original, tmp_path / "b.jsonl")
    assert first.read_bytes() == again.read_bytes()
    made = tmp_path / "made.db"
    head = restore(str(made), JsonlRecord(first))
    assert exported(made, tmp_path / "c.jsonl").read_bytes() == first.read_bytes()
    with Ledger.open(original, readonly=True) as ledger:
        assert ledger.head() == head
    with Ledger.open(made) as ledger:
        assert not ledger.check().problems
    assert not Exported(first).check().problems
    assert verify(first).returncode == 0


def test_an_altered_export_is_refused_with_the_line_and_nothing_is_kept(original: Path, tmp_path: Path) -> None:
    path = exported(original, tmp_path / "a.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[40])
    row[6] = (row[6] or 0) + 1
    changed = {
        "altered": [*lines[:40], json.dumps(row), *lines[41:]],
        "dropped": [*lines[:40], *lines[41:]],
        "twice": [*lines[:40], lines[40], *lines[40:]],
        "cut": lines[:-1],
        "goes on": [*lines, lines[-1]],
        "no json": [*lines[:40], "{", *lines[41:]],
        "not ours": ["{}"],
    }
    for name, content in changed.items():
        path.write_text("\n".join(content) + "\n", encoding="utf-8")
        where = tmp_path / f"{name}.db"
        with pytest.raises(CannotRead, match=rf"{path}:\d+: "):
            restore(str(where), JsonlRecord(path))
        assert not where.exists(), name
        assert verify(path).returncode != 0, name


def test_an_import_does_not_touch_a_ledger_that_is_there(original: Path, tmp_path: Path, copy: Path) -> None:
    path, before = exported(original, tmp_path / "a.jsonl"), copy.read_bytes()
    with pytest.raises(UsageError, match="already"):
        restore(str(copy), JsonlRecord(path))
    assert copy.read_bytes() == before


def test_an_export_is_read_without_a_database(original: Path, tmp_path: Path) -> None:
    path = exported(original, tmp_path / "a.jsonl")
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\n"
        "from gmemstate.cli.main import main\n"
        f"main(['--db', {str(path)!r}, *sys.argv[1:]])"
    )
    for verb in (["check"], ["replay"], ["conversions"], ["why", "gfn:0x100004", "--guest", "vm1"]):
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, (verb, done.stderr)
