"""A fact: one line of a trace, understood but not yet joined to anything."""

from collections.abc import Mapping
from typing import NamedTuple


class Fact(NamedTuple):
    """What one line says: ``name`` is that of its probe or tracepoint, ``args`` its numbers, ``text`` what is no number.

    ``t`` is in ns of the trace's clock, None where the clock does not count seconds.
    """

    line: int
    t: int | None
    thread: int
    comm: str
    name: str
    args: Mapping[str, int]
    text: str = ""


class Marker(NamedTuple):
    """A line about the trace itself: a gap, or the header's count of entries."""

    line: int
    name: str
    entries: int | None = None
    lost: int | None = None


class Context(NamedTuple):
    """A line that is recognised and says nothing that a conversion needs."""

    kind: str
