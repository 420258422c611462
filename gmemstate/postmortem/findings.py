"""Stories of findings: histories that do not fit, witnesses that disagree, bad pages that got a new owner."""

from gmemstate.audit.history import History
from gmemstate.model.findings import CATALOGUE, Finding
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Story

SHOWN = 12
"""How many findings of one incident are listed."""


def impossible(history: History, seen: Scene, incident: Incident) -> Story:
    """Events that do not fit the machines."""
    findings = incident.findings
    story = Story(
        "unknown",
        "impossible history",
        words.guest(history, incident.vm),
        f"{words.count(len(findings), 'event')} {'is' if len(findings) == 1 else 'are'} not expected where {'it stands' if len(findings) == 1 else 'they stand'}. "
        "A wrong join of threads or guests is likelier than a kernel bug.",
    )
    _cite(story, findings)
    story.complete = False
    return story


def contradicted(history: History, seen: Scene, incident: Incident) -> Story:
    """Two sources say different things of one call: which of them is right, nobody here can tell."""
    findings = incident.findings
    story = Story(
        "unknown",
        incident.kind,
        words.guest(history, incident.vm),
        f"Of {words.count(len(findings), 'conversion')} two sources say different things. What the kernel's own trace says is what is "
        "counted here; two calls that were taken for one are likelier than a kernel that lies.",
    )
    _cite(story, findings)
    story.complete = False
    return story


def given_away(history: History, seen: Scene, incident: Incident) -> Story:
    """A host page that could not be trusted got a new owner (INV-22)."""
    findings = incident.findings
    story = Story(
        "kernel or module",
        incident.kind,
        words.guest(history, incident.vm),
        f"{words.count(len(findings), 'time')} a host page that can no longer be trusted became the memory of somebody else. The old owner "
        "may still reach it.",
    )
    _cite(story, findings)
    return story


def _cite(story: Story, findings: list[Finding]) -> None:
    for finding in findings[:SHOWN]:
        story.add("Event", str(finding))
    if len(findings) > SHOWN:
        story.add("Event", f"... and {len(findings) - SHOWN} more: see replay")
    for code in sorted({finding.code for finding in findings}):
        story.add("Do", f"{CATALOGUE[code].next_step} [{code}]")
