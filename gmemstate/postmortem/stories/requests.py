"""Stories of requests of which a part was applied."""

from gmemstate.audit.history.history import History
from gmemstate.audit.queries import gfns, served
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.events import ACTOR, VALUE, Access, T, User, details
from gmemstate.model.linux import EAGAIN, ENOMEM, KVM_EINVAL, KVM_ENOSYS
from gmemstate.model.machines.range import PRIVATE, SHARED, UNKNOWN
from gmemstate.model.objects import Conversion, Request, Vm, slot_number
from gmemstate.model.units import END, Gfn, duration, gpa_of, seconds, span
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene, first_unmap, hva_range
from gmemstate.postmortem.stories import shortage
from gmemstate.postmortem.story import Blame, Story, Table

"""What KVM itself answers to a hypercall (include/uapi/linux/kvm_para.h)."""


def not_as_told(history: History, seen: Scene, incident: Incident) -> Story:
    """A guest asked for one range, a part of it was converted, and the guest was told that all was, or that nothing was."""
    request = incident.episodes[0].request
    assert request is not None  # incidents of this kind are made from requests
    own = incident.episodes[0].conversions
    done = [conversion for conversion in own if conversion.result == 0]
    failed = [conversion for conversion in own if conversion.result]
    verdict = served(history, request)
    asked, applied, kind = verdict.asked or 0, verdict.applied or 0, verdict.to or "?"
    other = SHARED if kind == PRIVATE else PRIVATE
    lied, wrong = ("succeeded", asked - applied) if request.result == 0 else ("failed", applied)
    story = Story("VMM", incident.kind, words.guest(history, incident.vm), "")
    story.summary = (
        f"The guest asked for {words.count(asked, 'page')} {kind}. {applied} became {kind}, {asked - applied} stayed {other}, and the "
        f"guest was told that it {lied} ({request.result}). It has a wrong view of {words.count(wrong, 'page')}."
    )
    if failed and request.result:
        story.summary += " The VMM did not undo what it had done" + (
            ", after the kernel had run out of memory." if failed[0].result == ENOMEM else "."
        )
    story.evidence = words.lines_of(history, own)
    story.timeline = _timeline(request, own, asked)
    story.table = _table(history, seen, incident.vm, own, kind, request.result or 0)
    if failed:
        _why(story, history, failed[0])
    for conversion in done:
        _left(story, history, seen, incident.vm, conversion)
    story.add("Host", _host(history))
    _advise(story, history, request, done, failed, kind, other)
    if "DIRECTION_FROM_CONVERSIONS" in verdict.flags and request.flags is not None:
        story.add(
            "Note",
            f"a2={request.flags:#x} of the hypercall says {'private' if request.flags & ENCRYPTED else 'shared'} by the ABI; it is read as "
            f"to-{kind}, because that is what the ioctls say (KVM selftests use an encoding of their own).",
        )
    if failed and failed[0].result == ENOMEM:
        shortage.explain(story, history, failed)
    if failed and failed[0].result == EAGAIN:
        story.missing.append(words.WHO_HELD)
    return story


def _advise(
    story: Story,
    history: History,
    request: Request,
    done: list[Conversion],
    failed: list[Conversion],
    kind: str,
    other: str,
) -> None:
    one, rest = (" and ".join(_place(history, c) for c in chosen) for chosen in (done, failed))
    if request.result == 0:
        story.add("Do now", f"convert {rest or 'the rest'} to {kind}, or stop the guest: it takes these pages for {kind}.")
        story.add("Fix", "VMM: answer 0 only if every page of the request was converted.")
        return
    story.add(
        "Do now", f"convert {one} back to {other}, or retry {rest} to {kind} and answer 0. Do not resume the guest in between."
    )
    story.add(
        "Fix",
        "VMM: undo the finished pieces before answering the guest"
        + (
            ", or convert the whole range in one ioctl: it may span slots and is all-or-nothing."
            if (done + failed)[0].in_vm
            else ". One ioctl is all-or-nothing, several are not: two guest_memfds always take two."
        ),
    )


