"""The ledger: opens, records, reads logs, answers; the packages below it do the work."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from gmemstate.audit.check.check import Checked, Checkpoint, check
from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import in_order
from gmemstate.convert.engine.ioctl import Fault, Setting
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.users import PageUser
from gmemstate.ingest.follow import FollowedFile
from gmemstate.ledger.convert import ConversionResult, ConversionRunner, Outcome, Resolution
from gmemstate.ledger.ingest import Intake
from gmemstate.ledger.queries import Queries
from gmemstate.ledger.source import Ingested, Refused
from gmemstate.model.errors import CannotRead, UsageError
from gmemstate.model.events import SEQ, Dialect, Event, EventRow
from gmemstate.model.fold.apply import apply
from gmemstate.model.memory import Memory
from gmemstate.model.record import Head, unresolved
from gmemstate.model.soundness import possible, sound
from gmemstate.model.units import Direction
from gmemstate.store.engine import connect, located
from gmemstate.store.inspection import Inspection
from gmemstate.store.jsonl import JsonlRecord
from gmemstate.store.projections import compare
from gmemstate.store.record import StoredRecord
from gmemstate.store.recorder import Recorder
from gmemstate.text import named


class Ledger(Queries):
    """A record of conversions in a file or a database, and the answers that it gives.

    Use :meth:`open`; a ledger is a context manager. All methods raise subclasses of GmemstateError.
    """

    record_: StoredRecord

    def __init__(self, where: str, *, writable: bool, synchronous: str) -> None:
        super().__init__(StoredRecord(connect(where, writable=writable, synchronous=synchronous), where), where)
        self._place = located(where)
        self._writable = writable
        self._synchronous = synchronous
        self._recorder: Recorder | None = None
        self._runner: ConversionRunner | None = None

    @classmethod
    def open(cls, where: str | Path = "gmemstate.db", *, readonly: bool = False, durable: bool = True) -> Self:
        """Open the ledger at a path or database URL; it is made if it is not there and ``readonly`` is not set.

        ``durable`` makes every commit survive a power cut; without it only the closing of the ledger does.
        """
        return cls(str(where), writable=not readonly, synchronous="FULL" if durable else "NORMAL")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the ledger; an SQLite ledger is then whole in its one file."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
        self.record_.engine.dispose()

    # --- recording

    def record(self, *events: Event, expect: Mapping[int, int] | None = None) -> Head:
        """Append events as one batch; on return they are stored. ``expect`` maps guests to the last seq seen of each.

        Raises BadEvent for what cannot be true (it names the field, the value and what is allowed) and Conflict where somebody
        else has recorded on an expected guest; nothing of the batch is stored then.
        """
        return self._recording().append_checked(events, expect)

    def record_rows(self, rows: Iterable[EventRow]) -> Head:
        """Append a finished record of others, such as a simulation, as one batch; references are its own seqs."""
        return self._recording().append([unresolved(row) for row in rows], {})

    def ingest(self, *names: str | Path, progress: Callable[[int], None] | None = None) -> list[Ingested]:
        """Read traces and logs (paths, or ``-`` for standard input) into the ledger.

        Those whose clocks can be compared, by the calls that both show, are merged in the order of time; all others follow one
        another. What was read before adds nothing; a file that has grown is continued. ``progress`` is called from time to
        time how many bytes of the text of a trace have been read. Raises CannotRead, SourceChanged.
        """
        results = list(self.read(*names, progress=progress))
        for result in results:
            if isinstance(result, Refused):
                raise result.error
        return [result for result in results if isinstance(result, Ingested)]

    def read(self, *names: str | Path, progress: Callable[[int], None] | None = None) -> Iterator[Ingested | Refused]:
        """Do what :meth:`ingest` does and tell what came of each source, also of those that could not be read."""
        return Intake(self.record_, self._recording()).read([str(name) for name in names], progress)

    def follow(
        self,
        name: str | Path,
        stop: Callable[[], bool],
        *,
        say: Callable[[str], None] = lambda _sentence: None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Ingested]:
        """Read a log (or a pipe, ``-``) as it grows, until ``stop`` says so; gives what came of each file under its name.

        What a line says is on record within a second, or as soon as there are a thousand events. A file that is renamed or
        emptied is read to its end, and the one that takes its name is the next. Reading that was broken off, however it was,
        goes on at the next line: what is on record is recognised and nothing is added twice. ``say`` is given sentences
        for a person. Raises CannotRead, SourceChanged.
        """
        while True:
            source = FollowedFile(str(name), stop, say, progress)
            try:
                if source.head_size:
                    yield Intake(self.record_, self._recording()).follow(source)
                elif not (source.moved or source.stopped or stop()):
                    raise CannotRead(f"{source.name}: {source.damage or 'is empty'}; there is nothing to read")
            except CannotRead as error:
                if not source.moved:
                    raise
                say(str(error))  # what comes in its place may be better
            finally:
                source.close()
            if not source.moved:
                return
            say(f"{source.name}: was read to its end; another file has its name now and is followed")

    def in_order(self) -> str:
        """The command that reads all sources on record by the time that they tell of."""
        return in_order(info.name for info in self.record_.sources())

    def convert(
        self,
        owner: int,
        start: int,
        end: int,
        to: Direction,
        *,
        users: Sequence[PageUser] = (),
        dialect: Dialect | None = None,
        policy: Policy | None = None,
        setting: Setting | None = None,
        faults: Sequence[Fault] = (),
    ) -> ConversionResult:
        """Carry out a conversion of pages ``[start, end)`` as the kernel of a dialect would, each step stored before the next.

        ``owner`` is a VM (pages are gfns) or a guest_memfd (pages are its page indices), by its seq; ``users`` map or hold the
        pages. ``dialect`` None is what the record says of the guest; ``policy`` says what follows a private page that cannot be
        unmapped, ``setting`` how the guest was made, ``faults`` what goes wrong. Conversions of one attribute owner wait for
        one another, over threads and processes.

        Raises UsageError where an argument has no meaning or the pages are not known; PageUserFailed where a user fails.
        """
        return self._conversion_runner().convert(
            owner, start, end, to, users=users, dialect=dialect, policy=policy, setting=setting, faults=faults
        )

    def resolve(self, conversion: int, how: Resolution, outcome: Outcome | None = None) -> ConversionResult:
        """Close the conversion with this seq that was left open: roll it back, or declare its outcome.

        Raises UsageError where it is not open, or was observed and is to be rolled back.
        """
        return self._conversion_runner().resolve(conversion, how, outcome)

    def rebuild(self) -> int:
        """Make all projections and snapshots again from the record; the number of events."""
        return self._recording().rebuild()

    def _conversion_runner(self) -> ConversionRunner:
        if self._runner is None:
            self._runner = ConversionRunner(self._recording())
        return self._runner

    def _recording(self) -> Recorder:
        if not self._writable:
            raise UsageError(f"{named(self.where)} was opened for reading; open it without readonly to record")
        if self._recorder is None:
            engine = connect(self._place, writable=True, synchronous=self._synchronous)
            self._recorder = Recorder(engine, self._place, time.time_ns)
        return self._recorder

    # --- audit

    @property
    def dropped(self) -> list[str]:
        """What was wrong with the snapshots that were not used: the record has won."""
        return list({**self.record_.dropped, **(self._recorder.record.dropped if self._recorder is not None else {})}.values())

    def check(self, checkpoint: Checkpoint | None = None) -> Checked:
        """Check the record from its first byte to its last, and against a checkpoint that was kept elsewhere."""
        with self.record_.read_transaction() as connection:
            return check(self.record_, partial(Inspection, connection), checkpoint, self.stale_projections)

    def stale_projections(self, history: History) -> list[str]:
        """The tables for SQL readers that are not what a history of the whole record folds to."""
        return compare(self.record_, history)


def open(where: str | Path = "gmemstate.db", *, readonly: bool = False, durable: bool = True) -> Ledger:
    """Open the ledger at a path or database URL (see :meth:`Ledger.open`)."""
    return Ledger.open(where, readonly=readonly, durable=durable)


def restore(where: str | Path, export: JsonlRecord | str | Path) -> Head:
    """Make a new ledger of an export, with the same batches and hashes, in one transaction: all of it, or nothing.

    Raises UsageError where there is a record already, CannotRead (with the line) where the export was altered.
    """
    export = export if isinstance(export, JsonlRecord) else JsonlRecord(Path(export))
    where = str(where)
    memory = Memory()
    for n, (_, rows) in enumerate(export.sealed(), 1):  # all of it, before anything is made
        for row in possible(sound(rows), memory):
            apply(memory, row)
            if memory.left_out:
                raise export.bad(1 + n + row[SEQ], memory.findings[-1].text)
        memory.clear_pending()
    recorder = Recorder(connect(where, writable=True, synchronous="FULL"), where, time.time_ns)
    try:
        return recorder.restore(export.sealed())
    finally:
        recorder.close()
