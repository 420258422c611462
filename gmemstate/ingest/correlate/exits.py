"""Facts about the guest: what it asks, what it is told, why KVM_RUN returns, which signals fall."""

from gmemstate.ingest.correlate.conversions import RUN
from gmemstate.ingest.correlate.trackees import Call, Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model.events import GuestAnswered, GuestAsked, MemoryFaultExit, TaskSignalled, Through, VcpuExited, detail
from gmemstate.model.linux import (
    EFAULT,
    EHWPOISON,
    EINTR,
    KVM_EXIT_HYPERCALL,
    KVM_EXIT_INTERNAL_ERROR,
    KVM_EXIT_MEMORY_FAULT,
    KVM_HC_MAP_GPA_RANGE,
    LAST_PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    SIGBUS,
    SIGKILL,
)
from gmemstate.model.units import Gpa, gfn_of

FROM_KERNEL = 128


def _owner(tracker: Tracker, thread: Thread) -> int | None:
    vm = tracker.vm_of(thread)
    return vm.handle if vm is not None else None


@handles("hypercall")
def hypercall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A guest asks. Only KVM_HC_MAP_GPA_RANGE is about conversions."""
    thread.other_hypercall = fact.args["number"] != KVM_HC_MAP_GPA_RANGE
    if thread.other_hypercall:
        return False
    gpa, npages = fact.args["a0"], fact.args["a1"]
    whole = gpa % PAGE_SIZE == 0 and (gpa >> PAGE_SHIFT) + npages <= LAST_PAGE
    thread.request = tracker.handle()
    thread.exit = None
    tracker.emit(
        GuestAsked(
            request=thread.request,
            thread=thread.tid,
            owner=_owner(tracker, thread),
            start=gfn_of(Gpa(gpa)) if whole else None,
            npages=npages if whole else None,
            flags=fact.args["a2"],
            detail=None if whole else detail(gpa=hex(gpa), pages=hex(npages)),
        )
    )
    return True


@handles("hc_done")
def hc_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The guest is answered: by the VMM if the hypercall was an exit, by KVM itself if it was none."""
    if thread.request is None or thread.other_hypercall or "ret" not in fact.args:
        return False
    tracker.emit(
        GuestAnswered(request=thread.request, result=fact.args["ret"], owner=_owner(tracker, thread), thread=thread.tid)
    )
    tracker.closed.append(thread.request)
    thread.request = None
    return True


@handles("run_ret")
def run_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """KVM_RUN returns; flags, gpa and size are those of a memory fault only with exit 39, else they alias other members."""
    reason, result = fact.args.get("exit"), fact.args.get("ret", 0)
    thread.exit_told = True
    if reason == KVM_EXIT_MEMORY_FAULT and result < 0:
        gfn = gfn_of(Gpa(fact.args["gpa"])) if "gpa" in fact.args else None
        _memory_fault(
            tracker, fact, thread, -result, gfn, fact.args.get("size", 0) >> PAGE_SHIFT or None, fact.args.get("flags")
        )
    elif reason == KVM_EXIT_HYPERCALL and result == 0:
        _hypercall_exit(tracker, fact, thread)
    else:
        thread.exit = fact._replace(args={"reason": reason if reason is not None else -1, "err": result})
        thread.entered = None
        return False
    thread.entered = None
    return True


def _memory_fault(
    tracker: Tracker, fact: Fact, thread: Thread, errno: int, gfn: int | None, npages: int | None, flags: int | None
) -> None:
    vm = tracker.vm_of(thread)
    thread.exit = None
    tracker.emit(
        MemoryFaultExit(
            thread=thread.tid,
            owner=vm.handle if vm else None,
            start=gfn,
            npages=npages,
            flags=flags,
            result=errno,
            raced=_raced(tracker, thread, gfn) if errno == EFAULT else None,
        )
    )


def _raced(tracker: Tracker, thread: Thread, gfn: int | None) -> int | None:
    """A conversion of the page that was going on, or has ended, since this vCPU entered the guest.

    A vCPU that was never seen with a guest can only have raced in the one guest that there is.
    """
    vm = tracker.vm_of(thread)
    if vm is None and not thread.vms and len(tracker.vms) == 1:
        vm = next(iter(tracker.vms.values()))
    if vm is None or gfn is None or thread.entered is None:
        return None
    for other in tracker.threads.values():
        call = other.call
        if call is not None and call.vm == vm.handle and call.through is Through.VM_IOCTL and _covers(call, gfn):
            return call.handle
    for handle, start, end, line in reversed(vm.recent):
        if line < thread.entered:
            return None
        if start <= gfn < end:
            return handle
    return None


