"""The state of pages: shared, private, in conversion or unknown, and why there may be no memory for them."""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from itertools import pairwise

from gmemstate.audit.history.moment import Moment
from gmemstate.audit.queries.evidence import NO_GUEST
from gmemstate.model.document import Document
from gmemstate.model.machines.range import PRIVATE, UNKNOWN, is_in_flight
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Vm
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, Gfn, Page, PageRange, Unit, bounded


class Unbacked(StrEnum):
    """Why a private gfn can have no memory."""

    NO_SLOT = auto()
    NO_GMEM = auto()
    """its memslot has no guest_memfd"""
    GMEM_CLOSED = auto()


@dataclass(frozen=True, slots=True)
class StateRow(Document):
    """Pages ``[start, end)`` of one guest, or of a guest_memfd in no memslot, that are in one state and alike otherwise."""

    guest: str
    unit: Unit
    gmem: int | None
    """the guest_memfd whose pages are meant; None for gfns"""
    start: Page
    end: Page | None
    """None: to the end of the address space"""
    pages: int | None
    """how many; None without an end"""
    state: str
    unbacked: Unbacked | None
    """why there can be no private memory for it"""
    held_by: int | None
    """the conversion that is at work on it"""
    guest_gone: str | None
    """what became of the guest: None, "bugged", "dead" or "destroyed"; the state is that of its end"""

    def meets(self, pages: PageRange) -> bool:
        """Whether some of these pages are among them."""
        return pages.meets(self.unit, self.start, self.end)

    def alike(self) -> tuple[object, ...]:
        """What two rows have in common that differ in their pages only."""
        return self.state, self.unbacked, self.held_by, self.guest, self.gmem, self.guest_gone


def _row(
    vm: Vm | None,
    start: int,
    end: int,
    state: str,
    why: Unbacked | None = None,
    held: int | None = None,
    gmem: int | None = None,
) -> StateRow:
    name, gone = (NO_GUEST, None) if vm is None else (vm.name, vm.gone)
    unit, last = Unit.GFN if gmem is None else Unit.INDEX, bounded(end)
    return StateRow(name, unit, gmem, Page(start), last, None if last is None else last - start, state, why, held, gone)


EVERYTHING = PageRange(Unit.GFN, 0)


def state(moment: Moment, pages: PageRange = EVERYTHING) -> Iterator[StateRow]:
    """The state of pages: gfns guest by guest, or page indices of each guest_memfd.

    A look at all gfns adds the guest_memfds that are in no memslot.
    """
    memory, (unit, start, end) = moment.memory, pages
    if unit is Unit.GFN:
        for vm in memory.vms.values():
            yield from _coalesced(_guest_rows(moment, vm, start, end))
        runs = _unplaced(memory).runs(start, end)
        yield from _coalesced(_row(None, first, last, UNKNOWN) for first, last, conversions in runs if conversions)
    for gmem in memory.gmems.values():
        if gmem.inplace and (unit is Unit.INDEX or (pages == EVERYTHING and not _in_a_slot(memory, gmem.id))):
            for run in memory.known_runs(gmem.id, start, end):
                guest = memory.vms.get(memory.guest_id(gmem.id) or 0)
                held = _held(memory, gmem.id, run.start) if is_in_flight(run.state) or run.state == UNKNOWN else None
                yield _row(guest, run.start, run.end, run.state, held=held, gmem=gmem.id)


def unbacked(moment: Moment, vm: Vm, gfn: Gfn) -> Unbacked | None:
    """Why there can be no private memory for a gfn; None if there can, or if it is not known."""
    slot = vm.slot_of(gfn)
    if slot is None:
        return Unbacked.NO_SLOT if moment.memory.slots_known(vm) else None
    if slot.has_gmem is False:
        return Unbacked.NO_GMEM
    gmem = moment.memory.gmems.get(slot.gmem or 0)
    return Unbacked.GMEM_CLOSED if gmem is not None and gmem.released else None


def _unplaced(memory: Memory) -> RangeMap:
    """The pages of conversions whose guest is not known."""
    pages = memory.unplaced.copy()
    for conversion in memory.conversions.values():
        conversion.unplace(pages)
    return pages


def _in_a_slot(memory: Memory, gmem: int) -> bool:
    return any(slot.gmem == gmem for vm in memory.vms.values() for slot in vm.slots.values())


def _guest_rows(moment: Moment, vm: Vm, start: int, end: int) -> Iterator[StateRow]:
    """The runs of a guest, cut where memslots begin and end and the memory for a page changes."""
    memory = moment.memory
    edges = sorted({0, END, *(edge for slot in vm.slots.values() for edge in (slot.start, slot.end))})
    reasons = [unbacked(moment, vm, Gfn(edge)) for edge in edges]
    for first, last, state in memory.guest_runs(vm.id, start, end):
        if first >= last:
            continue
        at = bisect(edges, first)
        cuts = [first, *edges[at : bisect_left(edges, last)], last]
        for n, (low, high) in enumerate(pairwise(cuts), at - 1):
            held = _holder(memory, vm, low) if is_in_flight(state) or state == UNKNOWN else None
            yield _row(vm, low, high, state, reasons[n] if state == PRIVATE else None, held)


def _coalesced(rows: Iterable[StateRow]) -> Iterator[StateRow]:
    """Adjacent rows that differ in their pages only, as one."""
    pending: StateRow | None = None
    for row in rows:
        if pending is not None and pending.end == row.start and pending.alike() == row.alike():
            pages = None if row.end is None else row.end - pending.start
            pending = replace(pending, end=row.end, pages=pages)
            continue
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending


def _holder(memory: Memory, vm: Vm, gfn: int) -> int | None:
    """The conversion that is at work on a gfn, of the VM or of its guest_memfd."""
    for gmem, index, _, _ in memory.indices(vm.id, gfn, gfn + 1):
        if (found := _held(memory, gmem, index)) is not None:
            return found
    return _held(memory, vm.id, gfn)


def _held(memory: Memory, owner: int, page: int) -> int | None:
    for conversion in memory.conversions.values():
        if conversion.owner == owner and conversion.start is not None and conversion.start <= page < (conversion.end or 0):
            return conversion.id
    return None
