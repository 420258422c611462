"""What figures are held against: sqlite3 alone, and the eventsourcing library with aggregates in its own SQLite store."""

import sqlite3
import time

from benchmarks.rounds import fresh

try:
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Range(Aggregate):
        @event("Stepped")
        def step(self, start: int, npages: int, attributes: int, thread: int, line: int) -> None:
            self.state = attributes

except ImportError:
    Application = None  # `pip install gmemstate[bench]` brings the peers


def raw_fetch(path: str) -> float:
    """Fetch all events of a ledger with sqlite3, and do nothing with them."""
    connection = sqlite3.connect(path)
    begun = time.process_time()
    for _ in connection.execute("SELECT * FROM event ORDER BY seq"):
        pass
    took = time.process_time() - begun
    connection.close()
    return took


def eventsourcing_save(place: str, n: int, batch: int) -> float:
    """Save aggregates of the eventsourcing library, ``batch`` events at a time, into its own SQLite store."""
    if Application is None:
        return float("nan")
    path = fresh(place, "eventsourcing")
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


def eventsourcing_get(place: str, n: int) -> float:
    if Application is None:
        return float("nan")
    path = fresh(place, "eventsourcing")
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
