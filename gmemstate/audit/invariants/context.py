"""What a check of an invariant is given: one event, the memory before or after it, and the steps of each open conversion.

A check is a function of a context and the event. For each evaluation it yields OK or a Violation; where nothing is certain it
yields nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from gmemstate.audit.invariants.catalogue import CATALOGUE, NOT_LOGS
from gmemstate.model import events as e
from gmemstate.model.events import NPAGES, OWNER, SEQ, SOURCE, START, T
from gmemstate.model.memory import Memory, StateRun
from gmemstate.model.objects import Conversion
from gmemstate.model.reports import SourceFormat
from gmemstate.model.units import END, NS

RACE = NS
"""A traced fault that was decided before a change may be seen after it: for so long (ns) a disagreement says nothing."""


class Violation(NamedTuple):
    """An evaluation that found an invariant broken, and where."""

    text: str
    owner: int | None = None
    start: int | None = None
    end: int | None = None
    seq: int | None = None
    """the event that shows it, if it is not the one that was checked"""


OK: Final = None
"""An evaluation that found the invariant kept."""

Evaluations = Iterable[Violation | None]
Pages = tuple[int, int]
Note = TypeVar("Note")


def pages_of(row: e.EventRow) -> Pages:
    """The pages of an event, half-open; none if it does not say."""
    start = row[START]
    if start is None or start < 0:
        return 0, 0
    return start, END if row[NPAGES] is None else min(END, start + row[NPAGES])


@dataclass(slots=True)
class Steps:
    """What was seen of an open conversion, where the memory keeps only what follows from it."""

    crowded: bool = False
    """another conversion of its pages was open at the same time"""
    same: bool | None = None
    """what the kernel found when it compared the range with the target"""
    zaps: int = 0
    slots: int = 0
    """zaps of memslots, thus of the guest's page tables"""
    invalidation_ranges: list[Pages] = field(default_factory=list)
    """the ranges whose faults are held off"""
    ended: int = 0
    reserved: bool = False
    tested: bool = False
    """nobody else was found to hold the pages"""
    refused: bool = False
    """a user did not let go, or did not answer"""
    stored: list[Pages] = field(default_factory=list)
    undone: list[Pages] = field(default_factory=list)
    """items of a rollback, those that failed with a WARN too"""
    folios: int = 0
    """folios that were split or merged"""
    waits: tuple[int, int | None] | None = None
    """seq and time of the first word that it waits for a reference"""
    stuck: bool = False

    def add(self, row: e.EventRow) -> None:
        """Note one more step."""
        match e.event_of(row):
            case e.UserAnswered(result=result):
                self.refused |= result != 0
            case e.ZapStarted(slot=slot):
                self.zaps += 1
                self.slots += slot is not None
            case e.UsersChecked(result=result):
                self.tested |= not result
            case e.AttrsStored(result=result):
                self.stored += [] if result else [pages_of(row)]
            case e.InvalidateEnded():
                self.ended += 1
            case e.AttrsCompared(equal=equal):
                self.same = bool(equal)
            case e.InvalidateAdded():
                self.invalidation_ranges.append(pages_of(row))
            case e.Reserved(result=result):
                self.reserved |= not result
            case e.Undone():
                self.undone.append(pages_of(row))
            case e.FolioSplit(result=result) | e.FolioMerged(result=result):
                self.folios += not result
            case e.Spinning() | e.TaskStuck() as event:
                self.waits = self.waits or (row[SEQ], row[T])
                self.stuck |= isinstance(event, e.TaskStuck)


STEPS = frozenset(
    kind.code
    for kind in (
        e.AttrsCompared,
        e.AttrsStored,
        e.FolioMerged,
        e.FolioSplit,
        e.InvalidateAdded,
        e.InvalidateEnded,
        e.Reserved,
        e.Spinning,
        e.TaskStuck,
        e.Undone,
        e.UserAnswered,
        e.UsersChecked,
        e.ZapStarted,
    )
)
"""The kinds of events that :meth:`Steps.add` has something to note of."""


