"""Facts of a kernel log that one line is enough for, and that are not the vendors' own: tasks, devices, platform, whose log.

A line of the kernel names no VM, so no event of it has an attribute owner.
"""

from collections.abc import Mapping
from typing import Any

from gmemstate.decode import errno
from gmemstate.ingest.correlate.kernel_report import shown
from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.ingest.merge.clocks import own_time
from gmemstate.model.events import ClockPair, DmaFaulted, Event, HostBooted, KernelWarned, TaskSignalled, detail
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE, SIGBUS, SIGKILL
from gmemstate.model.reports import REGION_END, KernelReportCode, PlatformPart


def framed(fact: Fact) -> dict[str, Any]:
    """What any event of a log keeps of its frame."""
    return {"at": fact.words.get("at"), "host": fact.words.get("host"), "thread": fact.thread or None}


def numbers(args: Mapping[str, int], *decimal: str) -> dict[str, Any]:
    """Numbers as a detail: hexadecimal but for those that are printed in decimal."""
    return {name: value if name in decimal else hex(value) for name, value in args.items()}


def hexed(value: int | None) -> str | None:
    """A number as a detail, where there is one."""
    return None if value is None else hex(value)


def put(tracker: Tracker, fact: Fact, event: Event) -> bool:
    """Add an event of a single line: another CPU may have printed it into the middle of a report, which goes on."""
    if tracker.report is not None and tracker.report.near(fact):
        tracker.add(event)
    else:
        tracker.emit(event)
    return True


# --- memory, devices, tasks ---------------------------------------------------------------------------------------------


@handles("killed")
def killed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A task is sent SIGBUS for a poisoned page, or killed because that could not be done."""
    forcibly = "forcibly" in fact.text
    facts = {"cause": "memory error", "comm": shown(fact.words["comm"]), "pfn": hexed(fact.args.get("pfn")), **framed(fact)}
    facts["thread"] = None
    return put(
        tracker, fact, TaskSignalled(thread=fact.args["pid"], signal=SIGKILL if forcibly else SIGBUS, detail=detail(**facts))
    )


@handles("dma_fault")
def dma_fault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A device accessed what its IOMMU does not map; the address is one of the device."""
    address = fact.args["address"]
    facts = {
        "what": fact.words["what"],
        "device": fact.words.get("device"),
        "address": hex(address) if address % PAGE_SIZE else None,
    }
    return put(
        tracker, fact, DmaFaulted(owner=None, start=address >> PAGE_SHIFT, npages=1, detail=detail(**facts, **framed(fact)))
    )


@handles("kernel_said")
def kernel_said(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Something in addition: it explains what failed, or is a warning of its own."""
    facts = {**numbers(fact.args, "rc", "ret", "error", "vcpu", "retries", "level", "pages"), **framed(fact)}
    facts |= {"to": fact.words["to"]} if "to" in fact.words else {}
    text = fact.words.get("text", fact.text)
    return put(
        tracker,
        fact,
        KernelWarned(thread=fact.thread or None, detail=detail(what=fact.words["what"], text=shown(text), **facts)),
    )


@handles("guest_kernel")
def guest_kernel(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The log is that of a protected guest's kernel: what it does not say is not said of the host."""
    return put(tracker, fact, KernelWarned(detail=detail(what=KernelReportCode.GUEST_KERNEL, **framed(fact))))


@handles("owner_seen")
def owner_seen(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The first line of a boot that only some kernels print: of a virtual or bare machine, a hypervisor, a crash kernel."""
    if fact.words["of"] in tracker.owners:
        return False
    tracker.owners.add(fact.words["of"])
    words = detail(what=KernelReportCode.LOG_OWNER, of=fact.words["of"], text=shown(fact.text), **framed(fact))
    return put(tracker, fact, KernelWarned(detail=words))


@handles("platform")
def platform(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """In what state a part of the platform is, as its driver says when it starts."""
    if fact.words["part"] == PlatformPart.KERNEL:
        tracker.owners.clear()
    args = dict(fact.args)
    version = fact.words.get("version")
    if version is None and "major" in args:
        version = f"{args.pop('major')}.{args.pop('minor')}"
    failure = errno(args.pop("error", args.pop("rc", 0)))
    words = {
        name: shown(word) for name, word in fact.words.items() if name in ("part", "state", "cause", "needs", "build_date")
    }
    facts = {
        "what": KernelReportCode.PLATFORM,
        **words,
        "of": fact.words.get("kind", "").lstrip("-") or None,
        "version": version and shown(version),
        "error": failure.name if failure else None,
        "fw_error": hexed(args.pop("fw_error", None)),
        "text": shown(fact.words.get("text", fact.text)),
        **args,
        **framed(fact),
    }
    return put(tracker, fact, KernelWarned(detail=detail(**facts)))


@handles("booted")
def booted(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The journal goes on with the next boot of the host. What a guest's console says of its own boot is no such line."""
    tracker.owners.clear()
    tracker.emit(HostBooted())
    return True


@handles("memory_map")
def memory_map(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """What the kernel says of a range of host memory when it starts: whole pages, without the edges that are none."""
    first = fact.args["first_byte"]
    end = fact.args.get("last_byte", first + (2 << 20) - 1) + 1
    facts = {
        "what": KernelReportCode.MEMORY_MAP,
        "of": fact.words["of"],
        "first": hex(-(-first >> PAGE_SHIFT)),
        REGION_END: hex(end >> PAGE_SHIFT),
    }
    return put(tracker, fact, KernelWarned(detail=detail(**facts, **framed(fact))))


@handles("clock_pair")
def clock_pair(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A source says what CLOCK_REALTIME showed at a time of its own clock, which is CLOCK_MONOTONIC or another one."""
    if fact.t is None:
        return False
    tracker.emit(ClockPair(other=fact.args["real"], t=own_time(fact.t, fact.args["mono"]), line=fact.line))
    return True
