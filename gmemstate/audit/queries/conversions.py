"""Conversions with their verdicts."""

from collections.abc import Iterator
from dataclasses import dataclass

from gmemstate.audit.history.history import CorroboratingReport, History
from gmemstate.audit.queries.evidence import Lines, guest_name, lines
from gmemstate.model.document import Document
from gmemstate.model.events import Through, details
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, Trigger
from gmemstate.model.units import END, U64, Direction, Gfn, Gpa, Ns, Page, PageRange, Unit, bounded, direction, gpa_of, ns, u64
from gmemstate.model.verdict import Applied, Basis, Label, Residue, Verdict, arguments_known, error_offset_counts, verdict


@dataclass(frozen=True, slots=True)
class AppliedRow(Document):
    """How much of a conversion took effect: ``extent`` all, part, none or unknown, and the pages ``[start, end)``."""

    extent: str
    ranges: tuple[tuple[Page, Page | None], ...]
    unit: Unit
    basis: Basis | None


@dataclass(frozen=True, slots=True)
class ResidueRow(Document):
    """What a conversion left different: mappings that a user lost, or pages that cannot be trusted."""

    what: str
    unit: Unit
    start: Page | None
    end: Page | None
    entries: int | None
    """how many mappings or pages, where it is known"""
    basis: Basis


@dataclass(frozen=True, slots=True)
class Corroboration(Document):
    """What another source says of the result of a conversion: 0, an errno, or None where it only shows that it was asked."""

    file: str
    line: int | None
    errno: int | None
    join: str
    """what says that it is the same conversion"""


@dataclass(frozen=True, slots=True)
class ConversionRow(Document):
    """One conversion (KVM_SET_MEMORY_ATTRIBUTES, or the call on a guest_memfd) with its verdict."""

    id: int
    """the seq of its first event"""
    guest: str
    """``?`` if it is not known"""
    thread: int | None
    through: Through
    arguments_known: bool
    """the arguments on record are those that were passed"""
    gpa: Gpa | None
    """bytes; of a guest_memfd, where its pages are in the guest"""
    offset: U64 | None
    """bytes in the guest_memfd; None for a conversion of a VM"""
    size: U64 | None
    """bytes"""
    attributes: U64 | None
    to: Direction | None
    """None if it is not known, or no attribute at all"""
    start: Gfn | None
    end: Gfn | None
    errno: int | None
    """0 for success; None if it was not seen, or sources disagree"""
    error_offset: U64 | None
    """bytes in the guest_memfd, with EAGAIN and ENOMEM"""
    applied: AppliedRow
    residue: tuple[ResidueRow, ...] | None
    """None where steps may have gone unseen"""
    label: Label
    stuck: bool
    dying: bool
    """its task was killed meanwhile"""
    trigger: Trigger
    request: int | None
    """the id of the guest's request that it serves"""
    observed_ns: Ns | None
    """when it was first observed"""
    started_ns: Ns | None
    """when the ioctl was entered"""
    ended_ns: Ns | None
    evidence: Lines | None
    corroborations: tuple[Corroboration, ...]

    @property
    def pages(self) -> PageRange | None:
        """The whole pages that were asked for, in gfns of the VM or pages of the guest_memfd; None if they are not known."""
        address = self.gpa if self.through is Through.VM_IOCTL else self.offset
        if address is None or not self.size or (address | self.size) & (PAGE_SIZE - 1):
            return None
        unit = Unit.GFN if self.through is Through.VM_IOCTL else Unit.INDEX
        return PageRange(unit, address >> PAGE_SHIFT, min(address + self.size >> PAGE_SHIFT, END))

    def meets(self, pages: PageRange) -> bool:
        """Whether it is about some of these pages, by their gfns or by their indices."""
        asked = self.pages
        return pages.meets(Unit.GFN, self.start, self.end) or (asked is not None and pages.meets(*asked))


def judged(history: History, conversion: Conversion) -> Verdict:
    """The verdict of a conversion at the end of a history."""
    return verdict(conversion, history.memory.sources.get(conversion.source or 0))


