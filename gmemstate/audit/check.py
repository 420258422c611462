"""Whether a record is whole and unaltered: every hash, every link, every row, and the fold of it all.

What was looked at is counted, and what could not be looked at is named with the reason: nothing is said to be right that was
not read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gmemstate.audit.history import History
from gmemstate.model.encoding import NO_HASH, Batch, seal
from gmemstate.model.errors import BadEvent, CannotRead, GmemstateError
from gmemstate.model.events import KIND, KINDS, SEQ, EventRow
from gmemstate.model.findings import Severity
from gmemstate.model.record import Record

FIRST_LINE = "gmemstate checkpoint 1"
_CHECKPOINT = re.compile(rf"{FIRST_LINE}\r?\nevents (\d{{1,19}})\r?\nhead ([0-9a-f]{{64}})\r?\nat (\d{{1,19}})\s*").fullmatch


class Meaning(NamedTuple):
    """What a code of a check means and what to do."""

    severity: Severity
    meaning: str
    next_step: str


CODES = {
    "BATCH-HASH": Meaning(
        Severity.FATAL, "the bytes of a batch are not those that were sealed", "restore the ledger from a copy; do not trust its answers"
    ),
    "BATCH-LINK": Meaning(
        Severity.FATAL, "a batch does not follow the one before: the chain is broken", "restore the ledger from a copy"
    ),
    "BATCH-ORDER": Meaning(
        Severity.FATAL, "the seqs of a batch do not go on where the batch before ended", "restore the ledger from a copy"
    ),
    "ROW-MISSING": Meaning(Severity.FATAL, "events of a batch are gone", "restore the ledger from a copy"),
    "ROW-OUTSIDE": Meaning(Severity.FATAL, "events stand outside of every batch: they were not recorded by gmemstate", "restore the ledger from a copy"),
    "ROW-INVALID": Meaning(Severity.FATAL, "a row is no event: a column has a type or a value that none can have", "restore the ledger from a copy"),
    "KIND-UNKNOWN": Meaning(
        Severity.ERROR, "an event has a kind that this version does not know", "check with the version that wrote it, or a newer one"
    ),
    "UNREADABLE": Meaning(Severity.FATAL, "the database cannot read a part of the record", "restore the ledger from a copy"),
    "DATABASE": Meaning(Severity.FATAL, "the database's own check fails", "restore the ledger from a copy"),
    "SCHEMA": Meaning(
        Severity.ERROR, "the schema is not the one that the migrations make: a guard of the record may be gone",
        "find out who has changed it; ingest the sources into a new ledger",
    ),
    "PROJECTION": Meaning(Severity.WARNING, "a table for readers of SQL is not what the record folds to", "`gmemstate rebuild` makes it anew"),
    "CHECKPOINT-SHORT": Meaning(
        Severity.FATAL, "the record is shorter than it was at the checkpoint", "events are lost: restore the ledger from a copy"
    ),
    "CHECKPOINT-HASH": Meaning(
        Severity.FATAL, "the record up to the checkpoint is another one", "the chain was written anew: trust the copy that fits the checkpoint"
    ),
}  # fmt: skip
"""All codes of a check, beside those of findings and invariants."""


MOST = 1 << 32
"""More events than a batch can have."""


class Problem(NamedTuple):
    """Something wrong with a record: ``first .. last`` are the seqs that it is about."""

    code: str
    text: str
    first: int | None = None
    last: int | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CODES[self.code].severity

    def as_json(self) -> dict[str, Any]:
        """The problem with everything that is known of its code."""
        return {**self._asdict(), "severity": self.severity, "next_step": CODES[self.code].next_step}

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"


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
        """Check the medium by its own means; names what was looked at."""

    def batches(self) -> Iterator[Batch]:
        """All batches that can be read."""

    def events(self, batch: Batch) -> list[EventRow]:
        """The events of a batch that can be read."""

    def outside(self, batches: list[Batch]) -> None:
        """Look for rows that stand in no batch."""


@dataclass
class Checked:
    """The result of a check: what is wrong, what was looked at, and what could not be."""

    problems: list[Problem] = field(default_factory=list)
    history: History | None = None
    """the fold, where the record is whole"""
    batches: int = 0
    events: int = 0
    medium: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)

    def note(self, code: str, text: str, first: int | None = None, last: int | None = None) -> None:
        """Something is wrong."""
        self.problems.append(Problem(code, text, first, last))

    @property
    def damaged(self) -> bool:
        """Whether the record itself is not what was recorded."""
        return any(problem.severity is Severity.FATAL for problem in self.problems)


def check(record: Record, inspected: Inspected, result: Checked, checkpoint: Checkpoint | None = None) -> Checked:
    """Check a record from its first byte to its last; the result is completed and returned."""
    result.medium = inspected.medium()
    inspected.outside(_chain(result, inspected, checkpoint))
    unseen = "fold, machines, invariants and tables"
    if not result.events:
        result.not_covered.append("the record is empty: there is nothing to check")
    elif result.damaged:
        result.not_covered.append(f"{unseen}: the record itself is damaged")
    else:
        try:
            result.history = History().fold(record.events())
        except GmemstateError as error:
            result.not_covered.append(f"{unseen}: {error}")
    return result


def _chain(result: Checked, inspected: Inspected, checkpoint: Checkpoint | None) -> list[Batch]:
    """Follow the chain; the batches that were met."""
    batches: list[Batch] = []
    previous, expected = NO_HASH, 1
    for batch in inspected.batches():
        where = f"batch {batch.first}..{batch.last}"
        if batch.first != expected or batch.size < 1:
            result.note("BATCH-ORDER", f"{where} begins where {expected} was expected", batch.first, batch.last)
        if batch.previous != previous:
            result.note("BATCH-LINK", f"{where} does not follow the batch before it", batch.first, batch.last)
        if not 1 <= batch.size <= MOST:
            result.note("BATCH-ORDER", f"{where} cannot have {batch.size} events", batch.first, batch.last)
        else:
            _batch(result, inspected, batch, where)
        previous, expected = batch.hash, max(expected, batch.last + 1)
        batches.append(batch)
        result.batches += 1
    if checkpoint is not None:
        _hold_against(result, batches, checkpoint)
    return batches


def _hold_against(result: Checked, batches: list[Batch], checkpoint: Checkpoint) -> None:
    """A chain that was written anew is right in itself; only what was kept elsewhere exposes it."""
    then = next((batch for batch in batches if batch.last == checkpoint.seq), None)
    if then is None:
        end = batches[-1].last if batches else 0
        text = f"no batch ends at event {checkpoint.seq}, where the checkpoint was made; the record ends at {end}"
        result.note("CHECKPOINT-SHORT", text, checkpoint.seq, checkpoint.seq)
    elif then.hash != checkpoint.hash:
        text = f"batch {then.first}..{then.last} has another hash than at the checkpoint"
        result.note("CHECKPOINT-HASH", text, then.first, then.last)


def _batch(result: Checked, inspected: Inspected, batch: Batch, where: str) -> None:
    """Read the rows of one batch, count them and seal them once more."""
    before = len(result.problems)
    rows = inspected.events(batch)
    result.events += len(rows)
    if len(result.problems) > before:
        return
    if len(rows) < batch.size:
        have = {row[SEQ] for row in rows}
        gone = next(seq for seq in range(batch.first, batch.last + 1) if seq not in have)
        missing = f"{where}: {batch.size - len(rows)} of {batch.size} events are missing, the first is {gone}"
        result.note("ROW-MISSING", missing, gone, batch.last)
        return
    try:
        if seal(rows, batch.first, batch.recorded, batch.previous).hash != batch.hash:
            result.note("BATCH-HASH", f"{where}: its bytes are not those that were sealed", batch.first, batch.last)
    except BadEvent as error:
        result.note("ROW-INVALID", f"{where}: {error}", batch.first, batch.last)
        return
    for row in rows:
        if row[KIND] not in KINDS:
            result.note("KIND-UNKNOWN", f"event {row[SEQ]} has the unknown kind {row[KIND]}", row[SEQ], row[SEQ])
