"""What differs: between two moments of a record, or between two records."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from gmemstate.audit.events import RecordedEvent
from gmemstate.model.document import Answer, Document
from gmemstate.model.events import EventRow
from gmemstate.model.memory import Memory
from gmemstate.model.record import Record
from gmemstate.model.units import Page, bounded, hexadecimal

ABSENT = "not there"
"""The state of a page of a guest that is not on record."""


@dataclass(frozen=True, slots=True)
class Change(Document):
    """Pages ``[start, end)`` of a guest that are in another state, or an entry of the messed-up set (``start`` None)."""

    guest: str
    start: Page | None
    end: Page | None
    """None, where there is a start: to the end of the address space"""
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Divergence(Document):
    """The first place where two records differ: a seq and what each has there, None where it has ended."""

    seq: int
    this: RecordedEvent | None
    other: RecordedEvent | None


@dataclass(frozen=True, slots=True)
class Diff(Answer):
    """What differs between two moments of a record, or between two records and the states at their ends."""

    first_difference: Divergence | None
    """None for two moments, and where two records have the same events"""
    changes: tuple[Change, ...]


def changes(before: Memory, after: Memory) -> Iterator[Change]:
    """What is different in ``after``: guests are the same if they have the same number."""
    guests = {vm.number: vm for vm in before.vms.values()}
    later = {vm.number: vm for vm in after.vms.values()}
    for number in sorted(guests.keys() | later.keys()):
        one, other = guests.get(number), later.get(number)
        name = f"vm{number}"
        yield from _states(name, _runs(before, one.id if one else None), _runs(after, other.id if other else None))
    yield from _marks(before, after)


def _runs(memory: Memory, vm: int | None) -> list[tuple[int, int, str]]:
    if vm is None:
        return [(0, 1 << 64, ABSENT)]
    return [tuple(run) for run in memory.guest_runs(vm) if run.start < run.end]  # type: ignore[misc]


def _states(guest: str, before: list[tuple[int, int, str]], after: list[tuple[int, int, str]]) -> Iterator[Change]:
    """The runs in which two coverings of the same pages differ, coalesced."""
    pending: tuple[int, int, str, str] | None = None
    i = j = 0
    while i < len(before) and j < len(after):
        start, end = max(before[i][0], after[j][0]), min(before[i][1], after[j][1])
        states = before[i][2], after[j][2]
        if pending is not None and pending[1:] == (start, *states):
            pending = (pending[0], end, *states)
        else:
            yield from _changed(guest, pending)
            pending = (start, end, *states)
        i, j = i + (before[i][1] == end), j + (after[j][1] == end)
    yield from _changed(guest, pending)


def _changed(guest: str, run: tuple[int, int, str, str] | None) -> Iterator[Change]:
    if run is not None and run[2] != run[3]:
        yield Change(guest, Page(run[0]), bounded(run[1]), run[2], run[3])


def _marks(before: Memory, after: Memory) -> Iterator[Change]:
    for key in sorted(before.messed_up.keys() | after.messed_up.keys()):
        one, other = before.messed_up.get(key), after.messed_up.get(key)
        entry = other or one
        states = (one.state if one else ABSENT), (other.state if other else ABSENT)
        if entry is not None and states[0] != states[1]:
            where = f"pfn {hexadecimal(entry.pfn)}" if entry.pfn is not None else f"page of event {entry.id}"
            yield Change(f"{entry.cause.name.lower()} {where}", None, None, *states)


def divergence(one: Record, other: Record) -> tuple[EventRow | None, EventRow | None] | None:
    """The first event in which two records differ, None where a record has ended; None if they have the same events."""
    return next(((a, b) for a, b in zip_longest(one.events(), other.events()) if a != b), None)
