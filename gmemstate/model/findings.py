"""Findings: what is wrong with a history, as values with a stable code.

A finding is no crash and no exception. Its text uses the words of Linux runtime verification
(kernel/trace/rv): ``event X not expected in the state Y``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, NamedTuple, Self

from gmemstate.model.document import Document
from gmemstate.model.units import Page, bounded, span


class Severity(StrEnum):
    """How bad a finding is."""

    FATAL = "fatal"
    """data exposed, or the host in danger"""
    ERROR = "error"
    """the kernel, or our reading of it, did what cannot be"""
    WARNING = "warning"
    """legal, but rarely meant"""


class Code(NamedTuple):
    """A kind of finding: its severity, what it means and what to do next."""

    severity: Severity
    meaning: str
    next_step: str


CATALOGUE = {
    "RANGE-UNEXPECTED": Code(
        Severity.ERROR,
        "an event is not expected in the state of a range",
        "look at the events of the range before it; a wrong join of threads or guests is likelier than a kernel bug",
    ),
    "CONVERSION-UNEXPECTED": Code(
        Severity.ERROR,
        "an event is not expected in the state of its conversion",
        "look at the events of the conversion; lost lines or a wrong join are likelier than a kernel bug",
    ),
    "SERIALISATION": Code(
        Severity.ERROR,
        "two conversions work on the same pages at once, which slots_lock and the filemap lock make impossible (INV-20)",
        "check whether two guests or two guest_memfds were taken for one",
    ),
    "SLOT-SWAP-FLIP": Code(
        Severity.WARNING,
        "private gfns lost their guest_memfd by a change of memslots: the guest now uses other memory, without a conversion",
        "convert the range to shared before its memslot is replaced",
    ),
    "PFN-REUSED": Code(
        Severity.FATAL,
        "a messed-up host page was given to somebody else before it was cleared (INV-22)",
        "stop the new owner; the page may still be mapped by the old guest",
    ),
    "SOURCES-DISAGREE": Code(
        Severity.ERROR,
        "two sources say different things of one call: of its result, or of whether there was one",
        "compare both lines; two calls that were taken for one are likelier than a kernel that lies: check threads and clocks",
    ),
    "EVENT-INVALID": Code(
        Severity.ERROR,
        "what stands as an event in the record cannot be one: a value, a detail or a reference that no version writes",
        "every answer leaves it out; find out who has written it, and ingest its source into a new ledger",
    ),
    "UNKNOWN-KIND": Code(
        Severity.ERROR,
        "an event is of a kind, or of a sort of its kind, that this version does not know",
        "read the record with the version that wrote it, or a newer one",
    ),
    "UNKNOWN-CONVERSION": Code(
        Severity.ERROR, "an event belongs to a conversion that is not open", "look for the event that should have opened it"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding(Document):
    """One finding, at one event (``seq``); ``owner`` and ``start``, ``end`` say where, if it is about pages."""

    code: str
    seq: int
    text: str
    owner: int | None = None
    start: Page | None = None
    end: Page | None = None
    """None, where there is a start: to the end of the address space"""

    written: ClassVar = ("code", "severity", "seq", "text", "owner", "start", "end")

    @classmethod
    def at(cls, code: str, seq: int, text: str, owner: int | None, start: int | None = None, end: int | None = None) -> Self:
        """A finding about pages ``[start, end)`` of an owner."""
        return cls(code, seq, text, owner, None if start is None else Page(start), bounded(end))

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CATALOGUE[self.code].severity

    def __str__(self) -> str:
        where = f" {span(self.start, self.end)}" if self.start is not None else ""
        return f"{self.seq}: {self.text}{where} [{self.code}]"


def unexpected(event: str, state: str) -> str:
    """The text of a violation, in the words of runtime verification."""
    return f"event {event} not expected in the state {state}"
