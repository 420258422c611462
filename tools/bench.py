"""Measure gmemstate against named peers, as ratios of CPU time in the same run.

    tools/bench append      recording, against raw executemany of the same rows (and the eventsourcing library)
    tools/bench replay      checked replay, against fetching the same rows
    tools/bench map         the range map, against SortedDict
    tools/bench parse       the ftrace reader, against one regular expression and int() for each line

Every round runs each contender once, the order turning round; the figure is the median over the rounds of the ratio
within a round. Traffic: conversions of 1 page (40 %), 16 pages (50 %) and 512 pages (10 %), each asked, zapped, answered
by the guest's page tables and returned.
"""

import gc
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gmemstate.model.events import (
    ConvertAsked,
    ConvertReturned,
    Dialect,
    EventRow,
    SourceOpened,
    Through,
    User,
    UserAnswered,
    VmCreated,
    VmSeen,
    ZapStarted,
)
from gmemstate.model.memory import Memory
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.record import resolve

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
Contender = Callable[[], float]


def traffic(n: int, seed: int = 3) -> list[EventRow]:
    """``n`` rows of conversions over 16 GiB."""
    rnd = random.Random(seed)
    rows = [
        SourceOpened(source=-1).row(),
        VmSeen(source=-1, space=-2, pointer=5).row(),
        VmCreated(source=-1, space=-2, dialect=Dialect.MAINLINE).row(),
    ]
    conversion, t = -3, 0
    while len(rows) < n:
        npages = rnd.choices((1, 16, 512), (4, 5, 1))[0]
        start = rnd.randrange(1 << 22) // npages * npages
        conversion -= 1
        t += 1000
        same = {"conversion": conversion, "space": -2, "source": -1}
        pages = {"start": start, "npages": npages}
        attributes = rnd.choice((0, 8))
        rows += [
            ConvertAsked(**same, **pages, through=Through.VM_IOCTL, thread=7, attributes=attributes, t=t, line=t).row(),
            ZapStarted(**same, **pages, attributes=attributes, slot=1, t=t + 1, line=t + 1).row(),
            UserAnswered(**same, **pages, user=User.GUEST, result=0, entries=npages, t=t + 2, line=t + 2).row(),
            ConvertReturned(**same, result=0, thread=7, t=t + 3, line=t + 3).row(),
        ]
    return rows[:n]


