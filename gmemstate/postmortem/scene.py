"""The scene of an incident: what was true just before each conversion of it, and who accessed its pages afterwards.

A second pass over the record, for the few ranges that incidents are about.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model import events as e
from gmemstate.model.events import KIND, NPAGES, OWNER, SEQ, START, T, conversion_of, details, event_of
from gmemstate.model.fold.apply import apply
from gmemstate.model.linux import FALLOC_FL_PUNCH_HOLE, GUEST_MEMFD_FLAG_INIT_SHARED, PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.memory import Memory, StateRun
from gmemstate.model.objects import Conversion, Slot, Vm
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible
from gmemstate.model.units import END, Gfn
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import IncidentKind
from gmemstate.postmortem.reports import Reports

NO_SLOT, NO_GMEM, CLOSED = "no memslot", "no guest_memfd", "guest_memfd closed"
GUEST_ACCESS = (e.Access.GUEST, e.Access.GUEST_PRIVATE, e.Access.GUEST_SHARED)
_BEFORE_THE_LOCK = (e.ConvertAsked.code, e.ConvertAttempted.code)
_WATCHED = frozenset((e.FaultServed.code, e.Punched.code, e.HvaUnmapped.code, e.SlotSet.code))


class MappedAgain(NamedTuple):
    """A run of pages that the host or the guest accessed and that was mapped again: gfns or page indices of ``owner``."""

    seq: int
    t: int | None
    owner: int
    access: e.Access
    start: int
    end: int
    pfn: int | None


class PagesGone(NamedTuple):
    """Pages ``[start, end)`` punched out of the guest_memfd ``owner``, or host virtual pages that lost their mapping."""

    seq: int
    t: int | None
    owner: int | None
    start: int
    end: int


class HvaRange(NamedTuple):
    """Host virtual memory of a memslot: ``hva`` and ``size`` in bytes."""

    slot: int
    hva: int
    size: int


@dataclass(slots=True)
class Scene:
    """What the second pass found, and what kernels and VMMs reported."""

    reports: Reports
    before: dict[int, list[StateRun]] = field(default_factory=dict)
    """for each conversion: the states of its range just before it"""
    mapped_again: list[MappedAgain] = field(default_factory=list)
    punches: list[PagesGone] = field(default_factory=list)
    unmaps: list[PagesGone] = field(default_factory=list)
    """host virtual ranges that lost their mapping outside of conversions"""
    hvas: dict[tuple[int, int], int] = field(default_factory=dict)
    """hva of each memslot, by guest and slot"""
    slots: dict[int, list[tuple[Vm, Slot]]] = field(default_factory=dict)
    """for each conversion of a guest_memfd: the guests and memslots that map it"""
    reasons: dict[int, str] = field(default_factory=dict)
    """for each fault of an incident: why there was no memory for its page"""

    def punch(self, gmem: int | None, index: int | None, after: int, before: int) -> PagesGone | None:
        """The first punch of a page of a guest_memfd between two events."""
        if gmem is None or index is None:
            return None
        punches = (one for one in self.punches if one.owner == gmem and after < one.seq < before)
        return next((one for one in punches if one.start <= index < one.end), None)

    def accesses(
        self, conversion: Conversion, kinds: tuple[e.Access, ...], owner: int | None, place: tuple[int, int] | None
    ) -> list[MappedAgain]:
        """The accesses to pages ``place`` of an attribute owner after a conversion; none where either is not known."""
        if owner is None or place is None:
            return []
        return [
            one
            for one in self.mapped_again
            if one.seq > conversion.last
            and one.owner == owner
            and one.access in kinds
            and one.start < place[1]
            and place[0] < one.end
        ]

    def hva_ranges(self, vm: Vm, start: int, end: int) -> list[HvaRange]:
        """The host virtual memory of gfns ``[start, end)``, slot by slot."""
        found = []
        for slot in vm.slots.values():
            low, high = max(start, slot.start), min(end, slot.end)
            hva = self.hvas.get((vm.id, slot.id))
            if low < high and hva is not None:
                found.append(HvaRange(slot.id, hva + ((low - slot.start) << PAGE_SHIFT), (high - low) << PAGE_SHIFT))
        return found

    def first_unmap(self, after: int, memory: HvaRange) -> PagesGone | None:
        """The first time that any of a host virtual range lost its mapping after an event."""
        first, last = memory.hva >> PAGE_SHIFT, (memory.hva + memory.size) >> PAGE_SHIFT
        return next((one for one in self.unmaps if one.seq > after and one.start < last and first < one.end), None)


def scene(record: Record, history: History, reports: Reports, found: list[IncidentEvents]) -> Scene:
    """Read again what incidents are about."""
    found = [one for main in found for one in (main, *(tie.part for tie in main.ties))]
    wanted = {conversion.id: conversion for incident in found for conversion in incident.all_conversions}
    faults = {
        fault.seq for incident in found if incident.kind is IncidentKind.PRIVATE_WITHOUT_MEMORY for fault in incident.faults
    }
    bounds = _bounds(history, found)
    seen = Scene(reports)
    memory = Memory()
    for row in possible(record.events(1, history.memory.seq), memory):
        begun = wanted.get(conversion_of(row) or 0)
        if begun is not None and begun.id not in seen.before and row[KIND] not in _BEFORE_THE_LOCK:
            seen.before[begun.id] = _before(memory, begun)
            seen.slots[begun.id] = [
                (vm, replace(slot))
                for vm in memory.vms.values()
                for slot in vm.slots.values()
                if not begun.in_vm and slot.gmem == begun.owner is not None
            ]
        apply(memory, row)
        if row[SEQ] in faults:
            seen.reasons[row[SEQ]] = _no_memory(memory, row)
        if row[SEQ] % 10_000 == 0:
            memory.clear_pending()
        if row[KIND] in _WATCHED:
            _watch(seen, row, bounds)
    return seen


def _before(memory: Memory, conversion: Conversion) -> list[StateRun]:
    """The states of a range; a guest_memfd that was not converted before has those of its creation."""
    owner, start, end = conversion.owner, conversion.start, conversion.end
    if owner is None or start is None or end is None:
        return []
    gmem = memory.gmems.get(owner)
    if gmem is not None and not gmem.inplace and gmem.flags is not None:
        return [StateRun(start, end, SHARED if gmem.flags & GUEST_MEMFD_FLAG_INIT_SHARED else PRIVATE)]
    return memory.runs(owner, start, end)


def _no_memory(memory: Memory, row: e.EventRow) -> str:
    """Why there was no memory for a page that was accessed."""
    vm = memory.vms.get(row[OWNER] or 0)
    slot = vm.slot_of(Gfn(row[START])) if vm is not None and row[START] is not None else None
    if slot is None:
        return NO_SLOT
    return NO_GMEM if slot.has_gmem is False else CLOSED


def _watch(seen: Scene, row: e.EventRow, bounds: dict[int, tuple[int, int]]) -> None:
    """Keep what mapped pages again or took them away, and where memslots lie in the VMM."""
    owner, start = row[OWNER], row[START] or 0
    end = END if row[NPAGES] is None else start + row[NPAGES]
    if row[KIND] in (e.FaultServed.code, e.Punched.code):
        low, high = bounds.get(owner or 0, (0, 0))
        if (row[KIND] == e.FaultServed.code and not (low < end and start < high)) or low == high:
            return
    match event_of(row):
        case e.FaultServed() as fault if owner is not None and not fault.result:
            seen.mapped_again.append(MappedAgain(row[SEQ], fault.t, owner, fault.access, start, end, fault.pfn))
        case e.Punched() as punch if not punch.result and punch.mode & FALLOC_FL_PUNCH_HOLE:
            seen.punches.append(PagesGone(row[SEQ], row[T], owner, start, end))
        case e.HvaUnmapped():
            seen.unmaps.append(PagesGone(row[SEQ], row[T], None, start, end))
        case e.SlotSet() as slot if owner is not None and slot.npages and not slot.result:
            hva = details(slot.detail).get("hva")
            if hva is not None:
                seen.hvas[(owner, slot.slot)] = int(hva, 16)


def _bounds(history: History, found: list[IncidentEvents]) -> dict[int, tuple[int, int]]:
    """For each attribute owner the smallest range that holds all its pages that incidents are about."""
    runs = [(conversion.owner, conversion.start, conversion.end) for one in found for conversion in one.all_conversions]
    runs += [
        (history.memory.guest_id(conversion.owner), *place)
        for one in found
        for conversion in one.all_conversions
        if (place := history.places.get(conversion.id)) is not None
    ]
    entries = [entry for one in found for entry in one.entries]
    pages = [(entry.gmem, entry.index) for entry in entries] + [(entry.vm, entry.gfn) for entry in entries]
    runs += [(owner, page, page + 1) for owner, page in pages if page is not None]
    bounds: dict[int, tuple[int, int]] = {}
    for owner, start, end in runs:
        if owner is not None and start is not None and end is not None:
            low, high = bounds.get(owner, (start, end))
            bounds[owner] = (min(low, start), max(high, end))
    return bounds
