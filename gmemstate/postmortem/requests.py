"""Stories of requests of which a part was applied."""

from gmemstate.audit.history import History
from gmemstate.audit.views import gfns, served
from gmemstate.model.events import ACTOR, VALUE, Access, T, User
from gmemstate.model.machines import PRIVATE, SHARED, UNKNOWN
from gmemstate.model.objects import Conversion, Request, Vm
from gmemstate.model.units import END, duration, seconds, span
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene, first_unmap, hva_range
from gmemstate.postmortem.story import Story, Table

ENOMEM, EAGAIN = 12, 11


def partly_applied(history: History, seen: Scene, incident: Incident) -> Story:
    """A guest asked for one range, the VMM converted a part of it, gave up, and told the guest that all failed."""
    request = incident.episodes[0].request
    assert request is not None  # incidents of this kind are made from requests
    own = incident.episodes[0].conversions
    done = [conversion for conversion in own if conversion.result == 0]
    failed = [conversion for conversion in own if conversion.result]
    verdict = served(history, request)
    asked, applied, kind = verdict.asked or 0, verdict.applied or 0, verdict.to or "?"
    other = SHARED if kind == PRIVATE else PRIVATE
    story = Story(
        "VMM",
        "partly applied",
        words.guest(history, incident.vm),
        f"The guest asked for {words.count(asked, 'page')} {kind}. {applied} became {kind}, {asked - applied} stayed {other}, and the "
        f"guest was told that it failed ({request.result}). It has a wrong view of {words.count(applied, 'page')}. The VMM did not undo "
        f"what it had done" + (", after the kernel had run out of memory." if failed[0].result == ENOMEM else "."),
    )
    story.timeline = _timeline(request, own, asked)
    story.table = _table(history, seen, incident.vm, own, kind)
    _why(story, history, failed[0])
    for conversion in done:
        _left(story, history, seen, incident.vm, conversion)
    story.add("Host", _host(history))
    one, rest = (" and ".join(_place(history, c) for c in chosen) for chosen in (done, failed))
    story.add(
        "Do now", f"convert {one} back to {other}, or retry {rest} to {kind} and answer 0. Do not resume the guest in between."
    )
    story.add(
        "Fix",
        "VMM: undo the finished pieces before answering the guest"
        + (
            ", or convert the whole range in one ioctl: it may span slots and is all-or-nothing."
            if own[0].in_vm
            else ". One ioctl is all-or-nothing, several are not: two guest_memfds always take two."
        ),
    )
    if "DIRECTION_FROM_CONVERSIONS" in verdict.flags and request.flags is not None:
        story.add(
            "Note",
            f"a2={request.flags:#x} of the hypercall says {'private' if request.flags & 0x10 else 'shared'} by the ABI; it is read as "
            f"to-{kind}, because that is what the ioctls say (KVM selftests use an encoding of their own).",
        )
    if failed[0].result == ENOMEM:
        at = seconds(failed[0].returned)
        story.missing.append(
            f"why memory ran out: look into dmesg near {at} for 'page allocation failure', a memcg OOM or FAULT_INJECTION"
        )
    story.evidence = words.lines_of(history, own)
    return story


def _timeline(request: Request, own: list[Conversion], asked: int) -> list[tuple[str, ...]]:
    gpa = "?" if request.start is None else f"{request.start << 12:#x}"
    rows: list[tuple[str, ...]] = [
        (
            "asked",
            seconds(request.asked),
            f"vCPU thread {request.thread}: MAP_GPA_RANGE gpa {gpa}, {words.count(asked, 'page')}",
            "",
            "",
        )
    ]
    for n, conversion in enumerate(own):
        rows.append(("done" if n == 0 else "", *words.line(conversion)))
    later = duration(request.answered - request.asked) if request.answered is not None and request.asked is not None else "?"
    rows.append(("told", seconds(request.answered), f"{request.result} to the guest, {later} after it asked", "", ""))
    return rows


def _place(history: History, conversion: Conversion) -> str:
    """The gfns of a conversion if they are known, else its indices."""
    place = gfns(history, conversion)
    return words.where(conversion) if place is None else f"gfn {span(*place)}"


