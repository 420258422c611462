"""The memory: what is true after a run of events, and how each event changes it.

The fold is deterministic and goes in seq order. A bad history makes findings, never an exception.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gmemstate.model.events import SOURCE, Capability, Dialect, EventRow, T, User
from gmemstate.model.findings import Finding, unexpected
from gmemstate.model.linux import GUEST_MEMFD_FLAG_INIT_SHARED
from gmemstate.model.machines.conversion import CONVERSION
from gmemstate.model.machines.definition import Definition
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.machines.range import GONE, PRIVATE, RANGE, SETTLED, SHARED, UNKNOWN, is_in_flight
from gmemstate.model.machines.run import NO_WAY, compiled, fire
from gmemstate.model.objects import Conversion, FaultExit, Gmem, GuestEnd, MessedUp, Request, Slot, Source, Vm
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, Gfn, PageIndex

_CODES = {state: code for code, state in enumerate(RANGE.states)}


class StateRun(NamedTuple):
    """Pages ``[start, end)`` of one attribute owner in one state of the range machine."""

    start: int
    end: int
    state: str


class Memory:
    """Ranges, guests, slots, backing, mappings, open conversions and requests, and the messed-up set.

    The state machines move what is in it, one instance for each run of pages, conversion and messed-up entry.
    """

    def __init__(self, *, live: bool = False) -> None:
        self.live = live
        """steps fire triggers of the real machines; else they use the tables that are compiled from them"""
        self._ranges = compiled(RANGE)
        self._conversion_ways = compiled(CONVERSION).next_state
        self.seq = 0
        self.sources: dict[int, Source] = {}
        self.vms: dict[int, Vm] = {}
        self.destroyed: set[int] = set()
        """guests that are gone: their ranges are, and keep what they had at the end for those who read"""
        self.gmems: dict[int, Gmem] = {}
        self.ranges: dict[int, RangeMap] = {}
        """attribute of each page, per attribute owner, as codes of the range machine"""
        self.mappings: dict[tuple[int, int], RangeMap] = {}
        """whether a user maps each page, per attribute owner and user"""
        self.unplaced = RangeMap()
        """1 for pages that ended conversions of nobody knows which guest were about"""
        self.conversions: dict[int, Conversion] = {}
        """the open ones"""
        self.requests: dict[int, Request] = {}
        """the open ones, and ended ones that a thread was last returned"""
        self.messed_up: dict[int, MessedUp] = {}
        self.last_of: dict[int, int] = {}
        """the seq of the youngest event of each attribute owner"""
        self.by_thread: dict[tuple[int | None, int], int] = {}
        self.open_request: dict[tuple[int | None, int], int] = {}
        self.exits: dict[tuple[int | None, int], FaultExit | Request | None] = {}
        """what each thread was last returned by KVM_RUN; None for an exit that asks for nothing"""
        self.late: set[int] = set()
        """sources that speak of what is past"""
        self.left_out: list[int] = []
        """the seqs of what stands on record and cannot be an event"""
        self.moving = True
        """pages are moved by the event that is applied: it is not late"""
        # What the events since the last `clear` changed, for projections and histories.
        self.corroborations: list[tuple[int, EventRow]] = []
        """what other sources have said of conversions that had ended: their ids, and the events"""
        self.findings: list[Finding] = []
        self.ended: list[Conversion] = []
        self.faults: list[FaultExit] = []
        self.changed_requests: set[int] = set()
        self.changed_messed_up: set[int] = set()
        self.dirty: list[tuple[int, int, int]] = []

    # --- findings

    def leave_out(self, seq: int, code: str, why: str) -> None:
        """Note an event that changes nothing, as it cannot be one."""
        self.left_out.append(seq)
        self.find(code, seq, why)

    def find(
        self, code: str, seq: int, text: str, owner: int | None = None, start: int | None = None, end: int | None = None
    ) -> None:
        """Note a finding about pages ``[start, end)``."""
        self.findings.append(Finding.at(code, seq, text, owner, start, end))

    # --- ranges

    def step(self, owner: int, trigger: str, start: int, end: int, seq: int) -> None:
        """Fire a trigger of the range machine on every run of pages ``[start, end)``; late evidence moves none."""
        if not self.moving:
            return
        if owner in self.destroyed:
            self._unexpected(owner, trigger, [StateRun(start, end, GONE)], seq)
            return
        ranges = self.ranges.get(owner)
        if ranges is None:
            ranges = self.ranges[owner] = RangeMap()
        table = self._ranges.codes[trigger] if not self.live else self._fired(ranges.spans(start, end), trigger)
        bad = ranges.step(start, end, table)
        self.dirty.append((owner, start, end))
        if bad:
            self._unexpected(owner, trigger, [StateRun(first, last, RANGE.states[code]) for first, last, code in bad], seq)

    def keep(self, owner: int, trigger: str, start: int, end: int, seq: int) -> None:
        """Fire a trigger that leaves the state as it is (R4, R5, R8, R19 to R21) on pages of a VM or a guest_memfd.

        It is fired where the attributes of the pages are held. In bulk only ranges that are gone need to be asked: all others
        expect it.
        """
        if self.moving and (self.live or self.destroyed or trigger not in self._ranges.steady):
            for holder, first, last in self.holders(owner, start, end):
                self._ask(holder, trigger, first, last, seq)

    def destroy(self, vm: Vm, seq: int) -> None:
        """End the range machines of a guest (R22). What they had stays readable: that is what a post-mortem asks for."""
        self._ask(vm.id, "destroyed", 0, END, seq)
        vm.gone = GuestEnd.DESTROYED
        self.destroyed.add(vm.id)

    def _ask(self, owner: int, trigger: str, start: int, end: int, seq: int) -> None:
        """Fire a trigger on every run of ``[start, end)``, and leave the runs as they are."""
        runs = [StateRun(start, end, GONE)] if owner in self.destroyed else self.runs(owner, start, end)
        refused = {state for state in {run.state for run in runs} if self._next(RANGE, state, trigger) is None}
        self._unexpected(owner, trigger, [run for run in runs if run.state in refused], seq)

    def step_everything(self, owner: int, trigger: str) -> None:
        """Fire a trigger of the range machine on every run of an attribute owner."""
        ranges = self.ranges.get(owner)
        if ranges is not None and owner not in self.destroyed:
            ranges.step_all(self._ranges.codes[trigger] if not self.live else self._fired(ranges, trigger))
            self.dirty.append((owner, 0, END))

    def _fired(self, runs: Iterable[tuple[int, int, int]], trigger: str) -> bytes:
        table = bytearray([NO_WAY] * 256)
        for code in {code for _, _, code in runs}:
            state = fire(RANGE, RANGE.states[code], trigger)
            table[code] = NO_WAY if state is None else _CODES[state]
        return bytes(table)

    def _unexpected(self, owner: int, trigger: str, bad: Iterable[StateRun], seq: int) -> None:
        for start, end, state in bad:
            code_name = "SERIALISATION" if trigger.startswith("zap_to_") and is_in_flight(state) else "RANGE-UNEXPECTED"
            self.find(code_name, seq, unexpected(trigger, state), owner, start, end)

    def runs(self, owner: int, start: int = 0, end: int = END) -> list[StateRun]:
        """The states of ``[start, end)`` of one attribute owner, in order."""
        ranges = self.ranges.get(owner)
        if ranges is None:
            return [StateRun(start, end, UNKNOWN)] if start < end else []
        return [StateRun(first, last, RANGE.states[code]) for first, last, code in ranges.spans(start, end)]

    def known_runs(self, owner: int, start: int = 0, end: int = END) -> list[StateRun]:
        """The states of pages ``[start, end)`` of an owner; unknown where an open call may change them (R18).

        Such a call is open: where it has shown steps, the range machine says where it is; where it has shown none it may be
        waiting, or be at any step that its source does not show.
        """
        runs = self.runs(owner, start, end)
        for conversion in self.conversions.values():
            for first, last in self._pending(conversion, owner):
                runs = [part for run in runs for part in _unless(run, first, last, conversion.target)]
        return runs

    def _pending(self, conversion: Conversion, owner: int) -> list[tuple[int, int]]:
        """The pages of an attribute owner that an open conversion may be changing; a gap has made them unknown already.

        None as long as its source goes on, would show its steps, and has shown none.
        """
        if conversion.gapped or owner not in self.may_own(conversion):
            return []
        source = self.sources.get(conversion.source or 0)
        goes_on = source is None or not source.read
        if goes_on and conversion.entered and not self.shows(conversion).isdisjoint((Capability.ZAP, Capability.STORED)):
            return []
        first = 0 if conversion.start is None else conversion.start
        parts = [(first, END if conversion.end is None else conversion.end)]
        for low, high in conversion.taken:
            parts = [part for a, b in parts for part in ((a, min(b, low)), (max(a, high), b)) if part[0] < part[1]]
        return parts

    def may_own(self, conversion: Conversion) -> list[int]:
        """The attribute owners that a conversion may be about: its own; where no line names it, all that its source has shown.

        One that names neither its owner nor its pages is not counted: no page of it is known.
        """
        if conversion.owner is not None:
            return [conversion.owner]
        if conversion.start is None or conversion.source is None:
            return []
        owners = self.vms if conversion.in_vm else self.gmems
        return [owner for owner in owners if owner not in self.destroyed and self.source_of(owner) == conversion.source]

    def only(self, owner: int, start: int, end: int) -> str | None:
        """The state of all pages of ``[start, end)`` of one attribute owner; None if they differ, or if there are none."""
        ranges = self.ranges.get(owner)
        code = ranges.only(start, end) if ranges is not None else 0 if start < end else None
        return None if code is None else RANGE.states[code]

    def attribute(self, vm: int, gfn: Gfn) -> str:
        """The state of a gfn as the guest sees it, whether the VM or a guest_memfd holds the attribute."""
        return next(self.guest_runs(vm, gfn, gfn + 1)).state

    def guest_runs(self, vm: int, start: int = 0, end: int = END) -> Iterator[StateRun]:
        """The states of gfns ``[start, end)`` as the guest sees them; adjacent runs may be equal.

        On mainline the attributes of the VM count; on in-place kernels those of the guest_memfd, and where there is none a
        gfn is shared (kvm_gmem_is_private_gfn()). As long as it is not known which, shared says nothing of a gfn that may
        have one.
        """
        guest = self.vms.get(vm)
        if guest is None or guest.dialect is Dialect.MAINLINE:
            yield from self.known_runs(vm, start, end)
            return
        bare = self.slots_known(guest)
        at = start
        for slot in sorted(guest.slots.values(), key=lambda slot: slot.start):
            first, last = max(slot.start, at), min(slot.end, end)
            if first >= last:
                continue
            yield from self._vm_runs(guest, at, first, bare)
            gmem = self.gmems.get(slot.gmem or 0)
            if gmem is not None and gmem.inplace and slot.index is not None:
                shift = slot.start - slot.index
                for run in self.known_runs(gmem.id, first - shift, last - shift):
                    yield StateRun(run.start + shift, run.end + shift, run.state)
            else:
                yield from self._vm_runs(guest, first, last, slot.has_gmem is False)
            at = last
        yield from self._vm_runs(guest, at, end, bare)

    def _vm_runs(self, vm: Vm, start: int, end: int, bare: bool) -> Iterator[StateRun]:
        """Gfns of which it is not known that a guest_memfd holds their attributes; ``bare`` if none can.

        The attributes of the VM; where they may not count, those that only exist where they do.
        """
        if bare and vm.dialect is Dialect.INPLACE:
            if start < end:
                yield StateRun(start, end, SHARED)
            return
        for run in self.known_runs(vm.id, start, end):
            yield run if bare or run.state != SHARED else run._replace(state=UNKNOWN)

    def maps(self) -> Iterator[RangeMap]:
        """All maps of pages."""
        yield from (*self.ranges.values(), *self.mappings.values(), self.unplaced)
        for gmem in self.gmems.values():
            yield from (gmem.backing, gmem.orders)

    def holders(self, owner: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Where the attributes of pages of a VM (gfns) or of a guest_memfd (page indices) are held, and as which pages."""
        gmem = self.gmems.get(owner)
        if gmem is not None and not gmem.inplace:
            for vm in self.vms.values():
                for slot in vm.slots.values():
                    if slot.gmem == owner and slot.index is not None:
                        first, last = max(slot.index, start), min(slot.index + slot.npages, end)
                        if first < last:
                            yield vm.id, slot.start + first - slot.index, slot.start + last - slot.index
            return
        parts: list[tuple[int, int, int]] = [
            (gmem_id, first, last) for gmem_id, first, last, _ in self.indices(owner, start, end) if self.gmems[gmem_id].inplace
        ]
        yield from parts or ((owner, start, end),)

    # --- pages

    def indices(self, vm: int, start: int, end: int) -> Iterator[tuple[int, PageIndex, PageIndex, Slot]]:
        """The parts of guest_memfds that are bound at gfns ``[start, end)``: ``(gmem, first index, last index, slot)``."""
        guest = self.vms.get(vm)
        for slot in guest.slots.values() if guest else ():
            first, last = max(slot.start, start), min(slot.end, end)
            if slot.gmem in self.gmems and slot.index is not None and first < last:
                shift = slot.index - slot.start
                yield slot.gmem, PageIndex(first + shift), PageIndex(last + shift), slot

    def place(self, gmem: int | None, index: PageIndex | None) -> tuple[int | None, Gfn | None]:
        """The guest and gfn of a page of a guest_memfd, if a slot is known to hold it."""
        if gmem is not None and index is not None:
            for vm in self.vms.values():
                for slot in vm.slots.values():
                    if slot.gmem == gmem and (gfn := slot.gfn_at(index)) is not None:
                        return vm.id, gfn
        return (self.gmems[gmem].vm if gmem in self.gmems else None), None

    def map_pages(self, owner: int, user: int, start: int, end: int, mapped: int) -> None:
        """Note that a user maps pages, or no longer does."""
        if not self.moving:
            return
        key = (owner, user)
        mappings = self.mappings.get(key)
        if mappings is None:
            mappings = self.mappings[key] = RangeMap()
        mappings.set(start, end, mapped)

    def mapped(self, owner: int, user: User, page: int) -> int:
        """Whether a user maps a page: NO_ANSWER, UNMAPPED or MAPPED."""
        mappings = self.mappings.get((owner, user))
        return 0 if mappings is None else mappings.get(page)

    def back(self, gmem: int, start: int, end: int, backing: int) -> None:
        """Note what memory is in pages of a guest_memfd."""
        if gmem in self.gmems and self.moving:
            self.gmems[gmem].backing.set(start, end, backing)

    def activate(self, owner: int | None, seq: int) -> None:
        """Note that a guest_memfd holds its own attributes; its first state is that of its creation (R1)."""
        gmem = self.gmems.get(owner or 0)
        if gmem is None or gmem.inplace:
            return
        gmem.inplace = True
        for vm in self.vms.values():
            if vm.dialect is Dialect.UNKNOWN and (vm.id == gmem.vm or any(slot.gmem == gmem.id for slot in vm.slots.values())):
                vm.dialect = Dialect.INPLACE
        if gmem.flags is not None:
            kind = SHARED if gmem.flags & GUEST_MEMFD_FLAG_INIT_SHARED else PRIVATE
            self.step(gmem.id, f"born_{kind}", 0, gmem.npages or END, seq)

    def mark(self, entry: MessedUp, trigger: str, seq: int) -> None:
        """Fire a trigger of the messed-up machine on an entry."""
        self.messed_up[entry.id] = entry
        state = self._next(MESSED_UP, entry.state, trigger)
        entry.last = seq
        entry.state = state or entry.state
        self.changed_messed_up.add(entry.id)

    # --- conversions

    def move(self, conversion: Conversion, trigger: str, seq: int) -> None:
        """Fire a trigger of the conversion machine on a conversion."""
        ways = self._conversion_ways[trigger]
        state = fire(CONVERSION, conversion.state, trigger) if self.live else ways.get(conversion.state)
        if state is None:
            self.find("CONVERSION-UNEXPECTED", seq, unexpected(trigger, conversion.state), conversion.owner,
                      conversion.start, conversion.end)  # fmt: skip
        else:
            conversion.state = state

    def _next(self, definition: Definition, state: str, trigger: str) -> str | None:
        return fire(definition, state, trigger) if self.live else compiled(definition).next_state[trigger].get(state)

    def end(self, conversion: Conversion, seq: int) -> None:
        """Close a conversion: nothing more will be said of it."""
        conversion.last = seq
        conversion.shown = self.shows(conversion)
        self.conversions.pop(conversion.id, None)
        key = (conversion.source, conversion.thread or 0)
        if self.by_thread.get(key) == conversion.id:
            del self.by_thread[key]
        conversion.unplace(self.unplaced)
        self.ended.append(conversion)

    def open_conversions(self) -> list[Conversion]:
        """Those whose result is not on record yet."""
        return list(self.conversions.values())

    def guest_of(self, conversion: Conversion) -> Vm | None:
        """The guest of a conversion, if it is known."""
        owner = conversion.owner
        if owner is None or owner in self.vms:
            return self.vms.get(owner or 0)
        return self.vms.get(self.guest_id(owner) or 0)

    def vm_of(self, conversion: Conversion) -> int | None:
        """The guest of a conversion, if it is known."""
        return self.guest_id(conversion.owner)

    def guest_id(self, owner: int | None) -> int | None:
        """The guest of an attribute owner: itself, or the one that a guest_memfd belongs to."""
        if owner is None or owner in self.vms:
            return owner
        return self.gmems[owner].vm if owner in self.gmems else None

    def shows(self, conversion: Conversion) -> frozenset[int]:
        """What the source of a conversion has proven to show of its guest: only that can be missed.

        Lines that name no guest are about the only one that there is.
        """
        vm = self.guest_of(conversion)
        source = self.sources.get(conversion.source or 0)
        unnamed = source.shows if source is not None else frozenset()
        if vm is None or not unnamed:
            return unnamed if vm is None else vm.shows
        alone = all(other.source != vm.source or other is vm for other in self.vms.values())
        return vm.shows | unnamed if alone else vm.shows

    def time_of(self, row: EventRow, source: int | None) -> int | None:
        """The time of an event on the clock of another source; None where the two cannot be compared."""
        own = self.sources.get(row[SOURCE] or 0)
        if row[SOURCE] == source or row[T] is None:
            return row[T]
        return row[T] - own.ahead if own is not None and own.reference == source else None

    def source_of(self, owner: int) -> int | None:
        """The source in which an attribute owner was first observed."""
        vm = self.vms.get(self.guest_id(owner) or 0)
        return vm.source if vm is not None else None

    def slots_known(self, vm: Vm) -> bool:
        """Whether all memslots of a guest are on record, so that a gfn in none of them is in none.

        A guest_memfd of it that no memslot was seen to bind is bound by one whose lines are not on record, or by none.
        """
        source = self.sources.get(vm.source or 0)
        if not vm.made or (source is not None and (Capability.SLOTS not in vm.shows or source.gaps or source.blind)):
            return False
        return all(gmem.bound for gmem in self.gmems.values() if gmem.inplace and self._may_be_of(gmem, vm))

    def _may_be_of(self, gmem: Gmem, vm: Vm) -> bool:
        """Whether a guest_memfd is of a guest, or of nobody knows which one."""
        return gmem.vm == vm.id or gmem.vm is None

    # --- pending changes

    def clear_pending(self) -> None:
        """Begin a new batch: what changed before is taken care of."""
        self.findings, self.ended, self.faults, self.corroborations = [], [], [], []
        self.dirty, self.changed_requests, self.changed_messed_up = [], set(), set()
        if len(self.requests) > 64 and len(self.requests) > 2 * len(keep := self.needed_requests()) + 64:
            self.requests = {request_id: request for request_id, request in self.requests.items() if request_id in keep}

    def needed_requests(self) -> set[int]:
        """The ids of the requests that an event to come may be about."""
        keep = {request.id for request in self.exits.values() if isinstance(request, Request)} - {0}
        keep.update(self.open_request.values())
        keep.update(request.id for request in self.requests.values() if not request.ended)
        return keep & self.requests.keys()


def _unless(run: StateRun, first: int, last: int, target: str | None) -> Iterator[StateRun]:
    """A run, unknown in ``[first, last)`` where its state is settled and not the one that is asked for."""
    low, high = max(run.start, first), min(run.end, last)
    if low >= high or run.state not in SETTLED or run.state == target:
        yield run
        return
    for start, end, state in ((run.start, low, run.state), (low, high, UNKNOWN), (high, run.end, run.state)):
        if start < end:
            yield StateRun(start, end, state)
