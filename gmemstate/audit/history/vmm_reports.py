"""What the log of a VMM says of conversions, joined to those that a trace of the kernel has shown.

QEMU prints what it is asked for before it calls the kernel, an error where it was refused, and what it does next only where it was
not (kvm_convert_memory(), kvm_set_memory_attributes_*(), ram_block_attributes_state_change()). Its log names no guest: the range
and the direction say which conversion is meant, and the time where the two clocks can be compared. Where two could be meant, none is.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model.events import DETAIL, KIND, LINE, SEQ, SOURCE, EventRow, T, VmmSaid, details
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import Conversion, FaultExit, Vm
from gmemstate.model.verdict import arguments_known

CLOCKS = 10_000_000
"""How far (ns) two clocks that are compared may be off."""
PRINTED = 100_000_000
"""How long (ns) a VMM may take to print what it was told, and to ask for what it has printed."""
WAITING = 64
"""How many wishes of a log may be without what became of them at a time."""
TO = {"discarded": PRIVATE, "populated": SHARED, PRIVATE: PRIVATE, SHARED: SHARED}
"""Which kind a VMM's word for the new state of its memory means."""


class VmmReport(NamedTuple):
    """What a VMM says of one conversion of gfns."""

    source: int | None
    line: int | None
    seq: int
    t: int | None
    thread: int | None
    start: int
    npages: int
    to: str
    result: int | None
    """0, or the errno; None for a mere wish"""
    own: int | None = None
    """the conversion that the record has of it, as long as it is joined to none"""

    @property
    def asks(self) -> tuple[int, int, str]:
        """The range and the direction."""
        return self.start, self.npages, self.to


class JoinedReport(NamedTuple):
    """A claim with the conversion that it is about, and by what they are joined."""

    report: VmmReport
    conversion: Conversion
    join: str
    disagrees: bool


def corroborations(history: History) -> list[JoinedReport]:
    """The claims of VMMs that are about one conversion of a kernel's trace and can be about no other one."""
    claims = _claims(history)
    wanted = {report.asks for report in claims}
    shown: dict[tuple[int | None, int | None, str | None], list[Conversion]] = defaultdict(list)
    for one in history.conversions.values() if wanted else ():
        asks = (one.start, one.npages, one.target)
        if asks in wanted and one.in_vm and arguments_known(one) and not of_vmm(one):
            shown[asks].append(one)
    found: dict[tuple[int, int | None], list[JoinedReport]] = defaultdict(list)
    for report in claims:
        fitting = _fitting(history, report, shown[report.asks])
        if len(fitting) == 1:
            found[fitting[0].id, report.source].append(_joined(history, report, fitting[0]))
    alone = [several[0] for several in found.values() if len(several) == 1]
    return [one for one in alone if one.join != "guess" or not one.disagrees]


def faults_told(history: History) -> set[int]:
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
    """Whether a conversion is what a VMM says of itself: its error, in one line."""
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
    """The conversions that a claim may be about. A thread that both name decides among them, as far as times allow."""
    found = [one for one in shown if _may_be(report, one, _time(history, report, one, one.first_observed))]
    same = [one for one in found if one.thread == report.thread is not None]
    return same or found


def _time(history: History, said: VmmReport | FaultExit, shown: Conversion | FaultExit, at: int | None) -> int | None:
    """The time of what a VMM says on the clock of what a trace has shown ``at`` a time; None where the two cannot be compared."""
    source = history.memory.sources.get(said.source or 0)
    if said.t is None or source is None or at is None:
        return None
    if source.id == shown.source:
        return said.t
    return said.t - source.ahead if source.reference == shown.source is not None else None


def _may_be(report: VmmReport, conversion: Conversion, t: int | None) -> bool:
    """Whether a wish stands right before a conversion, or what a VMM says of the end right behind it, if the time is known."""
    if t is None or conversion.first_observed is None:
        return True
    if report.result is None:
        return conversion.first_observed - PRINTED <= t <= conversion.first_observed + CLOCKS
    if conversion.returned is None:
        return conversion.first_observed - CLOCKS <= t
    return conversion.returned - CLOCKS <= t <= conversion.returned + PRINTED


def _shows_all(history: History, source: int | None, t: int | None) -> bool:
    """Whether a trace has shown every conversion that a claim can be about.

    It lost nothing, and it was running long before and behind; or, without a time, from the birth of each guest to its end.
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


# --- what a VMM says -----------------------------------------------------------------------------------------------------


def _claims(history: History) -> list[VmmReport]:
    """Everything that VMMs say of conversions with their range, in the order of the record."""
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
            logs[one].wishes.clear()
        elif isinstance(one, Conversion):
            logs[one.source].refused(one)
        else:
            logs[one[SOURCE]].says(one, details(one[DETAIL]))
    return sorted((report for log in logs.values() for report in log.all()), key=lambda report: report.seq)


class _Log:
    """The log of one VMM."""

    def __init__(self) -> None:
        self.claims: list[VmmReport] = []
        self.wishes: deque[VmmReport] = deque(maxlen=WAITING)
        """those of which it is not known what became of them"""

    def all(self) -> Iterator[VmmReport]:
        """What is said of results, and the wishes that are left."""
        yield from self.claims
        yield from self.wishes

    def refused(self, conversion: Conversion) -> None:
        """The kernel has refused what was asked."""
        start, npages, to = conversion.start, conversion.npages, conversion.target
        if start is None or npages is None or to is None:
            return
        place = (conversion.source, conversion.first_line, conversion.id, conversion.first_observed, conversion.thread)
        report = VmmReport(*place, start, npages, to, conversion.result, conversion.id)
        self._answered(report)
        self.claims.append(report)

    def says(self, row: EventRow, said: Mapping[str, Any]) -> None:
        """A VMM is asked for a conversion, refuses one itself, or does what follows one that has succeeded."""
        code, to = said.get("code"), TO.get(said.get("to", ""))
        if to is None:
            return
        place = (row[SOURCE], row[LINE], row[SEQ], row[T], said.get("thread"))
        if code == "ram block state change":
            self._goes_on(place, int(said["size"], 16) >> PAGE_SHIFT, to)
        elif "gfn" in said and said.get("pages"):
            report = VmmReport(*place, int(said["gfn"], 16), said["pages"], to, None)
            if code == "convert wish":
                for old in [old for old in self.wishes if old.thread == report.thread is not None]:
                    self.wishes.remove(old)  # its thread has done with it
                self.wishes.append(report)
            elif code == "convert refused":
                self._answered(report)
            elif code == "listener refused":  # it is told only what the kernel has done
                self._answered(report)
                self.claims.append(report._replace(result=0))

    def _answered(self, report: VmmReport) -> None:
        """What becomes of a wish is known."""
        for wish in [wish for wish in self.wishes if wish.asks == report.asks]:
            self.wishes.remove(wish)

    def _goes_on(self, place: tuple[int | None, int | None, int, int | None, int | None], npages: int, to: str) -> None:
        """The VMM changes its own notes of pages: the kernel has not refused the one wish that this follows."""
        thread = place[4]
        fitting = [
            wish
            for wish in self.wishes
            if (wish.npages, wish.to) == (npages, to) and (None in (thread, wish.thread) or thread == wish.thread)
        ]
        for wish in fitting:
            self.wishes.remove(wish)
        if len(fitting) == 1:
            self.claims.append(VmmReport(*place, *fitting[0].asks, 0))
