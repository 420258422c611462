"""Stories of what looks like a failure and is none, or of which the record says no more."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import DETAIL, KIND, SEQ, SOURCE, Capability, VmmSaid, details
from gmemstate.model.linux import ENOMEM
from gmemstate.model.objects import FaultExit
from gmemstate.model.units import duration, seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Story


def lost_race(history: History, seen: Scene, incident: Incident) -> Story:
    """A vCPU faulted while the attribute of the page changed: the kernel refuses the fault, the VMM runs the vCPU again."""
    faults = incident.faults
    story = Story(
        "nobody",
        "a fault lost a race",
        words.guest(history, incident.vm),
        f"{words.count(len(faults), 'guest access', 'guest accesses')} fell into a conversion of the same page: KVM_RUN returned KVM_EXIT_MEMORY_FAULT. That is no "
        "request for a conversion and no error; nothing is left over.",
    )
    rows: list[tuple[str, ...]] = []
    for fault in faults:
        raced = history.conversions.get(fault.raced or 0)
        if raced is not None:
            rows.append(("raced", *words.line(raced)))
        rows.append(("fault", *words.fault(fault)))
    story.timeline = words.some(rows)
    story.evidence = words.lines_of(history, faults)
    story.add(
        "Why",
        "the attribute changed between the fault and its check (kvm_mmu_faultin_pfn): the page was converted while this vCPU was in the guest [implied]",
    )
    story.add("Do", "nothing: run the vCPU again. VMM: do not take a memory fault exit for a wish; look at the attribute first")
    return story


def stopped(history: History, seen: Scene, incident: Incident) -> Story:
    """KVM_RUN returned a memory fault, and either no page could be had or the record does not show why."""
    faults = incident.faults
    errno = faults[0].result
    shortage = errno == ENOMEM
    story = Story(
        "memory shortage" if shortage else "unknown",
        "guest stopped at a page",
        words.guest(history, incident.vm),
        f"KVM_RUN returned {words.errno_name(errno)} with KVM_EXIT_MEMORY_FAULT {words.count(len(faults), 'time')}: "
        + ("no memory could be had for the page." if shortage else "this record does not show why."),
    )
    story.timeline = words.some([("fault", *words.fault(fault)) for fault in faults])
    story.evidence = words.lines_of(history, faults)
    if shortage:
        story.add("Do", "run the vCPU again when memory is free; the attribute is as it was")
        return story
    wishes = _wishes(history, faults)
    if wishes:
        story.title = "conversion asked by a fault"
        story.blame = "nobody"
        story.summary = (
            f"The guest touched {words.count(len(faults), 'page')} as the other kind, without a hypercall, and the VMM took that for a wish "
            f"(implicit conversion): {'; '.join(wishes[:4])}. Whether it was applied, this record does not show."
        )
        story.missing.append(
            "what the kernel answered: tools/capture trace --pid PID-OF-THE-VMM, or strace -f -ttt -yy -e trace=ioctl -p PID-OF-THE-VMM"
        )
        story.complete = False
        return story
    story.add(
        "Maybe",
        "the page was asked for as the other kind (a wish for a conversion), no guest_memfd is behind it, or a conversion "
        "ran meanwhile: the kernel answers all three alike",
    )
    if any(fault.private is False for fault in faults):
        story.add(
            "Or",
            "none of it: an access that is not private (flags 0) to a page that is shared already is no wish for a conversion, but another access "
            "that KVM cannot serve, such as a write to a read-only memslot",
        )
    if incident.vm is None:
        story.missing.append(
            "the guest of this vCPU thread: no line of the thread names a kvm pointer; trace kvm_gmem_get_pfn or strace -f -yy"
        )
    story.complete = False
    return story


def _wishes(history: History, faults: list[FaultExit]) -> list[str]:
    """What a VMM says right behind each of the faults that it is asked to convert, at the same pages; empty unless all have one."""
    wishes = [(row, details(row[DETAIL])) for row in history.reports if row[KIND] == VmmSaid.code]
    found = []
    for fault in faults:
        returned = [
            facts
            for row, facts in wishes
            if facts.get("code") == "convert wish" and row[SOURCE] == fault.source and row[SEQ] > fault.seq
            and fault.start is not None and facts.get("gfn") == hex(fault.start)
        ]  # fmt: skip
        if not returned:
            return []
        found.append(
            f"gfn {returned[0]['gfn']}, {words.count(returned[0].get('pages') or 1, 'page')} to {returned[0].get('to')}"
        )
    return found


def killed(history: History, seen: Scene, incident: Incident) -> Story:
    """A task was killed inside of a conversion: the ioctl is not interruptible and runs to its end."""
    own = incident.conversions
    first = own[0]
    ran = None if first.returned is None or first.struck is None else first.returned - first.struck
    after = f" {duration(ran)} after the signal" if ran is not None else ""
    end = (
        f"it ran to its end{after} and returned {words.errno_name(first.result)}"
        if first.result is not None
        else "its end is not on record"
    )
    story = Story(
        "nobody",
        "killed inside a conversion",
        words.guest(history, incident.vm),
        f"The task was killed while {words.where(first)} was converted to {first.target}. The conversion was not interrupted: {end}; the process "
        "died then. All-or-nothing held.",
    )
    rows: list[tuple[str, ...]] = []
    for conversion in own:
        rows.append(("asked", *words.line(conversion)))
        rows.append(("signal", seconds(conversion.struck), f"signal to thread {conversion.thread}", "", ""))
        if conversion.result is not None:
            returned = f"{words.errno_name(conversion.result)} to a caller that is dying"
            rows.append(("return", seconds(conversion.returned), returned, "", ""))
    story.timeline = words.some(rows)
    story.add(
        "Why",
        "neither conversion ioctl looks for signals; a large range takes as long as it takes (it holds the lock of its guest meanwhile)",
    )
    story.add("Left", "nothing: the guest ends with its process")
    story.evidence = words.lines_of(history, own)
    return story


def result_unseen(history: History, seen: Scene, incident: Incident) -> Story:
    """Conversions of which the record shows the attempt but no result."""
    own = incident.conversions
    story = Story(
        "unknown",
        "result not seen",
        words.guest(history, incident.vm),
        f"{words.count(len(own), 'conversion')} {'was' if len(own) == 1 else 'were'} attempted; this record does not show with what result. The state of "
        "these pages is unknown.",
    )
    story.timeline = words.some(
        [("", *words.line(conversion, "the record ends inside" if conversion.gapped else "")) for conversion in own]
    )
    shows = own[0].shown
    if Capability.RETURNED not in shows:
        story.missing.append(
            "the results: a tracepoint fires before the lock, the no-op test and every failure; add return probes on kvm_vm_ioctl and "
            "kvm_gmem_ioctl, or strace -f -T -e ioctl"
        )
    story.complete = False
    story.evidence = words.lines_of(history, own)
    return story
