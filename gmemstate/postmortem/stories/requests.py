"""Requests of guests: answered otherwise than they were carried out, or answered with an error without any conversion."""

from gmemstate.audit.history import coverage
from gmemstate.audit.history.history import History
from gmemstate.audit.queries.conversions import gfns
from gmemstate.audit.queries.requests import Note, served
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.events import User, details
from gmemstate.model.linux import EAGAIN, ENOMEM, KVM_EINVAL, KVM_ENOSYS
from gmemstate.model.machines.range import PRIVATE, SHARED, UNKNOWN
from gmemstate.model.objects import Conversion, Request, Vm, slot_number
from gmemstate.model.units import END, Gfn, duration, gpa_of, seconds, span
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, IncidentTable, Story, TimelineRow, step
from gmemstate.postmortem.scene import GUEST_ACCESS, MappedAgain, Scene
from gmemstate.postmortem.stories import no_memory
from gmemstate.text import count


def answer_differs(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A part of a request was converted, and the guest was answered that all was, or that nothing was."""
    request, own = incident.episodes[0].request, incident.episodes[0].conversions
    assert request is not None  # incidents of this kind are made from requests
    done = [conversion for conversion in own if conversion.result == 0]
    failed = [conversion for conversion in own if conversion.result]
    verdict = served(history, request)
    asked, applied, kind = verdict.asked or 0, verdict.applied or 0, verdict.to or "?"
    other = SHARED if kind == PRIVATE else PRIVATE
    answer, wrong = ("success", asked - applied) if request.result == 0 else ("failure", applied)
    story = Story(Blame.VMM, incident.kind, words.guest(incident.vm), "")
    story.summary = (
        f"The guest asked for {count(asked, 'page')} {kind}. {applied} became {kind}, {asked - applied} stayed {other}, and "
        f"the answer to the guest was {answer} ({request.result}). It has a wrong view of {count(wrong, 'page')}."
    )
    if failed and request.result:
        story.summary += " The VMM did not undo what it had done" + (
            ", after an allocation of the kernel had failed." if failed[0].result == ENOMEM else "."
        )
    story.evidence = words.lines_of(history, own)
    story.timeline = _timeline(request, own)
    story.limit = len(story.timeline)
    story.table = _table(history, seen, incident.vm, own, kind, request.result or 0)
    if failed:
        _why(story, history, failed[0])
    for conversion in done:
        _left(story, history, seen, incident.vm, conversion)
    story.add("Host", _host(history))
    _advise(story, history, request, done, failed, kind, other)
    if Note.DIRECTION_FROM_CONVERSIONS in verdict.notes and request.flags is not None:
        story.add(
            "Note",
            f"a2={request.flags:#x} of the hypercall is {'private' if request.flags & ENCRYPTED else 'shared'} by the ABI; it "
            f"is read as to-{kind}, because the ioctls convert to {kind} (KVM selftests use an encoding of their own).",
        )
    if failed and failed[0].result == ENOMEM:
        no_memory.explain(story, history, seen, failed)
    if failed and failed[0].result == EAGAIN:
        story.missing.append(words.WHO_HELD)
    return story


def _advise(
    story: Story, history: History, request: Request, done: list[Conversion], failed: list[Conversion], kind: str, other: str
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


_BY_KVM = {
    -KVM_ENOSYS: (
        Blame.VMM,
        "KVM hands no MAP_GPA_RANGE to a VMM that has not enabled KVM_CAP_EXIT_HYPERCALL for it: it answers -1000 "
        "(KVM_ENOSYS) itself [implied]",
        "VMM: enable the capability, or do not offer the hypercall to the guest",
    ),
    -KVM_EINVAL: (
        Blame.GUEST,
        "KVM itself answers -22 (KVM_EINVAL) to a misaligned address, to 0 pages and to a range that wraps, and does not ask "
        "the VMM [implied]",
        "guest: ask for whole pages, at least one",
    ),
}
"""Answers that KVM gives without the VMM (____kvm_emulate_hypercall()): whose fault, why, and what mends it."""


def refused(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Guests asked for conversions and were answered with an error, without any conversion."""
    own = incident.requests
    answer = own[0].result or 0
    by_kvm = None if own[0].was_exit else _BY_KVM.get(answer)
    blame, why, fix = by_kvm or (Blame.VMM, None, None)
    story = Story(
        blame,
        "request refused by KVM" if by_kvm else "request refused",
        words.guest(incident.vm),
        f"The guest asked {count(len(own), 'time')} for a conversion and {answer} was returned to it. "
        + _what_followed(history, own, by_kvm=by_kvm is not None),
    )
    story.timeline = [step("asked", request.asked, _asked(request), note=f"returned {request.result}") for request in own]
    story.add("Why", why)
    story.add("Fix", fix)
    if not by_kvm:
        story.missing.append("why: the VMM's own log" if own[0].was_exit else "who answered: trace kvm_userspace_exit")
        if not all(coverage.shows_conversions(history, coverage.of_request(request)) for request in own):
            story.missing.append("what followed: add the return probes on kvm_vm_ioctl and kvm_gmem_ioctl")
            story.complete = False
    story.evidence = words.lines_of(history, own)
    return story


def _what_followed(history: History, own: list[Request], *, by_kvm: bool) -> str:
    """What is known of conversions between requests and their answers; what need not be on record is not said to be absent."""
    others = [conversion for request in own for conversion in coverage.others(history, request)]
    if others:
        were = "conversion was" if len(others) == 1 else "conversions were"
        return f"{len(others)} {were} made before the answer, and whether for this request is not known."
    if by_kvm or all(coverage.shows_conversions(history, coverage.of_request(request)) for request in own):
        return "No conversion followed, and nothing was changed."
    return "Whether a conversion followed is not known: this record need not have shown one."


def _asked(request: Request) -> str:
    odd = details(request.detail)
    gpa = odd.get("gpa", "?") if request.start is None else f"{gpa_of(Gfn(request.start)):#x}"
    pages = int(odd["pages"], 16) if request.npages is None and "pages" in odd else request.npages
    return f"MAP_GPA_RANGE gpa {gpa}, {'? pages' if pages is None else count(pages, 'page')}"


def _timeline(request: Request, own: list[Conversion]) -> list[TimelineRow]:
    rows = [step("asked", request.asked, f"vCPU thread {request.thread}: {_asked(request)}")]
    rows += [words.row(conversion, "ioctl" if n == 0 else "") for n, conversion in enumerate(own)]
    later = ""
    if request.answered is not None and request.asked is not None:
        later = f", {duration(request.answered - request.asked)} after it asked"
    return [*rows, step("answer", request.answered, f"{request.result} to the guest{later}")]


def _place(history: History, conversion: Conversion) -> str:
    """The gfns of a conversion if they are known, else its indices."""
    place = gfns(history, conversion)
    return words.where(conversion) if place is None else f"gfn {span(*place)}"


def _table(history: History, seen: Scene, vm: Vm | None, own: list[Conversion], kind: str, returned: int) -> IncidentTable:
    """For each conversion its pages before and now, next to what was asked and answered."""
    rows = []
    for conversion in own:
        start, end = conversion.start or 0, conversion.end or END
        before = {run.state for run in seen.before.get(conversion.id, [])} or {UNKNOWN}
        now = {UNKNOWN}
        if conversion.owner is not None:
            now = {run.state for run in history.memory.runs(conversion.owner, start, end)}
        first, last = gfns(history, conversion) or (0, 0)
        slots = (
            sorted({slot_number(slot.id) for slot in vm.slots.values() if slot.start < last and first < slot.end}) if vm else []
        )
        answer = "success" if returned == 0 else "failed"
        differs = now != {kind} if returned == 0 else now == {kind}
        cells = (
            _place(history, conversion).removeprefix("gfn "),
            str(conversion.npages or 0),
            ",".join(map(str, slots)),
            "/".join(sorted(before)),
            kind,
            "/".join(sorted(now)),
            f"{answer} <- differs" if differs else answer,
        )
        rows.append(cells)
    return IncidentTable(("gfn", "pages", "slot", "before", "asked", "now", "answer to guest"), tuple(rows))


def _why(story: Story, history: History, failure: Conversion) -> None:
    if failure.result == ENOMEM:
        step = (
            "attribute entries were reserved (xa_reserve), before any mapping or attribute"
            if failure.in_vm
            else "tree nodes were allocated (mas_preallocate), before anything"
        )
        why = f"ran out of kernel memory while {step} was changed [implied]"
    elif failure.result == EAGAIN and failure.error_page is not None:
        why = (
            f"was refused, as a page of it was in use (the first is idx {failure.error_page:#x} of its guest_memfd); no "
            "attribute of it changed [observed]"
        )
    else:
        why = f"failed with {words.errno_name(failure.result)}"
    undone = "the VMM did not undo the earlier part before it answered [observed]"
    story.add("Why", f"{_place(history, failure)} {why}; {undone}")


def _left(story: Story, history: History, seen: Scene, vm: Vm | None, conversion: Conversion) -> None:
    """What the applied part has left: mappings gone, new pages, and whether the old contents can still be had."""
    entries = [answer.entries for answer in words.answers(conversion) if answer.user is User.GUEST]
    text = f"{_place(history, conversion)}: attribute {conversion.target}"
    if any(number is not None for number in entries):
        text += f", {count(sum(number or 0 for number in entries), 'guest mapping')} removed [observed]"
    accesses = _accesses(seen, history, conversion)
    if accesses and conversion.in_vm:
        first = accesses[0]
        page = f", pfn {first.pfn:#x}" if first.pfn is not None else ""
        rest = (conversion.npages or 0) - sum(access.end - access.start for access in accesses)
        text += (
            f"; the guest accessed gfn {first.start:#x}{words.at(first.t)}: a new {conversion.target} page{page} (a new "
            f"private page is zeroed; the other {rest} will be, on first access)"
        )
    story.add("Left", text)
    if not conversion.in_vm:
        story.add(
            "Data",
            f"the contents of {_place(history, conversion)} are where they were: the conversion is in place; the host can no "
            "longer access them",
        )
    elif vm is not None and conversion.start is not None and conversion.target == PRIVATE:
        for memory in seen.hva_ranges(vm, conversion.start, conversion.end or END):
            unmapped = seen.first_unmap(conversion.last, memory)
            until = "nothing discarded it to the end of the record"
            if unmapped is not None:
                when = f"{seconds(unmapped.t)}, when " if unmapped.t is not None else ""
                until = f"nothing discarded it before {when}its mapping went away"
            story.add(
                "Data",
                "RECOVERABLE while the VMM lives: the old contents are in shared memory at hva "
                f"{memory.hva:#x}+{memory.size:#x} (slot {slot_number(memory.slot)}); {until}",
            )


def _accesses(seen: Scene, history: History, conversion: Conversion) -> list[MappedAgain]:
    place = history.places.get(conversion.id)
    if conversion.in_vm:
        known = conversion.start is not None and conversion.end is not None
        place = (conversion.start or 0, conversion.end or 0) if known else None
    return seen.accesses(conversion, GUEST_ACCESS, history.memory.guest_id(conversion.owner), place)


def _host(history: History) -> str:
    entries = [entry for entry in history.memory.messed_up.values() if entry.state != "cleared"]
    if not entries:
        return "no suspect, leaked or poisoned page in this record"
    return f"{count(len(entries), 'page')} of the host can no longer be trusted: see messed-up"