def rounds(contenders: dict[str, Contender], n: int, count: int) -> dict[str, tuple[float, float]]:
    """For each contender the median CPU time for one event in us, and the median ratio of the first one's to it."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(count):
        order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in order:
            gc.collect()
            times[name].append(contenders[name]() / n * 1e6)
    first = times[next(iter(contenders))]
    return {
        name: (statistics.median(own), statistics.median(a / b for a, b in zip(first, own, strict=True)))
        for name, own in times.items()
    }


def show(title: str, figures: dict[str, tuple[float, float]]) -> None:
    print(title)
    for name, (us, ratio) in figures.items():
        print(f"  {name:44} {us:9.2f} us  {ratio:6.2f}x")


def fresh(folder: str, name: str) -> str:
    for suffix in ("", "-wal", "-shm"):
        Path(folder, name + suffix).unlink(missing_ok=True)
    return str(Path(folder, name))


# --- append -------------------------------------------------------------------------------------------------------


def append() -> None:
    for batch, n, count in ((1, 800, 21), (10, 4000, 21), (100, 8000, 21), (1000, 16000, 11)):
        rows = traffic(n)
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            contenders = {
                "raw executemany of the same rows": lambda: raw(folder, rows, batch),
                "gmemstate, record only": lambda: ours(folder, rows, batch, project=False),
                "gmemstate, with projections": lambda: ours(folder, rows, batch, project=True),
            }
            if batch in (1, 10, 100):
                contenders["eventsourcing Application.save"] = lambda: eventsourcing_save(folder, n // 4, batch) * 4
            show(f"append, {batch} events a commit", rounds(contenders, n, count))
            size = Path(folder, "ours").stat().st_size / n
            print(f"  {size:.1f} bytes an event")


def raw(folder: str, rows: list[EventRow], batch: int) -> float:
    from gmemstate.store.database import connect

    path = fresh(folder, "raw")
    connect(path, writable=True, synchronous="NORMAL").dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    numbered = resolve(rows, 1, {})[0]
    insert = f"INSERT INTO event VALUES ({', '.join('?' * 13)})"
    begun = time.process_time()
    for at in range(0, len(numbered), batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, numbered[at : at + batch])
        connection.execute("COMMIT")
    took = time.process_time() - begun
    connection.close()
    return took


def ours(folder: str, rows: list[EventRow], batch: int, *, project: bool) -> float:
    from gmemstate.store.database import connect
    from gmemstate.store.recorder import Recorder

    path = fresh(folder, "ours")
    recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns, project=project)
    known: dict[int, int] = {}
    recorder.append(rows[:3], known)
    begun = time.process_time()
    for at in range(3, len(rows), batch):
        recorder.append(rows[at : at + batch], known)
    took = time.process_time() - begun
    recorder.close()
    return took


try:
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Range(Aggregate):
        @event("Stepped")
        def step(self, start: int, npages: int, attributes: int, thread: int, line: int) -> None:
            self.state = attributes

except ImportError:
    Application = None  # `pip install gmemstate[bench]` brings the peers


def eventsourcing_save(folder: str, n: int, batch: int) -> float:
    """Save aggregates of the eventsourcing library, ``batch`` events at a time, into its own SQLite store."""
    if Application is None:
        return float("nan")
    path = fresh(folder, "eventsourcing")
    application = Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": path})
    aggregates = [Range() for _ in range(50)]
    application.save(*aggregates)
    begun = time.process_time()
    for at in range(0, n, batch):
        aggregate = aggregates[at // batch % 50]
        for line in range(batch):
            aggregate.step(start=line, npages=16, attributes=8, thread=7, line=line)
        application.save(aggregate)
    took = time.process_time() - begun
    application.close()
    return took


# --- replay -------------------------------------------------------------------------------------------------------


def replay() -> None:
    from gmemstate.store.database import connect
    from gmemstate.store.events import StoredRecord
    from gmemstate.store.recorder import Recorder

    n = 50_000
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = fresh(folder, "ours")
        recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns, project=False)
        recorder.append(traffic(n), {})
        recorder.close()
        record = StoredRecord(connect(path, writable=False), path)

        def fetch() -> float:
            connection = sqlite3.connect(path)
            begun = time.process_time()
            for _ in connection.execute("SELECT * FROM event ORDER BY seq"):
                pass
            took = time.process_time() - begun
            connection.close()
            return took

        def fold() -> float:
            memory = Memory()
            begun = time.process_time()
            for row in record.events():
                memory.apply(row)
            return time.process_time() - begun

        contenders = {
            "fetch of the same rows": fetch,
            "gmemstate, checked replay": fold,
            "eventsourcing Repository.get": lambda: eventsourcing_get(folder, n // 10) * 10,
        }
        show(f"replay of {n} events", rounds(contenders, n, 7))


def eventsourcing_get(folder: str, n: int) -> float:
    if Application is None:
        return float("nan")
    path = fresh(folder, "eventsourcing")
    application = Application(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": path})
    aggregate = Range()
    for line in range(n):
        aggregate.step(start=line, npages=16, attributes=8, thread=7, line=line)
    application.save(aggregate)
    begun = time.process_time()
    application.repository.get(aggregate.id)
    took = time.process_time() - begun
    application.close()
    return took


# --- the range map ------------------------------------------------------------------------------------------------


def rangemap() -> None:
    from sortedcontainers import SortedDict

    for runs in (1_000, 100_000, 1_000_000):
        rnd = random.Random(1)
        space = runs * 16
        edges = sorted(rnd.sample(range(space), runs))
        ours, theirs = RangeMap(), SortedDict({0: 0})
        for n, (a, b) in enumerate(pairwise(edges)):
            ours.set(a, b, 1 + n % 2)
            theirs[a] = 1 + n % 2
        theirs[edges[-1]] = 0
        operations = []
        for _ in range(5_000):
            npages = rnd.choices((1, 16, 64), (4, 5, 1))[0]
            start = rnd.randrange(space) // npages * npages
            operations.append((start, start + npages, rnd.randrange(3)))

        def set_theirs() -> float:
            begun = time.process_time()
            for start, end, value in operations:
                after = theirs.peekitem(theirs.bisect_right(end) - 1)[1]
                for key in list(theirs.irange(start, end)):
                    del theirs[key]
                if start == 0 or theirs.peekitem(theirs.bisect_right(start) - 1)[1] != value:
                    theirs[start] = value
                if after != value:
                    theirs[end] = after
            return time.process_time() - begun

        def set_ours() -> float:
            begun = time.process_time()
            for start, end, value in operations:
                ours.set(start, end, value)
            return time.process_time() - begun

        show(f"range map, {len(ours)} runs", rounds({"SortedDict": set_theirs, "RangeMap.set": set_ours}, len(operations), 9))


if __name__ == "__main__":
    verbs = {"append": append, "replay": replay, "map": rangemap}
    chosen = sys.argv[1:] or list(verbs)
    if unknown := [name for name in chosen if name not in verbs]:
        sys.exit(f"{unknown[0]}: no such benchmark; there are {', '.join(verbs)}")
    for name in chosen:
        verbs[name]()
