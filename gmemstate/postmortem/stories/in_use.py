"""EAGAIN: a conversion of a guest_memfd to private was refused, as a page of it was in use."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import Access, Capability, User
from gmemstate.model.objects import Conversion, slot_number
from gmemstate.model.units import END, PageIndex
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import Episode, IncidentEvents
from gmemstate.postmortem.incident import Blame, Story
from gmemstate.postmortem.scene import GUEST_ACCESS, PagesGone, Scene
from gmemstate.text import count


def summary(history: History, seen: Scene, incident: IncidentEvents, applied: bool) -> str:
    """What was in use, how often it was refused, and what ended it; ``applied`` if the retry succeeded."""
    failures = sum(len(episode.failed) for episode in incident.episodes)
    first = incident.episodes[0].failed[0]
    size = first.npages or 0
    refused = f"{count(failures, 'request')} for private {'was' if failures == 1 else 'were'} refused with EAGAIN"
    held = f"at least one page of {size} was in use" if size > 1 else "the page was in use"
    nobody = "No fault of kernel, host or guest."
    freed = "was released" if _punch(seen, incident.episodes[0]) is None else "was punched out of the file"
    repeated = f"the next request converted all {size} pages" if size > 1 else "the next request converted it"
    if _poisoned(history, first):
        end = f"After it {freed} {repeated}." if applied else "Nothing was converted."
        return f"A poisoned page keeps a reference, so it counts as in use: {refused}. {end}"
    if len(incident.episodes) > 1:
        most = max(len(episode.failed) for episode in incident.episodes)
        end = (
            f"each time it was repeated with success, after at most {count(most, 'refusal')}: the references were short-lived"
            if applied
            else "none was repeated before the other kind was asked for"
        )
        return f"{len(incident.episodes)} times {held}: {refused}; {end}. No refusal changed an attribute. {nobody}"
    if applied:
        return f"VMM held a page: {held}, so {refused}; after it {freed} {repeated}. {nobody} Nothing is left over."
    return f"VMM held a page: {held}, so {refused}. Nothing was converted; the pages are as they were. {nobody}"


def _punch(seen: Scene, episode: Episode) -> PagesGone | None:
    """The punch that took the page in use out of the file, between its last refusal and the success."""
    failure, success = episode.failed[-1], episode.last_success
    return None if success is None else seen.punch(failure.owner, failure.error_page, failure.last, success.id)


def explain(story: Story, history: History, seen: Scene, incident: IncidentEvents) -> None:
    """Add which page it was, how one knows what held it, what a refusal leaves, what followed, and what to do."""
    failures = [conversion for episode in incident.episodes for conversion in episode.failed]
    first = failures[0]
    pages = list(dict.fromkeys(c.error_page for c in failures if c.error_page is not None))
    poisoned = _poisoned(history, first)
    if pages:
        story.add("Where", _where(seen, first, pages))
    if poisoned:
        story.blame = Blame.HOST
    story.add("Why", _why(history, first))
    story.add("Each", unmapped(first))
    story.add("After", _mapped_again(history, seen, first))
    success, punch = incident.episodes[0].last_success, _punch(seen, incident.episodes[0])
    if punch is not None:
        story.add(
            "Punch",
            f"the page left the file{words.at(punch.t)} (its contents are gone from there); its holder may hold it still",
        )
    if success is not None:
        story.add(
            "Then",
            f"the retry{words.at(success.asked)} succeeded: {words.where(success)} is "
            f"{success.target}{words.at(success.returned, 'since')}",
        )
    if pages and not first.in_vm:
        story.add(
            "Mind",
            f"error_offset {words.bytes_of(pages[0])} names the first page in use; it is no progress: nothing below it was "
            "converted by that request",
        )
    story.add("Do", _advice(poisoned=poisoned, applied=success is not None))
    if not poisoned:
        story.missing.append(words.WHO_HELD)


def _advice(*, poisoned: bool, applied: bool) -> str:
    if poisoned:
        return (
            "nothing now. VMM: punch a poisoned page out before it converts over it"
            if applied
            else "punch the poisoned page out of the guest_memfd; until then every request over it is refused"
        )
    if applied:
        return (
            "nothing now. VMM: drop the DMA mapping or other use of the range before it converts, or on EAGAIN drop it and "
            "repeat the whole request; never resume at error_offset (pages before it would stay shared)"
        )
    return "drop what holds the page (DMA mapping, registered buffer, I/O in flight), then repeat the whole request"


def _where(seen: Scene, first: Conversion, pages: list[int]) -> str:
    shown = []
    for index in pages[:4]:
        text = f"idx {index:#x}"
        for vm, slot in seen.slots.get(first.id, []):
            gfn = slot.gfn_at(PageIndex(index))
            if gfn is not None:
                memory = seen.hva_ranges(vm, gfn, gfn + 1)
                hva = f", hva {memory[0].hva:#x}" if memory else ""
                text += f" = gfn {gfn:#x} (slot {slot_number(slot.id)}{hva})"
        shown.append(text)
    more = f" and {len(pages) - 4} more" if len(pages) > 4 else ""
    return ", ".join(shown) + more


def _poisoned(history: History, failure: Conversion) -> bool:
    return any(
        entry.gmem == failure.owner and entry.index == failure.error_page is not None and entry.id < failure.last
        for entry in history.memory.messed_up.values()
    )


def _why(history: History, failure: Conversion) -> str:
    """How one knows what held the page: in-place, the kernel tests pins and mappings before it counts references."""
    if _poisoned(history, failure):
        return "the page is poisoned: memory_failure() keeps a reference, so it counts as in use for ever [implied]"
    if failure.references is not None and failure.expected is not None:
        return (
            f"a plain reference: the page had {failure.references} references where {failure.expected} are expected (page "
            "cache and the test itself) [observed]. Pipes, I/O in flight and short GUP users look like this; a DMA pin would "
            "not have been counted at all"
        )
    if Capability.REFERENCES in failure.shown and failure.covered:
        tested = (
            "no page was counted"
            if failure.error_page == failure.start is not None
            else "the pages before it were counted, each as expected; this one was not"
        )
        return (
            f"pinned or still mapped: the kernel refused the page before it counted references ({tested}) [implied]. A DMA pin "
            "(VFIO, iommufd, registered buffer) looks like this; a plain reference would show refs=3. Who pinned is not in "
            "here"
        )
    return "a pin, a mapping or a plain reference: this record does not show which (the test of references was not traced)"


def unmapped(failure: Conversion) -> str:
    """What a refusal has left unmapped, and why that is no issue."""
    answers = words.answers(failure)
    host = [answer for answer in answers if answer.user is User.HOST]
    entries = [answer.entries for answer in answers if answer.user is User.GUEST]
    text = "refusal changed no attribute. "
    text += "It did unmap the host's page tables of the whole request " + ("[observed]" if host else "[implied]")
    if entries and None not in entries:
        gone = sum(value or 0 for value in entries)
        if gone:
            entry = count(gone, "entry", "entries")
            text += f", and {entry} of the guest's page tables [observed], because the memslot maps this file"
        else:
            text += "; the guest had nothing mapped there [observed]"
    elif entries:
        text += ", and the guest's page tables, because the memslot maps this file [observed]; how many entries is not shown"
    elif Capability.GUEST_UNMAP in failure.shown:
        text += "; the guest's page tables were left alone [observed: no memslot maps this file by its userspace_addr]"
    return (
        f"{text}. Both sides map the pages again on their next access: no issue there. An IOMMU mapping is not changed: DMA "
        "goes on, into memory that stayed shared"
    )


def _mapped_again(history: History, seen: Scene, failure: Conversion) -> str | None:
    """Which accesses have mapped the pages again, as far as faults were traced."""
    parts = []
    accesses = seen.accesses(failure, (Access.HOST,), failure.owner, (failure.start or 0, failure.end or END))
    if accesses:
        parts.append(f"host faults{words.on(accesses[0].t)}")
    place = history.places.get(failure.id)
    accesses = seen.accesses(failure, GUEST_ACCESS, history.memory.guest_id(failure.owner), place)
    if accesses and place is not None:
        pages = min(accesses[0].end, place[1]) - max(accesses[0].start, place[0])
        parts.append(f"guest faults{words.on(accesses[0].t)} ({count(pages, 'page')} in the first run)")
    return "mapped again: " + "; ".join(parts) + " [observed]" if parts else None
