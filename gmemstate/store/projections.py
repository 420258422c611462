"""Projections: the net difference that a batch made, for readers of SQL. Nothing folds from them."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from gmemstate.model import events as e
from gmemstate.model.events import ACTOR, DETAIL, KIND, OWNER, RESULT, SEQ, SOURCE, VALUE, details
from gmemstate.model.machines.range import RANGE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, MessedUp, Request
from gmemstate.model.units import END, signed
from gmemstate.model.verdict import label
from gmemstate.store import schema
from gmemstate.store.record import StoredRecord

Rows = list[tuple[Any, ...]]
LAST = (1 << 63) - 1
"""The last page that a column can name."""


def range_windows(memory: Memory) -> tuple[Rows, Rows]:
    """What to replace in ``range``: windows ``(owner, from, to)`` to delete, and the runs to put there.

    A window reaches over the runs that adjoin the changed pages, since those may have grown or shrunk; windows may overlap.
    """
    delete: Rows = []
    insert: dict[tuple[int, int], tuple[Any, ...]] = {}
    for owner, start, end in set(memory.dirty):
        runs = memory.ranges[owner].touching(start, end)
        delete.append((owner, min(runs[0][0], LAST), min(runs[-1][1], LAST)))
        for low, high, code in runs:
            if code:
                insert[owner, low] = (owner, low, None if high >= END else high - low, RANGE.states[code])
    return delete, list(insert.values())


def range_rows(memory: Memory, owner: int) -> Rows:
    """The known runs of one attribute owner."""
    return [
        (owner, start, None if end >= END else end - start, RANGE.states[code])
        for start, end, code in memory.ranges[owner]
        if code
    ]


def conversion_row(memory: Memory, conversion: Conversion) -> tuple[Any, ...]:
    """A conversion as a row of its table."""
    source = memory.sources.get(conversion.source or 0)
    return (
        conversion.id,
        memory.vm_of(conversion),
        conversion.owner,
        conversion.thread,
        conversion.through.name.lower(),
        conversion.start,
        conversion.npages,
        None if conversion.attributes is None else signed(conversion.attributes),
        conversion.target,
        conversion.result,
        None if conversion.error_offset is None else signed(conversion.error_offset),
        conversion.state,
        str(label(conversion, source)),
        str(conversion.trigger),
        conversion.request,
        conversion.asked,
        conversion.returned,
        conversion.source,
        conversion.first_line,
        conversion.last_line,
        conversion.last,
    )


def request_row(request: Request) -> tuple[Any, ...]:
    """A request as a row of its table."""
    return (
        request.id,
        request.owner,
        request.thread,
        request.start,
        request.npages,
        request.flags,
        len(request.conversions),
        request.result,
        request.asked,
        request.answered,
        request.source,
        request.last,
    )


def messed_up_row(entry: MessedUp) -> tuple[Any, ...]:
    """A messed-up entry as a row of its table."""
    return (
        entry.id,
        entry.cause.name.lower(),
        entry.state,
        entry.pfn,
        entry.count,
        entry.vm,
        entry.gfn,
        entry.gmem,
        entry.index,
        entry.reuse_risk,
        entry.cleared_by,
        entry.since,
        entry.last,
    )


def source_rows(rows: Iterable[e.EventRow]) -> tuple[Rows, Rows]:
    """New rows of ``source``, and ``(read_to, whole, last, id)`` of those that were read further."""
    opened: Rows = []
    read: Rows = []
    for row in rows:
        if row[KIND] == e.SourceOpened.code:
            seq, facts = row[SEQ], details(row[DETAIL])
            opened.append(
                (seq, facts.get("name"), facts.get("format"), facts.get("head", ""), facts.get("head_size", 0), 0, 0, seq)
            )
        elif row[KIND] == e.SourceRead.code:
            read.append((row[VALUE], int(not row[RESULT]), row[SEQ], row[SOURCE]))
    return opened, read


def adopted(memory: Memory, rows: Iterable[e.EventRow]) -> Rows:
    """``(guest, owner)`` of the guest_memfds that the rows join to a guest: older conversions of them get it too."""
    joined = {row[ACTOR] if row[KIND] == e.GmemBound.code else row[OWNER] for row in rows}
    return [(memory.guest_id(owner), owner) for owner in joined if owner in memory.gmems]


_JOINING = frozenset((e.GmemCreated.code, e.GmemSeen.code, e.GmemBound.code))
_READING = frozenset((e.SourceOpened.code, e.SourceRead.code))


def _sources(rows: Iterable[e.EventRow]) -> Rows:
    """The rows of ``source`` as all readings have left them."""
    opened, read = source_rows(rows)
    found = {row[0]: row for row in opened}
    for read_to, whole, last, source in read:
        if source in found:
            found[source] = (*found[source][:5], read_to, whole, last)
    return list(found.values())


class Projector:
    """Writes the net difference of a batch with the statements of one database."""

    def __init__(self, mark: str) -> None:
        def insert(table: Any) -> str:
            names = [f'"{column.name}"' for column in table.columns]
            return f'INSERT INTO "{table.name}" ({", ".join(names)}) VALUES ({", ".join([mark] * len(names))})'

        def replace(table: Any) -> str:
            new = [f'"{column.name}" = excluded."{column.name}"' for column in table.columns if column.name != "id"]
            return f"{insert(table)} ON CONFLICT (id) DO UPDATE SET {', '.join(new)}"

        self._insert_range = insert(schema.range_)
        self._delete_range = f'DELETE FROM "range" WHERE space = {mark} AND "start" >= {mark} AND "start" < {mark}'
        self._insert_source = insert(schema.source)
        self._read_source = f"UPDATE source SET read_to = {mark}, whole = {mark}, last = {mark} WHERE id = {mark}"
        self._adopt = f"UPDATE conversion SET guest = {mark} WHERE space = {mark}"
        self._replace_conversion = replace(schema.conversion)
        self._replace_request = replace(schema.request)
        self._replace_messed_up = replace(schema.messed_up)

    def write(self, cursor: Any, memory: Memory, rows: Sequence[e.EventRow]) -> None:
        """Bring all projections up to the memory, whose pending changes are those of the batch."""
        if memory.dirty:
            delete, insert = range_windows(memory)
            cursor.executemany(self._delete_range, delete)
            cursor.executemany(self._insert_range, insert)
        first = rows[0][SEQ] if rows else 0
        changed = memory.ended + [conversion for conversion in memory.conversions.values() if conversion.last >= first]
        if changed:
            cursor.executemany(self._replace_conversion, [conversion_row(memory, conversion) for conversion in changed])
        if joining := [row for row in rows if row[KIND] in _JOINING]:
            cursor.executemany(self._adopt, adopted(memory, joining))
        if memory.changed_requests:
            found = [memory.requests[id] for id in sorted(memory.changed_requests) if id in memory.requests]
            cursor.executemany(self._replace_request, [request_row(request) for request in found])
        if memory.changed_messed_up:
            entries = [memory.messed_up[id] for id in sorted(memory.changed_messed_up)]
            cursor.executemany(self._replace_messed_up, [messed_up_row(entry) for entry in entries])
        if reading := [row for row in rows if row[KIND] in _READING]:
            opened, read = source_rows(reading)
            cursor.executemany(self._insert_source, opened)
            cursor.executemany(self._read_source, read)

    def clear(self, cursor: Any) -> None:
        """Empty all projections."""
        for table in schema.PROJECTIONS:
            cursor.execute(f'DELETE FROM "{table.name}"')


class Folded(Protocol):
    """What a fold of the whole record has kept: the memory, and what the memory lets go."""

    memory: Memory
    conversions: dict[int, Conversion]
    requests: dict[int, Request]


def compare(record: StoredRecord, folded: Folded) -> list[str]:
    """The names of the projections that differ from a fold of the whole record."""
    memory = folded.memory
    expected: dict[str, Rows] = {
        "range": sorted(row for owner in memory.ranges for row in range_rows(memory, owner)),
        "conversion": [conversion_row(memory, folded.conversions[id]) for id in sorted(folded.conversions)],
        "request": [request_row(folded.requests[id]) for id in sorted(folded.requests)],
        "messed_up": [messed_up_row(memory.messed_up[id]) for id in sorted(memory.messed_up)],
        "source": _sources(record.of_kinds(sorted(_READING))),
    }
    return [name for name, rows in expected.items() if record.table(name) != rows]
