"""Reports of conversions in the log of a VMM, joined to those that a trace of the kernel has shown.

QEMU prints what it is asked for before it calls the kernel, an error where it was refused, and what it does next only where
it was not (kvm_convert_memory(), kvm_set_memory_attributes_*(), ram_block_attributes_state_change()). Its log names no guest:
range and direction identify the conversion, and the time where the two clocks can be compared. An ambiguous report is
not joined.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model.events import KIND, SEQ, Event, EventRow, VmmSaid, details, event_of
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import Conversion, FaultExit, Vm
from gmemstate.model.reports import VmmReportCode
from gmemstate.model.verdict import arguments_known

CLOCKS = 10_000_000
"""How far (ns) two clocks that are compared may be off."""
PRINTED = 100_000_000
"""How long (ns) a VMM may take to print a result, and to call the kernel for what it has printed."""
WAITING = 64
"""How many conversion requests of a log may be without a known outcome at a time."""
TO = {"discarded": PRIVATE, "populated": SHARED, PRIVATE: PRIVATE, SHARED: SHARED}
"""Which kind a VMM's word for the new state of its memory means."""


class VmmReport(NamedTuple):
    """A VMM's report of one conversion of gfns."""

    source: int | None
    line: int | None
    seq: int
    t: int | None
    thread: int | None
    start: int
    npages: int
    to: str
    result: int | None
    """0, or the errno; None for a conversion request"""
    own: int | None = None
    """the conversion that the record has of it, as long as it is joined to none"""

    @property
    def asks(self) -> tuple[int, int, str]:
        """The range and the direction."""
        return self.start, self.npages, self.to


class JoinedReport(NamedTuple):
    """A report with the conversion that it is about, and by what they are joined."""

    report: VmmReport
    conversion: Conversion
    join: str
    disagrees: bool


def corroborations(history: History) -> list[JoinedReport]:
    """The reports of VMMs that are about one conversion of a kernel's trace and can be about no other one."""
    reports = _reports(history)
    wanted = {report.asks for report in reports}
    shown: dict[tuple[int | None, int | None, str | None], list[Conversion]] = defaultdict(list)
    for one in history.conversions.values() if wanted else ():
        asks = (one.start, one.npages, one.target)
        if asks in wanted and one.in_vm and arguments_known(one) and not of_vmm(one):
            shown[asks].append(one)
    found: dict[tuple[int, int | None], list[JoinedReport]] = defaultdict(list)
    for report in reports:
        fitting = _fitting(history, report, shown[report.asks])
        if len(fitting) == 1:
            found[fitting[0].id, report.source].append(_joined(history, report, fitting[0]))
    alone = [several[0] for several in found.values() if len(several) == 1]
    return [one for one in alone if one.join != "guess" or not one.disagrees]


def repeated_faults(history: History) -> set[int]:
    """The seqs of the memory faults that a VMM has printed and that a kernel's trace has shown as well."""
    guests = {vm.source for vm in history.memory.vms.values()}
    inner: dict[tuple[int | None, bool | None], list[FaultExit]] = defaultdict(list)
    for fault in history.faults:
        if fault.source in guests:
            inner[fault.start, fault.private].append(fault)
    found: dict[tuple[int, int | None], list[int]] = defaultdict(list)
    for fault in history.faults if inner else ():
        if fault.source in guests or fault.start is None:
            continue
        fitting = []
        for one in inner.get((fault.start, fault.private), ()):
            t = _time(history, fault, one, one.t)
            if t is None or one.t is None or one.t - CLOCKS <= t <= one.t + PRINTED:
                fitting.append((one, t))
        if len(fitting) == 1 and _shows_all(history, fitting[0][0].source, fitting[0][1]):
            found[fitting[0][0].seq, fault.source].append(fault.seq)
    return {seqs[0] for seqs in found.values() if len(seqs) == 1}


def of_vmm(conversion: Conversion) -> bool:
    """Whether a conversion is known from a VMM's own log: its error, in one line."""
    return (
        conversion.detail is not None and conversion.first_line == conversion.last_line and "vmm" in details(conversion.detail)
    )


def _joined(history: History, report: VmmReport, conversion: Conversion) -> JoinedReport:
    known, t = history.result_of(conversion), _time(history, report, conversion, conversion.first_observed)
    disagrees = report.result is not None and report.result != known
    sure = _shows_all(history, conversion.source, t)
    join = "time" if t is not None and (sure or not disagrees) else "gfn" if sure else "guess"
    return JoinedReport(report, conversion, join, disagrees)


def _fitting(history: History, report: VmmReport, shown: list[Conversion]) -> list[Conversion]:
    """The conversions that a report may be about. A thread that both name decides among them, as far as times allow."""
    found = [one for one in shown if _may_be(report, one, _time(history, report, one, one.first_observed))]
    same = [one for one in found if one.thread == report.thread is not None]
    return same or found


def _time(history: History, said: VmmReport | FaultExit, shown: Conversion | FaultExit, at: int | None) -> int | None:
    """The time of a VMM's report on the clock of the trace that shows ``at`` (ns); None where the two cannot be compared."""
    source = history.memory.sources.get(said.source or 0)
    if said.t is None or source is None or at is None:
        return None
    if source.id == shown.source:
        return said.t
    return said.t - source.ahead if source.reference == shown.source is not None else None


