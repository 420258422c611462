"""Measure gmemstate against named peers, as ratios of CPU time in the same run.

    tools/bench append      recording, against raw executemany of the same rows (and the eventsourcing library)
    tools/bench replay      checked replay, against fetching the same rows (and the eventsourcing library)
    tools/bench check       a check of everything: chain, fold, invariants, snapshots, tables; against fetching the same rows
    tools/bench map         the range map, against SortedDict
    tools/bench moment      the state at any moment of a long record (GMEMSTATE_BENCH_EVENTS=1e7: of ten million events)
    tools/bench parse       reading ftrace, against one regular expression and int() for each line; and its memory
    tools/bench help        the time until `--help` is there, against a click program with one verb

Every round runs each contender once, the order turning round; the figure is the median over the rounds of the ratio
within a round: how much faster than the first one (2x: half the time). Traffic: conversions of 1 page (40 %), 16 pages
(50 %) and 512 pages (10 %), each asked, zapped, answered by the guest's page tables and returned.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.append import append
from benchmarks.check import check
from benchmarks.help import show_help
from benchmarks.moment import moment
from benchmarks.parse import parse
from benchmarks.rangemap import rangemap
from benchmarks.replay import replay

if __name__ == "__main__":
    verbs = {
        "append": append,
        "replay": replay,
        "check": check,
        "map": rangemap,
        "moment": moment,
        "parse": parse,
        "help": show_help,
    }
    chosen = sys.argv[1:] or list(verbs)
    if unknown := [name for name in chosen if name not in verbs]:
        sys.exit(f"{unknown[0]}: no such benchmark; there are {', '.join(verbs)}")
    for name in chosen:
        verbs[name]()
