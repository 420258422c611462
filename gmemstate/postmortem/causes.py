"""Incidents that one cause explains are one incident: the others become parts of it, each with what ties it.

A tie is observed where both name the same host page, VM or thread; implied where the kernel's source says that one makes the
other; assumed where the record has one of each and nothing else that could be it. Without a tie incidents stay apart.
"""

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from gmemstate.model.events import Cause, MachineCheck, VmDead, VmmSaid
from gmemstate.model.linux import ENOMEM, KVM_EXIT_SYSTEM_EVENT
from gmemstate.model.objects import Conversion
from gmemstate.model.reports import KernelReportCode, VmmReportCode
from gmemstate.model.verdict import Basis
from gmemstate.postmortem.grouping import IncidentEvents, Tie
from gmemstate.postmortem.incident import IncidentKind, Relation
from gmemstate.postmortem.known.meanings import meaning
from gmemstate.postmortem.reports import ReportedEvent, Reports, places

NEAR_LINES = 3
"""How many lines may stand between two errors of a VMM of which the second follows from the first."""
NEAR = 1_000_000_000
"""ns: how near to a failure a report of its thread must be, and the second of two errors to the first."""
AFTER_LINES = 60
"""How many lines after a failure of the firmware the pages are printed that are given up for it."""


class Link(NamedTuple):
    """Two incidents that are one: ``part`` becomes a part of ``main``."""

    main: IncidentEvents
    part: IncidentEvents
    relation: Relation
    why: str
    basis: Basis
    page: bool = False
    """whether both are about the same host page"""


Rule = Callable[[list[IncidentEvents], Reports], Iterator[Link]]


def joined(found: list[IncidentEvents], reports: Reports) -> list[IncidentEvents]:
    """The incidents of a record, those that a rule ties to another one as parts of that."""
    parent: dict[int, IncidentEvents] = {}

    def top(one: IncidentEvents) -> IncidentEvents:
        while id(one) in parent:
            one = parent[id(one)]
        return one

    for rule in RULES:
        for link in rule(found, reports):
            main = top(link.main)
            if id(link.part) not in parent and main is not link.part and not _booted_between(reports, main, link.part):
                parent[id(link.part)] = main
                main.ties.append(Tie(link.part, link.relation, link.why, link.basis, link.page))
                main.ties += link.part.ties
                link.part.ties = []
    kept = [one for one in found if id(one) not in parent and (one.reports or one.kind is not IncidentKind.KERNEL_REPORT)]
    return sorted(kept, key=lambda one: one.begin)


def _booted_between(reports: Reports, one: IncidentEvents, other: IncidentEvents) -> bool:
    first, last = sorted((one.first, other.first))
    return any(first < boot <= last for boot in reports.boots)


# --- the same host page


def _pages(incident: IncidentEvents) -> list[tuple[int, int]]:
    """The host pages ``[first, end)`` that an incident names."""
    found = [(entry.pfn, entry.pfn + (entry.count or 1)) for entry in incident.entries if entry.pfn is not None]
    named = (int(report.words["pfn"], 16) for report in incident.reports if report.words.get("pfn", "").startswith("0x"))
    return [(int(first), int(end)) for first, end in found] + [(pfn, pfn + 1) for pfn in named]


_RANK = {IncidentKind.POISON: 0, IncidentKind.HOST_PAGE_SUSPECT: 1, IncidentKind.KERNEL_REPORT: 2, IncidentKind.HOST_FAULT: 3}
"""Of incidents about one page the one that says most of it is the main one."""


def same_page(found: list[IncidentEvents], _reports: Reports) -> Iterator[Link]:
    """A machine check, its memory failure, an unmap that failed and the fault of the host that came of it: one page."""
    about = sorted((one for one in found if one.kind in _RANK and _pages(one)), key=lambda one: (_RANK[one.kind], one.first))
    for n, main in enumerate(about):
        for part in about[n + 1 :]:
            pages = [
                (max(first, low), min(end, high))
                for first, end in _pages(main)
                for low, high in _pages(part)
                if max(first, low) < min(end, high)
            ]
            if pages:
                checked = any(words.get("kind") == MachineCheck.name for words in _words(part))
                relation = Relation.CAUSE if checked else Relation.CONSEQUENCE
                yield Link(main, part, relation, f"the same host page, pfn {pages[0][0]:#x}", Basis.OBSERVED, page=True)


