"""Why a page is what it is: who made it so, the youngest first, and the events that prove it, each in a sentence."""

from dataclasses import dataclass
from enum import StrEnum

from gmemstate.audit.events import RecordedEvent
from gmemstate.audit.why import Facts, PageFact, Spot, Writer
from gmemstate.model.document import Answer, Document
from gmemstate.model.events import Cause, conversion_of
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
class LastWriter(Document):
    """What one fact about a page is due to: the conversion, or the event of none, that changed it last."""

    fact: str
    """"private", "memory", "poisoned (messed_up)" ..."""
    seq: int
    """the event at which it changed"""
    conversion: int | None
    events: tuple[int, ...]
    """those of it among the events of the answer, the youngest first"""


@dataclass(frozen=True, slots=True)
class Why(Answer):
    """What a page is, who made it so, and the events without any one of which it would be something else."""

    unit: Unit
    page: Page
    owner: int | None
    """the id of the VM or of the guest_memfd; None for a page of the host"""
    state: str | None
    """None for a page of the host"""
    backing: Backing | None
    """None if it is not known, or no page of a guest_memfd"""
    marks: tuple[Mark, ...]
    reasons: tuple[LastWriter, ...]
    """the last writers, the youngest first"""
    rests_on: tuple[int, ...]
    """the other events of the answer, without which they would not have done it, the youngest first"""
    events: tuple[RecordedEvent, ...]
    """the proof, in the order of the record: folded alone they give the same, and none can be left out"""
    missing: tuple[str, ...]


def why_answer(
    spot: Spot, facts: Facts, writers: dict[PageFact, Writer], events: tuple[RecordedEvent, ...], missing: list[str]
) -> Why:
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
    reasons = _reasons(writers, events)
    shown = {seq for reason in reasons for seq in reason.events}
    rests_on = tuple(event.seq for event in reversed(events) if event.seq not in shown)
    return Why(
        Unit(spot.unit), Page(spot.page), spot.owner, facts.state, backing, marks, reasons, rests_on, events, tuple(missing)
    )


def _reasons(writers: dict[PageFact, Writer], events: tuple[RecordedEvent, ...]) -> tuple[LastWriter, ...]:
    """One reason for each writer: what it made, and its events."""
    made: dict[int, list[str]] = {}
    first: dict[int, Writer] = {}
    for fact, writer in writers.items():
        made.setdefault(writer.key, []).append(_in_words(fact))
        first.setdefault(writer.key, writer)
    own: dict[int, list[int]] = {key: [] for key in made}
    for event in reversed(events):
        key = (conversion_of(event.event.row()) if event.seq not in own else None) or event.seq
        if key in own:
            own[key].append(event.seq)
    return tuple(
        LastWriter(" and ".join(facts), first[key].seq, first[key].conversion, tuple(own[key])) for key, facts in made.items()
    )


def _in_words(fact: PageFact) -> str:
    if fact.name == "state":
        return fact.value
    if fact.name == "backing":
        return str(_BACKING[int(fact.value)])
    return f"{fact.name.lower()} ({fact.value.split()[0]})"
