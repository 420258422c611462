"""Stories of conversions that failed as a whole: refused because a page was in use, or for want of memory."""

from gmemstate.audit.history import History
from gmemstate.model.events import ACTOR, VALUE, Access, Capability, User
from gmemstate.model.objects import Conversion, Vm
from gmemstate.model.units import END, duration, seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Episode, Incident
from gmemstate.postmortem.scene import Scene, hva_range
from gmemstate.postmortem.story import Story

ENOMEM, EAGAIN = 12, 11
SHOWN = 8
GUEST = (Access.GUEST, Access.GUEST_PRIVATE, Access.GUEST_SHARED)


def told(history: History, seen: Scene, incident: Incident) -> Story:
    """A conversion failed, and was repeated with success or not."""
    failed = [conversion for episode in incident.episodes for conversion in episode.failed]
    first = failed[0]
    applied = all(episode.last_success is not None for episode in incident.episodes)
    title = "not applied, then applied" if applied else "not applied"
    if first.result == EAGAIN:
        story = Story("VMM", title, words.guest(history, incident.vm), _in_use(history, incident, applied))
    elif first.result == ENOMEM:
        story = Story("memory shortage", title, words.guest(history, incident.vm), _no_memory(incident, applied))
    else:
        summary = (
            f"{words.count(len(failed), 'conversion')} failed with {words.errno_name(first.result)} "
            f"({words.errno_text(first.result or 0)})" + ("; it was repeated with success." if applied else ".")
        )
        story = Story("unknown", title, words.guest(history, incident.vm), summary)
    story.timeline = _timeline(incident)
    story.add("Told", _told_to_guest(history, failed))
    if first.result == EAGAIN:
        _explain_in_use(story, history, seen, incident)
    elif first.result == ENOMEM:
        _explain_no_memory(story, first, applied)
    story.evidence = words.lines_of(
        history, [conversion for episode in incident.episodes for conversion in episode.conversions]
    )
    return story


def _told_to_guest(history: History, failed: list[Conversion]) -> str | None:
    """What guests that had asked were told of the failures."""
    asked = {
        conversion.request: history.requests[conversion.request]
        for conversion in failed
        if conversion.request in history.requests
    }
    told = [f"{request.result} at {seconds(request.answered)}" for request in asked.values() if request.result is not None]
    return f"the guest had asked for it; it was told {', '.join(told[:SHOWN])}" if told else None


def _timeline(incident: Incident) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for episode in incident.episodes:
        done: list[Conversion] = []
        before: Conversion | None = None
        for conversion in episode.conversions:
            note = words.took(conversion)
            if conversion.result == EAGAIN and conversion.error_offset is not None:
                note = f"first page in use: idx {conversion.error_offset >> 12:#x}"
            again = before is not None and (before.start, before.npages) == (conversion.start, conversion.npages)
            if again and before is not None and before.asked is not None and conversion.asked is not None:
                note += f" (again, {duration(conversion.asked - before.asked)} later)"
            if conversion.result == 0 and done:
                old = sum(c.npages or 0 for c in done)
                note = f"{old} done before, {(conversion.npages or 0) - old} now"
            if conversion.result == 0:
                done.append(conversion)
            else:
                before = conversion
            rows.append(("", *words.line(conversion, note)))
    if len(rows) > SHOWN:
        rows = [*rows[:SHOWN], ("", "", f"... and {len(rows) - SHOWN} more like these", "", "")]
    return rows


# --- in use ---------------------------------------------------------------------------------------------------------


