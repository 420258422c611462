"""Requests: what a guest asks for, what is returned to it, and which conversions were asked because of it."""

from gmemstate.model import events as e
from gmemstate.model.events import ACTOR, CONVERSION, DETAIL, LINE, NPAGES, OWNER, RESULT, SOURCE, START, VALUE, T
from gmemstate.model.linux import KVM_EXIT_HYPERCALL
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, FaultClass, FaultExit, Request, Source, Trigger
from gmemstate.model.units import END

UNSEEN = Request(0, None, None, 0, None, None, None, e.RequestPath.VMCALL, None, None)
"""The place of a thread's request that is not on record: an exit for a hypercall has shown that there is one."""


def guest_asked(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A guest asks for a conversion: KVM_HC_MAP_GPA_RANGE, TDVMCALL MapGPA or an SNP page state change."""
    key = (row[SOURCE], row[ACTOR] or 0)
    old = memory.requests.get(memory.open_request.get(key, 0))
    if old is not None and not old.ended:
        old.unanswered, old.last = True, seq
        memory.changed_requests.add(old.id)
    request = Request(seq, row[SOURCE], row[OWNER], row[ACTOR] or 0, row[START], row[NPAGES], row[VALUE],
                      e.RequestPath(row[RESULT] or 1), row[DETAIL], row[T], first_line=row[LINE],
                       last_line=row[LINE], last=seq)  # fmt: skip
    memory.requests[seq] = request
    memory.open_request[key] = seq
    memory.exits[key] = request
    memory.changed_requests.add(seq)


def vcpu_exited(memory: Memory, seq: int, row: e.EventRow) -> None:
    """KVM_RUN returned to the VMM (kvm_userspace_exit); a hypercall exit hands the guest's request on."""
    key = (row[SOURCE], row[ACTOR] or 0)
    request = memory.requests.get(memory.open_request.get(key, 0))
    if row[VALUE] == KVM_EXIT_HYPERCALL and request is not None and not request.ended:
        request.was_exit, request.last = True, seq
        request.last_line = row[LINE] if row[LINE] is not None else request.last_line
        if request.owner is None:
            request.owner = row[OWNER]
        memory.exits[key] = request
        memory.changed_requests.add(request.id)
        return
    unseen = row[VALUE] == KVM_EXIT_HYPERCALL
    memory.exits[key] = UNSEEN if unseen else None
    if unseen and (source := memory.sources.get(row[SOURCE] or 0)):
        source.unseen_requests += 1


def guest_answered(memory: Memory, seq: int, row: e.EventRow) -> None:
    """The request of a guest is answered (complete_hypercall_exit, snp_complete_psc)."""
    request = memory.requests.get(row[CONVERSION] or 0)
    if request is None or request.ended:
        return
    request.result, request.answered, request.last = row[RESULT], row[T], seq
    request.last_line = row[LINE] if row[LINE] is not None else request.last_line
    if request.owner is None:
        request.owner = row[OWNER]
    memory.exits[(request.source, request.thread)] = None
    memory.changed_requests.add(request.id)


def find_trigger(memory: Memory, conversion: Conversion, source: Source | None) -> None:
    """Why the conversion is asked: from what its thread, or else any vCPU of its source, was last answered by KVM."""
    if source is None:
        return
    if source.read:
        source.read = False  # it has grown: what its end had cut off goes on
        for other in memory.conversions.values():
            other.last = conversion.last if other.source == source.id else other.last
    if conversion.thread is None or conversion.start is None or conversion.gapped:
        return
    key = (source.id, conversion.thread)
    if key in memory.exits:
        answered = memory.exits[key]
        if not _of_this_guest(memory, answered, conversion):
            return
        conversion.trigger, conversion.request = _trigger_of(memory, answered, conversion)
        if conversion.request is not None:
            request = memory.requests[conversion.request]
            request.conversions.append(conversion.id)
            memory.changed_requests.add(request.id)
    elif not source.gaps and (vm := memory.guest_of(conversion)) and vm.made and e.Capability.EXITS in memory.shows(conversion):
        # The record reaches back to the beginning of the guest, and so to all that its vCPUs were returned.
        others = [answered for (of, _), answered in memory.exits.items() if of == source.id]
        if all(_trigger_of(memory, answered, conversion)[0] is Trigger.VMM for answered in others):
            conversion.trigger = Trigger.VMM


def _of_this_guest(memory: Memory, answered: FaultExit | Request | None, conversion: Conversion) -> bool:
    """Whether what a thread was last answered is of the guest that it now converts; a thread may have made several.

    Where a line names no guest it is the only one of its thread.
    """
    if answered is None or answered is UNSEEN:
        return True
    guest = memory.vm_of(conversion)
    if answered.owner is not None and guest is not None:
        return answered.owner == guest
    living = {vm.pointer: vm for vm in memory.vms.values() if vm.source == conversion.source and vm.id not in memory.destroyed}
    own = {vm.id for vm in living.values() if vm.thread == conversion.thread}
    return len(own | {owner for owner in (answered.owner, guest) if owner is not None}) <= 1


def _trigger_of(memory: Memory, answered: FaultExit | Request | None, conversion: Conversion) -> tuple[Trigger, int | None]:
    if answered is None:
        return Trigger.VMM, None
    if answered.start is None:
        return Trigger.UNKNOWN, None
    wanted = [(answered.start, answered.start + (answered.npages or 1))]
    placed = True
    if not conversion.in_vm:
        guest = answered.owner if answered.owner is not None else memory.vm_of(conversion)
        parts = list(memory.indices(guest or 0, *wanted[0]))
        placed = conversion.owner is not None and sum(last - first for _, first, last, _ in parts) == (answered.npages or 1)
        wanted = [(first, last) for gmem, first, last, _ in parts if gmem == conversion.owner]
    end = conversion.end or END
    if not any(start < end and (conversion.start or 0) < stop for start, stop in wanted):
        return (Trigger.VMM if placed else Trigger.UNKNOWN), None
    if isinstance(answered, Request):
        return (Trigger.GUEST_REQUEST, answered.id) if not answered.ended else (Trigger.VMM, None)
    return (Trigger.FAULT_MISMATCH if answered.kind is FaultClass.MISMATCH else Trigger.VMM_AFTER_FAULT), None


HANDLERS = {e.GuestAsked.code: guest_asked, e.VcpuExited.code: vcpu_exited, e.GuestAnswered.code: guest_answered}
