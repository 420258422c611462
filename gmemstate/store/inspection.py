"""Reading a record out of a database that may be damaged or altered."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection

from gmemstate.model.encoding import Batch
from gmemstate.model.events import COLUMNS, EventRow
from gmemstate.store import integrity
from gmemstate.store.engine import database_errors

Note = Callable[..., None]
LEAST, GREATEST = -(1 << 63), (1 << 63) - 1
"""All keys that a table can have."""
MOST_ROWS = 512
"""More rows than fit on a page of SQLite."""
AT_ONCE = 2000
"""So many events are read at once, if their batches are small."""
PATIENCE = 10_000
"""So many rows that cannot be read one by one are looked for; after them whole runs are given up."""


class Lost(NamedTuple):
    """Keys that cannot be read, and what the database says of them."""

    first: int
    last: int
    words: str


class _Read(NamedTuple):
    """The rows ``first .. last`` of a table, and which of them cannot be read."""

    first: int
    last: int
    rows: list[Any]
    lost: list[Lost]


_SEQ = itemgetter(0)
_EVENTS = ", ".join(f'"{name}"' for name in COLUMNS)


class Inspection:
    """The record of a database, read so that damage in one place does not hide the others.

    ``connection`` sees the state of one moment (:meth:`StoredRecord.read_transaction`). ``note(code, text, first, last)`` is
    called for everything that is wrong.
    """

    def __init__(self, connection: Connection, note: Note) -> None:
        self._connection = connection.connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._note = note
        self._ahead = _Read(1, 0, [], [])

    # --- rows

    def batches(self) -> Iterator[Batch]:
        """All batches that can be read."""
        rows, lost = self._rows("batch", "first", "first, size, recorded, previous, hash", LEAST, GREATEST)
        for first, last, words in lost:
            self._note("UNREADABLE", f"batches that begin at {_span(first, last)} cannot be read: {words}", first, last)
        for first, size, recorded, previous, own in rows:
            hashes = [bytes(value) if isinstance(value, bytes | memoryview) else b"" for value in (previous, own)]
            if all(isinstance(n, int) for n in (first, size, recorded)) and all(len(value) == 32 for value in hashes):
                yield Batch(first, size, recorded, *hashes)
            else:
                self._note("BATCH-INVALID", f"the batch that begins at {first} is no batch", first, first)

    def events(self, batch: Batch) -> list[EventRow]:
        """The events of a batch that can be read."""
        first, last = batch.first, min(batch.last, GREATEST)
        ahead = self._ahead
        if not ahead.first <= first <= last <= ahead.last:
            upto = min(max(last, first + AT_ONCE), GREATEST)
            ahead = self._ahead = _Read(first, upto, *self._rows("event", "seq", _EVENTS, first, upto))
        for low, high, words in ahead.lost:
            if low <= last and first <= high:
                which = _span(max(low, first), min(high, last))
                self._note(
                    "UNREADABLE", f"batch {first}..{batch.last}: events {which} cannot be read: {words}", first, batch.last
                )
        return ahead.rows[bisect_left(ahead.rows, first, key=_SEQ) : bisect_right(ahead.rows, last, key=_SEQ)]

    def outside(self, batches: Sequence[Batch]) -> None:
        """Note events that stand in no batch."""
        at = LEAST
        for batch in sorted(batches):
            if at < batch.first:
                self._strays(at, batch.first - 1)
            at = max(at, batch.last + 1)
        if at <= GREATEST:
            self._strays(at, GREATEST)

    def _strays(self, low: int, high: int) -> None:
        for first, last, count in self._values(
            f"SELECT min(seq), max(seq), count(*) FROM event WHERE seq BETWEEN {low} AND {high}"
        ):
            if count:
                self._note("ROW-OUTSIDE", f"{count} events from {first} to {last} stand in no batch", first, last)

    def _rows(self, table: str, key: str, columns: str, low: int, high: int) -> tuple[list[Any], list[Lost]]:
        """Rows by ascending key, and the runs of keys that cannot be read: around them the search goes on in halves."""
        query = f"SELECT {columns} FROM {table} WHERE {key} BETWEEN %d AND %d ORDER BY {key}"
        rows: list[Any] = []
        lost: list[Lost] = []
        bounds: tuple[int, int] | None = None
        todo, given_up = [(low, high)], 0
        while todo:
            first, last = todo.pop()
            try:
                cursor = self._connection.cursor()
                cursor.execute(query % (first, last))
                rows += cursor.fetchall()
                continue
            except _damage() as error:
                words = str(error).splitlines()[0]
                if not self._sqlite:
                    self._connection.rollback()
            if bounds is None:
                bounds = self._bounds(table, key)
                first, last = max(first, bounds[0]), min(last, bounds[1])
            if first > last:
                continue
            if first < last and given_up < PATIENCE:
                middle = (first + last) // 2
                todo += [(middle + 1, last), (first, middle)]
            elif lost and lost[-1].last == first - 1:
                lost[-1], given_up = Lost(lost[-1].first, last, lost[-1].words), given_up + 1
            else:
                lost.append(Lost(first, last, words))
        return rows, lost

    def _bounds(self, table: str, key: str) -> tuple[int, int]:
        """The least and the greatest key; where they cannot be asked for, what the size of the file allows."""
        low, high = self._number(f"SELECT min({key}) FROM {table}"), self._number(f"SELECT max({key}) FROM {table}")
        if high is None:
            high = MOST_ROWS * (self._number("PRAGMA page_count") or 1)
        return 1 if low is None else low, high

    def _number(self, query: str) -> int | None:
        """What a query gives, None where it gives nothing or cannot be asked."""
        try:
            cursor = self._connection.cursor()
            cursor.execute(query)
            ((found,),) = cursor.fetchall()
        except _damage():
            if not self._sqlite:
                self._connection.rollback()
            return None
        return found if isinstance(found, int) else None

    def _values(self, query: str) -> list[Any]:
        try:
            cursor = self._connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall()) if cursor.description else []
        except _damage() as error:
            if not self._sqlite:
                self._connection.rollback()
            self._note("UNREADABLE", f"{query.split(' WHERE', maxsplit=1)[0]}: {str(error).splitlines()[0]}", None, None)
            return []

    # --- the database itself

    def medium(self) -> list[str]:
        """Run the database's own check and compare its schema; names what was looked at."""
        return (integrity.of_sqlite if self._sqlite else integrity.of_postgresql)(self._values, self._note)


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}..{last}"


def _damage() -> tuple[type[Exception], ...]:
    return (*database_errors(), OverflowError, UnicodeDecodeError)
