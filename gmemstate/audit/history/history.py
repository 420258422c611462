"""One pass over a record: the memory at its end, and everything that happened on the way."""

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from gmemstate.audit.history.moment import ABOUT_SOURCES, AT_ONCE, Moment
from gmemstate.decode import errno_name
from gmemstate.model import events as e
from gmemstate.model.events import DETAIL, KIND, LINE, OWNER, RESULT, SEQ, SOURCE, VALUE, T, details
from gmemstate.model.findings import Finding
from gmemstate.model.fold.apply import fold
from gmemstate.model.linux import KVM_EXIT_INTERNAL_ERROR
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, FaultExit, Request, Trigger

REPORTS = frozenset(
    kind.code
    for kind in (
        e.DmaFaulted, e.GeneralProtection, e.HkidLeaked, e.KernelWarned, e.MachineCheck, e.RmpViolation, e.TaskStuck, e.VmBugged, e.VmDead, e.VmmSaid
    )
)  # fmt: skip
"""Kinds that no conversion needs and that a post-mortem may be about."""
MARKS = frozenset(kind.code for kind in (e.PageLeaked, e.Poisoned, e.PrivateMapFailed, e.PrivateUnmapFailed, e.ReclaimFailed))


class CorroboratingReport(NamedTuple):
    """What another source has said of the result of a conversion: 0 or an errno; None where it only shows that it was asked."""

    source: int | None
    line: int | None
    result: int | None
    join: str = "thread"
    """what says that it is the same conversion"""


class History(Moment):
    """Folds a record and remembers what the memory lets go: ended conversions, requests, faults, findings."""

    def __init__(self, *, last: int | None = None) -> None:
        """``last`` is the seq at which the asker stops, None for the end of the record."""
        super().__init__(Memory(), last)
        self.conversions: dict[int, Conversion] = {}
        self.places: dict[int, tuple[int, int] | None] = {}
        """for conversions of guest_memfds: the gfns behind them when they ended"""
        self.unexplained: list[int] = []
        """conversions of which it is not known why they were asked, in order"""
        self.requests: dict[int, Request] = {}
        self.faults: list[FaultExit] = []
        self.findings: list[Finding] = []
        self.witnesses: dict[int, list[CorroboratingReport]] = {}
        """what other sources have said of the results of conversions"""
        self.joined: set[int] = set()
        """what a VMM says of itself and a kernel's trace has shown as well: no conversions of their own"""
        self.first_times: dict[int | None, int] = {}
        self.last_times: dict[int | None, int] = {}
        """the times (ns of its clock) of the first event of each source and of its last"""
        self.reports: list[e.EventRow] = []
        """what kernels and VMMs have said of themselves, guests and devices, and what a VMM was refused"""
        self.boots: list[e.EventRow] = []
        """when the host was started anew, each for the source that says so"""
        self.marks: dict[int, e.EventRow] = {}
        """what has made host pages messed up, by the id of the entry"""
        self.kills: list[e.EventRow] = []
        """tasks of guests that the kernel has killed for want of memory"""

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
        """Keep an event that a question may be about, and that the memory lets go."""
        kind = row[KIND]
        if kind in ABOUT_SOURCES:
            self.learn(row)
        elif kind in REPORTS or _remarkable(row):
            self.reports.append(row)
        elif kind in MARKS:
            self.marks[row[SEQ]] = row
        elif kind == e.HostBooted.code:
            self.boots.append(row)
        elif kind == e.TaskSignalled.code and row[OWNER] is not None and details(row[DETAIL]).get("cause") == "oom":
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
            self._testify(conversion_id, row)
        memory.clear_pending()

    def _testify(self, conversion_id: int, row: e.EventRow) -> None:
        """Another source has said something of a conversion that had ended."""
        conversion, result = self.conversions.get(conversion_id), row[RESULT]
        if conversion is None or row[KIND] != e.ConvertReturned.code or result is None:
            return
        known = self.result_of(conversion)
        self.witnesses.setdefault(conversion_id, []).append(CorroboratingReport(row[SOURCE], row[LINE], result))
        if known is not None and known != result:
            here, there = self.place(conversion.source, conversion.last_line), self.place(row[SOURCE], row[LINE])
            text = f"the conversion returned {errno_name(known)} in {here}, {errno_name(result)} in {there}"
            self.findings.append(
                Finding("WITNESSES-DISAGREE", row[SEQ], text, conversion.owner, conversion.start, conversion.end)
            )

    def result_of(self, conversion: Conversion) -> int | None:
        """The result of a conversion (0 or an errno), from whoever has seen it; None if nobody has, or if they disagree."""
        if conversion.result is not None:
            return conversion.result
        results = {witness.result for witness in self.witnesses.get(conversion.id, ())} - {None}
        return results.pop() if len(results) == 1 else None

    def _keep(self, conversion: Conversion) -> None:
        if conversion.trigger is Trigger.UNKNOWN and conversion.id not in self.conversions:
            insort(self.unexplained, conversion.id)
        self.conversions[conversion.id] = conversion
        if not conversion.in_vm and conversion.start is not None and conversion.end is not None:
            self.places[conversion.id] = self._gfns(conversion.owner, conversion.start, conversion.end)

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

    def before_a_boot(self, row: e.EventRow) -> bool:
        """Whether the host was started anew behind an event, as far as the event's own source or an operator says."""
        return any(row[SEQ] < boot[SEQ] and boot[SOURCE] in (None, row[SOURCE]) for boot in self.boots)

    def ordered(self) -> list[Conversion]:
        """All conversions, each once, by the seq of their first event."""
        return [self.conversions[key] for key in sorted(self.conversions.keys() - self.joined)]


def _remarkable(row: e.EventRow) -> bool:
    """Whether a VMM's log tells of a memslot or a device's mapping that was refused; it names no VM.

    Or a large page was mapped over small ones that had other memory behind them, or KVM could not go on with a vCPU.
    """
    if row[KIND] == e.VcpuExited.code:
        return row[VALUE] == KVM_EXIT_INTERNAL_ERROR
    if row[KIND] == e.FaultServed.code:
        return row[DETAIL] is not None and '"replaced"' in row[DETAIL]
    return row[KIND] in _CALLS_OF_VMMS and row[OWNER] is None and bool(row[RESULT])


_CALLS_OF_VMMS = frozenset((e.DmaMapped.code, e.DmaUnmapped.code, e.SlotSet.code))
_KEPT = frozenset(
    (
        *ABOUT_SOURCES,
        *REPORTS,
        *MARKS,
        *_CALLS_OF_VMMS,
        e.VcpuExited.code,
        e.FaultServed.code,
        e.HostBooted.code,
        e.TaskSignalled.code,
    )
)
"""Kinds of events that :meth:`History._keep_row` keeps some of."""
