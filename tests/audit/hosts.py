"""Simulated hosts at random: users, conversions, punches, poison, and memory that runs out."""

import random

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import Fault, Setting, VmType
from gmemstate.convert.engine.policies import POLICIES
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model.events import Dialect
from gmemstate.model.machines.range import PRIVATE, SHARED

PAGES = 32


def simulated(dialect: Dialect, dice: random.Random) -> Simulation:
    """A host of a few minutes; nothing of its hardware fails, and no page is so large that anybody waits for it."""
    setting = Setting(type=dice.choice(list(VmType)), mmap_is_hva=dice.random() < 0.5)
    host = Simulation(dialect, dice.choice(POLICIES[dialect]), setting)
    host.open("a host")
    host.vm = host.make_vm()
    host.gmem = host.make_gmem(host.vm, PAGES, shared=dice.random() < 0.5)
    cut = dice.randrange(1, PAGES)
    host.set_slot(host.vm, 0, 0, cut, host.gmem, 0)
    host.set_slot(host.vm, 1, cut, PAGES - cut, host.gmem, cut)
    host.allocate(0, PAGES)
    for user in _users(host, dice):
        host.add_user(user)
    host.faults = [Fault(at, nth=dice.randint(1, 4)) for at in ("reserve", "work_item", "store", "undo") if dice.random() < 0.2]
    for _ in range(12):
        _something(host, dice)
        if host.returned and host.returned[-1] is None:
            return host
    host.close_record()
    return host


def _some(dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(PAGES)
    return start, dice.randint(start + 1, min(PAGES, start + 12))


def _users(host: Simulation, dice: random.Random) -> list[users.Mapper | users.Holder]:
    """The host maps and holds shared pages only."""
    shared = {page for start, end, kind in host.kernel().kinds(host.owner, 0, PAGES) for page in range(start, end)
              if host.in_vm or kind == SHARED}  # fmt: skip

    def some() -> set[int]:
        return set(range(*_some(dice))) & shared

    stubborn = some()
    return [
        users.host("A", some()),
        users.host("B", stubborn, refuses=dice.choice((0, 16)), refused=frozenset(stubborn)),
        users.guest("G", range(*_some(dice))),
        users.pin("P", sorted(some())[:2]),
        users.reference("R", sorted(some())[:1], dice.choice((None, 3))),
        users.lru_batch("L", sorted(some())[:2]),
    ]


def _something(host: Simulation, dice: random.Random) -> None:
    what = dice.random()
    if what < 0.6:
        host.convert_pages(
            *_some(dice), dice.choice((SHARED, PRIVATE)), **dice.choice(({}, {}, {}, {"writable": False}, {"flags": 1}))
        )
    elif what < 0.75:
        mappings = [user for user in host.users if not isinstance(user, users.Holder)]
        host.access(dice.choice(mappings), dice.randrange(PAGES), private=dice.random() < 0.5)
    elif what < 0.85:
        host.punch(*_some(dice))
    elif what < 0.9:
        host.poison(dice.randrange(PAGES))
    elif what < 0.97:
        host.release(next(user for user in host.users if isinstance(user, users.Holder)))
    elif what < 0.99:
        host.close_gmem()
    else:
        host.bug_vm()
