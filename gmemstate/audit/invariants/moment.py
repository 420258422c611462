"""What a judge sees: one event, with the memory before or behind it, and what each open conversion has done so far.

A judge is a function of a moment. For each look it yields FINE, or what is wrong; where nothing is certain it yields
nothing. The modules of judges read like the claims of their invariants.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from gmemstate.audit.invariants.catalogue import CATALOGUE, NOT_LOGS
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    KIND,
    NPAGES,
    OWNER,
    RESULT,
    SEQ,
    SOURCE,
    START,
    AttrsCompared,
    AttrsStored,
    Capability,
    Dialect,
    Event,
    EventRow,
    FolioMerged,
    FolioSplit,
    InvalidateAdded,
    InvalidateEnded,
    Reserved,
    Spinning,
    T,
    TaskStuck,
    Through,
    Undone,
    UserAnswered,
    UsersChecked,
    ZapStarted,
)
from gmemstate.model.memory import Memory, StateRun
from gmemstate.model.objects import Conversion
from gmemstate.model.reports import SourceFormat
from gmemstate.model.units import END, NS

RACE = NS
"""A traced fault that was decided before a change may be seen behind it: for so long (ns) a disagreement says nothing."""


class Violation(NamedTuple):
    """A look that found an invariant broken, and where."""

    text: str
    owner: int | None = None
    start: int | None = None
    end: int | None = None
    seq: int | None = None
    """the event that shows it, if it is not the one that was looked at"""


OK: Final = None
"""A look that found nothing wrong."""

Evaluations = Iterable[Violation | None]
Pages = tuple[int, int]
Note = TypeVar("Note")


def pages_of(row: EventRow) -> Pages:
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

    def add(self, row: EventRow) -> None:
        """Note one more step."""
        kind, failed = row[KIND], bool(row[RESULT])
        if kind == UserAnswered.code:
            self.refused |= row[RESULT] != 0
        elif kind == ZapStarted.code:
            self.zaps += 1
            self.slots += row[ACTOR] is not None
        elif kind == UsersChecked.code:
            self.tested |= not failed
        elif kind == AttrsStored.code:
            self.stored += [] if failed else [pages_of(row)]
        elif kind == InvalidateEnded.code:
            self.ended += 1
        elif kind == AttrsCompared.code:
            self.same = bool(row[RESULT])
        elif kind == InvalidateAdded.code:
            self.invalidation_ranges.append(pages_of(row))
        elif kind == Reserved.code:
            self.reserved |= not failed
        elif kind == Undone.code:
            self.undone.append(pages_of(row))
        elif kind in (FolioSplit.code, FolioMerged.code):
            self.folios += not failed
        elif kind in (Spinning.code, TaskStuck.code):
            self.waits = self.waits or (row[SEQ], row[T])
            self.stuck |= kind == TaskStuck.code


STEPS = frozenset(
    kind.code
    for kind in (
        AttrsCompared,
        AttrsStored,
        FolioMerged,
        FolioSplit,
        InvalidateAdded,
        InvalidateEnded,
        Reserved,
        Spinning,
        TaskStuck,
        Undone,
        UserAnswered,
        UsersChecked,
        ZapStarted,
    )
)
"""The kinds of events that :meth:`Steps.add` has something to note of."""


class Moment:
    """An event, with the memory before or behind it."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.row: EventRow = (0, *(None,) * 12)  # type: ignore[assignment]
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

    def turn_to(self, row: EventRow) -> None:
        """Go on to the next event."""
        self.row, self._shown = row, None
        key = row[CONVERSION]
        conversion = self.conversion = None if key is None else self.memory.conversions.get(key)
        if conversion is not None:
            self.steps = self.open.get(conversion.id) or Steps()

    def note(self, kind: type[Note]) -> Note:
        """What the judges of one subject keep from one event to the next."""
        note: Note | None = self._notes.get(kind)
        if note is None:
            note = self._notes[kind] = kind()
        return note

    @property
    def owner(self) -> int:
        """The space of the event; 0, which is no attribute owner, if it has none."""
        return self.row[OWNER] or 0

    @property
    def pages(self) -> Pages:
        """The pages of the event, half-open."""
        return pages_of(self.row)

    @property
    def dialect(self) -> Dialect:
        """The dialect of the guest, as far as it is known."""
        conversion, memory = self.conversion, self.memory
        owner = self.row[OWNER] if conversion is None else conversion.owner
        vm = memory.vms.get(owner) or memory.vms.get(memory.guest_id(owner) or 0)  # type: ignore[arg-type]
        if vm is not None and vm.dialect is not Dialect.UNKNOWN:
            return vm.dialect
        return Dialect.INPLACE if conversion is not None and conversion.through is Through.GMEM_IOCTL else Dialect.UNKNOWN

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

    def shows(self, *capabilities: Capability) -> bool:
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
        """Whether no page of a guest has become something else so lately that a fault may not have heard of it."""
        known = [self.changed[key] for key in (owner, self.memory.guest_id(owner) or 0) if key in self.changed]
        if self.simulated or not known:
            return True
        t = self.row[T]
        return t is not None and all(last is not None and t - last >= RACE for last in known)


# --- the register ---------------------------------------------------------------------------------------------------

Check = Callable[[Moment], Evaluations]
ByDialect = dict[Dialect, list[tuple[str, Check]]]
"""For guests of each dialect the judges that are about it, with the ids of their invariants."""
BEFORE: dict[int, ByDialect] = {}
BEHIND: dict[int, ByDialect] = {}
AT_THE_END: ByDialect = {dialect: [] for dialect in Dialect}
"""By kind of event: who looks before it, and behind it; and who looks at conversions that are open at the end."""


def before(code: str, *kinds: type[Event]) -> Callable[[Check], Check]:
    """Look at an invariant just before events of some kinds are applied to the memory."""
    return _register(code, [BEFORE.setdefault(kind.code, {dialect: [] for dialect in Dialect}) for kind in kinds])


def behind(code: str, *kinds: type[Event]) -> Callable[[Check], Check]:
    """Look at an invariant as soon as events of some kinds are applied to the memory."""
    return _register(code, [BEHIND.setdefault(kind.code, {dialect: [] for dialect in Dialect}) for kind in kinds])


def at_the_end(code: str) -> Callable[[Check], Check]:
    """Look at an invariant when the record is at its end, for each conversion that is still open."""
    return _register(code, [AT_THE_END])


def _register(code: str, tables: list[ByDialect]) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        for table in tables:
            for dialect in (Dialect.UNKNOWN, *CATALOGUE[code].dialects):
                table[dialect].append((code, check))
        return check

    return register
