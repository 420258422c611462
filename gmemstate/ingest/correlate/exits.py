"""Facts about vCPUs and threads: what the guest asks, what it is answered, why KVM_RUN returns, which signals are sent."""

from gmemstate.ingest.correlate.trackees import Thread
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
    KVM_RUN,
    LAST_PAGE,
    PAGE_SHIFT,
    PAGE_SIZE,
    SI_KERNEL,
    SIGBUS,
    SIGKILL,
)
from gmemstate.model.units import Gpa, gfn_of


@handles("hypercall")
def hypercall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """____kvm_emulate_hypercall(): a guest asks. Only KVM_HC_MAP_GPA_RANGE is about conversions."""
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
            owner=tracker.owner_of(thread),
            start=gfn_of(Gpa(gpa)) if whole else None,
            npages=npages if whole else None,
            flags=fact.args["a2"],
            detail=None if whole else detail(gpa=hex(gpa), pages=hex(npages)),
        )
    )
    return True


@handles("hc_done")
def hc_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """complete_hypercall_exit(): the guest is answered, by the VMM if the hypercall was an exit, else by KVM itself."""
    if thread.request is None or thread.other_hypercall or "ret" not in fact.args:
        return False
    answer(tracker, thread, thread.request, fact.args["ret"])
    return True


def answer(tracker: Tracker, thread: Thread, request: int, result: int) -> None:
    """A request of a guest is answered, and over."""
    tracker.emit(GuestAnswered(request=request, result=result, owner=tracker.owner_of(thread), thread=thread.tid))
    tracker.closed.append(request)
    thread.request = None


@handles("run_ret")
def run_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_arch_vcpu_ioctl_run(): flags, gpa and size are those of a memory fault with KVM_EXIT_MEMORY_FAULT alone.

    With any other exit they alias other members of struct kvm_run.
    """
    args = fact.args
    reason, result = args.get("exit"), args.get("ret", 0)
    thread.exit_recorded = True
    if reason == KVM_EXIT_MEMORY_FAULT and result < 0:
        gfn = gfn_of(Gpa(args["gpa"])) if "gpa" in args else None
        _memory_fault(tracker, thread, -result, gfn, args.get("size", 0) >> PAGE_SHIFT or None, args.get("flags"))
    elif reason == KVM_EXIT_HYPERCALL and result == 0:
        _hypercall_exit(tracker, thread)
    else:
        thread.exit = fact._replace(args={"reason": reason if reason is not None else -1, "err": result})
        thread.entered = None
        return False
    thread.entered = None
    return True


def _memory_fault(
    tracker: Tracker, thread: Thread, errno: int, gfn: int | None = None, npages: int | None = None, flags: int | None = None
) -> None:
    thread.exit = None
    tracker.emit(
        MemoryFaultExit(
            thread=thread.tid,
            owner=tracker.owner_of(thread),
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
        if call is not None and call.vm == vm.handle and call.through is Through.VM_IOCTL and call.covers(gfn):
            return call.handle
    for handle, start, end, line in reversed(vm.recent):
        if line < thread.entered:
            return None
        if start <= gfn < end:
            return handle
    return None


def _hypercall_exit(tracker: Tracker, thread: Thread) -> None:
    thread.exit = None
    tracker.emit(VcpuExited(thread=thread.tid, owner=tracker.owner_of(thread), reason=KVM_EXIT_HYPERCALL, result=0))


@handles("exit", "uexit")
def exit_(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_userspace_exit of kvm_vcpu_ioctl(): the same return as ``run_ret``, whose line comes first where it is probed."""
    error, reason = fact.args.get("err", 0), fact.args.get("reason")
    entered, thread.entered = thread.entered, None
    if thread.exit_recorded:
        thread.exit_recorded = fact.name == "exit"  # `uexit` follows `exit`, if it is traced
        return False
    if error in (-EFAULT, -EHWPOISON):
        if not thread.fault_recorded:
            thread.entered = entered
            _memory_fault(tracker, thread, -error)
            thread.entered = None
        thread.fault_recorded = fact.name == "exit" and not thread.fault_recorded
        return True
    if reason == KVM_EXIT_HYPERCALL and error == 0 and thread.request is not None:
        _hypercall_exit(tracker, thread)
        return True
    if error != -EINTR:
        thread.exit = fact._replace(args={"reason": reason if reason is not None else -1, "err": error})
    again, thread.failed = thread.failed, reason == KVM_EXIT_INTERNAL_ERROR and error == 0
    if thread.failed and not again:  # a VMM that runs the vCPU again gets the same exit for ever
        tracker.emit(VcpuExited(thread=thread.tid, owner=tracker.owner_of(thread), reason=reason, result=0))
    return thread.failed


@handles("enter_ioctl", "enter_fallocate", "enter_madvise")
def enter_syscall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """syscall_trace_enter() of a call that may be about a guest; with KVM_RUN the vCPU enters the guest."""
    thread.syscall = fact
    thread.file = thread.bracket = None
    if fact.args.get("cmd") == KVM_RUN:
        thread.entered = fact.line
        thread.exit_recorded = thread.fault_recorded = False
    return False


@handles("leave_fallocate", "leave_madvise")
def leave_syscall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """syscall_exit_work() of a call; that of an ioctl may be the return of a conversion."""
    thread.syscall = None
    return False


@handles("signal")
def signal(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """__send_signal_locked(): a signal to a thread that was seen; one that is inside of a conversion finishes it first."""
    number = fact.args.get("sig")
    return number in (SIGBUS, SIGKILL) and _struck(tracker, fact, number, fact.args.get("code"))


@handles("oom")
def oom(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """mark_oom_victim(): the kernel chose a task to kill because memory ran out."""
    return _struck(tracker, fact, SIGKILL, SI_KERNEL, detail(cause="oom"))


def _struck(tracker: Tracker, fact: Fact, number: int, reason: int | None, why: str | None = None) -> bool:
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
    owner = tracker.owner_of(target)
    for handle in inside or [None]:
        tracker.emit(TaskSignalled(thread=target.tid, signal=number, reason=reason, owner=owner, detail=why, conversion=handle))
    return True
