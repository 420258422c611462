"""What a check can find wrong with a record: the closed list of codes."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from gmemstate.model.document import Document
from gmemstate.model.findings import Severity

_FROM_A_COPY = "restore the ledger from a copy that checks clean, or ingest its sources into a new one"


class CodeMeaning(NamedTuple):
    """What a code of a check means and what to do."""

    severity: Severity
    meaning: str
    next_step: str


CODES = {
    "BATCH-HASH": CodeMeaning(Severity.FATAL, "the bytes of a batch are not those that were sealed", _FROM_A_COPY),
    "BATCH-LINK": CodeMeaning(Severity.FATAL, "a batch does not follow the one before: the chain is broken", _FROM_A_COPY),
    "BATCH-ORDER": CodeMeaning(
        Severity.FATAL,
        "a batch does not begin where the one before has ended: a gap, a duplicate, or another order",
        _FROM_A_COPY,
    ),
    "BATCH-INVALID": CodeMeaning(
        Severity.FATAL, "a batch has a column with a type or a value that none can have", _FROM_A_COPY
    ),
    "ROW-MISSING": CodeMeaning(Severity.FATAL, "events of a batch are gone", _FROM_A_COPY),
    "ROW-OUTSIDE": CodeMeaning(Severity.FATAL, "events stand in no batch: gmemstate has not recorded them", _FROM_A_COPY),
    "ROW-INVALID": CodeMeaning(Severity.FATAL, "an event has a column with a type or a value that none can have", _FROM_A_COPY),
    "UNREADABLE": CodeMeaning(Severity.FATAL, "the database cannot read a part of the record", _FROM_A_COPY),
    "DATABASE": CodeMeaning(
        Severity.FATAL,
        "the database's own check fails",
        "copy the file and its -wal to another disk and check there; if it fails again, restore the ledger from a copy",
    ),
    "SCHEMA": CodeMeaning(
        Severity.ERROR,
        "the schema is not the one that the migrations make: a guard of the record may be gone",
        "find out who has changed it; export the record and import it into a new ledger",
    ),
    "PROJECTION": CodeMeaning(
        Severity.WARNING, "a table for readers of SQL is not what the record folds to", "`gmemstate rebuild` writes it again"
    ),
    "SNAPSHOT": CodeMeaning(
        Severity.WARNING,
        "a snapshot of the memory is not what the record folds to: it is not used, or it has misled",
        "`gmemstate rebuild` writes it again",
    ),
    "CHECKPOINT-SHORT": CodeMeaning(
        Severity.FATAL, "no batch ends where the checkpoint was made: events were lost, or cut into other batches", _FROM_A_COPY
    ),
    "CHECKPOINT-HASH": CodeMeaning(
        Severity.FATAL,
        "the record up to the checkpoint is another one: the chain was written again",
        "trust the copy that fits the checkpoint",
    ),
}
"""All codes of a check, in addition to those of findings and invariants."""


@dataclass(frozen=True, slots=True)
class Problem(Document):
    """Something wrong with a record: ``first .. last`` are the seqs of the batch, or the events, that it is about."""

    code: str
    text: str
    first: int | None = None
    last: int | None = None

    written: ClassVar = ("code", "severity", "text", "first", "last", "next_step")

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CODES[self.code].severity

    @property
    def next_step(self) -> str:
        """What to do."""
        return CODES[self.code].next_step

    def __str__(self) -> str:
        return f"{self.text} [{self.code}]"
