"""Stories of what kernels and VMMs say of themselves: a VM that died, a page of another that was touched, a VMM that gave up."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import (
    KIND,
    KINDS,
    LINE,
    RESULT,
    SEQ,
    SOURCE,
    Cause,
    EventRow,
    KernelWarned,
    T,
    VmDead,
)
from gmemstate.model.units import seconds
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.known.meanings import Meaning, filled, meaning
from gmemstate.postmortem.known.patterns import facts, fits, gaps_in
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.stories.platform import Platform
from gmemstate.postmortem.story import Story

WITHOUT_RANGE = frozenset(("listener refused", "DMA still mapped", "DMA", "kvm run failed"))
"""What VMMs say of a conversion without saying of which."""
NEAR = 20
"""How many lines may stand between a wish and what came of it."""
PLACES = 6
"""How many addresses of one incident are listed."""


def returned(history: History, seen: Scene, incident: Incident) -> Story:
    """What kernel or VMM reported, by what is known of such reports; else in their own words."""
    first = incident.reports[0]
    report = Platform.of(history).place(facts(first))
    report["way"] = _way(report)
    report["extent"] = (
        words.count(int(report["pages"]), "page") if report.get("pages", "").isdigit() else "an unknown number of pages"
    )
    report.setdefault("name", "(not in the tables)")
    known = meaning(report) or _in_its_own_words(report)
    story = Story(known.blame, known.title, _who(history, incident, report), filled(known.says, report))
    story.timeline = words.some([_row(row) for row in incident.reports])
    story.evidence = words.evidence(history, incident.reports)
    story.add("Where", _places(incident.reports))
    story.add("Place", report.get("place"))
    for word, text in known.more:
        if not gaps_in(text, report):
            story.add(word, filled(text, report))
    events = (
        [facts(row) for row in (*history.marks.values(), *history.reports)] if any(unless for _, unless in known.ask) else []
    )
    if report.get("code") in WITHOUT_RANGE and "gfn" not in report:
        story.add("Perhaps", _last_wish(history, first))
    story.missing += [
        filled(text, report) for text, unless in known.ask if not any(fits(unless, one) for one in events if unless)
    ]
    story.complete = not story.missing
    if report.get("result") in ("EIO", "EINVAL", "EFAULT") and report.get("code") in ("kvm run failed", "registers"):
        _explain(history, story, report["result"])
    return story


def _last_wish(history: History, row: EventRow) -> str | None:
    """The conversion that a VMM was asked for right before, in the same log."""
    for other in reversed(history.reports):
        if other[SEQ] < row[SEQ] and other[SOURCE] == row[SOURCE] and (row[LINE] or 0) - (other[LINE] or 0) <= NEAR:
            wish = facts(other)
            if wish.get("code") == "convert wish":
                pages = f"+{wish['pages']}" if "pages" in wish else ""
                return (
                    f"gfn {wish['gfn']}{pages} to {wish.get('to')}: the last conversion that the VMM was asked for before (line {other[LINE]}) "
                    "[guess: nothing but the order ties them]"
                )
    return None


def _way(report: dict[str, str]) -> str:
    way, path = report.get("function", ""), report.get("path")
    return f"{way} ({path})" if way and path else way or path or "not known"


def _in_its_own_words(report: dict[str, str]) -> Meaning:
    """A report of a kind that no row of the table has."""
    what = report.get("code") or report.get("what") or report["kind"].replace("_", " ")
    who = "A VMM" if report["kind"] == "vmm_said" else "The kernel"
    place = f" in {report['function']}" if "function" in report else ""
    result = f", {report['result']}" if "result" in report else ""
    return Meaning(
        {}, "unknown", "VMM reports a failure" if who == "A VMM" else "kernel reports a failure",
        f"{who} reports: {what}{place}{result}. Whether a conversion failed by it, this record does not show.",
        (("Way", "{path}"),),
        (("what was asked and answered meanwhile: tools/capture collect, or next time tools/capture trace --pid PID-OF-THE-VMM", None),),
    )  # fmt: skip


def _who(history: History, incident: Incident, report: dict[str, str]) -> str:
    if incident.vm is not None:
        return words.guest(history, incident.vm)
    if "thread" in report and report["thread"] != "0" and report["kind"] != "vmm_said":
        return f"thread {report['thread']}" + (f" ({report['comm']})" if "comm" in report else "") + "; the log names no VM"
    return "which VM: not in the log"


def _row(row: EventRow) -> tuple[str, ...]:
    report = facts(row)
    when = seconds(row[T]) if row[T] is not None else report.get("at", "")
    name = KINDS[row[KIND]].name
    text = report.get("text") or report.get("leaf") or report.get("what") or name.replace("_", " ")
    if "result" in report:
        result = report["result"] if row[RESULT] else ""
    elif "leaf" in report or "status" in report:
        result = report.get("name", "")
    else:
        result = report.get("code", "") if name != "vmm_said" else ""
    return "", when, text, result, ""


def _places(rows: list[EventRow]) -> str | None:
    """The addresses of all reports of an incident, where they are more than the one that its summary names."""
    found: list[str] = []
    for report in map(facts, rows):
        if "gfn" in report:
            pages = f"+{report['pages']}" if report.get("pages", "None") != "None" else ""
            found.append(f"gfn {report['gfn']}{pages}" + (f" to {report['to']}" if "to" in report else ""))
        elif "pfn" in report:
            found.append(f"pfn {report['pfn']}")
    distinct = list(dict.fromkeys(found))
    more = f" and {len(distinct) - PLACES} more" if len(distinct) > PLACES else ""
    return ", ".join(distinct[:PLACES]) + more if distinct else None


def _explain(history: History, story: Story, result: str) -> None:
    """Whatever else of the record makes KVM_RUN return an errno: it is named, but nothing ties it to this VM."""

    def marked(cause: Cause) -> list[EventRow]:
        entries = history.memory.messed_up.values()
        return [history.marks[entry.id] for entry in entries if entry.cause is cause and entry.id in history.marks]

    found = []
    if result == "EIO":
        found += [
            f"bugged, by the failed private unmap at {history.place(row[SOURCE], row[LINE])}"
            for row in marked(Cause.SEPT_STILL_MAPS)
        ]
        for row in history.reports:
            report = facts(row)
            if row[KIND] == VmDead.code:
                found.append(f"dead, by {report.get('what', 'what is said')} at {history.place(row[SOURCE], row[LINE])}")
            elif row[KIND] == KernelWarned.code and (known := meaning(report)) is not None and known.ends_vm:
                found.append(f'bugged, by what is told as "{known.title}" at {history.place(row[SOURCE], row[LINE])}')
    else:
        found += [
            f"the page that could not be made private at {history.place(row[SOURCE], row[LINE])}"
            for row in marked(Cause.UNUSABLE_PRIVATE)
        ]
    if found:
        story.add("Perhaps", "; or ".join(dict.fromkeys(found[:4])) + " [same record; no line ties it to this VM]")


def unrelated(history: History, seen: Scene, incident: Incident) -> Story:
    """Warnings that stand beside a failure and have nothing to do with a guest's memory, as far as their stacks tell."""
    count = len(incident.reports)
    story = Story(
        "nobody",
        "unrelated warning" if count == 1 else "unrelated warnings",
        "the host",
        f"{words.count(count, 'warning')} of the kernel {'has' if count == 1 else 'have'} nothing to do with converting memory, by function and stack: "
        "do not look for the cause there.",
    )
    story.timeline = words.some([_beside(row) for row in incident.reports])
    story.evidence = words.evidence(history, incident.reports)
    return story


def _beside(row: EventRow) -> tuple[str, ...]:
    report = facts(row)
    said, when, text, _, _ = _row(row)
    place = report.get("function") or report.get("site") or ""
    return said, when, f"{report.get('what', '')} {text}".strip() if text != report.get("what") else text, place, ""