def refused(history: History, seen: Scene, incident: Incident) -> Story:
    """Guests asked for conversions and were answered with an error, without any conversion."""
    own = incident.requests
    returned = own[0].result or 0
    reasons: dict[int, tuple[Blame, str, str]] = {
        -KVM_ENOSYS: ("VMM", "KVM hands no MAP_GPA_RANGE to a VMM that has not enabled KVM_CAP_EXIT_HYPERCALL for it: it answers "
                      "-1000 (KVM_ENOSYS) itself [implied]", "VMM: enable the capability, or do not offer the hypercall to the guest"),
        -KVM_EINVAL: ("guest", "KVM itself answers -22 (KVM_EINVAL) to a misaligned address, to 0 pages and to a range that wraps, and "
                      "does not ask the VMM [implied]", "guest: ask for whole pages, at least one"),
    }  # fmt: skip
    by_kvm = None if own[0].was_exit else reasons.get(returned)
    blame, why, fix = by_kvm or ("VMM", None, None)
    story = Story(
        blame,
        "request refused by KVM" if by_kvm else "request refused",
        words.guest(history, incident.vm),
        f"The guest asked {words.count(len(own), 'time')} for a conversion and was told {returned}. No conversion followed, and nothing was changed.",
    )
    story.timeline = words.some(
        [("asked", seconds(request.asked), _asked(request), "", f"told {request.result}") for request in own]
    )
    story.add("Why", why)
    story.add("Fix", fix)
    if not by_kvm:
        story.missing.append("why: the VMM's own log" if own[0].was_exit else "who answered: trace kvm_userspace_exit")
    story.evidence = words.lines_of(history, own)
    return story


def _asked(request: Request) -> str:
    odd = details(request.detail)
    gpa = odd.get("gpa", "?") if request.start is None else f"{gpa_of(Gfn(request.start)):#x}"
    pages = int(odd["pages"], 16) if request.npages is None and "pages" in odd else request.npages
    return f"MAP_GPA_RANGE gpa {gpa}, {'? pages' if pages is None else words.count(pages, 'page')}"


def _timeline(request: Request, own: list[Conversion], asked: int) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("asked", seconds(request.asked), f"vCPU thread {request.thread}: {_asked(request)}", "", "")
    ]
    for n, conversion in enumerate(own):
        rows.append(("ioctl" if n == 0 else "", *words.line(conversion)))
    timed = request.answered is not None and request.asked is not None
    later = f", {duration(request.answered - request.asked)} after it asked" if timed else ""  # type: ignore[operator]
    rows.append(("told", seconds(request.answered), f"{request.result} to the guest{later}", "", ""))
    return rows


def _place(history: History, conversion: Conversion) -> str:
    """The gfns of a conversion if they are known, else its indices."""
    place = gfns(history, conversion)
    return words.where(conversion) if place is None else f"gfn {span(*place)}"


def _table(history: History, seen: Scene, vm: Vm | None, own: list[Conversion], kind: str, returned: int) -> Table:
    rows = []
    answer, expected = ("success", {kind}) if returned == 0 else ("failed", None)
    for conversion in own:
        start, end = conversion.start or 0, conversion.end or END
        before = {run.state for run in seen.before.get(conversion.id, [])} or {UNKNOWN}
        now = (
            {run.state for run in history.memory.runs(conversion.owner, start, end)}
            if conversion.owner is not None
            else {UNKNOWN}
        )
        place = gfns(history, conversion) or (0, 0)
        slots = (
            sorted({slot_number(slot.id) for slot in vm.slots.values() if slot.start < place[1] and place[0] < slot.end})
            if vm
            else []
        )
        differs = now != expected if expected else now == {kind}
        rows.append(
            (
                _place(history, conversion).removeprefix("gfn "), str(words.pages_of(conversion)), ",".join(map(str, slots)),
                "/".join(sorted(before)), kind, "/".join(sorted(now)), f"{answer} <- differs" if differs else answer,
            )
        )  # fmt: skip
    return Table(("gfn", "pages", "slot", "before", "asked", "now", "guest was told"), rows)


