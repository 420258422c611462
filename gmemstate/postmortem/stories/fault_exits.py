"""Returns of KVM_RUN with KVM_EXIT_MEMORY_FAULT: faults that lost a race, and guests that were stopped at a page."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import VmmSaid
from gmemstate.model.linux import ENOMEM
from gmemstate.model.objects import FaultExit
from gmemstate.model.reports import VmmReportCode
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow
from gmemstate.postmortem.reports import Reports
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count


def lost_race(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A vCPU faulted while the attribute of the page changed: the kernel refuses the fault, the VMM runs the vCPU again."""
    faults = incident.faults
    story = Story(
        Blame.NOBODY,
        "a fault lost a race",
        words.guest(incident.vm),
        f"{count(len(faults), 'guest access', 'guest accesses')} fell into a conversion of the same page: KVM_RUN returned "
        "KVM_EXIT_MEMORY_FAULT. That is no request for a conversion and no error; nothing is left over.",
    )
    rows: list[TimelineRow] = []
    for fault in faults:
        raced = history.conversions.get(fault.raced or 0)
        rows += [words.row(raced, "raced")] if raced is not None else []
        rows.append(words.fault_row(fault))
    story.timeline = rows
    story.evidence = words.lines_of(history, faults)
    story.add(
        "Why",
        "the attribute changed between the fault and its check (kvm_mmu_faultin_pfn): the page was converted while this vCPU "
        "was in the guest [implied]",
    )
    story.add(
        "Do",
        "nothing: run the vCPU again. VMM: do not take a memory fault exit for a conversion request; compare with the "
        "attribute first",
    )
    return story


def stopped(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """KVM_RUN returned a memory fault, and either no page could be had or the record does not show why."""
    faults = incident.faults
    errno = faults[0].result
    shortage = errno == ENOMEM
    story = Story(
        Blame.MEMORY if shortage else Blame.UNKNOWN,
        "guest stopped at a page",
        words.guest(incident.vm),
        f"KVM_RUN returned {words.errno_name(errno)} with KVM_EXIT_MEMORY_FAULT {count(len(faults), 'time')}: "
        + ("no memory could be had for the page." if shortage else "this record does not show why."),
    )
    story.timeline = [words.fault_row(fault) for fault in faults]
    story.evidence = words.lines_of(history, faults)
    if shortage:
        story.add("Do", "run the vCPU again when memory is free; the attribute is as it was")
        return story
    story.complete = False
    requests = _requests(seen.reports, faults)
    if requests:
        story.title, story.blame = "conversion asked by a fault", Blame.NOBODY
        story.summary = (
            f"The guest accessed {count(len(faults), 'page')} as the other kind, without a hypercall, and the VMM took that "
            f"for a conversion request (implicit conversion): {'; '.join(requests[:4])}. Whether it was applied, this record "
            "does not show."
        )
        story.missing.append(
            "what the kernel answered: tools/capture trace --pid PID-OF-THE-VMM, or strace -f -ttt -yy -e trace=ioctl -p "
            "PID-OF-THE-VMM"
        )
        return story
    story.add(
        "Maybe",
        "the page was asked for as the other kind (a conversion request), no guest_memfd backs it, or a conversion ran "
        "meanwhile: the kernel answers all three alike",
    )
    if any(fault.private is False for fault in faults):
        story.add(
            "Or",
            "none of it: an access that is not private (flags 0) to a page that is shared already is no conversion request, "
            "but another access that KVM cannot serve, such as a write to a read-only memslot",
        )
    if incident.vm is None:
        story.missing.append(
            "the guest of this vCPU thread: no line of the thread names a kvm pointer; trace kvm_gmem_get_pfn or strace -f -yy"
        )
    return story


def _requests(reports: Reports, faults: list[FaultExit]) -> list[str]:
    """The conversion request that a VMM reports after each of the faults, at the same pages; empty unless all have one."""
    requests = [
        one
        for one in reports.reports
        if isinstance(one.event, VmmSaid) and one.words.get("code") == VmmReportCode.CONVERT_REQUEST
    ]
    found = []
    for fault in faults:
        gfn = None if fault.start is None else hex(fault.start)
        first = next(
            (
                one
                for one in requests
                if one.event.source == fault.source and one.seq > fault.seq and one.words.get("gfn") == gfn
            ),
            None,
        )
        if gfn is None or first is None:
            return []
        found.append(f"gfn {gfn}, {count(int(first.words.get('pages', 1)), 'page')} to {first.words.get('to')}")
    return found
