"""An ordered run-length map from page numbers to small integers.

The runs tile ``[0, END)``; adjacent runs differ; a page that was never set has the value 0. Runs lie in
blocks of a few hundred, so that a change moves a few hundred entries at most, however many runs there are.
A run costs one integer and one byte.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, chain
from operator import eq, sub
from typing import NamedTuple

from gmemstate.model.units import END

BLOCK = 512
UNEXPECTED = 255
"""In a step table: there is no way from this value."""


class Run(NamedTuple):
    """Pages ``[start, end)`` that all have ``value``."""

    start: int
    end: int
    value: int


class RangeMap:
    """A map of pages to values 0..254, kept as coalesced runs."""

    __slots__ = ("_firsts", "_starts", "_values")

    def __init__(self) -> None:
        self._firsts = [0]
        self._starts = [[0]]
        self._values = [bytearray(1)]

    def __len__(self) -> int:
        return sum(map(len, self._starts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeMap) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[Run]:
        """All runs, those of value 0 too."""
        return iter(self.runs(0, END))

    def get(self, page: int) -> int:
        """The value of one page."""
        block = bisect_right(self._firsts, page) - 1
        return self._values[block][bisect_right(self._starts[block], page) - 1]

    def only(self, start: int, end: int) -> int | None:
        """The value that all pages of ``[start, end)`` have; None if they differ, or if there are none."""
        if not 0 <= start < end:
            return None
        block = bisect_right(self._firsts, start) - 1
        i = bisect_right(self._starts[block], start) - 1
        return self._values[block][i] if end <= self._end(block, i) else None

    def run_at(self, page: int) -> Run:
        """The maximal run that holds ``page``."""
        block = bisect_right(self._firsts, page) - 1
        starts = self._starts[block]
        i = bisect_right(starts, page) - 1
        return Run(starts[i], self._end(block, i), self._values[block][i])

    def runs(self, start: int, end: int) -> list[Run]:
        """The runs inside ``[start, end)``, clipped to it, in order."""
        return list(map(Run._make, self.spans(start, end)))

    def spans(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """The runs inside pages ``[start, end)`` as plain tuples."""
        if start >= end:
            return []
        block, last = bisect_right(self._firsts, start) - 1, bisect_left(self._firsts, end) - 1
        i, j = bisect_right(self._starts[block], start) - 1, bisect_left(self._starts[last], end)
        if block == last:
            starts, values = self._starts[block][i:j], self._values[block][i:j]
        else:
            between = slice(block + 1, last)
            starts = list(chain(self._starts[block][i:], *self._starts[between], self._starts[last][:j]))
            values = bytearray().join((self._values[block][i:], *self._values[between], self._values[last][:j]))
        starts[0] = start
        return list(zip(starts, [*starts[1:], end], values, strict=True))

    def touching(self, start: int, end: int) -> list[tuple[int, int, int]]:
        """The whole runs that hold a page of ``[start, end)`` or of its neighbours, as plain tuples."""
        block = bisect_right(self._firsts, max(start - 1, 0)) - 1
        starts = self._starts[block]
        i, j = bisect_right(starts, max(start - 1, 0)) - 1, bisect_right(starts, end)
        if j < len(starts):
            return list(zip(starts[i:j], starts[i + 1 : j + 1], self._values[block][i:j], strict=True))
        return self.spans(starts[i], self.run_at(min(end, END - 1)).end)

    def set(self, start: int, end: int, value: int) -> None:
        """Give every page of ``[start, end)`` the value; cost does not depend on the number of pages."""
        if start >= end:
            return
        block = bisect_right(self._firsts, start) - 1
        starts = self._starts[block]
        first = bisect_right(starts, start) - 1  # the run that holds `start`
        if self._values[block][first] == value and first + 1 < len(starts) and end <= starts[first + 1]:
            return
        stop = bisect_left(starts, end, first + 1)  # the first run that begins at `end` or after it
        if stop < len(starts):
            until = starts[stop]
        else:
            until = self._firsts[block + 1] if block + 1 < len(self._firsts) else END
            if until < end:
                self._gather(block, end)
                self.set(start, end, value)
                return
            if until == end < END and self._values[block + 1][0] == value:
                self._drop_first(block + 1)
        self._put(block, first, stop, start, end, value, until)

    def _put(self, block: int, first: int, stop: int, start: int, end: int, value: int, until: int) -> None:
        """Put one run in the place of what ``[start, end)`` covers of the runs ``first .. stop - 1`` of a block.

        ``until`` is where the last of them ends.
        """
        starts, values = self._starts[block], self._values[block]
        rest = values[stop - 1]  # the value of the last run, which may go on after `end`
        if starts[first] < start:
            left = values[first]
            first += 1
        else:
            left = values[first - 1] if first else self._values[block - 1][-1] if block else -1
        if until > end and rest != value:
            if left != value:
                starts[first:stop] = (start, end)
                values[first:stop] = bytes((value, rest))
            else:
                starts[first:stop] = (end,)
                values[first:stop] = bytes((rest,))
        else:
            if until == end and stop < len(starts) and values[stop] == value:
                stop += 1
            if left != value:
                starts[first:stop] = (start,)
                values[first:stop] = bytes((value,))
            else:
                del starts[first:stop], values[first:stop]
        if first == 0 or len(starts) > BLOCK:
            self._mend(block)

    def step(self, start: int, end: int, table: bytes) -> list[Run]:
        """Replace every value ``v`` of pages ``[start, end)`` by ``table[v]``; return the runs from which there is no way.

        Those (``table[v] == UNEXPECTED``) keep their value.
        """
        if start >= end:
            return []
        block = bisect_right(self._firsts, start) - 1
        starts = self._starts[block]
        i = bisect_right(starts, start)  # after the run that holds `start`
        if i < len(starts) and starts[i] >= end:
            values = self._values[block]
            value = values[i - 1]
            new = table[value]
            if new == value:
                return []
            if new == UNEXPECTED:
                return [Run(start, end, value)]
            if i > 1 and starts[i] == end and starts[i - 1] == start and values[i] != new and values[i - 2] != new:
                values[i - 1] = new  # exactly one run, unlike its neighbours: nothing moves
            else:
                self._put(block, i - 1, i, start, end, new, starts[i])
            return []
        unexpected = []
        todo: list[tuple[int, int, int]] = []
        for first, last, value in self.spans(start, end):
            new = table[value]
            if new == UNEXPECTED:
                unexpected.append(Run(first, last, value))
                new = value
            if todo and todo[-1][2] == new:
                todo[-1] = (todo[-1][0], last, new)
            else:
                todo.append((first, last, new))
        for changed in todo:
            self.set(*changed)
        return unexpected

    def step_all(self, table: bytes) -> None:
        """Replace every value ``v`` of the whole map by ``table[v]``, leaving those from which there is no way."""
        runs = [(run.start, run.value if table[run.value] == UNEXPECTED else table[run.value]) for run in self]
        starts = [start for n, (start, value) in enumerate(runs) if n == 0 or runs[n - 1][1] != value]
        self._cut(starts, bytearray(value for n, (_, value) in enumerate(runs) if n == 0 or runs[n - 1][1] != value))

    def copy(self) -> "RangeMap":
        """An independent copy."""
        other = RangeMap()
        other._firsts = self._firsts[:]
        other._starts = [block[:] for block in self._starts]
        other._values = [block[:] for block in self._values]
        return other

    def greatest(self) -> int:
        """The greatest value that a page has."""
        return max(map(max, self._values))

    def to_bytes(self) -> bytes:
        """The runs as bytes: their number, the lengths of all but the last (u64 each), their values (a byte each)."""
        starts = list(chain.from_iterable(self._starts))
        lengths = map(sub, starts[1:], starts)
        return struct.pack(f"<{len(starts)}Q", len(starts), *lengths) + b"".join(self._values)

    @classmethod
    def from_bytes(cls, data: bytes, at: int) -> "tuple[RangeMap, int]":
        """The map that :meth:`to_bytes` wrote at a place (byte), and where it ends. Raises ValueError for what is none."""
        (count,) = struct.unpack_from("<Q", data, at)
        if not 1 <= count <= len(data):
            raise ValueError(f"a map of pages has {count} runs")
        lengths = struct.unpack_from(f"<{count - 1}Q", data, at + 8)
        values = data[at + 8 * count : at + 9 * count]
        starts = list(accumulate(lengths, initial=0))
        if len(values) != count or UNEXPECTED in values or 0 in lengths or starts[-1] >= END:
            raise ValueError("the runs of a map of pages do not tile it")
        if any(map(eq, values, values[1:])):
            raise ValueError("adjacent runs of a map of pages are equal")
        made = cls()
        made._cut(starts, bytearray(values))
        return made, at + 9 * count

    def _cut(self, starts: list[int], values: bytearray) -> None:
        """Put runs into blocks that have room to grow."""
        cuts = range(0, len(starts), BLOCK * 2 // 3)
        self._starts = [starts[cut : cut + cuts.step] for cut in cuts]
        self._values = [values[cut : cut + cuts.step] for cut in cuts]
        self._firsts = [block[0] for block in self._starts]

    def _end(self, block: int, i: int) -> int:
        starts = self._starts[block]
        if i + 1 < len(starts):
            return starts[i + 1]
        return self._firsts[block + 1] if block + 1 < len(self._firsts) else END

    def _gather(self, block: int, end: int) -> None:
        """Make the blocks from ``block`` to the one that holds ``end - 1`` one block."""
        last = bisect_right(self._firsts, end - 1)
        self._starts[block:last] = [[start for starts in self._starts[block:last] for start in starts]]
        self._values[block:last] = [bytearray().join(self._values[block:last])]
        del self._firsts[block + 1 : last]

    def _drop_first(self, block: int) -> None:
        del self._starts[block][0], self._values[block][0]
        if self._starts[block]:
            self._firsts[block] = self._starts[block][0]
        else:
            del self._firsts[block], self._starts[block], self._values[block]

    def _mend(self, block: int) -> None:
        """Keep the block between one and BLOCK entries, and its first entry in the index."""
        starts = self._starts[block]
        if not starts:
            del self._firsts[block], self._starts[block], self._values[block]
            return
        self._firsts[block] = starts[0]
        if len(starts) > BLOCK:
            values = self._values[block]
            cuts = range(0, len(starts), BLOCK * 2 // 3)
            self._starts[block : block + 1] = [starts[cut : cut + cuts.step] for cut in cuts]
            self._values[block : block + 1] = [values[cut : cut + cuts.step] for cut in cuts]
            self._firsts[block : block + 1] = [starts[cut] for cut in cuts]
