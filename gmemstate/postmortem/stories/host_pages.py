"""Stories of host pages that can no longer be trusted, by what made them so: TDX, the RMP, leaks, refused reclaims."""

from collections.abc import Callable

from gmemstate.audit.history.history import History
from gmemstate.decode import tdx_status
from gmemstate.model.events import Cause, details
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE
from gmemstate.model.objects import MessedUp
from gmemstate.model.units import seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.known.patterns import facts as words_of
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.stories.platform import Platform
from gmemstate.postmortem.story import Story

STEPS = ("BLOCK", "TRACK", "REMOVE", "WBINVD")
"""What taking one private page from a TD is made of (tdx_sept_remove_leaf_spte)."""
NEXT_TIME = "the gfn: next time tools/capture trace --pages --pid PID-OF-THE-VMM"


def distrusted(history: History, seen: Scene, incident: Incident) -> Story:
    """Host pages that a failed unmap, assignment, leak or reclaim has left in doubt."""
    story = _TELLERS[incident.entries[0].cause](history, incident)
    first = incident.entries[0]
    story.evidence += words.evidence(
        history, [history.marks[entry.id] for entry in incident.entries if entry.id in history.marks]
    )
    story.add("Reuse", first.reuse_risk)
    if first.cause not in (Cause.SEPT_STILL_MAPS, Cause.UNUSABLE_PRIVATE) and any(
        entry.pfn is None for entry in incident.entries
    ):
        story.missing.append("which host page it is: no line names a pfn")
    return story


def page(entry: MessedUp) -> str:
    """A messed-up page as a person reads it."""
    if entry.pfn is None:
        where = (
            f"gfn {entry.gfn:#x}" if entry.gfn is not None else f"idx {entry.index:#x}" if entry.index is not None else "page"
        )
        return f"{where}, pfn not known"
    end = f"..{entry.pfn + entry.count - 1:#x}" if entry.count not in (None, 1) else ""
    gfn = f", gfn {entry.gfn:#x}" if entry.gfn is not None else ""
    return f"pfn {entry.pfn:#x}{end}{gfn}"


def _who(history: History, incident: Incident) -> str:
    facts = details(incident.entries[0].detail)
    if incident.vm is not None:
        return words.guest(history, incident.vm)
    if facts.get("thread") is not None:
        return f"the VM of thread {facts['thread']} ({facts.get('comm', '?')}); the kernel log has no VM name or id"
    return "which VM: not in the log"


def _pages(entries: list[MessedUp]) -> int:
    return sum(entry.count or 1 for entry in entries)


