"""That nothing failed is a conclusion like others: it is said only where the record proves it."""

from collections.abc import Collection, Iterator

from gmemstate.audit.history.history import History
from gmemstate.audit.queries.conversions import judged
from gmemstate.model.verdict import Label
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Evidence, Story, step
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count

DONE = (Label.COMMITTED, Label.NOOP)
"""Verdicts of conversions that did what they were asked for."""
_WAY = "tools/capture trace --pid PID-OF-THE-VMM shows conversions with their results"


def nothing_failed(history: History) -> tuple[str, str | None]:
    """What is said of a record without incidents, and what is missing to be sure of it (None: nothing is).

    That no conversion failed needs conversions, each with its result. A log proves nothing: kernels do not print each failure.
    """
    conversions = history.ordered()
    undone = [one for one in conversions if judged(history, one).label not in DONE]
    if not conversions:
        return (
            "No failure is on record, and no conversion. Whether anything failed is not known.",
            f"whether a conversion was made, and whether it failed: no source shows one; {_WAY}",
        )
    if undone:
        return (
            "No failure is on record. Whether all conversions succeeded is not known.",
            f"whether all conversions succeeded: the results of {count(len(undone), 'conversion')} are not on record; {_WAY}",
        )
    number = len(conversions)
    returned = "it returned 0" if number == 1 else "each returned 0"
    return f"No conversion failed in what was recorded: {count(number, 'conversion')}, {returned}.", None


def unread_failures(history: History, explained: Collection[str]) -> Iterator[str]:
    """Lines that report a failure and that nobody understands, in sources of which incidents speak; others are incidents.

    ``explained`` are the names of these sources.
    """
    labels = history.labels()
    for source in history.sources.values():
        number, first = source.account.get("failures", 0), source.account.get("first_failures", ())
        if number and first and source.name in explained:
            lines = ", ".join(str(line) for line, _ in first)
            more = f" and {number - len(first)} more" if number > len(first) else ""
            report = "lines report failures and are" if number > 1 else "the line reports a failure and is"
            yield (
                f'{labels[source.id]}:{lines}{more}: {report} not understood ("{first[0][1].strip()}"); whether guests\' '
                "memory is concerned is not known"
            )


def not_understood(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Lines of a log report a failure, and no entry of the catalogue understands them."""
    source = history.sources[incident.first]
    first = [(int(line), str(text).strip()) for line, text in source.account["first_failures"]]
    number = int(source.account["failures"])
    story = Story(
        Blame.UNKNOWN,
        "failure not understood",
        history.labels()[source.id],
        f"{count(number, 'line')} of a log {'reports' if number == 1 else 'report'} a failure that is not understood. Whether "
        "guests' memory or the host is concerned, and whose fault it is, is not known.",
        complete=False,
    )
    story.timeline = [step("", None, text) for _, text in first]
    label = history.labels()[source.id]
    story.evidence = [Evidence(source.name, label, line, line) for line, _ in first]
    story.missing.append("what it means: read these lines in their own log, with what stands around them")
    return story
