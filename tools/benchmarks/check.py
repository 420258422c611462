"""A check of a whole record, against fetching the same rows."""

import time

from benchmarks.peers import raw_fetch
from benchmarks.rounds import folder, fresh, rounds, show
from benchmarks.traffic import traffic

from gmemstate.ledger.ledger import Ledger
from gmemstate.store.engine import connect
from gmemstate.store.recorder import Recorder


def check() -> None:
    n = 100_000
    with folder() as place:
        path = fresh(place, "checked")
        recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns)
        rows, known = traffic(n), dict[int, int]()
        for at in range(0, n, 1000):
            recorder.append(rows[at : at + 1000], known)
        recorder.close()

        def checked() -> float:
            with Ledger.open(path, readonly=True) as ledger:
                begun = time.process_time()
                result = ledger.check()
                took = time.process_time() - begun
            if result.problems or result.not_covered or result.events != n:
                raise SystemExit(f"the record is not what was recorded: {result.problems[:3]} {result.not_covered}")
            return took

        figures = rounds({"fetch of the same rows": lambda: raw_fetch(path), "gmemstate, check of everything": checked}, n, 5)
        show(f"check of {n} events in batches of 1000, with tables and snapshots", figures)
        print(f"  {1e6 / figures['gmemstate, check of everything'][0]:.0f} events a second")
