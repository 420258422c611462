"""Snapshots in a database: written now and then after a batch, verified before they are used, dropped where they are wrong."""

from typing import Any

from gmemstate.model.memory import Memory
from gmemstate.model.record import Kept
from gmemstate.model.snapshot import FOLD, BadSnapshot, Snapshot, decode, encode

SPACING = 4_096
"""How many events lie between two snapshots at least: so few that they are folded in a moment."""
SHARE = 4
"""And at least one event for so many runs of pages, so that snapshots stay a small part of the ledger, and of the work."""

FAR = (1 << 63) - 1
"""Behind every seq."""

_KEPT = """
    SELECT seq, fold, latest, content, (
        SELECT hash FROM batch WHERE first + size - 1 = seq AND first = (SELECT max(first) FROM batch WHERE first <= seq)
    ) FROM snapshot
"""


ALL = f"{_KEPT} ORDER BY seq"


def kept(row: Any) -> Kept:
    """A snapshot as it is stored."""
    seq, fold, latest, content, head = row
    return Kept(seq, fold, latest, bytes(content), None if head is None else bytes(head))


def youngest(cursor: Any, last: int, time: int | None) -> Kept | None:
    """The youngest snapshot of this fold up to an event, and before the first event that is later than a time."""
    early = "" if time is None else f"AND (latest IS NULL OR latest <= {time:d})"
    cursor.execute(f"{_KEPT} WHERE fold = {FOLD} AND seq <= {last:d} {early} ORDER BY seq DESC LIMIT 1")
    row = cursor.fetchone()
    return None if row is None else kept(row)


def verified(found: Kept) -> Snapshot:
    """The snapshot, if it is what was written, and of this record. Raises BadSnapshot.

    Only a fold can tell whether the memory in it is right: `check` does that.
    """
    snapshot = decode(found.content)
    if (snapshot.memory.seq, snapshot.latest) != (found.seq, found.latest) or snapshot.head != found.head:
        raise BadSnapshot("belongs to another record; `gmemstate rebuild` makes it again")
    return snapshot


class SnapshotWriter:
    """Writes snapshots with the statements of one database, as part of a batch."""

    def __init__(self, mark: str) -> None:
        self._insert = f"INSERT INTO snapshot (seq, fold, latest, content) VALUES ({', '.join([mark] * 4)})"
        self.go_on(0)

    def go_on(self, seq: int) -> None:
        """There is a snapshot here, or the beginning."""
        self._at, self.due = seq, seq + SPACING

    def write(self, cursor: Any, memory: Memory, head: bytes) -> None:
        """Keep the memory after the batch that has this hash, if it is time for one (``due``)."""
        if memory.seq < self.due:
            return
        self.due = max(self.due, self._at + sum(map(len, memory.maps())) // SHARE)
        if memory.seq < self.due:
            return
        cursor.execute(f"DELETE FROM snapshot WHERE fold <> {FOLD} OR seq >= {memory.seq}")
        cursor.execute(
            f"SELECT max(t) FROM (SELECT t FROM event WHERE seq <= {memory.seq} "
            "AND seq > coalesce((SELECT max(seq) FROM snapshot), 0) UNION ALL SELECT max(latest) FROM snapshot) AS times"
        )
        (latest,) = cursor.fetchone()
        cursor.execute(self._insert, (memory.seq, FOLD, latest, encode(Snapshot(memory, head, latest))))
        self.go_on(memory.seq)

    def clear(self, cursor: Any) -> None:
        """Drop all snapshots."""
        cursor.execute("DELETE FROM snapshot")
        self.go_on(0)