def _covers(call: Call, gfn: int) -> bool:
    return call.start is not None and call.end is not None and call.start <= gfn < call.end


def _hypercall_exit(tracker: Tracker, fact: Fact, thread: Thread) -> None:
    thread.exit = None
    tracker.emit(VcpuExited(thread=thread.tid, owner=_owner(tracker, thread), reason=KVM_EXIT_HYPERCALL, result=0))


@handles("exit", "uexit")
def exit_(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The tracepoint of the same return: what counts is what ``run_ret`` has not told already."""
    error, reason = fact.args.get("err", 0), fact.args.get("reason")
    entered, thread.entered = thread.entered, None
    if thread.exit_told:
        thread.exit_told = fact.name == "exit"  # `uexit` follows `exit`, if it is traced
        return False
    if error in (-EFAULT, -EHWPOISON):
        if not thread.fault_told:
            thread.entered = entered
            _memory_fault(tracker, fact, thread, -error, None, None, None)
            thread.entered = None
        thread.fault_told = fact.name == "exit" and not thread.fault_told
        return True
    if reason == KVM_EXIT_HYPERCALL and error == 0 and thread.request is not None:
        _hypercall_exit(tracker, fact, thread)
        return True
    if error != -EINTR:
        thread.exit = fact._replace(args={"reason": reason if reason is not None else -1, "err": error})
    again, thread.failed = thread.failed, reason == KVM_EXIT_INTERNAL_ERROR and error == 0
    if thread.failed and not again:  # a VMM that runs the vCPU again gets the same exit for ever
        tracker.emit(VcpuExited(thread=thread.tid, owner=_owner(tracker, thread), reason=reason, result=0))
    return thread.failed


@handles("enter_ioctl")
def enter_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    thread.syscall, thread.syscall_at = ("ioctl", dict(fact.args), fact.line), fact.t
    thread.file = thread.bracket = None
    if fact.args.get("cmd") == RUN:
        thread.entered = fact.line
        thread.exit_told = thread.fault_told = False
    return False


@handles("enter_fallocate", "enter_madvise")
def enter_other(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    thread.syscall = (fact.name.removeprefix("enter_"), dict(fact.args), fact.line)
    thread.file = thread.bracket = None
    return False


@handles("leave_fallocate", "leave_madvise")
def leave_other(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    thread.syscall = None
    return False


@handles("signal")
def signal(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A signal to a thread that was met; one that is inside of a conversion finishes it first."""
    number = fact.args.get("sig")
    if number not in (SIGBUS, SIGKILL):
        return False
    return _struck(tracker, fact, number, fact.args.get("code"), None)


@handles("oom")
def oom(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The kernel chose a victim for want of memory."""
    return _struck(tracker, fact, SIGKILL, FROM_KERNEL, detail(cause="oom"))


def _struck(tracker: Tracker, fact: Fact, number: int, reason: int | None, why: str | None) -> bool:
    """Put a signal on record, with each conversion that its task is inside of.

    SIGKILL ends all threads of a process (complete_signal()), and only those of one process can be inside of ioctls of a VM:
    the kernel refuses all others (kvm_vm_ioctl()).
    """
    target = tracker.threads.get(fact.args.get("pid", 0))
    if target is None or (target.call is None and not target.vms):
        return False
    calls = [target.call]
    if number == SIGKILL and len(target.vms) == 1:
        calls += [
            other.call
            for other in tracker.threads.values()
            if other.call is not None
            and other is not target
            and other.call.through is Through.VM_IOCTL  # a guest_memfd takes ioctls of any process
            and target.vms == [other.call.vm]
        ]
    inside: list[int | None] = [call.handle for call in calls if call is not None]
    for handle in inside or [None]:
        tracker.emit(
            TaskSignalled(
                thread=target.tid, signal=number, reason=reason, owner=_owner(tracker, target), detail=why, conversion=handle
            )
        )
    return True
