"""The run-length map is an array of pages that merely costs less."""

from collections.abc import Iterator
from itertools import groupby, pairwise
from random import Random
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gmemstate.model import rangemap
from gmemstate.model.rangemap import UNEXPECTED, RangeMap
from gmemstate.model.units import END

PAGES = 40
"""The naive model has so many pages; the last one stands for all up to END."""
VALUES = 3
BEHIND = PAGES - 1

page = st.integers(0, BEHIND)
value = st.integers(0, VALUES - 1)
table = st.lists(st.one_of(value, st.just(UNEXPECTED)), min_size=VALUES, max_size=VALUES).map(
    lambda ways: bytes(ways) + bytes([UNEXPECTED] * (256 - VALUES))
)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """A range of pages, empty and inverted ones too; it may go on to END."""
    return draw(page), draw(st.one_of(page, st.just(END)))


def naive_runs(pages: list[int], start: int, end: int) -> list[tuple[int, int, int]]:
    """The runs of an array of pages, by looking at each page."""
    inside = [n for n in range(PAGES) if start <= n < end]
    runs = []
    for kept, group in groupby(inside, key=lambda n: pages[n]):
        numbers = list(group)
        runs.append((numbers[0], numbers[-1] + 1, kept))
    if runs and runs[-1][1] == PAGES:
        runs[-1] = (runs[-1][0], end, runs[-1][2])
    return runs


class MapOfPages(RuleBasedStateMachine):
    """Any operations on a map do what they do to an array, in blocks so small that they split and join all the time."""

    @initialize(block=st.integers(3, 9))
    def begin(self, block: int) -> None:
        self.small = mock.patch.object(rangemap, "BLOCK", block)
        self.small.start()
        self.map = RangeMap()
        self.pages = [0] * PAGES
        self.block = block
        self.kept: tuple[RangeMap, list[int]] | None = None

    def teardown(self) -> None:
        mock.patch.stopall()

    def where(self, asked: tuple[int, int], exact: bool) -> tuple[int, int]:
        """The range; if it is to be exact, from the beginning of a run to that of another."""
        if not exact:
            return asked
        starts = [start for start, _, _ in naive_runs(self.pages, 0, END)]
        first = max(start for start in starts if start <= asked[0])
        return first, END if asked[1] == END else min((start for start in starts if start >= asked[1]), default=END)

    def covered(self, start: int, end: int) -> Iterator[int]:
        return (n for n in range(PAGES) if start <= n < end)

    @rule(asked=ranges(), exact=st.booleans(), new=value)
    def set(self, asked: tuple[int, int], exact: bool, new: int) -> None:
        where = self.where(asked, exact)
        self.map.set(*where, new)
        for n in self.covered(*where):
            self.pages[n] = new

    @rule(first=page, values=st.lists(value, min_size=5, max_size=PAGES))
    def set_one_by_one(self, first: int, values: list[int]) -> None:
        for n, new in enumerate(values[: BEHIND - first], first):
            self.map.set(n, n + 1, new)
            self.pages[n] = new

    @rule(asked=ranges(), exact=st.booleans(), ways=table)
    def step(self, asked: tuple[int, int], exact: bool, ways: bytes) -> None:
        where = self.where(asked, exact)
        unexpected = [run for run in naive_runs(self.pages, *where) if ways[run[2]] == UNEXPECTED]
        assert self.map.step(*where, ways) == unexpected
        for n in self.covered(*where):
            self.pages[n] = self.pages[n] if ways[self.pages[n]] == UNEXPECTED else ways[self.pages[n]]

    @rule(seed=st.integers(0, 2**32))
    def much_happens(self, seed: int) -> None:
        """Small changes at the borders of runs, where they matter."""
        dice = Random(seed)
        for _ in range(60):
            first = dice.randrange(BEHIND)
            asked, exact = (first, min(first + dice.choice([1, 1, 2, 3, 8]), BEHIND)), dice.random() < 0.5
            if dice.random() < 0.5:
                self.set(asked, exact, dice.randrange(VALUES))
            else:
                self.step(asked, exact, bytes([*dice.choices([0, 1, 2, UNEXPECTED], k=VALUES), *[UNEXPECTED] * (256 - VALUES)]))
            self.runs_are_maximal_and_tile_all_pages()

    @rule(ways=table)
    def step_all(self, ways: bytes) -> None:
        self.map.step_all(ways)
        self.pages = [old if ways[old] == UNEXPECTED else ways[old] for old in self.pages]

    @rule()
    def keep_a_copy(self) -> None:
        self.kept = self.map.copy(), self.pages[:]

    @precondition(lambda self: self.kept is not None)
    @rule()
    def go_on_with_the_copy(self) -> None:
        self.map, self.pages = self.kept[0].copy(), self.kept[1][:]

    @rule(where=ranges())
    def runs(self, where: tuple[int, int]) -> None:
        runs = naive_runs(self.pages, *where)
        assert self.map.runs(*where) == runs
        assert self.map.only(*where) == (runs[0][2] if len(runs) == 1 else None)

    @invariant()
    def every_page_has_its_value(self) -> None:
        assert [self.map.get(n) for n in range(PAGES)] == self.pages
        assert self.map.get(END - 1) == self.pages[BEHIND]

    @invariant()
    def runs_are_maximal_and_tile_all_pages(self) -> None:
        found = list(self.map)
        assert found == naive_runs(self.pages, 0, END)
        assert len(self.map) == len(found)
        assert all(a.end == b.start and a.value != b.value for a, b in pairwise(found))
        for run in found:
            assert self.map.run_at(run.start) == self.map.run_at(run.end - 1) == run

    @invariant()
    def blocks_stay_small_and_full(self) -> None:
        """No change moves more than a block: each has between one and BLOCK runs, found by its first."""
        assert all(0 < len(block) <= self.block for block in self.map._starts)
        assert [block[0] for block in self.map._starts] == self.map._firsts
        assert [len(block) for block in self.map._starts] == [len(block) for block in self.map._values]

    @invariant()
    def a_copy_is_left_alone(self) -> None:
        if self.kept is not None:
            assert list(self.kept[0]) == naive_runs(self.kept[1], 0, END)


