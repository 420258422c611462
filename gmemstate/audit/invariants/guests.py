"""Guests: their memslots, their requests, and their end (INV-24, 29, 32, 37, 38)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.moment import OK, Evaluations, Moment, Pages, Violation, before, behind
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    NPAGES,
    RESULT,
    SEQ,
    SOURCE,
    START,
    VALUE,
    ConvertReturned,
    Gap,
    GmemBound,
    GmemUnbound,
    GuestAnswered,
    Punched,
    RequestPath,
    SlotSet,
    VcpuExited,
    VmBugged,
    VmDead,
    VmDestroyed,
)
from gmemstate.model.linux import EINVAL, EIO, PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import Request, Vm
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import unsigned

RETRY = 1
"""TDVMCALL_STATUS_RETRY"""
CHUNK = 2 << 20
"""TDX_MAP_GPA_MAX_LEN"""


# --- the end of a VM ------------------------------------------------------------------------------------------------


@dataclass
class _Gone:
    """When each VM was marked as bugged or dead (seq)."""

    since: dict[int, int] = field(default_factory=dict)


@behind("INV-24", VmBugged, VmDead)
def a_vm_is_marked(at: Moment) -> Evaluations:
    if at.owner in at.memory.vms:
        at.note(_Gone).since.setdefault(at.owner, at.row[SEQ])
    return ()


@before("INV-24", ConvertReturned)
def its_ioctls_answer_eio(at: Moment) -> Evaluations:
    conversion = at.conversion
    since = at.note(_Gone).since.get(at.memory.guest_id(conversion.owner) or 0) if conversion is not None else None
    if conversion is None or since is None or conversion.id < since or not conversion.entered:
        return
    where, returned = (conversion.owner, conversion.start, conversion.end), at.row[RESULT] or 0
    if conversion.in_vm:
        yield OK if returned == EIO else Violation(f"an ioctl of a VM that is gone answers {returned}", *where)
    else:
        yield OK if returned != EIO else Violation("a conversion of a guest_memfd answers EIO", *where)


@before("INV-24", SlotSet)
def its_memslots_stay(at: Moment) -> Evaluations:
    if at.owner in at.note(_Gone).since and at.complete:  # in a trace its entry may have been earlier
        returned = at.row[RESULT] or 0
        yield OK if returned == EIO else Violation(f"a memslot of a VM that is gone is set: {returned}", at.owner, *at.pages)


@before("INV-24", Punched)
def its_files_work(at: Moment) -> Evaluations:
    if at.memory.guest_id(at.owner) in at.note(_Gone).since:
        yield OK if at.row[RESULT] != EIO else Violation("fallocate of a guest_memfd answers EIO", at.owner, *at.pages)


# --- memslots -------------------------------------------------------------------------------------------------------


@dataclass
class _Taken:
    """Gfns in memslots, by VM and address space; pages of guest_memfds in bindings, by VM and file."""

    gfns: dict[tuple[int, int], RangeMap] = field(default_factory=dict)
    pages: dict[tuple[int, int], RangeMap] = field(default_factory=dict)

    def take(self, table: dict[tuple[int, int], RangeMap], key: tuple[int, int], pages: Pages) -> Pages | None:
        """Take pages; those that were taken already, if any."""
        taken = table.setdefault(key, RangeMap())
        twice = next((run for run in taken.runs(*pages) if run.value), None)
        taken.set(*pages, 1)
        return None if twice is None else (twice.start, twice.end)


@before("INV-29", SlotSet)
def memslots_are_apart(at: Moment) -> Evaluations:
    vm, slot = at.memory.vms.get(at.owner), at.row[ACTOR]
    if vm is None or slot is None or at.row[RESULT] or at.row[START] is None:
        return
    taken = at.note(_Taken)
    key = vm.id, slot >> 16
    if (old := vm.slots.get(slot)) is not None:
        if key in taken.gfns:
            taken.gfns[key].set(old.start, old.end, 0)
        _unbind(taken, vm, old.gmem, old.index, old.npages)
    if at.row[NPAGES]:
        twice = taken.take(taken.gfns, key, at.pages)
        yield OK if twice is None else Violation("gfns are in two memslots", vm.id, *twice)


def _unbind(taken: _Taken, vm: Vm, gmem: int | None, index: int | None, npages: int) -> None:
    if gmem is not None and index is not None and (vm.id, gmem) in taken.pages:
        taken.pages[vm.id, gmem].set(index, index + npages, 0)


@before("INV-29", GmemBound)
def bindings_are_apart(at: Moment) -> Evaluations:
    vm, gmem, index, npages = at.memory.vms.get(at.owner), at.row[ACTOR], at.row[VALUE], at.row[NPAGES]
    if vm is None or gmem is None or index is None or not npages or at.row[RESULT]:
        return
    taken = at.note(_Taken)
    for slot in vm.slots.values():
        if (slot.start, slot.npages) == (at.row[START], npages):
            _unbind(taken, vm, slot.gmem, slot.index, npages)  # it says the same once more
    twice = taken.take(taken.pages, (vm.id, gmem), (index, index + npages))
    yield OK if twice is None else Violation("pages of a guest_memfd are in two bindings", gmem, *twice)


@before("INV-29", GmemUnbound)
def a_binding_ends(at: Moment) -> Evaluations:
    vm = at.memory.vms.get(at.owner)
    for slot in vm.slots.values() if vm is not None else ():
        if vm is not None and (slot.start, slot.npages) == (at.row[START], at.row[NPAGES]):
            _unbind(at.note(_Taken), vm, slot.gmem, slot.index, slot.npages)
    return ()


@before("INV-29", VmDestroyed)
def all_bindings_end(at: Moment) -> Evaluations:
    taken = at.note(_Taken)
    taken.gfns = {key: pages for key, pages in taken.gfns.items() if key[0] != at.owner}
    taken.pages = {key: pages for key, pages in taken.pages.items() if key[0] != at.owner}
    return ()


@before("INV-29", Gap)
def a_change_of_memslots_may_be_lost(at: Moment) -> Evaluations:
    at.note(_Taken).gfns.clear()
    at.note(_Taken).pages.clear()
    return ()


# --- requests -------------------------------------------------------------------------------------------------------


def _request(at: Moment) -> Request | None:
    """The request that is answered now."""
    request = at.memory.requests.get(at.row[CONVERSION] or 0)
    return None if request is None or request.ended else request


@before("INV-32", GuestAnswered)
def map_gpa_goes_on_in_the_request(at: Moment) -> Evaluations:
    request, at_gpa = _request(at), at.row[VALUE]
    if request is None or request.path is not RequestPath.TDVMCALL or at.row[RESULT] != RETRY or at_gpa is None:
        return
    if request.start is None or request.npages is None:
        return
    first, done = request.start << PAGE_SHIFT, unsigned(at_gpa) - (request.start << PAGE_SHIFT)
    where = request.owner, request.start, request.start + request.npages
    if not 0 <= done <= request.npages << PAGE_SHIFT:
        yield Violation(f"the guest is to go on at {unsigned(at_gpa):#x}, and asked from {first:#x} on", *where)
    else:
        yield OK if done % CHUNK == 0 else Violation(f"the guest is to go on {done:#x} bytes behind its request", *where)


@before("INV-37", GuestAnswered)
def kvm_has_taken_the_answer(at: Moment) -> Evaluations:
    request = _request(at)
    if request is not None and request.was_exit and request.path is not RequestPath.VMCALL:
        yield OK


@before("INV-37", VcpuExited)
def kvm_refuses_no_answer(at: Moment) -> Evaluations:
    """KVM_RUN fails with EINVAL where hypercall.ret is none of the three; the guest hears nothing."""
    request = at.memory.requests.get(at.memory.open_request.get((at.row[SOURCE], at.row[ACTOR] or 0), 0))
    if request is None or request.ended or not request.was_exit or request.path is RequestPath.VMCALL:
        return
    if at.row[RESULT] == EINVAL and request.start is not None:
        text = "KVM_RUN fails with EINVAL behind a request: the answer of the VMM is none that KVM takes"
        yield Violation(text, request.owner, request.start, request.start + (request.npages or 1))


@dataclass
class _Served:
    """What was converted for whom."""

    targets: dict[int, set[str | None]] = field(default_factory=dict)
    """the targets of the conversions that were made for each open request"""
    last: dict[int, tuple[int, int | None]] = field(default_factory=dict)
    """by guest: the youngest return of a conversion (seq), and its request"""
    before: dict[int, int] = field(default_factory=dict)
    """by guest: the youngest one that was made for another request, or for none"""

    def foreign(self, guest: int, request: int) -> int:
        """When somebody else has last converted pages of a guest (seq)."""
        seq, own = self.last.get(guest, (0, None))
        return self.before.get(guest, 0) if own == request else seq


@behind("INV-38", ConvertReturned)
def a_conversion_serves_a_request(at: Moment) -> Evaluations:
    conversion, served = at.conversion, at.note(_Served)
    if conversion is not None:
        guest = at.memory.guest_id(conversion.owner) or 0
        if conversion.request is not None:
            served.targets.setdefault(conversion.request, set()).add(conversion.target)
            if len(served.targets) > 2 * len(at.memory.requests) + 64:
                served.targets = {key: kinds for key, kinds in served.targets.items() if key in at.memory.requests}
        seq, request = served.last.get(guest, (0, conversion.request))
        if request != conversion.request:
            served.before[guest] = seq
        served.last[guest] = at.row[SEQ], conversion.request
    return ()


@before("INV-38", GuestAnswered)
def success_is_true(at: Moment) -> Evaluations:
    """A VMCALL has its direction from the conversions alone; the entries of a GHCB are not on record, only their hull."""
    request, served = _request(at), at.note(_Served)
    kinds = served.targets.pop(at.row[CONVERSION] or 0, set())
    if request is None or at.row[RESULT] != 0 or request.start is None or request.npages is None or request.owner is None:
        return
    if not kinds and request.was_exit and request.path is not RequestPath.VMCALL:
        kinds = {PRIVATE if (request.flags or 0) & ENCRYPTED else SHARED}
    if len(kinds) != 1 or request.path is RequestPath.PSC_GHCB or request.owner not in at.memory.vms:
        return
    if served.foreign(request.owner, request.id) > request.id or not at.quiet(request.owner):
        return
    kind = kinds.pop()
    runs = list(at.memory.guest_runs(request.owner, request.start, request.start + request.npages))
    other = next((run for run in runs if run.state in (SHARED, PRIVATE) and run.state != kind), None)
    if other is not None:
        yield Violation(f"the guest is told of success, and pages are {other.state}", request.owner, other.start, other.end)
    elif all(run.state == kind for run in runs):
        yield OK
