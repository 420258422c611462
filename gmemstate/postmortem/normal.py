"""Stories of host pages, and of what looks like a failure and is none, or of which nothing more can be said."""

from gmemstate.audit.history import History
from gmemstate.model.events import DETAIL, KIND, SEQ, SOURCE, Capability, Dialect, EventRow, T, VmmSaid, details
from gmemstate.model.findings import CATALOGUE, Finding
from gmemstate.model.objects import FaultExit, MessedUp
from gmemstate.model.units import END, duration, seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Story

SHOWN = 12
ENOMEM = 12
BLOCK = 8
"""From how many neighbours on pages are taken for one block."""


def poison(history: History, seen: Scene, incident: Incident) -> Story:
    """A page of a guest_memfd has a memory error: it is zapped and kept, and every touch of it is refused."""
    entries = incident.entries
    pages = sum(entry.count or 1 for entry in entries)
    in_file = all(entry.gmem is not None for entry in entries)
    block = not in_file and any((entry.count or 1) >= BLOCK for entry in entries)
    story = Story(
        "host platform",
        "memory error",
        words.guest(history, incident.vm),
        f"{words.count(pages, 'page')} of guest_memfd {'has' if pages == 1 else 'have'} a memory error (poison). The poison stays "
        "with the page, through conversions in both directions, until it is punched out of the file."
        if in_file
        else f"{words.count(pages, 'host page')} {'was' if pages == 1 else 'were'} put out of use for a memory error (poison). "
        + (
            "Pages that follow one another like this are one block that the kernel gave up (SNP pages that leaked were once put away so), rather "
            "than as many hardware errors."
            if block
            else "Whether a guest_memfd holds the page, this record does not show."
        ),
    )
    rows: list[tuple[int, tuple[str, ...]]] = [
        (entry.id, ("poison", seconds(entry.since), _page(entry), "", "")) for entry in entries
    ]
    rows += [(fault.seq, ("touch", *words.fault(fault))) for fault in incident.faults]
    over = [
        conversion
        for conversion in history.ordered()
        if any(
            conversion.space in (entry.vm, entry.gmem) and _over(conversion.start, conversion.end, entry, conversion.in_vm)
            for entry in entries
        )
    ]
    rows += [(conversion.id, ("", *words.line(conversion))) for conversion in over]
    story.evidence = words.lines_of(history, [*over, *incident.faults])
    punches = [_punch(seen, entry) for entry in entries]
    for entry, punch in zip(entries, punches, strict=True):
        if punch is not None:
            text = f"idx {entry.index or 0:#x} leaves the file; next touch: a fresh page"
            rows.append((punch[SEQ], ("punch", seconds(punch[T]), text, "", "")))
    story.timeline = words.some([row for _, row in sorted(rows)])
    story.add("Note", _said_of(entries, in_file=in_file))
    if not block:
        story.add(
            "Guest",
            "an access to the page ends KVM_RUN with EHWPOISON and KVM_EXIT_MEMORY_FAULT; that is no request for a conversion",
        )
        story.add(
            "Convert",
            _meaning(incident.vm.dialect if incident.vm is not None else Dialect.UNKNOWN),
        )
    story.add("Host", "the page is out of use for good; nothing else is affected")
    if block:
        story.add(
            "Do",
            "look for RMPUPDATE or firmware failures right before; a reboot gives the memory back unless the errors come again",
        )
        return story
    if not in_file:
        story.missing.append(
            "the gfn and the file: trace kvm_gmem_error_folio, or join a trace of the guest's faults: gmemstate why pfn:0x..."
        )
        story.complete = False
    story.add(
        "Do",
        "punch the page out of the guest_memfd (its contents are lost) and tell the guest; replace the memory module"
        if None in punches
        else "replace the memory module; the page was punched out of the guest_memfd, so the guest can go on without its contents",
    )
    return story


def _said_of(entries: list[MessedUp], *, in_file: bool) -> str | None:
    """What the kernel's own words mean: with guest_memfd a "Failed" is the normal way."""
    told = [details(entry.detail) for entry in entries]
    actions = sorted({action for facts in told if (action := facts.get("action"))})
    failed = next((action for action in actions if "Failed" in action), None)
    users = next((facts["users"] for facts in told if "users" in facts), None)
    refers = f" ({words.count(users, 'reference')} to the page too many)" if users is not None else ""
    if not in_file and failed is None:
        return f"the kernel says: {', '.join(actions)}" if actions else None
    said = f'the kernel\'s "{failed}"{refers}' if failed else 'a "Failed" in the kernel\'s log'
    return (
        f"{said} is {'its normal way' if in_file else 'what it says of a page that guest_memfd holds, as well'}: guest_memfd keeps the page on purpose "
        "(MF_DELAYED), which memory_failure() counts as a failure; the poison was handled as designed [implied]"
    )


