"""The known defects of RFC v2 are found by a search while they are switched on, each by a small example, and never
otherwise."""

from collections.abc import Callable
from errno import EAGAIN, ENOMEM
from typing import NamedTuple

import pytest
from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from gmemstate.convert.engine.dialects.rfc_v2 import DEFECTS
from tests.convert.naive_host import PRIVATE, SHARED, Request
from tests.convert.pair import ORDER, PAGE, PAGES, SPAN, Pair, World

SEARCH = settings(max_examples=1000, derandomize=True, deadline=None, database=None)
NOTHING = settings(SEARCH, max_examples=200)
"""For what must not be found; a search that must find something took less than that."""
SIZE = 1 << ORDER


class Example(NamedTuple):
    """A guest that maps all of its memory, one request, and the one thing that goes wrong in it."""

    order: int
    starts: str
    others: tuple[tuple[int, int], ...]
    request: Request
    at: str
    nth: int
    notifier: bool

    def pair(self, *defects: str) -> Pair:
        pair = Pair(
            World("rfc-v2", order=self.order, starts=self.starts, notifier=self.notifier, others=self.others,
                  people=(("guest", frozenset(), 0),), defects=frozenset(defects))
        )  # fmt: skip
        pair.trouble(self.at, nth=self.nth)
        return pair


EXAMPLES = st.builds(
    lambda order, starts, others, span, attributes, at, nth, notifier: Example(
        order, starts, tuple(others), Request(span[0] << 12, min(span[1], PAGES - span[0]) << 12, attributes), at, nth, notifier
    ),
    st.sampled_from([0, ORDER]),
    st.sampled_from([SHARED, PRIVATE]),
    st.lists(st.tuples(PAGE, st.integers(1, 5)), max_size=3),
    SPAN,
    st.sampled_from([0, 8]),
    st.sampled_from(["work_item", "store", "split", "merge"]),
    st.integers(1, 2),
    st.booleans(),
)


def partly_converted(example: Example, *defects: str) -> bool:
    """Success, though some pages of the request have the new kind and some have not."""
    pair = example.pair(*defects)
    before = pair.kinds()
    returned, _ = pair.convert(example.request)
    after = [pair.kinds()[page] for page in example.request.pages]
    changed = any(pair.kinds()[page] != before[page] for page in example.request.pages)
    return returned is not None and returned[0] == 0 and changed and set(after) != {example.request.target}


def never_returns(example: Example, *defects: str) -> bool:
    returned, _ = example.pair(*defects).convert(example.request)
    return returned is None


def rubbish_is_told(example: Example, *defects: str) -> bool:
    """An error_offset that is no page of the request, with an errno that has none."""
    returned, _ = example.pair(*defects).convert(example.request)
    return (
        returned is not None
        and returned[0] not in (0, EAGAIN)
        and returned[1] is not None
        and returned[1] >> 12 not in example.request.pages
    )


def still_mapped(example: Example, *defects: str) -> bool:
    """Success, and the guest has what it mapped as shared still: of pages that are private now."""
    pair = example.pair(*defects)
    before = pair.kinds()
    returned, _ = pair.convert(example.request)
    (guest,) = pair.naive.people
    pair.agree()
    return returned == (0, None) and any(pair.kinds()[page] == PRIVATE != before[page] for page in guest.pages)


Symptom = Callable[..., bool]
SYMPTOMS: dict[str, Symptom] = {
    "shadowed-ret": partly_converted,
    "underflow": never_returns,
    "error-offset": rubbish_is_told,
    "no-zap": still_mapped,
}


def found(defect: str, *defects: str, search: settings = SEARCH) -> Example:
    """The smallest example of what a defect does, with some defects switched on."""
    symptom = SYMPTOMS[defect]
    return find(EXAMPLES, lambda example: symptom(example, *defects), settings=search)


def test_each_known_defect_has_a_symptom() -> None:
    assert set(SYMPTOMS) == set(DEFECTS)


@pytest.mark.parametrize("defect", SYMPTOMS)
def test_no_defect_without_its_switch(defect: str) -> None:
    """Neither with all switched off nor with all others switched on."""
    for defects in ((), tuple(set(DEFECTS) - {defect})):
        with pytest.raises(NoSuchExample):
            found(defect, *defects, search=NOTHING)


def test_a_shadowed_ret_is_a_partial_conversion_reported_as_success() -> None:
    """Two items of work, no memory for the second: three pages are enough."""
    example = found("shadowed-ret", "shadowed-ret")
    assert (example.at, example.nth) == ("work_item", 2)
    pair = example.pair("shadowed-ret")
    wrong = [page for page in example.request.pages if pair.kinds()[page] != example.request.target]
    returned, expected = pair.convert(example.request)
    assert returned == expected == (0, None)
    pair.agree()
    left = [page for page in wrong if pair.kinds()[page] != example.request.target]
    assert left
    assert left != wrong
    assert len(example.request.pages) == 3
    assert pair.simulation.memory.ended[-1].state == "committed_short"
    right, _ = example.pair().convert(example.request)
    assert right == (ENOMEM, None)


def test_an_underflow_hangs_where_the_range_begins_at_index_0() -> None:
    """A folio in the first huge page cannot be split or merged; anywhere else the same request comes back with ENOMEM."""
    example = found("underflow", "underflow")
    assert example.at in ("split", "merge")
    assert example.order == ORDER
    assert example.request.pages[0] < SIZE
    pair = example.pair("underflow")
    returned, expected = pair.convert(example.request)
    assert returned is expected is None
    pair.agree()
    right, _ = example.pair().convert(example.request)
    assert right == (ENOMEM, None)


def test_an_underflow_hangs_nowhere_else() -> None:
    elsewhere = EXAMPLES.filter(lambda example: example.request.pages[0] >= SIZE)
    with pytest.raises(NoSuchExample):
        find(elsewhere, lambda example: never_returns(example, "underflow"), settings=NOTHING)


def test_an_uninitialised_error_index_is_rubbish() -> None:
    """One page and no memory: error_offset points anywhere; with EAGAIN it is the page in use all the same."""
    example = found("error-offset", "error-offset")
    assert len(example.request.pages) == 1
    returned, _ = example.pair("error-offset").convert(example.request)
    assert returned is not None
    assert returned[0] == ENOMEM
    right, _ = example.pair().convert(example.request)
    assert right == (ENOMEM, None)


def test_a_begin_that_zaps_nothing_leaves_the_guest_its_shared_entries() -> None:
    """One page, and memslots that name another mapping: no mmu notifier zaps what begin was to zap."""
    example = found("no-zap", "no-zap")
    assert not example.notifier
    assert len(example.request.pages) == 1
    assert example.request.target == PRIVATE
    assert not still_mapped(example._replace(notifier=True), "no-zap")