def _in_use(history: History, incident: Incident, applied: bool) -> str:
    failures = sum(len(episode.failed) for episode in incident.episodes)
    first = incident.episodes[0].failed[0]
    size = words.pages_of(first)
    refused = f"{words.count(failures, 'request')} for private {'was' if failures == 1 else 'were'} refused with EAGAIN"
    held = f"one page of {size} was in use" if size > 1 else "the page was in use"
    nobody = "No fault of kernel, host or guest."
    if _poisoned(history, first):
        end = (
            "After it was punched out the next request converted all of them. Nothing is left over."
            if applied
            else "Nothing was converted."
        )
        return f"A poisoned page keeps a reference, so it counts as in use: {refused}. {end}"
    if len(incident.episodes) > 1:
        most = max(len(episode.failed) for episode in incident.episodes)
        end = (
            f"each time it was repeated with success, after at most {words.count(most, 'refusal')}: the references were short-lived"
            if applied
            else "none was repeated before the other kind was asked for"
        )
        return f"{len(incident.episodes)} times {held}: {refused}; {end}. No refusal changed an attribute. {nobody}"
    if applied:
        return f"VMM held a page: {held}, so {refused}; after it was let go the next request converted all of them. {nobody} Nothing is left over."
    return f"VMM held a page: {held}, so {refused}. Nothing was converted; the pages are still shared. {nobody}"


def _explain_in_use(story: Story, history: History, seen: Scene, incident: Incident) -> None:
    failures = [conversion for episode in incident.episodes for conversion in episode.failed]
    first = failures[0]
    pages = list(dict.fromkeys(c.error_offset >> 12 for c in failures if c.error_offset is not None))
    if pages:
        story.add("Where", _where(history, seen, incident.vm, first, pages))
    if _poisoned(history, first):
        story.blame = "host platform"
    story.add("Why", _why(history, first))
    story.add("Each", _unmapped(history, first))
    story.add("After", _mapped_again(history, seen, first))
    success = incident.episodes[0].last_success
    if success is not None:
        story.add(
            "Then",
            f"the retry at {seconds(success.asked)} succeeded: {words.where(success)} is {success.target} since {seconds(success.returned)}",
        )
    if pages and not first.in_vm:
        story.add(
            "Mind",
            f"error_offset {words.bytes_of(pages[0])} names the first page in use; it is no progress: nothing below it was converted by that request",
        )
    if _poisoned(history, first):
        story.add("Do", "punch the poisoned page out of the guest_memfd; until then every request over it is refused")
    elif success is not None:
        story.add(
            "Do",
            "nothing now. VMM: drop the DMA mapping or other use of the range before it converts, or on EAGAIN drop it and repeat the whole "
            "request; never resume at error_offset (pages before it would stay shared)",
        )
    else:
        story.add(
            "Do", "drop what holds the page (DMA mapping, registered buffer, I/O in flight), then repeat the whole request"
        )
    if not _poisoned(history, first):
        story.missing.append("who held the page: trace iommufd/vfio map and unmap, or read the VMM's log")


def _where(history: History, seen: Scene, vm: Vm | None, first: Conversion, pages: list[int]) -> str:
    place = history.places.get(first.id)
    shown = []
    for index in pages[:4]:
        text = f"idx {index:#x}"
        if place is not None and first.start is not None and vm is not None:
            gfn = index - first.start + place[0]
            text += f" = gfn {gfn:#x}"
            behind = hva_range(seen, history, vm.id, gfn, gfn + 1)
            if behind:
                text += f" (slot {behind[0][0] & 0xFFFF}, hva {behind[0][1]:#x})"
        shown.append(text)
    more = f" and {len(pages) - 4} more" if len(pages) > 4 else ""
    return ", ".join(shown) + more


def _poisoned(history: History, failure: Conversion) -> bool:
    index = None if failure.error_offset is None else failure.error_offset >> 12
    return any(
        entry.gmem == failure.space and entry.index == index is not None and entry.id < failure.last
        for entry in history.memory.messed_up.values()
    )


def _why(history: History, failure: Conversion) -> str:
    """How one knows what held the page: in-place, the kernel tests pins and mappings before it counts references."""
    if _poisoned(history, failure):
        return "the page is poisoned: memory_failure() keeps a reference, so it counts as in use for ever [implied]"
    if failure.references is not None and failure.expected is not None:
        return (
            f"a plain reference: the page had {failure.references} references where {failure.expected} are expected (page cache and the test "
            "itself) [observed]. Pipes, I/O in flight and short GUP users look like this; a DMA pin would not have been counted at all"
        )
    if Capability.REFERENCES in failure.shown and failure.touched:
        tested = "the pages before it were counted, each as expected; this one was not"
        return (
            f"pinned or still mapped: the kernel refused the page before it counted references ({tested}) [implied]. A DMA pin (VFIO, iommufd, "
            "registered buffer) looks like this; a plain reference would show refs=3. Who pinned is not in here"
        )
    return "a pin, a mapping or a plain reference: this record does not show which (the test of references was not traced)"


