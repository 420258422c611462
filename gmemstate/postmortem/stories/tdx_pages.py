"""Private pages that could not be taken back from a TD, and the status of a SEAMCALL (arch/x86/kvm/vmx/tdx.c)."""

from collections.abc import Mapping

from gmemstate.decode import tdx_status
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story
from gmemstate.postmortem.reports import detail_words
from gmemstate.postmortem.stories.messed_up import number, page, timeline, who
from gmemstate.text import count

STEPS = ("BLOCK", "TRACK", "REMOVE", "WBINVD")
"""What taking one private page from a TD is made of (tdx_sept_remove_leaf_spte)."""
NEXT_TIME = "the gfn: next time tools/capture trace --pages --pid PID-OF-THE-VMM"


def still_mapped(incident: IncidentEvents) -> Story:
    """A private page could not be taken out of a TD's secure page table: KVM marks the VM as bugged and informs nobody."""
    entries = incident.entries
    pages = number(entries)
    facts = detail_words(entries[0].detail)
    step = facts.get("leaf", "").rsplit(".", 1)[-1]
    path = facts.get("path")
    story = Story(
        Blame.KERNEL,
        "host suspect, VM dead",
        who(incident),
        f"{_HAPPENED.get(step, _HAPPENED['REMOVE'])}: a bug of kernel or TDX module, not an error of the guest. KVM marked the "
        "VM as "
        f"bugged. At least {count(pages, 'host page')} {_LEFT.get(step, _LEFT['REMOVE'])}.",
        complete=False,
    )
    story.timeline = timeline(entries)
    story.add("Step", _step(step))
    story.add("Status", status(facts))
    if path is not None:
        story.add("During", f"{path} ({facts.get('function')}): {_DURING.get(path, 'no conversion that is known')}")
    else:
        story.missing.append("what was under way: the stack of the warning: dmesg | grep -B40 SEAMCALL")
    known = [entry for entry in entries if entry.pfn is not None]
    story.add("Page", ", ".join(page(entry) for entry in known) + " [implied: entry bits 51:12, leaf level]" if known else None)
    story.add(
        "Number",
        f"at least {pages}. Only the first failure of a VM is printed; later ones of that VM are silent, and the warning "
        "appears once "
        "in a boot",
    )
    story.add("Result", _RESULT if path == "attributes ioctl" else _RESULT_OF_OTHERS)
    story.add("Memory", _MEMORY.get(step, _MEMORY["REMOVE"]))
    story.add("Guest", "lost; its private memory cannot be recovered")
    story.add(
        "Do",
        "1 drain this host, start no TD on it. 2 save dmesg, the VMM's log and the version of the TDX module. 3 stop this VM. "
        "4 reboot: "
        "that alone clears the page",
    )
    story.add(
        "Expect",
        "TDH_PHYMEM_PAGE_RECLAIM 0xc000040000000000 when the VM is torn down (the TD still owns pages): it corroborates this "
        "incident",
    )
    if any(entry.gfn is None for entry in entries):
        story.missing.append(NEXT_TIME)
    if not known:
        story.missing.append(f"the pfn: {_NO_PAGE[facts.get('reported', 'yes') if 'entry' in facts else 'none']}")
    return story


_NO_PAGE = {
    "none": "this step, or this kernel, prints no entry",
    "no": "with this status the module reports no entry; the numbers that are printed name no page",
    "yes": "the entry that is printed is no leaf and names no page",
}
"""Why no host page is known, by whether an entry was reported."""

_HAPPENED = {
    "BLOCK": "A private page could not be blocked in a TD's secure page table, so it was not taken out",
    "TRACK": "The vCPUs of a TD could not be made to drop their translations of a private page that was taken from it",
    "REMOVE": "A private page could not be taken out of a TD's secure page table",
    "WBINVD": "A private page was taken out of a TD's secure page table, and its cache lines could not be written back",
}
_LEFT = {
    "BLOCK": "is still mapped by the dead TD",
    "TRACK": "may still be reached by the dead TD through old translations; whether it was removed after that is not printed",
    "REMOVE": "may still be mapped by the dead TD",
    "WBINVD": "may be overwritten by old cache lines of the dead TD",
}
_MEMORY = {
    "WBINVD": "the page is not mapped any more, and not pinned, flagged or poisoned: it goes back to the free list. Until the "
    "caches "
    "have been flushed, lines with the TD's key may be written over what its next owner wrote",
    "REMOVE": "the page is not pinned, flagged or poisoned: it goes back to the free list on hole punch or when the "
    "guest_memfd closes. "
    "Ordinary use then works while the TD is never entered again; a new TD that gets it fails with TDX_PAGE_METADATA_INCORRECT "
    "(0xc0000300...)",
}
_INFORMED = (
    " [implied: guest_memfd and the VMM are not informed]; every later KVM ioctl of this VM returns "
    'EIO ("kvm run failed Input/output error" in QEMU)'
)
_RESULT = "the ioctl returned 0 and the attribute says shared" + _INFORMED
_RESULT_OF_OTHERS = "the call that freed the page succeeded" + _INFORMED
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


def _step(name: str) -> str | None:
    if name not in STEPS:
        return None
    n = STEPS.index(name)
    before = ", ".join(f"{step} ok" for step in STEPS[:n])
    after = f", {STEPS[n + 1]} not reached" if n + 1 < len(STEPS) and name != "TRACK" else ""
    implied = " [implied: a failure would have been printed first]" if before else ""
    return f"{n + 1} of {len(STEPS)} for each page: {before}{implied}{', ' if before else ''}{name} failed{after}"


def status(facts: Mapping[str, str]) -> str | None:
    """The status of a SEAMCALL by its name, and what the module reports of the secure EPT entry."""
    word = facts.get("status", "")
    if not word.startswith("0x"):
        return None
    known = tdx_status(int(word, 16))
    parts = [f"{word} {known.name or 'unknown'}"]
    if known.operand:
        parts.append(f"operand {known.operand}")
    parts.append(str(known.outcome))
    if facts.get("reported") == "no":
        parts.append("the entry is not reported with this status")
    elif "level" in facts:
        parts.append(f"secure EPT entry: level {facts['level']}, state {facts.get('state')}")
        if facts.get("leaf", "").endswith("REMOVE") and "BLOCKED" not in facts.get("state", ""):
            parts.append("which is not the blocked state that REMOVE requires")
    return ", ".join(parts)
