"""Lines that together are one report of the kernel: headers, their parts, and runs of poisoned pages.

A report goes on until its end, another report, or too many lines of others; what stands in the middle of it was printed by
another CPU. A line cut out of it by a person does not end it.
"""

from gmemstate.ingest.correlate.kernel_lines import framed, put
from gmemstate.ingest.correlate.kernel_report import PoisonRun, Report, shown
from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model.events import MachineCheck, TaskSignalled, detail
from gmemstate.model.linux import SI_KERNEL, SIGKILL
from gmemstate.model.reports import KernelReportCode

RMP_REPORTS = ("rmpupdate", "rmp_refused", "rmp_kept")
"""Facts that begin a report about an RMP entry."""
_STACKS = ("fault_code", "task", "place", "frame", "frames", "section", "held_frame")
"""Lines that are part of a report whose header is cut off, where none is open."""
_MACHINE_CHECK_APART = 4


def about_rmp(report: Report | PoisonRun | None, fact: Fact) -> Report | None:
    """The open report that a dump of RMP entries and a line of the caller may belong to."""
    if not isinstance(report, Report) or not report.near(fact):
        return None
    return report if report.begun in RMP_REPORTS or report.what == KernelReportCode.STACK else None


def open_report(tracker: Tracker, fact: Fact) -> Report | None:
    """The report that a line may belong to."""
    report = tracker.report
    return report if isinstance(report, Report) and report.near(fact) else None


def begin(tracker: Tracker, fact: Fact) -> Report:
    """A report begins; the one before it has come to its end."""
    tracker.flush()
    report = tracker.report = Report.of(fact)
    return report


# --- headers


@handles("report")
def header(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The first line of a report, or one more of the report that is open."""
    report = tracker.report
    if isinstance(report, Report) and report.takes(fact):
        return report.join(fact)
    if fact.words.get("role") == "consequence":
        fact = fact._replace(words={**fact.words, "role": ""})
    begin(tracker, fact)
    return True


@handles("warning_text")
def warning_text(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """What a warning says stands between its first line and its header."""
    fact = fact._replace(words={**fact.words, "text": fact.text})
    report = open_report(tracker, fact)
    if report is not None and report.begun == fact.name:
        report.words["text"] = shown(f"{report.words['text']} {fact.text}")
        return report.add(fact)
    begin(tracker, fact)
    return True


@handles("out_of_memory")
def out_of_memory(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """oom_kill_process(): a task is killed because memory has run out; it ends the report about that."""
    report = open_report(tracker, fact)
    if report is not None and report.what == KernelReportCode.OOM:
        report.words["killed"], report.args["killed_pid"] = shown(fact.words["comm"]), fact.args["pid"]
        report.closed = True
        return report.go_on(fact)
    facts = {"cause": "oom", "comm": shown(fact.words["comm"]), "at": fact.words.get("at"), "host": fact.words.get("host")}
    signal = TaskSignalled(thread=fact.args["pid"], signal=SIGKILL, reason=SI_KERNEL, detail=detail(**facts))
    return put(tracker, fact, signal)


@handles("machine_check")
def machine_check(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Lines of a machine check that follow one another are one; a single one may stand inside of another report.

    The address may carry the key id of a TD above the page; then the page is known only if the log shows where.
    """
    report = open_report(tracker, fact)
    if report is None:
        begin(tracker, fact._replace(words={**fact.words, "text": fact.words.get("text", fact.text)}))
        return True
    if report.begun == fact.name and fact.line - report.last <= _MACHINE_CHECK_APART:
        report.words.setdefault("text", shown(fact.text))
        return report.add(fact)
    words = {name: shown(word) for name, word in fact.words.items() if name in ("rule", "text")}
    address = fact.args.get("address")
    facts = {
        "what": KernelReportCode.MACHINE_CHECK,
        "address": None if address is None else hex(address),
        **words,
        **framed(fact),
    }
    return put(tracker, fact, MachineCheck(pfn=fact.args.get("pfn"), detail=detail(**facts)))


@handles("bad_memory")
def bad_memory(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Lines about a poisoned page (memory_failure()). Consecutive pages are one event, as leaked SNP pages once were."""
    pfn, run = fact.args["pfn"], tracker.report
    if isinstance(run, PoisonRun) and run.near(fact) and run.args["pfn"] <= pfn <= run.end:
        run.add(fact)
    else:
        tracker.flush()
        run = tracker.report = PoisonRun.of(fact)
    run.end = max(run.end, pfn + 1)
    if action := fact.words.get("action"):
        run.add_action(shown(action))
    return True


# --- parts


def report_of(tracker: Tracker, fact: Fact) -> Report | None:
    """The report that a line inside of one belongs to; without one, a stack whose header is cut off begins."""
    report = open_report(tracker, fact)
    if report is None and fact.name in _STACKS and fact.words.get("section") not in ("end", "other"):
        frame = {name: word for name, word in fact.words.items() if name in ("at", "host")}
        report = begin(tracker, fact._replace(words=frame, args=fact.args if fact.name == "fault_code" else {}))
    return report


@handles("fault_code", "fault_entry", "injected", "task", "report_part")
def part(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A line inside of a report that adds to what it says."""
    report = report_of(tracker, fact)
    lowered = {"access": fact.words["access"].lower()} if "access" in fact.words else {}
    return report is not None and report.add(fact._replace(words={**fact.words, **lowered}))


@handles("section")
def section(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A stack begins, of the report's own task or of another."""
    report = report_of(tracker, fact)
    return report is not None and report.enter(fact)


@handles("place")
def place(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """An instruction pointer; an oops shows it once more after its end."""
    last = tracker.report
    if isinstance(last, Report) and last.ends_before(fact):
        return last.go_on(fact)
    report = report_of(tracker, fact)
    return report is not None and report.add_place(fact)


@handles("lock")
def lock(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A lock that the task of a report holds or wants."""
    report = open_report(tracker, fact)
    return report is not None and report.add_lock(fact)


@handles("frame", "held_frame")
def frame(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A function of a stack; or the one in which the task became atomic, after which the report goes on."""
    report = report_of(tracker, fact)
    if report is None:
        return False
    sure = "unsure" not in fact.words and "hint" not in fact.words
    inlined = fact.text.rstrip().endswith("[inline]")
    report.add_frames([fact.words["function"]], fact.words.get("module"), sure=sure, inlined=inlined)
    if fact.name == "held_frame" and report.section == "atomic":
        report.section = "main"
    return report.go_on(fact)


@handles("frames")
def frames(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """A stack that a person has put into one line."""
    report = report_of(tracker, fact)
    if report is None:
        return False
    report.add_frames([name.strip(" .()") for name in fact.words["text"].replace("<-", ",").split(",")])
    return report.go_on(fact)


@handles("user_mode")
def user_mode(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The registers of the program that made the system call: its stack ends here."""
    report = open_report(tracker, fact)
    if report is None:
        return False
    report.user = report.section in ("main", "after")
    return report.go_on(fact)


@handles("registers")
def registers(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Registers that hold an errno tell of an error pointer; those of a program, which ioctl it made."""
    report = open_report(tracker, fact)
    return report is not None and report.add_registers(fact)


@handles("end")
def end(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """The line that closes a report, as the end mark of an oops (oops_exit); a panic may still follow from it."""
    report = tracker.report
    if not isinstance(report, Report) or fact.line - report.last > report.last - report.line + 40:
        return False
    report.go_on(fact)
    if report.begun not in RMP_REPORTS:
        report.closed = True
    return True
