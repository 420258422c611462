"""Several sources as one history: their events in the order of one clock, and one conversion for what two of them have seen.

A call that one source shows from outside (strace) and another one from inside (a trace of the kernel) is the same call where
thread and ioctl are the same, and the one lies in the other. Where two could be meant, none is.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gmemstate.ingest.merge.clocks import SLACK, Distance
from gmemstate.model import events as e
from gmemstate.model.events import KIND, T, conversion_of, event_of, in_conversion, thread_of

FIRST = -(1 << 63)
WAIT = 10_000_000
"""How long (ns of the common clock) what is seen from outside may wait for what is seen from inside."""
LOOK = 256
"""How many events ahead the next call of a thread is looked for."""
REMEMBERED = 8
"""How many calls of a thread may wait for what is seen of them from outside."""
_OPENING = frozenset((e.ConvertAsked.code, e.ConvertMet.code, e.ConvertAttempted.code))


class Item(NamedTuple):
    """An event on its way into the record."""

    row: e.EventRow
    stored: e.EventRow | None = None
    """the same event as it is on record already"""
    last: bool = False
    """no other event is at hand now: those so far are to be put on record"""
    closed: tuple[int, ...] = ()
    """references that no later event of its source carries"""


class Placed(NamedTuple):
    """An event with its place in the order of all sources, in ns of the common clock."""

    key: int
    source: int
    """the number of its source in this reading"""
    item: Item
    begin: int | None = None
    """its own time"""
    end: int | None = None
    """for a call that one line shows whole: when it ended"""
    result: int | None = None
    """what it returned then"""
    following: int | None = None
    """for the entry of a call that is seen from outside: when the next one of the thread begins"""


def placed(number: int, items: Iterable[Item], distance: Distance | None) -> Iterator[Placed]:
    """The events of one source on the common clock, which its own is ahead of by a distance; their order stays.

    A call that is seen from outside stands where it ends, after what it encloses.
    """
    ahead = 0 if distance is None else distance.ns
    now = FIRST
    window: deque[Item] = deque()
    source = iter(items)
    while True:
        while len(window) < (LOOK if distance is not None else 1) and (item := next(source, None)) is not None:
            window.append(item)
        if not window:
            return
        item = window.popleft()
        row = item.row
        begin = None if row[T] is None else row[T] - ahead
        end = following = result = None
        if distance is not None and row[KIND] == e.ConvertAsked.code:
            if window and _is_end(row, window[0].row):
                end, result = window[0].row[T], _result(window[0].row)
            thread = thread_of(row)
            following = next(
                (one.row[T] for one in window if one.row[KIND] == row[KIND] and thread_of(one.row) == thread), None
            )
            end, following = (None if t is None else t - ahead for t in (end, following))
        last = end if end is not None else begin
        now = now if last is None else max(now, last)
        yield Placed(now, number, item, begin, end, result, following)


def _is_end(asked: e.EventRow, returned: e.EventRow) -> bool:
    """Whether two events are the entry and the return of one call that one line shows."""
    return (
        asked[KIND] == e.ConvertAsked.code
        and returned[KIND] == e.ConvertReturned.code
        and conversion_of(asked) == conversion_of(returned)
    )


@dataclass(slots=True)
class _Seen:
    """A conversion as one source has shown it."""

    reference: int
    through: int
    first: int
    last: int
    returned: bool = False
    result: int | None = None
    waits: bool = False
    """what is seen of it from outside may still come"""
    closed: bool = False


class Pairing:
    """Puts events into one order, and gives one reference to a call that two sources have seen (``merged``, ``take``).

    ``outside`` are the sources that see calls from outside, with the distances of their clocks. ``seq_of`` tells as what a
    reference is on record.
    """

    def __init__(self, outside: Mapping[int, Distance], seq_of: Callable[[int], int | None]) -> None:
        self._outside = outside
        self._seq_of = seq_of
        self._inner: dict[int, deque[_Seen]] = {}
        self._open: dict[int, _Seen] = {}
        self._waiting: dict[int, _Seen] = {}
        self._before: dict[int, int] = {}
        """when the last call of a thread that was seen from outside, and is no part of a pair, has ended"""
        self._same: dict[int, int] = {}
        """the reference that is used in the place of another one"""
        self._other: dict[int, int] = {}
        """for each reference of a pair the other one"""
        self._closed: set[int] = set()
        """those of which the other one is not closed yet"""
        self.done: list[int] = []
        """references that no later event carries"""

    def merged(self, streams: Iterable[Iterator[Placed]]) -> Iterator[Placed]:
        """The events of all sources in one order; of two at the same time, that of the earlier source comes first.

        The return of a call is seen from inside before it is seen from outside; where clocks say otherwise, it is waited for.
        """
        rest = {head.source: (head, stream) for stream in streams if (head := next(stream, None)) is not None}
        while rest:
            one = min((head for head, _ in rest.values()), key=_place)
            if one.source in self._outside and self._awaits(one):
                inner = min((head for head, _ in rest.values() if head.source not in self._outside), key=_place, default=None)
                if inner is not None and inner.key <= one.key + WAIT and not self._goes_on(inner, one):
                    one = inner
            yield one
            stream = rest[one.source][1]
            if (head := next(stream, None)) is not None:
                rest[one.source] = head, stream
            else:
                del rest[one.source]

    def _awaits(self, one: Placed) -> bool:
        """Whether what an event shows from outside has more to be seen from inside."""
        row = one.item.row
        reference, thread = conversion_of(row), thread_of(row)
        if reference is None or thread is None or row[KIND] not in _CALLS:
            return False
        if row[KIND] == e.ConvertAsked.code:
            found = self._candidates(one, thread) if one.end is not None else []
            return one.end is not None and (not found or not found[0].returned)
        seen = self._open.get(self._same.get(reference, self._other.get(reference, reference)))
        return seen is not None and not seen.returned

    def _goes_on(self, inner: Placed, outer: Placed) -> bool:
        """Whether a thread begins its next call, so that the one that is waited for is over."""
        row, thread = inner.item.row, thread_of(outer.item.row)
        if row[KIND] not in _OPENING or thread_of(row) != thread or thread is None or conversion_of(row) in self._open:
            return False
        return outer.item.row[KIND] != e.ConvertAsked.code or bool(self._candidates(outer, thread))

    def take(self, one: Placed) -> e.EventRow:
        """The row of an event with the reference of its conversion, which may be that of another source."""
        row = one.item.row
        reference, thread = conversion_of(row), thread_of(row)
        joined = False
        if reference is not None and one.begin is not None and row[KIND] in _CALLS:
            if one.source not in self._outside:
                joined = self._inside(one, reference, thread)
            elif thread is not None and row[KIND] == e.ConvertAsked.code:
                joined = self._from_outside(one, reference, thread)
            elif thread is not None and (waiting := self._waiting.get(thread)) is not None and waiting.reference == reference:
                del self._waiting[thread]
                self._before[thread] = one.begin
        for closed in one.item.closed:
            self._close(closed)
        if reference not in self._same:
            return row
        return in_conversion(row, self._same[reference], join="thread" if joined else None)

    def _inside(self, one: Placed, reference: int, thread: int | None) -> bool:
        """An event of a call as it is seen from inside."""
        at, kind = one.begin or 0, one.item.row[KIND]
        seen = self._open.get(reference)
        if seen is not None:
            seen.last = max(seen.last, at)
            if kind == e.ConvertReturned.code:
                seen.returned, seen.result = True, _result(one.item.row)
            return False
        if thread is None or kind not in _OPENING:
            return False
        seen = self._open[reference] = _Seen(reference, _through(one.item.row), at, at)
        waiting = self._waiting.get(thread)
        if waiting is not None and waiting.through == seen.through and self._may_be_same(one, waiting.reference):
            del self._waiting[thread]
            self._pair(reference, waiting.reference)
            return True
        own = self._inner.setdefault(thread, deque())
        own.append(seen)
        seen.waits = True
        if len(own) > REMEMBERED:
            self._forget(own.popleft())
        return False

    def _candidates(self, one: Placed, thread: int) -> list[_Seen]:
        """The calls seen from inside that may be the one whose entry is seen from outside, and no other one."""
        distance, begin, end = self._outside[one.source], one.begin or 0, one.end
        within, mostly = distance.within, distance.mostly
        through, before = _through(one.item.row), self._before.get(thread)

        def lies(seen: _Seen, within: int) -> bool:
            return begin - within <= seen.first and (end is None or seen.last <= end + within)

        return [
            seen
            for seen in self._inner.get(thread, ())
            if seen.through == through
            # A clock that jumps is forgiven where that makes no contradiction.
            and (
                lies(seen, within)
                or (seen.returned and seen.result == one.result is not None and lies(seen, WAIT))
                or (not seen.returned and lies(seen, SLACK))
            )
            and (one.following is None or seen.first < one.following - mostly)
            and (before is None or seen.last > before + mostly)
        ]

    def _from_outside(self, one: Placed, reference: int, thread: int) -> bool:
        """The entry of a call as it is seen from outside: the calls inside of it are known, but for those still to come."""
        found = self._candidates(one, thread)
        if len(found) == 1 and self._may_be_same(one, found[0].reference):
            own = self._inner[thread]
            while own[0] is not found[0]:
                self._forget(own.popleft())
            if own.popleft().closed:
                self._closed.add(found[0].reference)
            self._pair(reference, found[0].reference)
            self._before.pop(thread, None)
            return True
        if one.end is not None:
            self._before[thread] = one.end
        elif not found:
            self._waiting[thread] = _Seen(reference, _through(one.item.row), one.begin or 0, one.begin or 0)
        return False

    def _may_be_same(self, one: Placed, other: int) -> bool:
        """Whether an event can still be given the reference of another conversion: what is on record stays as it is."""
        return one.item.stored is None or conversion_of(one.item.stored) == self._seq_of(other)

    def _pair(self, reference: int, other: int) -> None:
        self._same[reference] = other
        self._other[reference], self._other[other] = other, reference

    def _forget(self, seen: _Seen) -> None:
        """A call that nobody has seen from outside."""
        seen.waits = False
        if seen.closed:
            self.done.append(seen.reference)

    def _close(self, reference: int) -> None:
        """No later event of its source carries a reference; the other source of the call may still."""
        seen, other = self._open.pop(reference, None), self._other.get(reference)
        if other is None:
            if seen is not None and seen.waits:
                seen.closed = True
            else:
                self.done.append(reference)
        elif other in self._closed:
            self._closed.remove(other)
            for half in (reference, other):
                self.done.append(half)
                self._same.pop(half, None)
                self._other.pop(half, None)
        else:
            self._closed.add(reference)


_CALLS = _OPENING | {e.ConvertReturned.code}


def _through(row: e.EventRow) -> e.Through:
    """By which ioctl a call was made; the tracepoint is of one alone."""
    event = event_of(row)
    return event.through if isinstance(event, e.ConvertAsked | e.ConvertMet) else e.Through.VM_IOCTL


def _result(row: e.EventRow) -> int | None:
    event = event_of(row)
    return event.result if isinstance(event, e.ConvertReturned) else None


def _place(one: Placed) -> tuple[int, int]:
    return one.key, one.source
