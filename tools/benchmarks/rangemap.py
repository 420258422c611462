"""The range map, against SortedDict."""

import random
import time
from itertools import pairwise

from benchmarks.rounds import rounds, show

from gmemstate.model.rangemap import RangeMap


def rangemap() -> None:
    from sortedcontainers import SortedDict

    for runs in (1_000, 100_000, 1_000_000):
        rnd = random.Random(1)
        owner = runs * 16
        edges = sorted(rnd.sample(range(owner), runs))
        ours, theirs = RangeMap(), SortedDict({0: 0})
        for n, (a, b) in enumerate(pairwise(edges)):
            ours.set(a, b, 1 + n % 2)
            theirs[a] = 1 + n % 2
        theirs[edges[-1]] = 0
        operations = []
        for _ in range(5_000):
            npages = rnd.choices((1, 16, 64), (4, 5, 1))[0]
            start = rnd.randrange(owner) // npages * npages
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
