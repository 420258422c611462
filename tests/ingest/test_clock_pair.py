"""A trace that says what another clock showed is put in order with logs of that clock, where calls do not tell."""

from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import UsageError
from gmemstate.model.events import ACTOR, KIND, SOURCE, ClockPair, ConvertReturned, Poisoned, T
from tests.together import STRACE, TRACE, clocks, log_of, marked, put, read_together, source_of
from tests.traces import Read, lines_of, read_case

CASES = ["half_done", "enomem", "ip_basic"]


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


# --- a kernel log from the journal, which has the time of day --------------------------------------------------------------

JOURNAL = "journal.json"
POISONED = 5.29
"""When (s of the trace's clock) the journal says that a page was poisoned: between the two conversions of half_done."""


def journal(case: str, time: float) -> list[bytes]:
    (monotonic, realtime), _ = clocks()[case]
    stamp = (int(time * 1e9) + realtime - monotonic) // 1000
    said = "Memory failure: 0x105848: recovery action for dirty unevictable LRU page: Failed"
    return [f'{{"__REALTIME_TIMESTAMP": "{stamp}", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": "{said}"}}'.encode()]


def test_a_journal_stands_where_its_time_is_if_the_trace_states_what_the_time_was(tmp_path: Path) -> None:
    read = read_together({JOURNAL: journal("half_done", POISONED), TRACE: marked("half_done")}, tmp_path)
    order = [row[KIND] for row in read.rows if row[KIND] in (Poisoned.code, ConvertReturned.code)]
    assert order == [ConvertReturned.code, Poisoned.code, ConvertReturned.code]
    assert not read.history.findings


def test_a_journal_stands_for_itself_if_no_source_or_more_than_one_states_what_the_time_was(tmp_path: Path) -> None:
    for traces in ({TRACE: lines_of("half_done")}, {TRACE: marked("half_done"), "other.txt": marked("enomem")}):
        read = read_together({JOURNAL: journal("half_done", POISONED), **traces}, tmp_path)
        assert not [row for row in read.rows if row[KIND] == ClockPair.code and row[ACTOR] is not None]


def test_a_mark_that_came_late_counts_from_its_own_time_on_and_moves_no_page(tmp_path: Path) -> None:
    trace, log = put({TRACE: marked("half_done"), JOURNAL: journal("half_done", POISONED)}, tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(trace)
        before = {at: ledger.state(at=at).rows for at in ("5.27", "5.30", "5.4")}
        (result,) = ledger.ingest(log)
        assert result.late
        assert {at: ledger.state(at=at).rows for at in before} == before
        assert [len(ledger.messed_up(at=at)) for at in ("5.27", "5.289", "5.291", "5.4")] == [0, 0, 1, 1]
        assert len(ledger.messed_up()) == 1
        assert len(ledger.history(at="5.30").marks) == 1
        assert not ledger.stale_projections(ledger.history())


def test_a_time_means_nothing_where_one_source_has_a_clock_of_its_own(tmp_path: Path) -> None:
    paths = put({TRACE: lines_of("half_done"), JOURNAL: journal("half_done", POISONED)}, tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(*paths)
        with pytest.raises(UsageError, match="each have a clock"):
            ledger.state(at="5.30")
