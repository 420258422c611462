"""One pass over a record: the memory at its end, and all conversions, requests and reports."""

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from gmemstate.audit.history.moment import ABOUT_SOURCES, AT_ONCE, Moment
from gmemstate.decode import errno_name
from gmemstate.model import events as e
from gmemstate.model.events import KIND, OWNER, SEQ, SOURCE, T, details, event_of
from gmemstate.model.findings import Finding
from gmemstate.model.fold.apply import fold
from gmemstate.model.linux import KVM_EXIT_INTERNAL_ERROR
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, FaultExit, Request, Trigger

_OF_MACHINES = (e.DmaFaulted, e.GeneralProtection, e.HkidLeaked, e.MachineCheck, e.RmpViolation)
_OF_SOFTWARE = (e.KernelWarned, e.TaskStuck, e.VmBugged, e.VmDead, e.VmmSaid)
REPORTS = frozenset(kind.code for kind in (*_OF_MACHINES, *_OF_SOFTWARE))
"""Kinds that no conversion needs and that a post-mortem may be about."""
MARKS = frozenset(kind.code for kind in (e.PageLeaked, e.Poisoned, e.PrivateMapFailed, e.PrivateUnmapFailed, e.ReclaimFailed))


class CorroboratingReport(NamedTuple):
    """The result of a conversion in another source: 0 or an errno; None where that only shows the call."""

    source: int | None
    line: int | None
    result: int | None
    join: str = "thread"
    """what identifies it as the same conversion"""


