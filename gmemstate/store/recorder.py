"""The recorder: appends batches, each durable, chained and projected as a whole or not at all."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from gmemstate.model.encoding import Batch, seal
from gmemstate.model.errors import CannotWrite, Conflict, UsageError
from gmemstate.model.events import COLUMNS, Event, EventRow
from gmemstate.model.fold.apply import apply, fold
from gmemstate.model.memory import Memory
from gmemstate.model.record import EMPTY, Head, resolve
from gmemstate.model.soundness import possible, sound
from gmemstate.model.validity import check_fields, check_references
from gmemstate.store import engine as database
from gmemstate.store.engine import LOCK
from gmemstate.store.projections import Projector
from gmemstate.store.record import StoredRecord, batch_of, head_of
from gmemstate.store.snapshots import SnapshotWriter
from gmemstate.text import named

AT_ONCE = 10_000
"""How many events are projected at once when everything is made again."""


class Recorder:
    """Appends to one ledger and keeps the memory that the ledger folds into.

    ``clock`` gives the time of recording in ns. ``project`` False leaves projections and snapshots to a later rebuild.
    """

    def __init__(self, engine: Engine, where: str, clock: Callable[[], int], *, project: bool = True) -> None:
        self.record = StoredRecord(engine, where)
        self.where = database.located(where)
        self._engine = engine
        self._clock = clock
        self._sqlite = engine.dialect.name == "sqlite"
        mark = "?" if self._sqlite else "%s"
        self._insert_event = f"INSERT INTO event ({', '.join(_quoted())}) VALUES ({', '.join([mark] * len(COLUMNS))})"
        self._insert_batch = f"INSERT INTO batch (first, size, recorded, previous, hash) VALUES ({', '.join([mark] * 5)})"
        self._projector = Projector(mark) if project else None
        self._keeper = SnapshotWriter(mark)
        self._connection: Any = None
        self._cursor: Any = None
        self._file: tuple[int, int] | None = None
        """device and inode of the file that is open"""
        self._head = EMPTY
        self._turn = _Turn(self._take_turn, self._end_turn, self._fail)
        self.memory = Memory()

    def append(
        self,
        rows: Iterable[EventRow],
        known: dict[int, int] | None = None,
        expect: Mapping[int, int] | None = None,
        *,
        live: bool = False,
        checked: bool = True,
    ) -> Head:
        """Append rows as one batch and return the new head; on return the batch is stored.

        ``known`` maps references to seqs over several batches. ``expect`` maps guests to the last seq that the caller has
        seen of each. ``live`` events fire triggers of the real state machines; those that are read in bulk use the tables
        that are compiled from them. What is not ``checked`` must refer to what is on record. Raises Conflict,
        CannotWrite and BadEvent; whatever is raised, nothing of the batch is stored.
        """
        rows = list(rows)
        if not rows:
            return self.record.head()
        with self._turn as cursor:
            if expect or not self._sqlite:
                self._catch_up(cursor)
                self._check(expect or {})
            batch, new = self._write(cursor, rows, known or {}, live=live, checked=checked)
        if known is not None:
            known.update(new)
        self._head = Head(batch.last, batch.hash)
        return self._head

    def append_checked(self, events: Iterable[Event], expect: Mapping[int, int] | None = None) -> Head:
        """Append events of a caller as one batch, live, once each is known to be possible after those before it.

        Raises BadEvent for one that is not, and as :meth:`append`; nothing of the batch is stored then.
        """
        events = list(events)
        for event in events:
            check_fields(event)
        return self.append([event.row() for event in events], None, expect, live=True, checked=False)

    def restore(self, batches: Iterable[tuple[Batch, list[EventRow]]]) -> Head:
        """Record finished batches as they are, all or none, in a ledger without events; the new head.

        Raises UsageError where there are events already.
        """
        with self._turn as cursor:
            self._catch_up(cursor)
            if self._head.seq:
                raise UsageError(f"{named(self.where)}: there is a record already; import into a new ledger")
            for batch, rows in batches:
                sealed, _ = self._write(cursor, rows, {}, batch.recorded)
                self._head = Head(sealed.last, sealed.hash)
        return self._head

    @property
    def engine(self) -> Engine:
        """The database."""
        return self._engine

    def current(self) -> Memory:
        """The memory with everything that others have recorded by now."""
        with self._turn as cursor:
            self._catch_up(cursor)
        return self.memory

    def _take_turn(self) -> Any:
        """Begin a transaction in which nobody else records; its cursor."""
        cursor = self._connected()
        self._begin(cursor)
        return cursor

    def _end_turn(self) -> None:
        self._commit(self._cursor)
        self._is_there()

    def _is_there(self) -> None:
        """Make sure that the ledger is still the file that was opened. Raises CannotWrite if nobody could find it."""
        if self._sqlite and _file_at(self.where) != self._file:
            raise CannotWrite(
                f"{self.where}: was removed, moved or replaced while it was written; what was recorded since may be lost: "
                "put the file back, or open the ledger again"
            )

    def _fail(self, error: BaseException) -> None:
        """Undo the transaction; the next one folds again. Raises the error of ours for an error of the database."""
        self._forget()
        if isinstance(error, self._engine.dialect.loaded_dbapi.Error):
            raise database.explain(self.where, error) from error

    def _connected(self) -> Any:
        """The one cursor of the recorder; it begins and commits by hand, as the driver's own way is too late to lock."""
        if self._cursor is None:
            if self._file is not None:
                self._is_there()
            self._connection = self._engine.raw_connection()
            self._file = self._file or (_file_at(self.where) if self._sqlite else None)
            self._cursor = self._connection.cursor()
            self._begin(self._cursor)
            self._catch_up(self._cursor)
            self._commit(self._cursor)
        return self._cursor

    def _begin(self, cursor: Any) -> None:
        if self._sqlite:
            cursor.execute("BEGIN IMMEDIATE")
        else:
            patience = int(database.PATIENCE * 1000)
            cursor.execute(f"SET LOCAL lock_timeout = {patience}; SELECT pg_advisory_xact_lock({LOCK})")

    def _commit(self, cursor: Any) -> None:
        if self._sqlite:
            cursor.execute("COMMIT")
        else:
            self._connection.commit()

    def _catch_up(self, cursor: Any) -> None:
        """Fold what others have recorded since; the first time, from the youngest good snapshot on."""
        head = head_of(cursor)
        if self.memory.seq == 0 < head.seq:
            self.memory = self.record.remembered(head.seq).memory
            self._keeper.go_on(self.memory.seq)
            for seq in self.record.dropped:
                cursor.execute(f"DELETE FROM snapshot WHERE seq = {seq:d}")
        if head.seq != self.memory.seq:
            for row in possible(self.record.events(self.memory.seq + 1, head.seq), self.memory):
                apply(self.memory, row)
                if self.memory.seq % 100_000 == 0:
                    self.memory.clear_pending()
        self._head = head

    def _check(self, expect: Mapping[int, int]) -> None:
        for guest, expected in expect.items():
            found = max((seq for owner, seq in self.memory.last_of.items() if self.memory.guest_id(owner) == guest), default=0)
            if found != expected:
                raise Conflict(
                    f"guest {guest} has events up to {found}, not {expected}: look at them and try again",
                    guest=guest,
                    expected=expected,
                    found=found,
                )

    def _write(
        self,
        cursor: Any,
        rows: list[EventRow],
        known: Mapping[int, int],
        recorded: int | None = None,
        *,
        live: bool = False,
        checked: bool = True,
    ) -> tuple[Batch, dict[int, int]]:
        recorded = self._clock() if recorded is None else recorded
        batch, numbered, new = self._seal(rows, known, recorded)
        try:
            cursor.executemany(self._insert_event, numbered)
        except sqlite3.IntegrityError:
            # The seqs are taken: somebody else has recorded. They are gapless, so this never goes unnoticed.
            cursor.execute("ROLLBACK")
            self._begin(cursor)
            self._catch_up(cursor)
            batch, numbered, new = self._seal(rows, known, recorded)
            cursor.executemany(self._insert_event, numbered)
        cursor.execute(self._insert_batch, (batch.first, batch.size, batch.recorded, batch.previous, batch.hash))
        memory = self.memory
        memory.clear_pending()
        memory.live = live
        if checked:
            fold(possible(sound(numbered), memory), memory)
        else:
            for row in numbered:
                check_references(row, memory, lambda seq: self._kind_of(cursor, seq))
                fold((row,), memory)
        memory.live = False
        if self._projector is not None:
            self._projector.write(cursor, memory, numbered)
            self._keeper.write(cursor, memory, batch.hash)
        return batch, new

    def _kind_of(self, cursor: Any, seq: int) -> int | None:
        cursor.execute(f"SELECT kind FROM event WHERE seq = {seq:d}")
        row = cursor.fetchone()
        return None if row is None else int(row[0])

    def _seal(
        self, rows: list[EventRow], known: Mapping[int, int], recorded: int
    ) -> tuple[Batch, list[EventRow], dict[int, int]]:
        first = self._head.seq + 1
        numbered, new = resolve(rows, first, known)
        return seal(numbered, first, recorded, self._head.hash), numbered, new

    def _forget(self) -> None:
        """After a failure: undo, and fold again next time; the memory may be ahead of the record."""
        connection, self._connection, self._cursor = self._connection, None, None
        self.memory = Memory()
        self._head = EMPTY
        if connection is not None:
            connection.invalidate()

    def rebuild(self) -> int:
        """Make all projections and snapshots again from the record; returns the number of events folded."""
        projector, keeper = self._projector or Projector("?" if self._sqlite else "%s"), self._keeper
        memory = Memory()
        piece: list[EventRow] = []
        end: Head | None = None
        with self._turn as cursor:
            projector.clear(cursor)
            keeper.clear(cursor)
            for row in possible(self.record.events(1, head_of(cursor).seq), memory):
                fold((row,), memory)
                piece.append(row)
                if len(piece) == AT_ONCE:
                    projector.write(cursor, memory, piece)
                    memory.clear_pending()
                    piece = []
                if memory.seq >= keeper.due:
                    end = end or batch_of(cursor, memory.seq)
                    if memory.seq == end.seq:
                        keeper.write(cursor, memory, end.hash)
                        end = None
            projector.write(cursor, memory, piece)
            memory.clear_pending()
        self.memory = memory
        return memory.seq

    def close(self) -> None:
        """Let go of the database; an SQLite ledger is then whole in its one file, unless others read or write it.

        Nobody is waited for: what they keep it from writing stays in its WAL, for the next one who closes. Raises
        CannotWrite where that fails: the record is whole in the file together with its WAL.
        """
        connection, cursor, self._connection, self._cursor = self._connection, self._cursor, None, None
        try:
            if cursor is not None and self._sqlite:
                cursor.execute("PRAGMA busy_timeout = 0").fetchall()
                ((busy, _, _),) = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                if busy:
                    _sync(
                        f"{self.where}-wal"
                    )  # others are reading: what is in the WAL stays there, and must survive a power cut
        except (sqlite3.Error, OSError) as error:
            raise CannotWrite(
                f"{self.where}: {error}; nothing is lost, but a part is in {self.where}-wal: keep both files, and open them "
                f"again"
            ) from error
        finally:
            if connection is not None:
                connection.close()
            self._engine.dispose()


class _Turn:
    """``with``: a transaction of a recorder. Written out, since a generator costs as much as the statements of a short one."""

    def __init__(self, begin: Callable[[], Any], commit: Callable[[], None], fail: Callable[[BaseException], None]) -> None:
        self._begin, self._commit, self._fail = begin, commit, fail

    def __enter__(self) -> Any:
        try:
            return self._begin()
        except BaseException as error:
            self._fail(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._fail(error)
            return
        try:
            self._commit()
        except BaseException as failed:
            self._fail(failed)
            raise


def _file_at(where: str) -> tuple[int, int] | None:
    try:
        found = Path(where).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _quoted() -> list[str]:
    return [f'"{name}"' for name in COLUMNS]
