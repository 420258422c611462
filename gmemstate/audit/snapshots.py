"""Snapshots held against the fold. They are never trusted here: the memory comes from the events alone."""

from collections.abc import Callable, Iterator

from gmemstate.model.events import EventRow, T
from gmemstate.model.memory import Memory
from gmemstate.model.record import Record
from gmemstate.model.snapshot import FOLD, Snapshot, content_in, content_of


def compared(record: Record, memory: Memory, note: Callable[..., None]) -> Iterator[EventRow]:
    """All events of a record. Whoever takes them folds them into ``memory``, which each snapshot is compared with on the way."""
    at, latest = 0, None
    for kept in record.snapshots():
        if kept.fold != FOLD:
            continue  # nobody uses it
        for row in record.events(at + 1, kept.seq):
            if row[T] is not None and (latest is None or row[T] > latest):
                latest = row[T]
            yield row
        at = memory.seq
        try:
            right = content_in(kept.content) == content_of(Snapshot(memory, kept.head or b"", latest))
        except ValueError:
            right = False
        if not right or (kept.seq, kept.latest) != (at, latest):
            note("SNAPSHOT", f"the snapshot at event {kept.seq} is not what the record folds to", kept.seq, kept.seq)
    yield from record.events(at + 1)
