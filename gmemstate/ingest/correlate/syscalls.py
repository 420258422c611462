"""System calls of a VMM, as strace and perf trace show them: results without arguments.

A call names a file descriptor, no VM: its events have no attribute owner, and the descriptor stands in their detail. What has
no kind of its own is put on record only where it failed.
"""

from typing import Any

from gmemstate.decode import errno, ioctl
from gmemstate.ingest.correlate.trackees import Call, Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.ingest.readers.strace import CONVERTING, ioctl_of
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EAGAIN, EFAULT, EHWPOISON, EINTR, ENOTTY, LAST_PAGE, PAGE_SHIFT
from gmemstate.model.units import Gpa, gfn_of, pages

SET_ATTRIBUTES = "KVM_SET_MEMORY_ATTRIBUTES"
SET_ATTRIBUTES2 = "KVM_SET_MEMORY_ATTRIBUTES2"
CREATE = "KVM_CREATE_GUEST_MEMFD"
REGIONS = ("KVM_SET_USER_MEMORY_REGION", "KVM_SET_USER_MEMORY_REGION2")
WATCHED = (CREATE, *REGIONS, "KVM_CREATE_VM", "KVM_MEMORY_ENCRYPT_OP", "KVM_PRE_FAULT_MEMORY")
"""Ioctls whose failure is put on record."""


def _beside(fact: Fact) -> dict[str, Any]:
    """What a call names in addition to its result."""
    return {"fd": fact.args.get("fd"), "file": fact.words.get("file"), "at": fact.words.get("at")}


def _ended(fact: Fact) -> int | None:
    """When a call ended (ns): its line has the time of its beginning, where how long it took is shown."""
    if fact.t is None or fact.words["phase"] == "returned":
        return fact.t
    return fact.t + fact.args.get("duration", 0)


# --- conversions ------------------------------------------------------------------------------------------------------


