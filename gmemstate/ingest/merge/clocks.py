"""Clocks of several sources, compared by the calls that they share.

A tool like strace sees a system call from outside, as a span from its entry to its return; a trace of the kernel sees moments
inside of it. Every moment must lie in a span of the same thread and the same kind of call: that leaves one distance between the
two clocks, or it does not decide.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gmemstate.ingest.fact import Fact

SLACK = 2_000_000
"""How far (ns) a moment may lie outside of its span: a tracer on a busy machine takes its times late, and clocks are slewed."""
ENOUGH = 3
"""By how many calls two clocks must agree: fewer may agree by chance."""
VOTES = 64
"""How many moments look for the distance; all of them must confirm it."""
MOST = 4096
"""How many calls of a source are kept."""
ODD = 20
"""One moment in this many may lie outside of all spans, slack or not."""
MOSTLY = 4
"""Of the returns of ioctls that name none, one in this many may."""
SECOND = 1_000_000_000
CLOSE = 0.8
"""What explains this share of what the best distance explains is another answer."""
ANY = "ioctl"
"""Any ioctl: its return names none."""

_INSIDE = {
    **dict.fromkeys(("vm_ioctl", "vm_ioctl_ret", "gmem_ioctl", "gmem_ioctl_ret", "attempt"), "convert"),
    **dict.fromkeys(("set_region", "set_region_ret"), "KVM_SET_USER_MEMORY_REGION2"),
    **dict.fromkeys(("gmem_fallocate", "enter_fallocate", "leave_fallocate"), "fallocate"),
    **dict.fromkeys(("run_ret", "exit", "uexit", "hypercall"), "KVM_RUN"),
    "gmem_create": "KVM_CREATE_GUEST_MEMFD",
    "leave_ioctl": ANY,
}
"""Facts that a thread has inside of a system call, and of which."""

Call = tuple[int, str]
"""A thread, and the kind of call that it is inside of."""


class Span(NamedTuple):
    """A call as it is seen from outside, in ns; where only its beginning is shown, the next call of the thread ends it."""

    begin: int
    end: int | None


class Distance(NamedTuple):
    """How far the clock of a source is ahead of that of another one, and how it is known."""

    ns: int
    within: int
    """how many ns it was wrong at most, but for odd moments"""
    mostly: int
    """how many ns it was wrong at most in nine of ten calls"""
    calls: int
    """how many calls both have shown"""
    at: int
    """a time (ns of the clock that is ahead) of one of these calls"""


@dataclass(slots=True)
class Calls:
    """The calls that a source has shown, from outside or from inside."""

    spans: dict[Call, list[Span]] = field(default_factory=lambda: defaultdict(list))
    moments: list[tuple[int, str, int]] = field(default_factory=list)
    """thread, kind of call, time (ns)"""
    real: tuple[int, int] | None = None
    """a time of its clock, and what CLOCK_REALTIME showed then, if the source itself says so (both in ns)"""
    _open: dict[Call, int] = field(default_factory=dict)
    _count: int = 0

    @property
    def full(self) -> bool:
        """Whether no more are kept."""
        return self._count + len(self.moments) >= MOST

    def note(self, fact: Fact) -> None:
        """Take a call, or a moment inside of one, from a fact."""
        t = fact.t
        if t is None or not fact.thread:
            return
        if fact.name == "clock_pair":
            self.real = own_time(t, fact.args["mono"]), fact.args["real"]
        kind = _INSIDE.get(fact.name)
        if kind is not None:
            self.inside(fact.thread, kind, t)
        elif fact.name in ("system_call", "convert_call") and "phase" in fact.words:
            kind = "convert" if fact.name == "convert_call" else fact.words.get("ioctl", fact.words["call"])
            self._span(fact.words["phase"], (fact.thread, kind), t, fact.args.get("duration"))
            if fact.words["call"] == "ioctl":
                self._span(fact.words["phase"], (fact.thread, ANY), t, fact.args.get("duration"))

    def inside(self, thread: int, kind: str, t: int) -> None:
        """Take a moment (ns) at which a thread was inside of a kind of call."""
        if not self.full:
            self.moments.append((thread, kind, t))

    def span(self, thread: int, kind: str, begin: int, end: int) -> None:
        """Take a call of a thread, from its entry to its return (ns)."""
        self._add((thread, kind), Span(begin, end))

    def _span(self, phase: str, call: Call, t: int, duration: int | None) -> None:
        if phase == "entered":
            self._open[call] = t
        elif phase == "whole":
            self._add(call, Span(t, None if duration is None else t + duration))
        elif (begin := self._open.pop(call, None)) is not None:
            self._add(call, Span(begin, t))

    def _add(self, call: Call, span: Span) -> None:
        have = self.spans[call]
        if self.full or (have and span.begin < have[-1].begin):
            return  # its clock went back
        self._count += 1
        have.append(span)


def own_time(t: int, monotonic: int) -> int:
    """When a pair of clocks was taken (ns of its line's clock): CLOCK_MONOTONIC's a little earlier, if that is its clock."""
    return monotonic if abs(t - monotonic) < SECOND else t


def distance(outside: Calls, inside: Calls) -> Distance | None:
    """How far one source's clock is ahead of another's; None where they share too little to tell, or fit in two ways."""
    spans = {call: _closed(found) for call, found in outside.spans.items()}
    shared = [moment for moment in inside.moments if moment[:2] in spans]
    if len(shared) < ENOUGH:
        return None
    votes = [shared[n * len(shared) // VOTES] for n in range(VOTES)] if len(shared) > VOTES else shared
    found = [one for low, high in _regions(spans, votes) if (one := _fit(spans, shared, low, high)) is not None]
    if not found:
        return None
    best = max(found, key=lambda one: one.inside)
    others = [one for one in found if one.close(best) and one.differs(best)]
    return None if others else best.distance


def stated(other: Calls) -> Distance | None:
    """How far CLOCK_REALTIME is ahead of the clock of a source that says so, by no call."""
    return None if other.real is None else Distance(other.real[1] - other.real[0], SLACK, SLACK, 0, other.real[1])


class _Fit(NamedTuple):
    """A distance, how many more moments lie inside of their spans than not, and the span that each one is nearest to."""

    distance: Distance
    inside: int
    places: list[int | None]

    def close(self, best: "_Fit") -> bool:
        """Whether it explains about as much as the best one."""
        return self.inside >= CLOSE * best.inside and self.distance.calls >= CLOSE * best.distance.calls

    def differs(self, other: "_Fit") -> bool:
        """Whether more than an odd moment lies in another call."""
        others = sum(None not in pair and pair[0] != pair[1] for pair in zip(self.places, other.places, strict=True))
        return others * ODD > len(self.places)


def _closed(spans: list[Span]) -> list[tuple[int, int]]:
    """Spans with their ends."""
    ends = [*(span.begin for span in spans[1:]), spans[-1].begin]
    return [(span.begin, span.end if span.end is not None else following) for span, following in zip(spans, ends, strict=True)]


def _regions(spans: Mapping[Call, list[tuple[int, int]]], votes: Iterable[tuple[int, str, int]]) -> list[tuple[int, int]]:
    """The distances for which most moments lie in some span, the best regions first."""
    edges: list[tuple[int, int]] = []
    for thread, kind, t in votes:
        high = None
        for begin, end in spans[thread, kind]:
            first, last = begin - t, end - t
            if high is not None and first <= high:  # one moment has one vote
                edges.pop()
            else:
                edges.append((first, -1))
            high = last
            edges.append((last, 1))
    edges.sort()
    count, peaks = 0, list[tuple[int, int, int]]()
    for place, (at, step) in enumerate(edges):
        count -= step
        if step < 0 and place + 1 < len(edges) and edges[place + 1][1] > 0:
            peaks.append((count, at, edges[place + 1][0]))
    peaks.sort(key=lambda peak: -peak[0])
    return [(low, high) for _, low, high in peaks[:32]]


def _fit(spans: Mapping[Call, list[tuple[int, int]]], moments: list[tuple[int, str, int]], low: int, high: int) -> _Fit | None:
    """The middle of a region, if it puts all moments in the outer source's time into spans, but for odd ones."""
    ns = (low + high) // 2
    calls: dict[tuple[int, str, int], int] = {}
    places: list[int | None] = []
    inside = outside = astray = 0
    wrong: list[int] = []
    for thread, kind, t in moments:
        found = spans[thread, kind]
        moment = t + ns
        place = bisect_right(found, (moment, 1 << 64)) - 1
        before = moment - found[place][1] if place >= 0 else 1 << 64
        after = found[place + 1][0] - moment if place + 1 < len(found) else 1 << 64
        away = max(0, min(before, after))
        inside += not away
        if away <= SLACK:
            if kind is not ANY and found[0][0] <= moment <= found[-1][1]:
                wrong.append(away)
            place += after < before and away > 0
            calls.setdefault((thread, kind, place), moment)
            places.append(place)
            continue
        places.append(None)
        missed = found[0][0] <= moment <= found[-1][1]
        # A tool that shows some calls only may not show every ioctl.
        outside, astray = (outside, astray + missed) if kind is ANY else (outside + missed, astray)
    placed = len(places) - places.count(None)
    if len(calls) < ENOUGH or outside * ODD > placed or astray * MOSTLY > placed:
        return None
    wrong.sort()
    half = (high - low) // 2
    within, mostly = (wrong[(ODD - 1) * len(wrong) // ODD], wrong[9 * len(wrong) // 10]) if wrong else (SLACK, SLACK)
    far = Distance(ns, half + within, half + mostly, len(calls), min(calls.values()))
    return _Fit(far, inside - astray, places)
