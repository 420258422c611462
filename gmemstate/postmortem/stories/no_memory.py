"""ENOMEM and the OOM killer: why a conversion returned ENOMEM, and VMMs that the kernel has killed."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import Dialect, KernelWarned, TaskSignalled
from gmemstate.model.machines.range import SHARED
from gmemstate.model.objects import PRESENT, Conversion, Vm
from gmemstate.model.reports import KernelReportCode
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, step
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count

NEAR = 1_000_000_000
"""ns: how near to a failure the report of its thread must be."""
CAUSES = {
    KernelReportCode.FAULT_INJECTION.value: "not short: the kernel's fault injection ({cache}) made an allocation "
    "of thread {thread} fail",
    KernelReportCode.PAGE_ALLOCATION.value: "the kernel found no free pages for thread {thread}",
}
"""Reports (lib/fault-inject.c fail_dump(), mm/page_alloc.c warn_alloc()) by what they say of an ENOMEM."""


def explain(story: Story, history: History, seen: Scene, failures: list[Conversion]) -> None:
    """Name the report of the threads that got ENOMEM; without one, ask for the log that would have it.

    A report and a conversion are joined by the number of their thread: the report names no ioctl.
    """
    threads = {failure.thread for failure in failures if failure.thread is not None}
    causes = [
        report
        for report in seen.reports.reports
        if isinstance(report.event, KernelWarned)
        and report.event.thread in threads
        and report.words.get("what") in CAUSES
        and any(_near(report.event.t, failure) for failure in failures if failure.thread == report.event.thread)
    ]
    if causes:
        facts = causes[0].words
        why = CAUSES[facts["what"]].format(cache=facts.get("cache", "of which kind is not said"), thread=facts["thread"])
        way = f", in: {facts['path']}" if "path" in facts else ""
        story.add("Memory", f"{why}{way} [joined by thread]")
        story.evidence += words.evidence(history, causes)
        if facts["what"] == KernelReportCode.FAULT_INJECTION and story.blame is Blame.MEMORY:
            story.blame = Blame.NOBODY
        return
    near = words.at(failures[0].returned, "near")
    story.missing.append(
        f"why memory ran out: look into dmesg{near} for 'page allocation failure', a memcg OOM or FAULT_INJECTION"
    )


def _near(t: int | None, failure: Conversion) -> bool:
    """Whether a report (ns) is of the time of a failure; where one of them has no time their thread alone ties them."""
    return t is None or failure.returned is None or abs(t - failure.returned) <= NEAR


def vmm_killed(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """The kernel had no memory and has killed a VMM: the guest ends with it, whatever was converted."""
    kills = [report.event for report in incident.reports if isinstance(report.event, TaskSignalled)]
    story = Story(
        Blame.MEMORY,
        incident.kind,
        words.guest(incident.vm),
        "The kernel ran out of memory and killed the VMM; the guest ends with it.",
    )
    story.timeline = [step("killed", kill.t, f"thread {kill.thread}, by the OOM killer") for kill in kills]
    story.evidence = words.evidence(history, incident.reports)
    kept = _kept_twice(history, incident.vm)
    if kept:
        story.add(
            "Memory",
            f"{count(kept, 'page')} of guest_memfd {'was' if kept == 1 else 'were'} shared at the end and still held a page "
            "of private memory in addition to the shared one [observed]: a conversion to shared frees nothing",
        )
    story.add("Left", "nothing: the guest ends with its process")
    story.add(
        "Fix",
        "VMM: punch the pages out of the guest_memfd (FALLOC_FL_PUNCH_HOLE) when they become shared, discard the shared ones "
        "when they become private; or allow for both",
    )
    story.missing.append(
        f"what used the memory: look into dmesg{words.at(kills[0].t, 'near')} for 'Out of memory' and its table of tasks"
    )
    return story


def _kept_twice(history: History, vm: Vm | None) -> int:
    """How many shared pages have private memory as well; in place both are one page."""
    memory = history.memory
    if vm is None or vm.dialect is not Dialect.MAINLINE:
        return 0
    return sum(
        min(end, low_end) - max(start, low)
        for run in memory.runs(vm.id)
        if run.state == SHARED
        for gmem, start, end, _ in memory.indices(vm.id, run.start, run.end)
        for low, low_end, backing in memory.gmems[gmem].backing.runs(start, end)
        if backing == PRESENT
    )
