"""What several sources have recorded of one call: counted once, results joined, contradictions found."""

from bisect import bisect, insort
from collections.abc import Iterable

from gmemstate.audit.history import missing_conversions
from gmemstate.audit.history import vmm_reports as vmm
from gmemstate.audit.history.history import CorroboratingReport, History
from gmemstate.decode import errno_name
from gmemstate.model.events import EventRow
from gmemstate.model.findings import Finding
from gmemstate.model.objects import Conversion
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible

SAME_RETURN = 10_000_000
"""How many ns apart two sources may see the same return of KVM_RUN."""


def history(record: Record, last: int | None = None, more: Iterable[EventRow] = ()) -> History:
    """The history of a record up to seq ``last`` (all of it if None), and of ``more`` events after it."""
    if last is not None and last >= record.head().seq:
        last = None
    found = History(last=last)
    return compared(found.fold(possible(record.events(1, last), found.memory)).fold(more))


def compared(history: History) -> History:
    """A history that is folded to its end, with its sources compared with each other; to be called once."""
    _join_faults(history)
    _join_vmm_reports(history)
    _miss_conversions(history)
    return history


def _join_faults(history: History) -> None:
    """A return of KVM_RUN that one source has shown from outside and another one from inside is one, as the latter shows it."""
    outside = {source.id: source for source in history.memory.sources.values() if source.reference is not None}
    inner: dict[tuple[int | None, int, int], list[int]] = {}
    for fault in history.faults if outside else ():
        if fault.source not in outside and fault.t is not None:
            insort(inner.setdefault((fault.source, fault.thread, fault.result), []), fault.t)
    returned = vmm.repeated_faults(history)
    for fault in history.faults if inner else ():
        source = outside.get(fault.source or 0)
        times = inner.get((source.reference, fault.thread, fault.result)) if source is not None else None
        if source is None or fault.t is None or not times:
            continue
        at = fault.t - source.ahead
        place = bisect(times, at)
        near = min(range(max(0, place - 1), min(place + 1, len(times))), key=lambda n: abs(times[n] - at))
        if abs(times[near] - at) <= SAME_RETURN:
            del times[near]
            returned.add(fault.seq)
    if returned:
        history.faults = [fault for fault in history.faults if fault.seq not in returned]


def _join_vmm_reports(history: History) -> None:
    """Reports of VMMs corroborate conversions, or contradict them."""
    for report, conversion, join, disagrees in vmm.corroborations(history):
        if disagrees and (known := history.result_of(conversion)) is not None:
            history.findings.append(_contradiction(history, report, conversion, known))
        history.corroborating.setdefault(conversion.id, []).append(
            CorroboratingReport(report.source, report.line, report.result, join)
        )
        if report.own is not None:
            history.joined.add(report.own)
    history.unexplained = [id for id in history.unexplained if id not in history.joined]


def _contradiction(history: History, report: vmm.VmmReport, conversion: Conversion, known: int) -> Finding:
    others = (one for one in history.corroborating.get(conversion.id, ()) if one.result == known)
    own = None if conversion.result is None else conversion.result_from or (conversion.source, conversion.last_line)
    source, line = own or next((other.source, other.line) for other in others)
    said = errno_name(report.result) if report.result else "converted"
    here, there = history.place(report.source, report.line), history.place(source, line)
    text = f"the VMM says {said} in {here}, the kernel returned {errno_name(known)} in {there}"
    return Finding.at("SOURCES-DISAGREE", report.seq, text, conversion.owner, conversion.start, conversion.end)


def _miss_conversions(history: History) -> None:
    """A conversion that a trace should have shown makes the answers about its guest incomplete."""
    labels = history.labels()
    for conversion, trace, vm in missing_conversions.missing_conversions(history):
        here, name = history.place(conversion.source, conversion.last_line), labels.get(trace, "?")
        text = (
            f"a conversion returned 0 in {here}; {name} shows none there, though it shows others of this thread and says that "
            "it lost nothing"
        )
        history.findings.append(Finding.at("SOURCES-DISAGREE", conversion.id, text, None if vm is None else vm.id))
        history.missing_conversions.append(
            f"{vm.name if vm is not None else name}: {here} has a conversion that {name} does not show: which pages it changed "
            "is not known; record again with larger buffers and without filters"
        )
