"""Which calls of two sources are the same: where two could be meant, none is, and nothing of the one is told of the other."""

from collections.abc import Iterable, Iterator

import pytest

from gmemstate.ingest.merge.clocks import Distance
from gmemstate.ingest.merge.pairing import Item, Pairing, placed
from gmemstate.model.events import (
    CONVERSION,
    KIND,
    ConvertAsked,
    ConvertAttempted,
    ConvertReturned,
    Event,
    EventRow,
    Through,
    details,
)  # fmt: skip

US = 1_000
INNER, OUTER = 0, 1
FAR = Distance(ns=10_000_000 * US, within=5 * US, mostly=5 * US, calls=9, at=0)
VM, GMEM = Through.VM_IOCTL, Through.GMEM_IOCTL


def traced(
    reference: int, begin: int, end: int | None, result: int = 0, *, thread: int = 7, through: Through = VM
) -> list[Event]:
    """A call as a trace shows it (times in us); without ``end`` only that it was attempted."""
    if end is None:
        return [ConvertAttempted(conversion=reference, thread=thread, start=0, npages=1, attributes=8, t=begin * US, source=-1)]
    asked = ConvertAsked(conversion=reference, through=through, thread=thread, start=0, npages=1, t=begin * US, source=-1)
    return [asked, ConvertReturned(conversion=reference, result=result, thread=thread, t=end * US, source=-1)]


def called(reference: int, begin: int, end: int, result: int = 0, *, thread: int = 7, through: Through = VM) -> list[Event]:
    """A call as strace shows it on one line, by the clock of the trace."""
    asked = ConvertAsked(conversion=reference, through=through, thread=thread, t=begin * US + FAR.ns, source=-2)
    return [asked, ConvertReturned(conversion=reference, result=result, thread=thread, t=end * US + FAR.ns, source=-2)]


def items(calls: Iterable[list[Event]], *, closing: bool = True) -> Iterator[Item]:
    for call in calls:
        for event in call:
            row = event.row()
            last = event is call[-1] and closing
            yield Item(row, closed=(row[CONVERSION] or 0,) if last else ())


def paired(inner: list[list[Event]], outer: list[list[Event]]) -> dict[int, int]:
    """For each call of the outer source the one of the inner source that it is said to be."""
    pairing = Pairing({OUTER: FAR}, lambda reference: reference)
    rows: list[tuple[int, EventRow, int | None]] = [
        (one.source, pairing.take(one), one.item.row[CONVERSION])
        for one in pairing.merged([placed(INNER, items(inner), None), placed(OUTER, items(outer), FAR)])
    ]
    assert len(rows) == sum(map(len, (*inner, *outer)))
    for source in (INNER, OUTER):
        own = [event.row()[KIND] for call in (inner, outer)[source] for event in call]
        assert [row[KIND] for of, row, _ in rows if of == source] == own, "the order within a source stays"
    joins = [row for _, row, _ in rows if details(row[-1]).get("join") == "thread"]
    same = {before: row[CONVERSION] for _, row, before in rows if before != row[CONVERSION]}
    assert len(joins) == len(same)
    return same  # type: ignore[return-value]


def test_a_call_that_lies_in_another_of_its_thread_is_the_same() -> None:
    assert paired([traced(-10, 100, 190)], [called(-20, 90, 200)]) == {-20: -10}


def test_each_call_finds_its_own_however_dense_they_are() -> None:
    times = [(100 * n, 100 * n + 60) for n in range(50)]
    inner = [traced(-100 - n, begin + 5, end - 5) for n, (begin, end) in enumerate(times)]
    outer = [called(-200 - n, begin, end) for n, (begin, end) in enumerate(times)]
    assert paired(inner, outer) == {-200 - n: -100 - n for n in range(50)}


def test_a_call_that_the_trace_has_lost_leaves_those_around_it_to_their_own() -> None:
    inner = [traced(-10, 105, 150), traced(-12, 305, 350)]
    outer = [called(-20, 100, 160), called(-21, 200, 260, 12), called(-22, 300, 360)]
    assert paired(inner, outer) == {-20: -10, -22: -12}


def test_a_call_that_was_only_attempted_is_the_one_it_lies_in() -> None:
    calls = [called(-20, 100, 160, 12), called(-21, 200, 260)]
    assert paired([traced(-10, 130, None), traced(-11, 230, None)], calls) == {-20: -10, -21: -11}


def test_two_calls_inside_of_one_are_none_of_them() -> None:
    assert paired([traced(-10, 110, None), traced(-11, 130, None)], [called(-20, 100, 160, 12)]) == {}


def test_a_call_that_lies_in_two_is_none_of_them() -> None:
    """Calls are so close that the clocks do not tell which one it was."""
    assert paired([traced(-10, 103, None)], [called(-20, 100, 103, 12), called(-21, 104, 108)]) == {}


@pytest.mark.parametrize(("thread", "through"), [(8, VM), (7, GMEM)], ids=["another thread", "another way in"])
def test_a_call_of_another_thread_or_of_another_file_is_another_call(thread: int, through: Through) -> None:
    assert paired([traced(-10, 110, 150, thread=thread, through=through)], [called(-20, 100, 160)]) == {}


def test_a_call_outside_of_its_time_is_the_same_only_where_both_say_the_same() -> None:
    """A clock that jumped is likelier than a kernel that lies; but then nobody says that it lied."""
    assert paired([traced(-10, 3_000, 3_050, 0)], [called(-20, 100, 160, 0)]) == {-20: -10}
    assert paired([traced(-10, 3_000, 3_050, 0)], [called(-20, 100, 160, 12)]) == {}


def test_times_that_go_back_join_nothing_falsely() -> None:
    """The clock of the outer source is set back by a second in the middle."""
    inner = [traced(-10, 100, 150, 12), traced(-11, 1_000_300, 1_000_350, 0)]
    outer = [called(-20, 90, 160, 12), called(-21, 290, 360, 0)]
    assert paired(inner, outer) == {-20: -10}


def test_a_call_whose_return_comes_on_a_later_line_is_known_from_its_entry_on() -> None:
    asked, returned = called(-20, 90, 200)
    other = called(-21, 120, 130, thread=9)
    assert paired([traced(-10, 100, 190)], [[asked], other, [returned]]) == {-10: -20}


def test_references_that_nobody_carries_any_more_are_let_go() -> None:
    pairing = Pairing({OUTER: FAR}, lambda reference: reference)
    times = [(100 * n, 100 * n + 60) for n in range(200)]
    inner = [traced(-1000 - n, begin + 5, end - 5) for n, (begin, end) in enumerate(times)]
    outer = [called(-2000 - n, begin, end) for n, (begin, end) in enumerate(times) if n % 3]
    for one in pairing.merged([placed(INNER, items(inner), None), placed(OUTER, items(outer), FAR)]):
        pairing.take(one)
    assert len(set(pairing.done)) == len(pairing.done) >= len(inner) + len(outer) - 8
