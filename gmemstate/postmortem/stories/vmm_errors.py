"""Mistakes of a VMM: refused arguments, private pages without memory, memslots swapped under private gfns."""

from gmemstate.audit.history.history import History
from gmemstate.audit.queries.conversions import gfns
from gmemstate.model.events import Dialect, details
from gmemstate.model.linux import EFAULT, EINVAL, EIO, ENOTTY
from gmemstate.model.machines.range import SHARED
from gmemstate.model.objects import Conversion
from gmemstate.model.units import size_in_words, span
from gmemstate.model.verdict import arguments_known
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, IncidentTable, Story
from gmemstate.postmortem.known.meanings import shared_text
from gmemstate.postmortem.scene import CLOSED, Scene
from gmemstate.text import count

REASONS = {
    EINVAL: "flags, an unknown attribute, size 0, a wrap, a misalignment, or an attribute that this VM type does not have",
    EFAULT: "the arguments could not be read",
    EIO: "the VM is dead or bugged, or the caller is not the process that made it",
    ENOTTY: "this file or this kernel does not know the ioctl",
}
"""What the argument checks of kvm_vm_ioctl() and kvm_gmem_ioctl() return these errnos for."""


def rejected(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Requests that never passed the argument checks: nothing was looked at, nothing was changed."""
    own = incident.conversions
    errnos = sorted({conversion.result or 0 for conversion in own})
    of_the_vm = errnos == [EIO]
    story = Story(
        Blame.UNKNOWN if of_the_vm else Blame.VMM,
        "refused before the argument checks" if of_the_vm else "refused by the argument checks",
        words.guest(incident.vm),
        f"{count(len(own), 'request')} {'was' if len(own) == 1 else 'were'} refused before any page was looked at "
        f"({', '.join(words.errno_name(code) for code in errnos)}). Nothing was changed.",
    )
    story.timeline = [words.row(conversion, note=_arguments(conversion)) for conversion in own]
    for code in errnos:
        story.add(words.errno_name(code), REASONS.get(code, words.errno_text(code)))
    if of_the_vm:
        story.add(
            "Do", "look for what ended the VM: the first failure before this one; a dead or bugged VM must be started again"
        )
        story.missing.append(f"which of them: {shared_text('host log')}")
        story.complete = False
    else:
        story.add("Do", "correct the call in the VMM; retrying it unchanged fails again")
    story.evidence = words.lines_of(history, own)
    return story


def _arguments(conversion: Conversion) -> str:
    if conversion.attributes is None or not arguments_known(conversion):
        return ""
    flags = details(conversion.detail).get("flags")
    return f"flags {flags}" if flags else f"attributes {conversion.attributes:#x}"


def private_without_memory(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Gfns were made private where no guest_memfd is: the ioctl does not mind, the guest's next access cannot be served."""
    if not incident.trapped and all(seen.reasons.get(fault.seq) == CLOSED for fault in incident.faults):
        return _closed(history, incident)
    accesses = len(incident.faults)
    left = sum(end - start for start, end, _ in incident.trapped)
    stopped = "was stopped at " + count(accesses, "access", "accesses") if accesses else "that accesses them is stopped"
    summary = (
        "Gfns with attribute private have no memory: the conversion succeeded, for attributes need no memory, but "
        f"{'the' if accesses else 'a'} guest {stopped}."
    )
    if left:
        many = len(incident.trapped)
        summary += f" {count(many, 'such trap')} remain{'s' * (many == 1)} ({count(left, 'page')})."
    else:
        summary += " No such trap is left."
    story = Story(Blame.VMM, "private without memory", words.guest(incident.vm), summary)
    rows = [words.row(conversion, "made") for conversion in incident.conversions]
    rows += [words.fault_row(fault, seen.reasons.get(fault.seq, "")) for fault in incident.faults]
    story.timeline = sorted(rows, key=lambda row: row.when.rjust(20))
    if incident.trapped:
        story.table = IncidentTable(
            ("gfn", "size", "why there is no memory"),
            tuple((span(start, end), size_in_words(end - start), reason) for start, end, reason in incident.trapped),
        )
    story.add(
        "Why", "KVM stores attributes for every gfn of a request, with or without a memslot or guest_memfd there [implied]"
    )
    mended = [c for c in history.ordered() if c.target == SHARED and c.result == 0 and _mends(history, c, incident)]
    if mended:
        story.add("Then", "converted back to shared: " + ", ".join(words.where(c) for c in mended[:4]))
    story.add("Do", "convert the ranges back to shared, or bind a guest_memfd to their memslots" if left else "nothing now")
    story.add("Fix", "VMM: answer a request for private only where a guest_memfd backs the range")
    story.evidence = words.lines_of(history, [*incident.conversions, *incident.faults])
    return story


def _closed(history: History, incident: IncidentEvents) -> Story:
    """A guest_memfd was closed while a memslot uses it: it counts as gone, and an access to it cannot be served (SC-42)."""
    faults = incident.faults
    story = Story(
        Blame.VMM,
        "guest_memfd closed under its memslot",
        words.guest(incident.vm),
        "The guest_memfd of a memslot was closed while the guest was running, and the guest was stopped at "
        f"{count(len(faults), 'access', 'accesses')}: KVM_RUN returned EFAULT with KVM_EXIT_MEMORY_FAULT.",
    )
    story.timeline = [words.fault_row(fault) for fault in faults]
    story.evidence = words.lines_of(history, faults)
    mainline = incident.vm is not None and incident.vm.dialect is Dialect.MAINLINE
    gone = (
        "without memory for their private pages"
        if mainline
        else "without memory. An access to such a page is reported as shared, whatever its attribute is"
    )
    story.add("Why", f"closing the file detaches it from its memslots and zaps its pages; the slots stay, {gone} [implied]")
    story.add(
        "Left", f"every {'private ' * mainline}page of these memslots is a trap; a retry of KVM_RUN stops at the same access"
    )
    story.add("Data", "lost to the guest; the pages live only as long as a mapping of the file holds its inode")
    way_out = "convert the pages to shared" if mainline else "replace the memslots by ones with a guest_memfd"
    story.add("Do", f"end the guest, or {way_out}; the contents do not come back")
    if mainline and (mended := _converted_back(history, incident)):
        story.add("Then", "converted to shared: " + ", ".join(words.where(conversion) for conversion in mended[:4]))
    story.add("Fix", "VMM: keep the guest_memfd open as long as a memslot is bound to it")
    return story


def _converted_back(history: History, incident: IncidentEvents) -> list[Conversion]:
    """The conversions to shared that have freed a guest from where it was stopped."""
    return [
        conversion
        for conversion in history.ordered()
        if conversion.result == 0
        and conversion.target == SHARED
        and any(
            conversion.owner == fault.owner
            and fault.seq < conversion.id
            and (conversion.start or 0) <= (fault.start or 0) < (conversion.end or 0)
            for fault in incident.faults
        )
    ]


def _mends(history: History, conversion: Conversion, incident: IncidentEvents) -> bool:
    place = gfns(history, conversion)
    if place is None or not conversion.in_vm or incident.vm is None or conversion.owner != incident.vm.id:
        return False
    return any(
        made.id < conversion.id and (made.start or 0) < place[1] and place[0] < (made.end or 0) for made in incident.conversions
    )


def slot_swap(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A memslot over private gfns was replaced by one without a guest_memfd (SC-44)."""
    pages = sum((finding.end or 0) - (finding.start or 0) for finding in incident.findings)
    story = Story(
        Blame.VMM,
        "private memory replaced",
        words.guest(incident.vm),
        f"{count(pages, 'private page')} lost {'its' if pages == 1 else 'their'} guest_memfd by a change of memslots. The "
        "guest goes on with other memory, without a conversion.",
    )
    story.table = IncidentTable(
        ("gfn", "size"),
        tuple((span(f.start or 0, f.end or 0), size_in_words((f.end or 0) - (f.start or 0))) for f in incident.findings),
    )
    story.add(
        "Why",
        "attributes belong to the guest_memfd; a plain memslot in its place counts as shared, and nothing checks for it "
        "[implied]",
    )
    story.add(
        "Data",
        "what the guest had written privately stays in the guest_memfd as long as that lives; the guest no longer sees it",
    )
    story.add("Fix", "VMM: convert the range to shared before its memslot is replaced")
    return story
