"""Memory errors: pages of guest_memfds that are poisoned, and host pages that were put out of use."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import Dialect
from gmemstate.model.objects import Conversion, MessedUp
from gmemstate.model.units import END
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow, step
from gmemstate.postmortem.reports import detail_words
from gmemstate.postmortem.scene import PagesGone, Scene
from gmemstate.text import count

USUAL = "unevictable LRU page: Failed"
"""What the kernel prints for a page of a guest_memfd, which are all unevictable; for others it prints what is left."""
BLOCK = 8
"""From how many adjacent pages on they are taken for one block."""


def poison(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A page of a guest_memfd has a memory error: it is zapped and kept, and every access to it is refused."""
    entries = incident.entries
    in_file = all(entry.gmem is not None for entry in entries)
    block = not in_file and any((entry.count or 1) >= BLOCK for entry in entries)
    story = Story(Blame.HOST, "memory error", words.guest(incident.vm), _summary(entries, in_file=in_file, block=block))
    over = [conversion for conversion in history.ordered() if any(_over(conversion, entry) for entry in entries)]
    punches = [seen.punch(entry.gmem, entry.index, entry.id, END) for entry in entries]
    marks = [seen.reports.marks[entry.id] for entry in entries if entry.id in seen.reports.marks]
    story.evidence = sorted(words.evidence(history, marks) + words.lines_of(history, [*over, *incident.faults]))
    story.timeline = _timeline(incident, over, punches)
    story.add("Note", _printed(entries, in_file=in_file))
    if not block:
        story.add(
            "Guest",
            "an access to the page ends KVM_RUN with EHWPOISON and KVM_EXIT_MEMORY_FAULT; that is no request for a conversion",
        )
        story.add("Convert", _converted(incident.vm.dialect if incident.vm is not None else Dialect.UNKNOWN))
    story.add("Host", _of_host(entries))
    if block:
        story.add(
            "Do", "look for RMPUPDATE or firmware failures right before; a reboot gives the memory back unless the errors recur"
        )
    elif not in_file:
        story.missing.append(
            "the gfn and the file: trace kvm_gmem_error_folio, or join a trace of the guest's faults: gmemstate why pfn:0x..."
        )
        story.complete = False
        story.add(
            "Do",
            "find out whether a guest_memfd holds the page; if so punch it out (its contents are lost) and inform the guest; "
            "replace the memory module",
        )
    elif None in punches:
        story.add(
            "Do",
            "punch the page out of the guest_memfd (its contents are lost) and inform the guest; replace the memory module",
        )
    else:
        story.add(
            "Do",
            "replace the memory module; the page was punched out of the guest_memfd, so the guest can go on without its "
            "contents",
        )
    return story


def _summary(entries: list[MessedUp], *, in_file: bool, block: bool) -> str:
    pages = sum(entry.count or 1 for entry in entries)
    have = f"{'has' if pages == 1 else 'have'} a memory error (poison)."
    if in_file:
        return (
            f"{count(pages, 'page')} of guest_memfd {have} The poison stays with the page, through conversions in both "
            "directions, until it is punched out of the file."
        )
    if block:
        return (
            f"{count(pages, 'host page')} {have} Pages that are adjacent like this are one block that the kernel gave up (SNP "
            "pages that leaked were once marked so), rather than as many hardware errors."
        )
    return f"{count(pages, 'host page')} {have} Whether a guest_memfd holds the page, this record does not show."


def _timeline(incident: IncidentEvents, over: list[Conversion], punches: list[PagesGone | None]) -> list[TimelineRow]:
    """Errors, accesses, conversions and punches, in the order of events."""
    rows = [(entry.id, step("poison", entry.since, _page(entry), logged=_logged(entry))) for entry in incident.entries]
    rows += [(fault.seq, words.fault_row(fault, what="access")) for fault in incident.faults]
    rows += [(conversion.id, words.row(conversion)) for conversion in over]
    for entry, punch in zip(incident.entries, punches, strict=True):
        if punch is not None:
            text = f"idx {entry.index or 0:#x} leaves the file; next access: a fresh page"
            rows.append((punch.seq, step("punch", punch.t, text)))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def _actions(entries: list[MessedUp]) -> list[str]:
    """What the kernel printed that it did: the kind of page, and the result (mm/memory-failure.c action_result())."""
    facts = [detail_words(entry.detail) for entry in entries]
    return sorted(
        {action for one in facts for name in ("action", "actions") for action in one.get(name, "").split("; ") if action}
    )


def _of_host(entries: list[MessedUp]) -> str:
    """What becomes of the page on the host: MF_IGNORED means that the kernel could do nothing about it."""
    ignored = [action for action in _actions(entries) if action.endswith(": Ignored")]
    if not ignored:
        return "the page is out of use for good"
    return (
        f'"{ignored[0]}" means that the kernel could not take the page away from its user: it is marked, and its user, perhaps '
        "the kernel itself, may use it still; the next access to it can stop the host. Move the guests away and reboot"
    )


def _printed(entries: list[MessedUp], *, in_file: bool) -> str | None:
    """What the kernel's own words mean: with guest_memfd a "Failed" is the normal way."""
    actions = _actions(entries)
    failed = next((action for action in actions if action.endswith(USUAL)), None)
    users = next((facts["users"] for entry in entries if "users" in (facts := detail_words(entry.detail))), None)
    refers = f" ({count(int(users), 'reference')} to the page too many)" if users is not None else ""
    if not in_file and failed is None:
        return f"the kernel printed: {', '.join(actions)}" if actions else None
    printed = f'the kernel\'s "{failed}"{refers}' if failed else 'a "Failed" in the kernel\'s log'
    usual = "its normal way" if in_file else "what it prints for a page that guest_memfd holds, as well"
    return (
        f"{printed} is {usual}: guest_memfd keeps the page on purpose (MF_DELAYED), which memory_failure() counts as a "
        "failure; the poison was handled as designed [implied]"
    )


def _converted(dialect: Dialect) -> str:
    """What a conversion does to a poisoned page."""
    elsewhere = (
        "to shared gives the guest another page, as shared memory is elsewhere; back to private it is the poisoned one again"
    )
    along = "to shared keeps the poisoned page; to private is refused with EAGAIN until the page is punched"
    if dialect is Dialect.MAINLINE:
        return elsewhere
    return (
        along if dialect is Dialect.INPLACE else f"where shared memory is elsewhere (mainline), {elsewhere}; in place, {along}"
    )


def _logged(entry: MessedUp) -> str:
    return detail_words(entry.detail).get("at", "")


def _page(entry: MessedUp) -> str:
    parts = [f"idx {entry.index:#x}" if entry.index is not None else "", f"gfn {entry.gfn:#x}" if entry.gfn is not None else ""]
    run = f"+{entry.count}" if entry.count not in (None, 1) else ""
    parts.append(f"pfn {entry.pfn:#x}{run}" if entry.pfn is not None else "pfn not shown")
    return ", ".join(part for part in parts if part)


def _over(conversion: Conversion, entry: MessedUp) -> bool:
    """Whether a conversion was about the page of an entry."""
    page = entry.gfn if conversion.in_vm else entry.index
    if conversion.owner not in (entry.vm, entry.gmem) or page is None or conversion.start is None:
        return False
    return conversion.start <= page < (conversion.end or END)
