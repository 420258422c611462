"""Private pages that could not be taken back from a TD, and the status of a SEAMCALL (arch/x86/kvm/vmx/tdx.c)."""

from collections.abc import Mapping

from gmemstate.decode import tdx_status
from gmemstate.model.objects import MessedUp
from gmemstate.postmortem.stories.messed_up import page

STEPS = ("BLOCK", "TRACK", "REMOVE", "WBINVD")
"""What taking one private page from a TD is made of (tdx_sept_remove_leaf_spte)."""


def unmap_facts(entries: list[MessedUp], own: Mapping[str, str]) -> dict[str, str]:
    """What failed while pages were taken from a TD, and what that leaves; ``own`` is the detail of the first."""
    name, path = own.get("leaf", "").rsplit(".", 1)[-1], own.get("path")
    facts = {key: texts.get(name, texts["REMOVE"]) for key, texts in _BY_STEP.items()}
    known = [entry for entry in entries if entry.pfn is not None]
    if name in STEPS:
        facts["step"] = _step(name)
    if path is not None:
        facts["during"] = f"{path} ({own.get('function')}): {_DURING.get(path, 'no conversion that is known')}"
    if known:
        facts["host_pages"] = ", ".join(page(entry) for entry in known)
    if all(entry.gfn is not None for entry in entries):
        facts["gfns"] = "known"
    asked = path == "attributes ioctl"
    return facts | {
        "outcome": "ioctl returned 0 and the attribute says shared" if asked else "call that freed the page succeeded",
        "no_page": _NO_PAGE[own.get("reported", "yes") if "entry" in own else "none"],
    }


_NO_PAGE = {
    "none": "this step, or this kernel, prints no entry",
    "no": "with this status the module reports no entry; the numbers that are printed name no page",
    "yes": "the entry that is printed is no leaf and names no page",
}
"""Why no host page is known, by whether an entry was reported."""

_BY_STEP = {
    "happened": {
        "BLOCK": "A private page could not be blocked in a TD's secure page table, so it was not taken out",
        "TRACK": "The vCPUs of a TD could not be made to drop their translations of a private page that was taken from it",
        "REMOVE": "A private page could not be taken out of a TD's secure page table",
        "WBINVD": "A private page was taken out of a TD's secure page table, and its cache lines could not be written back",
    },
    "left": {
        "BLOCK": "is still mapped by the dead TD",
        "TRACK": "may still be reached by the dead TD by old translations; whether it was removed after that is not printed",
        "REMOVE": "may still be mapped by the dead TD",
        "WBINVD": "may be overwritten by old cache lines of the dead TD",
    },
    "memory": {
        "WBINVD": "the page is not mapped any more, and not pinned, flagged or poisoned: it goes back to the free list. "
        "Until the caches have been flushed, lines with the TD's key may be written over what its next owner wrote",
        "TRACK": "no page is named. KVM goes on with the removal; if that fails too it is silent, as the VM is bugged: a "
        "page may have "
        "gone back to the free list that the module still counts as the TD's",
        "REMOVE": "the page is not pinned, flagged or poisoned: it goes back to the free list on hole punch or when the "
        "guest_memfd closes. Ordinary use then works while the TD is never entered again; a new TD that gets it fails with "
        "TDX_PAGE_METADATA_INCORRECT (0xc0000300...)",
    },
}
"""What a step that failed means; what is not there is as for REMOVE."""
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


def _step(name: str) -> str:
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
