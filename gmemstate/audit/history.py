"""One pass over a record: the memory at its end, and everything that happened on the way."""

import re
from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gmemstate.model.errors import UsageError
from gmemstate.model.events import (
    DETAIL,
    KIND,
    LINE,
    SEQ,
    SOURCE,
    VALUE,
    Capability,
    DmaFaulted,
    EventRow,
    Gap,
    GeneralProtection,
    HkidLeaked,
    KernelWarned,
    MachineCheck,
    PageLeaked,
    Poisoned,
    PrivateMapFailed,
    PrivateUnmapFailed,
    ReclaimFailed,
    RmpViolation,
    SourceOpened,
    SourceRead,
    T,
    TaskStuck,
    VmBugged,
    VmDead,
    VmmSaid,
    details,
)
from gmemstate.model.findings import Finding
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, FaultExit, Request, Trigger
from gmemstate.model.record import Record
from gmemstate.model.units import NS, seconds

AT_ONCE = 10_000
REPORTS = frozenset(
    kind.code
    for kind in (
        DmaFaulted, GeneralProtection, HkidLeaked, KernelWarned, MachineCheck, RmpViolation, TaskStuck, VmBugged, VmDead, VmmSaid
    )
)  # fmt: skip
"""Kinds that no conversion needs and that a post-mortem may be about."""
MARKS = frozenset(kind.code for kind in (PageLeaked, Poisoned, PrivateMapFailed, PrivateUnmapFailed, ReclaimFailed))


@dataclass(slots=True)
class SourceFacts:
    """What the record says of one source."""

    id: int
    name: str
    format: str
    account: dict[str, Any] = field(default_factory=dict)
    """the account of its lines, as of its last reading"""
    gaps: list[tuple[int | None, int | None]] = field(default_factory=list)
    """line and number of lost events of each gap"""

    @property
    def damage(self) -> str | None:
        """Why it is not whole, as of its last reading."""
        return self.account.get("damage") if self.account else "its reading has not come to an end"


class History:
    """Folds a record and remembers what the memory lets go: ended conversions, requests, faults, findings."""

    def __init__(self, *, live: bool = False, last: int | None = None) -> None:
        """``last`` is the seq at which the asker stops, None for the end of the record."""
        self.memory = Memory(live=live)
        self.last = last
        self.sources: dict[int, SourceFacts] = {}
        self.conversions: dict[int, Conversion] = {}
        self.places: dict[int, tuple[int, int] | None] = {}
        """for conversions of guest_memfds: the gfns behind them when they ended"""
        self.unexplained: list[int] = []
        """conversions of which it is not known why they were asked, in order"""
        self.requests: dict[int, Request] = {}
        self.faults: list[FaultExit] = []
        self.findings: list[Finding] = []
        self.reports: list[EventRow] = []
        """what kernels and VMMs have said of themselves, guests and devices"""
        self.marks: dict[int, EventRow] = {}
        """what has made host pages messed up, by the id of the entry"""

    def fold(self, rows: Iterable[EventRow]) -> "History":
        """Apply rows in order."""
        apply, memory = self.memory.apply, self.memory
        for n, row in enumerate(rows, 1):
            apply(row)
            if row[KIND] in _ABOUT_SOURCES:
                self._source(row)
            elif row[KIND] in REPORTS:
                self.reports.append(row)
            elif row[KIND] in MARKS:
                self.marks[row[SEQ]] = row
            if memory.ended or n % AT_ONCE == 0:
                self._collect()
        self._collect()
        for conversion in memory.conversions.values():
            self._keep(conversion)
        return self

    def _source(self, row: EventRow) -> None:
        if row[KIND] == SourceOpened.code:
            facts = details(row[DETAIL])
            self.sources[row[SEQ]] = SourceFacts(row[SEQ], facts.get("name", "?"), facts.get("format", "?"))
            return
        source = self.sources.get(row[SOURCE] or 0)
        if source is None:
            return
        if row[KIND] == SourceRead.code:
            source.account = details(row[DETAIL])
        else:
            source.gaps.append((row[LINE], row[VALUE]))

    def _collect(self) -> None:
        memory = self.memory
        for conversion in memory.ended:
            self._keep(conversion)
        for request_id in memory.changed_requests:
            self.requests[request_id] = memory.requests[request_id]
        self.faults += memory.faults
        self.findings += memory.findings
        memory.forget_news()

    def _keep(self, conversion: Conversion) -> None:
        self.conversions[conversion.id] = conversion
        if conversion.trigger is Trigger.UNKNOWN:
            insort(self.unexplained, conversion.id)
        if not conversion.in_vm and conversion.start is not None and conversion.end is not None:
            self.places[conversion.id] = self._gfns(conversion.space, conversion.start, conversion.end)

    def _gfns(self, gmem: int | None, start: int, end: int) -> tuple[int, int] | None:
        """The gfns behind indices of a guest_memfd, if one slot holds them all and no other holds any."""
        found = [
            (slot, slot.index)
            for vm in self.memory.vms.values()
            for slot in vm.slots.values()
            if slot.gmem == gmem is not None
            and slot.index is not None
            and slot.index < end
            and start < slot.index + slot.npages
        ]
        if len(found) != 1:
            return None
        slot, index = found[0]
        if not index <= start < end <= index + slot.npages:
            return None
        return start - index + slot.start, end - index + slot.start

    # --- what is missing

    def missing(self) -> list[str]:
        """Why an answer from this record is incomplete; empty if it is not.

        What a record up to some moment does not hold yet is not missing.
        """
        labels = self.labels()
        reasons = [f"{labels[source.id]}{reason}" for source in self.sources.values() for reason in self._missing(source)]
        late = [vm for vm in self.memory.vms.values() if not vm.made]
        reasons += [f"{vm.name}: the record begins after its beginning; what was converted before is not known" for vm in late]
        if not self.memory.seq and self.last is None:
            reasons.append("no event is on record: `gmemstate ingest FILE` reads a trace")
        return reasons

    def labels(self) -> dict[int, str]:
        """For each source the shortest tail of its name that tells it from the others."""
        paths = {source.id: source.name.split("/") for source in self.sources.values()}
        others = list(paths.values())
        return {
            key: next(
                ("/".join(path[-n:]) for n in range(1, len(path)) if sum(other[-n:] == path[-n:] for other in others) == 1),
                "/".join(path),
            )
            for key, path in paths.items()
        }

    def _missing(self, source: SourceFacts) -> Iterable[str]:
        if source.damage is not None and self.last is None:
            yield f": {source.damage}"
        for line, lost in source.gaps:
            count = "events" if lost is None else f"{lost} events"
            yield f":{line}: {count} lost; what happened meanwhile is not known"
        if self.last is None and _should_show_conversions(source.format) and not self._shows_conversions(source):
            yield (
                ": no line shows a conversion, and none proves that one would have been seen: static tracepoints do not show those "
                "of a guest_memfd, nor any result; add the return probes on kvm_vm_ioctl and kvm_gmem_ioctl"
            )

    def _shows_conversions(self, source: SourceFacts) -> bool:
        """Whether a source has shown a conversion, or lines of a kind that shows all of them."""
        known = self.memory.sources.get(source.id)
        shown = set(known.shows) if known is not None else set()
        for vm in self.memory.vms.values():
            shown |= vm.shows if vm.source == source.id else set()
        seen = any(conversion.source == source.id for conversion in self.conversions.values())
        return seen or not shown.isdisjoint(_CALLS)

    def ordered(self) -> list[Conversion]:
        """All conversions, by the seq of their first event."""
        return [self.conversions[key] for key in sorted(self.conversions)]


