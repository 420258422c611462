"""Conversion ioctls: their entry, the attempt that the static tracepoint shows, and their return.

kvm_vm_ioctl() passes KVM_SET_MEMORY_ATTRIBUTES to kvm_vm_ioctl_set_mem_attributes() (virt/kvm/kvm_main.c); kvm_gmem_ioctl()
passes KVM_SET_MEMORY_ATTRIBUTES2 to __kvm_gmem_set_attributes() (virt/kvm/guest_memfd.c of in-place kernels).
"""

from collections.abc import Mapping
from typing import Any

from gmemstate.ingest.correlate.syscalls import whole_call
from gmemstate.ingest.correlate.trackees import Call, Thread, VmState
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import (
    EAGAIN,
    EFAULT,
    EINVAL,
    EIO,
    ENOMEM,
    ENOTTY,
    KVM_SET_MEMORY_ATTRIBUTES,
    KVM_SET_MEMORY_ATTRIBUTES2,
    MAX_ERRNO,
    PAGE_SHIFT,
    PRIVATE_ATTRIBUTE,
)
from gmemstate.model.units import pages

CONVERSIONS = (KVM_SET_MEMORY_ATTRIBUTES, KVM_SET_MEMORY_ATTRIBUTES2)
UNREAD = (-EFAULT, -ENOTTY)
"""Results of calls whose arguments nobody could read, or the kernel has not read; a probe may have read rubbish."""
POSSIBLE = frozenset((0, EAGAIN, EFAULT, EINVAL, EIO, ENOMEM, ENOTTY))
"""What a conversion can return; a system call with another result (EINTR, an fd) was none."""
IDLE_REFERENCES = 2
"""Of an order-0 folio during the in-use test: the page cache's and the test's own."""
STANDARD_FDS, MOST_FDS = 2, 1 << 16
"""What an ioctl returns between these may be the fd of a VM."""


def begin(tracker: Tracker, thread: Thread, through: e.Through, *, entered: bool = False) -> Call:
    """A thread enters a conversion; what KVM_RUN returned to it last goes on record first."""
    tracker.leave(thread)
    if (exit_ := thread.exit) is not None:
        reason, result, owner = exit_.args.get("reason"), -exit_.args.get("err", 0), tracker.owner_of(thread)
        tracker.emit(e.VcpuExited(thread=thread.tid, owner=owner, reason=reason, result=result, t=exit_.t, line=exit_.line))
        thread.exit = None
    call = thread.call = Call(tracker.handle(), through, tracker.fact.line, entered=entered)
    tracker.sees_inside = True
    if thread.syscall is not None and thread.syscall.name == "enter_ioctl":
        call.fd = thread.syscall.args.get("fd")
    return call


def _range(fact: Fact) -> tuple[int, int] | None:
    """Address and size (bytes) that a call was given, if the line has both."""
    return _range_of(fact.args)


def _range_of(args: Mapping[str, int]) -> tuple[int, int] | None:
    address, size = args.get("addr", args.get("offset")), args.get("size")
    return None if address is None or size is None else (address, size)


def ask(tracker: Tracker, fact: Fact, thread: Thread, call: Call) -> None:
    """Put the arguments of a call on record, as far as the line has them."""
    odd: dict[str, Any] = {}
    if call.through is e.Through.GMEM_IOCTL and fact.args.get("cmd") == KVM_SET_MEMORY_ATTRIBUTES:
        # kvm_gmem_ioctl() answers ENOTTY and reads nothing; what a probe reads there is another structure.
        odd["ioctl"], call.known = hex(KVM_SET_MEMORY_ATTRIBUTES), True
    elif (given := _range(fact)) is not None:
        call.known = True
        run = pages(*given)
        if run is None:
            odd = {"address": hex(given[0]), "size": hex(given[1])}
        else:
            call.start, call.npages = run
        call.attributes = fact.args.get("attrs")
        if fact.args.get("flags"):
            odd["flags"] = hex(fact.args["flags"])
    if fact.args.get("cmd") == KVM_SET_MEMORY_ATTRIBUTES2 and call.through is e.Through.VM_IOCTL:
        odd["ioctl"] = hex(KVM_SET_MEMORY_ATTRIBUTES2)
    made = e.ConvertAsked if call.entered else e.ConvertMet
    tracker.emit(
        made(
            conversion=call.handle,
            through=call.through,
            owner=call.owner,
            thread=thread.tid,
            start=call.start,
            npages=call.npages,
            attributes=call.attributes,
            detail=detail(**odd),
        )
    )