# --- the end of a VM


def _words(incident: IncidentEvents) -> list[dict[str, str]]:
    return [report.words for report in incident.reports]


def _is_memory_error(incident: IncidentEvents) -> bool:
    return incident.kind is IncidentKind.POISON or any(words.get("kind") == MachineCheck.name for words in _words(incident))


def _td_ended(incident: IncidentEvents) -> bool:
    return incident.kind is IncidentKind.VM_DEAD and any("TD_FATAL" in words.get("name", "") for words in _words(incident))


def _sources(incident: IncidentEvents, reports: Reports) -> set[int | None]:
    marks = (reports.marks.get(entry.id) for entry in incident.entries)
    return {one.event.source for one in (*incident.reports, *marks) if one is not None}


def machine_check_ends_a_td(found: list[IncidentEvents], reports: Reports) -> Iterator[Link]:
    """The TDX module ends a TD that meets a machine check; where its log has one memory error, that is it."""
    for ended in filter(_td_ended, found):
        errors = [one for one in found if _is_memory_error(one) and _sources(one, reports) & _sources(ended, reports)]
        parts = [id(tie.part) for one in errors for tie in one.ties]
        errors = [one for one in errors if id(one) not in parts]
        if len(errors) == 1:
            yield Link(errors[0], ended, Relation.CONSEQUENCE, "a machine check in private memory ends the TD", Basis.IMPLIED)


_READS_A_TD = re.compile(r"(?:read|write)_private_memory|tdx_(?:access|read_write|read|write)_(?:guest_)?memory").search


def a_dead_td_answers_nothing(found: list[IncidentEvents], reports: Reports) -> Iterator[Link]:
    """Reads of a TD's memory fail after it has ended, whatever they were for."""
    for ended in filter(_td_ended, found):
        for part in found:
            reads = part.kind is IncidentKind.KERNEL_REPORT and all(
                _READS_A_TD(places(words)) or words.get("leaf") in ("TDH.MEM.RD", "TDH.MEM.WR") for words in _words(part)
            )
            if reads and part.first > ended.first and _sources(part, reports) <= _sources(ended, reports):
                yield Link(ended, part, Relation.CONSEQUENCE, "a TD that has ended answers so to every call", Basis.IMPLIED)


def _says(incident: IncidentEvents, codes: tuple[VmmReportCode, ...], results: tuple[str, ...] = ()) -> bool:
    return incident.kind is IncidentKind.VMM_REPORT and all(
        words.get("code") in codes and (not results or words.get("result") in results) for words in _words(incident)
    )


def _ends_a_vm(incident: IncidentEvents) -> bool:
    if incident.kind is IncidentKind.VM_DEAD or any(entry.cause is Cause.SEPT_STILL_MAPS for entry in incident.entries):
        return True
    known = meaning(incident.reports[0].words) if incident.reports else None
    return known is not None and known.ends_vm


def _refuses_a_page(incident: IncidentEvents) -> bool:
    return any(entry.cause is Cause.UNUSABLE_PRIVATE for entry in incident.entries)


def _asked_to_end(incident: IncidentEvents) -> bool:
    return len(incident.reports) == 1 and all(
        isinstance(report.event, VmDead) and report.words.get("what") == KernelReportCode.TERMINATION
        for report in incident.reports
    )


def _ended_itself(incident: IncidentEvents) -> bool:
    exits = str(KVM_EXIT_SYSTEM_EVENT)
    return len(incident.reports) == 1 and any(
        words.get("code") == VmmReportCode.GUEST_ENDED_ITSELF
        or (words.get("code") == VmmReportCode.UNKNOWN_EXIT and words.get("exit") == exits)
        for words in _words(incident)
    )


