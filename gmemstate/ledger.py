"""The ledger: the front door. Opens, records, reads logs, answers; the work is done in the rooms behind it."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from gmemstate.answers import Answers
from gmemstate.audit.check import Checked, Checkpoint, check
from gmemstate.audit.history import History
from gmemstate.ingest.growing import Growing
from gmemstate.ingest.lines import Account, Framing, Input
from gmemstate.ingest.reading import Reading
from gmemstate.jsonl import JsonlRecord
from gmemstate.live import Converted, Live
from gmemstate.model.errors import CannotRead, GmemstateError, SourceChanged, UsageError
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    KINDS,
    LINE,
    SEQ,
    SOURCE,
    SPACE,
    START,
    VALUE,
    Event,
    EventRow,
    SourceRead,
    T,
    details,
)
from gmemstate.model.record import Head, SourceInfo
from gmemstate.store.database import connect, named
from gmemstate.store.events import StoredRecord
from gmemstate.store.inspection import Inspection
from gmemstate.store.projections import compare
from gmemstate.store.recorder import Recorder


class Ingested(NamedTuple):
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

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return not self.gaps and self.damage is None


class Ledger(Answers):
    """A record of conversions in a file or a database, and the answers that it gives.

    Use :meth:`open`; a ledger is a context manager. All methods raise subclasses of GmemstateError.
    """

    record_: StoredRecord

    def __init__(self, where: str, *, writable: bool, synchronous: str) -> None:
        super().__init__(StoredRecord(connect(where, writable=writable, synchronous=synchronous), where), where)
        self._writable = writable
        self._synchronous = synchronous
        self._recorder: Recorder | None = None
        self._live: Live | None = None

    @classmethod
    def open(cls, where: str | Path = "gmemstate.db", *, readonly: bool = False, durable: bool = True) -> Self:
        """Open the ledger at a path or database URL; it is made if it is not there and ``readonly`` is not set.

        ``durable`` makes every commit survive a power cut; without it only the closing of the ledger does.
        """
        return cls(str(where), writable=not readonly, synchronous="FULL" if durable else "NORMAL")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger; an SQLite ledger is then whole in its one file."""
        if self._live is not None:
            self._live.close()
            self._live = None
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
        self.record_.engine.dispose()

    # --- recording

    def record(self, *events: Event, expect: Mapping[int, int] | None = None) -> Head:
        """Append events as one batch; on return they are stored. ``expect`` maps guests to the last seq seen of each."""
        return self._recording().append([event.row() for event in events], None, expect)

    def record_rows(self, rows: Iterable[EventRow]) -> Head:
        """Append a finished record of others, such as a simulation, as one batch; references are its own seqs."""
        return self._recording().append([_as_reference(row) for row in rows], {})

    def ingest(self, *names: str | Path, progress: Callable[[int], None] | None = None) -> list[Ingested]:
        """Read traces (paths, or ``-`` for standard input) into the ledger, one after the other.

        What was read before adds nothing; a file that has grown is continued. ``progress`` is told from time to time how many
        bytes of the text of a trace have been read. Raises CannotRead, SourceChanged.
        """
        return [self._ingest(Input(str(name), progress)) for name in names]

    def follow(
        self,
        name: str | Path,
        stop: Callable[[], bool],
        *,
        told: Callable[[str], None] = lambda _sentence: None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Ingested]:
        """Read a log (or a pipe, ``-``) as it grows, until ``stop`` says so; gives what came of each file under its name.

        What a line says is on record within a second, or as soon as there are a thousand events. A file that is renamed or
        emptied is read to its end, and the one that takes its name is the next. Reading that was broken off, however it was,
        goes on at the next line: what is on record is recognised and nothing is added twice. ``told`` is given sentences
        for a person. Raises CannotRead, SourceChanged.
        """
        while True:
            source = Growing(str(name), stop, told, progress)
            if source.head_size:
                yield self._ingest(source)
            else:
                source.close()
                if not (source.moved or source.stopped):
                    raise CannotRead(f"{source.name}: {source.damage or 'is empty'}; there is nothing to read")
            if not source.moved:
                return
            told(f"{source.name}: was read to its end; another file has its name now and is followed")

    def convert(self, space: int, start: int, end: int, to: str, **how: Any) -> Converted:
        """Carry out a conversion of pages ``[start, end)`` of a guest or a guest_memfd, as its kernel would.

        Every step is stored before the next one; ``users``, ``dialect``, ``policy``, ``setting`` and ``faults`` are those of
        :meth:`gmemstate.live.Live.convert`. Conversions of one space take turns, over threads and processes.
        """
        return self._carrying_out().convert(space, start, end, to, **how)

    def resolve(self, conversion: int, how: str, outcome: str | None = None) -> Converted:
        """Close a conversion that was left open: ``how`` is "roll-back", or "declare" with an outcome (new, old, unknown)."""
        return self._carrying_out().resolve(conversion, how, outcome)

    def rebuild(self) -> int:
        """Make all projections and snapshots anew from the record; the number of events."""
        return self._recording().rebuild()

    def _carrying_out(self) -> Live:
        if self._live is None:
            self._live = Live(self._recording())
        return self._live

    def _recording(self) -> Recorder:
        if not self._writable:
            raise UsageError(f"{named(self.where)} was opened for reading; open it without readonly to record")
        if self._recorder is None:
            engine = connect(self.where, writable=True, synchronous=self._synchronous)
            self._recorder = Recorder(engine, self.where, time.time_ns)
        return self._recorder

    def _ingest(self, source: Framing) -> Ingested:
        """Read a source to its end. What is on record of it already is made again and recognised, not added."""
        with contextlib.closing(source):
            before = self._known(source)
            reading = Reading(source, () if before is None else tuple(self._pauses(before)))
            with contextlib.closing(self._of_source(before)) as stored:
                added = self._read(reading, stored)
        return Ingested(source.name, added, reading.account, reading.gaps, reading.damage, before is not None and not added)

    def _read(self, reading: Reading, stored: Iterator[EventRow]) -> int:
        """Append what a reading makes beyond what is stored of it; how many events."""
        recorder = self._recording()
        known: dict[int, int] = {}
        added, have = 0, next(stored, None)
        reading.caught_up = have is None
        for events in reading.events():
            rows, old = [event.row() for event in events], 0
            while have is not None and old < len(rows):
                self._recognise(reading.input, rows[old], have, known)
                have, old = next(stored, None), old + 1
            reading.caught_up = have is None
            recorder.append(rows[old:], known)
            added += len(rows) - old
            for reference in reading.tracker.closed:
                known.pop(reference, None)
            reading.tracker.closed.clear()
        if have is not None and not reading.input.stopped:
            raise SourceChanged(
                f"{reading.input.name}: is shorter than when it was read before; nothing was added. Read it into another ledger"
            )
        return added

    def _known(self, source: Framing) -> SourceInfo | None:
        """The source that begins with the same bytes, if it was read before."""
        for info in self.record_.sources():
            if info.head_size <= source.head_size and source.head(info.head_size) == info.head:
                return info
        return None

    def _of_source(self, source: SourceInfo | None) -> Generator[EventRow, None, None]:
        """The events of a source that is on record, streamed; none of a new one."""
        if source is not None:
            with contextlib.closing(self.record_.events(source.id)) as events:
                yield from (row for row in events if row[SOURCE] == source.id)

    def _pauses(self, info: SourceInfo) -> Iterator[int]:
        """The offsets at which earlier readings have ended."""
        return (row[VALUE] or 0 for row in self.record_.of_kinds([SourceRead.code]) if row[SOURCE] == info.id)

    @staticmethod
    def _recognise(source: Framing, row: EventRow, have: EventRow, known: dict[int, int]) -> None:
        """Match what is read again with what is stored, so that references find their seqs."""
        if (where := _changed(row, have)) is not None:
            raise SourceChanged(
                f"{source.name}: {where} it is not what it was when it was read before (event {have[SEQ]}); nothing was added. "
                "Read it into another ledger",
                seq=have[SEQ],
            )
        pairs = (
            (row[SOURCE], have[SOURCE]),
            (row[SPACE], have[SPACE]),
            (row[CONVERSION], have[CONVERSION]),
            (row[ACTOR], have[ACTOR]),
        )
        known.update({new: old for new, old in pairs if new is not None and new < 0 and old is not None})

    # --- audit

    @property
    def dropped(self) -> list[str]:
        """What was wrong with the snapshots that were not used: the record has won."""
        return list({**self.record_.dropped, **(self._recorder.record.dropped if self._recorder is not None else {})}.values())

    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check the record from its first byte to its last, and against a checkpoint that was kept elsewhere."""
        result = Checked()
        with self.record_.still() as connection:
            check(self.record_, Inspection(connection, result.note), result, checkpoint)
            if result.history is not None:
                try:
                    for table in self.stale_projections(result.history):
                        result.note("PROJECTION", f"the table {table} is not what the record folds to")
                    result.looked_at += ["tables", "snapshots"]
                except GmemstateError as error:
                    result.not_covered.append(f"tables: {error}")
        return result

    def stale_projections(self, history: History) -> list[str]:
        """The tables for SQL readers that are not what a history of the whole record folds to."""
        return compare(self.record_, history)


def open(where: str | Path = "gmemstate.db", *, readonly: bool = False, durable: bool = True) -> Ledger:
    """Open the ledger at a path or database URL (see :meth:`Ledger.open`)."""
    return Ledger.open(where, readonly=readonly, durable=durable)


def restore(where: str, export: JsonlRecord) -> Head:
    """Make a new ledger of an export, with the same batches and hashes, in one transaction: all of it, or nothing.

    Raises UsageError where there is a record already, CannotRead (with the line) where the export was altered.
    """
    for _ in export.sealed():  # all of it, before anything is made
        pass
    recorder = Recorder(connect(where, writable=True, synchronous="FULL"), where, time.time_ns)
    try:
        return recorder.restore(export.sealed())
    finally:
        recorder.close()


def _changed(row: EventRow, have: EventRow) -> str | None:
    """Where a source is not what it was when it made an event; None if it is."""
    if row[KIND] == have[KIND] == SourceRead.code:
        same = (row[VALUE], details(row[DETAIL]).get("digest")) == (have[VALUE], details(have[DETAIL]).get("digest"))
        return None if same else f"before line {have[LINE]}"
    same = (row[KIND], row[T], row[LINE], row[START:ACTOR]) == (have[KIND], have[T], have[LINE], have[START:ACTOR])
    return None if same else f"from line {have[LINE]} on"


def _as_reference(row: EventRow) -> EventRow:
    """A row whose references to events of its own record are replaced by the recorder."""
    kind = KINDS[row[KIND]]
    source, space, conversion = (None if seq is None else -seq for seq in (row[SOURCE], row[SPACE], row[CONVERSION]))
    actor = -row[ACTOR] if kind.actor_is_reference and row[ACTOR] is not None else row[ACTOR]
    return (0, row[T], row[KIND], source, space, conversion, *row[START:ACTOR], actor, *row[LINE:])
