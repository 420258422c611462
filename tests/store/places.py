"""A ledger somewhere: what every kind of store must be able to do is tested through this."""

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.encoding import NO_HASH, seal
from gmemstate.model.events import ConvertAsked, ConvertReturned, Dialect, Event, SourceOpened, Through, VmCreated, VmSeen
from gmemstate.store.engine import LOCK, is_url
from tests.store.postgres import Server

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Place:
    """Where a ledger is, or can be made."""

    where: str

    @property
    def kind(self) -> str:
        """Which kind of store it is."""
        return "postgresql" if is_url(self.where) else "sqlite"

    def open(self, **options: Any) -> Ledger:
        return Ledger.open(self.where, **options)

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """What another program gets that runs one statement on the store, without any code of ours."""
        connection = sqlite3.connect(self.where, isolation_level=None)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    def at(self, where: str) -> "Place":
        """Another place of the same kind."""
        return replace(self, where=where)

    def hold(self) -> Any:
        """Begin to write and do not end, until the connection that is returned is closed."""
        connection = sqlite3.connect(self.where, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN IMMEDIATE")
        return connection


@dataclass(frozen=True)
class ServerPlace(Place):
    """A database of a PostgreSQL server."""

    server: Server

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return self.server.sql(statement, *parameters, database=self.database)

    def hold(self) -> Any:
        import psycopg

        connection = psycopg.connect(self.where)
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        return connection

    @property
    def database(self) -> str:
        return urlsplit(self.where).path[1:]


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place for a ledger, once for each kind of store."""
    if request.param == "sqlite":
        yield Place(str(tmp_path / "ledger.db"))
        return
    server = request.getfixturevalue("server")
    made = ServerPlace(server.database("empty"), server)
    yield made
    server.sql(f"DROP DATABASE {made.database} WITH (FORCE)")


def guests(count: int) -> list[Event]:
    """The birth of some guests. Recorded as the first events, the source is 1 and the guests are 2, 3, 4 ..."""
    seen: list[Event] = [VmSeen(source=-1, owner=-2 - n, pointer=0x1000 + n) for n in range(count)]
    born: list[Event] = [VmCreated(source=-1, owner=-2 - n, dialect=Dialect.MAINLINE) for n in range(count)]
    return [SourceOpened(source=-1), *seen, *born]


def conversion(guest: int, start: int, npages: int = 16, attributes: int = 8, reference: int = -1) -> list[Event]:
    """A conversion that succeeds."""
    return [
        ConvertAsked(
            conversion=reference, through=Through.VM_IOCTL, owner=guest, start=start, npages=npages, attributes=attributes
        ),
        ConvertReturned(conversion=reference, result=0, owner=guest),
    ]


def record_of(ledger: Ledger) -> tuple[list[tuple[Any, ...]], list[bytes]]:
    """Everything that is on record."""
    return list(ledger.record_.events()), [batch.hash for batch in ledger.record_.batches()]


def assert_chained(ledger: Ledger) -> None:
    """The seqs have no gap, the batches tile them, and each hash covers its batch and the hash before."""
    rows = list(ledger.record_.rows())
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
    previous, at = NO_HASH, 0
    for batch in ledger.record_.batches():
        assert (batch.first, batch.previous) == (at + 1, previous)
        assert seal(rows[at : at + batch.size], batch.first, batch.recorded, batch.previous) == batch
        previous, at = batch.hash, at + batch.size
    assert at == len(rows)
    assert ledger.head() == (at, previous)


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def contents(folder: Path) -> dict[str, str]:
    """The files of a folder with the hashes of their bytes."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def python(code: str, *arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
