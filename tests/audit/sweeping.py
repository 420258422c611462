"""A ledger of a thousand events to which everything is done, one thing at a time, and the questions that are asked each
time."""

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

from gmemstate.audit.check.check import Checked
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import GmemstateError
from gmemstate.model.events import SEQ
from tests.audit.alterations import GUARDS, forged
from tests.audit.sqlite_file import pages
from tests.audit.verifier import module
from tests.traces import capture

EVENTS = 1000
CASES = ("half_done", "ip_eagain_pin", "race", "enomem", "ip_enomem", "hwpoison_private", "punch_mapped", "ip_two_slots",
         "ip_guest_ask", "guest_ask", "nogmem", "ip_hwpoison_shared", "ip_race_host")  # fmt: skip
SIZES = (21, 25, 29)
"""How many events the batches have, in turn."""
_PAGE = re.compile(r"\bpage \d+")


def thousand(folder: Path) -> Path:
    """A ledger of a thousand events of real traces, in some forty batches."""
    with Ledger.open(folder / "whole.db", durable=False) as ledger:
        ledger.ingest(*(capture(case) for case in CASES))
        rows = list(ledger.record_.events(1, EVENTS))
    assert len(rows) == EVENTS
    batches, at = [], 0
    while at < EVENTS:
        size = SIZES[len(batches) % len(SIZES)]
        batches.append(rows[at : at + size])
        at += size
    return forged(folder / "thousand.db", *batches)


