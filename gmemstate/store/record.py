"""Reading the record out of a database."""

from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import count
from typing import Any

from sqlalchemy import Connection, Engine

from gmemstate.model.encoding import Batch
from gmemstate.model.events import COLUMNS, KIND, EventRow, Gap
from gmemstate.model.memory import Memory
from gmemstate.model.record import EMPTY, Head, Kept, LoadedSnapshot, SourceInfo
from gmemstate.model.snapshot import BadSnapshot
from gmemstate.model.soundness import sound
from gmemstate.store import snapshots
from gmemstate.store.engine import explained

_COLUMNS = ", ".join(f'"{name}"' for name in COLUMNS)
AT_ONCE = 256
"""How many rows are fetched at once: so few that they stay in the processor's cache until they are used."""


class StoredRecord:
    """A record in a database. Each question reads one consistent state."""

    def __init__(self, engine: Engine, where: str) -> None:
        self.engine = engine
        self.where = where
        self._still: Connection | None = None
        self._streams = count()
        self.dropped: dict[int, str] = {}
        """why the snapshots at some seqs were not used"""

    @contextmanager
    def read_transaction(self) -> Iterator[Connection]:
        """Inside, all questions read the state of one moment, whoever records meanwhile; gives the connection."""
        with explained(self.where), self.engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.connection.cursor().execute("BEGIN")
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            self._still = connection
            try:
                yield connection
            finally:
                self._still = None

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        with explained(self.where):
            if self._still is not None:
                yield self._still
                return
            with self.engine.connect() as connection:
                yield connection

    def _stream(self, query: str) -> Generator[Any, None, None]:
        """Rows as they are asked for; a cursor of PostgreSQL fetches all of them at once if it has no name."""
        with self._reading() as connection:
            driver = connection.connection.driver_connection
            name = [] if connection.dialect.name == "sqlite" else [f"stream_{next(self._streams)}"]
            with closing(driver.cursor(*name)) as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(AT_ONCE):
                    yield from rows

    def head(self) -> Head:
        """Where the record ends."""
        with self._reading() as connection:
            return head_of(connection.connection.cursor())

    def rows(self, first: int = 1, last: int | None = None) -> Generator[EventRow, None, None]:
        """The events ``first .. last`` as they are stored, streamed; who does not take all of them closes the stream."""
        upto = "" if last is None else f" AND seq <= {last:d}"
        return self._stream(f"SELECT {_COLUMNS} FROM event WHERE seq >= {first:d}{upto} ORDER BY seq")

    def events(self, first: int = 1, last: int | None = None) -> Generator[EventRow, None, None]:
        """The same, with an unusable event in place of each that cannot be one."""
        return sound(self.rows(first, last))

    def of_kinds(self, kinds: Collection[int]) -> Iterator[EventRow]:
        """All usable events of some kinds, in order."""
        wanted = ", ".join(f"{kind:d}" for kind in kinds)
        found = sound(self._stream(f"SELECT {_COLUMNS} FROM event WHERE kind IN ({wanted}) ORDER BY seq"))
        return (row for row in found if row[KIND] in kinds)

    def batches(self) -> Iterator[Batch]:
        """All batches, oldest first."""
        rows = self._stream("SELECT first, size, recorded, previous, hash FROM batch ORDER BY first")
        return (Batch(first, size, at, bytes(previous), bytes(own)) for first, size, at, previous, own in rows)

    def remembered(self, last: int | None = None, *, time: int | None = None) -> LoadedSnapshot:
        """What the youngest good snapshot up to event ``last`` kept, or that before the first event after ``time`` (ns).

        A bad one is passed over, and stands in ``dropped`` from then on: the record wins.
        """
        with self._reading() as connection:
            cursor = connection.connection.cursor()
            upto = snapshots.FAR if last is None else last
            while (found := snapshots.youngest(cursor, upto, time)) is not None:
                try:
                    memory = snapshots.verified(found).memory
                except BadSnapshot as error:
                    self.dropped[found.seq] = f"the snapshot at event {found.seq} was not used: it {error}"
                    upto = found.seq - 1
                    continue
                sources = ", ".join(f"{seq:d}" for source in memory.sources.values() for seq in source.about)
                cursor.execute(f"SELECT {_COLUMNS} FROM event WHERE seq IN ({sources or 'NULL'}) ORDER BY seq")
                return LoadedSnapshot(memory, list(sound(cursor.fetchall())))
        return LoadedSnapshot(Memory(), [])

    def snapshots(self) -> Iterator[Kept]:
        """All snapshots, oldest first."""
        return map(snapshots.kept, self._stream(snapshots.ALL))

    def sources(self) -> list[SourceInfo]:
        """The sources that were read, oldest first."""
        with self._reading() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("SELECT id, name, format, head, head_size, read_to, whole FROM source ORDER BY id")
            return [SourceInfo._make((*row[:6], bool(row[6]))) for row in cursor.fetchall()]

    def last_time(self, source: int) -> int | None:
        """The latest time (ns of its own clock) that a source has shown."""
        with self._reading() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(f"SELECT max(t) FROM event WHERE source = {source:d} AND kind <> {Gap.code:d}")
            found: int | None = cursor.fetchone()[0]
            return found

    def table(self, name: str) -> list[tuple[Any, ...]]:
        """All rows of a projection, ordered by its key."""
        order = "1, 2" if name == "range" else "1"
        with self._reading() as connection:
            cursor = connection.connection.cursor()
            cursor.execute(f'SELECT * FROM "{name}" ORDER BY {order}')
            return [tuple(row) for row in cursor.fetchall()]


def head_of(cursor: Any) -> Head:
    """Where the record ends, asked inside a transaction."""
    cursor.execute("SELECT first, size, hash FROM batch ORDER BY first DESC LIMIT 1")
    row = cursor.fetchone()
    return EMPTY if row is None else Head(row[0] + row[1] - 1, bytes(row[2]))


def batch_of(cursor: Any, seq: int) -> Head:
    """The end of the batch that holds an event."""
    cursor.execute(f"SELECT first, size, hash FROM batch WHERE first <= {seq:d} ORDER BY first DESC LIMIT 1")
    first, size, own = cursor.fetchone()
    return Head(first + size - 1, bytes(own))