def conversions(history: History) -> Iterator[ConversionRow]:
    """All conversions, oldest first."""
    return (conversion_row(history, conversion) for conversion in history.ordered())


def conversion_row(history: History, conversion: Conversion) -> ConversionRow:
    """One conversion with its verdict."""
    address, size = _asked(conversion)
    start, end = gfns(history, conversion) or (None, None)
    known, in_vm = arguments_known(conversion), conversion.through is Through.VM_IOCTL
    found, returned = judged(history, conversion), history.result_of(conversion)
    return ConversionRow(
        id=conversion.id,
        guest=guest_name(history, conversion.owner),
        thread=conversion.thread,
        through=conversion.through,
        arguments_known=known,
        gpa=(None if address is None else Gpa(address)) if in_vm else None if start is None else gpa_of(start),
        offset=None if in_vm else address,
        size=size,
        attributes=u64(conversion.attributes) if known else None,
        to=direction(conversion.target) if known else None,
        start=start,
        end=end,
        errno=returned,
        error_offset=u64(conversion.error_offset) if error_offset_counts(conversion) else None,
        applied=applied_row(found.applied, Unit.GFN if in_vm else Unit.INDEX),
        residue=residue_rows(history.memory, found.residue),
        label=found.label if returned == found.result else Label.UNKNOWN if returned else Label.COMMITTED,
        stuck=conversion.stuck,
        dying=conversion.dying,
        trigger=conversion.trigger,
        request=conversion.request,
        observed_ns=ns(conversion.first_observed),
        started_ns=ns(conversion.asked),
        ended_ns=ns(conversion.returned),
        evidence=lines(history, conversion.source, conversion.first_line, conversion.last_line),
        corroborations=_corroborations(history, conversion),
    )


def _asked(conversion: Conversion) -> tuple[U64 | None, U64 | None]:
    """Address and size in bytes as they were asked, unaligned or not; None where the kernel could not read them."""
    if not arguments_known(conversion):
        return None, None
    if conversion.start is not None and conversion.npages is not None:
        return u64(conversion.start << PAGE_SHIFT), u64(conversion.npages << PAGE_SHIFT)
    odd = details(conversion.detail)
    return (u64(int(odd["address"], 16)), u64(int(odd["size"], 16))) if "address" in odd and "size" in odd else (None, None)


def gfns(history: History, conversion: Conversion) -> tuple[Gfn, Gfn] | None:
    """The gfns ``[start, end)`` that a conversion is about, if they are whole pages and known."""
    if not arguments_known(conversion) or conversion.start is None or conversion.end is None:
        return None
    found = (conversion.start, conversion.end) if conversion.in_vm else history.places.get(conversion.id)
    return None if found is None else (Gfn(found[0]), Gfn(found[1]))


def applied_row(applied: Applied, unit: Unit) -> AppliedRow:
    """How much took effect, in gfns or page indices."""
    ranges = tuple((Page(first), bounded(last)) for first, last in applied.ranges)
    return AppliedRow(applied.extent, ranges, unit, applied.basis)


def residue_rows(memory: Memory, residue: tuple[Residue, ...] | None) -> tuple[ResidueRow, ...] | None:
    """What was left different; None where steps may have gone unseen."""
    if residue is None:
        return None
    return tuple(
        ResidueRow(
            left.what,
            Unit.GFN if left.owner in memory.vms else Unit.INDEX,
            None if left.start is None else Page(left.start),
            bounded(left.end),
            left.entries,
            left.basis,
        )
        for left in residue
    )


def _corroborations(history: History, conversion: Conversion) -> tuple[Corroboration, ...]:
    """What other sources say of the result: it is known from them if its own has not shown it."""
    reports = list(history.corroborating.get(conversion.id, ()))
    if conversion.result_from is not None and conversion.result is not None:
        reports.insert(0, CorroboratingReport(*conversion.result_from, conversion.result))
    return tuple(
        Corroboration(history.sources[source].name, line, result, join)
        for source, line, result, join in reports
        if source in history.sources
    )
