"""Lock order: conversions of one attribute owner hold one lock (INV-20), but their returns are seen after it, in any order.

What counts is the order in which they held the lock. A step under the lock shows that all others have let it go; where no
steps are shown, the order of two conversions that went on at the same time is not known, and so is what they both changed.
"""

from collections.abc import Iterable, Sequence

from gmemstate.model.events import Capability
from gmemstate.model.machines.conversion import FAILING
from gmemstate.model.machines.range import UNKNOWN
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion
from gmemstate.model.units import END

Pages = tuple[int, int]


def asked(conversion: Conversion) -> Pages | None:
    """The pages that it is about, if that is known."""
    return None if conversion.start is None or conversion.end is None else (conversion.start, conversion.end)


def contenders(memory: Memory, conversion: Conversion) -> Sequence[Conversion]:
    """The others that are open in the same attribute owner."""
    owner = conversion.owner
    if owner is None or len(memory.conversions) == 1:
        return ()
    return [other for other in memory.conversions.values() if other.owner == owner and other is not conversion]


def acquire(memory: Memory, conversion: Conversion, seq: int) -> None:
    """A conversion shows its first step under the lock: whoever held it is over, whatever it will return."""
    conversion.locked = True
    conversion.doubtful = ()  # who ended before held the lock before
    for other in contenders(memory, conversion):
        if not other.locked:
            continue
        if other.covered is not None and not other.taken:
            _settle(memory, other, seq)
        other.taken += (asked(conversion) or (0, END),)


def _settle(memory: Memory, over: Conversion, seq: int) -> None:
    """What a conversion that released the lock has left, as far as its steps show."""
    if over.owner is None or over.covered is None:
        return
    if over.stored and over.target is not None:
        memory.step(over.owner, f"returned_ok_{over.target}", *over.covered, seq)
    elif over.state in FAILING:
        memory.step(over.owner, "returned_err", *over.covered, seq)
    elif over.gapped or Capability.STORED not in memory.shows(over):
        memory.step(over.owner, f"outcome_lost_{over.target or UNKNOWN}", *over.covered, seq)


def release(memory: Memory, conversion: Conversion, seq: int, *, changed: bool) -> list[Pages]:
    """The pages of a conversion that is over, but for those that others have changed since or are changing.

    Whether another one that is still open came before or after it is not known unless both have shown steps.
    """
    own = asked(conversion) or (0, END)
    parts = without(own, conversion.taken) if conversion.taken else [own]
    others = contenders(memory, conversion)
    if not changed:
        meanwhile = [other.covered for other in others if other.locked and other.covered is not None]
        return [part for whole in parts for part in without(whole, [*conversion.doubtful, *meanwhile])]
    for other in others:
        if other.locked and conversion.locked:
            continue
        if other.target != conversion.target or other.target is None:
            other.doubtful += (own,)
        if other.locked and other.covered is not None:
            for part in parts:
                if pages := overlap(part, other.covered):
                    memory.step(conversion.owner or 0, "gap", *pages, seq)
            parts = [part for whole in parts for part in without(whole, (other.covered,))]
    return parts


def without(whole: Pages, others: Iterable[Pages]) -> list[Pages]:
    """A range without the pages of others."""
    parts = [whole]
    for first, last in others:
        parts = [
            (start, end)
            for low, high in parts
            for start, end in ((low, min(high, first)), (max(low, last), high))
            if start < end
        ]
    return parts


def overlap(one: Pages, other: Pages) -> Pages | None:
    """The pages that lie in both of two ranges, if there are any."""
    if one == other and one[0] < one[1]:
        return one
    start, end = max(one[0], other[0]), min(one[1], other[1])
    return (start, end) if start < end else None
