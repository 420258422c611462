"""What can be asked of a record, whether it is in a database or in an export: one function for each verb.

Parameters that they share: ``at`` is a moment, the seq of an event (42 or "42") or a time of the clock of the sources in
seconds ("5.31"), None for the end of the record; ``guest`` is a name ("vm1"); ``pages`` is a range of gfns or of pages of a
guest_memfd, as a :class:`PageRange` or as text ("0x100000-0x100080", "gfn:0x100004+4", "gpa:0x100004000", "idx:0x5"). All
raise UsageError for a moment, a guest or a range that there is not.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, TypeVar

from gmemstate.audit.check.check import Checked, Checkpoint, check
from gmemstate.audit.diff import Diff, Divergence, changes, divergence
from gmemstate.audit.events import Filter, RecordedEvent
from gmemstate.audit.history.corroboration import history as history_of
from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import Moment, moment_at
from gmemstate.audit.history.when import late_marks, seq_of
from gmemstate.audit.history.when import since as first_seq
from gmemstate.audit.queries.conversions import ConversionRow, conversions
from gmemstate.audit.queries.evidence import NO_GUEST
from gmemstate.audit.queries.messed_up import MessedUpRow, messed_up
from gmemstate.audit.queries.requests import RequestRow, requests
from gmemstate.audit.queries.state import EVERYTHING, StateRow, state
from gmemstate.audit.queries.status import Status, status
from gmemstate.audit.queries.why import Why, why_answer
from gmemstate.audit.replay import Replayed, replay
from gmemstate.audit.transitions import Step, steps
from gmemstate.audit.why import find_spot
from gmemstate.audit.why import why as least_events
from gmemstate.conclusions.host import HostAnswer, host
from gmemstate.ledger.range import RangeMachine, range_machine
from gmemstate.model.document import Listing
from gmemstate.model.errors import CannotRead, CannotWrite, UsageError
from gmemstate.model.events import BY_NAME, KIND, SEQ, UNUSABLE, Cause, EventRow, event_of, unusable
from gmemstate.model.findings import Severity
from gmemstate.model.machines.range import UNKNOWN
from gmemstate.model.memory import Memory
from gmemstate.model.record import Head, Record
from gmemstate.model.units import Direction, Gfn, PageRange, Unit, parse_range
from gmemstate.model.verdict import Label
from gmemstate.narrate import Narrator
from gmemstate.store.jsonl import JsonlInspection, JsonlRecord
from gmemstate.store.jsonl import export as export_record
from gmemstate.text import count, named, printable

if TYPE_CHECKING:
    from gmemstate.postmortem.incident import Blame, IncidentKind, PostMortem

When = str | int | None
Pages = PageRange | str | None
Row = TypeVar("Row", ConversionRow, RequestRow, StateRow, MessedUpRow)


class Queries(ABC):
    """What can be asked of a record; ``where`` says where it lies."""

    def __init__(self, record: Record, where: str) -> None:
        self.record_: Record = record
        self.where = where

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    # --- lists

    def conversions(
        self,
        pages: Pages = None,
        *,
        guest: str | None = None,
        to: Direction | None = None,
        label: Label | None = None,
        at: When = None,
    ) -> Listing[ConversionRow]:
        """Conversions with their verdicts, oldest first: of a guest, of pages, to "shared" or "private", with a label.

        Raises UsageError.
        """
        history = self.history(at)
        rows = (row for row in conversions(history) if to in (None, row.to) and label in (None, row.label))
        return _listed(history, rows, guest, page_range(pages))

    def requests(self, pages: Pages = None, *, guest: str | None = None, at: When = None) -> Listing[RequestRow]:
        """What guests asked for and what they got as the answer, oldest first. Raises UsageError."""
        history = self.history(at)
        return _listed(history, requests(history), guest, page_range(pages))

    def state(
        self, pages: Pages = None, *, guest: str | None = None, known: bool = False, at: When = None
    ) -> Listing[StateRow]:
        """The state of pages (all gfns of every guest if None), clipped to them; with ``known`` only what is known.

        Raises UsageError.
        """
        moment = self.moment(at)
        rows = state(moment, page_range(pages) or EVERYTHING)
        wanted = (row for row in rows if not known or row.state != UNKNOWN or row.guest == NO_GUEST or row.held_by is not None)
        return _listed(moment, wanted, guest)

    def messed_up(
        self, pages: Pages = None, *, guest: str | None = None, cause: Cause | None = None, at: When = None
    ) -> Listing[MessedUpRow]:
        """Host pages that can no longer be trusted, oldest first: of a guest, of pages of it, of a cause. Raises UsageError."""
        moment = self.moment(at)
        rows = (row for row in messed_up(moment) if cause in (None, row.cause))
        return _listed(moment, rows, guest, page_range(pages, of_host=True))

    def events(
        self,
        pages: Pages = None,
        *,
        guest: str | None = None,
        kind: str | None = None,
        conversion: int | None = None,
        since: When = None,
        at: When = None,
    ) -> Iterator[RecordedEvent]:
        """The events with their seqs, oldest first: of pages, a guest, a kind, a conversion or a request, from a moment on.

        Raises UsageError.
        """
        if kind is not None and kind not in BY_NAME:
            raise UsageError(f"invalid kind of event {kind!r}: kinds are {', '.join(sorted(BY_NAME))}")
        first, last, wanted_pages = first_seq(self.record_, since), seq_of(self.record_, at), page_range(pages)
        moment = self.moment()
        memory = moment.memory if guest is not None or wanted_pages is not None else None
        wanted = Filter.of(memory, BY_NAME[kind].code if kind else None, guest, conversion, wanted_pages)
        rows = _usable(self.record_.events(first, last), frozenset(moment.memory.left_out))
        narrator = cache(lambda: Narrator(moment.memory, moment.labels()))
        return (RecordedEvent(row[SEQ], event_of(row), narrator) for row in rows if wanted.lets(row))

    def status(self) -> Status:
        """What the ledger holds: sources, guests, guest_memfds, and how much is on record."""
        return status(printable(named(self.where)), self.head(), self.history())

    # --- one page, one host, two records

    def range(self, gfn: int, guest: str | None = None, at: When = None) -> RangeMachine:
        """The range machine of the pages of equal state that hold a gfn, as it was at a moment.

        ``guest`` may be left out if there is one only. Raises UsageError where it is not clear which guest is meant.
        """
        rows = self.record_.events(1, seq_of(self.record_, at))
        return range_machine(self.memory(at), rows, Gfn(gfn), guest)

    def host(self, at: When = None) -> HostAnswer:
        """Which kinds of guests may be started on the host, the checks that decide, and the conclusions that carry it.

        Raises UsageError for a moment that there is not.
        """
        return host(self.history(at))

    def why(self, page: Pages, *, guest: str | None = None, at: When = None) -> Why:
        """Who made a page what it is, and the least events that prove it. ``guest`` also names a guest_memfd by its id.

        ``page`` is one page: "gfn:0x100004", "gpa:0x100004000", "idx:0x5", "pfn:0x80a5669", or a PageRange of one page. Raises
        UsageError.
        """
        wanted = parse_range(f"{page}+1") if isinstance(page, str) else page
        if wanted is None or wanted.end != wanted.start + 1:
            raise UsageError(f"invalid address {page!r}: write gfn:0x100004, gpa:0x100004000, idx:0x5 or pfn:0x80a5669")
        last = seq_of(self.record_, at)
        then = self.moment(last)
        spot = find_spot(then.memory, wanted.unit, wanted.start, guest)
        narrator = Narrator(then.memory, then.labels())
        found = least_events(self.record_, spot, last)
        events = tuple(RecordedEvent(seq, event, lambda: narrator) for seq, event in found.events)
        return why_answer(spot, found.facts, found.writers, events, then.missing())

    def diff(self, other: "Queries | None" = None, *, since: When = None, at: When = None) -> Diff:
        """What differs between two moments of a record (``since`` None: its empty beginning), or between two records.

        Raises UsageError where neither or both are asked for.
        """
        if (other is None) == (since is None and at is None):
            raise UsageError("name another ledger, or the moments to compare with --from and --to")
        if other is None:
            return Diff(None, tuple(changes(self.memory(0 if since is None else since), self.memory(at))))
        parted = divergence(self.record_, other.record_)
        if parted is None:
            return Diff(None, ())
        this, that = (
            None if row is None else RecordedEvent(row[SEQ], event_of(row), cache(side.narrator))
            for row, side in zip(parted, (self, other), strict=True)
        )
        seq = next(one.seq for one in (this, that) if one is not None)
        return Diff(Divergence(seq, this, that), tuple(changes(self.memory(), other.memory())))

    def incidents(
        self,
        number: int | None = None,
        *,
        guest: str | None = None,
        blame: "Blame | None" = None,
        kind: "IncidentKind | None" = None,
        at: When = None,
    ) -> "PostMortem":
        """The post-mortem: what failed, whose fault it was, what is left, what to do; of all, or of a guest, a blame, a kind.

        Raises UsageError.
        """
        from gmemstate.postmortem.report import post_mortem

        found = post_mortem(self.record_, self.history(at))
        if number is not None and not 1 <= number <= found.count:
            raise UsageError(f"there is no incident {number}: {count(found.count, 'incident is', 'incidents are')} on record")
        wanted = (
            one
            for one in found.incidents
            if number in (None, one.number)
            and guest in (None, one.guest)
            and blame in (None, one.blame)
            and kind in (None, one.kind)
        )
        return replace(found, incidents=tuple(wanted))

    # --- the record itself

    def export(self, target: str | Path | TextIO) -> Head:
        """Write the whole record as JSON lines to a file that is not there yet, or to an open one; where the record ends.

        The same record gives the same bytes; a file is written whole or not at all. Raises CannotWrite.
        """
        if not isinstance(target, str | Path):
            return export_record(self.record_, target)
        path = Path(target)
        try:
            with path.open("x", encoding="utf-8", newline="\n") as file:
                try:
                    return export_record(self.record_, file)
                except BaseException:
                    path.unlink()
                    raise
        except FileExistsError:
            raise CannotWrite(f"{path}: is there already; name a file that is not there yet") from None
        except OSError as error:
            raise CannotWrite(f"{path}: cannot be written: {error.strerror}; make room, or name another file") from None

    def head(self) -> Head:
        """Where the record ends."""
        return self.record_.head()

    def checkpoint(self) -> Checkpoint:
        """What to keep elsewhere of the record as it is now, once it is found to be what was recorded.

        Raises CannotRead where it is not: a checkpoint would bless it.
        """
        head = self.head()
        damage = [
            problem for problem in self.check(Checkpoint(head.seq, head.hash)).problems if problem.severity is Severity.FATAL
        ]
        if damage:
            raise CannotRead(f"{self.where}: no checkpoint: {damage[0]}; `gmemstate check` names all that is wrong")
        return Checkpoint(head.seq, head.hash, time.time_ns())

    @abstractmethod
    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check the record from its first byte to its last, and against a checkpoint that was kept elsewhere."""

    def replay(self, progress: Callable[[int], None] | None = None) -> Replayed:
        """Fold the record again: what fits no machine or invariant; ``progress`` is given how many events are folded."""
        return replay(self.record_, self.stale_projections, progress)

    def steps(self, *, since: When = None, at: When = None) -> Iterator[Step]:
        """The steps of the machines from a moment on and up to one, in the words of runtime verification. Raises UsageError."""
        last = seq_of(self.record_, at)
        return steps(self.record_.events(1, last), first_seq(self.record_, since), last)

    @property
    def dropped(self) -> list[str]:
        """What was wrong with the snapshots that were not used; a file has none."""
        return []

    def stale_projections(self, history: History) -> list[str]:
        """The tables for SQL readers that are not what a history of the whole record folds to; a file has none."""
        return []

    # --- what all of these fold

    def history(self, at: When = None) -> History:
        """Everything that happened up to a moment. Raises UsageError."""
        last = seq_of(self.record_, at)
        return history_of(self.record_, last, late_marks(self.record_, at, last))

    def moment(self, at: When = None) -> Moment:
        """What was true at a moment, and what was known of the sources by then. Raises UsageError."""
        last = seq_of(self.record_, at)
        found = moment_at(self.record_, last).fold(late_marks(self.record_, at, last))
        if any(source.alone for source in found.memory.sources.values()):
            found.missing_conversions = history_of(self.record_, last).missing_conversions
        return found

    def unusable(self) -> list[str]:
        """That the record holds what cannot be events, which every answer leaves out; empty if it does not."""
        return self.moment().unusable()

    def narrator(self, at: When = None) -> Narrator:
        """What says each event in a sentence, with the names that guests and sources have at a moment. Raises UsageError."""
        moment = self.moment(at)
        return Narrator(moment.memory, moment.labels())

    def memory(self, at: When = None) -> Memory:
        """What was true at a moment. Raises UsageError."""
        return self.moment(at).memory


