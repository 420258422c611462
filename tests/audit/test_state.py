"""The state of pages: whose they are, in which unit, what is at work on them, and what became of their guest."""

from itertools import pairwise

import pytest

from gmemstate.audit.history.corroboration import history
from gmemstate.model.machines.range import PRIVATE, SHARED
from tests import views
from tests.postmortem.telling import Rows
from tests.traces import read_case


def rows(case: str, last: int | None = None, start: int = 0, end: int = 1 << 64, unit: str = "gfn") -> list[views.StateRow]:
    return list(views.state(history(Rows(read_case(case).rows), last), start, end, unit))


def test_a_conversion_in_flight_names_itself_on_its_pages_and_nowhere_else() -> None:
    begun = next(row["id"] for row in views.conversions(read_case("half_done").history))
    found = rows("half_done", begun + 8)
    (flying,) = (row for row in found if "(" in row.state)
    assert (flying.start, flying.end, flying.held_by) == (0x100000, 0x100080, begun)
    assert all(row.held_by is None for row in found if row is not flying)


def test_a_conversion_of_a_guest_memfd_in_flight_names_itself_on_the_gfns_in_front_of_it() -> None:
    begun = next(row["id"] for row in views.conversions(read_case("ip_eagain_pin").history))
    (flying,) = (row for row in rows("ip_eagain_pin", begun + 2) if "(" in row.state)
    assert (flying.start, flying.end, flying.held_by) == (0x100000, 0x100010, begun)


def test_a_row_says_what_became_of_the_guest_only_after_it_did() -> None:
    assert {row.guest_gone for row in rows("half_done")} == {"destroyed"}
    assert {row.guest_gone for row in rows("half_done", 50)} == {None}


@pytest.mark.parametrize(("start", "end"), [(0x100000, 0x100004), (0x10007E, 0x100082), (0x5, 0x6)])
def test_exactly_the_pages_that_were_asked_for_are_answered(start: int, end: int) -> None:
    found = rows("half_done", 50, start, end)
    assert (found[0].start, found[-1].end) == (start, end)
    assert all(left.end == right.start for left, right in pairwise(found))
    assert {row.state for row in found} <= {SHARED, PRIVATE}


def test_pages_of_a_guest_memfd_are_asked_for_as_such() -> None:
    """Index 5 of ip_eagain_pin is gfn 0x100005; a gfn that looks like an index is none."""
    by_index = rows("ip_eagain_pin", 60, 5, 6, "idx")
    by_gfn = rows("ip_eagain_pin", 60, 0x100005, 0x100006)
    assert [row.state for row in by_index] == [row.state for row in by_gfn]
    assert by_index[0].gmem is not None
    assert all(row.gmem is None for row in rows("ip_eagain_pin", 60, 5, 6))


def test_private_pages_without_memory_say_why_while_the_guest_lives() -> None:
    found = {(row.start, row.end): row.unbacked for row in rows("nogmem") if row.state == PRIVATE}
    assert found == {(0x4000000, 0x4000010): "no_slot"}