class History(Moment):
    """Folds a record and keeps what the memory drops: ended conversions, requests, faults, findings."""

    def __init__(self, *, last: int | None = None) -> None:
        """``last`` is the seq at which the caller stops, None for the end of the record."""
        super().__init__(Memory(), last)
        self.conversions: dict[int, Conversion] = {}
        self.places: dict[int, tuple[int, int] | None] = {}
        """for conversions of guest_memfds: the gfns that were bound to them when they ended"""
        self.unexplained: list[int] = []
        """conversions of which it is not known why they were asked, in order"""
        self.requests: dict[int, Request] = {}
        self.faults: list[FaultExit] = []
        self.findings: list[Finding] = []
        self.corroborating: dict[int, list[CorroboratingReport]] = {}
        """the results of conversions in other sources"""
        self.joined: set[int] = set()
        """conversions in the log of a VMM that a kernel's trace has shown as well: not counted again"""
        self.first_times: dict[int | None, int] = {}
        self.last_times: dict[int | None, int] = {}
        """the times (ns of its clock) of the first event of each source and of its last"""
        self.reports: list[e.EventRow] = []
        """reports of kernels and VMMs, and calls of VMMs that failed"""
        self.boots: list[e.EventRow] = []
        """each reboot of the host, by the source that shows it"""
        self.marks: dict[int, e.EventRow] = {}
        """the events that made host pages messed up, by the id of the entry"""
        self.kills: list[e.EventRow] = []
        """tasks of guests that the OOM killer has killed"""

    def fold(self, rows: Iterable[e.EventRow]) -> Self:
        """Apply rows in order."""
        fold(self._followed(rows), self.memory)
        self._collect()
        for conversion in self.memory.conversions.values():
            self._keep(conversion)
        return self

    def _followed(self, rows: Iterable[e.EventRow]) -> Iterator[e.EventRow]:
        memory, first, last = self.memory, self.first_times, self.last_times
        for n, row in enumerate(rows, 1):
            yield row
            t, source = row[T], row[SOURCE]
            if t is not None:
                last[source] = t
                if source not in first:
                    first[source] = t
            if row[KIND] in _KEPT:
                self._keep_row(row)
            if memory.ended or memory.corroborations or n % AT_ONCE == 0:
                self._collect()

    def _keep_row(self, row: e.EventRow) -> None:
        """Keep an event that the memory drops and a question may be about."""
        kind = row[KIND]
        if kind in ABOUT_SOURCES:
            self.learn(row)
        elif kind in REPORTS or (kind in _REMARKABLE and _remarkable(row)):
            self.reports.append(row)
        elif kind in MARKS:
            self.marks[row[SEQ]] = row
        elif kind == e.HostBooted.code:
            self.boots.append(row)
        elif kind == e.TaskSignalled.code and row[OWNER] is not None and details(event_of(row).detail).get("cause") == "oom":
            self.kills.append(row)

    def _collect(self) -> None:
        memory = self.memory
        for conversion in memory.ended:
            self._keep(conversion)
        for request_id in memory.changed_requests:
            self.requests[request_id] = memory.requests[request_id]
        self.faults += memory.faults
        self.findings += memory.findings
        for conversion_id, row in memory.corroborations:
            self._corroborate(conversion_id, row)
        memory.clear_pending()

    def _corroborate(self, conversion_id: int, row: e.EventRow) -> None:
        """Another source shows the result of a conversion that had ended."""
        conversion, event = self.conversions.get(conversion_id), event_of(row)
        if conversion is None or not isinstance(event, e.ConvertReturned):
            return
        known = self.result_of(conversion)
        self.corroborating.setdefault(conversion_id, []).append(CorroboratingReport(event.source, event.line, event.result))
        if known is not None and known != event.result:
            here, there = self.place(conversion.source, conversion.last_line), self.place(event.source, event.line)
            text = f"the conversion returned {errno_name(known)} in {here}, {errno_name(event.result)} in {there}"
            self.findings.append(
                Finding.at("SOURCES-DISAGREE", row[SEQ], text, conversion.owner, conversion.start, conversion.end)
            )

    def result_of(self, conversion: Conversion) -> int | None:
        """The result of a conversion (0 or an errno) in any source; None if none shows it, or if they disagree."""
        if conversion.result is not None:
            return conversion.result
        results = {one.result for one in self.corroborating.get(conversion.id, ())} - {None}
        return results.pop() if len(results) == 1 else None

    def _keep(self, conversion: Conversion) -> None:
        if conversion.trigger is Trigger.UNKNOWN and conversion.id not in self.conversions:
            insort(self.unexplained, conversion.id)
        self.conversions[conversion.id] = conversion
        if not conversion.in_vm and conversion.start is not None and conversion.end is not None:
            self.places[conversion.id] = self._gfns(conversion.owner, conversion.start, conversion.end)

    def _gfns(self, gmem: int | None, start: int, end: int) -> tuple[int, int] | None:
        """The gfns to which indices of a guest_memfd are bound, if one slot holds them all and no other holds any."""
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

    def before_a_boot(self, row: e.EventRow) -> bool:
        """Whether the host was rebooted after an event, as far as the event's own source or an operator says."""
        return any(row[SEQ] < boot[SEQ] and boot[SOURCE] in (None, row[SOURCE]) for boot in self.boots)

    def ordered(self) -> list[Conversion]:
        """All conversions, each once, by the seq of their first event."""
        return [self.conversions[key] for key in sorted(self.conversions.keys() - self.joined)]


def _remarkable(row: e.EventRow) -> bool:
    """Whether a post-mortem may be about an event: a refused memslot or DMA mapping in a VMM's log, which names no VM.

    Or a large page was mapped over small ones that had other host pages, or KVM could not go on with a vCPU.
    """
    event = event_of(row)
    if isinstance(event, e.VcpuExited):
        return event.reason == KVM_EXIT_INTERNAL_ERROR
    if isinstance(event, e.FaultServed):
        return event.detail is not None and '"replaced"' in event.detail
    return isinstance(event, _CALLS_OF_VMMS) and event.owner is None and bool(event.result)


_CALLS_OF_VMMS = (e.DmaMapped, e.DmaUnmapped, e.SlotSet)
_REMARKABLE = frozenset(kind.code for kind in (*_CALLS_OF_VMMS, e.VcpuExited, e.FaultServed))
_KEPT = ABOUT_SOURCES | REPORTS | MARKS | _REMARKABLE | {e.HostBooted.code, e.TaskSignalled.code}
"""Kinds of events that :meth:`History._keep_row` keeps some of."""