TestMapOfPages = MapOfPages.TestCase
TestMapOfPages.settings = settings(max_examples=60, stateful_step_count=25)


@given(st.lists(st.tuples(ranges(), value)), st.lists(st.tuples(ranges(), value)))
def test_maps_are_equal_if_all_pages_are(
    first: list[tuple[tuple[int, int], int]], second: list[tuple[tuple[int, int], int]]
) -> None:
    """How a map came about, and in which blocks it lies, does not matter."""
    maps, arrays = [], []
    for block, changes in ((3, first), (512, second)):
        with mock.patch.object(rangemap, "BLOCK", block):
            made, pages = RangeMap(), [0] * PAGES
            for (start, end), new in changes:
                made.set(start, end, new)
                pages = [new if start <= n < end else old for n, old in enumerate(pages)]
        maps.append(made)
        arrays.append(pages)
    assert (maps[0] == maps[1]) == (arrays[0] == arrays[1])


def test_a_map_equals_nothing_else_and_cannot_be_a_key() -> None:
    assert RangeMap() != list(RangeMap())
    with pytest.raises(TypeError, match="unhashable"):
        hash(RangeMap())


def test_a_hundred_thousand_runs_cost_memory_by_run_not_by_page() -> None:
    """Runs that are gigabytes apart are as good as neighbours."""
    far = RangeMap()
    for n in range(100_000):
        far.set(n << 20, (n << 20) + 1, 1 + n % 2)
    assert len(far) == 200_000
    assert far.get(99_999 << 20) == 2
    assert far.get((99_999 << 20) + 1) == 0
    far.set(0, END, 0)
    assert list(far) == [(0, END, 0)]
