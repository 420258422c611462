"""Whether a record is whole and unaltered: every hash, every link, every row, and the fold of it all.

What was checked is counted, and what could not be checked is named with the reason: nothing is said to be right that was not
read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gmemstate.audit.check.problems import Problem
from gmemstate.audit.check.snapshots import SnapshotComparison
from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.audit.invariants import InvariantChecker, InvariantOutcome, InvariantResult
from gmemstate.model.encoding import NO_HASH, Batch, seal
from gmemstate.model.errors import BadEvent, CannotRead
from gmemstate.model.events import SEQ, EventRow
from gmemstate.model.findings import Finding, Severity
from gmemstate.model.record import Record

FIRST_LINE = "gmemstate checkpoint 1"
_CHECKPOINT = re.compile(rf"{FIRST_LINE}\r?\nevents (\d{{1,19}})\r?\nhead ([0-9a-f]{{64}})\r?\nat (\d{{1,19}})\s*").fullmatch
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
    """A record in a medium that may be damaged or altered itself; what is wrong with it goes to :meth:`Checked.note`."""

    def medium(self) -> list[str]:
        """Check the medium by its own means; names what was checked."""

    def batches(self) -> Iterator[Batch]:
        """All batches that can be read."""

    def events(self, batch: Batch) -> list[EventRow]:
        """The events of a batch that can be read."""

    def outside(self, batches: list[Batch]) -> None:
        """Find rows that belong to no batch."""


@dataclass
class Checked:
    """The result of a check: the problems, what was checked, and what could not be."""

    problems: list[Problem] = field(default_factory=list)
    history: History | None = None
    """the fold, where the record is whole"""
    judged: list[InvariantResult] = field(default_factory=list)
    """what came of each invariant, where the record is whole"""
    batches: int = 0
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

    @property
    def findings(self) -> list[Finding]:
        """What fits no machine or breaks an invariant."""
        return [*(self.history.findings if self.history is not None else ()), *(b for j in self.judged for b in j.findings)]

    def not_evaluable(self) -> dict[str, list[str]]:
        """The invariants that the record cannot show, by what it lacks."""
        lacking: dict[str, list[str]] = {}
        for judged in self.judged:
            if judged.outcome is InvariantOutcome.NOT_EVALUABLE:
                lacking.setdefault(judged.missing or "?", []).append(judged.invariant.id)
        return lacking


def check(record: Record, inspected: Inspected, result: Checked, checkpoint: Checkpoint | None = None) -> Checked:
    """Check a record from its first byte to its last, in one pass; the result is completed and returned."""
    result.looked_at = inspected.medium()
    history = History()
    invariants = InvariantChecker(history.memory)
    others: list[Problem] = []
    snapshots = SnapshotComparison(record, history.memory, lambda *problem: others.append(Problem(*problem)))
    batches: list[Batch] = []
    history.fold(invariants.watch(snapshots.watch(_sound(result, inspected, batches))))
    result.batches = len(batches)
    if batches:
        result.looked_at.insert(0, "every hash and link")
    if checkpoint is not None:
        _against_checkpoint(result, batches, checkpoint)
    inspected.outside(batches)
    unseen = "fold, machines, invariants and tables"
    if result.damaged:
        result.not_covered.append(f"{unseen}: the record itself is damaged")
    elif not batches:
        result.not_covered.append("the record is empty: there is nothing to check")
    elif snapshots.unread is not None:
        result.not_covered.append(f"{unseen}: {snapshots.unread}")
    else:
        result.problems += others
        result.history, result.judged = compared(history), invariants.results()
        result.looked_at += ["machines", "invariants"]
    return result


def _sound(result: Checked, inspected: Inspected, batches: list[Batch]) -> Iterator[EventRow]:
    """Follow the chain to its end, adding to ``batches``; the events up to what is first found to be damaged.

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
        batches.append(batch)
        if not result.damaged:
            yield from rows


def _against_checkpoint(result: Checked, batches: list[Batch], checkpoint: Checkpoint) -> None:
    """A chain that was written again is consistent in itself; only a checkpoint that is kept elsewhere exposes it."""
    result.looked_at.append(f"the checkpoint at event {checkpoint.seq}")
    beginning = Batch(0, 1, 0, b"", NO_HASH)  # in front of the first batch, where an empty record ends
    then = next((batch for batch in (beginning, *batches) if batch.last == checkpoint.seq), None)
    if then is None:
        end = batches[-1].last if batches else 0
        text = f"no batch ends at event {checkpoint.seq}, where the checkpoint was made; the record ends at {end}"
        result.note("CHECKPOINT-SHORT", text, checkpoint.seq, checkpoint.seq)
    elif then.hash != checkpoint.hash:
        text = f"batch {then.first}..{then.last} has another hash than at the checkpoint"
        result.note("CHECKPOINT-HASH", text, then.first, then.last)


def _batch(result: Checked, inspected: Inspected, batch: Batch, where: str) -> list[EventRow]:
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
