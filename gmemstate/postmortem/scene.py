"""The scene of an incident: what was true just before each conversion of it, and who touched its pages afterwards.

A second pass over the record, for the few ranges that incidents are about.
"""

from dataclasses import dataclass, field, replace

from gmemstate.audit.history.history import History
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    LINE,
    NPAGES,
    OWNER,
    RESULT,
    SEQ,
    START,
    VALUE,
    Access,
    ConvertAsked,
    ConvertAttempted,
    EventRow,
    FaultServed,
    HvaUnmapped,
    Punched,
    SlotSet,
    T,
    details,
)
from gmemstate.model.fold.apply import apply
from gmemstate.model.linux import FALLOC_FL_PUNCH_HOLE, GUEST_MEMFD_FLAG_INIT_SHARED, PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.memory import Memory, StateRun
from gmemstate.model.objects import Conversion, Slot
from gmemstate.model.record import Record
from gmemstate.model.units import END, Gfn
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.kinds import Kind

NO_SLOT, NO_GMEM, CLOSED = "no memslot", "no guest_memfd", "guest_memfd closed"
_BEFORE_THE_LOCK = (ConvertAsked.code, ConvertAttempted.code)


@dataclass(frozen=True, slots=True)
class Touch:
    """A run of pages that was touched and mapped again: by the host or the guest, as gfns or indices of ``owner``."""

    seq: int
    t: int | None
    line: int | None
    owner: int
    access: Access
    start: int
    end: int
    pfn: int | None


@dataclass(slots=True)
class Scene:
    """What the second pass found."""

    before: dict[int, list[StateRun]] = field(default_factory=dict)
    """for each conversion: the states of its range just before it"""
    touches: list[Touch] = field(default_factory=list)
    punches: list[EventRow] = field(default_factory=list)
    unmaps: list[EventRow] = field(default_factory=list)
    """host virtual ranges that lost their mapping outside of conversions"""
    hvas: dict[tuple[int, int], int] = field(default_factory=dict)
    """hva of each memslot, by guest and slot"""
    slots: dict[int, list[tuple[int, Slot]]] = field(default_factory=dict)
    """for each conversion of a guest_memfd: the guests and memslots that map it"""
    reasons: dict[int, str] = field(default_factory=dict)
    """for each fault of an incident: why there was no memory behind its page"""

    def punch(self, gmem: int, index: int, after: int, before: int) -> EventRow | None:
        """The first punch of a page of a guest_memfd between two events."""
        for row in self.punches:
            start = row[START] or 0
            end = END if row[NPAGES] is None else start + row[NPAGES]
            if row[OWNER] == gmem and after < row[SEQ] < before and start <= index < end:
                return row
        return None

    def touched(
        self, conversion: Conversion, accesses: tuple[Access, ...], owners: set[int], start: int, end: int
    ) -> list[Touch]:
        """Touches of ``[start, end)`` in some spaces after a conversion."""
        return [
            touch
            for touch in self.touches
            if touch.seq > conversion.last
            and touch.owner in owners
            and touch.access in accesses
            and touch.start < end
            and start < touch.end
        ]


def scene(record: Record, history: History, found: list[Incident]) -> Scene:
    """Look again at what incidents are about."""
    wanted: dict[int, Conversion] = {}
    for incident in found:
        for conversion in [*incident.conversions, *(c for episode in incident.episodes for c in episode.conversions)]:
            wanted[conversion.id] = conversion
    faults = {fault.seq for incident in found if incident.kind is Kind.NO_MEMORY_BEHIND for fault in incident.faults}
    entries = [entry for incident in found for entry in incident.entries]
    invalidation_range = _hull(
        history,
        list(wanted.values()),
        [(entry.gmem, entry.index) for entry in entries],
        [(entry.vm, entry.gfn) for entry in entries],
    )
    seen = Scene()
    memory = Memory()
    for row in record.events(1, history.memory.seq):
        begun = wanted.get(row[CONVERSION] or 0)
        if begun is not None and begun.id not in seen.before and row[KIND] not in _BEFORE_THE_LOCK:
            seen.before[begun.id] = _before(memory, begun)
            seen.slots[begun.id] = [
                (vm.id, replace(slot))
                for vm in memory.vms.values()
                for slot in vm.slots.values()
                if not begun.in_vm and slot.gmem == begun.owner is not None
            ]
        apply(memory, row)
        if row[SEQ] in faults:
            seen.reasons[row[SEQ]] = _no_memory(memory, row)
        if row[SEQ] % 10_000 == 0:
            memory.clear_pending()
        _look(seen, row, invalidation_range)
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


