"""A moment is an event or a time of the trace's clock; what is none is refused with the way out."""

import pytest

from gmemstate.audit.history.when import seq_of
from gmemstate.model.errors import UsageError
from gmemstate.model.events import KIND, SEQ, EventRow, T
from tests.postmortem.telling import Rows
from tests.traces import read_case

ROWS = read_case("half_done").rows


def last_before(time: float) -> int:
    """The event before the first that is later, looked up one by one."""
    last = 0
    for row in ROWS:
        if row[T] is not None and (row[T] or 0) > time * 1e9:
            return last
        last = row[SEQ]
    return last


@pytest.mark.parametrize("at", ["5.3", "5.306156", "5.30615599999", "5", "5.", "5.31s", " 5.31 "])
def test_a_time_means_the_state_before_the_first_later_event(at: str) -> None:
    found = seq_of(Rows(ROWS), at)
    assert found == (5 if at == "5" else last_before(float(at.strip().removesuffix("s"))))


@pytest.mark.parametrize(("at", "found"), [(None, None), ("42", 42), (42, 42), ("0", 0), (str(len(ROWS)), len(ROWS))])
def test_a_number_is_an_event(at: str | int | None, found: int | None) -> None:
    assert seq_of(Rows(ROWS), at) == found


def test_the_microseconds_of_a_late_clock_are_exact() -> None:
    """A float has no room for 10^8 seconds in nanoseconds."""
    kind, rest = ROWS[1][KIND], [None] * 10
    rows: list[EventRow] = [(n, 123_456_789_000_001_000 + n, kind, *rest) for n in range(1, 4)]  # type: ignore[misc]
    assert seq_of(Rows(rows), "123456789.000001002") == 2


@pytest.mark.parametrize("at", ["", "abc", "5,3", "-1", "-1.5", "nan", "inf", "1e400", "1e3", "0x10", "5.3.1", "٣", "9" * 30])
def test_what_is_no_moment_is_refused(at: str) -> None:
    with pytest.raises(UsageError, match="give the number of an event"):
        seq_of(Rows(ROWS), at)


def test_an_event_that_is_not_on_record_is_refused_with_the_last_that_is() -> None:
    with pytest.raises(UsageError, match=f"there is no event {len(ROWS) + 1}: the last one is {len(ROWS)}") as refusal:
        seq_of(Rows(ROWS), len(ROWS) + 1)
    assert refusal.value.data == {"last": len(ROWS)}


@pytest.mark.parametrize("at", ["5.3", "0.1", "99999.5"])
def test_a_time_is_refused_whatever_it_is_where_two_sources_have_each_a_clock(at: str) -> None:
    twice = Rows([*ROWS, *(((row[SEQ] + len(ROWS)), *row[1:]) for row in ROWS)])  # type: ignore[misc]
    with pytest.raises(
        UsageError, match=r"half_done.*half_done.* each have a clock of their own; name the moment by the number"
    ):
        seq_of(twice, at)
    assert seq_of(twice, "42") == 42
