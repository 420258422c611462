"""A ledger as a file of SQLite: one file when it is closed, and nothing else is ever changed on disk."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import CannotRead, CannotWrite, NotALedger
from gmemstate.store.engine import connect
from gmemstate.store.schema import APPLICATION_ID, metadata
from tests.store.places import assert_chained, contents, conversion, guests, names, python, record_of

IMPORTS = (
    "import os, signal, sys; from gmemstate.ledger.ledger import Ledger; from tests.store.places import conversion, guests\n"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed ledger with a guest and a conversion, alone in its folder."""
    where = tmp_path / "ledger.db"
    with Ledger.open(where) as ledger:
        ledger.record(*guests(1))
        ledger.record(*conversion(2, 0))
    return where


# --- one file


def test_a_closed_ledger_is_one_file(path: Path) -> None:
    assert names(path.parent) == [path.name]
    with Ledger.open(path) as ledger:
        ledger.record(*conversion(2, 0x10))
        assert len(names(path.parent)) == 3, "the WAL and its index"
    assert names(path.parent) == [path.name]


def test_an_exception_of_the_caller_closes_it_too(path: Path) -> None:
    def misuse() -> None:
        with Ledger.open(path) as ledger:
            ledger.record(*conversion(2, 0x10))
            raise KeyError

    with pytest.raises(KeyError):
        misuse()
    assert names(path.parent) == [path.name]
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.head().seq == 7, "what was recorded before is recorded"


def test_reading_changes_nothing_on_disk(path: Path) -> None:
    before = contents(path.parent), path.stat().st_mtime_ns
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.history().memory.seq == 5
        assert ledger.stale_projections(ledger.history()) == []
    assert (contents(path.parent), path.stat().st_mtime_ns) == before


def test_a_closed_ledger_is_a_whole_one_wherever_it_is_copied_to(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    with Ledger.open(path, readonly=True) as one, Ledger.open(copy) as other:
        assert record_of(one) == record_of(other)
        other.record(*conversion(2, 0x10))
        assert_chained(other)


def test_the_file_says_what_it_is(path: Path) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)])
def test_a_durable_ledger_is_synchronous_at_every_commit(path: Path, durable: bool, synchronous: int) -> None:
    with Ledger.open(path, durable=durable) as ledger:
        ledger.record(*conversion(2, 0x10))
        assert ledger._recorder is not None
        assert ledger._recorder._cursor.execute("PRAGMA synchronous").fetchone() == (synchronous,)


# --- crashes


def test_a_process_killed_in_the_middle_of_a_batch_leaves_the_batches_before(path: Path) -> None:
    """The WAL that it leaves is taken up by whoever opens the ledger next."""
    died = python(
        IMPORTS + "ledger = Ledger.open(sys.argv[1])\n"
        "ledger.record(*conversion(2, 0x10))\n"
        "from gmemstate.store.projections import Projector\n"
        "Projector.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ledger.record(*conversion(2, 0x20))\n",
        str(path),
    )
    assert died.returncode == -9, died.stderr
    assert (path.parent / "ledger.db-wal").stat().st_size
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.head().seq == 7
        assert ledger.stale_projections(ledger.history()) == []
    with Ledger.open(path) as ledger:
        assert ledger.head().seq == 7
        assert ledger.record(*conversion(2, 0x20)).seq == 9
        assert_chained(ledger)
    assert names(path.parent) == [path.name]


def test_a_full_disk_stops_before_the_batch_that_does_not_fit(path: Path) -> None:
    """And says so; the file is a good ledger, and recording goes on where there is room again."""
    full = python(
        IMPORTS + "import resource\n"
        "from gmemstate.model.errors import CannotWrite\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))\n"
        "ledger = Ledger.open(sys.argv[1])\n"
        "try:\n"
        "    for n in range(10_000):\n"
        "        done = ledger.record(*conversion(2, 16 * n))\n"
        "except CannotWrite as error:\n"
        "    print(done.seq, error, flush=True)\n"
        "os._exit(0)\n",
        str(path),
    )
    seq, said = full.stdout.split(maxsplit=1)
    assert "nothing of this batch was stored" in said
    with Ledger.open(path) as ledger:
        assert ledger.head().seq == int(seq) > 5
        assert ledger.stale_projections(ledger.history()) == []
        assert ledger.record(*conversion(2, 0)).seq == int(seq) + 2
        assert_chained(ledger)


# --- the schema


