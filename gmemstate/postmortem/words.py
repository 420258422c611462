"""Words for numbers: ranges, moments, errnos, as every story uses them."""

import errno as _errno
import os

from gmemstate.audit.history import History
from gmemstate.model.events import Through, details
from gmemstate.model.objects import Conversion, Vm
from gmemstate.model.units import PAGE_SHIFT, duration, seconds, span
from gmemstate.model.verdict import arguments_known

EHWPOISON = 133
BY_BASIS = {"observed": "[observed]", "implied": "[implied]", "assumed": "[assumed]"}


def errno_name(code: int | None) -> str:
    """``ENOMEM`` for 12; ``0`` for success, ``?`` for what was not seen."""
    if code is None:
        return "not seen"
    if code == 0:
        return "0"
    return "EHWPOISON" if code == EHWPOISON else _errno.errorcode.get(code, str(code))


def errno_text(code: int) -> str:
    """What the C library says of an errno."""
    return "memory page has hardware error" if code == EHWPOISON else os.strerror(code).lower()


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
    """How long a conversion took."""
    if conversion.asked is None or conversion.returned is None:
        return ""
    return duration(conversion.returned - conversion.asked)


def line(conversion: Conversion, note: str = "") -> tuple[str, ...]:
    """A conversion as a line of a timeline."""
    aim = f" to {conversion.target or '?'}" if arguments_known(conversion) else ""
    return seconds(conversion.asked), f"{where(conversion)}{aim}", errno_name(conversion.result), note or took(conversion)


def count(n: int, thing: str, plural: str | None = None) -> str:
    """``1 page``, ``3 pages``."""
    return f"{n} {thing}" if n == 1 else f"{n} {plural or thing + 's'}"


def pages_of(conversion: Conversion) -> int:
    """How many pages a conversion is about."""
    return conversion.npages or 0


def lines_of(history: History, conversions: list[Conversion]) -> str:
    """The lines that show some conversions: ``ftrace.txt:642-777,780-783``."""
    by_file: dict[str, list[str]] = {}
    for conversion in conversions:
        source = history.sources.get(conversion.source or 0)
        if source is not None and conversion.first_line is not None:
            last = conversion.last_line or conversion.first_line
            shown = f"{conversion.first_line}-{last}" if last != conversion.first_line else str(last)
            by_file.setdefault(source.name, []).append(shown)
    parts = []
    for name, ranges in by_file.items():
        more = f" and {len(ranges) - 8} more" if len(ranges) > 8 else ""
        parts.append(f"{name}:{','.join(ranges[:8])}{more}")
    return "; ".join(parts)


def hva(address: int) -> str:
    """A host virtual address."""
    return f"{address:#x}"


def bytes_of(index: int) -> str:
    """A page as a byte offset."""
    return f"{index << PAGE_SHIFT:#x}"