def _timeline(entries: list[MessedUp]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for entry in entries:
        facts = details(entry.detail)
        what = facts.get("leaf") or facts.get("what") or entry.cause.name.lower().replace("_", " ")
        result = str(facts.get("name") or facts.get("code") or facts.get("error") or "")
        when = seconds(entry.since) if entry.since is not None else str(facts.get("at", ""))
        rows.append(("", when, f"{what}: {page(entry)}", result, ""))
    return words.some(rows)


def _still_mapped(history: History, incident: Incident) -> Story:
    """A private page could not be taken out of a TD's secure page table: KVM marks the VM as bugged and tells nobody."""
    entries = incident.entries
    count = _pages(entries)
    facts = details(entries[0].detail)
    step = str(facts.get("leaf", "")).rsplit(".", 1)[-1]
    story = Story(
        "kernel or module",
        "host suspect, VM dead",
        _who(history, incident),
        f"{_HAPPENED.get(step, _HAPPENED['REMOVE'])}: a bug of kernel or TDX module, not an error of the guest. KVM marked the VM as bugged. "
        f"At least {words.count(count, 'host page')} {_LEFT.get(step, _LEFT['REMOVE'])}.",
    )
    story.timeline = _timeline(entries)
    story.add("Step", _step(facts))
    story.add("Status", _status(facts))
    path = facts.get("path")
    story.add(
        "During", f"{path} ({facts.get('function')}): {_DURING.get(str(path), 'no conversion that is known')}" if path else None
    )
    if not path:
        story.missing.append("what was under way: the stack of the warning: dmesg | grep -B40 SEAMCALL")
    known = [entry for entry in entries if entry.pfn is not None]
    story.add("Page", ", ".join(page(entry) for entry in known) + " [implied: entry bits 51:12, leaf level]" if known else None)
    story.add(
        "Number",
        f"at least {count}. Only the first failure of a VM is printed; later ones of that VM are silent, and the warning appears once in a boot",
    )
    story.add(
        "Told",
        (
            "the ioctl returned 0 and the attribute says shared"
            if path == "attributes ioctl"
            else "nobody: the call that freed the page succeeded"
        )
        + " [implied: guest_memfd and the VMM are not informed]; every later KVM ioctl of this VM returns "
        'EIO ("kvm run failed Input/output error" in QEMU)',
    )
    story.add("Memory", _MEMORY.get(step, _MEMORY["REMOVE"]))
    story.add("Guest", "lost; its private memory cannot be recovered")
    story.add(
        "Do",
        "1 drain this host, start no TD on it. 2 save dmesg, the VMM's log and the version of the TDX module. 3 stop this VM. 4 reboot: that alone clears "
        "the page",
    )
    story.add(
        "Expect",
        "TDH_PHYMEM_PAGE_RECLAIM 0xc000040000000000 when the VM is torn down (the TD still owns pages): the second witness of this incident",
    )
    if any(entry.gfn is None for entry in entries):
        story.missing.append(NEXT_TIME)
    if not known:
        story.missing.append(f"the pfn: {_NO_PAGE[facts.get('reported', 'yes') if 'entry' in facts else 'none']}")
    story.complete = False
    return story


_NO_PAGE = {
    "none": "this step, or this kernel, prints no entry",
    "no": "with this status the module reports no entry; the numbers that are printed name no page",
    "yes": "the entry that is printed is no leaf and names no page",
}
"""Why no host page is known, by whether an entry was reported."""

_HAPPENED = {
    "BLOCK": "A private page could not be blocked in a TD's secure page table, so it was not taken out",
    "TRACK": "A TD's vCPUs could not be made to forget a private page that was taken from it",
    "REMOVE": "A private page could not be taken out of a TD's secure page table",
    "WBINVD": "A private page was taken out of a TD's secure page table, and its cache lines could not be written back",
}
_LEFT = {
    "BLOCK": "is still mapped by the dead TD",
    "TRACK": "may still be reached by the dead TD through old translations; whether it was removed behind that is not printed",
    "REMOVE": "may still be mapped by the dead TD",
    "WBINVD": "may be overwritten by old cache lines of the dead TD",
}
_MEMORY = {
    "WBINVD": "the page is not mapped any more, and not pinned, flagged or poisoned: it goes back to the free list. Until the caches have been flushed, "
    "lines with the TD's key may be written over what its next owner wrote",
    "REMOVE": "the page is not pinned, flagged or poisoned: it goes back to the free list on hole punch or when the guest_memfd closes. Ordinary use then "
    "works while the TD is never entered again; a new TD that gets it fails with TDX_PAGE_METADATA_INCORRECT (0xc0000300...)",
}
_DURING = {
    "attributes ioctl": "a conversion; direction to shared [implied: a zap of private entries]",
    "fallocate": "a hole punch, no conversion",
    "release": "the guest_memfd was closed, no conversion",
    "error_folio": "a memory error of the page, no conversion",
    "memslot": "a memslot was deleted or moved, no conversion",
    "destroy": "the VM was torn down, no conversion",
    "free": "the page was freed, no conversion",
}
"""What a way into the kernel means for a zap of private entries."""


def _step(facts: dict[str, object]) -> str | None:
    name = str(facts.get("leaf", "")).rsplit(".", 1)[-1]
    if name not in STEPS:
        return None
    n = STEPS.index(name)
    before = ", ".join(f"{step} ok" for step in STEPS[:n])
    after = f", {STEPS[n + 1]} not reached" if n + 1 < len(STEPS) and name != "TRACK" else ""
    implied = " [implied: a failure would have been printed first]" if before else ""
    return f"{n + 1} of {len(STEPS)} for each page: {before}{implied}{', ' if before else ''}{name} failed{after}"


def _status(facts: dict[str, object]) -> str | None:
    word = facts.get("status")
    if not isinstance(word, str):
        return None
    status = tdx_status(int(word, 16))
    parts = [f"{word} {status.name or 'unknown'}"]
    if status.operand:
        parts.append(f"operand {status.operand}")
    parts.append(str(status.outcome))
    if facts.get("reported") == "no":
        parts.append("the entry is not reported with this status")
    elif "level" in facts:
        parts.append(f"secure EPT entry: level {facts['level']}, state {facts.get('state')}")
        if str(facts.get("leaf")).endswith("REMOVE") and "BLOCKED" not in str(facts.get("state")):
            parts.append("which is not the blocked state that REMOVE requires")
    return ", ".join(parts)


def _rmp(facts: dict[str, object]) -> str:
    code = f", returned {facts['ret']} = {facts['code']}" if facts.get("code") else ""
    level = {1: "4K", 2: "2M"}.get(facts.get("level"), "") if isinstance(facts.get("level"), int) else ""  # type: ignore[call-overload]
    return f"RMPUPDATE{f' level {level}' if level else ''}{code}; its caller saw EFAULT"


def _refused(history: History, incident: Incident) -> Story:
    """The host could not make a page private: nothing is lost, the guest that is given the page fails."""
    if "leaf" in details(incident.entries[0].detail):
        return _refused_by_module(history, incident)
    entries = incident.entries
    facts = details(entries[0].detail)
    story = Story(
        "host platform",
        "page refused by the RMP",
        _who(history, incident),
        f"The platform refused to make {words.count(_pages(entries), 'host page')} the guest's. No memory is lost or exposed; "
        "any guest that is given such a page fails.",
    )
    story.timeline = _timeline(entries)
    story.add("What", _rmp(facts))
    basis = (
        " [implied: the page was unassigned, and guest_memfd never gives back what is not assigned]"
        if facts.get("basis") == "implied"
        else ""
    )
    story.add("Way", f"to private{basis}")
    story.add("Page", f"{page(entries[0])}: {facts['owner']}" if facts.get("owner") else None)
    row = history.marks.get(entries[0].id)
    story.add("Place", Platform.of(history).place(words_of(row)).get("place") if row is not None else None)
    near = facts.get("near")
    if isinstance(near, list) and near:
        returned = "; ".join(f"{first}-{behind} {owner}" for first, behind, owner in near[:3])
        story.add("Near", f"in its 2M region: {returned}")
    story.add(
        "Then",
        'a guest that touched it got KVM_RUN = EINVAL or EFAULT; QEMU says "kvm run failed" with a register dump of no use [implied]. The attribute '
        "stays private, nothing is rolled back; a retry hits the same page while it stays in that guest_memfd",
    )
    fixed = facts.get("code") == "FAIL_PERMISSION"
    story.add(
        "Host",
        "safe to keep running; not leaked, not suspect."
        + (" A reboot does not help: the same pages are refused until the cause is mended" if fixed else ""),
    )
    keep = (
        f"memmap=2M${entries[0].pfn << PAGE_SHIFT & -(2 << 20):#x} on the host"
        if entries[0].pfn is not None
        else "memmap= on the host"
    )
    story.add(
        "Do",
        f"1 restart the guest (it may get other pages). 2 install a kernel with the fix, where one is known, or keep the region out of use ({keep})"
        if fixed
        else "restart the guest (it may get other pages)",
    )
    if entries[0].gfn is None:
        story.missing.append('gfn and pfn at once: dmesg | grep "Failed to update RMP entry: GFN"')
    if entries[0].pfn is None:
        story.missing.append("which host page it is: the first line of the failure: dmesg | grep 'RMPUPDATE failed'")
    if "path" not in facts:
        story.missing.append(
            "whether it was to be a guest's or the firmware's page: the stack behind the dump: dmesg | grep -A600 'RMPUPDATE failed'"
        )
    if facts.get("code") == "FAIL_PERMISSION":
        story.missing.append(
            "whether the page lies at the edge of the RMP table: dmesg | grep -e 'RMP table' -e 'Reserving start/end' -e 'usable ==> reserved' -e BIOS-e820"
        )
    story.complete = not story.missing
    return story


def _refused_by_module(history: History, incident: Incident) -> Story:
    """The TDX module did not take a page, or a table, into a TD: KVM ends the VM, the page stays the host's."""
    entries = incident.entries
    facts = details(entries[0].detail)
    owned = facts.get("name") == "TDX_PAGE_METADATA_INCORRECT"
    story = Story(
        "kernel or module" if owned else "unknown",
        "page refused by the TDX module",
        _who(history, incident),
        f"The TDX module refused {words.count(_pages(entries), 'page')} that KVM gave to a TD ({facts.get('leaf')}). No memory is lost or exposed; KVM "
        "marks the VM as bugged.",
    )
    story.timeline = _timeline(entries)
    story.add("What", _status(facts))
    story.add("During", f"{facts['path']} ({facts.get('function')})" if facts.get("path") else None)
    if owned:
        unmapped = any(entry.cause is Cause.SEPT_STILL_MAPS for entry in history.memory.messed_up.values())
        story.add(
            "Means",
            "in the module's table of owners (PAMT) the page is not free: most likely it still belongs to a TD that it was never taken from. That is how an earlier private unmap that failed "
            "comes to light" + ("; one is in this record [nothing ties the two lines]" if unmapped else ""),
        )
    story.add(
        "Then",
        "the fault returns EIO, and so does every later ioctl of the VM; a status that is transient is tried again and not printed [implied]",
    )
    story.add(
        "Host",
        "suspect: the page goes back to the allocator, and every TD that is given it fails; ordinary use of it probably works until a reboot clears it"
        if owned
        else "safe to keep running; the page is an ordinary one",
    )
    story.add(
        "Do",
        "save the log and the version of the module; restart the guest"
        + ("; reboot before the next TD is started" if owned else ""),
    )
    story.missing.append("the page: the line names none; trace kvm_mmu_set_spte and a probe on tdh_mem_page_aug")
    if owned:
        story.missing.append("the unmap that failed: earlier lines of this boot: journalctl -k -b | grep SEAMCALL")
    story.complete = False
    return story


def _kept_by_rmp(history: History, incident: Incident) -> Story:
    """A page could not be taken back from an SNP guest: it is freed all the same, and the RMP still gives it to the guest."""
    entries = incident.entries
    story = Story(
        "kernel or module",
        "page still the guest's in the RMP",
        _who(history, incident),
        f"{words.count(_pages(entries), 'host page')} could not be taken back from an SNP guest and went to the allocator all the same. "
        "The first write of the host to it takes an RMP fault.",
    )
    story.timeline = _timeline(entries)
    story.add("What", _rmp(details(entries[0].detail)))
    story.add("Told", "nobody: sev_gmem_invalidate() returns nothing; the ioctl or the punch succeeded [implied]")
    story.add("Do", "start nothing on this host; reboot it: that alone clears the page")
    return story


def _leaked(history: History, incident: Incident) -> Story:
    """The kernel gave pages up for good: lost, but nobody is given them."""
    entries = incident.entries
    count = _pages(entries)
    story = Story(
        "host platform",
        "memory leaked by the kernel",
        _who(history, incident),
        f"The kernel gave up {words.count(count, 'host page')} ({count * PAGE_SIZE >> 10} KiB): their state in the RMP is not known, so nobody is given them. Lost, but safe.",
    )
    story.timeline = _timeline(entries)
    story.add("Number", f"at least {count}: each range is printed once, when it is given up; there is no counter to read")
    story.add("Do", "look for the failure right before it (firmware, RMPUPDATE); a reboot gives the memory back")
    return story


def _unreclaimed(history: History, incident: Incident) -> Story:
    """A page of a guest's own structures could not be taken back when it ended."""
    entries = incident.entries
    facts = details(entries[0].detail)
    story = Story(
        "kernel or module",
        "page not reclaimed",
        _who(history, incident),
        f"{words.count(len(entries), 'reclaim')} of pages failed when a guest was torn down. The kernel keeps the pages: lost until the next boot, "
        "but nobody is given them.",
    )
    story.timeline = _timeline(entries)
    story.add("Status", _status(facts))
    lost = sum(lost or 0 for source in history.sources.values() for _, lost in source.gaps)
    more = f"{lost} lines of this record are suppressed or lost" if lost else "more may be suppressed by the rate limit"
    story.add("Number", f"at least {len(entries)}, one for each line; {more}")
    still = any(entry.cause is Cause.SEPT_STILL_MAPS for entry in history.memory.messed_up.values())
    story.add(
        "Also",
        "a failed private unmap is in the same record: the TD still owned that page [nothing ties the two lines]"
        if still
        else None,
    )
    story.add("Do", "count the lines of this boot: dmesg | grep -c RECLAIM; a reboot gives the memory back")
    return story


def _stale(history: History, incident: Incident) -> Story:
    story = Story(
        "VMM",
        "device still reaches converted memory",
        _who(history, incident),
        f"A device still reaches {words.count(_pages(incident.entries), 'host page')} that is no longer shared.",
    )
    story.timeline = _timeline(incident.entries)
    story.add("Do", "unmap the pages from the device before they are converted; reset the device")
    return story


_TELLERS: dict[Cause, Callable[[History, Incident], Story]] = {
    Cause.SEPT_STILL_MAPS: _still_mapped,
    Cause.UNUSABLE_PRIVATE: _refused,
    Cause.RMP_STILL_GUEST: _kept_by_rmp,
    Cause.LEAKED_BY_KERNEL: _leaked,
    Cause.RECLAIM_REFUSED: _unreclaimed,
    Cause.STALE_DMA: _stale,
}
