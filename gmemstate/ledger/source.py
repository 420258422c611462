"""One source on its way into a record: its events, what is on record of them already, and what came of it."""

import contextlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from gmemstate.ingest.input import Account, LineReader
from gmemstate.ingest.merge.clocks import Calls, Distance
from gmemstate.ingest.merge.pairing import WAIT, Item
from gmemstate.ingest.session import IngestSession
from gmemstate.model import events as e
from gmemstate.model.document import Document
from gmemstate.model.errors import GmemstateError, SourceChanged
from gmemstate.model.events import KIND, LINE, SEQ, SOURCE, T, conversion_of, detail, event_of, thread_of
from gmemstate.model.record import SourceInfo, references, renamed, same_fact
from gmemstate.model.reports import SourceFormat, formats_of
from gmemstate.model.units import Ns
from gmemstate.store.record import StoredRecord

AHEAD = 50_000
"""How many events of a source may wait until its clock is compared with those of the others."""
FROM_OUTSIDE = frozenset((SourceFormat.STRACE, SourceFormat.PERF_TRACE))
"""Formats that see calls from outside."""
CONVERSIONS = frozenset(kind.code for kind in (e.ConvertAsked, e.ConvertMet, e.ConvertAttempted, e.ConvertReturned))
INSIDE_OF = {
    **dict.fromkeys(CONVERSIONS, "convert"),
    **dict.fromkeys((e.GuestAsked.code, e.VcpuExited.code, e.MemoryFaultExit.code), "KVM_RUN"),
    e.Punched.code: "fallocate",
}
"""Kinds of events that a thread shows inside of a call, and of which."""
OPEN = 1000
"""How many calls of a source may be without their return at a time."""


class ComparedClock(NamedTuple):
    """How far the clock of a source is ahead of that of another one."""

    distance: Distance
    name: str
    reference: int
    """as what events refer to the other one"""
    stated: bool = False
    """it is on record"""


@dataclass(frozen=True, slots=True)
class Ingested(Document):
    """What came of reading one source."""

    name: str
    events: int
    """how many events were added"""
    account: Account
    gaps: int
    damage: str | None
    """why the source is not whole, None if it is"""
    known: bool
    """it was read before, and nothing was new"""
    clock: str | None = None
    """the source whose clock its own was compared with"""
    calls: int = 0
    """by how many calls that both have shown; by none where the other one says itself what the clock of this one showed"""
    within_ns: Ns | None = None
    """by how much the comparison may be wrong; None where there was none"""
    apart: bool = False
    """its clock could be compared with none of the others': its events stand all before or all after theirs"""
    late: int = 0
    """how many of the added events are older than what was on record"""

    written: ClassVar = (
        "name", "events", "account", "gaps", "damage", "known", "clock", "calls", "within_ns", "apart", "late", "complete",
    )  # fmt: skip

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.gaps and self.damage is None and not self.late


@dataclass(frozen=True, slots=True)
class Refused(Document):
    """A source that could not be read, or not to its end."""

    name: str
    error: GmemstateError

    written: ClassVar = ("name", "code", "reason")

    @property
    def code(self) -> str:
        """The kind of error: ``cannot-read``, ``source-changed``."""
        return self.error.code

    @property
    def reason(self) -> str:
        """Why, and what to do."""
        return str(self.error)


class RecordedSource:
    """A source that is on record and is not read now."""

    def __init__(self, record: StoredRecord, info: SourceInfo) -> None:
        self.name = info.name
        self.id = self.reference = info.id
        self.calls = Calls()
        self._record = record
        self._outside = not FROM_OUTSIDE.isdisjoint(formats_of(info.format))
        self._begun: dict[int | None, int | None] = {}

    def note(self, row: e.EventRow) -> None:
        """Take from an event of the source what its line shows of a call, or of another clock."""
        if row[KIND] == e.ClockPair.code:
            pair = event_of(row)
            if isinstance(pair, e.ClockPair) and pair.t is not None and pair.clock is None:
                self.calls.real = pair.t, pair.other
            return
        thread, t, kind, call = thread_of(row), row[T], INSIDE_OF[row[KIND]], conversion_of(row)
        if thread is None or t is None:
            return
        if not self._outside:
            self.calls.inside(thread, kind, t)
        elif row[KIND] == e.ConvertAsked.code:
            self._begun = {**self._begun, call: t} if len(self._begun) < OPEN else {call: t}
        elif row[KIND] == e.ConvertReturned.code and (begin := self._begun.pop(call, None)) is not None:
            self.calls.span(thread, kind, begin, t)

    def items(self) -> Iterator[Item]:
        """Its conversions, as they are on record."""
        for row in self._record.of_kinds(sorted(CONVERSIONS)):
            if row[SOURCE] == self.reference and (call := conversion_of(row)) is not None:
                yield Item(row, row, closed=(call,) if row[KIND] == e.ConvertReturned.code else ())