def test_a_current_ledger_opens_without_alembic(path: Path) -> None:
    code = (
        IMPORTS + "with Ledger.open(sys.argv[1]) as ledger:\n"
        "    ledger.record(*guests(1))\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('alembic', 'mako')])\n"
    )
    assert python(code, str(path)).stdout == "[]\n"
    assert "alembic" in python(code, str(path.parent / "new.db")).stdout


def test_the_migrations_make_the_tables_that_the_schema_describes(path: Path, tmp_path: Path) -> None:
    """Columns with their types, keys and nullability; and SQLite checks the types of what is stored."""
    described = create_engine(f"sqlite:///{tmp_path / 'described.db'}")
    metadata.create_all(described)
    migrated = connect(str(path), writable=False, synchronous="FULL")
    found = []
    for engine in (described, migrated):
        looked = inspect(engine)
        found.append(
            {
                name: (
                    [{**column, "type": str(column["type"])} for column in looked.get_columns(name)],
                    looked.get_pk_constraint(name),
                    looked.get_indexes(name),
                )
                for name in looked.get_table_names()
                if name != "alembic_version"
            }
        )
        with engine.connect() as connection:
            listed = connection.exec_driver_sql("SELECT name, strict FROM pragma_table_list WHERE type = 'table'").fetchall()
        assert {name for name, strict in listed if strict} == set(metadata.tables)
        engine.dispose()
    assert found[0] == found[1]
    assert set(found[0]) == set(metadata.tables)


# --- what is no ledger of ours


def _other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE event (seq INTEGER PRIMARY KEY, said TEXT)")
    connection.execute("INSERT INTO event VALUES (1, 'hello')")
    connection.commit()
    connection.close()


def _newer(path: Path) -> None:
    _changed(path, "UPDATE alembic_version SET version_num = '9999'")


def _versionless(path: Path) -> None:
    _changed(path, "DELETE FROM alembic_version")


def _changed(path: Path, statement: str) -> None:
    Ledger.open(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def _cut(path: Path) -> None:
    with Ledger.open(path) as ledger:
        ledger.record(*guests(1))
        for n in range(100):
            ledger.record(*conversion(2, 16 * n))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


REFUSED = {
    "another database": (_other_database, NotALedger, "not a ledger of gmemstate; name another with --db"),
    "a newer schema": (_newer, NotALedger, "made by a newer gmemstate .*; upgrade gmemstate"),
    "no version": (_versionless, NotALedger, "lost the version of its schema; restore it"),
    "half a file": (_cut, NotALedger, "malformed; restore it from a copy"),
    "text": (lambda path: path.write_text("hello\n" * 100), NotALedger, "is no SQLite database; name a ledger with --db"),
    "the beginning only": (lambda path: path.write_bytes(b"SQLite format 3\0"), NotALedger, "not a database"),
    "a folder": (Path.mkdir, CannotRead, "is a directory; name a file in it"),
}


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path, what: str, readonly: bool) -> None:
    make, error, said = REFUSED[what]
    path = tmp_path / "ledger.db"
    make(path)
    before = contents(tmp_path)
    with pytest.raises(error, match=said) as caught:
        Ledger.open(path, readonly=readonly)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    assert contents(tmp_path) == before


def test_a_ledger_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(CannotRead, match="no ledger here; `gmemstate ingest FILE` makes one"):
        Ledger.open(tmp_path / "ledger.db", readonly=True)
    with pytest.raises(CannotWrite, match=r"folder .* does not exist; make it first"):
        Ledger.open(tmp_path / "nowhere" / "ledger.db")
    assert names(tmp_path) == []


def test_an_empty_file_becomes_a_ledger_by_writing_only(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.touch()
    with pytest.raises(CannotRead, match="the ledger is empty"):
        Ledger.open(path, readonly=True)
    assert path.stat().st_size == 0
    with Ledger.open(path) as ledger:
        ledger.record(*guests(1))
        assert_chained(ledger)


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://host/name", "what://", "://", "postgresql://host:port/name"])
def test_a_url_that_is_none_of_ours_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotRead, match="give a path, or a URL such as postgresql://"):
        Ledger.open(url)
    assert names(tmp_path) == []


def test_names_that_mean_something_to_sqlite_are_names(tmp_path: Path) -> None:
    for name in ("a?mode=memory", "b#c.db", "d%20e.db", "file:f.db", ":memory:"):
        with Ledger.open(tmp_path / name) as ledger:
            ledger.record(*guests(1))
        with Ledger.open(tmp_path / name, readonly=True) as ledger:
            assert ledger.head().seq == 3
        assert (tmp_path / name).stat().st_size
