"""Conversions that failed as a whole: refused because a page was in use, for lack of memory, or otherwise."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import Capability
from gmemstate.model.linux import EAGAIN, EFAULT, ENOMEM
from gmemstate.model.objects import Conversion
from gmemstate.model.units import END, duration
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import Episode, IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow
from gmemstate.postmortem.scene import Scene
from gmemstate.postmortem.stories import in_use, no_memory
from gmemstate.text import count

SHOWN = 8
"""How many conversions and answers are listed."""


def failed(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A conversion failed, and was repeated with success or not."""
    failures = [conversion for episode in incident.episodes for conversion in episode.failed]
    first = failures[0]
    applied = all(episode.last_success is not None for episode in incident.episodes)
    story = Story(
        Blame.UNKNOWN, "not applied, then applied" if applied else "not applied", words.guest(incident.vm), "", limit=SHOWN
    )
    story.evidence = words.lines_of(history, incident.all_conversions)
    story.timeline = _timeline(incident)
    story.add("Answer", _answers(history, failures))
    if first.start is None:
        story.missing.append(
            "the range: a system call shows a pointer only; next time tools/capture trace --pid PID-OF-THE-VMM"
        )
        story.complete = False
    if first.result == EAGAIN:
        story.blame = Blame.VMM
        story.summary = (
            in_use.summary(history, seen, incident, applied) if first.start is not None else _in_use_somewhere(failures)
        )
        in_use.explain(story, history, seen, incident)
    elif first.result == ENOMEM:
        story.blame, story.summary = Blame.MEMORY, _no_memory(incident, applied)
        _explain_no_memory(story, first, applied)
        no_memory.explain(story, history, seen, failures)
    else:
        text = words.errno_text(first.result or 0)
        story.summary = (
            f"{count(len(failures), 'conversion')} failed with {words.errno_name(first.result)}{f' ({text})' if text else ''}"
            + ("; the next request for all of it succeeded." if applied else ". Nothing was converted.")
        )
        if first.result == EFAULT and not first.in_vm:
            _explain_unwritten(story, first)
        else:
            story.missing.append("why it failed: no step of it that could fail is on record; add the probes of its steps")
    return story


_NO_RANGE = "Which range it was, and whether it was asked for again with success, no source shows."


def _in_use_somewhere(failures: list[Conversion]) -> str:
    were = "request was" if len(failures) == 1 else "requests were"
    refused = f"{len(failures)} {were} refused with EAGAIN: at least one page was in use."
    return f"{refused} No refusal changed an attribute. {_NO_RANGE}"


def _answers(history: History, failures: list[Conversion]) -> str | None:
    """What was returned to guests that had asked."""
    asked = {
        conversion.request: history.requests[conversion.request]
        for conversion in failures
        if conversion.request in history.requests
    }
    returned = [f"{request.result}{words.at(request.answered)}" for request in asked.values() if request.result is not None]
    return f"the guest had asked for it; {', '.join(returned[:SHOWN])} was returned to it" if returned else None


def _timeline(incident: IncidentEvents) -> list[TimelineRow]:
    rows: list[TimelineRow] = []
    for episode in incident.episodes:
        done: list[Conversion] = []
        before: Conversion | None = None
        for conversion in episode.conversions:
            note = words.took(conversion)
            if conversion.result == EAGAIN and conversion.error_page is not None:
                note = f"idx {conversion.error_page:#x} in use"
            again = (
                conversion.result
                and before is not None
                and (before.start, before.npages) == (conversion.start, conversion.npages)
            )
            if again and before is not None and before.asked is not None and conversion.asked is not None:
                note += f" (+{duration(conversion.asked - before.asked)})"
            old = _done_before(conversion, done)
            if conversion.result == 0 and old:
                note = f"{old} done before, {(conversion.npages or 0) - old} now"
            if conversion.result == 0:
                done.append(conversion)
            else:
                before = conversion
            rows.append(words.row(conversion, note=note))
    return rows


def _done_before(conversion: Conversion, done: list[Conversion]) -> int:
    """How many of its pages earlier conversions of the same pages had converted; these do not overlap each other."""
    start, end = conversion.start or 0, conversion.end or END
    return sum(max(0, min(end, c.end or 0) - max(start, c.start or 0)) for c in done)


def _explain_unwritten(story: Story, first: Conversion) -> None:
    """EFAULT after the arguments had been read: error_offset could not be written, and that errno hides the proper one."""
    story.blame = Blame.VMM
    if not first.answers:
        story.add("Why", "the arguments could not be read, or error_offset could not be written back: both return EFAULT")
        story.missing.append("which of the two: trace unmap_mapping_pages; it is called only after the arguments were read")
        story.complete = False
        return
    story.add(
        "Why",
        "the kernel had read the arguments and begun [observed], so the EFAULT is about the answer: error_offset could not "
        "be written back, as the structure lies in memory that is read-only. It hides the errno proper, EAGAIN: a page was "
        "in use [implied]",
    )
    story.add("Each", in_use.unmapped(first))
    story.add("Fix", "VMM: pass the arguments in memory that can be written; then repeat the whole request")


def _no_memory(incident: IncidentEvents, applied: bool) -> str:
    failures = sum(len(episode.failed) for episode in incident.episodes)
    failure = "failure" if failures == 1 else "failures"
    text = (
        f"An allocation of the kernel failed (ENOMEM) in {count(failures, 'conversion')}. Nothing was changed by the {failure}"
    )
    if incident.episodes[0].failed[0].start is None:
        return f"{text}. {_NO_RANGE}"
    if not applied:
        return text + "; the conversion was not repeated with success."
    waits = [wait for episode in incident.episodes if (wait := _wait(episode)) is not None]
    later = f" {duration(max(waits))} later" if waits else ""
    return text + f", and the retry{later} succeeded. Nothing is left over."


def _wait(episode: Episode) -> int | None:
    """From the first failure's return to the retry that did it all."""
    success, failure = episode.last_success, episode.failed[0]
    if success is None or success.asked is None or failure.returned is None:
        return None
    return success.asked - failure.returned


def _explain_no_memory(story: Story, first: Conversion, applied: bool) -> None:
    where = "attribute entries were reserved (xa_reserve)" if first.in_vm else "tree nodes were allocated (mas_preallocate)"
    story.add(
        "Why",
        f"ENOMEM while {where}, which comes before anything is changed: attributes and mappings are as they were"
        + (
            " [observed: no unmap between entry and return]"
            if not first.covered and first.shown & {Capability.ZAP, Capability.GUEST_UNMAP}
            else " [implied]"
        ),
    )
    story.add("Left", "nothing" if applied else "nothing: the pages are as they were")
    story.add(
        "Do", "nothing now" if applied else "retry when memory is free again; the request may be split into smaller ranges"
    )
    story.add(
        "Maybe",
        "the kernel was short of memory, a memory cgroup was at its limit, or a test makes allocations fail (fault injection)",
    )
    story.add("Host", "no page is lost by this [implied]")