def _table(history: History, seen: Scene, vm: Vm | None, own: list[Conversion], kind: str) -> Table:
    rows = []
    for conversion in own:
        start, end = conversion.start or 0, conversion.end or END
        before = {run.state for run in seen.before.get(conversion.id, [])} or {UNKNOWN}
        now = (
            {run.state for run in history.memory.runs(conversion.space, start, end)}
            if conversion.space is not None
            else {UNKNOWN}
        )
        place = gfns(history, conversion) or (0, 0)
        slots = (
            sorted({slot.id & 0xFFFF for slot in vm.slots.values() if slot.start < place[1] and place[0] < slot.end})
            if vm
            else []
        )
        differs = "<- differs" if now == {kind} else ""
        rows.append(
            (
                _place(history, conversion).removeprefix("gfn "), str(words.pages_of(conversion)), ",".join(map(str, slots)),
                "/".join(sorted(before)), kind, "/".join(sorted(now)), "failed", differs,
            )
        )  # fmt: skip
    return Table(("gfn", "pages", "slot", "before", "asked", "now", "guest was told", ""), rows)


def _why(story: Story, history: History, failure: Conversion) -> None:
    if failure.result == ENOMEM and failure.in_vm:
        story.add(
            "Why",
            f"{words.where(failure)} ran out of kernel memory while attribute entries were reserved (xa_reserve), before any mapping or "
            "attribute was touched [implied]; the VMM did not undo the earlier part before it answered [observed]",
        )
    elif failure.result == ENOMEM:
        story.add(
            "Why",
            f"{words.where(failure)} ran out of kernel memory while tree nodes were allocated, before anything was touched [implied]",
        )
    elif failure.result == EAGAIN and failure.error_offset is not None:
        story.add(
            "Why",
            f"a page of {words.where(failure)} was in use (first one: idx {failure.error_offset >> 12:#x}), so this ioctl changed no "
            "attribute; the VMM did not undo the earlier ones before it answered [observed]",
        )
    else:
        story.add(
            "Why",
            f"{words.where(failure)} failed with {words.errno_name(failure.result)}; the VMM did not undo the earlier part",
        )


def _left(story: Story, history: History, seen: Scene, vm: Vm | None, conversion: Conversion) -> None:
    """What the applied part has left: mappings gone, new pages, and whether the old contents can still be had."""
    gone = sum(row[VALUE] or 0 for row in conversion.answers if row[ACTOR] == User.GUEST)
    counted = any(row[VALUE] is not None for row in conversion.answers if row[ACTOR] == User.GUEST)
    text = f"{words.where(conversion)}: attribute {conversion.target}"
    if counted:
        text += f", {words.count(gone, 'guest mapping')} removed [observed]"
    touched = _touches(seen, history, conversion)
    if touched and conversion.in_vm:
        first = touched[0]
        page = f", pfn {first.pfn:#x}" if first.pfn is not None else ""
        rest = words.pages_of(conversion) - sum(touch.end - touch.start for touch in touched)
        text += (
            f"; the guest touched gfn {first.start:#x} at {seconds(first.t)}: a new {conversion.target} page{page} (a new private page is "
            f"zeroed; the other {rest} will be, on first touch)"
        )
    story.add("Left", text)
    if not conversion.in_vm:
        story.add(
            "Data",
            f"the contents of {words.where(conversion)} are where they were: the conversion is in place; the host can no longer touch them",
        )
        return
    if vm is None or conversion.start is None or conversion.target != PRIVATE:
        return
    for slot, address, size in hva_range(seen, history, vm.id, conversion.start, conversion.end or END):
        unmapped = first_unmap(seen, conversion.last, address, size)
        until = "nothing discarded it to the end of the record"
        if unmapped is not None:
            until = f"nothing discarded it before {seconds(unmapped[T])}, when its mapping went away"
        story.add(
            "Data",
            f"RECOVERABLE while the VMM lives: the old contents are in shared memory at hva {address:#x}+{size:#x} (slot {slot & 0xFFFF}); {until}",
        )


def _touches(seen: Scene, history: History, conversion: Conversion) -> list:  # type: ignore[type-arg]
    space = history.memory.owner(conversion.space)
    place = (conversion.start, conversion.end) if conversion.in_vm else history.places.get(conversion.id)
    if space is None or place is None or place[0] is None or place[1] is None:
        return []
    return seen.touched(conversion, (Access.GUEST, Access.GUEST_PRIVATE, Access.GUEST_SHARED), {space}, place[0], place[1])


def _host(history: History) -> str:
    entries = [entry for entry in history.memory.messed_up.values() if entry.state != "cleared"]
    if not entries:
        return "not affected: no suspect, leaked or poisoned page in this record"
    return f"{words.count(len(entries), 'page')} of the host can no longer be trusted: see messed-up"
