"""A ledger where nothing, or not everything, may be written. The superuser may always, so another user tries."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.store.places import contents, guests, names, python

NOBODY = 65534

TRY = f"""
import os, sys
import alembic.command, sqlalchemy.dialects.sqlite
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import GmemstateError
from tests.store.places import conversion
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
try:
    with Ledger.open(sys.argv[1], readonly=sys.argv[2] == "read") as ledger:
        if sys.argv[2] == "write":
            ledger.record(*conversion(2, 0x10))
        print("events", ledger.history().memory.seq, ledger.stale_projections(ledger.history()))
except GmemstateError as error:
    print(error.code, error)
"""


def attempt(where: Path, what: str) -> str:
    """What somebody without privileges is told who reads or writes."""
    done = python(TRY, str(where), what)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody can reach and write, with a ledger that everybody can read and write."""
    with tempfile.TemporaryDirectory() as name:
        where = Path(name) / "ledger.db"
        with Ledger.open(where) as ledger:
            ledger.record(*guests(1))
        where.chmod(0o666)
        Path(name).chmod(0o777)
        yield Path(name)
        Path(name).chmod(0o700)


def lock(path: Path) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)


def test_with_all_permissions_both_work(folder: Path) -> None:
    assert attempt(folder / "ledger.db", "read") == "events 3 []"
    assert attempt(folder / "ledger.db", "write") == "events 5 []"
    assert names(folder) == ["ledger.db"]


@pytest.mark.parametrize("locked", [("folder",), ("file",), ("folder", "file")], ids="+".join)
def test_a_ledger_that_cannot_be_written_is_read_and_left_alone(folder: Path, locked: tuple[str, ...]) -> None:
    where = folder / "ledger.db"
    for name in locked:
        lock({"folder": folder, "file": where}[name])
    before = contents(folder)
    assert attempt(where, "read") == "events 3 []"
    said = attempt(where, "write")
    assert (
        said == f"cannot-write {where}: it or its folder cannot be written; copy it to one that can, or name another with --db"
    )
    assert contents(folder) == before


def test_no_ledger_is_made_where_none_can_be(folder: Path) -> None:
    (folder / "ledger.db").unlink()
    lock(folder)
    assert attempt(folder / "new.db", "write").startswith(
        f"cannot-write {folder / 'new.db'}: it or its folder cannot be written"
    )
    assert names(folder) == []


def test_a_ledger_that_may_not_be_read_is_named(folder: Path) -> None:
    where = folder / "ledger.db"
    where.chmod(0)
    assert attempt(where, "read") == f"cannot-read {where}: Permission denied; check its permissions"


def test_a_wal_that_cannot_be_taken_up_is_no_reason_to_read_less(folder: Path) -> None:
    """Without the WAL the file alone would tell an older story: better none."""
    where = folder / "ledger.db"
    died = python(
        "import os, sys; from gmemstate.ledger.ledger import Ledger; from tests.store.places import conversion\n"
        "ledger = Ledger.open(sys.argv[1]); ledger.record(*conversion(2, 0x10)); os._exit(1)",
        str(where),
    )
    assert died.returncode == 1
    (folder / "ledger.db-shm").unlink()
    for path in (folder / "ledger.db-wal", where, folder):
        lock(path)
    before = contents(folder)
    said = attempt(where, "read")
    assert (
        said
        == f"cannot-read {where}: cannot be read together with its WAL here; copy both files to a folder that can be written"
    )
    assert contents(folder) == before
