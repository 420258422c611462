"""Two clocks are compared by the calls that both sources show: rightly, or not at all."""

import random

import pytest

from gmemstate.ingest.merge.clocks import Calls, Distance, distance

MS = 1_000_000
AHEAD = 1_700_000_000_000 * MS
"""How far the clock of the outer source is ahead in these tests."""


def outside(*spans: tuple[int, str, float, float]) -> Calls:
    """Calls seen from outside: thread, kind, begin and end in ms."""
    calls = Calls()
    for thread, kind, begin, end in spans:
        calls.span(thread, kind, int(begin * MS) + AHEAD, int(end * MS) + AHEAD)
    return calls


def inside(*moments: tuple[int, str, float]) -> Calls:
    """Moments inside of calls: thread, kind, time in ms."""
    calls = Calls()
    for thread, kind, t in moments:
        calls.inside(thread, kind, int(t * MS))
    return calls


def right(found: Distance | None) -> bool:
    """Whether a distance was found, and is off by no more than it says."""
    return found is not None and abs(found.ns - AHEAD) <= found.within


UNEVEN = (0, 7, 31, 40, 95, 96.5, 160, 222)


def test_calls_at_uneven_times_leave_one_distance() -> None:
    calls = [(1, "convert", t, t + 1) for t in UNEVEN]
    found = distance(outside(*calls), inside(*((1, "convert", t + 0.4) for t in UNEVEN)))
    assert right(found)
    assert found is not None
    assert (found.calls, found.within) == (len(UNEVEN), MS // 2)


def test_calls_at_even_times_of_which_one_source_has_more_leave_two_and_so_none() -> None:
    calls = [(1, "convert", 10 * n, 10 * n + 1) for n in range(9)]
    assert distance(outside(*calls), inside(*((1, "convert", 10 * n + 0.5) for n in range(8)))) is None


def test_other_threads_and_other_kinds_of_calls_tell_nothing() -> None:
    calls = outside(*((1, "convert", t, t + 1) for t in UNEVEN))
    assert distance(calls, inside(*((2, "convert", t + 0.4) for t in UNEVEN))) is None
    assert distance(calls, inside(*((1, "fallocate", t + 0.4) for t in UNEVEN))) is None


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_calls_may_agree_by_chance(count: int) -> None:
    calls = outside(*((1, "convert", t, t + 1) for t in UNEVEN[:count]))
    assert distance(calls, inside(*((1, "convert", t + 0.4) for t in UNEVEN[:count]))) is None


def test_another_run_of_a_program_with_times_of_its_own_does_not_fit() -> None:
    dice = random.Random(7)
    calls = outside(*((1, "convert", t, t + 1) for t in UNEVEN))
    assert distance(calls, inside(*((1, "convert", t + dice.uniform(-9, 9)) for t in UNEVEN))) is None


def test_a_source_that_begins_later_and_ends_earlier_is_compared_by_what_both_show() -> None:
    calls = outside(*((1, "convert", t, t + 1) for t in UNEVEN[2:7]))
    assert right(distance(calls, inside(*((1, "convert", t + 0.4) for t in UNEVEN))))
    calls = outside(*((1, "convert", t, t + 1) for t in UNEVEN))
    assert right(distance(calls, inside(*((1, "convert", t + 0.4) for t in UNEVEN[2:7]))))


def test_a_call_of_which_only_the_beginning_is_shown_ends_before_the_next() -> None:
    """strace without -T."""
    calls = Calls()
    for t in UNEVEN:
        calls._span("whole", (1, "convert"), int(t * MS) + AHEAD, None)
    assert right(distance(calls, inside(*((1, "convert", t + 0.01) for t in UNEVEN[:-1]))))


def test_no_more_calls_are_kept_than_are_needed() -> None:
    calls = inside(*((1, "convert", t) for t in range(10_000)))
    assert calls.full
    assert len(calls.moments) == 4096