def _why(story: Story, history: History, failure: Conversion) -> None:
    undone = "; the VMM did not undo the earlier part before it answered [observed]"
    if failure.result == ENOMEM and failure.in_vm:
        why = "ran out of kernel memory while attribute entries were reserved (xa_reserve), before any mapping or attribute was touched [implied]"
    elif failure.result == ENOMEM:
        why = (
            "ran out of kernel memory while tree nodes were allocated (mas_preallocate), before anything was touched [implied]"
        )
    elif failure.result == EAGAIN and failure.error_page is not None:
        why = f"was refused, as a page of it was in use (the first is idx {failure.error_page:#x} of its guest_memfd); no attribute of it changed [observed]"
    else:
        why = f"failed with {words.errno_name(failure.result)}"
    story.add("Why", f"{_place(history, failure)} {why}{undone}")


def _left(story: Story, history: History, seen: Scene, vm: Vm | None, conversion: Conversion) -> None:
    """What the applied part has left: mappings gone, new pages, and whether the old contents can still be had."""
    gone = sum(row[VALUE] or 0 for row in conversion.answers if row[ACTOR] == User.GUEST)
    counted = any(row[VALUE] is not None for row in conversion.answers if row[ACTOR] == User.GUEST)
    text = f"{_place(history, conversion)}: attribute {conversion.target}"
    if counted:
        text += f", {words.count(gone, 'guest mapping')} removed [observed]"
    touched = _touches(seen, history, conversion)
    if touched and conversion.in_vm:
        first = touched[0]
        page = f", pfn {first.pfn:#x}" if first.pfn is not None else ""
        rest = words.pages_of(conversion) - sum(touch.end - touch.start for touch in touched)
        text += (
            f"; the guest touched gfn {first.start:#x}{words.at(first.t)}: a new {conversion.target} page{page} (a new private page is "
            f"zeroed; the other {rest} will be, on first touch)"
        )
    story.add("Left", text)
    if not conversion.in_vm:
        story.add(
            "Data",
            f"the contents of {_place(history, conversion)} are where they were: the conversion is in place; the host can no longer touch them",
        )
        return
    if vm is None or conversion.start is None or conversion.target != PRIVATE:
        return
    for slot, address, size in hva_range(seen, history, vm.id, conversion.start, conversion.end or END):
        unmapped = first_unmap(seen, conversion.last, address, size)
        until = "nothing discarded it to the end of the record"
        if unmapped is not None:
            until = (
                "nothing discarded it before "
                + (f"{seconds(unmapped[T])}, when " if unmapped[T] is not None else "")
                + "its mapping went away"
            )
        story.add(
            "Data",
            f"RECOVERABLE while the VMM lives: the old contents are in shared memory at hva {address:#x}+{size:#x} (slot {slot_number(slot)}); {until}",
        )


def _touches(seen: Scene, history: History, conversion: Conversion) -> list:  # type: ignore[type-arg]
    owner = history.memory.guest_id(conversion.owner)
    place = (conversion.start, conversion.end) if conversion.in_vm else history.places.get(conversion.id)
    if owner is None or place is None or place[0] is None or place[1] is None:
        return []
    return seen.touched(conversion, (Access.GUEST, Access.GUEST_PRIVATE, Access.GUEST_SHARED), {owner}, place[0], place[1])


def _host(history: History) -> str:
    entries = [entry for entry in history.memory.messed_up.values() if entry.state != "cleared"]
    if not entries:
        return "not affected: no suspect, leaked or poisoned page in this record"
    return f"{words.count(len(entries), 'page')} of the host can no longer be trusted: see messed-up"
