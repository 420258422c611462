"""A trace that says what another clock showed is put in order with logs of that clock, where calls do not tell."""

from pathlib import Path

import pytest

from gmemstate.model.events import KIND, SOURCE, ClockPair, T
from tests.together import STRACE, TRACE, clocks, log_of, read_together, source_of
from tests.traces import Read, lines_of, read_case

CASES = ["half_done", "enomem", "ip_basic"]


def seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def marked(case: str) -> list[bytes]:
    """The trace with the line that tools/capture writes at its beginning."""
    (monotonic, realtime), _ = clocks()[case]
    pair = f"mono={seconds(monotonic)} real={seconds(realtime)} boot={seconds(monotonic)}"
    line = f"           <...>-1     [000] ..... {monotonic / 1e9:.6f}: tracing_mark_write: clock_pair: {pair}"
    return [line.encode(), *lines_of(case)]


def few(case: str) -> list[bytes]:
    """Of strace's log one call only: too few to compare clocks by."""
    return [line for line in log_of(case, STRACE) if b"KVM_SET_MEMORY_ATTRIBUTES" in line or b"0xae, 0xd2" in line][:1]


def compared(read: Read) -> list[int]:
    """How far (ns) the clock of strace is said to be ahead."""
    source = source_of(read, STRACE)
    return [(row[T] or 0) - (row[9] or 0) for row in read.rows if row[KIND] == ClockPair.code and row[SOURCE] == source]


@pytest.mark.parametrize("case", CASES)
def test_a_single_call_is_recognised_by_the_pair_of_clocks_and_by_nothing_else(case: str, tmp_path: Path) -> None:
    assert len(few(case)) == 1
    assert compared(read_together({TRACE: lines_of(case), STRACE: few(case)}, tmp_path)) == []
    read = read_together({TRACE: marked(case), STRACE: few(case)}, tmp_path)
    (monotonic, realtime), _ = clocks()[case]
    assert compared(read) == [realtime - monotonic]
    assert len(read.history.conversions) == len(read_case(case).history.conversions)


@pytest.mark.parametrize("case", CASES)
def test_what_calls_tell_goes_before_what_is_stated(case: str, tmp_path: Path) -> None:
    """Somebody may have set the clock in between."""
    read = read_together({TRACE: lines_of(case), STRACE: log_of(case, STRACE)}, tmp_path)
    again = read_together({TRACE: marked(case), STRACE: log_of(case, STRACE)}, tmp_path)
    assert compared(read) == compared(again) != []


def test_the_log_of_another_run_of_this_host_has_no_call_of_this_one(tmp_path: Path) -> None:
    read = read_together({TRACE: marked("half_done"), STRACE: few("enomem")}, tmp_path)
    assert len(read.history.conversions) == len(read_case("half_done").history.conversions) + 1