def _meaning(dialect: Dialect) -> str:
    """What a conversion does to a poisoned page."""
    elsewhere = (
        "to shared gives the guest another page, as shared memory is elsewhere; back to private it is the poisoned one again"
    )
    along = "to shared brings the poison along; to private is refused with EAGAIN until the page is punched"
    if dialect is Dialect.MAINLINE:
        return elsewhere
    return (
        along if dialect is Dialect.INPLACE else f"where shared memory is elsewhere (mainline), {elsewhere}; in place, {along}"
    )


def _punch(seen: Scene, entry: MessedUp) -> EventRow | None:
    if entry.gmem is None or entry.index is None:
        return None
    return seen.punch(entry.gmem, entry.index, entry.id, END)


def _page(entry: MessedUp) -> str:
    parts = [f"idx {entry.index:#x}" if entry.index is not None else "", f"gfn {entry.gfn:#x}" if entry.gfn is not None else ""]
    run = f"+{entry.count}" if entry.count not in (None, 1) else ""
    parts.append(f"pfn {entry.pfn:#x}{run}" if entry.pfn is not None else "pfn not shown")
    return ", ".join(part for part in parts if part)


def _over(start: int | None, end: int | None, entry: MessedUp, in_vm: bool) -> bool:
    page = entry.gfn if in_vm else entry.index
    return page is not None and start is not None and start <= page < (end or END)


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
        told = [
            facts
            for row, facts in wishes
            if facts.get("code") == "convert wish" and row[SOURCE] == fault.source and row[SEQ] > fault.seq
            and fault.start is not None and facts.get("gfn") == hex(fault.start)
        ]  # fmt: skip
        if not told:
            return []
        found.append(f"gfn {told[0]['gfn']}, {words.count(told[0].get('pages') or 1, 'page')} to {told[0].get('to')}")
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
            told = f"{words.errno_name(conversion.result)} to a caller that is dying"
            rows.append(("return", seconds(conversion.returned), told, "", ""))
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


def impossible(history: History, seen: Scene, incident: Incident) -> Story:
    """Events that do not fit the machines."""
    findings = incident.findings
    story = Story(
        "unknown",
        "impossible history",
        words.guest(history, incident.vm),
        f"{words.count(len(findings), 'event')} {'is' if len(findings) == 1 else 'are'} not expected where {'it stands' if len(findings) == 1 else 'they stand'}. "
        "A wrong join of threads or guests is likelier than a kernel bug.",
    )
    _cite(story, findings)
    story.complete = False
    return story


def contradicted(history: History, seen: Scene, incident: Incident) -> Story:
    """Two sources say different things of one call: which of them is right, nobody here can tell."""
    findings = incident.findings
    story = Story(
        "unknown",
        incident.kind,
        words.guest(history, incident.vm),
        f"Of {words.count(len(findings), 'conversion')} two sources say different results. What the kernel's own trace says is what is "
        "counted here; two calls that were taken for one are likelier than a kernel that lies.",
    )
    _cite(story, findings)
    story.complete = False
    return story


def given_away(history: History, seen: Scene, incident: Incident) -> Story:
    """A host page that could not be trusted got a new owner (INV-22)."""
    findings = incident.findings
    story = Story(
        "kernel or module",
        incident.kind,
        words.guest(history, incident.vm),
        f"{words.count(len(findings), 'time')} a host page that can no longer be trusted became the memory of somebody else. The old owner "
        "may still reach it.",
    )
    _cite(story, findings)
    return story


def _cite(story: Story, findings: list[Finding]) -> None:
    for finding in findings[:SHOWN]:
        story.add("Event", str(finding))
    if len(findings) > SHOWN:
        story.add("Event", f"... and {len(findings) - SHOWN} more: see replay")
    for code in sorted({finding.code for finding in findings}):
        story.add("Do", f"{CATALOGUE[code].next_step} [{code}]")
