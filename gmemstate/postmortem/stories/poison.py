"""The story of memory errors: pages of guest_memfds that are poisoned, and host pages that were put out of use."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import SEQ, Dialect, EventRow, T, details
from gmemstate.model.objects import MessedUp
from gmemstate.model.units import END, seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Story

USUAL = "unevictable LRU page: Failed"
"""What the kernel says of a page of a guest_memfd, which are all unevictable; of another kind of page it says that something is left."""
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
        else f"{words.count(pages, 'host page')} {'has' if pages == 1 else 'have'} a memory error (poison). "
        + (
            "Pages that follow one another like this are one block that the kernel gave up (SNP pages that leaked were once put away so), rather "
            "than as many hardware errors."
            if block
            else "Whether a guest_memfd holds the page, this record does not show."
        ),
    )
    rows: list[tuple[int, tuple[str, ...]]] = [(entry.id, ("poison", _when(entry), _page(entry), "", "")) for entry in entries]
    rows += [(fault.seq, ("touch", *words.fault(fault))) for fault in incident.faults]
    over = [
        conversion
        for conversion in history.ordered()
        if any(
            conversion.owner in (entry.vm, entry.gmem) and _over(conversion.start, conversion.end, entry, conversion.in_vm)
            for entry in entries
        )
    ]
    rows += [(conversion.id, ("", *words.line(conversion))) for conversion in over]
    marks = [history.marks[entry.id] for entry in entries if entry.id in history.marks]
    story.evidence = sorted(words.evidence(history, marks) + words.lines_of(history, [*over, *incident.faults]))
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
    story.add("Host", _of_host(entries))
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
    if not in_file:
        story.add(
            "Do",
            "find out whether a guest_memfd holds the page; if so punch it out (its contents are lost) and tell the guest; replace the memory module",
        )
        return story
    story.add(
        "Do",
        "punch the page out of the guest_memfd (its contents are lost) and tell the guest; replace the memory module"
        if None in punches
        else "replace the memory module; the page was punched out of the guest_memfd, so the guest can go on without its contents",
    )
    return story


def _actions(entries: list[MessedUp]) -> list[str]:
    """What the kernel says that it did: the kind of page, and the result (mm/memory-failure.c action_result())."""
    returned = [details(entry.detail) for entry in entries]
    return sorted({action for facts in returned for action in (facts.get("action"), *(facts.get("actions") or ())) if action})


def _of_host(entries: list[MessedUp]) -> str:
    """What becomes of the page on the host: MF_IGNORED says that the kernel could do nothing about it."""
    ignored = [action for action in _actions(entries) if action.endswith(": Ignored")]
    if not ignored:
        return "the page is out of use for good; nothing else is affected"
    return (
        f'"{ignored[0]}" says that the kernel could not take the page away from who uses it: it is marked, and whoever '
        "it was may use it still, perhaps the kernel itself; the next access to it can stop the host. Move the guests away and reboot"
    )


def _said_of(entries: list[MessedUp], *, in_file: bool) -> str | None:
    """What the kernel's own words mean: with guest_memfd a "Failed" is the normal way."""
    returned = [details(entry.detail) for entry in entries]
    actions = _actions(entries)
    failed = next((action for action in actions if action.endswith(USUAL)), None)
    users = next((facts["users"] for facts in returned if "users" in facts), None)
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


def _when(entry: MessedUp) -> str:
    return seconds(entry.since) if entry.since is not None else str(details(entry.detail).get("at", ""))


def _page(entry: MessedUp) -> str:
    parts = [f"idx {entry.index:#x}" if entry.index is not None else "", f"gfn {entry.gfn:#x}" if entry.gfn is not None else ""]
    run = f"+{entry.count}" if entry.count not in (None, 1) else ""
    parts.append(f"pfn {entry.pfn:#x}{run}" if entry.pfn is not None else "pfn not shown")
    return ", ".join(part for part in parts if part)


def _over(start: int | None, end: int | None, entry: MessedUp, in_vm: bool) -> bool:
    page = entry.gfn if in_vm else entry.index
    return page is not None and start is not None and start <= page < (end or END)
