"""Why a page is what it is: the answer with its events, each in a sentence."""

from dataclasses import dataclass
from enum import StrEnum

from gmemstate.audit.events import RecordedEvent
from gmemstate.audit.why import Facts, Spot
from gmemstate.model.document import Answer, Document
from gmemstate.model.events import Cause
from gmemstate.model.units import Gfn, Page, PageIndex, Pfn, Unit


class Backing(StrEnum):
    """What a page of a guest_memfd has."""

    NONE = "no memory"
    MEMORY = "memory"
    POISONED = "poisoned memory"


_BACKING = (None, Backing.NONE, Backing.MEMORY, Backing.POISONED)


@dataclass(frozen=True, slots=True)
class Mark(Document):
    """An entry of the messed-up set that the page is in."""

    cause: Cause
    state: str
    pfn: Pfn | None
    gfn: Gfn | None
    index: PageIndex | None


@dataclass(frozen=True, slots=True)
class Why(Answer):
    """What a page is, and the events without any one of which it would be something else."""

    unit: Unit
    page: Page
    owner: int | None
    """the id of the VM or of the guest_memfd; None for a page of the host"""
    state: str | None
    """None for a page of the host"""
    backing: Backing | None
    """None if it is not known, or no page of a guest_memfd"""
    marks: tuple[Mark, ...]
    events: tuple[RecordedEvent, ...]
    missing: tuple[str, ...]


def why_answer(spot: Spot, facts: Facts, events: tuple[RecordedEvent, ...], missing: list[str]) -> Why:
    """The answer for a page, with what is missing from the record."""
    marks = tuple(
        Mark(
            Cause[cause],
            state,
            None if pfn is None else Pfn(pfn),
            None if gfn is None else Gfn(gfn),
            None if index is None else PageIndex(index),
        )
        for cause, state, pfn, gfn, index in facts.marks
    )
    backing = None if facts.backing is None else _BACKING[facts.backing]
    return Why(Unit(spot.unit), Page(spot.page), spot.owner, facts.state, backing, marks, events, tuple(missing))
