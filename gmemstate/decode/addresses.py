"""Addresses of a guest: bytes to pages and back, and where a page lies in its huge page.

The shared bit of a TD's gpa is 47 or 51 (4 or 5 levels of EPT; arch/x86/kvm/vmx/tdx.c): KVM strips it before it makes a gfn,
what prints a raw gpa may show it. Error values of pfns: include/linux/kvm_host.h (KVM_PFN_ERR_MASK).
"""

from collections.abc import Iterator

from gmemstate.decode.meaning import Meaning, number_of
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE, PFN_ERROR
from gmemstate.model.units import Gfn, gpa_of, parse_range, size_in_words, span

SOURCE = "arithmetic of 4 KiB pages"
_HUGE = ((9, "2M"), (18, "1G"))
_SHARED_BITS = (51, 47)


def gpa(address: int) -> Meaning:
    """A guest physical address in bytes."""
    gfn, offset = address >> PAGE_SHIFT, address & (PAGE_SIZE - 1)
    details = [("gfn", f"{gfn:#x}" + (f", byte {offset:#x} of the page" if offset else "")), *_places(gfn)]
    for bit in _SHARED_BITS:
        if address >> bit & 1:
            details.append(
                ("shared bit", f"bit {bit} is set: on TDX perhaps the shared alias of gpa {address & ~(1 << bit):#x}")
            )
            break
    return Meaning("guest physical address", f"gpa {address:#x} = gfn {gfn:#x}", tuple(details), SOURCE)


def gfn(number: int) -> Meaning:
    """A guest frame number."""
    text = f"gfn {number:#x} = gpa {gpa_of(Gfn(number)):#x}"
    return Meaning("guest frame number", text, tuple(_places(number)), SOURCE)


def pfn(number: int) -> Meaning:
    """A host page frame number; values from 0x7ff0000000000000 are errors of KVM, no pages."""
    if number & PFN_ERROR:
        return Meaning("host page", f"{number:#x} is an error value of KVM, no page", (), "Linux include/linux/kvm_host.h")
    return Meaning("host page", f"pfn {number:#x} = host address {number << PAGE_SHIFT:#x}", (), SOURCE)


def size(length: int) -> Meaning:
    """A length in bytes."""
    if length & (PAGE_SIZE - 1):
        return Meaning("size", f"{length:#x} bytes, not a whole number of pages", (), SOURCE)
    return Meaning("size", size_in_words(length >> PAGE_SHIFT), (), SOURCE)


def page_level(level: int) -> Meaning | None:
    """KVM's page size level, which counts from 1."""
    names = {1: "4K", 2: "2M (512 pages)", 3: "1G (262144 pages)"}
    return Meaning("page size", names[level], (), "Linux asm/pgtable_types.h (PG_LEVEL_*)") if level in names else None


def address_of(text: str) -> Meaning | None:
    """Read ``gpa:0x4000000``, ``gfn:0x4000``, or a range: ``gfn:0x4000+16``, ``gpa:0x4000000+0x1000``, ``gfn:0x10-0x20``."""
    unit, colon, rest = text.strip().lower().partition(":")
    if not colon or unit not in ("gpa", "gfn"):
        return None
    number = number_of(rest)
    if number is None:
        place = parse_range(f"{unit}:{rest}")
        if place is None:
            return None
        npages = place.end - place.start
        details = (("gpa", span(place.start << PAGE_SHIFT, place.end << PAGE_SHIFT)), ("size", size_in_words(npages)))
        return Meaning("guest range", f"gfns {span(place.start, place.end)}", details, SOURCE)
    if not 0 <= number < 1 << 64:
        return None
    return gpa(number) if unit == "gpa" else gfn(number)


def _places(gfn: int) -> Iterator[tuple[str, str]]:
    """Where a page lies in its huge pages."""
    for shift, name in _HUGE:
        first = gfn >> shift << shift
        at = f"page {gfn - first} of gfns {span(first, first + (1 << shift))}"
        yield name, at if gfn > first else f"first page of the {name} range"
