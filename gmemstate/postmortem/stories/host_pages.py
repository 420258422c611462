"""Host pages that can no longer be trusted, by what made them so: private unmaps, the RMP, leaks, refused reclaims, devices."""

from collections.abc import Mapping

from gmemstate.audit.history.history import History
from gmemstate.model.events import Cause
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE, PAGES_2M
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story
from gmemstate.postmortem.reports import detail_words
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.stories import tdx_pages
from gmemstate.postmortem.stories.messed_up import number, page, timeline, who
from gmemstate.text import count


def suspect(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Host pages that a failed unmap, assignment, leak or reclaim has left in doubt."""
    entries = incident.entries
    cause = entries[0].cause
    story = _STORIES[cause](history, seen, incident)
    marks = seen.reports.marks
    story.evidence += words.evidence(history, [marks[entry.id] for entry in entries if entry.id in marks])
    story.add("Reuse", entries[0].reuse_risk)
    if cause not in (Cause.SEPT_STILL_MAPS, Cause.UNUSABLE_PRIVATE) and any(entry.pfn is None for entry in entries):
        story.missing.append("which host page it is: no line names a pfn")
    return story


def _unusable(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    by_module = "leaf" in detail_words(incident.entries[0].detail)
    return (tdx_pages.refused_by_module if by_module else _refused_by_rmp)(history, seen, incident)


def _refused_by_rmp(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """The host could not make a page private (rmp_make_private): nothing is lost, the guest that is given the page fails."""
    entries = incident.entries
    first = entries[0]
    facts = detail_words(first.detail)
    mark = seen.reports.marks.get(first.id)
    permanent = facts.get("code") == "FAIL_PERMISSION"
    story = Story(
        Blame.HOST,
        "page refused by the RMP",
        who(incident),
        f"The platform refused to make {count(number(entries), 'host page')} the guest's. No memory is lost or exposed; "
        "any guest that is given such a page fails.",
    )
    story.timeline = timeline(entries)
    story.add("What", _rmp(facts))
    basis = " [implied: the page was unassigned, and guest_memfd never gives back what is not assigned]"
    story.add("Way", "to private" + (basis if facts.get("basis") == "implied" else ""))
    story.add("Page", f"{page(first)}: {facts['owner']}" if "owner" in facts else None)
    story.add("Place", None if mark is None else mark.words.get("place"))
    if "near" in facts:
        story.add("Near", f"in its 2M region: {'; '.join(facts['near'].split('; ')[:3])}")
    story.add(
        "Then",
        'a guest that accessed it got KVM_RUN = EINVAL or EFAULT; QEMU prints "kvm run failed" with a register dump of no use [implied]. '
        "The attribute stays private, nothing is rolled back; a retry hits the same page while it stays in that guest_memfd",
    )
    after_reboot = " A reboot does not help: the same pages are refused until the cause is mended" if permanent else ""
    story.add("Host", f"safe to keep running; not leaked, not suspect.{after_reboot}")
    region = "" if first.pfn is None else f"2M${(first.pfn & -PAGES_2M) << PAGE_SHIFT:#x}"
    story.add(
        "Do",
        "1 restart the guest (it may get other pages). 2 install a kernel with the fix, where one is known, or keep the region out of "
        f"use (memmap={region} on the host)"
        if permanent
        else "restart the guest (it may get other pages)",
    )
    if first.gfn is None:
        story.missing.append('gfn and pfn at once: dmesg | grep "Failed to update RMP entry: GFN"')
    if first.pfn is None:
        story.missing.append("which host page it is: the first line of the failure: dmesg | grep 'RMPUPDATE failed'")
    if "path" not in facts:
        story.missing.append(
            "whether it was to be a guest's or the firmware's page: the stack after the dump: dmesg | grep -A600 'RMPUPDATE failed'"
        )
    if permanent:
        story.missing.append(
            "whether the page lies at the edge of the RMP table: dmesg | grep -e 'RMP table' -e 'Reserving start/end' "
            "-e 'usable ==> reserved' -e BIOS-e820"
        )
    story.complete = not story.missing
    return story


def _rmp(facts: Mapping[str, str]) -> str:
    """An RMPUPDATE that failed: its level and result."""
    code = f", returned {facts['ret']} = {facts['code']}" if "code" in facts else ""
    level = {"1": " level 4K", "2": " level 2M"}.get(facts.get("level", ""), "")
    return f"RMPUPDATE{level}{code}; its caller saw EFAULT"


def _kept_by_rmp(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A page could not be taken back from an SNP guest (sev_gmem_invalidate): it is freed, and the RMP still gives it to the guest."""
    entries = incident.entries
    story = Story(
        Blame.KERNEL,
        "page still the guest's in the RMP",
        who(incident),
        f"{count(number(entries), 'host page')} could not be taken back from an SNP guest and went to the allocator all the same. "
        "The first write of the host to it takes an RMP fault.",
    )
    story.timeline = timeline(entries)
    story.add("What", _rmp(detail_words(entries[0].detail)))
    story.add("Result", "the ioctl or the punch succeeded: sev_gmem_invalidate() returns nothing [implied]")
    story.add("Do", "start nothing on this host; reboot it: that alone clears the page")
    return story


def _leaked(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """The kernel gave pages up for good (snp_leak_pages): lost, but nobody is given them."""
    pages = number(incident.entries)
    story = Story(
        Blame.HOST,
        "memory leaked by the kernel",
        who(incident),
        f"The kernel gave up {count(pages, 'host page')} ({pages * PAGE_SIZE >> 10} KiB): their state in the RMP is not known, so nobody "
        "is given them. Lost, but safe.",
    )
    story.timeline = timeline(incident.entries)
    story.add("Number", f"at least {pages}: each range is printed once, when it is given up; there is no counter to read")
    story.add("Do", "look for the failure right before it (firmware, RMPUPDATE); a reboot gives the memory back")
    return story


def _unreclaimed(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A page of a guest's own structures could not be taken back when it ended (tdx_reclaim_page, snp_page_reclaim)."""
    entries = incident.entries
    story = Story(
        Blame.KERNEL,
        "page not reclaimed",
        who(incident),
        f"{count(len(entries), 'reclaim')} of pages failed when a guest was torn down. The kernel keeps the pages: lost until the next "
        "boot, but nobody is given them.",
    )
    story.timeline = timeline(entries)
    story.add("Status", tdx_pages.status(detail_words(entries[0].detail)))
    lost = sum(lost or 0 for source in history.sources.values() for _, lost in source.gaps)
    more = f"{lost} lines of this record are suppressed or lost" if lost else "more may be suppressed by the rate limit"
    story.add("Number", f"at least {len(entries)}, one for each line; {more}")
    if any(entry.cause is Cause.SEPT_STILL_MAPS for entry in history.memory.messed_up.values()):
        story.add(
            "Also", "a failed private unmap is in the same record: the TD still owned that page [nothing ties the two lines]"
        )
    story.add("Do", "count the lines of this boot: dmesg | grep -c RECLAIM; a reboot gives the memory back")
    return story


def _stale(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A device's mapping was not removed when its pages became private."""
    story = Story(
        Blame.VMM,
        "device still reaches converted memory",
        who(incident),
        f"A device still reaches {count(number(incident.entries), 'host page')} that is no longer shared.",
    )
    story.timeline = timeline(incident.entries)
    story.add("Do", "unmap the pages from the device before they are converted; reset the device")
    return story


_STORIES = {
    Cause.SEPT_STILL_MAPS: tdx_pages.still_mapped,
    Cause.UNUSABLE_PRIVATE: _unusable,
    Cause.RMP_STILL_GUEST: _kept_by_rmp,
    Cause.LEAKED_BY_KERNEL: _leaked,
    Cause.RECLAIM_REFUSED: _unreclaimed,
    Cause.STALE_DMA: _stale,
}