def _may_be(report: VmmReport, conversion: Conversion, t: int | None) -> bool:
    """Whether a request comes right before a conversion, or a report of its end right after it, if the time is known."""
    if t is None or conversion.first_observed is None:
        return True
    if report.result is None:
        return conversion.first_observed - PRINTED <= t <= conversion.first_observed + CLOCKS
    if conversion.returned is None:
        return conversion.first_observed - CLOCKS <= t
    return conversion.returned - CLOCKS <= t <= conversion.returned + PRINTED


def _shows_all(history: History, source: int | None, t: int | None) -> bool:
    """Whether a trace has shown every conversion that a report can be about.

    It lost nothing, and it was running long before and after; or, without a time, from the birth of each guest to its end.
    """
    known = history.memory.sources.get(source or 0)
    if known is None or known.gaps or known.late:
        return False
    first, last = history.first_times.get(source), history.last_times.get(source)
    if t is not None and first is not None and last is not None and first <= t - PRINTED and t + CLOCKS <= last:
        return True
    guests = [vm for vm in history.memory.vms.values() if vm.source == source]
    return bool(guests) and all(vm.made and _is_over(history, vm) for vm in guests)


def _is_over(history: History, vm: Vm) -> bool:
    """Whether the end of a guest is on record: its own, or that of all its guest_memfds."""
    files = [gmem for gmem in history.memory.gmems.values() if gmem.vm == vm.id]
    return vm.gone == "destroyed" or (bool(files) and all(gmem.released for gmem in files))


# --- the log of a VMM -----------------------------------------------------------------------------------------------------


def _reports(history: History) -> list[VmmReport]:
    """All reports of VMMs that name the range of a conversion, in the order of the record."""
    said: list[tuple[int, Conversion | EventRow | int]] = [
        (row[SEQ], row) for row in history.reports if row[KIND] == VmmSaid.code
    ]
    refused = [one for one in history.conversions.values() if of_vmm(one)]
    if not said and not refused:
        return []
    said += [(one.id, one) for one in refused]
    said += [(seq, source.id) for source in history.memory.sources.values() for seq in source.gaps]
    logs: dict[int | None, _Log] = defaultdict(_Log)
    for _, one in sorted(said, key=lambda pair: pair[0]):
        if isinstance(one, int):
            logs[one].requests.clear()
        elif isinstance(one, Conversion):
            logs[one.source].refused(one)
        else:
            event = event_of(one)
            logs[event.source].says(one[SEQ], event, details(event.detail))
    return sorted((report for log in logs.values() for report in log.all()), key=lambda report: report.seq)


class _Log:
    """The log of one VMM."""

    def __init__(self) -> None:
        self.reports: list[VmmReport] = []
        self.requests: deque[VmmReport] = deque(maxlen=WAITING)
        """conversion requests of which the outcome is not known"""

    def all(self) -> Iterator[VmmReport]:
        """The reports of results, and the requests without one."""
        yield from self.reports
        yield from self.requests

    def refused(self, conversion: Conversion) -> None:
        """The kernel has refused a conversion."""
        start, npages, to = conversion.start, conversion.npages, conversion.target
        if start is None or npages is None or to is None:
            return
        place = (conversion.source, conversion.first_line, conversion.id, conversion.first_observed, conversion.thread)
        report = VmmReport(*place, start, npages, to, conversion.result, conversion.id)
        self._answered(report)
        self.reports.append(report)

    def says(self, seq: int, event: Event, said: Mapping[str, Any]) -> None:
        """A VMM gets a conversion request, refuses one itself, or does what follows a conversion that has succeeded."""
        code, to = said.get("code"), TO.get(said.get("to", ""))
        if to is None:
            return
        place = (event.source, event.line, seq, event.t, said.get("thread"))
        if code == VmmReportCode.RAM_BLOCK:
            self._goes_on(place, int(said["size"], 16) >> PAGE_SHIFT, to)
        elif "gfn" in said and said.get("pages"):
            report = VmmReport(*place, int(said["gfn"], 16), said["pages"], to, None)
            if code == VmmReportCode.CONVERT_REQUEST:
                for old in [old for old in self.requests if old.thread == report.thread is not None]:
                    self.requests.remove(old)  # its thread has gone on
                self.requests.append(report)
            elif code == VmmReportCode.CONVERT_REFUSED:
                self._answered(report)
            elif code == VmmReportCode.LISTENER_REFUSED:  # called only after the kernel has converted
                self._answered(report)
                self.reports.append(report._replace(result=0))

    def _answered(self, report: VmmReport) -> None:
        """The outcome of a request is known."""
        for request in [one for one in self.requests if one.asks == report.asks]:
            self.requests.remove(request)

    def _goes_on(self, place: tuple[int | None, int | None, int, int | None, int | None], npages: int, to: str) -> None:
        """The VMM changes its own state of pages: the kernel has not refused the one request that this follows."""
        thread = place[4]
        fitting = [
            one
            for one in self.requests
            if (one.npages, one.to) == (npages, to) and (None in (thread, one.thread) or thread == one.thread)
        ]
        for request in fitting:
            self.requests.remove(request)
        if len(fitting) == 1:
            self.reports.append(VmmReport(*place, *fitting[0].asks, 0))