class IngestedSource:
    """An input on its way into a record. ``number`` of ``of`` keeps its references apart from those of the others."""

    def __init__(self, record: StoredRecord, opened: LineReader, number: int, of: int, known: dict[int, int]) -> None:
        self.name = opened.name
        self.number = number
        self.before = known_source(record, opened)
        self.error: GmemstateError | None = None
        self.added = self.late = 0
        self.compared: ComparedClock | None = None
        self.until: int | None = None
        """what is older than this (ns of its own clock) is late; None if nothing can be"""
        self.calls = Calls()
        self._input = opened
        self._of = of
        self._known = known
        self._rows = stored_rows(record, self.before)
        self._reading = IngestSession(opened, () if self.before is None else tuple(pauses(record, self.before)))
        self._items = self._read()
        self._ahead: deque[Item] = deque()
        self._is_late = False
        self._met = self.before is not None

    @property
    def id(self) -> int | None:
        """As what it is on record, if it was read before."""
        return None if self.before is None else self.before.id

    @property
    def clock(self) -> str | None:
        """The clock of its times, if they name one."""
        return self._reading.clock

    @property
    def reference(self) -> int:
        """As what its events refer to it."""
        return self._own(self._reading.tracker.source)

    def close(self) -> None:
        """Let go of the file and of the record."""
        self._input.close()
        self._rows.close()

    def look_ahead(self) -> None:
        """Read on until there are enough calls to compare clocks by, or too many events wait."""
        self._reading.calls = self.calls
        while len(self._ahead) < AHEAD and not self.calls.full and (item := self._next()) is not None:
            self._ahead.append(item)

    def items(self) -> Iterator[Item]:
        """All events, once; they end where the source can no longer be read (``error``)."""
        while (item := self._ahead.popleft() if self._ahead else self._next()) is not None:
            yield item

    def introduced(self, row: e.EventRow, place: int | None) -> list[e.EventRow]:
        """What has to be on record before a new event: how the clock of the source compares, and that what follows is late.

        ``place`` is where the event stands in the order of time (ns of the source's clock): a call may have begun long before.
        """
        found: list[e.EventRow] = []
        if self.compared is not None and not self.compared.stated and self._met:
            self.compared = self.compared._replace(stated=True)
            found.append(self._pair(self.compared))
        self._met = True
        t = row[T]
        if self.until is not None and t is not None:
            if not self._is_late and place is not None and place < self.until - WAIT:
                self._is_late = True
                found.append(e.Gap(gap=e.GapKind.LATE, t=self.until, source=self.reference).row())
            if t > self.until:
                self.until, self._is_late = None, False
        self.late += self._is_late
        return found

    def result(self, *, apart: bool) -> Ingested | Refused:
        """What came of it."""
        if self.error is not None:
            return Refused(self.name, self.error)
        reading = self._reading
        known = self.before is not None and not self.added
        came = Ingested(self.name, self.added, reading.account, reading.gaps, reading.damage, known, late=self.late)
        if self.compared is None:
            return replace(came, apart=apart)
        by = self.compared.distance
        return replace(came, clock=self.compared.name, calls=by.calls, within_ns=Ns(by.within))

    def _pair(self, compared: ComparedClock) -> e.EventRow:
        by = compared.distance
        facts = detail(join="thread" if by.calls else "time", calls=by.calls, within=by.within, mostly=by.mostly)
        return e.ClockPair(t=by.at, other=by.at - by.ns, clock=compared.reference, source=self.reference, detail=facts).row()

    def _next(self) -> Item | None:
        try:
            return next(self._items, None)
        except GmemstateError as error:
            self.error = error
            return None

    def _read(self) -> Iterator[Item]:
        reading, tracker = self._reading, self._reading.tracker
        have = next(self._rows, None)
        reading.caught_up = have is None
        for events in reading.events():
            closed = tuple(self._own(reference) for reference in tracker.closed)
            tracker.closed.clear()
            last = len(events) - 1
            for place, event in enumerate(events):
                row, stored = event.row(), have
                if self._of > 1:
                    row = renamed(row, self._own)
                if stored is not None:
                    recognise(self.name, row, stored, self._known)
                    have = next(self._rows, None)
                    reading.caught_up = have is None
                yield Item(row, stored, place == last, closed if place == last else ())
        if have is not None and not self._input.stopped:
            raise SourceChanged(
                f"{self.name}: is shorter than when it was read before; nothing was added. Read it into another ledger"
            )

    def _own(self, reference: int) -> int:
        return reference * self._of - self.number


# --- what is on record of a source --------------------------------------------------------------------------------------


def known_source(record: StoredRecord, opened: LineReader) -> SourceInfo | None:
    """The source that begins with the same bytes, if it was read before."""
    for info in record.sources():
        if info.head_size <= opened.head_size and opened.head(info.head_size) == info.head:
            return info
    return None


def stored_rows(record: StoredRecord, info: SourceInfo | None) -> Generator[e.EventRow]:
    """What reading a source has put on record; what was found by comparing it with others is not its own."""
    if info is None:
        return
    with contextlib.closing(record.events(info.id)) as rows:
        yield from (row for row in rows if _is_own(row, info.id))


def _is_own(row: e.EventRow, source: int) -> bool:
    if row[SOURCE] != source:
        return False
    event = event_of(row) if row[KIND] in (e.ClockPair.code, e.Gap.code) else None
    if isinstance(event, e.ClockPair):
        return event.clock is None
    return not isinstance(event, e.Gap) or event.gap is not e.GapKind.LATE


def pauses(record: StoredRecord, info: SourceInfo) -> Iterator[int]:
    """The offsets (bytes) at which earlier readings of a source ended."""
    for row in record.of_kinds((e.SourceRead.code,)):
        event = event_of(row)
        if isinstance(event, e.SourceRead) and event.source == info.id and event.offset is not None:
            yield event.offset


def recognise(name: str, row: e.EventRow, have: e.EventRow, known: dict[int, int]) -> None:
    """Match what is read again with what is stored, so that references find their seqs. Raises SourceChanged."""
    if not same_fact(row, have):
        where = f"before line {have[LINE]}" if row[KIND] == have[KIND] == e.SourceRead.code else f"from line {have[LINE]} on"
        raise SourceChanged(
            f"{name}: {where} it is not what it was when it was read before (event {have[SEQ]}); nothing was added. "
            "Read it into another ledger",
            seq=have[SEQ],
        )
    pairs = zip(references(row), references(have), strict=True)
    known.update({new: old for new, old in pairs if new is not None and new < 0 and old is not None})
