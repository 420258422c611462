"""Conversions without a result on record, with a wrong one, and conversions inside of which a task was killed."""

from gmemstate.audit.history.history import History
from gmemstate.model.events import Capability
from gmemstate.model.units import END, duration, span
from gmemstate.postmortem import words
from gmemstate.postmortem.grouping import IncidentEvents
from gmemstate.postmortem.incident import Blame, Story, TimelineRow, step
from gmemstate.postmortem.scene import Scene
from gmemstate.text import count


def killed(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """A task was killed inside of a conversion: the ioctl is not interruptible and runs to its end."""
    own = incident.conversions
    first = own[0]
    ran = None if first.returned is None or first.struck is None else first.returned - first.struck
    after = f" {duration(ran)} after the signal" if ran is not None else ""
    end = (
        f"it ran to its end{after} and returned {words.errno_name(first.result)}"
        if first.result is not None
        else "its end is not on record"
    )
    story = Story(
        Blame.NOBODY,
        "killed inside a conversion",
        words.guest(incident.vm),
        f"The task was killed while {words.where(first)} was converted to {first.target}. The conversion was not interrupted: "
        f"{end}; the process died then. All-or-nothing held.",
    )
    rows: list[TimelineRow] = []
    for conversion in own:
        rows.append(words.row(conversion, "asked"))
        rows.append(step("signal", conversion.struck, f"signal to thread {conversion.thread}"))
        if conversion.result is not None:
            text = f"{words.errno_name(conversion.result)} to a caller that is dying"
            rows.append(step("return", conversion.returned, text))
    story.timeline = rows
    story.add(
        "Why",
        "neither conversion ioctl checks for signals; a large range takes as long as it takes (the lock of its guest is held "
        "meanwhile)",
    )
    story.add("Left", "nothing: the guest ends with its process")
    story.evidence = words.lines_of(history, own)
    return story


def result_unknown(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """Conversions of which the record shows the attempt but no result."""
    own = incident.conversions
    story = Story(
        Blame.UNKNOWN,
        "result not seen",
        words.guest(incident.vm),
        f"{count(len(own), 'conversion')} {'was' if len(own) == 1 else 'were'} attempted; this record does not show with what "
        "result. The state of these pages is unknown.",
        complete=False,
    )
    story.timeline = [words.row(conversion, note="the record ends inside" if conversion.gapped else "") for conversion in own]
    if Capability.RETURNED not in own[0].shown:
        story.missing.append(
            "the results: a tracepoint fires before the lock, the no-op test and every failure; add return probes on "
            "kvm_vm_ioctl and kvm_gmem_ioctl, or strace -f -T -e ioctl"
        )
    story.evidence = words.lines_of(history, own)
    return story


def short_success(history: History, seen: Scene, incident: IncidentEvents) -> Story:
    """The ioctl returned 0, and a part of its range was never on the list of work (RFC v2, compute_work; INV-40)."""
    own = incident.conversions
    story = Story(
        Blame.KERNEL,
        "returned success, partly applied",
        words.guest(incident.vm),
        f"{count(len(own), 'conversion')} returned 0, and only a part of the range was converted: a bug of the kernel. The VMM "
        "takes the whole range for converted.",
    )
    story.timeline = [words.row(conversion) for conversion in own]
    for conversion in own:
        if conversion.owner is not None and conversion.start is not None:
            runs = history.memory.runs(conversion.owner, conversion.start, conversion.end or END)
            states = ", ".join(f"{span(run.start, run.end)} {run.state}" for run in runs)
            story.add("Now", f"{words.unit(conversion)} {states}")
    story.add("Do", "repeat the whole request before the guest is answered or runs on; update the kernel")
    story.evidence = words.lines_of(history, own)
    return story
