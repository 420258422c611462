"""The state at any moment of a long record, from a snapshot and a tail, against folding from the first event."""

import os
import random
import statistics
import time
from pathlib import Path

from benchmarks.rounds import folder
from benchmarks.traffic import traffic

from gmemstate.ledger.ledger import Ledger
from gmemstate.store.engine import connect
from gmemstate.store.recorder import Recorder

EVENTS = int(float(os.environ.get("GMEMSTATE_BENCH_EVENTS", "1e6")))
PAGES = 1_310_720
"""5 GiB: conversions that go on for long leave about 20,000 runs of equal state."""
ASKED = 40


def moment() -> None:
    with folder() as place:
        path = str(Path(place, "long"))
        head, took = recorded(path)
        with Ledger.open(path, readonly=True) as ledger:
            kept = [(one.seq, len(one.content)) for one in ledger.record_.snapshots()]
            size = Path(path).stat().st_size
            print(
                f"{head} events, recorded with tables and snapshots in {took / head * 1e6:.2f} us each; {size / head:.1f} "
                f"bytes an event"
            )
            print(
                f"  {len(kept)} snapshots, {sum(n for _, n in kept) / head:.2f} bytes an event, the last one {kept[-1][1]} "
                f"bytes"
            )
            rnd = random.Random(1)
            wall, cpu, runs, tails = [], [], 0, []
            for seq in (*rnd.sample(range(head // 2, head), ASKED), kept[-1][0] - 1):
                tails.append(seq - max((at for at, _ in kept if at <= seq), default=0))
                begun = time.perf_counter(), time.process_time()
                runs = len(ledger.state(at=seq))
                wall.append((time.perf_counter() - begun[0]) * 1e3)
                cpu.append((time.process_time() - begun[1]) * 1e3)
            print(f"  state at {len(wall)} moments ({runs} rows, tails of up to {max(tails)} events):")
            print(
                f"    CPU {statistics.median(cpu):.0f} ms, at most {max(cpu):.0f} ms; wall {statistics.median(wall):.0f} ms, "
                f"at most {max(wall):.0f} ms"
            )
        begun = time.process_time()
        recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns)
        recorder.current()
        print(f"  opened to record on: {(time.process_time() - begun) * 1e3:.0f} ms CPU")
        recorder.close()


def recorded(path: str) -> tuple[int, float]:
    """Make the record: its last seq, and the CPU time that recording took (s)."""
    recorder = Recorder(connect(path, writable=True, synchronous="NORMAL"), path, time.time_ns)
    known: dict[int, int] = {}
    took = 0.0
    for seed in range(-(-EVENTS // 100_000)):
        rows = traffic(100_000, seed, PAGES)[3 if seed else 0 :]
        known = {reference: seq for reference, seq in known.items() if reference > -3}
        begun = time.process_time()
        for at in range(0, len(rows), 1000):
            recorder.append(rows[at : at + 1000], known)
        took += time.process_time() - begun
    recorder.close()
    return recorder.record.head().seq, took
