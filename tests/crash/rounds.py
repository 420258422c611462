"""A recorder that may die at any moment, and what must be found afterwards. Its history is known in advance."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import ConvertAsked, ConvertReturned, Dialect, Event, SourceOpened, Through, VmCreated, VmSeen
from gmemstate.model.record import Head
from tests.store.places import assert_chained, conversion, guests

BORN = 3
"""How many events the first batch has; each one behind it has two."""


class Acknowledged(NamedTuple):
    """What the recorder was promised before it died: the end of a batch."""

    seq: int
    hash: bytes


def next_batch(seq: int, size: int = 1) -> list[Event]:
    """The batch of some conversions that follows behind an event; in front of all there is one with a guest."""
    if seq == 0:
        return guests(1)
    first = (seq - BORN) // 2
    return [event for n in range(size) for event in conversion(2, 16 * (first + n), reference=-1 - n)]


def expected(seq: int) -> list[Event]:
    """The record up to an event, as a list that was made without any store."""
    record: list[Event] = [
        SourceOpened(source=1),
        VmSeen(source=1, owner=2, pointer=0x1000),
        VmCreated(source=1, owner=2, dialect=Dialect.MAINLINE),
    ]
    for asked in range(BORN + 1, seq + 1, 2):
        start = 8 * (asked - BORN - 1)
        record += [
            ConvertAsked(conversion=asked, through=Through.VM_IOCTL, owner=2, start=start, npages=16, attributes=8),
            ConvertReturned(conversion=asked, result=0, owner=2),
        ]
    return record[:seq]


def record(where: str, batches: int, acknowledge: Callable[[Head], Any]) -> None:
    """Open a ledger, go on where it ends, close it; ``acknowledge`` is told of each batch behind its return."""
    with Ledger.open(where) as ledger:
        seq = ledger.head().seq
        for _ in range(batches):
            head = ledger.record(*next_batch(seq))
            acknowledge(head)
            seq = head.seq


def assert_recovered(where: str, acknowledged: Acknowledged | None, size: int = 1) -> Head:
    """A prefix of the history with everything acknowledged and at most one batch more, that checks clean and goes on."""
    with Ledger.open(where) as ledger:
        head = ledger.head()
        assert [event for event in (one.event for one in ledger.events())] == expected(head.seq)
        promised = acknowledged.seq if acknowledged else 0
        assert promised <= head.seq <= promised + max(2 * size, BORN - promised)
        ends = {batch.last: batch.hash for batch in ledger.record_.batches()}
        assert acknowledged is None or ends[acknowledged.seq] == acknowledged.hash
        assert ledger.check().problems == ()
        assert_chained(ledger)
    return head


# --- a process to be killed


def endless(where: str, pipe: Connection) -> None:
    """Open, record four batches and close, until somebody kills."""
    while True:
        record(where, 4, lambda head: pipe.send((head.seq, head.hash)))


def dies_at(where: str, statement: int) -> None:
    """Make a ledger, and die in front of a statement (commits are counted with them); else end well."""
    from sqlalchemy import Engine, event

    left = iter(range(statement, -1, -1))

    def count(*_: Any) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    Ledger.open(where).close()
    os._exit(0)


def started(target: Callable[..., None], *arguments: Any) -> Any:
    """A process of its own, forked from one that has loaded everything and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "alembic.command", "sqlalchemy.dialects.sqlite", "psycopg"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def copied(path: Path, to: Path, wal: int | None = None) -> Path:
    """A copy of a ledger and of the first bytes of its WAL, as a crash would leave them."""
    to.write_bytes(path.read_bytes())
    if wal is not None:
        Path(f"{to}-wal").write_bytes(Path(f"{path}-wal").read_bytes()[:wal])
    return to
