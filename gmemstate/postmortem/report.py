"""From an incident to its story: one function for each kind."""

from collections.abc import Callable
from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.model.record import Record
from gmemstate.postmortem.incidents import Incident, incidents
from gmemstate.postmortem.kinds import Kind
from gmemstate.postmortem.known.signatures import everything, matches
from gmemstate.postmortem.scene import Scene, scene
from gmemstate.postmortem.stories import findings, host_pages, normal, poison, refusals, reports, requests, shortage, vmm_errors
from gmemstate.postmortem.story import Covered, Report, Story

UNTIMED = "?"
"""What stands for the time of a line of a clock that does not count seconds."""
Teller = Callable[[History, Scene, Incident], Story]

TELLERS: dict[Kind, Teller] = {
    Kind.PARTLY_APPLIED: requests.not_as_told,
    Kind.NOT_AS_TOLD: requests.not_as_told,
    Kind.REQUEST_REFUSED: requests.refused,
    Kind.REFUSED_THEN_APPLIED: refusals.returned,
    Kind.NOT_APPLIED: refusals.returned,
    Kind.REJECTED: vmm_errors.rejected,
    Kind.NO_MEMORY_BEHIND: vmm_errors.no_memory_behind,
    Kind.SLOT_SWAP: vmm_errors.slot_swap,
    Kind.POISON: poison.poison,
    Kind.LOST_RACE: normal.lost_race,
    Kind.STOPPED: normal.stopped,
    Kind.KILLED: normal.killed,
    Kind.OUT_OF_MEMORY: shortage.out_of_memory,
    Kind.RESULT_UNSEEN: normal.result_unseen,
    Kind.DISTRUSTED: host_pages.distrusted,
    Kind.GIVEN_AWAY: findings.given_away,
    Kind.FINDING: findings.impossible,
    Kind.CONTRADICTION: findings.contradicted,
    Kind.VM_DEAD: reports.returned,
    Kind.HOST_FAULT: reports.returned,
    Kind.VMM_SAID: reports.returned,
    Kind.REPORTED: reports.returned,
    Kind.UNRELATED: reports.unrelated,
}


def tell(record: Record, history: History) -> list[Story]:
    """The stories of all incidents of a record, in the order in which they began."""
    found = incidents(history)
    seen = scene(record, history, found)
    returned = everything(history)
    stories = []
    for incident in found:
        story = TELLERS[incident.kind](history, seen, incident)
        for known in matches(history, incident, returned):
            story.add("Match", known)
        if all(row[1] in ("", UNTIMED) for row in story.timeline):
            story.timeline = [(row[0], "", *row[2:]) for row in story.timeline]
        stories.append(story)
    return stories


def report(history: History, chosen: list[tuple[int, Story]], count: int) -> Report:
    """Some of ``count`` stories with what was covered and what is missing."""
    return Report(chosen, count, covered(history), history.missing())


def covered(history: History) -> list[Covered]:
    """What was looked at: sources, lines, gaps."""
    labels = history.labels()
    return [
        Covered(
            file=source.name,
            label=labels[source.id],
            entries=source.account.get("entries"),
            lines=source.account.get("lines"),
            used=source.account.get("used", 0),
            context=sum(source.account.get("context", {}).values()),
            unparsed=source.account.get("unparsed", 0),
            gaps=len(source.gaps),
            lost=sum(count or 0 for _, count in source.gaps),
            whole=source.damage is None,
        )
        for source in history.sources.values()
    ]


def report_json(returned: Report) -> dict[str, Any]:
    """A report as data."""
    return {
        "incidents": [story_json(number, story) for number, story in returned.stories],
        "count": returned.count,
        "covered": [
            {key: value for key, value in source._asdict().items() if key not in ("label", "whole")}
            for source in returned.covered
        ],
        "missing": returned.missing,
        "complete": returned.complete,
    }


def story_json(number: int, story: Story) -> dict[str, Any]:
    """A story as data."""
    timeline = [dict(zip(("what", "when", "text", "result", "note"), row, strict=True)) for row in story.timeline]
    return {
        "incident": number,
        "blame": story.blame,
        "title": story.title,
        "who": story.who,
        "summary": story.summary,
        "timeline": timeline,
        "table": None
        if story.table is None
        else {"header": list(story.table.header), "rows": [list(row) for row in story.table.rows]},
        "paragraphs": [list(pair) for pair in story.paragraphs],
        "evidence": [{"file": lines.file, "first": lines.first, "last": lines.last} for lines in story.evidence],
        "missing": list(dict.fromkeys(story.missing)),
        "complete": story.complete,
    }
