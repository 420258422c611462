"""What is on record of sources: their openings, clocks, gaps, and what they have proven to show."""

from gmemstate.model.events.fields import Flag, GuestRef, OwnerRef, SourceRef
from gmemstate.model.events.registry import Event, kind
from gmemstate.model.events.words import Capability, GapKind


@kind(1, "the header of a trace, the first line of a log")
class SourceOpened(Event):
    """A source is read for the first time; ``detail`` names it (name, format, head, head_size, clock)."""


@kind(2, "clock_gettime of two clocks at one moment", {"other": "value", "clock": "actor"})
class ClockPair(Event):
    """At ``t`` of the source's clock that of the source ``clock`` (None: CLOCK_REALTIME) showed ``other`` ns.

    The first is found by comparing sources: ``detail`` says by how many calls and how many ns it may be wrong. The second is
    what a source itself says.
    """

    other: int
    clock: SourceRef | None = None


@kind(3, "LOST n EVENTS, callbacks suppressed, an overwritten buffer", {"gap": "actor", "count": "value"})
class Gap(Event):
    """Evidence is missing here; ``owner`` None means that any guest of the source may be concerned."""

    gap: GapKind
    count: int | None = None
    owner: OwnerRef | None = None


@kind(4, "the first line of a kind", {"capability": "value"})
class SourceShows(Event):
    """The source proves that it shows something of a guest (or, ``owner`` None, of nobody in particular).

    From here on its silence about it is evidence.
    """

    capability: Capability
    owner: GuestRef | None = None


@kind(5, "the end of the input", {"offset": "value", "whole": "result"})
class SourceRead(Event):
    """A source was read up to a byte ``offset``; ``whole`` is 0 if it ended where it should; ``detail`` is the line account."""

    offset: int
    whole: Flag = 0