class CheckContext:
    """An event, with the memory before or after it."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.row: e.EventRow = (0, *(None,) * 12)  # type: ignore[assignment]
        self.conversion: Conversion | None = None
        """the conversion that the event belongs to"""
        self.steps = Steps()
        """what that conversion has done so far"""
        self.open: dict[int, Steps] = {}
        self.formats: dict[int, str] = {}
        self.changed: dict[int, int | None] = {}
        """when pages of an attribute owner, or of a guest, became something else (ns)"""
        self._notes: dict[type, Any] = {}
        self._shown: frozenset[int] | None = None

    def go_to(self, row: e.EventRow) -> None:
        """Go on to the next event."""
        self.row, self._shown = row, None
        key = e.conversion_of(row)
        conversion = self.conversion = None if key is None else self.memory.conversions.get(key)
        if conversion is not None:
            self.steps = self.open.get(conversion.id) or Steps()

    def note(self, kind: type[Note]) -> Note:
        """What the checks of one subject keep from one event to the next."""
        note: Note | None = self._notes.get(kind)
        if note is None:
            note = self._notes[kind] = kind()
        return note

    @property
    def owner(self) -> int:
        """The attribute owner of the event; 0, which is none, if it has none."""
        return self.row[OWNER] or 0

    @property
    def pages(self) -> Pages:
        """The pages of the event, half-open."""
        return pages_of(self.row)

    @property
    def dialect(self) -> e.Dialect:
        """The dialect of the guest, as far as it is known."""
        conversion, memory = self.conversion, self.memory
        owner = self.row[OWNER] if conversion is None else conversion.owner
        vm = memory.vms.get(owner) or memory.vms.get(memory.guest_id(owner) or 0)  # type: ignore[arg-type]
        if vm is not None and vm.dialect is not e.Dialect.UNKNOWN:
            return vm.dialect
        return e.Dialect.INPLACE if conversion is not None and conversion.through is e.Through.GMEM_IOCTL else e.Dialect.UNKNOWN

    def gmem_of_slot(self, event: "e.GmemBound | e.SlotSet") -> int | None:
        """The guest_memfd of the memslot that is bound or set."""
        if isinstance(event, e.GmemBound):
            return event.gmem
        vm = self.memory.vms.get(self.owner)
        slot = vm.slots.get(event.slot or 0) if vm is not None else None
        return None if slot is None else slot.gmem

    def runs(self, owner: int | None = None, pages: Pages | None = None) -> list[StateRun]:
        """The states of pages; those of the event if none are named."""
        start, end = self.pages if pages is None else pages
        return self.memory.runs(self.owner if owner is None else owner, start, end)

    # --- how much the record tells

    @property
    def format(self) -> str | None:
        """The format of the source."""
        return self.formats.get(self.row[SOURCE] or 0)

    @property
    def traced(self) -> bool:
        """Whether the event was read from what a real kernel has printed."""
        return self.format is not None and not self.complete

    @property
    def simulated(self) -> bool:
        """Whether everything that happens on the host is on record."""
        return self.format == SourceFormat.SIMULATION

    @property
    def complete(self) -> bool:
        """Whether each step of a conversion is on record."""
        return self.formats.get(self.row[SOURCE] or 0) in NOT_LOGS

    def shows(self, *capabilities: e.Capability) -> bool:
        """Whether some steps of the conversion would have been seen, so that their absence says something."""
        conversion = self.conversion
        if conversion is None or not conversion.entered or conversion.gapped:
            return False
        if self._shown is None:
            self._shown = self.memory.shows(conversion)
        return self._shown.issuperset(capabilities) or self.complete

    def quiet(self, owner: int) -> bool:
        """Whether no other conversion of a guest is under way."""
        memory, guest_id = self.memory, self.memory.guest_id(owner)
        return not any(
            other is not self.conversion
            and other.source == self.row[SOURCE]
            and memory.guest_id(other.owner) in (None, guest_id)
            for other in memory.conversions.values()
        )  # fmt: skip

    def settled(self, owner: int) -> bool:
        """Whether no page of a guest has become something else so lately that a fault may have been decided before."""
        known = [self.changed[key] for key in (owner, self.memory.guest_id(owner) or 0) if key in self.changed]
        if self.simulated or not known:
            return True
        t = self.row[T]
        return t is not None and all(last is not None and t - last >= RACE for last in known)


# --- the register ---------------------------------------------------------------------------------------------------

Check = Callable[[CheckContext, Any], Evaluations]
ByDialect = dict[e.Dialect, list[tuple[str, Check]]]
"""For guests of each dialect the checks that are about it, with the ids of their invariants."""
BEFORE: dict[int, ByDialect] = {}
AFTER: dict[int, ByDialect] = {}
AT_END: ByDialect = {dialect: [] for dialect in e.Dialect}
"""By kind of event: what is checked before it, and after it; and what is checked of conversions that are open at the end."""


def before(code: str, *kinds: type[e.Event]) -> Callable[[Check], Check]:
    """Check an invariant just before events of some kinds are applied to the memory."""
    return _register(code, [BEFORE.setdefault(kind.code, {dialect: [] for dialect in e.Dialect}) for kind in kinds])


def after(code: str, *kinds: type[e.Event]) -> Callable[[Check], Check]:
    """Check an invariant as soon as events of some kinds are applied to the memory."""
    return _register(code, [AFTER.setdefault(kind.code, {dialect: [] for dialect in e.Dialect}) for kind in kinds])


def at_end(code: str) -> Callable[[Check], Check]:
    """Check an invariant when the record is at its end, for each conversion that is still open (the event is None)."""
    return _register(code, [AT_END])


def _register(code: str, tables: list[ByDialect]) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        for table in tables:
            for dialect in (e.Dialect.UNKNOWN, *CATALOGUE[code].dialects):
                table[dialect].append((code, check))
        return check

    return register
