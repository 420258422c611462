"""Pages and addresses: different things have different types, and ranges are half-open.

A *gfn* numbers the pages of a guest, a *page index* those of a guest_memfd, a *pfn* those of the host;
a *gpa* is a guest address in bytes. At run time all are plain integers. mypy keeps them apart where one becomes another
(memslots, addresses, host pages); an event's column that holds the one or the other by its attribute owner is a plain integer,
and so is what the range map is asked for.
"""

import re
from enum import StrEnum
from typing import Literal, NamedTuple, NewType

from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE

Gfn = NewType("Gfn", int)
Gpa = NewType("Gpa", int)
Pfn = NewType("Pfn", int)
PageIndex = NewType("PageIndex", int)
Page = NewType("Page", int)
"""A gfn, a page index or a pfn: the unit stands next to it."""
U64 = NewType("U64", int)
"""A size in bytes, an offset, a set of flags: what the kernel keeps in a u64."""
Ns = NewType("Ns", int)
"""A time or a duration in ns."""


Direction = Literal["private", "shared"]
"""What pages are converted to."""


def direction(word: str | None) -> Direction | None:
    """A word as a direction; None for every other word."""
    return "private" if word == "private" else "shared" if word == "shared" else None


class Unit(StrEnum):
    """What a page is numbered in."""

    GFN = "gfn"
    INDEX = "idx"
    """pages of a guest_memfd"""
    PFN = "pfn"


END = 1 << 64
"""The end of a range that has none: "to the end"."""

NS = 1_000_000_000


def gfn_of(gpa: Gpa) -> Gfn:
    """The gfn of the page that holds ``gpa`` (bytes)."""
    return Gfn(gpa >> PAGE_SHIFT)


def gpa_of(gfn: Gfn) -> Gpa:
    """The first byte of ``gfn``."""
    return Gpa(gfn << PAGE_SHIFT)


def pages(address: int, size: int) -> tuple[int, int] | None:
    """``(start, npages)`` of ``[address, address + size)`` in bytes, or None where that is no run of whole pages.

    None for what kvm_vm_ioctl_set_mem_attributes() answers with EINVAL: size 0, a wrap, a misalignment.
    """
    if size == 0 or (address | size) & (PAGE_SIZE - 1) or address + size > END:
        return None
    return address >> PAGE_SHIFT, size >> PAGE_SHIFT


def signed(u64: int) -> int:
    """The two's complement form in which a u64 is stored; what is no u64 stays as it is, and does not fit."""
    return u64 - (1 << 64) if 1 << 63 <= u64 < 1 << 64 else u64


def unsigned(i64: int) -> int:
    """The u64 of a stored integer."""
    return i64 & 0xFFFF_FFFF_FFFF_FFFF


def u64(value: int | None) -> U64 | None:
    """A u64 of a column, which holds it as a signed integer."""
    return None if value is None else U64(unsigned(value))


def ns(t: int | None) -> Ns | None:
    """A time (ns) of a column."""
    return None if t is None else Ns(t)


def bounded(end: int | None) -> Page | None:
    """The end of a range of pages as results have it: None where it has none."""
    return None if end is None or end >= END else Page(end)


def hexadecimal(value: int | None) -> str | None:
    """A u64 as JSON shows it."""
    return None if value is None else f"{unsigned(value):#x}"


def span(start: int, end: int | None) -> str:
    """A half-open range of pages as people read it: ``[0x100000,0x100080)``; ``end`` None is the end of everything."""
    return f"[{start:#x},{'end' if end is None or end >= END else f'{end:#x}'})"


def seconds(t: int | None) -> str:
    """A time in ns as seconds with microseconds, the way ftrace prints it; ``?`` for None."""
    if t is None:
        return "?"
    whole, part = divmod(t, NS)
    return f"{whole}.{part // 1000:06d}"


def duration(ns: int | None) -> str:
    """A duration in ns in the unit that a person would choose."""
    if ns is None:
        return "?"
    for unit, name in ((NS, "s"), (1_000_000, "ms"), (1_000, "us")):
        if abs(ns) >= unit:
            return f"{ns / unit:.3g} {name}" if abs(ns) < 100 * unit else f"{ns // unit} {name}"
    return f"{ns} ns"


def size_in_words(npages: int) -> str:
    """A number of 4 KiB pages with its size: ``256 pages (1 MiB)``."""
    size = npages << PAGE_SHIFT
    for shift, name in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift and not size & ((1 << shift) - 1):
            return f"{npages} page{'s' * (npages != 1)} ({size >> shift} {name})"
    return f"{npages} page{'s' * (npages != 1)}"


_NUMBER = r"(0x[0-9a-fA-F]+|[0-9]{1,20})"
_RANGE = re.compile(rf"(?:(gfn|gpa|idx|pfn):\s*)?{_NUMBER}(?:\s*(?:-|\.\.|,)\s*{_NUMBER}|\s*\+\s*{_NUMBER})?")


def _number(text: str) -> int:
    return int(text, 16 if text.startswith("0x") else 10)


class PageRange(NamedTuple):
    """Pages ``[start, end)`` in gfns, or in page indices of a guest_memfd."""

    unit: Unit
    start: int
    end: int = END

    def meets(self, unit: Unit, start: int | None, end: int | None) -> bool:
        """Whether pages ``[start, end)`` are among these; not if ``start`` is None (not known); None as ``end`` is no end."""
        return unit is self.unit and start is not None and start < self.end and self.start < (END if end is None else end)


def parse_range(text: str) -> PageRange | None:
    """Read ``0x100-0x200``, ``gfn:0x100``, ``gpa:0x100000+0x1000`` or ``idx:5``; None if it is none of these.

    A bare number is a gfn. ``a-b`` is half-open, ``a+n`` counts pages (bytes with ``gpa:``).
    """
    text = text.strip()
    match = _RANGE.fullmatch(text[1:-1] if text.startswith("[") and text.endswith(")") else text)
    if match is None:
        return None
    unit, first, last, count = match.groups()
    start = _number(first)
    if last is not None:
        end = _number(last)
    else:
        end = start + (_number(count) if count is not None else PAGE_SIZE if unit == "gpa" else 1)
    if unit == "gpa":
        start, end = start >> PAGE_SHIFT, (end + PAGE_SIZE - 1) >> PAGE_SHIFT
    return PageRange(Unit.GFN if unit in (None, "gpa") else Unit(unit), start, end) if start < end <= END else None
