"""Phrases that several stories use: guests, ranges, moments, the lines that show something."""

from collections.abc import Iterable, Sequence

from gmemstate import decode
from gmemstate.audit.history.history import History
from gmemstate.decode.errnos import TEXTS
from gmemstate.model.events import UserAnswered, details, event_of
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.objects import Conversion, FaultExit, Request, Vm
from gmemstate.model.units import Unit, duration, seconds, span
from gmemstate.model.verdict import arguments_known
from gmemstate.postmortem.incident import Evidence, TimelineRow, step
from gmemstate.postmortem.reports import ReportedEvent

WHO_HELD = "who held the page: trace iommufd/vfio map and unmap, or read the VMM's log"


def errno_name(code: int | None) -> str:
    """An errno by its name, as far as it was seen."""
    return "not seen" if code is None else decode.errno_name(code)


def errno_text(code: int) -> str:
    """What glibc prints for an errno, without the capital; empty where the tables have no text."""
    return TEXTS.get(code, "").lower()


def guest(vm: Vm | None) -> str:
    """A guest with what helps to find it: its process and its pointer."""
    if vm is None:
        return "guest not known"
    comm = details(vm.detail).get("comm")
    process = f"{comm} {vm.thread}" if comm else f"thread {vm.thread}" if vm.thread is not None else ""
    pointer = f"kvm {vm.pointer:#x}" if vm.pointer is not None else ""
    known = ", ".join(part for part in (process, pointer) if part)
    return f"{vm.name} ({known})" if known else vm.name


def where(conversion: Conversion) -> str:
    """The range of a conversion in its own unit: ``gfn [..)`` or ``idx [..)``."""
    if not arguments_known(conversion):
        return "arguments that the kernel did not read"
    if conversion.start is None or conversion.end is None:
        odd = details(conversion.detail)
        return f"{odd['address']}+{odd['size']}" if "address" in odd else "range not known"
    return f"{unit(conversion)} {span(conversion.start, conversion.end)}"


def unit(conversion: Conversion) -> Unit:
    """What its pages are numbered in."""
    return Unit.GFN if conversion.in_vm else Unit.INDEX


def took(conversion: Conversion) -> str:
    """How long a conversion took; nothing where its line has one time only, as in strace without ``-T``."""
    if conversion.asked is None or conversion.returned is None or conversion.returned == conversion.asked:
        return ""
    return duration(conversion.returned - conversion.asked)


def row(conversion: Conversion, what: str = "", note: str = "") -> TimelineRow:
    """A conversion as a row of a timeline."""
    known = conversion.target is not None or conversion.start is not None
    aim = f" to {conversion.target or '?'}" if known and arguments_known(conversion) else ""
    text = f"{where(conversion)}{aim}"
    return step(what, conversion.first_observed, text, errno_name(conversion.result), note or took(conversion))


def fault_row(exit_: FaultExit, note: str | None = None, what: str = "fault") -> TimelineRow:
    """A KVM_EXIT_MEMORY_FAULT as a row of a timeline."""
    kind = {True: "private", False: "shared", None: "?"}[exit_.private]
    place = "an address that is not shown" if exit_.start is None else f"gfn {exit_.start:#x}"
    shown = f"thread {exit_.thread}" if note is None else note
    return step(what, exit_.t, f"{kind} access to {place}", errno_name(exit_.result), shown)


def at(t: int | None, word: str = "at") -> str:
    """When (ns) something was, as a part of a sentence; nothing where the clock of the trace does not count seconds."""
    return "" if t is None else f" {word} {seconds(t)}"


def on(t: int | None) -> str:
    """Since when (ns) something was, as a part of a sentence."""
    return "" if t is None else f" from {seconds(t)} on"


def answers(conversion: Conversion) -> list[UserAnswered]:
    """How the users of its pages answered a conversion."""
    return [event for row in conversion.answers if isinstance(event := event_of(row), UserAnswered)]


def lines_of(history: History, things: Sequence[Conversion | Request | FaultExit]) -> list[Evidence]:
    """The lines that show some conversions, requests or faults, in order."""
    labels = history.labels()
    found = []
    for thing in things:
        first, last = (thing.line, thing.line) if isinstance(thing, FaultExit) else (thing.first_line, thing.last_line)
        source = history.sources.get(thing.source or 0)
        if source is not None and first is not None:
            found.append(Evidence(source.name, labels[source.id], first, last or first))
    return sorted(found)


def evidence(history: History, reports: Iterable[ReportedEvent]) -> list[Evidence]:
    """The lines that reports were read from."""
    labels = history.labels()
    found = []
    for report in reports:
        source, line = history.sources.get(report.event.source or 0), report.event.line
        if source is not None and line is not None:
            found.append(Evidence(source.name, labels[source.id], line, report.last_line))
    return found


def bytes_of(index: int) -> str:
    """A page as a byte offset."""
    return f"{index << PAGE_SHIFT:#x}"
