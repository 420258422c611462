"""Facts of a kernel log about SEV-SNP, and the events that they amount to.

``status`` of these events is the code of RMPUPDATE or PSMASH where it is known, else the errno that its caller saw; ``detail``
has both.
"""

from gmemstate.decode import psmash, rmp_entry
from gmemstate.decode.snp import sev_termination
from gmemstate.ingest.correlate.kernel_lines import framed, numbers, put
from gmemstate.ingest.correlate.kernel_report import Report
from gmemstate.ingest.correlate.kernel_reports import about_rmp, begin
from gmemstate.ingest.correlate.trackees import PageRun, Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model.events import Event, PageLeaked, ReclaimFailed, RmpViolation, VmDead, detail
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.reports import KernelReportCode
from gmemstate.model.units import Gpa, gfn_of


@handles("rmpupdate")
def rmpupdate(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The direction stands in what follows: a dump of the entry, a stack, a line of the caller."""
    begin(tracker, fact)
    return True


@handles("rmp_refused")
def rmp_refused(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A page could not be given to the guest: the line with gfn and pfn, of SNP, or of guest_memfd after it."""
    return _of_caller(tracker, fact, "private")


@handles("rmp_kept")
def rmp_kept(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A page could not be taken back, and is freed all the same (sev_gmem_invalidate)."""
    return _of_caller(tracker, fact, "shared", step=fact.words["what"])


def _of_caller(tracker: Tracker, fact: Fact, to: str, **words: str) -> bool:
    """A line of the caller tells the direction of the failure that RMPUPDATE has printed about the same page."""
    words = {"to": to, **words, **{name: word for name, word in fact.words.items() if name != "what"}}
    fact = fact._replace(words=words)
    report = about_rmp(tracker.report, fact)
    if report is not None and report.args.get("pfn") in (None, fact.args["pfn"]) and report.words.get("to", to) == to:
        if words.get("step") == "update" or "step" not in report.words:
            report.words.pop("step", None)  # the update that was tried after a failed split
        return report.add(fact)
    begin(tracker, fact)
    return True


@handles("rmp_entry", "rmp_unassigned")
def rmp_dump(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """An RMP entry, or the beginning of a dump of a region; it belongs to what failed before it."""
    report = tracker.report
    if not isinstance(report, Report) or not report.near(fact):
        return False
    fault = report.what == KernelReportCode.PAGE_FAULT
    if not fault and about_rmp(report, fact) is None:
        return False
    if fact.name == "rmp_unassigned":
        report.words.setdefault("unassigned", "yes")
        report.words.setdefault("owner", rmp_entry(0, 0).owner)
        return report.add(fact)
    if fault:
        report.args.setdefault("pfn", fact.args["pfn"])
    report.add_entry(fact.args["pfn"], fact.args["lo"], fact.args["hi"])
    return report.go_on(fact)


@handles("rmp_fields")
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


@handles("rmp_fault")
def rmp_fault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A fault of the guest that the RMP caused and KVM could not mend, or a 2M entry that could not be split."""
    code = fact.args.get("ret")
    split = psmash(code) if code is not None else None
    facts = numbers({name: value for name, value in fact.args.items() if name != "pfn"}, "ret", "error")
    facts |= {
        "what": KernelReportCode.GUEST_RMP_FAULT,
        "why": fact.words.get("what"),
        "code": split.name if split else None,
        **framed(fact),
    }
    facts["gfn"] = hex(gfn_of(Gpa(fact.args["gpa"])))
    return put(tracker, fact, RmpViolation(pfn=fact.args.get("pfn"), detail=detail(**facts)))


@handles("rmp_split")
def rmp_split(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The tracepoint of an RMP fault of the guest: KVM splits the entry and goes on, unless PSMASH fails."""
    code = fact.args["ret"]
    if code == 0:
        return False
    facts = {
        "what": KernelReportCode.GUEST_RMP_FAULT,
        "why": "PSMASH",
        "ret": code,
        "code": psmash(code).name,
        "gpa": hex(fact.args["gpa"]),
    }
    vm = tracker.vm_of(thread)
    tracker.emit(RmpViolation(pfn=fact.args["pfn"], owner=vm.handle if vm is not None else None, detail=detail(**facts)))
    return True


@handles("leaked")
def leaked(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The kernel gives host pages up. Ranges that follow one another are one leak."""
    start = fact.args["pfn"]
    npages = fact.args.get("npages", fact.args.get("pfn_end", start + 1) - start)
    frame = framed(fact)

    def make(run: PageRun) -> Event:
        facts = {**frame, "last": run.last_line if run.lines > 1 else None, "lines": run.lines if run.lines > 1 else None}
        return PageLeaked(pfn=run.start, npages=run.npages, detail=detail(**facts))

    if not 0 < npages < 1 << 40:
        return False
    tracker.extend(thread, "leak", "leak", start, make, npages)
    return True


@handles("reclaim_failed")
def reclaim_failed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """snp_reclaim_pages(): the firmware does not give a page back to the host."""
    args = fact.args
    facts = {"rc": args["rc"], "fw_error": hex(args["fw_error"] & (1 << 64) - 1), **framed(fact)}
    return put(tracker, fact, ReclaimFailed(pfn=args["pfn"], status=abs(args["rc"]), detail=detail(**facts)))


@handles("terminated")
def terminated(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A guest ended itself (sev_handle_vmgexit_msr_protocol()): the set of its reason, and the code in it."""
    reason_set, code = (int(part, 16) for part in fact.words["termination"].split(":"))
    facts = {
        "what": KernelReportCode.TERMINATION,
        "set": hex(reason_set),
        "code": hex(code),
        "why": sev_termination(reason_set, code),
    }
    return put(tracker, fact, VmDead(detail=detail(**facts, **framed(fact))))
