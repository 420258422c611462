"""The answers that a record gives, whether it lies in a database or in a file."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from gmemstate.audit import queries as views
from gmemstate.audit.check.check import Checked, Checkpoint, check
from gmemstate.audit.history.corroboration import history as history_of
from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import Moment, moment_at
from gmemstate.audit.history.when import late_marks, seq_of
from gmemstate.ledger.range import RangeMachine, range_machine
from gmemstate.model.events import SEQ, Event, event_of
from gmemstate.model.memory import Memory
from gmemstate.model.record import Head, Record
from gmemstate.model.units import END, Gfn
from gmemstate.store.jsonl import JsonlInspection, JsonlRecord


class Answers(ABC):
    """What can be asked of a record; ``where`` says where it lies."""

    def __init__(self, record: Record, where: str) -> None:
        self.record_: Record = record
        self.where = where

    @property
    def dropped(self) -> list[str]:
        """What was wrong with the snapshots that were not used; a file has none."""
        return []

    @abstractmethod
    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check the record from its first byte to its last, and against a checkpoint that was kept elsewhere."""

    def stale_projections(self, history: History) -> list[str]:
        """The tables for SQL readers that are not what a history of the whole record folds to; a file has none."""
        return []

    def checkpoint(self) -> Checkpoint:
        """What to keep elsewhere of the record as it is now."""
        head = self.head()
        return Checkpoint(head.seq, head.hash, time.time_ns())

    def head(self) -> Head:
        """Where the record ends."""
        return self.record_.head()

    def events(self, first: int = 1, last: int | None = None) -> Iterator[tuple[int, Event]]:
        """The events ``first .. last`` with their seqs, typed."""
        return ((row[SEQ], event_of(row)) for row in self.record_.events(first, last))

    def history(self, at: str | int | None = None) -> History:
        """Everything that happened up to a moment (a seq, or a time like "5.31"); the whole record if None."""
        last = seq_of(self.record_, at)
        return history_of(self.record_, last, late_marks(self.record_, at, last))

    def moment(self, at: str | int | None = None) -> Moment:
        """What was true at a moment, and what was known of the sources by then."""
        last = seq_of(self.record_, at)
        found = moment_at(self.record_, last).fold(late_marks(self.record_, at, last))
        if any(source.alone for source in found.memory.sources.values()):
            found.missing_conversions = history_of(self.record_, last).missing_conversions
        return found

    def memory(self, at: str | int | None = None) -> Memory:
        """What was true at a moment."""
        return self.moment(at).memory

    def state(self, at: str | int | None = None, start: int = 0, end: int = END) -> list[views.StateRow]:
        """The state of gfns ``[start, end)`` of every guest at a moment."""
        return list(views.state(self.moment(at), start, end))

    def conversions(self, at: str | int | None = None) -> list[views.Json]:
        """All conversions with their verdicts."""
        return views.conversions(self.history(at))

    def requests(self, at: str | int | None = None) -> list[views.Json]:
        """All requests of guests with what became of them."""
        return views.requests(self.history(at))

    def messed_up(self, at: str | int | None = None) -> list[views.Json]:
        """All host pages that can no longer be trusted."""
        return views.messed_up(self.moment(at))

    def range(self, gfn: int, guest: str | None = None, at: str | int | None = None) -> RangeMachine:
        """The range machine of the pages of equal state that hold a gfn, as it was at a moment.

        ``guest`` may be left out if there is one only. Raises UsageError where it is not clear which guest is meant.
        """
        rows = self.record_.events(1, seq_of(self.record_, at))
        return range_machine(self.memory(at), rows, Gfn(gfn), guest)


class Exported(Answers):
    """An export, read in place of a ledger."""

    def __init__(self, path: Path) -> None:
        self._file = JsonlRecord(path)
        super().__init__(self._file, str(path))

    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check every line."""
        return check(self.record_, JsonlInspection(self._file), Checked(), checkpoint)
