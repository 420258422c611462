"""A ledger of a thousand events to which everything is done, one thing at a time, and the questions that are asked each time."""

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gmemstate.audit.check import Checked
from gmemstate.ledger import Ledger
from gmemstate.model.errors import GmemstateError
from gmemstate.model.events import SEQ
from tests.audit.alterations import GUARDS, forged, pages
from tests.audit.verifier import module
from tests.traces import capture

EVENTS = 1000
CASES = ("half_done", "ip_eagain_pin", "race", "enomem", "ip_enomem", "hwpoison_private", "punch_mapped", "ip_two_slots",
         "ip_guest_ask", "guest_ask", "nogmem", "ip_hwpoison_shared", "ip_race_host")  # fmt: skip
SIZES = (1, 2, 5, 13, 34, 89)
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
    """A copy of a ledger in which one thing at a time is altered, looked at, and put back.

    What is looked at: a check names the batches whose rows are others now, or the page of the database; where it names nothing, every row is what it was. The second
    verifier (asked where ``verify`` is set) says "as sealed" of nothing that has changed.
    """

    def __init__(self, original: Path, folder: Path) -> None:
        self.where = folder / "swept.db"
        self.data = original.read_bytes()
        self.where.write_bytes(self.data)
        self.events, self.batches = decoded(self.where)
        self.told: Counter[str] = Counter()
        """how often each outcome was met: the codes of a check, a refusal to open, or nothing"""
        self._verifier = module()
        self._file = os.open(self.where, os.O_RDWR)

    def bits(self, page: int) -> range:
        """The bits of a page of the file, counted from 1."""
        size = int.from_bytes(self.data[16:18], "big") * 8
        return range((page - 1) * size, page * size)

    def pages(self) -> list[int]:
        """The pages of the file that hold the record, counted from 1."""
        size = int.from_bytes(self.data[16:18], "big")
        connection = sqlite3.connect(self.where)
        roots = connection.execute("SELECT rootpage FROM sqlite_master WHERE name IN ('event', 'batch')").fetchall()
        connection.close()
        return [page.offset // size + 1 for (root,) in roots for page in pages(self.data, root)]

    def flip(self, bit: int, *, verify: bool = True) -> None:
        """Flip one bit of the file."""
        at = bit >> 3
        os.pwrite(self._file, bytes([self.data[at] ^ 1 << (bit & 7)]), at)
        try:
            self.look(f"bit {bit & 7} of byte {at}", verify=verify)
        finally:
            os.pwrite(self._file, self.data[at : at + 1], at)

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
            self.look("; ".join(statements), verify=True)
        finally:
            os.truncate(self.where, len(self.data))
            os.pwrite(self._file, self.data, 0)

    def look(self, what: str, *, verify: bool) -> None:
        """Ask the check, SQLite alone, and the second verifier."""
        try:
            events, batches = decoded(self.where)
            changed = set(self._batches(events, batches))
            same = not changed and (events, batches) == (self.events, self.batches)
        except (sqlite3.Error, UnicodeDecodeError):
            changed, same = set(), False
        try:
            with Ledger.open(self.where, readonly=True) as ledger:
                result = ledger.check()
        except GmemstateError as error:
            self.told[error.code] += 1  # it cannot be opened, and says so
            return
        self.told[" ".join(sorted({problem.code for problem in result.problems})) or "nothing"] += 1
        assert same or result.problems, what
        assert self._named(result, changed), (what, result.problems, changed)
        if verify:
            assert same or self._faulty(), what

    def _batches(self, events: list[Any], batches: list[Any]) -> Iterator[tuple[int, int]]:
        """First and last seq of the batches, of those that were there, that are others now."""
        now, sealed = {row[SEQ]: row for row in events}, {batch[0]: batch for batch in batches}
        for batch in self.batches:
            first, size = batch[:2]
            rows = self.events[first - 1 : first - 1 + size]
            if sealed.get(first) != batch or any(now.get(row[SEQ]) != row for row in rows):
                yield first, first + size - 1

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
