"""Opening: from a path or a URL to an engine whose schema is current.

A new store is made by Alembic and nothing else. A store that is current is opened without importing Alembic.
"""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from gmemstate.model.errors import CannotRead, CannotWrite, GmemstateError, NotALedger
from gmemstate.store.schema import APPLICATION_ID, HEAD
from gmemstate.text import named

REVISIONS = ("0001", "0002", "0003")
"""All revisions that this version can upgrade from, oldest first."""

LOCK = 0x676D656D
"""The advisory lock of PostgreSQL under which those who write take turns."""

PATIENCE = 10.0
"""How long somebody else may write (s) before recording is given up."""

_LOOK = "SELECT 1 FROM sqlite_master"
_UNWRITABLE = "it or its folder cannot be written; copy it to one that can, or name another with --db"


def migrations() -> Path:
    """Where the migrations are: in the wheel inside the package, in a checkout next to it. Raises NotALedger without any."""
    package = Path(__file__).parent.parent
    for place in (package / "_migrations", package.parent / "migrations"):
        if (place / "env.py").is_file():
            return place
    raise NotALedger("the migrations of gmemstate are missing from this installation: install it again")


def is_url(where: str) -> bool:
    """Whether a name of a ledger is a database URL, not a path."""
    return "://" in where


def connect(where: str, *, writable: bool, synchronous: str = "FULL") -> Engine:
    """An engine on the ledger at a path or URL.

    ``writable`` creates or upgrades it where needed; without it, a missing ledger is an error. ``synchronous`` is
    SQLite's: FULL makes every commit durable, NORMAL only the last checkpoint.
    Raises CannotRead, CannotWrite and NotALedger.
    """
    engine = _server(where) if is_url(where) else _file(Path(where), writable=writable, synchronous=synchronous)
    try:
        with explained(where):
            _make_current(engine, where, writable=writable)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _server(where: str) -> Engine:
    try:
        url = make_url(where)
        if url.get_backend_name() != "postgresql":
            raise ArgumentError("is no URL of PostgreSQL")
        return create_engine(url.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    except (ArgumentError, ValueError, ModuleNotFoundError) as error:
        raise CannotRead(f"{named(where)}: {error}; give a path, or a URL such as postgresql://user@host/name "
                         "(needs `pip install gmemstate[postgres]`)") from None  # fmt: skip


def located(where: str) -> str:
    """The one identity of a ledger: an absolute path without links, the same whatever happens; a URL as it is."""
    return where if is_url(where) else os.path.realpath(where)


def _file(path: Path, *, writable: bool, synchronous: str) -> Engine:
    if path.is_dir():
        raise CannotRead(f"{path}: is a directory; name a file in it, e.g. {path / 'gmemstate.db'}")
    if not path.exists():
        if not writable:
            raise CannotRead(f"{path}: no ledger here; `gmemstate ingest FILE` makes one, `--db PATH` names another")
        if not path.parent.is_dir():
            raise CannotWrite(f"{path}: the folder {path.parent} does not exist; make it first")
    elif path.stat().st_size and not _begins_like_sqlite(path):
        raise NotALedger(f"{path}: is no SQLite database; name a ledger with --db")
    elif writable and not os.access(path, os.W_OK):
        raise CannotWrite(f"{path}: {_UNWRITABLE}")
    place = Path(located(str(path)))
    engine = create_engine(
        "sqlite://", creator=lambda: _open_file(place, writable=writable, synchronous=synchronous), poolclass=NullPool
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        # The driver's own transactions would leave DDL outside and begin too late to be sure of the lock.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writable else "BEGIN")

    return engine


def _begins_like_sqlite(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror}; check its permissions") from None


def _open_file(path: Path, *, writable: bool, synchronous: str) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    if writable:
        return _connected(uri, f"PRAGMA synchronous = {synchronous}")
    # A reader makes the files of a WAL where there are none. SQLite removes them again if it could have written the ledger;
    # else they would stay, and stand in the way of those who can. Without a WAL the one file is everything.
    if Path(f"{path}-wal").exists():
        try:
            return _connected(f"{uri}?mode=ro", _LOOK)
        except sqlite3.OperationalError:
            raise CannotRead(
                f"{path}: cannot be read together with its WAL here; copy both files to a folder that can be written"
            ) from None
    if os.access(path, os.W_OK):
        with suppress(sqlite3.OperationalError):
            return _connected(f"{uri}?mode=rw", "PRAGMA query_only = ON", _LOOK)
    return _connected(f"{uri}?mode=ro&immutable=1")


def _connected(uri: str, *statements: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
    try:
        for statement in statements:
            connection.execute(statement).fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn an error of the database into ours, with the next step. Raises that: CannotRead, CannotWrite or NotALedger."""
    try:
        yield
    except database_errors() as error:
        raise explain(where, getattr(error, "orig", None) or error) from error


def database_errors() -> tuple[type[Exception], ...]:
    """All that a database can raise; psycopg can only if somebody has loaded it."""
    psycopg = sys.modules.get("psycopg")
    return (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError, *([] if psycopg is None else [psycopg.Error]))


def explain(where: str, error: BaseException) -> GmemstateError:
    """The error of ours that says what an error of a database means."""
    if isinstance(error, GmemstateError):
        return error
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    if is_url(where) and "@" in where.rpartition("@")[0].partition("://")[2]:
        words = "cannot be connected"  # a password with an @ in it: what the driver says has a part of it
    where = named(where)
    state = getattr(error, "sqlstate", "")  # of PostgreSQL; None where there was no connection, or is none any more
    if state is None or state.startswith(("08", "57P")):
        return CannotRead(f"{where}: {words}; look at the URL, and whether the server runs and lets you in")
    if state == "25006":
        return CannotWrite(f"{where}: {words}; record on a server that is no standby")
    if state.startswith("53"):
        return CannotWrite(f"{where}: {words}; make room: nothing of this batch was stored")
    if "readonly" in words or "read-only" in words or "unable to open" in words:
        return CannotWrite(f"{where}: {_UNWRITABLE}")
    if "locked" in words or "lock timeout" in words:
        return CannotWrite(f"{where}: somebody else is writing and does not end; try again")
    if "full" in words or "disk I/O" in words:
        return CannotWrite(f"{where}: {words}; make room or mend the disk: nothing of this batch was stored")
    if "not a database" in words or "malformed" in words:
        return NotALedger(f"{where}: {words}; restore it from a copy")
    return CannotRead(f"{where}: {words}")


def _make_current(engine: Engine, where: str, *, writable: bool) -> None:
    where = named(where)
    with engine.connect() as connection:
        revision = _revision(connection, where)
    if revision == HEAD:
        return
    if revision is not None and revision not in REVISIONS:
        raise NotALedger(f"{where}: was made by a newer gmemstate (schema {revision}, this one knows {HEAD}); "
                         "upgrade gmemstate to open it")  # fmt: skip
    if not writable:
        if revision is None:
            raise CannotRead(f"{where}: the ledger is empty; `gmemstate ingest FILE` fills it")
        raise NotALedger(
            f"{where}: has the older schema {revision}; `gmemstate --db {where} rebuild` upgrades it, or a copy of it"
        )
    upgrade(engine)


def _revision(connection: Any, where: str) -> str | None:
    """The schema's revision; None for a database with nothing in it."""
    if connection.dialect.name == "sqlite":
        tables = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    else:
        found = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"))
        tables = {row[0] for row in found}
    if not tables:
        return None
    if not {"alembic_version", "event", "batch"} <= tables:
        raise NotALedger(f"{where}: is a database, but not a ledger of gmemstate; name another with --db")
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
    if row is None:
        raise NotALedger(f"{where}: has lost the version of its schema; restore it from a copy")
    return str(row[0])


def upgrade(engine: Engine) -> None:
    """Bring a database to the newest schema."""
    import logging

    from alembic import command
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    if engine.dialect.name == "sqlite":
        file = engine.raw_connection()
        file.cursor().execute("PRAGMA journal_mode = WAL")  # which a file keeps
        file.close()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
        else:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        command.upgrade(config, "head")
