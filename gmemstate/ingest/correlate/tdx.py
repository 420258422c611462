"""Facts of a kernel log about TDX, and the events that they amount to.

What a failed SEAMCALL is depends on its leaf: BLOCK, TRACK, REMOVE and WBINVD are the steps of a private unmap, AUG, ADD and
SEPT.ADD of a private map, RECLAIM is the end of a TD. ``status`` of these events is the upper half of the module's status
(0xc0000b0d);
``detail`` has it whole.
"""

from typing import Any

from gmemstate.decode import SeamcallLeaf, TdxOutcome, TdxStatus, seamcall_leaf, seamcall_leaf_of, sept_entry, tdx_status
from gmemstate.ingest.correlate.kernel_lines import framed, hexed, put
from gmemstate.ingest.correlate.kernel_report import Report
from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.messages.functions import entry_path
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.reports import KernelReportCode
from gmemstate.model.units import Gpa, gfn_of

REMOVE = 29
UNMAP = {7: e.UnmapStep.BLOCK, REMOVE: e.UnmapStep.REMOVE, 38: e.UnmapStep.TRACK, 41: e.UnmapStep.WBINVD}
MAP = (2, 3, 6)
RECLAIM = 28
"""Leaves by their number (TDX module, tdx_api_defs.h)."""
BEHIND = 3
"""How many lines a SEAMCALL's line stands after the warning that the same failure has printed before it."""


@handles("seamcall")
def seamcall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A SEAMCALL failed. Linux 7.2 warns first, on the same CPU: the warning has the thread and the way it came."""
    args, name = fact.args, fact.words.get("leaf_name")
    leaf = seamcall_leaf_of(name) if name is not None else seamcall_leaf(args["leaf"]) if "leaf" in args else None
    status = tdx_status(args["status"])
    if isinstance(tracker.report, Report) and tracker.report.what == KernelReportCode.WARNING:
        tracker.flush()
    return put(tracker, fact, _seamcall_event(tracker, fact, leaf, status))


@handles("page_remove")
def page_remove(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The return of tdh_mem_page_remove(), the one place that shows the gfn framed the entry.

    KVM calls it again where the module was busy (tdh_do_no_vcpus), so that only what is no "try again" is a failure.
    """
    status = tdx_status(fact.args["status"])
    if not status.error or status.outcome is not TdxOutcome.FINAL:
        return False
    leaf, gfn = seamcall_leaf(REMOVE), gfn_of(Gpa(fact.args["gpa"]))
    facts, pfn = _of_status(fact, leaf, status)
    vm = tracker.vm_of(thread)
    owner = vm.handle if vm is not None else None
    npages = 512 if facts.get("level") == "2M" else 1
    failed = e.PrivateUnmapFailed(
        step=e.UnmapStep.REMOVE,
        pfn=pfn,
        owner=owner,
        start=gfn,
        npages=npages,
        status=status.word >> 32,
        detail=detail(**facts),
    )
    return put(tracker, fact, failed)


def _seamcall_event(tracker: Tracker, fact: Fact, leaf: SeamcallLeaf | None, status: TdxStatus) -> e.Event:
    number = leaf.number if leaf is not None else None
    facts, pfn = _of_status(fact, leaf, status)
    code = status.word >> 32
    facts |= _warned_before(tracker, fact)
    if number in UNMAP:
        return e.PrivateUnmapFailed(step=UNMAP[number], pfn=pfn, status=code, detail=detail(**facts))
    if number in MAP:
        # The entry is what the secure EPT holds at the address; the page that was to be mapped is not printed.
        facts["entry_pfn"] = None if pfn is None else hex(pfn)
        return e.PrivateMapFailed(status=code, detail=detail(**facts))
    if number == RECLAIM:
        return e.ReclaimFailed(status=code, detail=detail(**facts))
    return e.KernelWarned(thread=fact.thread or None, detail=detail(what=KernelReportCode.SEAMCALL, **facts))


def _of_status(fact: Fact, leaf: SeamcallLeaf | None, status: TdxStatus) -> tuple[dict[str, Any], int | None]:
    """The words of a failed SEAMCALL, and the host page of the entry that it reports, if it reports one."""
    args = fact.args
    facts: dict[str, Any] = {
        "leaf": leaf.name if leaf is not None else fact.words.get("leaf_name", hexed(args.get("leaf"))),
        "status": hex(status.word),
        "name": status.name,
        "operand": status.operand,
        "outcome": str(status.outcome),
        "fatal": status.fatal or None,
        **framed(fact),
    }
    entry, level_state = args.get("entry", args.get("rcx")), args.get("level_state", args.get("rdx"))
    if leaf is None or entry is None or level_state is None or not leaf.name.startswith("TDH.MEM."):
        return facts, None
    found = sept_entry(entry, level_state, status)
    facts |= {"entry": hex(entry), "level_state": hex(level_state)}
    if not found.reported:
        return facts | {"reported": "no"}, None
    return facts | {"level": found.where.level_name, "state": found.where.state_name}, found.pfn


def _warned_before(tracker: Tracker, fact: Fact) -> dict[str, Any]:
    """Who was warned about, where the warning stands right before the line and is about TDX."""
    warned = tracker.reported
    if warned is None or warned.what != KernelReportCode.WARNING or warned.cut or not 0 < fact.line - warned.last <= BEHIND:
        return {}
    if "tdx" not in f"{warned.words.get('site', '')} {warned.words.get('function', '')} {' '.join(warned.frames)}":
        return {}
    tracker.reported = None  # one warning, one line
    function = warned.words.get("function")
    return {
        "thread": warned.thread,
        "comm": warned.words.get("comm"),
        "function": function,
        "path": entry_path([*([function] if function else []), *warned.frames]),
        "join": "time",
    }


@handles("td_exit")
def td_exit(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A TD left with a status that KVM does not expect; a fatal one is its end."""
    status = tdx_status(fact.args["status"])
    facts: dict[str, Any] = {
        "what": KernelReportCode.TD_EXIT,
        "status": hex(status.word),
        "name": status.name,
        "fatal": status.fatal or None,
        **framed(fact),
    }
    facts |= {"pid": fact.args.get("pid"), "hkid": hexed(fact.args.get("hkid"))}
    if status.fatal or status.name in ("TDX_NON_RECOVERABLE_TD", "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE"):
        return put(tracker, fact, e.VmDead(detail=detail(**facts)))
    return put(tracker, fact, e.KernelWarned(thread=fact.args.get("pid"), detail=detail(**facts)))


@handles("unaccepted")
def unaccepted(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The guest accessed a private page that it had not accepted, with #VE off: kvm_vm_dead."""
    gpa = fact.args["gpa"]
    facts = {
        "what": KernelReportCode.UNACCEPTED,
        "gpa": hex(gpa),
        "gfn": hex(gfn_of(Gpa(gpa))),
        "vcpu": fact.args.get("vcpu"),
        **framed(fact),
    }
    return put(tracker, fact, e.VmDead(detail=detail(**facts)))


@handles("hkid_leaked")
def hkid_leaked(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """tdx_mmu_release_hkid(): a key id cannot be freed, as the module refuses a step of the TD's end."""
    return put(tracker, fact, e.HkidLeaked(hkid=fact.args["hkid"], detail=detail(call=fact.words.get("call"), **framed(fact))))