@handles("vm_ioctl")
def vm_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_vm_ioctl()."""
    if fact.args.get("cmd") not in CONVERSIONS:
        return False
    call = begin(tracker, thread, e.Through.VM_IOCTL, entered=True)
    call.file, call.given = fact.args.get("file"), fact.args
    vm = next((vm for vm in tracker.vms.values() if vm.file == call.file is not None and not vm.torn_down), None)
    call.vm = vm.handle if vm is not None else None
    ask(tracker, fact, thread, call)
    return True


@handles("gmem_ioctl")
def gmem_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_gmem_ioctl()."""
    if fact.args.get("cmd") not in CONVERSIONS:
        return False
    call = begin(tracker, thread, e.Through.GMEM_IOCTL, entered=True)
    call.given = fact.args
    _identify(tracker, fact, thread, call)
    ask(tracker, fact, thread, call)
    return True


def _identify(tracker: Tracker, fact: Fact, thread: Thread, call: Call) -> None:
    """Find the guest and the guest_memfd of a call from the pointers of a line, and from its fd."""
    if "kvm" in fact.args:
        call.vm = tracker.vm(fact.args["kvm"], thread).handle
    if "inode" in fact.args and call.gmem is None:
        call.gmem = tracker.gmem_of_syscall(thread, call.vm).handle


