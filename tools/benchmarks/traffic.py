"""The events that are recorded and replayed."""

import random

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


def traffic(n: int, seed: int = 3, over: int = 1 << 22) -> list[EventRow]:
    """``n`` rows of conversions over 16 GiB (or another number of pages)."""
    rnd = random.Random(seed)
    rows = [
        SourceOpened(source=-1).row(),
        VmSeen(source=-1, owner=-2, pointer=5).row(),
        VmCreated(source=-1, owner=-2, dialect=Dialect.MAINLINE).row(),
    ]
    conversion, t = -3, 0
    while len(rows) < n:
        npages = rnd.choices((1, 16, 512), (4, 5, 1))[0]
        start = rnd.randrange(over) // npages * npages
        conversion -= 1
        t += 1000
        same = {"conversion": conversion, "owner": -2, "source": -1}
        pages = {"start": start, "npages": npages}
        attributes = rnd.choice((0, 8))
        rows += [
            ConvertAsked(**same, **pages, through=Through.VM_IOCTL, thread=7, attributes=attributes, t=t, line=t).row(),
            ZapStarted(**same, **pages, attributes=attributes, slot=1, t=t + 1, line=t + 1).row(),
            UserAnswered(**same, **pages, user=User.GUEST, result=0, entries=npages, t=t + 2, line=t + 2).row(),
            ConvertReturned(**same, result=0, thread=7, t=t + 3, line=t + 3).row(),
        ]
    return rows[:n]
