"""A record as lines of JSON: lossless, the same bytes for the same record, readable without a database.

=========  ===========================================================================================================
line 1     ``{"gmemstate":"record","format":1}``
batch      ``{"first":1,"size":2,"recorded":0,"previous":"00..","hash":"ab.."}``, followed by its events
event      ``[t,kind,source,owner,conversion,start,npages,result,value,actor,line,detail]``; its seq is that of its place
last line  ``{"events":2,"hash":"ab.."}``: the end of the record
=========  ===========================================================================================================
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from gmemstate.model.encoding import FORMAT, Batch, seal
from gmemstate.model.errors import BadEvent, CannotRead
from gmemstate.model.events import COLUMNS, EventRow
from gmemstate.model.memory import Memory
from gmemstate.model.record import EMPTY, Head, Kept, LoadedSnapshot, Record
from gmemstate.model.soundness import sound

FIRST = {"gmemstate": "record", "format": FORMAT}
_BATCH = ("first", "size", "recorded", "previous", "hash")


def _line(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def export(record: Record, file: TextIO) -> Head:
    """Write a record; where it ends."""
    file.write(_line(FIRST))
    head = EMPTY
    for batch in record.batches():
        file.write(_line({**batch._asdict(), "previous": batch.previous.hex(), "hash": batch.hash.hex()}))
        for row in record.rows(batch.first, batch.last):
            file.write(_line(row[1:]))
        head = Head(batch.last, batch.hash)
    file.write(_line({"events": head.seq, "hash": head.hash.hex()}))
    return head


def is_export(path: Path) -> bool:
    """Whether a file begins like an export."""
    try:
        with path.open("rb") as file:
            return file.read(13) == b'{"gmemstate":'
    except OSError:
        return False


class _Item(NamedTuple):
    """One line: a batch, an event, or the end of the record."""

    line: int
    batch: Batch | None = None
    row: EventRow | None = None
    end: Head | None = None


class JsonlRecord:
    """A record in a file of JSON lines; each question reads the file once, line by line, and holds one batch at a time.

    Raises CannotRead with the line of what is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def bad(self, line: int, what: str) -> CannotRead:
        """What is raised where a line is not as it was written."""
        return CannotRead(f"{self.path}:{line}: {what}; the export was altered or cut: export the ledger once more", line=line)

    def items(self) -> Iterator[_Item]:
        """All lines after the first one. Raises CannotRead."""
        try:
            with self.path.open("rb") as file:
                yield from self._items(file)
        except OSError as error:
            raise CannotRead(f"{self.path}: cannot be read: {error.strerror}; check its name and its permissions") from None

    def _items(self, file: BinaryIO) -> Iterator[_Item]:
        seq, ended, number = 0, False, 0
        for number, text in enumerate(file, 1):
            try:
                content = json.loads(text.decode())
            except (ValueError, RecursionError):
                raise self.bad(number, "is no line of JSON") from None
            if number == 1:
                if content != FIRST:
                    raise self.bad(1, f"is not the first line of an export of format {FORMAT}")
            elif ended:
                raise self.bad(number, "stands after the end of the record")
            elif isinstance(content, list):
                seq += 1
                yield _Item(number, row=self._row(number, seq, content))
            elif isinstance(content, dict) and tuple(content) == _BATCH:
                yield _Item(number, batch=self._batch(number, content))
            elif isinstance(content, dict) and tuple(content) == ("events", "hash"):
                ended = True
                yield _Item(number, end=Head(self._number(number, content["events"]), self._hash(number, content["hash"])))
            else:
                raise self.bad(number, "is neither a batch nor an event")
        if not ended:
            raise self.bad(number, "the end of the record is missing")

    def _row(self, line: int, seq: int, content: list[Any]) -> EventRow:
        kinds = [type(value) for value in content]
        fits = len(content) == len(COLUMNS) - 1 and all(kind in (int, type(None)) for kind in kinds[:-1])
        if not fits or kinds[-1] not in (str, type(None)) or kinds[1] is not int:
            raise self.bad(line, "is no event")
        return (seq, *content)

    def _batch(self, line: int, content: dict[str, Any]) -> Batch:
        first, size, recorded = (self._number(line, content[name]) for name in _BATCH[:3])
        return Batch(first, size, recorded, self._hash(line, content["previous"]), self._hash(line, content["hash"]))

    def _number(self, line: int, value: Any) -> int:
        if type(value) is not int:
            raise self.bad(line, f"{value!r} is no number")
        return value

    def _hash(self, line: int, text: Any) -> bytes:
        try:
            found = bytes.fromhex(text)
        except (TypeError, ValueError):
            found = b""
        if len(found) != 32:
            raise self.bad(line, f"{text!r} is no hash")
        return found

    # --- the record

    def head(self) -> Head:
        """Where the record ends."""
        return next(item.end for item in self.items() if item.end is not None)

    def events(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        """The same, with an unusable event in place of each that cannot be one."""
        return sound(self.rows(first, last))

    def rows(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        """The events ``first .. last``, both included; each batch is checked before its events are given."""
        for batch, rows in self.sealed():
            if last is not None and batch.first > last:
                return
            if batch.last >= first:
                yield from rows[max(0, first - batch.first) : None if last is None else last - batch.first + 1]

    def batches(self) -> Iterator[Batch]:
        """All batches, oldest first."""
        return (item.batch for item in self.items() if item.batch is not None)

    def remembered(self, last: int | None = None, *, time: int | None = None) -> LoadedSnapshot:
        """A file has no snapshots."""
        return LoadedSnapshot(Memory(), [])

    def snapshots(self) -> Iterator[Kept]:
        """A file has no snapshots."""
        return iter(())

    def sealed(self) -> Iterator[tuple[Batch, list[EventRow]]]:
        """All batches with their events, each one checked. Raises CannotRead with the line of what is wrong."""
        batch, rows, line, head = None, list[EventRow](), 0, EMPTY
        for item in self.items():
            if item.row is not None:
                if batch is None:
                    raise self.bad(item.line, "an event stands before every batch")
                rows.append(item.row)
                continue
            if batch is not None:
                head = self._check(batch, rows, line, head)
                yield batch, rows
            batch, rows, line = item.batch, [], item.line
            if item.end is not None and item.end != head:
                raise self.bad(item.line, f"the record ends at event {head.seq}, not as this line says")

    def _check(self, batch: Batch, rows: list[EventRow], line: int, head: Head) -> Head:
        if (batch.first, batch.previous) != (head.seq + 1, head.hash):
            raise self.bad(line, "the batch does not follow the one before")
        try:
            right = len(rows) == batch.size and seal(rows, batch.first, batch.recorded, batch.previous).hash == batch.hash
        except BadEvent:
            right = False
        if not right:
            raise self.bad(line, f"the events of batch {batch.first}..{batch.last} are not those that were sealed")
        return Head(batch.last, batch.hash)


class JsonlInspection:
    """The record of an export for a check: batch by batch, in the order of the file."""

    def __init__(self, record: JsonlRecord) -> None:
        self._record = record
        self._rows: list[EventRow] = []
        self._stray = 0

    def medium(self) -> list[str]:
        """A file has no check of its own."""
        return ["every line"]

    def batches(self) -> Iterator[Batch]:
        """All batches; the events of one are read before it is given. Raises CannotRead where the end says something else."""
        batch, head = None, EMPTY
        for item in self._record.items():
            if item.row is not None:
                self._rows.append(item.row)
                self._stray += batch is None
                continue
            if batch is not None:
                yield batch
                head = Head(batch.last, batch.hash)
            batch, self._rows = item.batch, []
            if item.end is not None and item.end != head:
                raise self._record.bad(item.line, f"the record ends at event {head.seq}, not as this line says")

    def events(self, batch: Batch) -> list[EventRow]:
        """The events that stand after the batch."""
        return self._rows

    def outside(self, batches: list[Batch]) -> None:
        """Raises CannotRead where events stand before every batch: the file is not ours."""
        if self._stray:
            raise self._record.bad(2, f"{self._stray} events stand in no batch")