_LAUNCH = (
    VmmReportCode.LAUNCH_CALL,
    VmmReportCode.LAUNCH_FAILED,
    VmmReportCode.SNP_LAUNCH_UPDATE,
    VmmReportCode.INIT_MEM_REGION,
)
_FIRMWARE = (KernelReportCode.SEAMCALL, KernelReportCode.SECURITY_PROCESSOR, KernelReportCode.CONFIGURATION)
_GIVEN_UP = (VmmReportCode.RUN_FAILED, VmmReportCode.REGISTERS)


def _firmware_refused(incident: IncidentEvents) -> bool:
    return incident.kind is IncidentKind.KERNEL_REPORT and any(words.get("what") in _FIRMWARE for words in _words(incident))


_PAIRS: tuple[tuple[Callable[[IncidentEvents], bool], Callable[[IncidentEvents], bool], str, bool], ...] = (
    (_asked_to_end, _ended_itself, "a guest that asks to be ended leaves to the VMM so", True),
    (_ends_a_vm, lambda one: _says(one, _GIVEN_UP, ("EIO",)), "a VM that is bugged or dead answers EIO to every call", False),
    (
        _refuses_a_page,
        lambda one: _says(one, _GIVEN_UP, ("EINVAL", "EFAULT")),
        "KVM_RUN ends so at a page that cannot be private",
        False,
    ),
    (_firmware_refused, lambda one: _says(one, _LAUNCH), "the firmware refused a step of the launch", True),
)
"""What the kernel says, what a VMM makes of it, and whether it ties them to be the only ones of a record.

KVM_RUN fails for much else.
"""


def kernel_and_vmm(found: list[IncidentEvents], reports: Reports) -> Iterator[Link]:
    """One failure in the kernel's log and in a VMM's: tied by the VM, or as the only ones of the record that fit each other."""
    for is_cause, is_consequence, why, alone in _PAIRS:
        causes, after = [one for one in found if is_cause(one)], [one for one in found if is_consequence(one)]
        logs = {source for one in after for source in _sources(one, reports)}
        for part in after:
            same = [one for one in causes if one.vm is not None and one.vm is part.vm]
            if len(same) == 1:
                yield Link(same[0], part, Relation.CONSEQUENCE, f"{why}; the same VM", Basis.OBSERVED)
            elif (
                alone
                and len(causes) == 1
                and len(logs) == 1
                and (causes[0].vm is None or part.vm is None)
                and _before(causes[0], part)
            ):
                only = "no other failure of this record does that"
                yield Link(causes[0], part, Relation.CONSEQUENCE, f"{why}; {only}", Basis.ASSUMED)


def _before(cause: IncidentEvents, part: IncidentEvents) -> bool:
    """Whether a cause may stand before its consequence: within one log it does."""
    return (
        not (cause.reports and part.reports)
        or cause.reports[0].event.source != part.reports[0].event.source
        or cause.first < part.first
    )


_UNSUPPORTED = re.compile(
    r"not support(?:ed)?|unsupported|requires? |initiali[sz]e (?:kvm|accelerator)|no such device|not enabled", re.IGNORECASE
).search
_OF_PLATFORM = {
    "TDX not usable": re.compile(r"\btdx\b", re.I),
    "SEV-SNP not usable": re.compile(r"\b(?:sev|snp)\b|restricted", re.I),
}


def platform_and_vmm(found: list[IncidentEvents], _reports: Reports) -> Iterator[Link]:
    """A VMM that finds no TDX or SEV-SNP where the kernel's log says why there is none."""
    for cause in found:
        known = meaning(cause.reports[0].words) if cause.reports else None
        about = _OF_PLATFORM.get(known.title) if known is not None else None
        for part in found if about is not None else ():
            texts = [words.get("text", "") for words in _words(part)]
            if (
                part.kind is IncidentKind.VMM_REPORT
                and about
                and all(about.search(text) and _UNSUPPORTED(text) for text in texts)
            ):
                yield Link(cause, part, Relation.CONSEQUENCE, "the VMM finds what the kernel could not set up", Basis.IMPLIED)


