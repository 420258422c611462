"""Checked replay, against fetching the same rows and against the eventsourcing library."""

import time

from benchmarks.peers import eventsourcing_get, raw_fetch
from benchmarks.rounds import folder, fresh, rounds, show
from benchmarks.traffic import traffic

from gmemstate.audit.history.moment import moment_at
from gmemstate.store.engine import connect
from gmemstate.store.record import StoredRecord
from gmemstate.store.recorder import Recorder


def replay() -> None:
    n = 50_000
    with folder() as place:
        path = fresh(place, "ours")
        recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns, project=False)
        recorder.append(traffic(n), {})
        recorder.close()
        record = StoredRecord(connect(path, writable=False), path)

        def fold() -> float:
            begun = time.process_time()
            moment_at(record)
            return time.process_time() - begun

        contenders = {
            "fetch of the same rows": lambda: raw_fetch(path),
            "gmemstate, checked replay": fold,
            "eventsourcing Repository.get": lambda: eventsourcing_get(place, n // 10) * 10,
        }
        show(f"replay of {n} events", rounds(contenders, n, 7))
