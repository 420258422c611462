"""Facts of a kernel log, and the events that they amount to.

A line of the kernel names no VM, so no event of it has a space. What a failed SEAMCALL is depends on its leaf: BLOCK, TRACK, REMOVE
and WBINVD are the steps of a private unmap, AUG, ADD and SEPT.ADD of a private map, RECLAIM is the end of a TD. ``status`` of these
events is the upper half of the module's status (0xc0000b0d), the code of RMPUPDATE or PSMASH, or an errno; ``detail`` has it whole.
"""

from collections.abc import Mapping
from typing import Any

from gmemstate.decode import (
    SeamcallLeaf,
    TdxStatus,
    psmash,
    rmp_entry,
    seamcall_leaf,
    seamcall_leaf_of,
    sept_entry,
    tdx_status,
)
from gmemstate.decode.snp import sev_termination
from gmemstate.ingest.facts import Fact
from gmemstate.ingest.kernel_report import Report, shown
from gmemstate.ingest.stacks import entry_path
from gmemstate.ingest.tracker import Handler, Run, Thread, Tracker
from gmemstate.model.events import (
    DmaFaulted,
    Event,
    HkidLeaked,
    KernelWarned,
    MachineCheck,
    PageLeaked,
    PrivateMapFailed,
    PrivateUnmapFailed,
    ReclaimFailed,
    RmpViolation,
    TaskSignalled,
    UnmapStep,
    VmDead,
    detail,
)
from gmemstate.model.units import PAGE_SHIFT, PAGE_SIZE

SIGBUS, SIGKILL, FROM_KERNEL = 7, 9, 128
UNMAP = {7: UnmapStep.BLOCK, 29: UnmapStep.REMOVE, 38: UnmapStep.TRACK, 41: UnmapStep.WBINVD}
MAP = (2, 3, 6)
RECLAIM = 28
"""Leaves by their number (TDX module, tdx_api_defs.h)."""
BEHIND = 3
"""How many lines a SEAMCALL's line stands behind the warning that the same failure has printed before it."""


def _at(tracker: Tracker, fact: Fact) -> dict[str, Any]:
    return {"t": fact.t, "line": fact.line, "source": tracker.source}


def _put(tracker: Tracker, fact: Fact, event: Event) -> bool:
    """Add an event of a single line: another CPU may have printed it into the middle of a report, which goes on."""
    if tracker.report is not None and tracker.report.near(fact):
        tracker.made.append(event)
    else:
        tracker.emit(event)
    return True


def _beside(fact: Fact) -> dict[str, Any]:
    """What any event of a log keeps of its frame."""
    return {"at": fact.words.get("at"), "host": fact.words.get("host"), "thread": fact.thread or None}


def _numbers(args: Mapping[str, int], *decimal: str) -> dict[str, Any]:
    """Numbers as a detail: hexadecimal but for those that are printed in decimal."""
    return {name: value if name in decimal else hex(value) for name, value in args.items()}


# --- TDX --------------------------------------------------------------------------------------------------------------


