"""Several logs read into one ledger, in a file and on a server: once, again, and in two calls."""

from pathlib import Path

import pytest

from tests.store.places import Place, assert_chained, record_of
from tests.together import STRACE, TRACE, files_of, log_of, put
from tests.traces import lines_of


@pytest.mark.parametrize("case", ["hwpoison_private", "simple_tp"])
def test_logs_that_are_read_together_again_add_nothing(place: Place, case: str, tmp_path: Path) -> None:
    paths = put(files_of(case), tmp_path / "logs")
    with place.open() as ledger:
        ledger.ingest(*paths)
        before = record_of(ledger)
        assert all(result.known for result in ledger.ingest(*paths[::-1]))
        assert record_of(ledger) == before
        assert_chained(ledger)
        assert not ledger.stale_projections(ledger.history())
        assert not ledger.check().problems


def test_what_comes_in_a_second_call_is_late_and_joined_all_the_same(place: Place, tmp_path: Path) -> None:
    trace, strace = put({TRACE: lines_of("half_done"), STRACE: log_of("half_done", STRACE)}, tmp_path / "logs")
    with place.open() as ledger:
        ledger.ingest(trace)
        (result,) = ledger.ingest(strace)
        assert result.late
        assert [len(one.corroborations) for one in ledger.conversions()] == [1, 1]
        assert not ledger.stale_projections(ledger.history())
        assert not ledger.check().problems
    with place.open() as ledger:
        assert all(result.known for result in ledger.ingest(strace, trace))
