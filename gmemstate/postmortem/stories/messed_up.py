"""Phrases about messed-up host pages: which page, whose, when, and what was reported of it."""

from gmemstate.model.objects import MessedUp
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import TimelineRow, step
from gmemstate.postmortem.reports import detail_words


def page(entry: MessedUp) -> str:
    """A messed-up page by its pfn and gfn, as far as they are known."""
    if entry.pfn is None:
        gfn, index = entry.gfn, entry.index
        where = f"gfn {gfn:#x}" if gfn is not None else f"idx {index:#x}" if index is not None else "page"
        return f"{where}, pfn not known"
    end = f"..{entry.pfn + entry.count - 1:#x}" if entry.count is not None and entry.count != 1 else ""
    gfns = f", gfn {entry.gfn:#x}" if entry.gfn is not None else ""
    return f"pfn {entry.pfn:#x}{end}{gfns}"


def number(entries: list[MessedUp]) -> int:
    """How many pages there are, at least."""
    return sum(entry.count or 1 for entry in entries)


def who(incident: IncidentEvents) -> str:
    """The guest, or the thread where a kernel log names no guest."""
    facts = detail_words(incident.entries[0].detail)
    if incident.vm is not None:
        return words.guest(incident.vm)
    if "thread" in facts:
        return f"the VM of thread {facts['thread']} ({facts.get('comm', '?')}); the kernel log has no VM name or id"
    return "which VM: not in the log"


def timeline(entries: list[MessedUp]) -> list[TimelineRow]:
    """What failed, page by page."""
    rows = []
    for entry in entries:
        facts = detail_words(entry.detail)
        what = facts.get("leaf") or facts.get("what") or entry.cause.name.lower().replace("_", " ")
        result = facts.get("name") or facts.get("code") or facts.get("error") or ""
        rows.append(step("", entry.since, f"{what}: {page(entry)}", result, logged=facts.get("at", "")))
    return rows