def _unmapped(history: History, failure: Conversion) -> str:
    host = [row for row in failure.answers if row[ACTOR] == User.HOST]
    guest = [row for row in failure.answers if row[ACTOR] == User.GUEST]
    text = "refusal changed no attribute. "
    text += "It did unmap the host's page tables of the whole request " + ("[observed]" if host else "[implied]")
    entries = [row[VALUE] for row in guest]
    if guest and None not in entries:
        gone = sum(value or 0 for value in entries)
        if gone:
            text += f", and {words.count(gone, 'entry', 'entries')} of the guest's page tables [observed], because the memslot maps this file"
        else:
            text += "; the guest had nothing mapped there [observed]"
    elif guest:
        text += ", and the guest's page tables, because the memslot maps this file [observed]; how many entries is not shown"
    elif Capability.GUEST_UNMAP in failure.shown:
        text += "; the guest's page tables were left alone [observed: no memslot maps this file by its userspace_addr]"
    text += ". Both sides map the pages again on their next access: no issue there. An IOMMU mapping is not touched: DMA goes on, into memory that stayed shared"
    return text


def _mapped_again(history: History, seen: Scene, failure: Conversion) -> str | None:
    """Which accesses have mapped the pages again, as far as faults were traced."""
    parts = []
    start, end = failure.start or 0, failure.end or END
    if failure.space is not None:
        touches = seen.touched(failure, (Access.HOST,), {failure.space}, start, end)
        if touches:
            parts.append(f"host faults from {seconds(touches[0].t)} on")
    owner, place = history.memory.owner(failure.space), history.places.get(failure.id)
    if owner is not None and place is not None:
        touches = seen.touched(failure, GUEST, {owner}, *place)
        if touches:
            pages = sum(min(touch.end, place[1]) - max(touch.start, place[0]) for touch in touches[:1])
            parts.append(f"guest faults from {seconds(touches[0].t)} on ({words.count(pages, 'page')} in the first run)")
    return "mapped again: " + "; ".join(parts) + " [observed]" if parts else None


# --- no memory ------------------------------------------------------------------------------------------------------


def _no_memory(incident: Incident, applied: bool) -> str:
    failures = sum(len(episode.failed) for episode in incident.episodes)
    text = f"The kernel ran out of memory in {words.count(failures, 'conversion')}. Nothing was changed by the failure{'s' * (failures > 1)}"
    if not applied:
        return text + "; the conversion was not repeated with success."
    waits = [wait for episode in incident.episodes if (wait := _wait(episode)) is not None]
    later = f" {duration(max(waits))} later" if waits else ""
    return text + f", and the retry{later} succeeded. Nothing is left over."


def _wait(episode: Episode) -> int | None:
    """From the first failure's return to the retry that did it all."""
    success, failure = episode.last_success, episode.failed[0]
    if success is None or success.asked is None or failure.returned is None:
        return None
    return success.asked - failure.returned


def _explain_no_memory(story: Story, first: Conversion, applied: bool) -> None:
    where = "attribute entries were reserved (xa_reserve)" if first.in_vm else "tree nodes were allocated (mas_preallocate)"
    story.add(
        "Why",
        f"ENOMEM while {where}, which comes before anything is touched: attributes and mappings are as they were"
        + (
            " [observed: no unmap between entry and return]"
            if not first.touched and first.shown & {Capability.ZAP, Capability.GUEST_UNMAP}
            else " [implied]"
        ),
    )
    story.add("Left", "nothing" if applied else "nothing was changed; the guest still has what it had before it asked")
    story.add(
        "Do", "nothing now" if applied else "retry when memory is free again; the request may be split into smaller ranges"
    )
    story.add("Host", "short of kernel memory (or a memory cgroup at its limit); no page is lost")
    at = seconds(first.returned)
    story.missing.append(
        f"why memory ran out: look into dmesg near {at} for 'page allocation failure', a memcg OOM or FAULT_INJECTION"
    )
