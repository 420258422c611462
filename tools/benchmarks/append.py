"""Recording, against raw executemany of the same rows into the same tables, and against the eventsourcing library."""

import sqlite3
import time
from pathlib import Path

from benchmarks.peers import eventsourcing_save
from benchmarks.rounds import folder, fresh, rounds, show
from benchmarks.traffic import traffic

from gmemstate.model.events import EventRow
from gmemstate.model.record import resolve
from gmemstate.store.engine import connect
from gmemstate.store.recorder import Recorder


def append() -> None:
    for batch, n, count in ((1, 800, 21), (10, 4000, 21), (100, 8000, 21), (1000, 16000, 11)):
        rows = traffic(n)
        with folder() as place:
            contenders = {
                "raw executemany of the same rows": lambda: raw(place, rows, batch),
                "gmemstate, record only": lambda: ours(place, rows, batch, project=False),
                "gmemstate, with projections": lambda: ours(place, rows, batch, project=True),
            }
            if batch in (1, 10, 100):
                contenders["eventsourcing Application.save"] = lambda: eventsourcing_save(place, n // 4, batch) * 4
            show(f"append, {batch} events a commit", rounds(contenders, n, count))
            ours(place, rows[:3], batch, project=False)
            empty = Path(place, "ours").stat().st_size
            ours(place, rows, batch, project=False)
            print(f"  {(Path(place, 'ours').stat().st_size - empty) / n:.1f} bytes an event, record only")


def raw(place: str, rows: list[EventRow], batch: int) -> float:
    path = fresh(place, "raw")
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


def ours(place: str, rows: list[EventRow], batch: int, *, project: bool) -> float:
    path = fresh(place, "ours")
    recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns, project=project)
    known: dict[int, int] = {}
    recorder.append(rows[:3], known)
    begun = time.process_time()
    for at in range(3, len(rows), batch):
        recorder.append(rows[at : at + batch], known)
    took = time.process_time() - begun
    recorder.close()
    return took
