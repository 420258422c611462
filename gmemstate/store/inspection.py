"""Reading a database that may be damaged or altered, and looking at what it says of itself."""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, create_engine, text

from gmemstate.model.encoding import Batch
from gmemstate.model.events import COLUMNS, EventRow
from gmemstate.store.database import database_errors, upgrade
from gmemstate.store.schema import metadata

Note = Callable[..., None]
FAR = (1 << 63) - 1
"""Behind every seq."""
_EVENTS = ", ".join(f'"{name}"' for name in COLUMNS)


class Inspection:
    """The record of a database, read so that damage in one place does not hide the others.

    ``connection`` sees the state of one moment (:meth:`StoredRecord.still`). ``note(code, text, first, last)`` is called for everything that is wrong.
    """

    def __init__(self, connection: Connection, note: Note) -> None:
        self._connection = connection.connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._note = note

    # --- rows

    def batches(self) -> Iterator[Batch]:
        """All batches that can be read."""
        for first, size, recorded, previous, own in self._rows(
            "batch", "first", "first, size, recorded, previous, hash", 1, FAR
        ):
            if all(isinstance(n, int) for n in (first, size, recorded)) and isinstance(own, bytes | memoryview):
                yield Batch(first, size, recorded, bytes(previous), bytes(own))
            else:
                self._note("ROW-INVALID", f"the batch that begins at {first} is no batch", first, first)

    def events(self, batch: Batch) -> list[EventRow]:
        """The events of a batch that can be read."""
        return list(self._rows("event", "seq", _EVENTS, batch.first, batch.last))

    def outside(self, batches: Sequence[Batch]) -> None:
        """Note events that stand in no batch."""
        at = -FAR
        for batch in [*sorted(batches), Batch(FAR, 1, 0, b"", b"")]:
            if at < batch.first - 1 or batch.first == FAR:
                for first, last, count in self._values(
                    f"SELECT min(seq), max(seq), count(*) FROM event WHERE seq >= {at} AND seq < {batch.first}"
                ):
                    if count:
                        self._note("ROW-OUTSIDE", f"{count} events from {first} to {last} stand in no batch", first, last)
            at = max(at, batch.last + 1)

    def _rows(self, table: str, key: str, columns: str, first: int, last: int) -> Iterator[Any]:
        """Rows by ascending key; around a place that cannot be read the search goes on in halves."""
        try:
            cursor = self._connection.cursor()
            cursor.execute(f"SELECT {columns} FROM {table} WHERE {key} BETWEEN {first} AND {last} ORDER BY {key}")
            rows = cursor.fetchall()
        except _damage() as error:
            if not self._sqlite:
                self._connection.rollback()
            yield from self._around(table, key, columns, first, last, error)
            return
        yield from rows

    def _around(self, table: str, key: str, columns: str, first: int, last: int, error: BaseException) -> Iterator[Any]:
        if last == FAR:
            last = self._end(table, key, first)
        if first >= last:
            words = str(error).splitlines()[0]
            self._note("UNREADABLE", f"{table} {first} cannot be read: {words}", first, last)
            return
        middle = (first + last) // 2
        yield from self._rows(table, key, columns, first, middle)
        yield from self._rows(table, key, columns, middle + 1, last)

    def _end(self, table: str, key: str, first: int) -> int:
        """The greatest key that can be found; bounded by the size of the file where it cannot be asked for."""
        found = self._values(f"SELECT max({key}) FROM {table}")
        if found and isinstance(found[0][0], int):
            return int(found[0][0])
        pages = self._values("PRAGMA page_count") if self._sqlite else []
        return first + (int(pages[0][0]) * 256 if pages else 1)

    def _values(self, query: str) -> list[Any]:
        try:
            cursor = self._connection.cursor()
            cursor.execute(query)
            return list(cursor.fetchall())
        except _damage() as error:
            if not self._sqlite:
                self._connection.rollback()
            self._note("UNREADABLE", f"{query.split(' WHERE', maxsplit=1)[0]}: {str(error).splitlines()[0]}", None, None)
            return []

    # --- the database itself

    def medium(self) -> list[str]:
        """Run the database's own check and compare its schema; names what was looked at."""
        if not self._sqlite:
            self._postgres_schema()
            return ["the columns of the tables", "the guards of the record"]
        for (line,) in self._values("PRAGMA integrity_check"):
            if line != "ok":
                self._note("DATABASE", f"integrity_check: {line}", None, None)
        self._schema()
        return ["PRAGMA integrity_check", "the schema"]

    def _schema(self) -> None:
        """Compare tables, triggers and views with those of a new ledger."""
        expected = _new_schema()
        have = _schema_of(self._values(_SCHEMA))
        for name in sorted(expected.keys() | have.keys()):
            if name not in have:
                self._note("SCHEMA", f"{name} is gone", None, None)
            elif name not in expected:
                self._note("SCHEMA", f"{name} does not belong here", None, None)
            elif have[name] != expected[name]:
                self._note("SCHEMA", f"{name} was changed", None, None)

    def _postgres_schema(self) -> None:
        """Compare the columns, and the triggers that keep the record append-only, with those that migrations make."""
        guards = {str(table): guard for table, *guard in self._values(_GUARDS)}
        for table in ("event", "batch"):
            guard = guards.get(table)
            if guard is None:
                self._note("SCHEMA", f"the trigger {table}_append_only is gone", None, None)
            elif guard[0] not in ("O", "A"):
                self._note("SCHEMA", f"the trigger {table}_append_only is disabled", None, None)
            elif guard[1] != _UPDATE_DELETE_TRUNCATE or "RAISE EXCEPTION" not in guard[2]:
                self._note("SCHEMA", f"the trigger {table}_append_only was changed", None, None)
        have = {(table, column): (kind, null) for table, column, kind, null in self._values(_FIELDS)}
        for column in (column for table in metadata.sorted_tables for column in table.columns):
            expected = (_TYPES[type(column.type).__name__], "YES" if column.nullable else "NO")
            if have.get((column.table.name, column.name)) != expected:
                self._note("SCHEMA", f"the column {column.table.name}.{column.name} was changed", None, None)


def _damage() -> tuple[type[Exception], ...]:
    return (*database_errors(), OverflowError, UnicodeDecodeError)


_GUARDS = """
    SELECT tgrelid::regclass::text, tgenabled::text, tgtype, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE tgname = tgrelid::regclass::text || '_append_only'
"""
_UPDATE_DELETE_TRUNCATE = 2 | 8 | 16 | 32
"""``tgtype`` of a trigger that fires before these statements (``TRIGGER_TYPE_*`` in PostgreSQL's pg_trigger.h)."""

_FIELDS = """
    SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
    WHERE table_schema = current_schema()
"""
_TYPES = {"BigInteger": "bigint", "Text": "text", "LargeBinary": "bytea"}


@cache
def _new_schema() -> dict[str, str]:
    """The schema of a new ledger."""
    fresh = create_engine("sqlite://")
    try:
        upgrade(fresh)
        with fresh.connect() as connection:
            return _schema_of([tuple(row) for row in connection.execute(text(_SCHEMA))])
    finally:
        fresh.dispose()


_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"


def _schema_of(rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    return {f"{kind} {name}": re.sub(r"\s+", " ", str(sql)) for kind, name, sql in rows}
