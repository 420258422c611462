"""Snapshots compared with the fold. They are never trusted here: the memory comes from the events alone."""

from collections.abc import Callable, Iterable, Iterator

from gmemstate.model.errors import GmemstateError
from gmemstate.model.events import SEQ, EventRow, T
from gmemstate.model.memory import Memory
from gmemstate.model.record import Kept, Record
from gmemstate.model.snapshot import FOLD, Snapshot, content_in, content_of


class SnapshotComparison:
    """Compares each snapshot of a record with a memory while the caller folds the events into it."""

    def __init__(self, record: Record, memory: Memory, note: Callable[..., None]) -> None:
        """``note(code, text, first, last)`` is called for each snapshot that differs from the memory at its event."""
        self.unread: GmemstateError | None = None
        """why snapshots could not be read, if so"""
        self._memory = memory
        self._note = note
        self._snapshots = record.snapshots()

    def watch(self, rows: Iterable[EventRow]) -> Iterator[EventRow]:
        """Pass rows on to the caller, who folds them: each must be applied before the next one is asked for."""
        due, latest = self._next(), None
        for row in rows:
            t = row[T]
            if t is not None and (latest is None or t > latest):
                latest = t
            yield row
            while due is not None and due.seq <= row[SEQ]:
                self._compare(due, latest)
                due = self._next()
        while due is not None:
            self._compare(due, latest)
            due = self._next()

    def _next(self) -> Kept | None:
        """The next snapshot that this version may use."""
        try:
            return next((kept for kept in self._snapshots if kept.fold == FOLD), None)
        except GmemstateError as error:
            self.unread = error
            return None

    def _compare(self, kept: Kept, latest: int | None) -> None:
        right = (kept.seq, kept.latest) == (self._memory.seq, latest)
        try:
            right = right and content_in(kept.content) == content_of(Snapshot(self._memory, kept.head or b"", latest))
        except ValueError:
            right = False
        if not right:
            self._note("SNAPSHOT", f"the snapshot at event {kept.seq} is not what the record folds to", kept.seq, kept.seq)
