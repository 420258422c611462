"""Why a page is what it is: who wrote each fact about it last, and an irreducible set of events that proves it.

The last writer of a fact is the conversion (or the event of none) that changed it last; a conversion that was refused changes
nothing in the end. The set, folded alone, gives the same facts by the same writers. It is found by leaving events out: first
everything that has nothing to do with the page, then conversions that made nothing of it, then ever smaller pieces, then each
single event. Nothing that remains can be left out.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gmemstate.model import events as e
from gmemstate.model.errors import UsageError
from gmemstate.model.events import KIND, NPAGES, OWNER, SEQ, START, conversion_of, event_of
from gmemstate.model.fold.apply import apply
from gmemstate.model.machines.range import UNKNOWN, is_in_flight
from gmemstate.model.memory import Memory
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible
from gmemstate.model.units import END, Gfn

BY_PFN = frozenset(
    kind.code for kind in (e.HostBooted, e.Poisoned, e.PrivateMapFailed, e.PrivateMapped, e.PrivateUnmapFailed, e.ReclaimFailed)
)
"""Kinds that name host pages."""


class Spot(NamedTuple):
    """One page: a gfn of a guest, an index of a guest_memfd, or (``owner`` None) a host page."""

    unit: str
    page: int
    owner: int | None


class Facts(NamedTuple):
    """Everything that is derived about a page."""

    state: str | None
    backing: int | None
    marks: tuple[tuple[str, str, int | None, int | None, int | None], ...]
    """cause and state of each messed-up entry, with its pfn, gfn and index"""


class PageFact(NamedTuple):
    """One fact about a page: ``state``, ``backing`` or the cause of a messed-up entry, and its value."""

    name: str
    value: str


class Writer(NamedTuple):
    """Who changed a fact last: the event at which it changed, and the id of its conversion."""

    seq: int
    conversion: int | None

    @property
    def key(self) -> int:
        """The same for all events of a conversion."""
        return self.conversion or self.seq


class LeastEvents(NamedTuple):
    """The answer: what the page is, who made each fact of it, and the events that prove it."""

    spot: Spot
    facts: Facts
    writers: dict[PageFact, Writer]
    """the youngest first"""
    events: tuple[tuple[int, e.Event], ...]
    """in the order of the record"""


def find_spot(memory: Memory, unit: str, page: int, guest: str | None = None) -> Spot:
    """The page at an address. Raises UsageError where several guests or guest_memfds could be meant."""
    if unit == "pfn":
        return Spot(unit, page, None)
    if unit == "idx":
        owners = {gmem.id: f"guest_memfd {gmem.id}" for gmem in memory.gmems.values()}
        wanted = {key: name for key, name in owners.items() if guest in (None, str(key))}
    else:
        owners = {vm.id: vm.name for vm in memory.vms.values()}
        wanted = {key: name for key, name in owners.items() if guest in (None, name)}
    if len(wanted) != 1:
        raise UsageError(f"whose page? Name one with --guest: {', '.join(sorted(owners.values())) or 'there are none'}")
    return Spot(unit, page, next(iter(wanted)))


def facts(memory: Memory, spot: Spot) -> Facts:
    """What a memory says of a page."""
    unit, page, owner = spot
    gmem, index = (owner, page) if unit == "idx" else (None, None)
    state = None
    if unit == "gfn" and owner in memory.vms:
        state = memory.attribute(owner, Gfn(page))
        gmem, index = next(((found, first) for found, first, _, _ in memory.indices(owner, page, page + 1)), (None, None))
    elif unit == "idx" and owner is not None:
        state = memory.runs(owner, page, page + 1)[0].state
    backing = (memory.gmems[gmem].backing.get(index) or None) if gmem in memory.gmems and index is not None else None
    marks = [
        (entry.cause.name, entry.state, entry.pfn, entry.gfn, entry.index)
        for entry in memory.messed_up.values()
        if (unit == "pfn" and entry.pfn is not None and entry.pfn <= page < entry.pfn + (entry.count or 1))
        or (unit == "gfn" and entry.vm == owner and entry.gfn == page)
        or (entry.gmem is not None and entry.gmem == gmem and entry.index == index)
    ]
    return Facts(state, backing, tuple(sorted(marks, key=str)))


def why(record: Record, spot: Spot, last: int | None = None) -> LeastEvents:
    """The events without any one of which the page would not be what it is at event ``last``."""
    memory = Memory()
    rows = [row for row in possible(record.events(1, last), memory) if _applied(memory, row)]
    goal = _Goal(rows, spot)
    kept = [row for row in rows if _concerns(row, goal)]
    if not goal.reached(kept):
        kept = rows
    kept = _without_bystanders(kept, goal)
    size = max(1, len(kept) // 2)
    while True:
        kept, smaller = _without_pieces(kept, size, goal)
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    youngest = dict(sorted(goal.writers.items(), key=lambda one: one[1].seq, reverse=True))
    return LeastEvents(spot, goal.facts, youngest, tuple((row[SEQ], event_of(row)) for row in kept))


class TracedFacts(NamedTuple):
    """A record that was folded: its end, and who changed each fact of a page last."""

    memory: Memory
    writers: dict[PageFact, Writer]


def written(rows: Iterable[e.EventRow], spot: Spot) -> TracedFacts:
    """Fold events one by one, and note who changes the facts of a page."""
    memory = Memory()
    value = settled = UNKNOWN
    began: Writer | None = None
    made: Writer | None = None
    others: dict[PageFact, Writer] = {}
    for row in rows:
        apply(memory, row)
        found, by = facts(memory, spot), Writer(row[SEQ], conversion_of(row))
        if (now := found.state or UNKNOWN) != value:
            value, began = now, by
            if not is_in_flight(now) and now != settled:
                settled, made = now, by
        if (rest := _others(found)).keys() != others.keys():
            others = {fact: others.get(fact, by) for fact in rest}
    writer = began if is_in_flight(value) else made
    return TracedFacts(memory, others if writer is None else {PageFact("state", value): writer, **others})


def _others(found: Facts) -> dict[PageFact, None]:
    backing = {} if found.backing is None else {PageFact("backing", str(found.backing)): None}
    return backing | {PageFact(cause, f"{state} {pfn} {gfn} {index}"): None for cause, state, pfn, gfn, index in found.marks}


class _Goal:
    """What a set of events must give: the same facts, and no finding that the whole record lacks."""

    def __init__(self, rows: Sequence[e.EventRow], spot: Spot) -> None:
        self.spot = spot
        self.memory, self.writers = written(rows, spot)
        self.facts = facts(self.memory, spot)
        self.keys = {fact: writer.key for fact, writer in self.writers.items()}
        self.findings = {(finding.code, finding.seq) for finding in self.memory.findings}
        self.owners = self._owners()
        self.conversions = {conversion_of(row) for row in rows if self.covers(row)} - {None}

    def _owners(self) -> set[int]:
        """The attribute owners of the page, and of the page that it is bound to."""
        unit, _, owner = self.spot
        if unit == "pfn":
            return set(self.memory.vms) | set(self.memory.gmems)
        found = {owner} if owner is not None else set()
        for vm in self.memory.vms.values():
            for slot in (*vm.slots.values(), *vm.ghosts):
                if owner in (vm.id, slot.gmem):
                    found |= {vm.id} | ({slot.gmem} if slot.gmem is not None else set())
        return found

    def covers(self, row: e.EventRow) -> bool:
        """Whether an event is about pages among which the page may be."""
        start = row[START]
        if start is None or row[OWNER] is None or row[OWNER] not in self.owners or self.spot.unit == "pfn":
            return start is None
        if row[OWNER] != self.spot.owner:
            return True  # numbered otherwise: which of its pages is meant depends on the memslots
        return start <= self.spot.page < (END if row[NPAGES] is None else start + row[NPAGES])

    def reached(self, rows: Sequence[e.EventRow]) -> bool:
        """Whether some events alone give the same facts, by the same writers."""
        try:
            memory, writers = written(rows, self.spot)
            if facts(memory, self.spot) != self.facts or {fact: one.key for fact, one in writers.items()} != self.keys:
                return False
        except (KeyError, AttributeError, StopIteration):
            return False  # an event refers to one that was left out
        return all((finding.code, finding.seq) in self.findings for finding in memory.findings)


def _applied(memory: Memory, row: e.EventRow) -> bool:
    """Apply an event; whether it is one."""
    apply(memory, row)
    return row[KIND] != e.UNUSABLE


def _without_bystanders(rows: list[e.EventRow], goal: _Goal) -> list[e.EventRow]:
    """Leave out each conversion that made nothing of what is asked, as a whole, where others prove the same."""
    makers = set(goal.keys.values())
    for conversion in dict.fromkeys(conversion_of(row) for row in reversed(rows)):
        if conversion is not None and conversion not in makers:
            fewer = [row for row in rows if conversion_of(row) != conversion]
            if goal.reached(fewer):
                rows = fewer
    return rows


def _concerns(row: e.EventRow, goal: _Goal) -> bool:
    """Whether an event may have to do with the page at all."""
    if row[KIND] == e.SourceShows.code:
        return True
    if goal.spot.unit == "pfn" and row[KIND] in BY_PFN:
        return getattr(event_of(row), "pfn", None) in (None, goal.spot.page) or row[START] is not None
    conversion = conversion_of(row)
    if conversion is not None:
        return conversion in goal.conversions
    return (row[OWNER] is None or row[OWNER] in goal.owners) and goal.covers(row)


def _without_pieces(rows: list[e.EventRow], size: int, goal: _Goal) -> tuple[list[e.EventRow], bool]:
    """Leave out every piece of ``size`` events that can be; from the end, as what is later depends on what is earlier."""
    smaller = False
    end = len(rows)
    while end > 0:
        start = max(0, end - size)
        fewer = rows[:start] + rows[end:]
        if goal.reached(fewer):
            rows, smaller = fewer, True
        end = start
    return rows, smaller
