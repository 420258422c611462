"""Stories of findings: histories that do not fit, witnesses that disagree, bad pages that got a new owner."""

from gmemstate.audit.history.history import History
from gmemstate.model.findings import CATALOGUE
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.story import Blame, Story

SHOWN = 12
"""How many findings of one incident are listed."""


def impossible(history: History, seen: Scene, incident: Incident) -> Story:
    """Events that do not fit the machines."""
    one = len(incident.findings) == 1
    return _told(
        history, incident, "unknown",
        f"{words.count(len(incident.findings), 'event')} {'is' if one else 'are'} not expected where {'it stands' if one else 'they stand'}. "
        "A wrong join of threads or guests is likelier than a kernel bug.",
        complete=False,
    )  # fmt: skip


def contradicted(history: History, seen: Scene, incident: Incident) -> Story:
    """Two sources say different things of one call: which of them is right, nobody here can tell."""
    return _told(
        history, incident, "unknown",
        f"Of {words.count(len(incident.findings), 'conversion')} two sources say different things. What the kernel's own trace says is what is "
        "counted here; two calls that were taken for one are likelier than a kernel that lies.",
        complete=False,
    )  # fmt: skip


def given_away(history: History, seen: Scene, incident: Incident) -> Story:
    """A host page that could not be trusted got a new owner (INV-22)."""
    return _told(
        history, incident, "kernel or module",
        f"{words.count(len(incident.findings), 'time')} a host page that can no longer be trusted became the memory of somebody else. The old owner "
        "may still reach it.",
        complete=True,
    )  # fmt: skip


def _told(history: History, incident: Incident, blame: Blame, summary: str, *, complete: bool) -> Story:
    """A story that lists findings, and of each kind of them what to do next."""
    story = Story(blame, incident.kind, words.guest(history, incident.vm), summary, complete=complete)
    for finding in incident.findings[:SHOWN]:
        story.add("Event", str(finding))
    if len(incident.findings) > SHOWN:
        story.add("Event", f"... and {len(incident.findings) - SHOWN} more: see replay")
    for code in sorted({finding.code for finding in incident.findings}):
        story.add("Do", f"{CATALOGUE[code].next_step} [{code}]")
    return story