@handles("convert_call")
def convert_call(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A conversion was asked, or came back. strace does not read the arguments; the result is certain."""
    phase = fact.words["phase"]
    if phase != "returned":
        _ask(tracker, fact, thread)
    if phase != "entered" and thread.call is not None:
        call = thread.call
        if "ret" in fact.args:
            tracker.emit(
                e.ConvertReturned(
                    conversion=call.handle,
                    result=-min(fact.args["ret"], 0),
                    thread=thread.tid or None,
                    t=_ended(fact),
                    line=fact.line,
                )
            )
        tracker.leave(thread)
    return True


def _ask(tracker: Tracker, fact: Fact, thread: Thread) -> None:
    tracker.leave(thread)
    through, name = _through(tracker, fact)
    thread.call = Call(tracker.handle(), through, fact.line, entered=True)
    facts = {**_beside(fact), "ioctl": name if through is not e.Through.VM_IOCTL or name != SET_ATTRIBUTES else None}
    tracker.emit(
        e.ConvertAsked(conversion=thread.call.handle, through=through, thread=thread.tid or None, detail=detail(**facts))
    )


def whole_call(tracker: Tracker, fact: Fact, thread: Thread, entered: Fact) -> bool:
    """A conversion of which a trace shows the system call alone, neither probe nor tracepoint: asked, and the result.

    False for another call, and for what comes back as ENOTTY: the file was no VM or guest_memfd. The range is in memory
    that nobody has read, as in strace.
    """
    known = ioctl_of(hex(entered.args.get("cmd", 0)), None)
    if known is None or known[0] not in CONVERTING or fact.args["returned"] == -ENOTTY:
        return False
    handle, result = tracker.handle(), -min(fact.args["returned"], 0)
    through = {SET_ATTRIBUTES: e.Through.VM_IOCTL, SET_ATTRIBUTES2: e.Through.GMEM_IOCTL}.get(known[1], e.Through.GMEM_CONVERT)
    facts = detail(fd=entered.args.get("fd"), ioctl=known[1] if through is not e.Through.VM_IOCTL else None)
    tracker.emit(
        e.ConvertAsked(
            conversion=handle, through=through, detail=facts, thread=thread.tid or None, t=entered.t, line=entered.line
        )
    )
    tracker.emit(e.ConvertReturned(conversion=handle, result=result, thread=thread.tid or None))
    tracker.closed.append(handle)
    return True


def _through(tracker: Tracker, fact: Fact) -> tuple[e.Through, str]:
    """By which ioctl. A tool that looks at its number only gives KVM_SET_MEMORY_ATTRIBUTES2 the name of the older one."""
    name = fact.words["ioctl"]
    if name == SET_ATTRIBUTES and fact.words.get("by") == "number" and fact.args["fd"] in tracker.gmem_fds:
        name = SET_ATTRIBUTES2
    if name == SET_ATTRIBUTES:
        of_file = fact.words.get("file") == "kvm-gmem" or ("file" not in fact.words and fact.args.get("fd") in tracker.gmem_fds)
        return (e.Through.GMEM_IOCTL if of_file else e.Through.VM_IOCTL), name
    if name == SET_ATTRIBUTES2:
        return (e.Through.VM_IOCTL if fact.words.get("file") == "kvm-vm" else e.Through.GMEM_IOCTL), name
    return e.Through.GMEM_CONVERT, name


# --- the others -------------------------------------------------------------------------------------------------------


@handles("system_call")
def system_call(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Any other call: what it does to file descriptors is remembered, what it says of memory is put on record."""
    if fact.words["phase"] == "entered" or "ret" not in fact.args:
        return False
    call, name = fact.words["call"], fact.words.get("ioctl")
    _follow(tracker, fact, call, name)
    if call == "fallocate":
        return _fallocate(tracker, fact, thread)
    if name == "KVM_RUN":
        return _run(tracker, fact, thread)
    if name in REGIONS and {"slot", "gpa", "size"} <= fact.args.keys():
        return _slot(tracker, fact)
    if name in WATCHED and fact.args["ret"] < 0:
        return _failed(tracker, fact, name)
    return False


def _follow(tracker: Tracker, fact: Fact, call: str, name: str | None) -> None:
    """Which descriptors are guest_memfds: those that the ioctl has returned, until they are closed or given again."""
    result = fact.args["ret"]
    if name == CREATE and result >= 0:
        tracker.gmem_fds.add(result)
    elif call == "close":
        tracker.gmem_fds.discard(fact.args.get("fd", -1))
    elif call == "dup" and fact.args.get("fd") in tracker.gmem_fds:
        tracker.gmem_fds.add(result)
    elif call != "fallocate" and name is None:
        tracker.gmem_fds.discard(result)


def _fallocate(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A punch or an allocation of a guest_memfd; of another file it says nothing here."""
    args, file = fact.args, fact.words.get("file")
    if file != "kvm-gmem" and (file is not None or args["fd"] not in tracker.gmem_fds):
        return False
    run = pages(args["offset"], args["len"])
    odd = {} if run else {"offset": hex(args["offset"]), "len": hex(args["len"])}
    tracker.emit(
        e.Punched(
            mode=args["mode"],
            result=-min(args["ret"], 0),
            start=run[0] if run else None,
            npages=run[1] if run else None,
            thread=thread.tid or None,
            detail=detail(**_beside(fact), **odd),
        )
    )
    return True


def _run(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """KVM_RUN returned. EFAULT and EHWPOISON are a memory fault exit; its range is in memory that strace does not read."""
    code = -fact.args["ret"]
    if code in (EFAULT, EHWPOISON):
        tracker.emit(
            e.MemoryFaultExit(
                thread=thread.tid, result=code, detail=detail(basis="implied", **_beside(fact)), t=_ended(fact), line=fact.line
            )
        )
        return True
    return code > 0 and code not in (EINTR, EAGAIN) and _failed(tracker, fact, "KVM_RUN")


def _slot(tracker: Tracker, fact: Fact) -> bool:
    args = fact.args
    if args["gpa"] + args["size"] > LAST_PAGE << PAGE_SHIFT:
        return False
    tracker.emit(
        e.SlotSet(
            slot=args["slot"],
            start=gfn_of(Gpa(args["gpa"])),
            npages=args["size"] >> PAGE_SHIFT,
            flags=args.get("flags"),
            result=-min(args["ret"], 0),
            detail=detail(hva=hex(args["hva"]), **_beside(fact)),
        )
    )
    return True


def _failed(tracker: Tracker, fact: Fact, name: str) -> bool:
    code = -fact.args["ret"]
    known, found = errno(code), ioctl(name)
    facts = {
        "code": name,
        "errno": known.name if known else None,
        "number": hex(found.number) if found and found.number else None,
    }
    tracker.emit(e.VmmSaid(result=code, detail=detail(**facts, thread=fact.thread or None, **_beside(fact))))
    return True


@handles("signalled")
def signalled(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A thread is sent SIGBUS, or is killed; an ioctl that it is inside of has then come to its end unseen."""
    call = thread.call
    tracker.emit(
        e.TaskSignalled(
            thread=thread.tid,
            signal=fact.args["sig"],
            reason=fact.args.get("code"),
            conversion=call.handle if call is not None else None,
        )
    )
    return True
