"""The memory at one event of a record, and what the record says of its sources; from a snapshot and the events after it."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from gmemstate.model import events as e
from gmemstate.model.events import KIND, SEQ, details, event_of
from gmemstate.model.fold.apply import fold
from gmemstate.model.memory import Memory
from gmemstate.model.record import Record
from gmemstate.model.reports import SourceFormat, formats_of
from gmemstate.model.soundness import possible
from gmemstate.model.units import seconds
from gmemstate.text import count

AT_ONCE = 256
GAPS = 3
"""How many gaps of a source are named one by one."""
ABOUT_SOURCES = frozenset((e.SourceOpened.code, e.SourceRead.code, e.Gap.code))


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
    late: int | None = None
    """what it says up to this time (ns of its clock) is older than what was on record"""

    @property
    def damage(self) -> str | None:
        """Why it is not whole, as of its last reading."""
        return self.account.get("damage") if self.account else "its reading has not come to an end"


def in_order(names: Iterable[str]) -> str:
    """The command that reads sources together, in the order of time."""
    return f"`gmemstate --db NEW.db ingest {' '.join(shlex.quote(name) for name in names)}`"


class Moment:
    """What is true after one event; :class:`gmemstate.audit.history.history.History` has what happened before."""

    def __init__(self, memory: Memory, last: int | None) -> None:
        """``last`` is the seq at which the caller stops, None for the end of the record."""
        self.memory = memory
        self.last = last
        self.sources: dict[int, SourceFacts] = {}
        self.missing_conversions: list[str] = []
        """conversions that a trace should have shown; only a history finds them"""

    def fold(self, rows: Iterable[e.EventRow]) -> Self:
        """Apply rows in order: so few at once that they, and what comes of them, stay in the processor's cache."""
        memory, rest = self.memory, iter(rows)
        while some := list(islice(rest, AT_ONCE)):
            fold(possible(some, memory), memory)
            memory.clear_pending()
            for row in some:
                if row[KIND] in ABOUT_SOURCES:
                    self.learn(row)
        return self

    def learn(self, row: e.EventRow) -> None:
        """Take in an event that is about a source."""
        event = event_of(row)
        if isinstance(event, e.SourceOpened):
            facts = details(event.detail)
            self.sources[row[SEQ]] = SourceFacts(row[SEQ], facts.get("name", "?"), facts.get("format", "?"))
            return
        source = self.sources.get(event.source or 0)
        if source is None:
            return
        if not isinstance(event, e.Gap):
            source.account = details(event.detail)
        elif event.gap is e.GapKind.LATE:
            source.late = event.t
        else:
            source.gaps.append((event.line, event.count))

    # --- what is missing

    def missing(self) -> list[str]:
        """Why an answer from this record is incomplete; empty if it is not.

        What a record up to some moment does not hold yet is not missing.
        """
        labels = self.labels()
        reasons = [f"{labels[source.id]}{reason}" for source in self.sources.values() for reason in self._missing(source)]
        reasons += self.missing_conversions
        reasons += self.unusable()
        late = [vm for vm in self.memory.vms.values() if not vm.made]
        reasons += [f"{vm.name}: the record begins after its beginning; what was converted before is not known" for vm in late]
        if not self.memory.seq and self.last is None:
            reasons.append("no event is on record: `gmemstate ingest FILE` reads a trace")
        return reasons

    def unusable(self) -> list[str]:
        """That the record holds what cannot be events, if it does."""
        left_out = self.memory.left_out
        which = count(len(left_out), "event")
        return [f"{which} cannot be used, the first is {left_out[0]}: `gmemstate check` says why"] if left_out else []

    def labels(self) -> dict[int, str]:
        """For each source the shortest tail of its name that tells it from the others."""
        paths = {source.id: source.name.split("/") for source in self.sources.values()}
        others = list(paths.values())
        return {
            key: next(
                ("/".join(path[-n:]) for n in range(1, len(path)) if sum(other[-n:] == path[-n:] for other in others) == 1),
                "/".join(path),
            )
            for key, path in paths.items()
        }

    def place(self, source: int | None, line: int | None) -> str:
        """Where something stands: ``dmesg.txt:7``."""
        return f"{self.labels().get(source or 0, '?')}:{line}"

    def _missing(self, source: SourceFacts) -> Iterable[str]:
        if source.damage is not None and self.last is None:
            yield f": {source.damage}"
        if source.late is not None:
            yield (
                f": what it says up to {seconds(source.late)} s came later than what is on record of that time: it is "
                f"recorded, not applied; {in_order(source.name for source in self.sources.values())} has all in order"
            )
        if len(source.gaps) > GAPS:
            lines = ", ".join(str(line) for line, _ in source.gaps[:GAPS])
            least = sum(lost or 0 for _, lost in source.gaps)
            events = f"at least {least} events" if least else "events"
            yield f":{lines} and {len(source.gaps) - GAPS} more places: {events} lost; what happened meanwhile is not known"
        for line, lost in source.gaps if len(source.gaps) <= GAPS else ():
            events = "events" if lost is None else f"{lost} events"
            yield f":{line}: {events} lost; what happened meanwhile is not known"
        known = self.memory.sources.get(source.id)
        unfinished = 0 if known is None else known.unfinished
        if known is not None and known.read and self.last is None:
            unfinished += sum(one.source == source.id for one in self.memory.conversions.values())
        if unfinished:
            yield (
                f": the result of {count(unfinished, 'conversion')} is not on record (vm_ioctl_ret, gmem_ioctl_ret or "
                "sys_exit_ioctl shows it): what became of the pages is not known"
            )
        if self.last is None and _should_show_conversions(source.format) and not self._shows_conversions(source):
            yield (
                ": no line shows a conversion, and none proves that one would have been seen: static tracepoints do not show "
                "those of a guest_memfd, nor any result; add the return probes on kvm_vm_ioctl and kvm_gmem_ioctl"
            )

    def _shows_conversions(self, source: SourceFacts) -> bool:
        """Whether a source has shown a conversion, or lines of a kind that shows all of them."""
        known = self.memory.sources.get(source.id)
        shown = set(known.shows) if known is not None else set()
        for vm in self.memory.vms.values():
            shown |= vm.shows if vm.source == source.id else set()
        return (known is not None and known.converts) or not shown.isdisjoint(_CALLS)


def moment_at(record: Record, last: int | None = None) -> Moment:
    """The moment after event ``last`` (the end if None), from the youngest snapshot before it."""
    if last is not None and last >= record.head().seq:
        last = None
    memory, about_sources = record.remembered(last)
    found = Moment(memory, last)
    for row in about_sources:
        if row[KIND] in ABOUT_SOURCES:
            found.learn(row)
    return found.fold(record.events(memory.seq + 1, last))


def _should_show_conversions(format_: str) -> bool:
    """Whether people expect conversions in a source of some formats: traces, and what has no entry to know it by."""
    return not formats_of(format_).isdisjoint((SourceFormat.FTRACE, SourceFormat.BPFTRACE, SourceFormat.UNKNOWN))


_CALLS = frozenset((e.Capability.ASKED, e.Capability.RETURNED, e.Capability.ATTEMPTED))
