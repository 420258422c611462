"""Whether a record is whole and unaltered: every hash, every link, every row, and the fold of it all.

What was checked is counted, and what could not be checked is named with the reason: nothing is said to be right that was not
read.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

from gmemstate.audit.check.problems import Problem
from gmemstate.audit.check.snapshots import SnapshotComparison
from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.audit.invariants import InvariantChecker, InvariantOutcome, InvariantResult
from gmemstate.model.document import Answer
from gmemstate.model.encoding import NO_HASH, Batch, seal
from gmemstate.model.errors import BadEvent, CannotRead, GmemstateError
from gmemstate.model.events import SEQ, EventRow
from gmemstate.model.findings import Finding, Severity
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible, sound

FIRST_LINE = "gmemstate checkpoint 1"
_CHECKPOINT = re.compile(rf"{FIRST_LINE}\r?\nevents (\d{{1,19}})\r?\nhead ([0-9a-f]{{64}})\r?\nat (\d{{1,19}})\s*").fullmatch
Note = Callable[..., None]
"""What is given the code of a problem, a text, and the first and last seq that it is about."""
MOST = 1 << 32
"""More events than a batch can have."""


class Checkpoint(NamedTuple):
    """What is kept elsewhere of a record: its size and the hash of its last batch at a time (ns since 1970)."""

    seq: int
    hash: bytes
    at: int = 0

    def __str__(self) -> str:
        return f"{FIRST_LINE}\nevents {self.seq}\nhead {self.hash.hex()}\nat {self.at}\n"

    @classmethod
    def parse(cls, text: str, name: str = "checkpoint") -> "Checkpoint":
        """The checkpoint in a text. Raises CannotRead."""
        match = _CHECKPOINT(text)
        if match is None:
            raise CannotRead(f"{name}: is no checkpoint; `gmemstate checkpoint > FILE` makes one")
        return cls(int(match[1]), bytes.fromhex(match[2]), int(match[3]))


class Inspected(Protocol):
    """A record in a medium that may be damaged or altered itself; what is wrong with it is noted."""

    def medium(self) -> list[str]:
        """Check the medium by its own means; names what was checked."""

    def batches(self) -> Iterator[Batch]:
        """All batches that can be read."""

    def events(self, batch: Batch) -> list[EventRow]:
        """The events of a batch that can be read."""

    def outside(self, batches: list[Batch]) -> None:
        """Find rows that belong to no batch."""


@dataclass(frozen=True, slots=True)
class Checked(Answer):
    """The result of a check: what is wrong, what was looked at, and what could not be."""

    problems: tuple[Problem, ...]
    """what is wrong with the record itself, or with what is kept in addition to it"""
    findings: tuple[Finding, ...]
    """what fits no machine or breaks an invariant"""
    invariants: tuple[InvariantResult, ...]
    """what came of each invariant, where the record is whole"""
    batches: int
    events: int
    looked_at: tuple[str, ...]
    not_covered: tuple[str, ...]

    written: ClassVar = (
        "problems", "findings", "invariants", "batches", "events", "looked_at", "not_covered", "not_evaluable",
    )  # fmt: skip

    @property
    def not_evaluable(self) -> dict[str, list[str]]:
        """The invariants that the record cannot show, by what it lacks."""
        lacking: dict[str, list[str]] = {}
        for one in self.invariants:
            if one.outcome is InvariantOutcome.NOT_EVALUABLE:
                lacking.setdefault(one.missing or "?", []).append(one.id)
        return lacking


@dataclass
class _Checking:
    """A check on its way."""

    problems: list[Problem] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    events: int = 0
    looked_at: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)

    def note(self, code: str, text: str, first: int | None = None, last: int | None = None) -> None:
        """Something is wrong."""
        self.problems.append(Problem(code, text, first, last))

    @property
    def damaged(self) -> bool:
        """Whether the record itself is not what was recorded."""
        return any(problem.severity is Severity.FATAL for problem in self.problems)


def check(
    record: Record,
    inspect: Callable[[Note], Inspected],
    checkpoint: Checkpoint | None = None,
    stale_tables: Callable[[History], Iterable[str]] | None = None,
) -> Checked:
    """Check a record from its first byte to its last, in one pass.

    ``inspect`` opens its medium and is given what notes a problem; ``stale_tables`` names the tables that a history does not
    fold to.
    """
    result = _Checking()
    inspected = inspect(result.note)
    result.looked_at = inspected.medium()
    history = History()
    checker = InvariantChecker(history.memory)
    others: list[Problem] = []
    snapshots = SnapshotComparison(record, history.memory, lambda *problem: others.append(Problem(*problem)))
    history.fold(checker.watch(snapshots.watch(possible(sound(_whole(result, inspected)), history.memory))))
    if result.batches:
        result.looked_at.insert(0, "every hash and link")
    if checkpoint is not None:
        _against_checkpoint(result, checkpoint)
    inspected.outside(result.batches)
    unseen = "fold, machines, invariants and tables"
    findings: list[Finding] = []
    invariants: list[InvariantResult] = []
    if result.damaged:
        result.not_covered.append(f"{unseen}: the record itself is damaged")
    elif not result.batches:
        result.not_covered.append("the record is empty: there is nothing to check")
    elif snapshots.unread is not None:
        result.not_covered.append(f"{unseen}: {snapshots.unread}")
    else:
        result.problems += others
        invariants = checker.results()
        findings = [*compared(history).findings, *(breach for one in invariants for breach in one.findings)]
        result.looked_at += ["machines", "invariants"]
        if stale_tables is not None:
            _tables(result, stale_tables, history)
    return Checked(
        tuple(result.problems), tuple(findings), tuple(invariants), len(result.batches), result.events,
        tuple(result.looked_at), tuple(result.not_covered),
    )  # fmt: skip


def _tables(result: _Checking, stale_tables: Callable[[History], Iterable[str]], history: History) -> None:
    try:
        for table in stale_tables(history):
            result.note("PROJECTION", f"the table {table} is not what the record folds to")
        result.looked_at += ["tables", "snapshots"]
    except GmemstateError as error:
        result.not_covered.append(f"tables: {error}")


def _whole(result: _Checking, inspected: Inspected) -> Iterator[EventRow]:
    """Follow the chain to its end, adding to the batches; the events up to what is first found to be damaged.

    The events of a batch are given once its hash has been found right.
    """
    previous, expected = NO_HASH, 1
    for batch in inspected.batches():
        rows = list[EventRow]()
        where = f"batch {batch.first}..{batch.last}"
        if batch.first != expected:
            result.note("BATCH-ORDER", f"{where} begins where {expected} was expected", batch.first, batch.last)
        if batch.previous != previous:
            result.note("BATCH-LINK", f"{where} does not follow the batch before it", batch.first, batch.last)
        if not 1 <= batch.size <= MOST:
            result.note("BATCH-INVALID", f"{where} cannot have {batch.size} events", batch.first, batch.last)
        else:
            rows = _batch(result, inspected, batch, where)
        previous, expected = batch.hash, max(expected, batch.last + 1)
        result.batches.append(batch)
        if not result.damaged:
            yield from rows


def _against_checkpoint(result: _Checking, checkpoint: Checkpoint) -> None:
    """A chain that was written again is consistent in itself; only a checkpoint that is kept elsewhere exposes it."""
    result.looked_at.append(f"the checkpoint at event {checkpoint.seq}")
    batches = result.batches
    beginning = Batch(0, 1, 0, b"", NO_HASH)  # in front of the first batch, where an empty record ends
    then = next((batch for batch in (beginning, *batches) if batch.last == checkpoint.seq), None)
    if then is None:
        end = batches[-1].last if batches else 0
        text = f"no batch ends at event {checkpoint.seq}, where the checkpoint was made; the record ends at {end}"
        result.note("CHECKPOINT-SHORT", text, checkpoint.seq, checkpoint.seq)
    elif then.hash != checkpoint.hash:
        text = f"batch {then.first}..{then.last} has another hash than at the checkpoint"
        result.note("CHECKPOINT-HASH", text, then.first, then.last)


def _batch(result: _Checking, inspected: Inspected, batch: Batch, where: str) -> list[EventRow]:
    """Read the rows of one batch, count them and seal them once more."""
    before = len(result.problems)
    rows = inspected.events(batch)
    result.events += len(rows)
    if len(result.problems) > before:
        return rows
    if len(rows) < batch.size:
        have = {row[SEQ] for row in rows}
        gone = next(seq for seq in range(batch.first, batch.last + 1) if seq not in have)
        missing = f"{where}: {batch.size - len(rows)} of {batch.size} events are missing, the first is {gone}"
        result.note("ROW-MISSING", missing, batch.first, batch.last)
        return rows
    try:
        if seal(rows, batch.first, batch.recorded, batch.previous).hash != batch.hash:
            result.note("BATCH-HASH", f"{where}: its bytes are not those that were sealed", batch.first, batch.last)
    except BadEvent as error:
        result.note("ROW-INVALID", f"{where}: {error}", batch.first, batch.last)
    return rows