def seamcall(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A SEAMCALL failed. Linux 7.2 warns first, on the same CPU: the warning has the thread and the way it came."""
    args, name = fact.args, fact.words.get("leaf_name")
    leaf = seamcall_leaf_of(name) if name is not None else seamcall_leaf(args["leaf"]) if "leaf" in args else None
    status = tdx_status(args["status"])
    if tracker.report is not None and tracker.report.kind == "warning":
        tracker.flush()
    return _put(tracker, fact, _seamcall_event(tracker, fact, leaf, status))


def _seamcall_event(tracker: Tracker, fact: Fact, leaf: SeamcallLeaf | None, status: TdxStatus) -> Event:
    number = leaf.number if leaf is not None else None
    facts, pfn = _of_status(fact, leaf, status)
    code, at = status.word >> 32, _at(tracker, fact)
    facts |= _warned_before(tracker, fact)
    if number in UNMAP:
        return PrivateUnmapFailed(step=UNMAP[number], pfn=pfn, status=code, detail=detail(**facts), **at)
    if number in MAP:
        # The entry is what the secure EPT holds at the address; the page that was to be mapped is not printed.
        facts["entry_pfn"] = None if pfn is None else hex(pfn)
        return PrivateMapFailed(status=code, detail=detail(**facts), **at)
    if number == RECLAIM:
        return ReclaimFailed(status=code, detail=detail(**facts), **at)
    return KernelWarned(thread=fact.thread or None, detail=detail(what="SEAMCALL", **facts), **at)


def _of_status(fact: Fact, leaf: SeamcallLeaf | None, status: TdxStatus) -> tuple[dict[str, Any], int | None]:
    """The words of a failed SEAMCALL, and the host page of the entry that it reports, if it reports one."""
    args = fact.args
    facts: dict[str, Any] = {
        "leaf": leaf.name if leaf is not None else fact.words.get("leaf_name", _hex(args.get("leaf"))), "status": hex(status.word),
        "name": status.name, "operand": status.operand, "outcome": str(status.outcome), "fatal": status.fatal or None, **_beside(fact),
    }  # fmt: skip
    entry, level_state = args.get("entry", args.get("rcx")), args.get("level_state", args.get("rdx"))
    if leaf is None or entry is None or level_state is None or not leaf.name.startswith("TDH.MEM."):
        return facts, None
    found = sept_entry(entry, level_state, status)
    facts |= {"entry": hex(entry), "level_state": hex(level_state)}
    if not found.reported:
        return facts | {"reported": "no"}, None
    return facts | {"level": found.where.level_name, "state": found.where.state_name}, found.pfn


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _warned_before(tracker: Tracker, fact: Fact) -> dict[str, Any]:
    """Who was warned about, where the warning stands right before the line and is about TDX."""
    told = tracker.told
    if told is None or told.kind != "warning" or not 0 < fact.line - told.last <= BEHIND:
        return {}
    if "tdx" not in f"{told.words.get('site', '')} {told.words.get('function', '')} {' '.join(told.frames)}":
        return {}
    tracker.told = None  # one warning, one line
    function = told.words.get("function")
    return {
        "thread": told.thread, "comm": told.words.get("comm"), "function": function, "path": entry_path(told.frames, function), "join": "time",
    }  # fmt: skip


def td_exit(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A TD left with a status that KVM does not expect; a fatal one is its end."""
    status = tdx_status(fact.args["status"])
    facts: dict[str, Any] = {
        "what": "TD exit",
        "status": hex(status.word),
        "name": status.name,
        "fatal": status.fatal or None,
        **_beside(fact),
    }
    facts |= {"pid": fact.args.get("pid"), "hkid": _hex(fact.args.get("hkid"))}
    if status.fatal or status.name in ("TDX_NON_RECOVERABLE_TD", "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE"):
        return _put(tracker, fact, VmDead(detail=detail(**facts), **_at(tracker, fact)))
    return _put(tracker, fact, KernelWarned(thread=fact.args.get("pid"), detail=detail(**facts), **_at(tracker, fact)))


def unaccepted(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The guest touched a private page that it had not accepted, with #VE off: kvm_vm_dead."""
    gpa = fact.args["gpa"]
    facts = {
        "what": "access before accept",
        "gpa": hex(gpa),
        "gfn": hex(gpa >> PAGE_SHIFT),
        "vcpu": fact.args.get("vcpu"),
        **_beside(fact),
    }
    return _put(tracker, fact, VmDead(detail=detail(**facts), **_at(tracker, fact)))


def hkid_leaked(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    return _put(
        tracker,
        fact,
        HkidLeaked(hkid=fact.args["hkid"], detail=detail(call=fact.words.get("call"), **_beside(fact)), **_at(tracker, fact)),
    )


# --- SNP --------------------------------------------------------------------------------------------------------------


def rmpupdate(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The direction stands in what follows: a dump of the entry, a stack, a line of the caller."""
    _begin(tracker, fact)
    return True


def rmp_refused(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A page could not be given to the guest: the line with gfn and pfn, of SNP or of guest_memfd behind it."""
    return _of_caller(tracker, fact, "private")


def rmp_kept(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A page could not be taken back, and is freed all the same (sev_gmem_invalidate)."""
    return _of_caller(tracker, fact, "shared", step=fact.words["what"])


def _of_caller(tracker: Tracker, fact: Fact, to: str, **words: str) -> bool:
    """A line of the caller tells the direction of the failure that RMPUPDATE has printed about the same page."""
    words = {"to": to, **words, **{name: word for name, word in fact.words.items() if name != "what"}}
    fact = fact._replace(words=words)
    report = tracker.report
    same = (
        report is not None
        and report.kind in _RMP_REPORTS
        and report.near(fact)
        and report.args.get("pfn") in (None, fact.args["pfn"])
    )
    if report is not None and same and report.words.get("to", to) == to:
        return report.add(fact)
    _begin(tracker, fact)
    return True


_RMP_REPORTS = ("rmpupdate", "rmp_refused", "rmp_kept", "frame", "task")


def rmp_dump(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """An RMP entry, or the beginning of a dump of a region; it belongs to what failed before it."""
    report = tracker.report
    if report is None or not report.near(fact) or report.kind not in (*_RMP_REPORTS, "fault", "fault_code"):
        return False
    if fact.name == "rmp_unassigned":
        report.words.setdefault("unassigned", "yes")
        report.words.setdefault("owner", rmp_entry(0, 0).owner)
        return report.add(fact)
    if report.kind in ("fault", "fault_code"):
        report.args.setdefault("pfn", fact.args["pfn"])
    report.add_entry(fact.args["pfn"], fact.args["lo"], fact.args["hi"])
    return report.go_on(fact)


def rmp_fields(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """An RMP entry as kernels before 6.9 print it, field by field."""
    args = fact.args
    lo = (
        (args["assigned"] & 1)
        | (args["immutable"] & 1) << 2
        | args["gpa"] >> 12 << 12
        | args["asid"] << 51
        | (args["vmsa"] & 1) << 61
    )
    lo |= (args["validated"] & 1) << 62
    plain = {"pfn": args["paddr"] >> PAGE_SHIFT, "lo": lo & (1 << 64) - 1, "hi": 0}
    return rmp_dump(tracker, fact._replace(name="rmp_entry", args=plain), thread)


def rmp_fault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A fault of the guest that the RMP caused and KVM could not mend, or a 2M entry that could not be split."""
    code = fact.args.get("ret")
    split = psmash(code) if code is not None else None
    facts = _numbers({name: value for name, value in fact.args.items() if name != "pfn"}, "ret", "error")
    facts |= {
        "what": "RMP fault of the guest",
        "why": fact.words.get("what"),
        "code": split.name if split else None,
        **_beside(fact),
    }
    facts["gfn"] = hex(fact.args["gpa"] >> PAGE_SHIFT)
    return _put(tracker, fact, RmpViolation(pfn=fact.args.get("pfn"), detail=detail(**facts), **_at(tracker, fact)))


def leaked(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The kernel gives host pages up. Ranges that follow one another are one leak."""
    start = fact.args["pfn"]
    npages = fact.args.get("npages", fact.args.get("pfn_end", start + 1) - start)
    source, beside = tracker.source, _beside(fact)

    def make(run: Run) -> Event:
        facts = {**beside, "last": run.last_line if run.lines > 1 else None, "lines": run.lines if run.lines > 1 else None}
        return PageLeaked(
            pfn=run.start, npages=run.end - run.start, t=run.t, line=run.first_line, source=source, detail=detail(**facts)
        )

    if not 0 < npages < 1 << 40:
        return False
    tracker.extend(thread, "leak", "leak", start, fact, None, make, npages)
    return True


def reclaim_failed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    args = fact.args
    facts = {"rc": args["rc"], "fw_error": hex(args["fw_error"] & (1 << 64) - 1), **_beside(fact)}
    return _put(
        tracker, fact, ReclaimFailed(pfn=args["pfn"], status=abs(args["rc"]), detail=detail(**facts), **_at(tracker, fact))
    )


def terminated(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A guest ended itself."""
    reason_set, code = fact.args["set"], fact.args["code"]
    facts = {
        "what": "guest requested termination",
        "set": hex(reason_set),
        "code": hex(code),
        "why": sev_termination(reason_set, code),
    }
    return _put(tracker, fact, VmDead(detail=detail(**facts, **_beside(fact)), **_at(tracker, fact)))


def kernel_said(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Something beside: it explains what failed, or is a warning of its own."""
    facts = {**_numbers(fact.args, "rc", "ret", "error", "vcpu", "retries", "level"), **_beside(fact)}
    text = fact.words.get("text", fact.text)
    return _put(
        tracker,
        fact,
        KernelWarned(
            thread=fact.thread or None, detail=detail(what=fact.words["what"], text=shown(text), **facts), **_at(tracker, fact)
        ),
    )


# --- memory, devices, tasks ---------------------------------------------------------------------------------------------


def bad_memory(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Lines about a poisoned page. Pages that follow one another are one: leaked SNP pages were once put away so, one by one."""
    pfn, report = fact.args["pfn"], tracker.report
    if report is not None and report.kind == fact.name and report.near(fact) and report.args["pfn"] <= pfn <= report.end:
        report.add(fact)
    else:
        report = _begin(tracker, fact)
        report.end = pfn
    if pfn == report.end:
        report.end = pfn + 1
    if action := fact.words.get("action"):
        report.actions[shown(action)] += 1
    return True


def killed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A task is sent SIGBUS for a poisoned page, or killed because that could not be done."""
    forcibly = "forcibly" in fact.text
    facts = {"cause": "memory error", "comm": shown(fact.words["comm"]), "pfn": _hex(fact.args.get("pfn")), **_beside(fact)}
    facts["thread"] = None
    return _put(
        tracker,
        fact,
        TaskSignalled(
            thread=fact.args["pid"], signal=SIGKILL if forcibly else SIGBUS, detail=detail(**facts), **_at(tracker, fact)
        ),
    )


def out_of_memory(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    facts = {"cause": "oom", "comm": shown(fact.words["comm"]), "at": fact.words.get("at"), "host": fact.words.get("host")}
    return _put(
        tracker,
        fact,
        TaskSignalled(
            thread=fact.args["pid"], signal=SIGKILL, reason=FROM_KERNEL, detail=detail(**facts), **_at(tracker, fact)
        ),
    )


def machine_check(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The address may carry the key id of a TD above the page; then the page is known only if the log has told where."""
    facts = {"address": hex(fact.args["address"]), **_beside(fact)}
    return _put(tracker, fact, MachineCheck(pfn=fact.args.get("pfn"), detail=detail(**facts), **_at(tracker, fact)))


def dma_fault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A device touched what its IOMMU does not map; the address is one of the device."""
    address = fact.args["address"]
    facts = {
        "what": fact.words["what"],
        "device": fact.words.get("device"),
        "address": hex(address) if address % PAGE_SIZE else None,
    }
    return _put(
        tracker,
        fact,
        DmaFaulted(
            space=None, start=address >> PAGE_SHIFT, npages=1, detail=detail(**facts, **_beside(fact)), **_at(tracker, fact)
        ),
    )


# --- warnings and stacks ------------------------------------------------------------------------------------------------


def _begin(tracker: Tracker, fact: Fact) -> Report:
    tracker.flush()
    tracker.report = Report.of(fact)
    return tracker.report


def header(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A warning, an oops or a stuck task; the text of a warning, and that of a bad address, may stand before it."""
    report = tracker.report
    if report is not None and report.near(fact) and (report.kind, fact.name) == ("warning_text", "warning"):
        report.kind = fact.name
        return report.add(fact)
    _begin(tracker, fact)
    return True


def warning_text(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """What a warning says stands between its first line and its header."""
    fact = fact._replace(words={**fact.words, "text": fact.text})
    report = tracker.report
    if report is not None and report.kind == fact.name and report.near(fact):
        report.words["text"] = shown(f"{report.words['text']} {fact.text}")
        return report.add(fact)
    _begin(tracker, fact)
    return True


def part(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A line inside of a report; without one, a stack whose header is cut off."""
    report = tracker.report
    if report is None or not report.near(fact) or report.kind == "bad_memory":
        if fact.name not in ("fault_code", "task", "place", "frame", "frames"):
            return False
        frame = {name: word for name, word in fact.words.items() if name in ("at", "host")}
        report = _begin(tracker, fact._replace(words=frame))
        report.lines = 0
    if fact.name == "frame":
        report.add_frames([fact.words["function"]], sure="unsure" not in fact.words)
    elif fact.name == "frames":
        report.add_frames([name.strip(" .()") for name in fact.words["text"].replace("<-", ",").split(",")])
    else:
        return report.add(fact)
    return report.go_on(fact)


def registers(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Registers that hold an errno tell of an error pointer, where the kernel has followed one."""
    report = tracker.report
    if report is None or not report.near(fact) or report.kind not in ("fault", "fault_code", "protection"):
        return False
    report.errors |= fact.args
    return report.go_on(fact)


def end(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    report = tracker.report
    if report is None or report.kind == "bad_memory" or not report.near(fact):
        return False
    report.go_on(fact)
    if report.kind not in _RMP_REPORTS:
        tracker.flush()
    return True


HANDLERS: dict[str, Handler] = {
    "seamcall": seamcall,
    "td_exit": td_exit,
    "unaccepted": unaccepted,
    "hkid_leaked": hkid_leaked,
    "rmpupdate": rmpupdate,
    "rmp_refused": rmp_refused,
    "rmp_kept": rmp_kept,
    "rmp_entry": rmp_dump,
    "rmp_unassigned": rmp_dump,
    "rmp_fields": rmp_fields,
    "rmp_fault": rmp_fault,
    "leaked": leaked,
    "reclaim_failed": reclaim_failed,
    "terminated": terminated,
    "kernel_said": kernel_said,
    "bad_memory": bad_memory,
    "killed": killed,
    "out_of_memory": out_of_memory,
    "machine_check": machine_check,
    "dma_fault": dma_fault,
    "warning": header,
    "fault": header,
    "protection": header,
    "abort": header,
    "stuck": header,
    "warning_text": warning_text,
    "fault_code": part,
    "fault_entry": part,
    "injected": part,
    "task": part,
    "place": part,
    "frame": part,
    "frames": part,
    "registers": registers,
    "end": end,
}
