"""What may be lost of a trace without a word about it: lines of a kind, lines at random, a block, the beginning, the end."""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.traces import ALL_CASES, header_length, kind_of, lines_of, without

LONGEST = 7000
"""Captures of more lines are taken up to there."""
CASES = [case for case in ALL_CASES if case != "lost_overrun"]
SHARES = (0.01, 0.1)


class Mutilation(NamedTuple):
    """The lines that are left, those that are gone as empty ones; ``end``: all lines after it are gone."""

    name: str
    lines: tuple[bytes, ...]
    kind: str | None = None
    end: int | None = None


def trace(case: str) -> tuple[bytes, ...]:
    """The lines of a capture without the header that counts them."""
    lines = lines_of(case)[:LONGEST]
    return tuple(b"" if line.startswith(b"# entries-in-buffer") else line for line in lines)


def by_kind(case: str) -> Iterator[Mutilation]:
    """Each kind of line is not traced."""
    lines = trace(case)
    for kind in sorted({kind for line in lines if (kind := kind_of(line)) is not None}):
        yield Mutilation(f"without {kind}", tuple(without(lines, kind)), kind)


def at_random(case: str, seed: int) -> Iterator[Mutilation]:
    """Lines are gone here and there, in a block, at the beginning, at the end."""
    lines, dice = trace(case), random.Random(f"{case} {seed}")
    first, length = header_length(lines_of(case)), len(lines)
    for share in SHARES:
        kept = tuple(line if n < first or dice.random() >= share else b"" for n, line in enumerate(lines))
        yield Mutilation(f"{share:.0%} at random, seed {seed}", kept)
    low, high = sorted(dice.sample(range(first, length), 2))
    high = min(high, low + max(1, length // 5))
    yield Mutilation(f"lines {low + 1} to {high}, seed {seed}", _gone(lines, low, high))
    at = dice.randrange(first, length)
    yield Mutilation(f"up to line {at}, seed {seed}", _gone(lines, first, at))
    at = dice.randrange(first + 1, length)
    yield Mutilation(f"from line {at + 1} on, seed {seed}", lines[:at], end=at)


def _gone(lines: Sequence[bytes], first: int, last: int) -> tuple[bytes, ...]:
    return (*lines[:first], *[b""] * (last - first), *lines[last:])
