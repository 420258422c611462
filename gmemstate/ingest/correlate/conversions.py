"""Facts inside a conversion ioctl, from its entry to its return.

Which fact comes from which line: virt/kvm/kvm_main.c kvm_vm_set_mem_attributes() for the VM ioctl, virt/kvm/guest_memfd.c
__kvm_gmem_set_attributes() for the ioctl of a guest_memfd.
"""

from typing import Any

from gmemstate.ingest.correlate.syscalls import whole_call
from gmemstate.ingest.correlate.trackees import Call, Thread, VmState
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import FOREVER, Fact
from gmemstate.model.events import (
    AttrsCompared,
    AttrsStored,
    ConvertAsked,
    ConvertAttempted,
    ConvertMet,
    ConvertReturned,
    GmemSeen,
    InvalidateAdded,
    InvalidateEnded,
    Through,
    User,
    UserAnswered,
    UsersChecked,
    VcpuExited,
    VmCreated,
    ZapStarted,
    detail,
)
from gmemstate.model.linux import EAGAIN, EFAULT, EIO, ENOMEM, ENOTTY, LAST_PAGE, PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.units import pages

SET_ATTRIBUTES, SET_ATTRIBUTES2, SET_REGION, RUN = 0x4020AED2, 0xC080AED2, 0x40A0AE49, 0xAE80
MAX_ERRNO = 4095
UNREAD = (-EIO, -EFAULT, -ENOTTY)
"""Results with which the kernel has not read the arguments; a probe may have read rubbish."""
IDLE_REFERENCES = 2
"""Of an order-0 folio during the in-use test: the page cache's and the test's own."""


# --- beginning ------------------------------------------------------------------------------------------------------


def begin(tracker: Tracker, fact: Fact, thread: Thread, through: Through, *, entered: bool = False) -> Call:
    """A thread enters a conversion; what it was last told by KVM_RUN goes on record first."""
    tracker.leave(thread)
    if thread.exit is not None:
        told = thread.exit
        vm = tracker.vm_of(thread)
        tracker.emit(
            VcpuExited(
                thread=thread.tid,
                owner=vm.handle if vm else None,
                reason=told.args.get("reason"),
                result=-told.args.get("err", 0),
                t=told.t,
                line=told.line,
            )
        )
        thread.exit = None
    call = Call(tracker.handle(), through, fact.line, entered=entered)
    tracker.sees_inside = True
    if thread.syscall is not None and thread.syscall[0] == "ioctl":
        call.fd = thread.syscall[1].get("fd")
    thread.call = call
    return call


def _range(fact: Fact) -> tuple[int, int] | None:
    """Address and size (bytes) that a call was given, if the line has both."""
    address, size = fact.args.get("addr", fact.args.get("offset")), fact.args.get("size")
    return None if address is None or size is None else (address, size)


def ask(tracker: Tracker, fact: Fact, thread: Thread, call: Call) -> None:
    """Put the arguments of a call on record, as far as the line has them."""
    odd: dict[str, Any] = {}
    if (given := _range(fact)) is not None:
        call.known = True
        run = pages(*given)
        if run is None:
            odd = {"address": hex(given[0]), "size": hex(given[1])}
        else:
            call.start, call.npages = run
        call.attributes = fact.args.get("attrs")
        if fact.args.get("flags"):
            odd["flags"] = hex(fact.args["flags"])
    if fact.args.get("cmd") == SET_ATTRIBUTES2 and call.through is Through.VM_IOCTL:
        odd["ioctl"] = hex(SET_ATTRIBUTES2)
    kind = ConvertAsked if call.entered else ConvertMet
    tracker.emit(
        kind(
            conversion=call.handle,
            through=call.through,
            owner=call.vm if call.through is Through.VM_IOCTL else call.gmem,
            thread=thread.tid,
            start=call.start,
            npages=call.npages,
            attributes=call.attributes,
            detail=detail(**odd),
        )
    )


