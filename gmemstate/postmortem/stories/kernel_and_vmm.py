"""What kernels and VMMs reported: a VM that died, an access to another's page, a VMM that gave up; and other reports."""

from collections.abc import Mapping

from gmemstate.audit.history.history import History
from gmemstate.messages.report_kinds import Effect, TaskState, effect_of, report_kind
from gmemstate.model.events import Cause, KernelWarned, VmDead, VmmSaid
from gmemstate.model.linux import PAGE_SIZE
from gmemstate.model.log_owner import LogOwner
from gmemstate.model.objects import OF_A_TD
from gmemstate.model.reports import KernelReportCode, VmmReportCode
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow, step
from gmemstate.postmortem.known.meanings import ReportMeaning, describe, meaning, shared_text
from gmemstate.postmortem.known.patterns import filled
from gmemstate.postmortem.reports import ReportedEvent, Reports
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count

WITHOUT_RANGE = frozenset(
    (VmmReportCode.LISTENER_REFUSED, VmmReportCode.DMA_STILL_MAPPED, VmmReportCode.DMA, VmmReportCode.RUN_FAILED)
)
"""What VMMs report of a conversion without naming its range."""
NOT_OF_HOST = frozenset((LogOwner.GUEST, LogOwner.PARAVISOR, LogOwner.SVSM, LogOwner.FIRMWARE))
"""Whose logs say nothing of the host."""
EFFECTS = {
    Effect.MEMORY_OVERWRITTEN: "suspect until a reboot, memory was possibly overwritten, whose is not known",
    Effect.LOCKS_HELD: "suspect until a reboot, the task is dead and its locks are held",
    Effect.NOTHING: "nothing is changed by this",
    Effect.KERNEL_DEAD: "this kernel runs no more",
    Effect.UNKNOWN: "not known",
}
TASKS = {
    TaskState.GOES_ON: "goes on",
    TaskState.RUNS: "runs, and does not come to an end",
    TaskState.WAITS: "waits",
    TaskState.DEAD: "is dead",
}
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
        "function": way(first.words).partition(" (")[0],
        "task_state": TASKS[kind.task] if (kind := report_kind(first.words)) is not None else "not known",
        "access_text": _access(first.words),
        "fault": _fault(first.words),
        "extent": count(int(pages), "page") if pages.isdigit() else "an unknown number of pages",
    }
    known = meaning(facts) or _in_its_own_words(facts)
    owner = seen.reports.owner(first)
    blame = Blame.GUEST if owner is LogOwner.GUEST and known.blame is Blame.KERNEL else known.blame
    story = Story(blame, filled(known.title, facts), _who(incident, first), filled(known.says, facts))
    story.timeline = [_row(report) for report in incident.reports]
    story.evidence = words.evidence(history, incident.reports)
    story.add("Where", _places(incident.reports))
    story.add("Place", facts.get("place"))
    if owner is not LogOwner.UNKNOWN:
        story.add("Log", f"of the {owner}")
    describe(story, known, facts, seen.reports)
    _explain_report(story, seen.reports, first)
    if facts.get("code") in WITHOUT_RANGE and "gfn" not in facts:
        story.add("Perhaps", _last_request(seen.reports, first))
    if facts.get("result") in ("EIO", "EINVAL", "EFAULT") and facts.get("code") in GIVEN_UP:
        _explain(history, seen.reports, story, facts["result"])
    return story


def _explain_report(story: Story, reports: Reports, report: ReportedEvent) -> None:
    """Add what the task was in, and what the kind of report means for the host, unless the row says more of either."""
    if "inside" in report.words and report.words.get("inside") != report.words.get("function"):
        inside = report.words["inside"].replace("; ", ", ")
        story.add("Inside", f"{inside}: on the stack, so that the task was there; that one of them failed is not said by it")
    said = [section for section in story.sections if section.word == "Host"]
    effect = _effect(reports, report)
    if reports.owner(report) in NOT_OF_HOST:
        story.sections = [section for section in story.sections if section not in said]
        story.add("Host", shared_text("of a guest"))
    elif not said:
        story.add("Host", effect)


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


def _access(facts: Mapping[str, str]) -> str:
    """What an access that a sanitizer reports did: ", a write of 8 bytes"."""
    if "access" not in facts:
        return ""
    size = f" of {count(int(facts['size']), 'byte')}" if facts.get("size", "").isdigit() else ""
    return f", a {facts['access']}{size}"


def _fault(facts: Mapping[str, str]) -> str:
    """What kind of fault the kernel took, with the address, as far as it is printed."""
    address = facts.get("address", "")
    what = facts.get("what", facts["kind"]).replace("_", " ")
    if address and what == KernelReportCode.PAGE_FAULT and int(address, 16) < PAGE_SIZE:
        what = "a NULL pointer dereference"
    at_ = f" at {address}" if address else f" at {facts['site']}" if "site" in facts else ""
    return f"{what}{_access(facts)}{at_}"


def way(facts: Mapping[str, str]) -> str:
    """The function that reported, and the way into the kernel that led to it."""
    function, path = facts.get("function") or facts.get("atomic_in", ""), facts.get("path")
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
        found += [f"bugged, by the failed private unmap at {place}" for cause in OF_A_TD for place in marked(cause)]
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


def others(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Reports whose functions and stacks name nothing of guests' memory: whether they have to do with it is not known."""
    number = len(incident.reports)
    story = Story(
        Blame.UNKNOWN,
        "other report" if number == 1 else "other reports",
        _whose(seen.reports, incident.reports[0]),
        f"{count(number, 'report')} of the kernel {'names' if number == 1 else 'name'} no function that has to do with guests' "
        "memory. Whether what is reported concerns it is not known.",
    )
    story.timeline = [_other_row(report) for report in incident.reports]
    story.evidence = words.evidence(history, incident.reports)
    for text in dict.fromkeys(_effect(seen.reports, report) for report in incident.reports):
        story.add("Host", text)
    story.complete = False
    story.missing.append("what was under way: the lines before it (journalctl -k -b), and what the VMMs did in that second")
    return story


def _whose(reports: Reports, report: ReportedEvent) -> str:
    """Whose log a report stands in."""
    owner = reports.owner(report)
    return "whose log it is: not known" if owner is LogOwner.UNKNOWN else f"log of the {owner}"


def _effect(reports: Reports, report: ReportedEvent) -> str | None:
    """What a report means for the host: by its kind, and by whose log it is; None for what is no report of a kernel."""
    found = effect_of(report.words)
    if reports.owner(report) in NOT_OF_HOST:
        return shared_text("of a guest")
    if found is None:
        return None
    effect, reason = found
    return f"{EFFECTS[effect]}: {reason}"


def _other_row(report: ReportedEvent) -> TimelineRow:
    row, what = _row(report), report.words.get("what", "")
    place = report.words.get("function") or report.words.get("site") or ""
    return step("", row.t, row.text if row.text == what else f"{what} {row.text}".strip(), place, logged=row.logged)
