"""Findings of an audit: events that do not fit the machines, sources that disagree, messed-up pages that got a new owner."""

from gmemstate.audit.history.history import History
from gmemstate.model.findings import CATALOGUE
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count

SHOWN = 12
"""How many findings of one incident are listed."""


def unexpected_event(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Events that are not expected in the state that they find."""
    number = len(incident.findings)
    are = "event is not expected where it stands" if number == 1 else "events are not expected where they stand"
    likelier = "A wrong join of threads or guests is likelier than a kernel bug."
    return _listed(incident, Blame.UNKNOWN, f"{number} {are}. {likelier}", complete=False)


def sources_disagree(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Two sources report different results of one call: which of them is right, the record does not show."""
    summary = (
        f"Of {count(len(incident.findings), 'conversion')} two sources report different things. What the kernel's own trace "
        "shows is what counts here; two calls that were taken for one are likelier than a wrong trace."
    )
    return _listed(incident, Blame.UNKNOWN, summary, complete=False)


def page_reused(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A host page that could not be trusted got a new owner (INV-22)."""
    summary = (
        f"{count(len(incident.findings), 'time')} a host page that can no longer be trusted became the memory of somebody "
        "else. The old owner may still reach it."
    )
    return _listed(incident, Blame.KERNEL, summary, complete=True)


def _listed(incident: IncidentEvents, blame: Blame, summary: str, *, complete: bool) -> Story:
    """The findings one by one, and of each kind of them what to do next."""
    story = Story(blame, incident.kind, words.guest(incident.vm), summary, complete=complete)
    for finding in incident.findings[:SHOWN]:
        story.add("Event", str(finding))
    if len(incident.findings) > SHOWN:
        story.add("Event", f"... and {len(incident.findings) - SHOWN} more: see replay")
    for code in sorted({finding.code for finding in incident.findings}):
        story.add("Do", f"{CATALOGUE[code].next_step} [{code}]")
    return story