# --- memory


def allocation(found: list[IncidentEvents], _reports: Reports) -> Iterator[Link]:
    """The reports of allocations that failed, each with the conversion that returned ENOMEM to the same thread."""
    whats = (KernelReportCode.FAULT_INJECTION, KernelReportCode.PAGE_ALLOCATION)
    for main in found:
        failures = [one for one in main.all_conversions if one.result == ENOMEM]
        for other in found if failures else ():
            of_it = [one for one in other.reports if one.words.get("what") in whats and _returned_to(one, failures)]
            if of_it:
                other.reports = [one for one in other.reports if one not in of_it]
                part = IncidentEvents(other.kind, other.vm, of_it[0].seq, reports=of_it)
                thread = of_it[0].words.get("thread")
                yield Link(main, part, Relation.CAUSE, f"the same thread, {thread}, at the same time", Basis.OBSERVED)


def _returned_to(report: ReportedEvent, failures: list[Conversion]) -> bool:
    thread, t = report.words.get("thread"), report.event.t
    return any(
        str(one.thread) == thread and (t is None or one.returned is None or abs(t - one.returned) <= NEAR) for one in failures
    )


def given_up_by_the_firmware(found: list[IncidentEvents], reports: Reports) -> Iterator[Link]:
    """Pages that are given up right after the security processor failed: it may hold them (snp_leak_pages())."""
    for cause in found:
        if not any(words.get("what") == KernelReportCode.SECURITY_PROCESSOR for words in _words(cause)):
            continue
        lines = [(report.event.source, report.event.line or 0) for report in cause.reports]
        for part in found:
            marks = [reports.marks.get(entry.id) for entry in part.entries]
            if (
                marks
                and all(entry.cause is Cause.LEAKED_BY_KERNEL for entry in part.entries)
                and all(
                    mark is not None
                    and any(
                        mark.event.source == source and 0 <= (mark.event.line or 0) - line <= AFTER_LINES
                        for source, line in lines
                    )
                    for mark in marks
                )
            ):
                yield Link(cause, part, Relation.CONSEQUENCE, "the kernel gives up what the firmware may hold", Basis.IMPLIED)


# --- one VMM


_REASONS = (VmmReportCode.CPUID_REJECTED,)
"""What a VMM prints after the failure for which it is the reason."""


def one_after_the_other(found: list[IncidentEvents], _reports: Reports) -> Iterator[Link]:
    """A VMM that fails prints what failed, then what failed by that: lines of one log next to each other."""
    said = [one for one in found if one.kind is IncidentKind.VMM_REPORT and one.vm is None]
    for part in said:
        first = part.reports[0]
        for main in said:
            last = max(
                (report for report in main.reports if report.event.source == first.event.source and report.seq < first.seq),
                key=lambda report: report.seq,
                default=None,
            )
            if main is not part and main.first < part.first and last is not None and _next_to(last, first):
                if _says(part, _REASONS):
                    yield Link(part, main, Relation.CONSEQUENCE, "its reason is printed right after it", Basis.ASSUMED)
                else:
                    yield Link(main, part, Relation.CONSEQUENCE, "printed right after it by the same VMM", Basis.ASSUMED)
                break


def _next_to(last: ReportedEvent, first: ReportedEvent) -> bool:
    lines = (first.event.line or 0) - max(last.last_line, last.event.line or 0)
    times = last.event.t, first.event.t
    near = None in times or abs((times[1] or 0) - (times[0] or 0)) <= NEAR
    same = last.words.get("pid") == first.words.get("pid")
    return 0 < lines <= NEAR_LINES + 1 and near and same and isinstance(first.event, VmmSaid)


RULES: tuple[Rule, ...] = (
    same_page,
    machine_check_ends_a_td,
    a_dead_td_answers_nothing,
    given_up_by_the_firmware,
    allocation,
    kernel_and_vmm,
    platform_and_vmm,
    one_after_the_other,
)
"""In the order in which they are tried."""
