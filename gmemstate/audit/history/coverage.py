"""What the sources of a record could have shown of a guest between two events, and whether lines of them are lost.

That nothing happened is a claim: it needs a source that has proven to show what would have happened, of that guest, and that
lost nothing meanwhile. Each answer asks here before it takes silence for evidence.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model.events import Capability, Dialect
from gmemstate.model.objects import Conversion, Request

CALLS = (Capability.ASKED, Capability.RETURNED)
"""One of them shows each conversion; the tracepoint of a VM's own attributes shows those of that dialect only."""


class Interval(NamedTuple):
    """Events ``first`` to ``last`` (seqs) of one source, of a guest if it is known which."""

    source: int | None
    guest: int | None
    first: int
    last: int


def of_request(request: Request) -> Interval:
    """From a guest's request to its answer."""
    return Interval(request.source, request.owner, request.id, request.last)


def lost(history: History, interval: Interval) -> bool:
    """Whether lines of an interval are known to be lost, or may be: its source says that it is not whole."""
    known, facts = history.memory.sources.get(interval.source or 0), history.sources.get(interval.source or 0)
    if known is None or facts is None:
        return known is None and interval.source is not None
    return bool(known.late) or facts.damage is not None or any(interval.first <= seq <= interval.last for seq in known.gaps)


def shows(history: History, interval: Interval) -> frozenset[int]:
    """What the source has proven to show of the guest; lines that name no guest count where it is the only one."""
    memory = history.memory
    vm, source = memory.vms.get(interval.guest or 0), memory.sources.get(interval.source or 0)
    unnamed = source.shows if source is not None else frozenset()
    if vm is None:
        return unnamed
    alone = all(other.source != vm.source or other is vm for other in memory.vms.values())
    return vm.shows | unnamed if alone else vm.shows


def shows_conversions(history: History, interval: Interval) -> bool:
    """Whether any conversion of the guest in an interval would be on record."""
    if lost(history, interval):
        return False
    vm, proven = history.memory.vms.get(interval.guest or 0), shows(history, interval)
    mainline = vm is not None and vm.dialect is Dialect.MAINLINE
    return not proven.isdisjoint((*CALLS, Capability.ATTEMPTED) if mainline else CALLS)


def others(history: History, request: Request) -> Iterator[Conversion]:
    """Conversions between a request and its answer that are joined to no request, and may be of its guest."""
    for conversion in history.conversions.values():
        if conversion.request is not None or not request.id < conversion.id < request.last:
            continue
        guest = history.memory.guest_id(conversion.owner)
        if conversion.source == request.source and (None in (guest, request.owner) or guest == request.owner):
            yield conversion
