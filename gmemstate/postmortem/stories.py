"""From an incident to its story: one function for each kind."""

from collections.abc import Callable
from typing import Any

from gmemstate.audit.history import History
from gmemstate.model.record import Record
from gmemstate.postmortem import normal, refusals, requests, vmm_errors
from gmemstate.postmortem.incidents import Incident, Kind, incidents
from gmemstate.postmortem.scene import Scene, scene
from gmemstate.postmortem.story import Story

Teller = Callable[[History, Scene, Incident], Story]

TELLERS: dict[Kind, Teller] = {
    Kind.PARTLY_APPLIED: requests.partly_applied,
    Kind.REFUSED_THEN_APPLIED: refusals.told,
    Kind.NOT_APPLIED: refusals.told,
    Kind.REJECTED: vmm_errors.rejected,
    Kind.NO_MEMORY_BEHIND: vmm_errors.no_memory_behind,
    Kind.SLOT_SWAP: vmm_errors.slot_swap,
    Kind.POISON: normal.poison,
    Kind.LOST_RACE: normal.lost_race,
    Kind.STOPPED: normal.stopped,
    Kind.KILLED: normal.killed,
    Kind.RESULT_UNSEEN: normal.result_unseen,
    Kind.FINDING: normal.impossible,
}


def tell(record: Record, history: History) -> list[Story]:
    """The stories of all incidents of a record, in the order in which they began."""
    found = incidents(history)
    seen = scene(record, history, found)
    stories = []
    for incident in found:
        story = TELLERS[incident.kind](history, seen, incident)
        stories.append(story)
    return stories


def covered(history: History) -> str:
    """What was looked at: sources, lines, gaps."""
    parts = []
    for source in history.sources.values():
        account = source.account
        entries = f"{account['entries']} entries in " if account.get("entries") else ""
        lost = sum(count or 0 for _, count in source.gaps)
        gaps = f"{len(source.gaps)} gaps, at least {lost} events lost" if source.gaps else "none lost"
        parts.append(
            f"{source.name}: {entries}{account.get('lines', '?')} lines ({account.get('used', '?')} used, "
            f"{sum(account.get('context', {}).values())} context, {account.get('unparsed', '?')} not understood), {gaps}"
        )
    return "; ".join(parts) or "nothing: the ledger has no source"


def story_json(number: int, story: Story) -> dict[str, Any]:
    """A story as data."""
    return {
        "incident": number,
        "blame": story.blame,
        "title": story.title,
        "who": story.who,
        "summary": story.summary,
        "timeline": [list(row) for row in story.timeline],
        "table": None
        if story.table is None
        else {"header": list(story.table.header), "rows": [list(row) for row in story.table.rows]},
        "paragraphs": [list(pair) for pair in story.paragraphs],
        "evidence": story.evidence,
        "missing": list(dict.fromkeys(story.missing)),
        "complete": story.complete,
    }