class Export(Queries):
    """An export, read in place of a ledger."""

    def __init__(self, path: Path) -> None:
        self._file = JsonlRecord(path)
        super().__init__(self._file, str(path))

    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check every line."""
        return check(self.record_, lambda _note: JsonlInspection(self._file), checkpoint)


def _usable(rows: Iterable[EventRow], left_out: Container[int]) -> Iterator[EventRow]:
    for row in rows:
        stray = row[SEQ] in left_out and row[KIND] != UNUSABLE
        yield unusable(row, "EVENT-INVALID", "it refers to what is not on record") if stray else row


def page_range(pages: Pages, *, of_host: bool = False) -> PageRange | None:
    """The pages that a text means; those of the host (pfns) where they can be meant. Raises UsageError."""
    found = parse_range(pages) if isinstance(pages, str) else pages
    if pages is not None and (found is None or (found.unit is Unit.PFN and not of_host)):
        raise UsageError(f"invalid range {pages!r}: write 0x100000-0x100080, gfn:0x100004+4, gpa:0x100004000 or idx:0x5")
    return found


def _listed(moment: Moment, rows: Iterable[Row], guest: str | None = None, pages: PageRange | None = None) -> Listing[Row]:
    """The rows of a guest and of pages, with what is missing from them. Raises UsageError for a guest that there is not."""
    names: list[str] = [vm.name for vm in moment.memory.vms.values()]
    if guest not in (None, NO_GUEST, *names):
        raise UsageError(f"no guest {guest!r} in this ledger: {', '.join(names) or 'there are none'}")
    found = (row for row in rows if guest in (None, row.guest) and (pages is None or row.meets(pages)))
    return Listing(tuple(found), tuple(moment.missing()))
