"""From the events of an incident to the incident as data: one story for each kind."""

from collections.abc import Callable

from gmemstate.audit.history.history import History
from gmemstate.model.events import ConvertReturned
from gmemstate.model.record import Record
from gmemstate.model.verdict import Basis
from gmemstate.postmortem import words
from gmemstate.postmortem.causes import joined
from gmemstate.postmortem.grouping import IncidentEvents, Tie, grouped
from gmemstate.postmortem.incident import (
    NEXT_STEPS,
    Blame,
    Covered,
    Incident,
    IncidentKind,
    IncidentPart,
    PostMortem,
    Relation,
    Story,
    merged,
)
from gmemstate.postmortem.innocence import not_understood, nothing_failed, unread_failures
from gmemstate.postmortem.known.signatures import Own, known_problems
from gmemstate.postmortem.reports import Reports
from gmemstate.postmortem.scene import Scene, scene
from gmemstate.postmortem.stories import (
    failed_conversions,
    fault_exits,
    findings,
    host_pages,
    kernel_and_vmm,
    no_memory,
    poison,
    requests,
    unfinished,
    vmm_errors,
)

_LEFT = frozenset(("Lost", "Left", "Number", "Owner", "Page", "Reuse", "Where"))
"""Words of sections that a part of an incident adds to it: which pages, and what is left of them."""
STORIES: dict[IncidentKind, Callable[[History, Scene, IncidentEvents], Story]] = {
    IncidentKind.PARTLY_APPLIED: requests.answer_differs,
    IncidentKind.SUCCESS_NOT_APPLIED: requests.answer_differs,
    IncidentKind.REQUEST_REFUSED: requests.refused,
    IncidentKind.REFUSED_THEN_APPLIED: failed_conversions.failed,
    IncidentKind.NOT_APPLIED: failed_conversions.failed,
    IncidentKind.REJECTED: vmm_errors.rejected,
    IncidentKind.PRIVATE_WITHOUT_MEMORY: vmm_errors.private_without_memory,
    IncidentKind.SLOT_SWAP: vmm_errors.slot_swap,
    IncidentKind.POISON: poison.poison,
    IncidentKind.LOST_RACE: fault_exits.lost_race,
    IncidentKind.STOPPED: fault_exits.stopped,
    IncidentKind.SHORT_SUCCESS: unfinished.short_success,
    IncidentKind.KILLED: unfinished.killed,
    IncidentKind.RESULT_UNKNOWN: unfinished.result_unknown,
    IncidentKind.OUT_OF_MEMORY: no_memory.vmm_killed,
    IncidentKind.HOST_PAGE_SUSPECT: host_pages.suspect,
    IncidentKind.PAGE_REUSED: findings.page_reused,
    IncidentKind.UNEXPECTED_EVENT: findings.unexpected_event,
    IncidentKind.SOURCES_DISAGREE: findings.sources_disagree,
    IncidentKind.VM_DEAD: kernel_and_vmm.reported,
    IncidentKind.HOST_FAULT: kernel_and_vmm.reported,
    IncidentKind.VMM_REPORT: kernel_and_vmm.reported,
    IncidentKind.KERNEL_REPORT: kernel_and_vmm.reported,
    IncidentKind.OTHER_REPORT: kernel_and_vmm.others,
    IncidentKind.NOT_UNDERSTOOD: not_understood,
}


def post_mortem(record: Record, history: History) -> PostMortem:
    """All incidents of a record, in the order in which they began, with what was covered and what is missing.

    ``history`` is that of the record; its end is the moment that is asked for.
    """
    reports = Reports.of(history)
    found = joined(grouped(history, reports), reports)
    seen = scene(record, history, reports, found)
    incidents = tuple(_incident(history, seen, one, number) for number, one in enumerate(found, 1))
    silence, unproven = (None, None) if incidents else nothing_failed(history)
    explained = {place.file for incident in incidents for place in incident.evidence}
    missing = [*history.missing(), *unread_failures(history, explained), *filter(None, (unproven,))]
    return PostMortem(incidents, len(incidents), covered(history), tuple(missing), silence)


def _incident(history: History, seen: Scene, events: IncidentEvents, number: int) -> Incident:
    story = STORIES[events.kind](history, seen, events)
    parts = tuple(_part(history, seen, tie, story) for tie in events.ties)
    certain = (tie.part for tie in events.ties if tie.basis is not Basis.ASSUMED)
    own = [fact for one in (events, *certain) for fact in _facts(seen.reports, one)]
    return Incident(
        number=number,
        kind=events.kind,
        blame=story.blame,
        title=story.title,
        guest=None if events.vm is None else events.vm.name,
        who=story.who,
        ranges=merged([place for one in (events, *(tie.part for tie in events.ties)) for place in one.ranges(history)]),
        seq=events.begin,
        t=next((row.t for row in story.timeline if row.t is not None), None),
        summary=story.summary,
        timeline=tuple(story.timeline[: story.limit]),
        omitted=max(0, len(story.timeline) - story.limit),
        table=story.table,
        sections=tuple(story.sections),
        next_steps=tuple(section.text for section in story.sections if section.word in NEXT_STEPS),
        parts=parts,
        known_problems=tuple(known_problems(history, seen.reports, own)),
        evidence=tuple(story.evidence),
        missing=tuple(dict.fromkeys(story.missing)),
        complete=story.complete,
    )


def _part(history: History, seen: Scene, tie: Tie, main: Story) -> IncidentPart:
    """A part of an incident, and what of it belongs to the story of the whole: its steps, its lines, what is left.

    What a part says of whose fault it was counts only where it is the cause and the rest has no fault of its own. What it asks
    for is why it happened, which the whole tells, unless both are about one host page.
    """
    story = STORIES[tie.part.kind](history, seen, tie.part)
    if tie.relation is Relation.CAUSE and main.blame in (Blame.UNKNOWN, Blame.MEMORY):
        main.blame = story.blame
    rows = [*main.timeline[: main.limit], *story.timeline[: story.limit]]
    main.limit += min(len(story.timeline), story.limit)
    main.timeline = sorted(rows, key=lambda row: row.t or 0) if all(row.t is not None for row in rows) else rows
    known = {section.word for section in main.sections}
    main.sections += [section for section in story.sections if section.word in _LEFT and section.word not in known]
    if tie.page:
        main.missing += [missing for missing in story.missing if missing not in main.missing]
        main.complete = main.complete and story.complete
    main.evidence = sorted({*main.evidence, *story.evidence})
    return IncidentPart(
        tie.part.kind, tie.relation, story.title, story.summary, tie.why, tie.basis, tuple(sorted(set(story.evidence)))
    )


def _facts(reports: Reports, events: IncidentEvents) -> list[Own]:
    """What known problems are recognised by: reports, marks of host pages, and results of conversions."""
    found: list[Own] = [(report.words, report) for report in events.reports]
    found += [(mark.words, mark) for entry in events.entries if (mark := reports.marks.get(entry.id)) is not None]
    for conversion in events.conversions:
        result = words.errno_name(conversion.result)
        found.append(({"kind": ConvertReturned.name, "result": result, "to": conversion.target or ""}, None))
    return found


def covered(history: History) -> tuple[Covered, ...]:
    """What was read: sources, lines, gaps."""
    labels = history.labels()
    return tuple(
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
    )