@handles("gmem_arguments")
def gmem_arguments(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of __kvm_gmem_set_attributes(): the function graph shows the arguments one call further in."""
    call = thread.call
    if call is None or call.known or call.through is not e.Through.GMEM_IOCTL:
        return False
    _identify(tracker, fact, thread, call)
    args = {"offset": fact.args["start"] << PAGE_SHIFT, "size": fact.args["nr"] << PAGE_SHIFT, "attrs": fact.args["attrs"]}
    ask(tracker, fact._replace(args=args), thread, call)
    return True


@handles("attempt")
def attempt(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_vm_set_mem_attributes(): its tracepoint fires before the lock, the no-op test and any failure."""
    start, end, attributes = fact.args["start"], fact.args["end"], fact.args["attrs"]
    call = thread.call
    same = call is not None and call.through is e.Through.VM_IOCTL and not call.attempted
    if same and call is not None and call.known:
        same = (call.start, call.end, call.attributes) == (start, end, attributes)
    if not same or call is None:
        call = begin(tracker, thread, e.Through.VM_IOCTL)
    call.start, call.npages, call.attributes, call.attempted, call.known = start, end - start, attributes, True, True
    call.mainline = fact.text.startswith("kvm_vm_set")
    asked = e.ConvertAttempted(
        conversion=call.handle, thread=thread.tid, start=start, npages=end - start, attributes=attributes
    )
    tracker.emit(asked)
    return True


def inside(tracker: Tracker, fact: Fact, thread: Thread, through: e.Through) -> Call:
    """The call that a step belongs to; a step that fits none proves a call whose entry was not seen."""
    call, shown = thread.call, fact.args
    if call is None or call.through is not through or not fits(call, shown):
        call = begin(tracker, thread, through)
        ask(tracker, fact._replace(args={}), thread, call)
    call.pointer = shown.get("kvm", call.pointer)
    call.attributes = shown.get("attrs", call.attributes)
    if "start" in shown and "end" in shown:
        low, high = call.least or (shown["start"], shown["end"])
        call.least = min(low, shown["start"]), max(high, shown["end"])
    return call


def fits(call: Call, shown: Mapping[str, int]) -> bool:
    """Whether a step that shows a kvm, gfns or attributes can be one of a call through a VM."""
    if call.pointer not in (None, shown.get("kvm", call.pointer)):
        return False
    if call.attributes is not None and shown.get("attrs", call.attributes) != call.attributes:
        return False
    if call.start is None or call.end is None or "start" not in shown or "end" not in shown:
        return not call.known or call.start is not None
    return call.start <= shown["start"] and shown["end"] <= call.end


def identify_vm(tracker: Tracker, call: Call, vm: VmState) -> None:
    """The guest of a call becomes known; and perhaps that its creation is on record.

    KVM_CREATE_VM itself is seldom traced. But the fd of the ioctl was once returned by an ioctl; where the thread that
    first used the guest got just that fd from an ioctl before, in a record without gaps, it was the creation.
    """
    call.vm = vm.handle
    vm.fd = vm.fd if call.fd is None else call.fd
    vm.file = vm.file if call.file is None else call.file
    if call.mainline:
        tracker.mainline(vm)
    if vm.birth_recorded or not vm.born_here or not tracker.whole:
        return
    vm.birth_recorded = True  # with the first conversion or never: a creation stands before all that followed
    line = None if call.fd is None else vm.returned.get(call.fd)
    if line is not None:
        facts = detail(basis="implied", join="thread", fd=call.fd)
        tracker.emit(e.VmCreated(owner=vm.handle, dialect=vm.dialect, line=line, detail=facts))


# --- returning --------------------------------------------------------------------------------------------------------


@handles("vm_ioctl_ret")
def vm_ioctl_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_vm_ioctl(); without the ioctl's number it is of the one that the thread is inside of, if it is of any."""
    own = thread.call is not None and thread.call.through is e.Through.VM_IOCTL and thread.call.attempted
    if fact.args.get("cmd", KVM_SET_MEMORY_ATTRIBUTES if own else None) not in CONVERSIONS or "ret" not in fact.args:
        return False
    call = _returning(tracker, fact, thread, e.Through.VM_IOCTL)
    if "kvm" in fact.args:
        identify_vm(tracker, call, tracker.vm(fact.args["kvm"], thread))
    _return(tracker, fact, thread, call, fact.args["ret"])
    return True


@handles("gmem_ioctl_ret")
def gmem_ioctl_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_gmem_ioctl(); it has written an error offset (bytes) where it returns EAGAIN or ENOMEM."""
    if fact.args.get("cmd") not in CONVERSIONS or "ret" not in fact.args:
        return False
    call = _returning(tracker, fact, thread, e.Through.GMEM_IOCTL)
    result = fact.args["ret"]
    error_offset = fact.args.get("error_offset") if result in (-EAGAIN, -ENOMEM) else None
    if result == -EAGAIN and call.zapped and call.attributes == PRIVATE_ATTRIBUTE and error_offset is not None:
        _emit_page_in_use(tracker, fact, call, error_offset >> PAGE_SHIFT)
    _return(tracker, fact, thread, call, result, error_offset)
    return True


def _returning(tracker: Tracker, fact: Fact, thread: Thread, through: e.Through) -> Call:
    """The call that a return line ends; its arguments are read again there, unless they cannot be read at all."""
    call, readable = thread.call, fact.args["ret"] != -EFAULT
    if call is not None and call.through is through and _agrees(tracker, call, fact):
        if not call.known and _range(fact) is not None and readable:
            _identify(tracker, fact, thread, call)
            ask(tracker, fact, thread, call)
        return call
    call = begin(tracker, thread, through)
    _identify(tracker, fact, thread, call)
    ask(tracker, fact if readable else fact._replace(args={}), thread, call)
    return call


def _agrees(tracker: Tracker, call: Call, fact: Fact) -> bool:
    """Whether a return can be that of a call: all that both show is the same, and what its steps have shown lies within."""
    shown = fact.args
    if "kvm" in shown and call.pointer not in (None, shown["kvm"]):
        return False
    if "inode" in shown and "inode" not in call.given and call.gmem is not None:
        named = next((gmem.pointer for gmem in tracker.gmems if gmem.handle == call.gmem), None)
        if named not in (None, shown["inode"]):
            return False
    if any(call.given.get(name, shown[name]) != shown[name] for name in ("cmd", "inode") if name in shown):
        return False
    if all(call.given.get(name, shown[name]) == shown[name] for name in _READ if name in shown):
        return _encloses(call, fact)
    return shown["ret"] in UNREAD and not _sane(call.given)


_READ = ("addr", "offset", "size", "attrs", "flags")
"""What probes read in the memory of the caller."""


def _encloses(call: Call, fact: Fact) -> bool:
    """Whether the range of a line, and its attributes, are what the steps of a call allow."""
    given, attributes = _range(fact), fact.args.get("attrs")
    if given is None or fact.args["ret"] in UNREAD:
        return True
    run = pages(*given)
    if attributes is not None and call.attributes not in (None, attributes):
        return False
    if run is None:
        return call.least is None and call.start is None
    if call.start is not None and run != (call.start, call.npages):
        return False
    return call.least is None or run[0] <= call.least[0] <= call.least[1] <= run[0] + run[1]


def _sane(given: Mapping[str, int]) -> bool:
    """Whether the entry of a call shows arguments that were read, not the rubbish that a probe finds at a bad pointer."""
    run = _range_of(given)
    return (
        run is not None and pages(*run) is not None and given.get("attrs") in (0, PRIVATE_ATTRIBUTE) and not given.get("flags")
    )


def _emit_page_in_use(tracker: Tracker, fact: Fact, call: Call, index: int) -> None:
    """The page that was in use, with its references if they were counted: a pinned or mapped page is refused before."""
    first, last, tested, references, count = call.tested or [fact.line, fact.line, -1, -1, 0]
    counted = references if tested == index and references >= 0 else None
    tracker.emit(
        e.UsersChecked(
            conversion=call.handle,
            owner=call.gmem,
            start=index,
            npages=1,
            result=EAGAIN,
            references=counted,
            expected=IDLE_REFERENCES,
            t=fact.t,
            line=first,
            detail=detail(last=last, pages=count) if count else None,
        )
    )


def _return(tracker: Tracker, fact: Fact, thread: Thread, call: Call, result: int, error_offset: int | None = None) -> None:
    given = _range(fact)
    start, npages = (pages(*given) if given is not None else None) or (None, None)
    tracker.emit(
        e.ConvertReturned(
            conversion=call.handle,
            owner=call.owner,
            result=-min(result, 0),
            start=start,
            npages=npages,
            error_offset=error_offset,
            thread=thread.tid,
        )
    )
    _remember(tracker, fact, call)
    tracker.leave(thread)


def _remember(tracker: Tracker, fact: Fact, call: Call) -> None:
    """Keep an ended call, so that a fault that raced with it is not taken for an implicit request."""
    if call.start is None or call.end is None:
        return
    if call.through is e.Through.VM_IOCTL:
        if call.vm is not None and call.vm in tracker.by_handle:
            tracker.by_handle[call.vm].recent.append((call.handle, call.start, call.end, fact.line))
        return
    for vm in tracker.vms.values():
        for slot in vm.slots.values():
            if slot.gmem == call.gmem is not None and slot.index is not None:
                shift = slot.start - slot.index
                vm.recent.append((call.handle, call.start + shift, call.end + shift, fact.line))


@handles("leave_ioctl")
def leave_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of the system call: the result of a call whose own return is not traced; and perhaps the fd of a VM.

    It ends the system call whose entry was seen, and the conversion inside of that; by itself it says of which it is not.
    """
    entered, thread.syscall = thread.syscall, None
    result, call = fact.args["returned"], thread.call
    if call is not None and result >= -MAX_ERRNO and entered is not None and _made_by(call, entered, result):
        vm = tracker.vm_of(thread)
        if call.vm is None and call.through is e.Through.VM_IOCTL and vm is not None and vm.fd in (None, call.fd):
            call.vm = vm.handle
        _return(tracker, fact, thread, call, result)
        return True
    tracker.leave(thread)
    if entered is not None and not tracker.sees_inside and result >= -MAX_ERRNO and whole_call(tracker, fact, thread, entered):
        return True
    if STANDARD_FDS < result < MOST_FDS:
        thread.returned[result] = fact.line
    return False


def _made_by(call: Call, entered: Fact, result: int) -> bool:
    """Whether a conversion is that of a system call, with its result: what both show is the same, and it stored or failed."""
    cmd = entered.args.get("cmd")
    if cmd is not None and (cmd not in CONVERSIONS or call.given.get("cmd", cmd) != cmd):
        return False
    return -result in POSSIBLE and (not call.stored or result == 0)