@handles("vm_ioctl")
def vm_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    if fact.args.get("cmd") not in (SET_ATTRIBUTES, SET_ATTRIBUTES2):
        return False
    call = begin(tracker, fact, thread, Through.VM_IOCTL, entered=True)
    call.file = fact.args.get("file")
    vm = next((vm for vm in tracker.vms.values() if vm.file == call.file is not None and not vm.torn_down), None)
    call.vm = vm.handle if vm is not None else None
    ask(tracker, fact, thread, call)
    return True


@handles("gmem_ioctl")
def gmem_ioctl(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    if fact.args.get("cmd") != SET_ATTRIBUTES2:
        return False
    call = begin(tracker, fact, thread, Through.GMEM_IOCTL, entered=True)
    _identify(tracker, fact, thread, call)
    ask(tracker, fact, thread, call)
    return True


def _identify(tracker: Tracker, fact: Fact, thread: Thread, call: Call) -> None:
    """Find the guest and the guest_memfd of a call from the pointers of a line, and from its fd."""
    if "kvm" in fact.args:
        call.vm = tracker.vm(fact.args["kvm"], fact, thread).handle
    if "inode" in fact.args and call.gmem is None:
        call.gmem = gmem_here(tracker, fact, thread, call.vm).handle


def gmem_here(tracker: Tracker, fact: Fact, thread: Thread, vm: int | None) -> Any:
    """The guest_memfd of a line inside a syscall on its fd: the one created with that fd, if the inode was not met."""
    pointer = fact.args["inode"]
    known = tracker.gmem_known(pointer, vm if "kvm" in fact.args else None)
    fd = thread.syscall[1].get("fd") if thread.syscall is not None else None
    if vm is None and (own := tracker.vm_of(thread)) is not None:
        vm = own.handle
    created = tracker.gmem_of_fd(fd, vm) if fd is not None and vm is not None else None
    if created is not None and created.pointer is None and (known is None or created.handle < known.handle):
        created.pointer = pointer
        return created
    if known is not None and known.vm is None and vm is not None:
        known.vm = vm
        tracker.emit(GmemSeen(owner=known.handle, pointer=pointer, vm=vm))
    return known or tracker.gmem_at(pointer, fact, vm)


@handles("gmem_arguments")
def gmem_arguments(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The function graph shows the arguments one call further in."""
    call = thread.call
    if call is None or call.known or call.through is not Through.GMEM_IOCTL:
        return False
    _identify(tracker, fact, thread, call)
    args = {"offset": fact.args["start"] << PAGE_SHIFT, "size": fact.args["nr"] << PAGE_SHIFT, "attrs": fact.args["attrs"]}
    ask(tracker, fact._replace(args=args), thread, call)
    return True


@handles("attempt")
def attempt(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The tracepoint fires before the lock, before the no-op test and before any failure: an attempt, no more."""
    start, end, attributes = fact.args["start"], fact.args["end"], fact.args["attrs"]
    call = thread.call
    same = call is not None and call.through is Through.VM_IOCTL and not call.attempted
    if same and call is not None and call.known:
        same = (call.start, call.end, call.attributes) == (start, end, attributes)
    if not same or call is None:
        call = begin(tracker, fact, thread, Through.VM_IOCTL)
    call.start, call.npages, call.attributes, call.attempted, call.known = start, end - start, attributes, True, True
    call.mainline = fact.text.startswith("kvm_vm_set")
    tracker.emit(
        ConvertAttempted(conversion=call.handle, thread=thread.tid, start=start, npages=end - start, attributes=attributes)
    )
    return True


# --- steps ----------------------------------------------------------------------------------------------------------


def inside(tracker: Tracker, fact: Fact, thread: Thread, through: Through) -> Call:
    """The call that a step belongs to; a step without one proves a call whose entry was not seen."""
    call = thread.call
    if call is None or call.through is not through:
        call = begin(tracker, fact, thread, through)
        ask(tracker, fact._replace(args={}), thread, call)
    return call


@handles("range_has_attrs")
def range_has_attrs(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The first comparison of a call, by the ioctl itself, tells a no-op; others come from memslots and post_set."""
    args = fact.args
    by_name = "+0x" in fact.text.partition("<-")[0]
    making = thread.region is not None or "init_memslot" in fact.text
    vm = tracker.vm(args["kvm"], fact, thread, makes=making)
    if "<- kvm_range_has_memory_attributes" in fact.text:
        tracker.mainline(vm, fact)
    if thread.region is not None:
        thread.region.vm = vm
    call = thread.call
    start, npages = args["start"], args["end"] - args["start"]
    if call is not None and call.through is Through.VM_IOCTL and not call.compared and not call.zapped and not making:
        of_ioctl = not by_name or "kvm_vm_ioctl" in fact.text or "kvm_vm_set_mem" in fact.text or "kvm_set_vm_mem" in fact.text
        if of_ioctl and (not call.known or (call.start, call.npages, call.attributes) == (start, npages, args["attrs"])):
            _meet(tracker, fact, thread, call, vm)
            call.compared = True
            tracker.emit(
                AttrsCompared(
                    conversion=call.handle,
                    owner=vm.handle,
                    start=start,
                    npages=npages,
                    attributes=args["attrs"],
                    equal=args["ret"],
                    thread=thread.tid,
                )
            )
            return True
    if args["ret"] == 1 and args.get("mask", -1) in (-1, (1 << 64) - 1):
        tracker.emit(
            AttrsCompared(owner=vm.handle, start=start, npages=npages, attributes=args["attrs"], equal=1, thread=thread.tid)
        )
        return True
    return False


def _meet(tracker: Tracker, fact: Fact, thread: Thread, call: Call, vm: VmState) -> None:
    """The guest of a call becomes known; and perhaps that its birth is on record.

    KVM_CREATE_VM itself is seldom traced. But the fd of the ioctl was once returned by an ioctl; where the thread that
    first touched the guest got just that fd from an ioctl before, in a record without gaps, it was the creation.
    """
    call.vm = vm.handle
    vm.fd = vm.fd if call.fd is None else call.fd
    vm.file = vm.file if call.file is None else call.file
    if call.mainline:
        tracker.mainline(vm, fact)
    if vm.birth_told or not vm.born_here or not tracker.whole:
        return
    vm.birth_told = True  # with the first conversion or never: what is told of a birth stands before all that followed
    line = None if call.fd is None else vm.returned.get(call.fd)
    if line is not None:
        tracker.emit(
            VmCreated(owner=vm.handle, dialect=vm.dialect, line=line, detail=detail(basis="implied", join="thread", fd=call.fd))
        )


@handles("pre_set")
def pre_set(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    call = inside(tracker, fact, thread, Through.VM_IOCTL)
    vm = tracker.vm(fact.args["kvm"], fact, thread)
    _meet(tracker, fact, thread, call, vm)
    start, npages = _clip(fact, call)
    if start is None or npages is None:
        return False
    call.zapped = True
    tracker.emit(
        ZapStarted(
            conversion=call.handle,
            owner=vm.handle,
            start=start,
            npages=npages,
            attributes=fact.args.get("attrs", call.attributes),
            slot=fact.args.get("slot"),
        )
    )
    return True


def _clip(fact: Fact, call: Call) -> tuple[int | None, int | None]:
    """The range of a line that names one, else that of the call."""
    if "start" in fact.args and "end" in fact.args:
        return fact.args["start"], fact.args["end"] - fact.args["start"]
    return call.start, call.npages


@handles("post_set")
def post_set(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Comes behind the store loop of the whole range, once for each slot."""
    call = inside(tracker, fact, thread, Through.VM_IOCTL)
    vm = tracker.vm(fact.args["kvm"], fact, thread)
    _meet(tracker, fact, thread, call, vm)
    start, npages = _clip(fact, call)
    attributes = fact.args.get("attrs", call.attributes)
    if start is None or npages is None or attributes is None:
        return False
    tracker.emit(AttrsStored(conversion=call.handle, owner=vm.handle, start=start, npages=npages, attributes=attributes))
    return True


@handles("inv_add")
def inv_add(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    call = thread.call
    if call is None or "start" not in fact.args:
        return False
    vm = tracker.vm(fact.args["kvm"], fact, thread)
    tracker.emit(
        InvalidateAdded(
            conversion=call.handle, owner=vm.handle, start=fact.args["start"], npages=fact.args["end"] - fact.args["start"]
        )
    )
    return True


@handles("inv_end")
def inv_end(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """On mainline it comes before the store is seen; in-place behind it, and once more from the mmu notifier before."""
    call = thread.call
    if call is None or not call.zapped or (call.through is Through.GMEM_IOCTL and call.stored is None):
        return False
    tracker.emit(InvalidateEnded(conversion=call.handle))
    return True


@handles("host_unmap")
def host_unmap(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Step 4 to private: host page tables of the whole request, whatever the result will be."""
    call = thread.call
    if call is None or call.through is not Through.GMEM_IOCTL or call.gmem is None:
        return False
    if "inode" in fact.args and fact.args["inode"] != _pointer(tracker, call.gmem):
        return False
    start, npages = fact.args["start"], fact.args["nr"]
    _zap(tracker, fact, call, start, npages)
    tracker.emit(UserAnswered(user=User.HOST, conversion=call.handle, owner=call.gmem, start=start, npages=npages, result=0))
    return True


def _pointer(tracker: Tracker, handle: int) -> int | None:
    return next((gmem.pointer for gmem in tracker.gmems if gmem.handle == handle), None)


def _zap(tracker: Tracker, fact: Fact, call: Call, start: int, npages: int) -> None:
    call.zapped = True
    tracker.emit(ZapStarted(conversion=call.handle, owner=call.gmem, start=start, npages=npages, attributes=call.attributes))


@handles("lru_folio")
def lru_folio(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """One line for each folio that is neither pinned nor mapped: its references are counted."""
    call = thread.call
    if call is None or call.through is not Through.GMEM_IOCTL:
        return False
    first = call.tested[0] if call.tested else fact.line
    count = call.tested[4] + 1 if call.tested else 1
    call.tested = [first, fact.line, fact.args.get("index", -1), fact.args.get("refs", -1), count]
    return True


@handles("gmem_inv")
def gmem_inv(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The point of no return of a conversion; or the beginning of a punch, a poisoning or a release."""
    start, end = fact.args["start"], fact.args["end"]
    call = thread.call
    if call is not None and (end == FOREVER or (call.known and (start, end) != (call.start, call.end))):
        tracker.leave(thread)
        call = None
    if call is None or call.through is not Through.GMEM_IOCTL:
        thread.bracket = (start, end, [])
        return False
    if not call.zapped or call.attributes != PRIVATE_ATTRIBUTE:
        _zap(tracker, fact, call, start, end - start)
    if call.attributes == PRIVATE_ATTRIBUTE and not call.checked:
        call.checked = True
        first, last, _, _, count = call.tested or [fact.line, fact.line, 0, 0, 0]
        tracker.emit(
            UsersChecked(
                conversion=call.handle,
                owner=call.gmem,
                start=start,
                npages=end - start,
                result=0,
                t=fact.t,
                line=first,
                detail=detail(last=last, pages=count) if count else None,
            )
        )
    return True


@handles("gmem_store")
def gmem_store(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """maple_tree:ma_write, once or twice for a store; the range is merged with equal neighbours."""
    call = thread.call
    value = {0x1: 0, 0x11: PRIVATE_ATTRIBUTE}.get(fact.args["val"])
    start, last = fact.args["index"], fact.args["last"]
    if call is None or call.through is not Through.GMEM_IOCTL or value is None or not start <= last < LAST_PAGE:
        return False
    again = call.stored == (start, last, value)
    call.stored = (start, last, value)
    if not again:
        tracker.emit(
            AttrsStored(conversion=call.handle, owner=call.gmem, start=start, npages=last - start + 1, attributes=value)
        )
    return True


# --- returning --------------------------------------------------------------------------------------------------------


@handles("vm_ioctl_ret")
def vm_ioctl_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    own = thread.call is not None and thread.call.through is Through.VM_IOCTL and thread.call.attempted
    if fact.args.get("cmd", SET_ATTRIBUTES if own else None) not in (SET_ATTRIBUTES, SET_ATTRIBUTES2) or "ret" not in fact.args:
        return False  # without a number it is the return of the ioctl that the thread is inside of, if it is of any
    call = _returning(tracker, fact, thread, Through.VM_IOCTL)
    if "kvm" in fact.args:
        _meet(tracker, fact, thread, call, tracker.vm(fact.args["kvm"], fact, thread))
    _return(tracker, fact, thread, call, fact.args["ret"], None)
    return True


@handles("gmem_ioctl_ret")
def gmem_ioctl_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    if fact.args.get("cmd") != SET_ATTRIBUTES2 or "ret" not in fact.args:
        return False
    call = _returning(tracker, fact, thread, Through.GMEM_IOCTL)
    result = fact.args["ret"]
    error_offset = fact.args.get("error_offset") if result in (-EAGAIN, -ENOMEM) else None
    if result == -EAGAIN and call.zapped and call.attributes == PRIVATE_ATTRIBUTE and error_offset is not None:
        _tell_bad_page(tracker, fact, call, error_offset >> PAGE_SHIFT)
    _return(tracker, fact, thread, call, result, error_offset)
    return True


def _returning(tracker: Tracker, fact: Fact, thread: Thread, through: Through) -> Call:
    """The call that a return line ends; its arguments are read again there, unless they cannot be read at all."""
    call = thread.call
    if call is not None and call.through is through:
        given = _range(fact)
        said = None if given is None else pages(*given)
        own = None if call.start is None or call.npages is None else (call.start, call.npages)
        if not call.known or said is None or own is None or own == said or fact.args["ret"] in UNREAD:
            if not call.known and given is not None and fact.args["ret"] != -EFAULT:
                _identify(tracker, fact, thread, call)
                ask(tracker, fact, thread, call)
            return call
    call = begin(tracker, fact, thread, through)
    _identify(tracker, fact, thread, call)
    ask(tracker, fact if fact.args["ret"] != -EFAULT else fact._replace(args={}), thread, call)
    return call


def _tell_bad_page(tracker: Tracker, fact: Fact, call: Call, index: int) -> None:
    """The page that was in use, with its references if they were counted: a pinned or mapped page is refused before."""
    first, last, tested, references, count = call.tested or [fact.line, fact.line, -1, -1, 0]
    tracker.emit(
        UsersChecked(
            conversion=call.handle,
            owner=call.gmem,
            start=index,
            npages=1,
            result=EAGAIN,
            references=references if tested == index and references >= 0 else None,
            expected=IDLE_REFERENCES,
            t=fact.t,
            line=first,
            detail=detail(last=last, pages=count) if count else None,
        )
    )


def _return(tracker: Tracker, fact: Fact, thread: Thread, call: Call, result: int, error_offset: int | None) -> None:
    given = _range(fact)
    again = None if given is None else pages(*given)
    tracker.emit(
        ConvertReturned(
            conversion=call.handle,
            owner=call.vm if call.through is Through.VM_IOCTL else call.gmem,
            result=-min(result, 0),
            start=again[0] if again else None,
            npages=again[1] if again else None,
            error_offset=error_offset,
            thread=thread.tid,
        )
    )
    _remember(tracker, fact, call)
    tracker.leave(thread)


def _remember(tracker: Tracker, fact: Fact, call: Call) -> None:
    """Keep an ended call, so that a fault that raced with it can be told from a wish for a conversion."""
    if call.start is None or call.end is None:
        return
    if call.through is Through.VM_IOCTL:
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
    """The return of the syscall: the result of a call whose own return is not traced; and perhaps the fd of a VM."""
    entered, thread.syscall = thread.syscall, None
    result = fact.args["returned"]
    call = thread.call
    if (
        call is not None
        and result >= -MAX_ERRNO
        and (entered is None or entered[1].get("cmd") in (None, SET_ATTRIBUTES, SET_ATTRIBUTES2))
    ):
        vm = tracker.vm_of(thread)
        if call.vm is None and call.through is Through.VM_IOCTL and vm is not None and vm.fd in (None, call.fd):
            call.vm = vm.handle
        _return(tracker, fact, thread, call, result, None)
        return True
    tracker.leave(thread)
    if entered is not None and not tracker.sees_inside and result >= -MAX_ERRNO and whole_call(tracker, fact, thread, entered):
        return True
    if 2 < result < 1 << 16:
        thread.returned[result] = fact.line
    return False
