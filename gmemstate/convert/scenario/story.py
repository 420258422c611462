"""A simulated history step by step: a sentence for each event that shows how a conversion went, and what is left at the end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from gmemstate.convert.scenario.residue import left
from gmemstate.convert.scenario.run import ScenarioOutcome
from gmemstate.model import events as e
from gmemstate.model.events import SEQ, Event, EventRow, event_of
from gmemstate.model.linux import KVM_EXIT_MMIO
from gmemstate.narrate import Narrator

HIDDEN: tuple[type[Event], ...] = (
    e.SourceOpened,
    e.SourceRead,
    e.SourceShows,
    e.HostBooted,
    e.VmSeen,
    e.VmCreated,
    e.VmDestroyed,
    e.DialectSeen,
    e.GmemCreated,
    e.GmemSeen,
    e.GmemUnbound,
    e.ConvertMet,
    e.ZapStarted,
    e.InvalidateEnded,
    e.HvaUnmapped,
    e.DmaUnmapped,
    e.TaskSignalled,
    e.Interrupted,
)
"""Kinds that follow from their neighbours in a history, or from the setting of the scenario."""
TELLING: dict[type[Event], Callable[[Any], bool]] = {
    e.AttrsCompared: lambda event: bool(event.equal),
    e.Reserved: lambda event: bool(event.result),
    e.VcpuExited: lambda event: bool(event.result) or event.reason == KVM_EXIT_MMIO,
}
"""Kinds of which only some events say more than their neighbours."""


def story(outcome: ScenarioOutcome) -> Iterator[str]:
    """The steps of a scenario, one sentence each; what belongs to an ioctl is indented."""
    asked: e.ConvertAsked | None = None
    inside = False
    memory = outcome.simulation.memory
    narrator = Narrator(memory, simulated=True)
    findings = {finding.seq: finding for finding in memory.findings}
    for seq, event in _joined(outcome.simulation.rows[outcome.first - 1 :]):
        if isinstance(event, e.ConvertAsked):
            asked = event
        if isinstance(event, e.ConvertReturned):
            inside = False
        if _shown(event, asked):
            yield "  " * inside + narrator.sentence(event)
        inside |= isinstance(event, e.ConvertAsked)
        if seq in findings:
            yield "  " * inside + f"finding {findings[seq].code}: {findings[seq].text}"
    yield from left(outcome)


def step(outcome: ScenarioOutcome, seq: int) -> str:
    """One event on one line."""
    narrator = Narrator(outcome.simulation.memory, simulated=True)
    return narrator.line(seq, event_of(outcome.simulation.rows[seq - 1])).strip()


def _shown(event: Event, asked: e.ConvertAsked | None) -> bool:
    """Whether an event is shown; of invalidations only those of a conversion that are wider than what it was ``asked`` for."""
    if isinstance(event, e.InvalidateAdded):
        return event.conversion is not None and asked is not None and asked.npages is not None and event.npages > asked.npages
    return type(event) not in HIDDEN and TELLING.get(type(event), bool)(event)


def _joined(rows: Iterable[EventRow]) -> Iterator[tuple[int, Event]]:
    """Events with their seq, where faults of one user on neighbouring pages, one after the other, are one."""
    last: tuple[int, Event] | None = None
    for row in rows:
        event = event_of(row)
        if last is not None and isinstance(before := last[1], e.FaultServed) and isinstance(event, e.FaultServed):
            wanted = replace(before, start=event.start, npages=event.npages, pfn=event.pfn, t=event.t)
            if event == wanted and not event.result and before.start + before.npages == event.start:
                last = last[0], replace(before, npages=before.npages + event.npages)
                continue
        if last is not None:
            yield last
        last = row[SEQ], event
    if last is not None:
        yield last
