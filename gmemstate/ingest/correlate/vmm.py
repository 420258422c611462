"""Facts of the logs of VMMs, and the events that they amount to.

What a VMM prints before it acts is a request and goes on record as its words; only what it says of a result is one. A log names
no VM.
"""

from typing import Any

from gmemstate.decode import errno, errno_of, exit_reason
from gmemstate.decode.kvm import system_event
from gmemstate.ingest.correlate.kernel_lines import framed
from gmemstate.ingest.correlate.kernel_report import shown
from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import FOREVER, Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EFAULT, PAGE_SHIFT
from gmemstate.model.reports import VmmReportCode
from gmemstate.model.units import Gpa, gfn_of, pages

SEV_TERM, TDX_FATAL = 6, 7
DECIMAL = (
    "ret",
    "exit",
    "errno",
    "vcpu",
    "processed",
    "mappings",
    "kilobytes",
    "index",
    "madvise",
    "fallocate",
    "fw_error",
    "suberror",
)
"""Numbers that the programs print in decimal."""


def _place(args: dict[str, int] | Any) -> dict[str, Any]:
    """Addresses of a guest in pages, where they are whole pages."""
    gpa, size = args.get("gpa"), args.get("size")
    if gpa is None:
        return {}
    return {"gfn": hex(gfn_of(Gpa(gpa))), "pages": size >> PAGE_SHIFT if size is not None else None}


def _errno(fact: Fact) -> int | None:
    """The errno that a line tells: by number, or by what strerror() says."""
    number = fact.args.get("errno", fact.args.get("ret"))
    if number is not None:
        return abs(number) if errno(number) is not None or number == 0 else None
    found = errno_of(fact.words["error"]) if "error" in fact.words else None
    return None if found is None else found.number


@handles("vmm_said")
def vmm_said(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Words of a VMM: the code says of what, the text is its own."""
    numbers: dict[str, Any] = {name: value if name in DECIMAL else hex(value) for name, value in fact.args.items()}
    if "exit" in fact.args and (known := exit_reason(fact.args["exit"])) is not None:
        numbers["exit_name"] = known.name
    words = {name: shown(word) for name, word in fact.words.items() if name not in ("at", "host")}
    facts = {"text": shown(fact.text), **numbers, **_place(fact.args), **words, **framed(fact)}
    tracker.emit(e.VmmSaid(result=_errno(fact), detail=detail(**facts)))
    return True


@handles("convert_wish")
def convert_wish(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """QEMU is asked to convert; it has checked nothing yet."""
    to = "private" if fact.words["to"] == "shared_to_private" else "shared"
    return vmm_said(tracker, fact._replace(words={**fact.words, "code": VmmReportCode.CONVERT_REQUEST, "to": to}), thread)


@handles("convert_refused")
def convert_refused(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """QEMU refuses what has no guest_memfd: no ioctl was made."""
    return vmm_said(tracker, fact._replace(words={**fact.words, "code": VmmReportCode.CONVERT_REFUSED}), thread)


@handles("set_failed")
def set_failed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """KVM_SET_MEMORY_ATTRIBUTES failed: a conversion with its arguments and its errno."""
    code, run = _errno(fact), pages(fact.args["gpa"], fact.args["size"])
    if code is None or run is None:
        return vmm_said(tracker, fact._replace(words={**fact.words, "code": VmmReportCode.SET_MEMORY_FAILED}), thread)
    handle = tracker.handle()
    tracker.emit(
        e.ConvertMet(
            conversion=handle,
            through=e.Through.VM_IOCTL,
            thread=thread.tid or None,
            start=run[0],
            npages=run[1],
            attributes=fact.args["attributes"],
            detail=detail(vmm="error", **framed(fact)),
        )
    )
    tracker.emit(e.ConvertReturned(conversion=handle, result=code, thread=thread.tid or None))
    tracker.closed.append(handle)
    return True


@handles("fault_seen")
def fault_seen(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """KVM_EXIT_MEMORY_FAULT reached the VMM. Which errno came with it is not printed: EFAULT, unless the page is poisoned."""
    args = fact.args
    if "gpa" not in args:
        return False
    facts = {"basis": "implied", "at": fact.words.get("at"), "host": fact.words.get("host")}
    tracker.emit(
        e.MemoryFaultExit(
            thread=thread.tid,
            result=EFAULT,
            start=gfn_of(Gpa(args["gpa"])),
            npages=args.get("size", 0) >> PAGE_SHIFT or None,
            flags=args.get("flags"),
            detail=detail(**facts),
        )
    )
    return True


@handles("map_gpa_range")
def map_gpa_range(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A guest's KVM_HC_MAP_GPA_RANGE, whichever way it came. Without a thread nobody can say which answer belongs to it."""
    run = pages(fact.args["gpa"], fact.args["size"])
    if not fact.thread:
        return vmm_said(tracker, fact._replace(words={**fact.words, "code": VmmReportCode.MAP_GPA_RANGE}), thread)
    handle = tracker.handle()
    odd = {} if run else {"gpa": hex(fact.args["gpa"]), "pages": hex(fact.args["size"] >> PAGE_SHIFT)}
    facts = {"via": "KVM_EXIT_HYPERCALL", "at": fact.words.get("at"), "host": fact.words.get("host"), **odd}
    tracker.emit(
        e.GuestAsked(
            request=handle,
            thread=thread.tid,
            start=run[0] if run else None,
            npages=run[1] if run else None,
            flags=fact.args["attributes"],
            detail=detail(**facts),
        )
    )
    tracker.closed.append(handle)
    return True


@handles("slot_seen")
def slot_seen(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """KVM_SET_USER_MEMORY_REGION(2) with its result; size 0 deletes the slot."""
    args, code = fact.args, _errno(fact)
    slot = args.get("as_id", 0) << 16 | args["slot"]
    facts = {name: hex(args[name]) for name in ("hva", "gmem_offset") if name in args}
    fd = args.get("gmem_fd", -1)
    tracker.emit(
        e.SlotSet(
            slot=slot,
            start=gfn_of(Gpa(args["gpa"])),
            npages=args["size"] >> PAGE_SHIFT,
            flags=args["flags"],
            result=code,
            detail=detail(**facts, gmem_fd=fd if fd >= 0 else None, **framed(fact)),
        )
    )
    return True


@handles("dma_mapped", "dma_unmapped")
def dma(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A range was mapped for a device, or unmapped: an IOVA is the guest's address."""
    args = fact.args
    size = args["size"] if "size" in args else args["last"] + 1 - args["iova"]
    code = _errno(fact)
    if not 0 < size <= FOREVER - args["iova"] or (code is None and "ret" in args):
        return False
    kind = e.DmaMapped if fact.name == "dma_mapped" else e.DmaUnmapped
    facts = {"basis": fact.words.get("basis"), "iommufd": args.get("fd"), "ioas": args.get("ioas"), **framed(fact)}
    tracker.emit(
        kind(
            owner=None,
            start=args["iova"] >> PAGE_SHIFT,
            npages=-(-size >> PAGE_SHIFT),
            iova=args["iova"],
            result=code or 0,
            detail=detail(**facts),
        )
    )
    return True


@handles("system_event")
def guest_event(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The guest ended itself, or a TD reported a fatal error; other events of a guest are its ordinary life."""
    number = fact.args["event"]
    if number not in (SEV_TERM, TDX_FATAL):
        return False
    known = system_event(number)
    facts = {"what": known.text if known else None, "vcpu": fact.args["vcpu"], **framed(fact)}
    tracker.emit(e.VmDead(detail=detail(**facts)))
    return True
