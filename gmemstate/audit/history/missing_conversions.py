"""Conversions that a trace of the kernel should have shown, and has not: a trace of system calls shows that they succeeded.

Silence is evidence where a trace has proven that it shows conversions of a process, was running, and says that it lost
nothing. Then two sources contradict each other, and which pages were converted is not known.
"""

from typing import NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.audit.history.vmm_reports import CLOCKS
from gmemstate.model.events import Capability, Through
from gmemstate.model.objects import Conversion, Source, Vm

NEAR = 1_000_000_000
"""How near (ns) to a call another one of its thread may be the same call, though the two were not joined."""


class MissingConversion(NamedTuple):
    """A conversion that only its call has shown, with the trace that should have, and the guest if it is the only one."""

    conversion: Conversion
    trace: int
    vm: Vm | None


def missing_conversions(history: History) -> list[MissingConversion]:
    """The conversions that succeeded and are in no trace, in order; those of calls only where clocks are compared."""
    sources = history.memory.sources
    outside = [one for one in sources.values() if one.reference is not None and one.alone and not (one.gaps or one.late)]
    found = []
    for source in outside:
        trace = sources.get(source.reference or 0)
        if trace is None or trace.gaps or trace.late or trace.id not in history.first_times:
            continue
        shown = _by_thread(history, trace.id)
        guests_of = {thread: _guests(history, trace.id, thread, own) for thread, own in shown.items()}
        for one in history.conversions.values():
            if one.source == source.id and one.result == 0 and one.entered and one.thread in shown:
                guests = guests_of[one.thread]
                if guests and _should_be_shown(history, one, source, trace, shown[one.thread], guests):
                    found.append(MissingConversion(one, trace.id, guests[0] if len(guests) == 1 else None))
    return sorted(found, key=lambda one: one.conversion.id)


def _by_thread(history: History, trace: int) -> dict[int | None, list[Conversion]]:
    """The conversions that a trace has shown itself, by thread."""
    found: dict[int | None, list[Conversion]] = {}
    for one in history.conversions.values():
        if one.source == trace and one.thread is not None:
            found.setdefault(one.thread, []).append(one)
    return found


def _guests(history: History, trace: int, thread: int | None, shown: list[Conversion]) -> list[Vm]:
    """The guests that a trace has shown a thread to work for."""
    guest_ids = {history.memory.guest_id(owner) for owner in {one.owner for one in shown}}
    return [vm for vm in history.memory.vms.values() if vm.source == trace and (vm.id in guest_ids or vm.thread == thread)]


def _should_be_shown(
    history: History, one: Conversion, source: Source, trace: Source, shown: list[Conversion], guests: list[Vm]
) -> bool:
    """Whether a trace was running all the while, shows such calls of the thread, and has none that may be this one."""
    if one.first_observed is None or one.returned is None:
        return False
    begin, end = one.first_observed - source.ahead, one.returned - source.ahead
    if not history.first_times[trace.id] + CLOCKS <= begin <= end <= history.last_times[trace.id] - CLOCKS:
        return False
    alike = [other for other in shown if other.through is one.through and other.first_observed is not None]
    proven = [other for other in alike if _as_a_call(history, other)]
    if not proven or not (all(vm.made for vm in guests) or any((other.first_observed or 0) < begin for other in proven)):
        return False
    return not any(
        begin - NEAR <= (other.first_observed or 0) <= end + NEAR and not _seen_by(history, other, source.id) for other in alike
    )


def _as_a_call(history: History, other: Conversion) -> bool:
    """Whether a trace has shown a conversion by what every successful one has, not by a step that it need not have."""
    if other.entered or (other.result is not None and other.result_from is None):
        return True
    return other.through is Through.VM_IOCTL and Capability.ATTEMPTED in history.memory.shows(other)


def _seen_by(history: History, other: Conversion, source: int) -> bool:
    """Whether a source has seen the call of a conversion that another one has shown."""
    sources = {one.source for one in history.corroborating.get(other.id, ())}
    return source in sources or (other.result_from is not None and other.result_from[0] == source)
