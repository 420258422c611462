"""What kernels and VMMs reported: a VM that died, an access to another's page, a VMM that gave up; and unrelated warnings."""

from collections.abc import Mapping

from gmemstate.audit.history.history import History
from gmemstate.model.events import Cause, KernelWarned, VmDead, VmmSaid
from gmemstate.model.reports import VmmReportCode
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow, step
from gmemstate.postmortem.known.meanings import ReportMeaning, describe, meaning
from gmemstate.postmortem.known.patterns import filled
from gmemstate.postmortem.reports import ReportedEvent, Reports
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count

WITHOUT_RANGE = frozenset(
    (VmmReportCode.LISTENER_REFUSED, VmmReportCode.DMA_STILL_MAPPED, VmmReportCode.DMA, VmmReportCode.RUN_FAILED)
)
"""What VMMs report of a conversion without naming its range."""
GIVEN_UP = (VmmReportCode.RUN_FAILED, VmmReportCode.REGISTERS)
NEAR = 20
"""How many lines may stand between a conversion request and what came of it."""
PLACES = 6
"""How many addresses of one incident are listed."""


def reported(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """What kernel or VMM reported, by what is known of such reports; else in their own words."""
    first = incident.reports[0]
    pages = first.words.get("pages", "")
    facts = {
        "name": "(not in the tables)",
        **first.words,
        "way": way(first.words),
        "extent": count(int(pages), "page") if pages.isdigit() else "an unknown number of pages",
    }
    known = meaning(facts) or _in_its_own_words(facts)
    story = Story(known.blame, known.title, _who(incident, first), filled(known.says, facts))
    story.timeline = [_row(report) for report in incident.reports]
    story.evidence = words.evidence(history, incident.reports)
    story.add("Where", _places(incident.reports))
    story.add("Place", facts.get("place"))
    describe(story, known, facts, seen.reports)
    if facts.get("code") in WITHOUT_RANGE and "gfn" not in facts:
        story.add("Perhaps", _last_request(seen.reports, first))
    if facts.get("result") in ("EIO", "EINVAL", "EFAULT") and facts.get("code") in GIVEN_UP:
        _explain(history, seen.reports, story, facts["result"])
    return story


def _last_request(reports: Reports, report: ReportedEvent) -> str | None:
    """The conversion that a VMM was asked for right before, in the same log."""
    for other in reversed(reports.reports):
        lines = (report.event.line or 0) - (other.event.line or 0)
        earlier = other.seq < report.seq and other.event.source == report.event.source and lines <= NEAR
        facts = other.words
        if earlier and facts.get("code") == VmmReportCode.CONVERT_REQUEST:
            pages = f"+{facts['pages']}" if "pages" in facts else ""
            return (
                f"gfn {facts['gfn']}{pages} to {facts.get('to')}: the last conversion that the VMM was asked for before (line "
                f"{other.event.line}) [guess: nothing but the order ties them]"
            )
    return None


def way(facts: Mapping[str, str]) -> str:
    """The function that reported, and the way into the kernel that led to it."""
    function, path = facts.get("function", ""), facts.get("path")
    return f"{function} ({path})" if function and path else function or path or "not known"


def _in_its_own_words(facts: Mapping[str, str]) -> ReportMeaning:
    """A report of a kind that no row of the table has."""
    what = facts.get("code") or facts.get("what") or facts["kind"].replace("_", " ")
    who, title = (
        ("A VMM", "VMM reports a failure") if facts["kind"] == VmmSaid.name else ("The kernel", "kernel reports a failure")
    )
    place = f" in {facts['function']}" if "function" in facts else ""
    result = f", {facts['result']}" if "result" in facts else ""
    return ReportMeaning(
        when={},
        blame=Blame.UNKNOWN,
        title=title,
        says=f"{who} reports: {what}{place}{result}. Whether a conversion failed by it, this record does not show.",
        more=(("Way", "{path}"),),
        ask=(
            (
                "what was asked and answered meanwhile: tools/capture collect, or next time tools/capture trace --pid "
                "PID-OF-THE-VMM",
                None,
            ),
        ),
    )


def _who(incident: IncidentEvents, first: ReportedEvent) -> str:
    facts = first.words
    if incident.vm is not None:
        return words.guest(incident.vm)
    if facts.get("thread", "0") != "0" and not isinstance(first.event, VmmSaid):
        return f"thread {facts['thread']}" + (f" ({facts['comm']})" if "comm" in facts else "") + "; the log names no VM"
    return "which VM: not in the log"


def _row(report: ReportedEvent) -> TimelineRow:
    facts = report.words
    text = facts.get("text") or facts.get("leaf") or facts.get("what") or facts["kind"].replace("_", " ")
    if "result" in facts:
        result = facts["result"] if getattr(report.event, "result", None) else ""
    elif "leaf" in facts or "status" in facts:
        result = facts.get("name", "")
    else:
        result = facts.get("code", "") if not isinstance(report.event, VmmSaid) else ""
    return step("", report.event.t, text, result, logged=facts.get("at", ""))


def _places(reports: list[ReportedEvent]) -> str | None:
    """The addresses of all reports of an incident, where they name any."""
    found: list[str] = []
    for facts in (report.words for report in reports):
        if "gfn" in facts:
            pages = f"+{facts['pages']}" if facts.get("pages", "None") != "None" else ""
            found.append(f"gfn {facts['gfn']}{pages}" + (f" to {facts['to']}" if "to" in facts else ""))
        elif "pfn" in facts:
            found.append(f"pfn {facts['pfn']}")
    distinct = list(dict.fromkeys(found))
    more = f" and {len(distinct) - PLACES} more" if len(distinct) > PLACES else ""
    return ", ".join(distinct[:PLACES]) + more if distinct else None


def _explain(history: History, reports: Reports, story: Story, result: str) -> None:
    """Whatever else of the record makes KVM_RUN return an errno: it is named, but nothing ties it to this VM."""
    causes = {entry.id: entry.cause for entry in history.memory.messed_up.values()}

    def marked(cause: Cause) -> list[str]:
        return [_place(history, mark) for key, mark in reports.marks.items() if causes.get(key) is cause]

    found = []
    if result == "EIO":
        found += [f"bugged, by the failed private unmap at {place}" for place in marked(Cause.SEPT_STILL_MAPS)]
        for report in reports.reports:
            place = _place(history, report)
            if isinstance(report.event, VmDead):
                found.append(f"dead, by {report.words.get('what', 'a cause that is not named')} at {place}")
            elif isinstance(report.event, KernelWarned) and (known := meaning(report.words)) is not None and known.ends_vm:
                found.append(f'bugged, by "{known.title}" at {place}')
    else:
        found += [f"the page that could not be made private at {place}" for place in marked(Cause.UNUSABLE_PRIVATE)]
    if found:
        story.add("Perhaps", "; or ".join(dict.fromkeys(found[:4])) + " [same record; no line ties it to this VM]")


def _place(history: History, report: ReportedEvent) -> str:
    return history.place(report.event.source, report.event.line)


def unrelated(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Warnings that have nothing to do with a guest's memory, as far as their functions and stacks show."""
    number = len(incident.reports)
    story = Story(
        Blame.NOBODY,
        "unrelated warning" if number == 1 else "unrelated warnings",
        "the host",
        f"{count(number, 'warning')} of the kernel {'has' if number == 1 else 'have'} nothing to do with converting memory, "
        "by function and stack: do not look for the cause there.",
    )
    story.timeline = [_unrelated_row(report) for report in incident.reports]
    story.evidence = words.evidence(history, incident.reports)
    return story


def _unrelated_row(report: ReportedEvent) -> TimelineRow:
    row, what = _row(report), report.words.get("what", "")
    place = report.words.get("function") or report.words.get("site") or ""
    return step("", row.t, row.text if row.text == what else f"{what} {row.text}".strip(), place, logged=row.logged)
