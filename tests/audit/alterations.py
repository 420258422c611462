"""What can be done to a ledger by those who can write its file, and the code with which a check names it."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gmemstate.ledger.ledger import Ledger
from gmemstate.model import events as e
from gmemstate.model.encoding import NO_HASH, seal
from gmemstate.model.events import EventRow
from gmemstate.model.snapshot import FOLD
from tests.audit.sqlite_file import pages
from tests.model.test_histories import PRIVATE, VM, Story

GUARDS = ("event_no_update", "event_no_delete", "event_no_replace", "batch_no_update", "batch_no_delete", "batch_no_replace")


def tamper(where: Path, *statements: str) -> None:
    """What somebody does who can write the file and knows SQL: without the guards, which are put back."""
    connection = sqlite3.connect(where)
    kept = [connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0] for name in GUARDS]
    for name in GUARDS:
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    for text in kept:
        connection.execute(text)
    connection.commit()
    connection.close()


def sql(*statements: str) -> Callable[[Path], None]:
    """Some statements, behind the back of the guards."""
    return lambda where: tamper(where, *statements)


def openly(statement: str) -> Callable[[Path], None]:
    """A statement that no guard minds."""

    def run(where: Path) -> None:
        connection = sqlite3.connect(where, isolation_level=None)
        connection.execute(statement)
        connection.close()

    return run


def untyped(statement: str) -> Callable[[Path], None]:
    """A statement that the types of the columns forbid: they are taken away for its time."""

    def run(where: Path) -> None:
        for strict in (False, True):
            connection = sqlite3.connect(where, isolation_level=None)
            connection.execute("PRAGMA writable_schema = ON")
            change = "replace(sql, ')\n STRICT', ')\n -- free')" if not strict else "replace(sql, '-- free', 'STRICT')"
            connection.execute(f"UPDATE sqlite_master SET sql = {change} WHERE name IN ('event', 'batch')")
            connection.close()
            if not strict:
                tamper(where, statement)

    return run


def page_of(where: Path, seq: int) -> int:
    """The offset in the file of the page of SQLite that holds an event."""
    data = where.read_bytes()
    connection = sqlite3.connect(where)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'event'").fetchone()
    connection.close()
    return next(page.offset for page in pages(data, root) if page.leaf and seq <= page.last)


def overwritten(seq: int) -> Callable[[Path], None]:
    """A sector of a disk that lies in the middle of the events is lost: it reads as something else."""

    def run(where: Path) -> None:
        data, at = bytearray(where.read_bytes()), page_of(where, seq)
        data[at : at + 512] = b"\xa5" * 512
        where.write_bytes(data)

    return run


def disordered(where: Path) -> None:
    """A page of a table for readers has its rows in another order."""
    connection = sqlite3.connect(where)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'conversion'").fetchone()
    connection.close()
    data = bytearray(where.read_bytes())
    cells = pages(bytes(data), root)[0].offset + 8
    data[cells : cells + 4] = data[cells + 2 : cells + 4] + data[cells : cells + 2]
    where.write_bytes(data)


class Alteration(NamedTuple):
    """Something that was done, and the code that names it."""

    name: str
    code: str
    do: Callable[[Path], None]

    @property
    def of_the_record(self) -> bool:
        """Whether it touches the record itself, which the second verifier looks at."""
        return self.code.startswith(("BATCH", "ROW", "UNREADABLE"))


ALTERATIONS = [
    Alteration("a changed event", "BATCH-HASH", sql("UPDATE event SET start = start + 1 WHERE seq = 35")),
    Alteration("a lost detail", "BATCH-HASH", sql("UPDATE event SET detail = NULL WHERE seq = 1")),
    Alteration("a blank in a detail", "BATCH-HASH", sql("UPDATE event SET detail = detail || ' ' WHERE seq = 1")),
    Alteration("a replaced event", "BATCH-HASH", sql("REPLACE INTO event (seq, kind) VALUES (20, 3)")),
    Alteration("two events that changed places", "BATCH-HASH", sql(
        "UPDATE event SET seq = -1 WHERE seq = 20", "UPDATE event SET seq = 20 WHERE seq = 21",
        "UPDATE event SET seq = 21 WHERE seq = -1")),
    Alteration("another time of recording", "BATCH-HASH", sql("UPDATE batch SET recorded = recorded + 1 WHERE first = 1")),
    Alteration("one event more in a batch", "BATCH-HASH", sql("UPDATE batch SET size = size + 1 WHERE first = 1")),
    Alteration("another hash", "BATCH-HASH", sql("UPDATE batch SET hash = randomblob(32) WHERE first = 1")),
    Alteration("a cut chain", "BATCH-LINK", sql("UPDATE batch SET previous = zeroblob(32) WHERE first > 1")),
    Alteration("a lost batch", "BATCH-ORDER", sql("DELETE FROM batch WHERE first = 1")),
    Alteration("a batch twice", "BATCH-ORDER", sql(
        "INSERT INTO batch SELECT first + 1, size, recorded, previous, hash FROM batch")),
    Alteration("a batch in front of all", "BATCH-ORDER", sql(
        "INSERT INTO batch VALUES (-5, 1, 0, zeroblob(32), zeroblob(32))")),
    Alteration("a batch without events", "BATCH-INVALID", sql("UPDATE batch SET size = 0 WHERE first = 1")),
    Alteration("a hash that is none", "BATCH-INVALID", sql("UPDATE batch SET hash = x'00' WHERE first = 1")),
    Alteration("a number for a hash", "BATCH-INVALID", untyped(
        "UPDATE batch SET previous = 4611686018427387904 WHERE first > 1")),
    Alteration("a lost event", "ROW-MISSING", sql("DELETE FROM event WHERE seq = 35")),
    Alteration("a lost end", "ROW-MISSING", sql("DELETE FROM event WHERE seq > 35")),
    Alteration("no event at all", "ROW-MISSING", sql("DELETE FROM event")),
    Alteration("no batch at all", "ROW-OUTSIDE", sql("DELETE FROM batch")),
    Alteration("an event behind the end", "ROW-OUTSIDE", sql("INSERT INTO event (seq, kind) VALUES (99999, 3)")),
    Alteration("an event behind everything", "ROW-OUTSIDE", sql(
        "INSERT INTO event (seq, kind) VALUES (9223372036854775807, 3)")),
    Alteration("an event in front of everything", "ROW-OUTSIDE", sql(
        "INSERT INTO event (seq, kind) VALUES (-9223372036854775807 - 1, 3)")),
    Alteration("a word for a page", "ROW-INVALID", untyped("UPDATE event SET start = 'many' WHERE seq = 35")),
    Alteration("bytes for a detail", "ROW-INVALID", untyped("UPDATE event SET detail = x'00' WHERE seq = 1")),
    Alteration("a broken number", "ROW-INVALID", untyped("UPDATE event SET value = 1.5 WHERE seq = 35")),
    Alteration("a detail that is no text", "UNREADABLE", sql("UPDATE event SET detail = CAST(x'ff' AS TEXT) WHERE seq = 35")),
    Alteration("a lost sector", "UNREADABLE", overwritten(100)),
    Alteration("rows in another order on their page", "DATABASE", disordered),
    Alteration("a dropped guard", "SCHEMA", openly("DROP TRIGGER event_no_update")),
    Alteration("a dropped table", "SCHEMA", openly("DROP TABLE request")),
    Alteration("a dropped view", "SCHEMA", openly("DROP VIEW convert_asked")),
    Alteration("a trigger of somebody", "SCHEMA", openly(
        "CREATE TRIGGER quiet BEFORE INSERT ON event BEGIN SELECT RAISE(IGNORE); END")),
    Alteration("a trigger with a name like SQLite's own", "SCHEMA", openly(
        "CREATE TRIGGER sqliteXquiet BEFORE INSERT ON event BEGIN SELECT RAISE(IGNORE); END")),
    Alteration("a changed conversion", "PROJECTION", openly("UPDATE conversion SET errno = 5")),
    Alteration("a lost source", "PROJECTION", openly("DELETE FROM source")),
    Alteration("a range that nobody converted", "PROJECTION", openly("INSERT INTO range VALUES (1, 4096, 1, 'private')")),
    Alteration("a snapshot that is none", "SNAPSHOT", openly(f"INSERT INTO snapshot VALUES (1, {FOLD}, NULL, x'00')")),
]  # fmt: skip


def forged(where: Path, *batches: Sequence[EventRow]) -> Path:
    """A ledger whose chain is right whatever its events say, made by somebody who knows the format."""
    Ledger.open(where).close()
    connection = sqlite3.connect(where)
    first, previous = 1, NO_HASH
    for rows in batches:
        batch = seal(rows, first, 1, previous)
        connection.executemany(f"INSERT INTO event VALUES ({', '.join('?' * 13)})", rows)
        connection.execute("INSERT INTO batch VALUES (?, ?, ?, ?, ?)", batch)
        first, previous = batch.last + 1, batch.hash
    connection.commit()
    connection.close()
    with Ledger.open(where) as ledger:
        ledger.rebuild()
    return where


class Kept(Story):
    """A story that keeps its rows."""

    def __init__(self) -> None:
        self.rows: list[EventRow] = []
        super().__init__()

    def apply(self, row: EventRow) -> None:
        self.rows.append(row)
        super().apply(row)


def _undone_before_anything(story: Kept) -> None:
    conversion = story.ask(0, 8, PRIVATE)
    story.tell(e.Undone, conversion=conversion, owner=VM, start=0, npages=4, result=0)


def _reserved_behind_its_zap(story: Kept) -> None:
    conversion = story.ask(0, 8, PRIVATE)
    story.zap(conversion, 0, 8)
    story.tell(e.Reserved, conversion=conversion, owner=VM, result=0)


def _at_once(story: Kept) -> None:
    story.zap(story.ask(0, 8, PRIVATE), 0, 8)
    story.zap(story.ask(4, 8, PRIVATE, thread=12), 4, 8)


def _another_slot(story: Kept) -> None:
    story.convert(8, 8, PRIVATE)
    story.tell(e.SlotSet, slot=0, owner=VM, start=0, npages=0, flags=0, result=0)
    story.tell(e.SlotSet, slot=3, owner=VM, start=0, npages=64, flags=0, result=0)


def _given_away(story: Kept) -> None:
    story.tell(e.PrivateUnmapFailed, step=e.UnmapStep.REMOVE, pfn=0x500, owner=VM, start=3, npages=1, status=0x8000)
    other = story.tell(e.VmSeen, owner=story.seq + 1, made=1)
    story.tell(e.PrivateMapped, pfn=0x500, owner=other, start=3, npages=1)


def _of_nobody(story: Kept) -> None:
    story.answer(999, 0)


def _of_no_guest(story: Kept) -> None:
    story.tell(e.PrivateMapped, pfn=0x500, owner=999, start=3, npages=1)


def _from_the_future(story: Kept) -> None:
    story.apply((story.seq + 1, None, 250, *[None] * 10))
    story.apply((story.seq + 1, None, e.ConvertAsked.code + (7 << 8), *[None] * 10))
    row = [story.seq + 1, *e.PrivateUnmapFailed(step=e.UnmapStep.REMOVE, pfn=0x1000).row()[1:]]
    row[e.ACTOR] = 99
    story.apply(tuple(row))  # type: ignore[arg-type]


def _two_results(story: Kept) -> None:
    conversion = story.ask(0, 8, PRIVATE)
    story.answer(conversion, 12)
    outside = story.seq + 1
    story.record(e.SourceOpened(source=outside))
    story.record(e.ClockPair(source=outside, t=1_000, other=0, clock=1))
    story.record(e.ConvertAsked(source=outside, conversion=conversion, through=e.Through.VM_IOCTL))
    story.record(e.ConvertReturned(source=outside, conversion=conversion, result=0))


HISTORIES: dict[str, Callable[[Kept], None]] = {
    "RANGE-UNEXPECTED": _undone_before_anything,
    "CONVERSION-UNEXPECTED": _reserved_behind_its_zap,
    "SERIALISATION": _at_once,
    "SLOT-SWAP-FLIP": _another_slot,
    "PFN-REUSED": _given_away,
    "SOURCES-DISAGREE": _two_results,
    "UNKNOWN-CONVERSION": _of_nobody,
    "EVENT-INVALID": _of_no_guest,
    "UNKNOWN-KIND": _from_the_future,
}
"""What no kernel does, or rarely means to, by the code of its finding."""


def returned(tell: Callable[[Kept], None]) -> Iterable[EventRow]:
    """The events of a history."""
    story = Kept()
    tell(story)
    return story.rows
