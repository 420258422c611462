"""Words for numbers: ranges, moments, errnos, as every story uses them."""

from collections.abc import Sequence

from gmemstate import decode, text
from gmemstate.audit.history.history import History
from gmemstate.model.events import DETAIL, LINE, SOURCE, EventRow, Through, details
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.objects import Conversion, FaultExit, Request, Vm
from gmemstate.model.units import duration, seconds, span
from gmemstate.model.verdict import arguments_known
from gmemstate.postmortem.story import Evidence

count = text.count


def errno_name(code: int | None) -> str:
    """An errno by its name, as far as it was seen."""
    return "not seen" if code is None else decode.errno_name(code)


def errno_text(code: int) -> str:
    """What glibc says of an errno, in lower case; its name where that is not known."""
    error = decode.errno(code)
    return decode.errno_name(code) if error is None or error.text is None else error.text.lower()


def guest(history: History, vm: Vm | None) -> str:
    """A guest with what helps to find it: its process and its pointer."""
    if vm is None:
        return "guest not known"
    comm = details(vm.detail).get("comm")
    process = f"{comm} {vm.thread}" if comm else f"thread {vm.thread}"
    pointer = f", kvm {vm.pointer:#x}" if vm.pointer is not None else ""
    return f"{vm.name} ({process}{pointer})"


def where(conversion: Conversion) -> str:
    """The range of a conversion in its own unit: ``gfn [..)`` or ``idx [..)``."""
    if not arguments_known(conversion):
        return "arguments that the kernel did not read"
    if conversion.start is None or conversion.end is None:
        odd = details(conversion.detail)
        return f"{odd['address']}+{odd['size']}" if "address" in odd else "range not known"
    return f"{unit(conversion)} {span(conversion.start, conversion.end)}"


def unit(conversion: Conversion) -> str:
    """``gfn`` or ``idx``."""
    return "gfn" if conversion.through is Through.VM_IOCTL else "idx"


def took(conversion: Conversion) -> str:
    """How long a conversion took; nothing where its line has one time only, as in strace without ``-T``."""
    if conversion.asked is None or conversion.returned is None or conversion.returned == conversion.asked:
        return ""
    return duration(conversion.returned - conversion.asked)


def line(conversion: Conversion, note: str = "") -> tuple[str, ...]:
    """A conversion as a line of a timeline."""
    returned = conversion.target is not None or conversion.start is not None
    aim = f" to {conversion.target or '?'}" if returned and arguments_known(conversion) else ""
    return (
        seconds(conversion.first_observed),
        f"{where(conversion)}{aim}",
        errno_name(conversion.result),
        note or took(conversion),
    )


def fault(exit_: FaultExit, note: str | None = None) -> tuple[str, ...]:
    """A KVM_EXIT_MEMORY_FAULT as a line of a timeline."""
    kind = {True: "private", False: "shared", None: "?"}[exit_.private]
    at = "an address that is not shown" if exit_.start is None else f"gfn {exit_.start:#x}"
    said = f"thread {exit_.thread}" if note is None else note
    return seconds(exit_.t), f"{kind} access to {at}", errno_name(exit_.result), said


def at(t: int | None, word: str = "at") -> str:
    """When something was, as a part of a sentence; nothing where the clock of the trace does not count seconds."""
    return "" if t is None else f" {word} {seconds(t)}"


def on(t: int | None) -> str:
    """Since when something was, as :func:`at` tells it."""
    return "" if t is None else f" from {seconds(t)} on"


def some(rows: list[tuple[str, ...]], shown: int = 12) -> list[tuple[str, ...]]:
    """The first rows of a timeline, and how many more there are."""
    if len(rows) <= shown:
        return rows
    return [*rows[:shown], ("", "", f"... and {len(rows) - shown} more", "", "")]


def pages_of(conversion: Conversion) -> int:
    """How many pages a conversion is about."""
    return conversion.npages or 0


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


def evidence(history: History, rows: list[EventRow]) -> list[Evidence]:
    """The lines that events were read from."""
    labels = history.labels()
    found = []
    for row in rows:
        source = history.sources.get(row[SOURCE] or 0)
        if source is not None and row[LINE] is not None:
            last = details(row[DETAIL]).get("last") or row[LINE]
            found.append(Evidence(source.name, labels[source.id], row[LINE], last))
    return found


WHO_HELD = "who held the page: trace iommufd/vfio map and unmap, or read the VMM's log"


def bytes_of(index: int) -> str:
    """A page as a byte offset."""
    return f"{index << PAGE_SHIFT:#x}"
