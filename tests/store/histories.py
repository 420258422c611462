"""Histories that nobody would write down: any events in any order, about few guests, conversions and pages."""

import random
from enum import IntEnum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from gmemstate.model.events import KINDS, Event

POOLS: dict[str, tuple[Any, ...]] = {
    "t": (None, 0, 5, 1_000_000_000_000),
    "source": (None, -1, -1, 1, 2),
    "line": (None, 1, 7),
    "space": (-2, -3, 2, 3, 4, 99),
    "conversion": (-4, -5, -6, 5, 9, 77),
    "start": (0, 1, 16, 100, (1 << 52) - 1),
    "npages": (0, 1, 16, 100, 1 << 52),
    "result": (0, 0, 0, 1, 5, 11, 12, 14, 22),
    "value": (0, 1, 2, 8, 16, (1 << 64) - 1),
    "actor": (0, 1, 2, 3, 7),
    "detail": (None, '{"name":"x"}'),
}
"""What each column is drawn from; small, so that events meet."""


@cache
def values(kind: type[Event]) -> dict[str, tuple[Any, ...]]:
    """What each field of a kind is drawn from; one in a few is missing where it may be."""
    found = {}
    for name, wanted in get_type_hints(kind).items():
        if name in kind.columns:
            pool = tuple(wanted) if isinstance(wanted, type) and issubclass(wanted, IntEnum) else POOLS[kind.columns[name]]
            found[name] = (*pool, None) if NoneType in get_args(wanted) else pool
    return found


def event(dice: random.Random) -> Event:
    """Any event of any kind."""
    kind = dice.choice(list(KINDS.values()))
    return kind(**{name: dice.choice(pool) for name, pool in values(kind).items()})


def history(dice: random.Random, batches: int) -> list[list[Event]]:
    """Batches of 1, 3 or 10 events."""
    return [[event(dice) for _ in range(dice.choice((1, 3, 10)))] for _ in range(batches)]