def _should_show_conversions(format_: str) -> bool:
    """Whether people expect conversions in a source of some formats: traces, and what has no entry to know it by."""
    return "ftrace" in format_ or format_ == "unknown"


_CALLS = frozenset((Capability.ASKED, Capability.RETURNED, Capability.ATTEMPTED))
_ABOUT_SOURCES = frozenset((SourceOpened.code, SourceRead.code, Gap.code))


def history(record: Record, last: int | None = None) -> History:
    """The history of a record up to seq ``last`` (all of it if None)."""
    if last is not None and last >= record.head().seq:
        last = None
    return History(last=last).fold(record.events(1, last))


def moment(record: Record, at: str | int | None) -> int | None:
    """The seq that a moment means: a seq itself, or a time of the source's clock in seconds ("5.31", "5s").

    A time means the state before the first event that is later. Raises UsageError for what is no moment, for an event that
    is not on record, and for a time where several sources have each their own clock.
    """
    if at is None:
        return None
    match = _MOMENT.fullmatch(str(at).strip())
    if match is None:
        raise UsageError(f"{at!r} is no moment: give the number of an event (like 42) or a time in seconds (like 5.31)")
    if match["seq"] is not None:
        wanted, head = int(match["seq"]), record.head().seq
        if wanted > head:
            raise UsageError(f"there is no event {wanted}: the last one is {head}", last=head)
        return wanted
    return _event_at(record, int(Decimal(match["time"]) * NS))


_MOMENT = re.compile(r"(?P<seq>[0-9]{1,18})|(?P<time>[0-9]{1,12}(?:\.[0-9]*)?|\.[0-9]+)s?")


def _event_at(record: Record, time: int) -> int:
    """The seq of the last event before the first that is later than a time (ns)."""
    sources: list[str] = []
    last, found = 0, None
    for row in record.events():
        if row[KIND] == SourceOpened.code:
            sources.append(details(row[DETAIL]).get("name", "?"))
        if found is None and row[T] is not None and row[T] > time:
            found = last
        last = row[SEQ]
    if len(sources) > 1:
        raise UsageError(
            f"{seconds(time)} s is ambiguous: {', '.join(sources[:4])} have each a clock of their own; "
            "name the moment by the number of an event (`gmemstate events` lists them)"
        )
    return last if found is None else found