def decoded(where: Path) -> tuple[list[Any], list[Any]]:
    """All rows of the record as SQLite alone reads them. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"file:{where}?mode=ro", uri=True)
    try:
        return (
            connection.execute("SELECT * FROM event ORDER BY seq").fetchall(),
            connection.execute("SELECT * FROM batch ORDER BY first").fetchall(),
        )
    finally:
        connection.close()


class Swept:
    """A copy of a ledger in which something is altered, looked at, and put back.

    What is looked at: a check names the batches whose rows are others now, or the page of the database; where it names nothing,
    every row is what it was. The second verifier (asked where ``verify`` is set) says "as sealed" of nothing that has changed.
    """

    def __init__(self, original: Path, folder: Path) -> None:
        self.where = folder / "swept.db"
        self.data = original.read_bytes()
        self.where.write_bytes(self.data)
        self.events, self.batches = decoded(self.where)
        self.spans = [(batch[0], batch[0] + batch[1] - 1) for batch in self.batches]
        self.returned: Counter[str] = Counter()
        """how often each outcome was met: the codes of a check, a refusal to open, or nothing"""
        self.looks = 0
        """how many checks that took"""
        self._verifier = module()
        self._file = os.open(self.where, os.O_RDWR)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def flip(self, *bits: int, verify: bool = True) -> None:
        """Flip bits of the file, together."""
        with self._flipped(bits):
            self._look(f"bits {bits}", verify=verify)

    def flip_apart(self, bits: dict[tuple[int, int], int], *, verify: bool) -> None:
        """Flip at most one bit in the rows of each batch, each of which must be named for itself.

        They are flipped together as long as nothing but rows of these batches is another, and nothing but these batches is
        named: then each is named for its own bit. Else each bit is flipped alone.
        """
        with self._flipped(bits.values()):
            result = self._checked()
            changed = self._changed_one_by_one()
            problems = result.problems if result is not None else []
            named = {(problem.first, problem.last) for problem in problems if problem.first is not None}
            apart = changed <= named <= set(bits) and (not verify or not changed or self._faulty())
        if apart:
            self.returned.update("named" if span in named else "nothing" for span in bits)
            return
        for bit in bits.values():
            self.flip(bit, verify=verify)

    def flip_free(self, bits: range) -> None:
        """Flip bits that lie in no row and no part of a tree: together, or each alone where that is no matter of nothing."""
        with self._flipped(bits):
            result = self._checked()
            same = decoded(self.where) == (self.events, self.batches)
        if same and result is not None and not result.problems:
            self.returned["nothing"] += len(bits)
            return
        for bit in bits:
            self.flip(bit)

    def alter(self, *statements: str) -> None:
        """Run statements without the guards, as somebody does who knows SQL; the guards are put back."""
        connection = sqlite3.connect(self.where)
        connection.execute("PRAGMA journal_mode = MEMORY")
        kept = [connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0] for name in GUARDS]
        for name in GUARDS:
            connection.execute(f"DROP TRIGGER {name}")
        for statement in (*statements, *kept):
            connection.execute(statement)
        connection.commit()
        connection.close()
        try:
            self._look("; ".join(statements), verify=True)
        finally:
            os.truncate(self.where, len(self.data))
            os.pwrite(self._file, self.data, 0)

    @contextmanager
    def _flipped(self, bits: Iterable[int]) -> Iterator[None]:
        bytes_ = bytearray(self.data)
        for bit in bits:
            bytes_[bit >> 3] ^= 1 << (bit & 7)
        touched = sorted({bit >> 15 << 12 for bit in bits})
        for at in touched:
            os.pwrite(self._file, bytes_[at : at + 4096], at)
        try:
            yield
        finally:
            for at in touched:
                os.pwrite(self._file, self.data[at : at + 4096], at)

    def _checked(self) -> Checked | None:
        """What a check says; None where the ledger cannot be opened, which is said too."""
        self.looks += 1
        try:
            with Ledger.open(self.where, readonly=True) as ledger:
                return ledger.check()
        except GmemstateError as error:
            self.returned[error.code] += 1
            return None

    def _look(self, what: str, *, verify: bool) -> None:
        """Ask SQLite alone, the check, and the second verifier."""
        try:
            events, batches = decoded(self.where)
            changed = set(self._changed(events, batches))
            same = (events, batches) == (self.events, self.batches)
        except (sqlite3.Error, UnicodeDecodeError):
            changed, same = set(), False
        result = self._checked()
        if result is None:
            return
        self.returned[" ".join(sorted({problem.code for problem in result.problems})) or "nothing"] += 1
        assert same or result.problems, what
        assert self._named(result, changed), (what, result.problems, changed)
        if verify:
            assert same or self._faulty(), what

    def _changed(self, events: list[Any], batches: list[Any]) -> Iterator[tuple[int, int]]:
        """First and last seq of the batches, of those that were there, that are others now."""
        now, sealed = {row[SEQ]: row for row in events}, {batch[0]: batch for batch in batches}
        for batch, (first, last) in zip(self.batches, self.spans, strict=True):
            rows = self.events[first - 1 : last]
            if sealed.get(first) != batch or any(now.get(row[SEQ]) != row for row in rows):
                yield first, last

    def _changed_one_by_one(self) -> set[tuple[int, int]]:
        """The same where some rows cannot be read."""
        try:
            return set(self._changed(*decoded(self.where)))
        except (sqlite3.Error, UnicodeDecodeError):
            return {span for span in self.spans if self._rows(*span) != self.events[span[0] - 1 : span[1]]}

    def _rows(self, first: int, last: int) -> list[Any] | None:
        connection = sqlite3.connect(f"file:{self.where}?mode=ro", uri=True)
        try:
            return connection.execute(f"SELECT * FROM event WHERE seq BETWEEN {first} AND {last} ORDER BY seq").fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            return None
        finally:
            connection.close()

    def _named(self, result: Checked, changed: set[tuple[int, int]]) -> bool:
        """Whether each changed batch is named, by its seqs or by a place in it, or else a page of the database."""
        if any(problem.code == "DATABASE" and _PAGE.search(problem.text) for problem in result.problems):
            return True
        places = [(p.first, p.last) for p in result.problems if p.first is not None and p.last is not None]
        return all(any(low <= last and first <= high for low, high in places) for first, last in changed)

    def _faulty(self) -> bool:
        try:
            batches, events, total = self._verifier.of_database(str(self.where))
            return bool(list(self._verifier.faults(batches, events, total)))
        except (sqlite3.Error, ValueError, KeyError, TypeError):
            return True


class Areas(NamedTuple):
    """The bits of the pages of the record: the columns of the events of each batch, what means nothing, and all others."""

    rows: dict[tuple[int, int], list[int]]
    free: list[range]
    rest: list[int]
    """heads of pages, pointers to rows, lengths and seqs of events, and all of the rows of batches"""

    @classmethod
    def of(cls, swept: Swept) -> Self:
        """Those of a ledger."""
        data = swept.data
        connection = sqlite3.connect(swept.where)
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE name IN ('event', 'batch')"))
        connection.close()
        areas = cls({span: [] for span in swept.spans}, [], [])
        for table, root in roots.items():
            for page in pages(data, root):
                used = page.used(data)
                cells = dict(page.rows(data)) if table == "event" and page.leaf else {}
                at = page.offset
                while at < page.offset + 4096:
                    if at in cells:
                        span = next(span for span in swept.spans if span[0] <= cells[at].seq <= span[1])
                        areas.rows[span].extend(range(at * 8, cells[at].end * 8))
                        at = cells[at].end
                    elif at in used:
                        areas.rest.extend(range(at * 8, at * 8 + 8))
                        at += 1
                    else:
                        end = min((next_ for next_ in used | cells.keys() if next_ > at), default=page.offset + 4096)
                        areas.free.append(range(at * 8, end * 8))
                        at = end
        return areas

    def size(self) -> int:
        """How many bits that are."""
        return sum(map(len, self.rows.values())) + sum(map(len, self.free)) + len(self.rest)
