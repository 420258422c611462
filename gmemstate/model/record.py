"""What a record is to those who ask it, whether it lies in a database or in a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from gmemstate.model.encoding import NO_HASH, Batch
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    KINDS,
    LINE,
    OWNER,
    SOURCE,
    START,
    VALUE,
    EventRow,
    SourceRead,
    T,
    details,
)
from gmemstate.model.memory import Memory


class Head(NamedTuple):
    """The end of a record: its youngest seq and the hash of its last batch."""

    seq: int
    hash: bytes


EMPTY = Head(0, NO_HASH)


class SourceInfo(NamedTuple):
    """A source as its opening event names it, and how far it was read."""

    id: int
    name: str
    format: str
    head: str
    head_size: int
    read_to: int
    whole: bool


class LoadedSnapshot(NamedTuple):
    """A memory to go on from, and the events up to there that are about sources."""

    memory: Memory
    sources: list[EventRow]


class Kept(NamedTuple):
    """A snapshot as it is stored: unlike the record, nobody has sealed it."""

    seq: int
    fold: int
    """the version of the fold that has made it"""
    latest: int | None
    """the latest time (ns) up to there"""
    content: bytes
    head: bytes | None
    """the hash of the batch that ends at ``seq``, None where none does"""


class Record(Protocol):
    """A gapless, ordered, append-only run of events in batches."""

    def head(self) -> Head:
        """Where the record ends."""

    def events(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        """The events ``first .. last``, both included, with an unusable one in place of each that cannot be an event."""

    def rows(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        """The same as they are stored."""

    def batches(self) -> Iterator[Batch]:
        """All batches, oldest first."""

    def remembered(self, last: int | None = None, *, time: int | None = None) -> LoadedSnapshot:
        """What a snapshot has kept: the youngest up to event ``last``, and before the first event later than ``time`` (ns).

        Where there is none, the empty memory.
        """

    def snapshots(self) -> Iterator[Kept]:
        """All snapshots, oldest first."""


def resolve(rows: Iterable[EventRow], first: int, known: Mapping[int, int]) -> tuple[list[EventRow], dict[int, int]]:
    """Number the rows from ``first`` on and replace negative references by seqs; returns them with the new references.

    A reference becomes the seq of the first event that carries it; ``known`` has those of earlier batches.
    """
    numbered = []
    new: dict[int, int] = {}
    for seq, row in enumerate(rows, first):
        _, t, kind, source, owner, conversion, start, npages, result, value, actor, line, detail = row
        if conversion is not None and conversion < 0:
            conversion = known.get(conversion) or new.setdefault(conversion, seq)
        if owner is not None and owner < 0:
            owner = known.get(owner) or new.setdefault(owner, seq)
        if source is not None and source < 0:
            source = known.get(source) or new.setdefault(source, seq)
        if actor is not None and actor < 0:
            actor = known.get(actor) or new.setdefault(actor, seq)
        numbered.append((seq, t, kind, source, owner, conversion, start, npages, result, value, actor, line, detail))
    return numbered, new


def renamed(row: EventRow, rename: Callable[[int], int]) -> EventRow:
    """A row with other numbers for what has no seq yet: references that are negative."""
    source, owner, conversion, actor = (key if key is None or key >= 0 else rename(key) for key in references(row))
    return (*row[:SOURCE], source, owner, conversion, *row[START:ACTOR], actor, *row[LINE:])


def references(row: EventRow) -> tuple[int | None, int | None, int | None, int | None]:
    """What a row may refer to by seq, or by a negative number: source, owner, conversion or request, and actor."""
    return row[SOURCE], row[OWNER], row[CONVERSION], row[ACTOR]


def same_fact(row: EventRow, other: EventRow) -> bool:
    """Whether two rows say the same of the same line, whatever numbers they refer by; of readings the same bytes."""
    if row[KIND] == other[KIND] == SourceRead.code:
        return (row[VALUE], details(row[DETAIL]).get("digest")) == (other[VALUE], details(other[DETAIL]).get("digest"))
    return (row[KIND], row[T], row[LINE], row[START:ACTOR]) == (other[KIND], other[T], other[LINE], other[START:ACTOR])


def unresolved(row: EventRow) -> EventRow:
    """A row of another record, whose references are made negative: ``resolve`` replaces them by seqs of the new record."""
    kind = KINDS[row[KIND]]
    source, owner, conversion = (None if seq is None else -seq for seq in (row[SOURCE], row[OWNER], row[CONVERSION]))
    is_reference = any(column == ACTOR for column, _ in kind.refers.values())
    actor = -row[ACTOR] if is_reference and row[ACTOR] is not None else row[ACTOR]
    return (0, row[T], row[KIND], source, owner, conversion, *row[START:ACTOR], actor, *row[LINE:])
