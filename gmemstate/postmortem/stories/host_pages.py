"""Host pages that can no longer be trusted: private unmaps that failed, the RMP, leaks, refused reclaims, devices."""

from collections.abc import Mapping

from gmemstate.audit.history.history import History
from gmemstate.model.events import Cause
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE, PAGES_2M
from gmemstate.model.objects import OF_A_TD
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Story
from gmemstate.postmortem.known.meanings import describe, meaning
from gmemstate.postmortem.known.patterns import filled
from gmemstate.postmortem.reports import detail_words
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.stories.kernel_and_vmm import way
from gmemstate.postmortem.stories.messed_up import number, page, timeline, who
from gmemstate.postmortem.stories.tdx_pages import status, unmap_facts
from gmemstate.text import count


def suspect(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Host pages that a failed unmap, assignment, leak or reclaim has left in doubt."""
    entries = incident.entries
    cause = entries[0].cause
    facts = _facts(history, seen, incident)
    known = meaning(facts)
    assert known is not None  # a test holds that each cause has a row
    story = Story(known.blame, known.title, who(incident), filled(known.says, facts))
    story.timeline = timeline(entries)
    describe(story, known, facts, seen.reports)
    marks = seen.reports.marks
    story.evidence = words.evidence(history, [marks[entry.id] for entry in entries if entry.id in marks])
    story.add("Reuse", entries[0].reuse_risk)
    if cause in OF_A_TD:
        story.complete = False  # whether other pages of the VM are left, no line shows
    elif cause is not Cause.UNUSABLE_PRIVATE and any(entry.pfn is None for entry in entries):
        story.missing.append("which host page it is: no line names a pfn")
    return story


def _facts(history: History, seen: Scene, incident: IncidentEvents) -> Mapping[str, str]:
    """What is known of the first of some pages, and how many there are."""
    entries = incident.entries
    first, pages = entries[0], number(entries)
    own = detail_words(first.detail)
    lost = sum(lost or 0 for source in history.sources.values() for _, lost in source.gaps)
    facts = own | {
        "kind": "messed_up",
        "cause": first.cause.name.lower(),
        "number": str(pages),
        "extent": count(pages, "host page"),
        "kib": str(pages * PAGE_SIZE >> 10),
        "lines": str(len(entries)),
        "reclaims": count(len(entries), "reclaim"),
        "suppressed": f"{lost} lines of this record are suppressed or lost"
        if lost
        else "more may be suppressed by the rate limit",
        "page": page(first),
        "way": way(own),
        "rmpupdate": _rmpupdate(own),
        "region": "" if first.pfn is None else f"2M${(first.pfn & -PAGES_2M) << PAGE_SHIFT:#x}",
        "near": "; ".join(own.get("near", "not known").split("; ")[:3]),
        "status_text": status(own) or "not known",
    }
    if first.cause in OF_A_TD:
        facts |= unmap_facts(entries, own)
    facts |= {name: hex(value) for name, value in (("pfn", first.pfn), ("gfn", first.gfn)) if value is not None}
    mark = seen.reports.marks.get(first.id)
    if mark is not None and "place" in mark.words:
        facts["place"] = mark.words["place"]
    for entry in history.memory.messed_up.values():
        if entry.cause in OF_A_TD and entry.id in seen.reports.marks:
            unmap = seen.reports.marks[entry.id].event
            facts.setdefault("unmapped_at", history.place(unmap.source, unmap.line))
    return facts


def _rmpupdate(facts: Mapping[str, str]) -> str:
    """An RMPUPDATE that failed: its level and result."""
    code = f", returned {facts['ret']} = {facts['code']}" if "code" in facts else ""
    level = {"1": " level 4K", "2": " level 2M"}.get(facts.get("level", ""), "")
    return f"RMPUPDATE{level}{code}; its caller saw EFAULT"