def _no_memory(memory: Memory, row: EventRow) -> str:
    """Why a fault on a page found no memory behind it."""
    vm = memory.vms.get(row[OWNER] or 0)
    slot = vm.slot_of(Gfn(row[START])) if vm is not None and row[START] is not None else None
    if slot is None:
        return NO_SLOT
    return NO_GMEM if slot.has_gmem is False else CLOSED


def _look(seen: Scene, row: EventRow, invalidation_range: dict[int, tuple[int, int]]) -> None:
    kind, owner, start = row[KIND], row[OWNER], row[START]
    if kind == FaultServed.code and owner in invalidation_range and start is not None and not row[RESULT]:
        end = start + (row[NPAGES] or 1)
        low, high = invalidation_range[owner]
        if low < end and start < high:
            access = Access(row[ACTOR] or Access.GUEST)
            seen.touches.append(Touch(row[SEQ], row[T], row[LINE], owner, access, start, end, row[VALUE]))
    elif kind == Punched.code and owner in invalidation_range and not row[RESULT] and (row[VALUE] or 0) & FALLOC_FL_PUNCH_HOLE:
        seen.punches.append(row)
    elif kind == HvaUnmapped.code:
        seen.unmaps.append(row)
    elif kind == SlotSet.code and owner is not None and row[ACTOR] is not None and not row[RESULT]:
        hva = details(row[DETAIL]).get("hva")
        if hva is not None and row[NPAGES]:
            seen.hvas[(owner, row[ACTOR])] = int(hva, 16)


def _hull(
    history: History,
    conversions: list[Conversion],
    indices: list[tuple[int | None, int | None]],
    gfns: list[tuple[int | None, int | None]],
) -> dict[int, tuple[int, int]]:
    """The smallest range of each attribute owner that holds all pages that incidents are about."""
    invalidation_range: dict[int, tuple[int, int]] = {}

    def add(owner: int | None, start: int | None, end: int | None) -> None:
        if owner is None or start is None or end is None:
            return
        low, high = invalidation_range.get(owner, (start, end))
        invalidation_range[owner] = (min(low, start), max(high, end))

    for conversion in conversions:
        add(conversion.owner, conversion.start, conversion.end)
        place = history.places.get(conversion.id)
        if place is not None:
            add(history.memory.guest_id(conversion.owner), *place)
    for owner, page in [*indices, *gfns]:
        add(owner, page, None if page is None else page + 1)
    return invalidation_range


def hva_range(seen: Scene, history: History, vm: int, start: int, end: int) -> list[tuple[int, int, int]]:
    """The host virtual memory behind gfns, slot by slot: ``(slot, hva, bytes)``."""
    guest = history.memory.vms.get(vm)
    found = []
    for slot in guest.slots.values() if guest else ():
        low, high = max(start, slot.start), min(end, slot.end)
        hva = seen.hvas.get((vm, slot.id))
        if low < high and hva is not None:
            found.append((slot.id, hva + ((low - slot.start) << PAGE_SHIFT), (high - low) << PAGE_SHIFT))
    return found


def first_unmap(seen: Scene, after: int, hva: int, size: int) -> EventRow | None:
    """The first time that any of a host virtual range lost its mapping after an event."""
    first, last = hva >> PAGE_SHIFT, (hva + size) >> PAGE_SHIFT
    for row in seen.unmaps:
        start = row[START] or 0
        end = END if row[NPAGES] is None else start + row[NPAGES]
        if row[SEQ] > after and start < last and first < end:
            return row
    return None
