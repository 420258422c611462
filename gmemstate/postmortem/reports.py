"""What kernels and VMMs reported, as typed events and as words for the patterns of known problems and meanings."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import NamedTuple, Self

from gmemstate import decode
from gmemstate.audit.history.history import History
from gmemstate.model.events import OWNER, SEQ, Event, EventRow, KernelWarned, details, event_of
from gmemstate.model.linux import PAGES_2M
from gmemstate.model.log_owner import LogEvidence, LogOwner, evidence_of, owner_of
from gmemstate.model.reports import REGION_END, KernelReportCode

_HEX = frozenset(("start", "pfn", "iova", "address", "flags", "status"))
_LEFT_OUT = frozenset(("t", "line", "source", "detail"))


@dataclass(frozen=True, slots=True)
class ReportedEvent:
    """An event on record: typed, and as words."""

    seq: int
    owner: int | None
    event: Event
    words: dict[str, str]
    """its kind, its fields (a result by the name of its errno), its detail and ``place``; pages as ``gfn`` and ``pages``"""

    @property
    def last_line(self) -> int:
        """The last of the lines that it was read from; 0 where it was read from none."""
        return int(self.words.get("last") or self.event.line or 0)

    @classmethod
    def of(cls, row: EventRow) -> Self:
        """A row of a record."""
        event = event_of(row)
        found = detail_words(event.detail) | {"kind": type(event).name}
        for one in fields(event):
            value = getattr(event, one.name)
            if value is not None and one.name not in _LEFT_OUT:
                found[one.name] = _word(one.name, value)
        for name, known in (("gfn", "start"), ("pages", "npages")):
            if known in found:
                found.setdefault(name, found[known])
        if _tied(found):
            found["tied"] = "yes"
        return cls(row[SEQ], row[OWNER], event, found)


def detail_words(detail: str | None) -> dict[str, str]:
    """What the detail of an event holds, each fact as text."""
    return {name: _shown(value) for name, value in details(detail).items()}


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {part}" for name, part in value.items())
    if isinstance(value, list) and all(isinstance(run, list) and len(run) == 2 for run in value):
        return ", ".join(f"[{first},{end})" for first, end in value)
    if isinstance(value, list) and all(isinstance(run, list) and len(run) == 3 for run in value):
        return "; ".join(f"{first}-{last} {owner}" for first, last, owner in value)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "; ".join(value)
    return value if isinstance(value, str) else repr(value)


def _word(name: str, value: object) -> str:
    if name == "result" and isinstance(value, int):
        return decode.errno_name(value)
    if isinstance(value, Enum):
        return value.name
    return hex(value) if name in _HEX and isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True)
class Reports:
    """What kernels and VMMs reported, in order; and what has made host pages messed up, by the id of the entry."""

    reports: list[ReportedEvent] = field(default_factory=list)
    marks: dict[int, ReportedEvent] = field(default_factory=dict)
    owners: dict[int | None, LogOwner] = field(default_factory=dict)
    """whose log each source is, where its lines decide that"""

    boots: tuple[int, ...] = ()
    """the seqs of reboots of the host"""

    def owner(self, report: ReportedEvent) -> LogOwner:
        """Whose log a report stands in."""
        return self.owners.get(report.event.source, LogOwner.UNKNOWN)

    @classmethod
    def of(cls, history: History) -> Self:
        """Those of a history, each with what the host's kernel said of its page when it started."""
        found = cls(
            [ReportedEvent.of(row) for row in history.reports],
            {key: ReportedEvent.of(row) for key, row in history.marks.items()},
            boots=tuple(row[SEQ] for row in history.boots),
        )
        regions = [
            MemoryRegion(one.words["of"], int(one.words["first"], 16), int(one.words[REGION_END], 16))
            for one in found.reports
            if isinstance(one.event, KernelWarned) and one.words.get("what") == KernelReportCode.MEMORY_MAP
        ]
        for one in found if regions else ():
            if "pfn" in one.words and (place := _place(regions, int(one.words["pfn"], 16))):
                one.words["place"] = place
        evidence: dict[int | None, set[LogEvidence]] = {}
        for one in found:
            of_it = evidence.setdefault(one.event.source, set())
            if (proof := evidence_of(one.words)) is not None:
                of_it.add(proof)
            if "path" in one.words or one.words.get("module") in KVM_MODULES or _HOST_SIDE(places(one.words)):
                of_it.add(LogEvidence.HYPERVISOR)
        found.owners.update({source: owner_of(shown) for source, shown in evidence.items()})
        return found

    def __iter__(self) -> Iterator[ReportedEvent]:
        yield from self.marks.values()
        yield from self.reports


_MODULES = re.compile(r"kvm(?:_intel|_amd)?|ccp|vfio.*|iommufd|tdx.*").fullmatch
KVM_MODULES = frozenset(("kvm", "kvm_intel", "kvm_amd"))
"""A report in one of these, or on a way into them, is one of a kernel that runs guests."""
_HOST_SIDE = re.compile(
    r"\b(?:kvm_(?:gmem|mmu|vm|vcpu|arch|tdp)_|tdx_(?:sept|td|vcpu)_|sev_gmem_|rmpupdate\b|vmx_|svm_|vt_)"
).search
_OF_GUEST_MEMORY = re.compile(
    r"kvm|gmem|guest_memfd|tdx|tdh_|tdp_mmu|seamcall|sept|\bsev_|snp|rmp(?:update)?(?:_|\b)|psmash|vmx_|svm_|vfio|iommufd"
    r"|accept_(?:memory|page)|unaccepted|pvalidate|vmgexit|ghcb|memory_failure|hwpoison|set_memory_(?:en|de)crypted"
).search


def _tied(words: Mapping[str, str]) -> bool:
    """Whether a report names something that has to do with guests' memory: where it was, its module, its stack."""
    if any(name in words for name in ("about", "path", "inside")) or _MODULES(words.get("module", "")):
        return True
    return _OF_GUEST_MEMORY(places(words)) is not None


def places(words: Mapping[str, str]) -> str:
    """The functions that a report names."""
    return " ".join(words.get(name, "") for name in ("function", "rip", "frames", "atomic_in", "allocated_in", "freed_in"))


class MemoryRegion(NamedTuple):
    """Host pages ``[start, end)`` and what the kernel said of them.

    Sources: arch/x86/virt/svm/sev.c (RMP table), arch/x86/kernel/e820.c, mm/memblock.c, mm/mm_init.c (Linux 6.8 to 7.2).
    """

    what: str
    start: int
    end: int


def _place(regions: list[MemoryRegion], pfn: int) -> str:
    """What the kernel said of a host page, as far as it explains why the RMP refuses it."""
    kinds = {region.what for region in regions if region.start <= pfn < region.end}
    tables = [region for region in regions if region.what == "RMP table"]
    edges = {edge & -PAGES_2M for table in tables for edge in (table.start, table.end - 1)}
    place = []
    if pfn & -PAGES_2M in edges and not any(table.start <= pfn < table.end for table in tables):
        place.append("next to the RMP table, in one 2M region with its edge")
    if "reserved" in kinds:
        place.append("reserved in the memory map")
    if "memory of a node" in kinds:
        place.append("yet ordinary memory of a node")
    return ", ".join(place)
