"""One pass over a record: the memory at its end, and everything that happened on the way."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gmemstate.model.errors import UsageError
from gmemstate.model.events import (
    DETAIL,
    KIND,
    LINE,
    SEQ,
    SOURCE,
    VALUE,
    EventRow,
    Gap,
    SourceOpened,
    SourceRead,
    T,
    details,
)
from gmemstate.model.findings import Finding
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, FaultExit, Request
from gmemstate.model.record import Record
from gmemstate.model.units import NS, seconds

AT_ONCE = 10_000


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
    first: int | None = None
    last: int | None = None
    """when its first and last event happened (ns)"""

    @property
    def damage(self) -> str | None:
        """Why it is not whole."""
        return self.account.get("damage") if self.account else "it is still being read"


class History:
    """Folds a record and remembers what the memory lets go: ended conversions, requests, faults, findings."""

    def __init__(self, *, live: bool = False) -> None:
        self.memory = Memory(live=live)
        self.sources: dict[int, SourceFacts] = {}
        self.conversions: dict[int, Conversion] = {}
        self.places: dict[int, tuple[int, int] | None] = {}
        """for conversions of guest_memfds: the gfns behind them when they ended"""
        self.requests: dict[int, Request] = {}
        self.faults: list[FaultExit] = []
        self.findings: list[Finding] = []

    def fold(self, rows: Iterable[EventRow]) -> "History":
        """Apply rows in order."""
        apply, memory = self.memory.apply, self.memory
        for n, row in enumerate(rows, 1):
            apply(row)
            if row[KIND] in _ABOUT_SOURCES:
                self._source(row)
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
        """Why an answer from this record is incomplete; empty if it is not."""
        reasons = []
        for source in self.sources.values():
            if source.damage is not None:
                reasons.append(f"{source.name}: {source.damage}")
            for line, lost in source.gaps:
                count = "events" if lost is None else f"{lost} events"
                reasons.append(f"{source.name}:{line}: {count} lost; what happened meanwhile is not known")
        late = [vm for vm in self.memory.vms.values() if not vm.made]
        return reasons + [
            f"{vm.name}: the record begins after its beginning; what was converted before is not known" for vm in late
        ]

    def ordered(self) -> list[Conversion]:
        """All conversions, by the seq of their first event."""
        return [self.conversions[key] for key in sorted(self.conversions)]


_ABOUT_SOURCES = frozenset((SourceOpened.code, SourceRead.code, Gap.code))


def history(record: Record, last: int | None = None) -> History:
    """The history of a record up to seq ``last`` (all of it if None)."""
    return History().fold(record.events(1, last))


def moment(record: Record, at: str | int | None) -> int | None:
    """The seq that a moment means: a seq itself, or a time of the source's clock in seconds ("5.31", "5s").

    A time means the state before the first event that is later. Raises UsageError where that is ambiguous.
    """
    if at is None or isinstance(at, int):
        return at
    text = at.strip()
    if text.isdigit():
        return int(text)
    try:
        wanted = round(float(text.removesuffix("s")) * NS)
    except ValueError:
        raise UsageError(f"{at!r} is no moment: give a seq (like 42) or a time in seconds (like 5.31)") from None
    source = None
    last = 0
    for row in record.events():
        if row[KIND] == SourceOpened.code:
            if source is not None:
                raise UsageError("the ledger has several sources, each with its own clock: name the moment by its seq")
            source = row[SEQ]
        if row[T] is not None and row[T] > wanted:
            return last
        last = row[SEQ]
    if wanted < 0:
        raise UsageError(f"{seconds(wanted)} s is before every event")
    return last
