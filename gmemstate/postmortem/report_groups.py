"""Which reports of kernels, VMMs and refused calls belong to one incident, and which are about no guest's memory."""

from collections.abc import Iterator

from gmemstate.model import events as e
from gmemstate.model.reports import KernelReportCode, VmmReportCode
from gmemstate.postmortem.incident import IncidentKind
from gmemstate.postmortem.known.meanings import meaning
from gmemstate.postmortem.reports import ReportedEvent, Reports

NEXT_LINES = 3
"""How many lines may stand between a warning and the line of the failure that it is about."""
REQUESTS = frozenset(
    (
        VmmReportCode.CONVERT_REQUEST,
        VmmReportCode.MAP_GPA_RANGE,
        VmmReportCode.RAM_BLOCK,
        VmmReportCode.LAUNCH_UPDATE,
        VmmReportCode.FIRMWARE_REQUEST,
        VmmReportCode.VALIDATES,
        VmmReportCode.NEW_VM,
    )
)
"""What a VMM or a guest's firmware says before anything has failed."""
BACKGROUND = (KernelReportCode.MEMORY_MAP, KernelReportCode.GUEST_KERNEL, KernelReportCode.LOG_OWNER, KernelReportCode.PLATFORM)
"""What a kernel says of memory, of its platform and of itself when it starts, where no row of the table makes it a failure."""


def classified(reports: Reports) -> Iterator[tuple[ReportedEvent, IncidentKind, tuple[object, ...]]]:
    """Reports that are of an incident: each with the kind of it, and what it has in common with others of the same."""
    marked, given_up, explaining = _marked(reports), _given_up(reports), _explaining(reports)
    for report in reports.reports:
        if not _part_of_a_mark(marked, report) and not _follow_up(given_up, report) and not _explained(explaining, report):
            kind, key = _about(report)
            if kind is not None:
                yield report, kind, key


def _about(report: ReportedEvent) -> tuple[IncidentKind | None, tuple[object, ...]]:
    """The kind of incident that a report belongs to (None: it is none), and what it has in common with others of the same."""
    words, event = report.words, report.event
    known = meaning(words)
    title = known.title if known else None
    if known is not None and known.one:
        kind = IncidentKind.VMM_REPORT if isinstance(event, e.VmmSaid) else IncidentKind.KERNEL_REPORT
        return kind, (title, event.source)
    key = (title, words.get("what"), words.get("result"), None if "leaf" in words else words.get("function"))
    match event:
        case e.VmDead():
            return IncidentKind.VM_DEAD, (words.get("what"),)
        case e.RmpViolation() | e.GeneralProtection():
            return IncidentKind.HOST_FAULT, (*key, words.get("why"))
        case e.VmmSaid():
            request = words.get("code") in REQUESTS or (words.get("code") == VmmReportCode.DISCARD and not event.result)
            return (None if request else IncidentKind.VMM_REPORT), (title or words.get("code"), event.result)
        case e.VmBugged():
            return None, ()  # it is part of the incident of what has bugged the VM
        case e.KernelWarned() if words.get("what") in BACKGROUND:
            return None, ()
        case e.KernelWarned():
            return (IncidentKind.KERNEL_REPORT, key) if known is not None else (IncidentKind.OTHER_REPORT, ())
        case _:
            return IncidentKind.KERNEL_REPORT, key


Place = tuple[int | None, int | None, int]
"""A source, a thread, a line."""


def _marked(reports: Reports) -> set[Place]:
    """Where the warnings may end that the kernel prints right before the line of a failure itself."""
    return {
        (mark.event.source, int(mark.words["thread"]), (mark.event.line or 0) - back)
        for mark in reports.marks.values()
        if mark.words.get("join") == "time" and "thread" in mark.words
        for back in range(1, NEXT_LINES + 1)
    }


def _part_of_a_mark(marked: set[Place], report: ReportedEvent) -> bool:
    """Whether a warning is the one that stands right before the line of a failure."""
    event = report.event
    return isinstance(event, e.KernelWarned) and (event.source, event.thread, report.last_line) in marked


def _given_up(reports: Reports) -> set[tuple[int | None, int | None]]:
    """The sources in which a VM could not be run any more, each with the errno."""
    return {
        (one.event.source, one.event.result)
        for one in reports.reports
        if isinstance(one.event, e.VmmSaid) and one.words.get("code") == VmmReportCode.RUN_FAILED
    }


def _follow_up(given_up: set[tuple[int | None, int | None]], report: ReportedEvent) -> bool:
    """Whether a VMM only says that it cannot read a VM that it could not run any more."""
    event = report.event
    return (
        isinstance(event, e.VmmSaid)
        and (event.source, event.result) in given_up
        and report.words.get("code") == VmmReportCode.REGISTERS
    )


_EXPLAINS = {
    VmmReportCode.CPUID_REJECTED: (VmmReportCode.SNP_LAUNCH_UPDATE, -1),
    VmmReportCode.NOT_SUPPORTED: (VmmReportCode.KVM_NOT_STARTED, 1),
}
"""A report, the one that it explains, and whether that stands before it (-1) or after it (1)."""


def _explaining(reports: Reports) -> set[tuple[int | None, int, str]]:
    """The sources and lines next to reports that explain another one, with the code of that."""
    found = set()
    for one in reports.reports:
        for code, way in (explained for explains, explained in _EXPLAINS.items() if one.words.get("code") == explains):
            found |= {(one.event.source, (one.event.line or 0) + way * n, str(code)) for n in range(1, NEXT_LINES + 1)}
    return found


def _explained(explaining: set[tuple[int | None, int, str]], report: ReportedEvent) -> bool:
    """Whether a line next to a report says what it is about: values of CPUID that were refused, a kernel without support."""
    event = report.event
    return (event.source, event.line or 0, report.words.get("code", "")) in explaining
