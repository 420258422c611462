"""Guests: their memslots, their requests, and their end (INV-24, 29, 32, 37, 38)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.context import OK, CheckContext, Evaluations, Pages, Violation, after, before
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model import events as e
from gmemstate.model.events import NPAGES, SEQ, SOURCE, START
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


@after("INV-24", e.VmBugged, e.VmDead)
def vm_is_bugged(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes when kvm_vm_bugged() or kvm_vm_dead() was called."""
    if at.owner in at.memory.vms:
        at.note(_Gone).since.setdefault(at.owner, at.row[SEQ])
    return ()


@before("INV-24", e.ConvertReturned)
def vm_ioctls_return_eio(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """kvm_vm_ioctl() of a VM that is bugged or dead returns EIO; kvm_gmem_ioctl() does not ask."""
    conversion = at.conversion
    since = at.note(_Gone).since.get(at.memory.guest_id(conversion.owner) or 0) if conversion is not None else None
    if conversion is None or since is None or conversion.id < since or not conversion.entered:
        return
    where, returned = (conversion.owner, conversion.start, conversion.end), event.result or 0
    if conversion.in_vm:
        yield OK if returned == EIO else Violation(f"an ioctl of a VM that is gone answers {returned}", *where)
    else:
        yield OK if returned != EIO else Violation("a conversion of a guest_memfd answers EIO", *where)


@before("INV-24", e.SlotSet)
def memslots_of_a_bugged_vm_stay(at: CheckContext, event: e.SlotSet) -> Evaluations:
    """No memslot of a VM that is bugged or dead can be set (kvm_vm_ioctl())."""
    if at.owner in at.note(_Gone).since and at.complete:  # in a trace its entry may have been earlier
        returned = event.result or 0
        yield OK if returned == EIO else Violation(f"a memslot of a VM that is gone is set: {returned}", at.owner, *at.pages)


@before("INV-24", e.Punched)
def files_of_a_bugged_vm_work(at: CheckContext, event: e.Punched) -> Evaluations:
    """kvm_gmem_fallocate() does not ask whether the VM is bugged."""
    if at.memory.guest_id(at.owner) in at.note(_Gone).since:
        yield OK if event.result != EIO else Violation("fallocate of a guest_memfd answers EIO", at.owner, *at.pages)


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


@before("INV-29", e.SlotSet)
def memslots_do_not_overlap(at: CheckContext, event: e.SlotSet) -> Evaluations:
    """kvm_set_memory_region() refuses a memslot that overlaps another one of its address space."""
    vm, slot = at.memory.vms.get(at.owner), event.slot
    if vm is None or slot is None or event.result or at.row[START] is None:
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


@before("INV-29", e.GmemBound)
def bindings_do_not_overlap(at: CheckContext, event: e.GmemBound) -> Evaluations:
    """kvm_gmem_bind() refuses pages that another binding of the VM holds."""
    vm, gmem, index, npages = at.memory.vms.get(at.owner), event.gmem, event.index, at.row[NPAGES]
    if vm is None or gmem is None or index is None or not npages or event.result:
        return
    taken = at.note(_Taken)
    for slot in vm.slots.values():
        if (slot.start, slot.npages) == (at.row[START], npages):
            _unbind(taken, vm, slot.gmem, slot.index, npages)  # it says the same once more
    twice = taken.take(taken.pages, (vm.id, gmem), (index, index + npages))
    yield OK if twice is None else Violation("pages of a guest_memfd are in two bindings", gmem, *twice)


@before("INV-29", e.GmemUnbound)
def binding_ends(at: CheckContext, _event: e.Event) -> Evaluations:
    """kvm_gmem_unbind() frees the pages of a binding for another one."""
    vm = at.memory.vms.get(at.owner)
    for slot in vm.slots.values() if vm is not None else ():
        if vm is not None and (slot.start, slot.npages) == (at.row[START], at.row[NPAGES]):
            _unbind(at.note(_Taken), vm, slot.gmem, slot.index, slot.npages)
    return ()


@before("INV-29", e.VmDestroyed)
def vm_bindings_end(at: CheckContext, _event: e.Event) -> Evaluations:
    """kvm_destroy_vm() ends all memslots and bindings of the VM."""
    taken = at.note(_Taken)
    taken.gfns = {key: pages for key, pages in taken.gfns.items() if key[0] != at.owner}
    taken.pages = {key: pages for key, pages in taken.pages.items() if key[0] != at.owner}
    return ()


@before("INV-29", e.Gap)
def memslot_changes_may_be_lost(at: CheckContext, _event: e.Event) -> Evaluations:
    """After a gap nothing is known of memslots and bindings."""
    at.note(_Taken).gfns.clear()
    at.note(_Taken).pages.clear()
    return ()


# --- requests -------------------------------------------------------------------------------------------------------


def _request(at: CheckContext, event: e.GuestAnswered) -> Request | None:
    """The request that is answered now."""
    request = at.memory.requests.get(event.request or 0)
    return None if request is None or request.ended else request


@before("INV-32", e.GuestAnswered)
def map_gpa_resumes_in_the_request(at: CheckContext, event: e.GuestAnswered) -> Evaluations:
    """MapGPA is to be resumed at a gpa of the request, after whole chunks (tdx_map_gpa())."""
    request, at_gpa = _request(at, event), event.next_gpa
    if request is None or request.path is not e.RequestPath.TDVMCALL or event.result != RETRY or at_gpa is None:
        return
    if request.start is None or request.npages is None:
        return
    first, done = request.start << PAGE_SHIFT, unsigned(at_gpa) - (request.start << PAGE_SHIFT)
    where = request.owner, request.start, request.start + request.npages
    if not 0 <= done <= request.npages << PAGE_SHIFT:
        yield Violation(f"the guest is to go on at {unsigned(at_gpa):#x}, and asked from {first:#x} on", *where)
    else:
        yield (
            OK
            if done % CHUNK == 0
            else Violation(f"the guest is to resume {done:#x} bytes after the beginning of its request", *where)
        )


@before("INV-37", e.GuestAnswered)
def answer_is_taken(at: CheckContext, event: e.GuestAnswered) -> Evaluations:
    """KVM takes hypercall.ret of a request that was an exit to the VMM (complete_hypercall_exit())."""
    request = _request(at, event)
    if request is not None and request.was_exit and request.path is not e.RequestPath.VMCALL:
        yield OK


@before("INV-37", e.VcpuExited)
def answer_is_valid(at: CheckContext, event: e.VcpuExited) -> Evaluations:
    """KVM_RUN fails with EINVAL where hypercall.ret is none of the three; the guest hears nothing."""
    request = at.memory.requests.get(at.memory.open_request.get((at.row[SOURCE], event.thread or 0), 0))
    if request is None or request.ended or not request.was_exit or request.path is e.RequestPath.VMCALL:
        return
    if event.result == EINVAL and request.start is not None:
        text = "KVM_RUN fails with EINVAL after a request: the answer of the VMM is none that KVM takes"
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


@after("INV-38", e.ConvertReturned)
def conversion_serves_a_request(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes which request of its guest a conversion was made for."""
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


@before("INV-38", e.GuestAnswered)
def success_is_true(at: CheckContext, event: e.GuestAnswered) -> Evaluations:
    """A VMCALL has its direction from the conversions alone; of a GHCB only the first and the last page are on record."""
    request, served = _request(at, event), at.note(_Served)
    kinds = served.targets.pop(event.request or 0, set())
    if request is None or event.result != 0 or request.start is None or request.npages is None or request.owner is None:
        return
    if not kinds and request.was_exit and request.path is not e.RequestPath.VMCALL:
        kinds = {PRIVATE if (request.flags or 0) & ENCRYPTED else SHARED}
    if len(kinds) != 1 or request.path is e.RequestPath.PSC_GHCB or request.owner not in at.memory.vms:
        return
    if served.foreign(request.owner, request.id) > request.id or not at.quiet(request.owner):
        return
    kind = kinds.pop()
    runs = list(at.memory.guest_runs(request.owner, request.start, request.start + request.npages))
    other = next((run for run in runs if run.state in (SHARED, PRIVATE) and run.state != kind), None)
    if other is not None:
        yield Violation(f"success is returned to the guest, and pages are {other.state}", request.owner, other.start, other.end)
    elif all(run.state == kind for run in runs):
        yield OK
