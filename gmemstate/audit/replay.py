"""A record folded again: what of it fits no machine, which invariants are broken, and which tables are stale."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.audit.invariants import InvariantChecker, InvariantOutcome, InvariantResult
from gmemstate.model.document import Answer
from gmemstate.model.findings import Finding
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Replayed(Answer):
    """What came of folding a record again."""

    events: int
    conversions: int
    requests: int
    guests: int
    findings: tuple[Finding, ...]
    """what fits no machine, and where sources disagree"""
    stale_tables: tuple[str, ...]
    """tables for SQL readers that are not what the record folds to"""
    invariants: tuple[InvariantResult, ...]
    missing: tuple[str, ...]
    """why the record may be incomplete"""

    @property
    def broken(self) -> tuple[InvariantResult, ...]:
        """The invariants that are broken."""
        return tuple(one for one in self.invariants if one.outcome is InvariantOutcome.BROKEN)


def replay(
    record: Record, stale_tables: Callable[[History], Iterable[str]], progress: Callable[[int], None] | None = None
) -> Replayed:
    """Fold a record again; ``progress`` is given how many events are folded, from time to time."""
    history = History()
    checker = InvariantChecker(history.memory)
    history.fold(checker.watch(possible(_watched(record.events(), progress or (lambda _done: None)), history.memory)))
    compared(history)
    return Replayed(
        events=history.memory.seq,
        conversions=len(history.ordered()),
        requests=len(history.requests),
        guests=len(history.memory.vms),
        findings=tuple(history.findings),
        stale_tables=tuple(stale_tables(history)),
        invariants=tuple(checker.results()),
        missing=tuple(history.missing()),
    )


def _watched(rows: Iterable[Row], progress: Callable[[int], None]) -> Iterator[Row]:
    for n, row in enumerate(rows):
        if not n % 1000:
            progress(n)
        yield row
