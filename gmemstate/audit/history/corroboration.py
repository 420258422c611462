"""What several sources have seen of the same thing: counted once, heard together, and held against each other."""

from bisect import bisect, insort
from collections.abc import Iterable

from gmemstate.audit.history import missing_conversions as unshown
from gmemstate.audit.history import vmm_reports as vmm
from gmemstate.audit.history.history import History, Witness
from gmemstate.decode import errno_name
from gmemstate.model.events import EventRow
from gmemstate.model.findings import Finding
from gmemstate.model.objects import Conversion
from gmemstate.model.record import Record

SAME_RETURN = 10_000_000
"""How many ns apart two sources may see the same return of KVM_RUN."""


def history(record: Record, last: int | None = None, more: Iterable[EventRow] = ()) -> History:
    """The history of a record up to seq ``last`` (all of it if None), and of ``more`` events behind it."""
    if last is not None and last >= record.head().seq:
        last = None
    return compared(History(last=last).fold(record.events(1, last)).fold(more))


def compared(history: History) -> History:
    """A history that is folded to its end, with what its sources say of each other; to be asked for once."""
    _join_faults(history)
    _hear_vmms(history)
    _miss_conversions(history)
    return history


def _join_faults(history: History) -> None:
    """A return of KVM_RUN that one source has shown from outside and another one from inside is one, as the latter tells it."""
    outside = {source.id: source for source in history.memory.sources.values() if source.reference is not None}
    inner: dict[tuple[int | None, int, int], list[int]] = {}
    for fault in history.faults if outside else ():
        if fault.source not in outside and fault.t is not None:
            insort(inner.setdefault((fault.source, fault.thread, fault.result), []), fault.t)
    told = vmm.faults_told(history)
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
            told.add(fault.seq)
    if told:
        history.faults = [fault for fault in history.faults if fault.seq not in told]


def _hear_vmms(history: History) -> None:
    """What VMMs say of conversions is one more witness of them."""
    for claim, conversion, join, disagrees in vmm.heard(history):
        if disagrees and (known := history.told(conversion)) is not None:
            history.findings.append(_contradiction(history, claim, conversion, known))
        history.witnesses.setdefault(conversion.id, []).append(Witness(claim.source, claim.line, claim.result, join))
        if claim.own is not None:
            history.joined.add(claim.own)
    history.unexplained = [id for id in history.unexplained if id not in history.joined]


def _contradiction(history: History, claim: vmm.Claim, conversion: Conversion, known: int) -> Finding:
    others = (witness for witness in history.witnesses.get(conversion.id, ()) if witness.result == known)
    own = None if conversion.result is None else conversion.told_by or (conversion.source, conversion.last_line)
    source, line = own or next((other.source, other.line) for other in others)
    said = errno_name(claim.result) if claim.result else "converted"
    here, there = history.place(claim.source, claim.line), history.place(source, line)
    text = f"the VMM says {said} in {here}, the kernel returned {errno_name(known)} in {there}"
    return Finding("WITNESSES-DISAGREE", claim.seq, text, conversion.space, conversion.start, conversion.end)


def _miss_conversions(history: History) -> None:
    """What a trace should have shown, and has not, makes the answers about its guest incomplete."""
    labels = history.labels()
    for conversion, trace, vm in unshown.unshown(history):
        here, name = history.place(conversion.source, conversion.last_line), labels.get(trace, "?")
        history.findings.append(
            Finding(
                "WITNESSES-DISAGREE", conversion.id, f"a conversion returned 0 in {here}; {name} shows none there, though it shows others of "
                "this thread and says that it lost nothing", vm.id if vm is not None else None
            )
        )  # fmt: skip
        history.unshown.append(
            f"{vm.name if vm is not None else name}: {here} has a conversion that {name} does not show: which pages it changed is not "
            "known; record again with larger buffers and without filters"
        )
