"""What an answer lacks is said; what a moment in the middle of a record does not hold yet is no lack."""

from pathlib import Path

import pytest

from gmemstate.audit.history.corroboration import history
from gmemstate.audit.history.history import History
from tests.postmortem.telling import Rows
from tests.traces import Read, lines_of, read_case, read_lines


def at(read: Read, last: int) -> History:
    return history(Rows(read.rows), last)


@pytest.mark.parametrize("case", ["half_done", "ip_eagain_pin", "enomem"])
def test_a_whole_record_lacks_nothing_at_any_moment(case: str) -> None:
    read = read_case(case)
    assert [at(read, last).missing() for last in range(len(read.rows) + 1)] == [[]] * (len(read.rows) + 1)


def test_a_gap_is_missing_from_the_moment_on_at_which_it_stands() -> None:
    read = read_case("lost_overrun")
    assert any("42971 events lost" in reason for reason in read.history.missing())
    assert any("events lost" in reason for reason in at(read, len(read.rows) - 1).missing())
    assert at(read, 1).missing() == []


def test_a_record_whose_reading_did_not_end_is_incomplete_at_its_end_only() -> None:
    read = read_case("half_done")
    unread = Rows(read.rows[:-1])
    assert history(unread).missing() == ["ftrace.txt.gz: its reading has not come to an end"]
    assert history(unread, len(unread.rows) - 1).missing() == []


def test_a_record_of_nothing_is_incomplete() -> None:
    (reason,) = History().missing()
    assert reason.startswith("no event is on record: `gmemstate ingest FILE`")


def test_silence_about_conversions_is_no_evidence_that_there_were_none() -> None:
    """Static tracepoints alone: a conversion of a guest_memfd that fails looks like nothing at all."""
    (reason,) = read_case("ip_eagain_tp").history.missing()
    assert "none proves that one would have been seen" in reason


def test_a_refused_call_proves_that_conversions_would_have_been_seen(tmp_path: Path) -> None:
    """Of einval everything is left out behind the first calls that were refused: no conversion, but the probes worked."""
    lines = list(lines_of("ip_einval"))
    end = next(n for n, line in enumerate(lines) if b"gmem_ioctl_ret" in line and b"ret=-22" in line)
    read = read_lines([line for line in lines[: end + 1] if b"ret=0 offset" not in line], tmp_path)
    assert not any("none proves" in reason for reason in read.history.missing())


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["/a/b/ftrace.txt"], ["ftrace.txt"]),
        (["/a/b/ftrace.txt", "/a/c/ftrace.txt"], ["b/ftrace.txt", "c/ftrace.txt"]),
        (["ftrace.txt", "/a/c/ftrace.txt"], ["ftrace.txt", "c/ftrace.txt"]),
        (["standard input", "standard input"], ["standard input", "standard input"]),
        (["x/a", "y/x/a", "b"], ["x/a", "y/x/a", "b"]),
    ],
)
def test_a_source_is_called_by_the_shortest_tail_that_tells_it_from_the_others(names: list[str], labels: list[str]) -> None:
    from gmemstate.audit.history.moment import SourceFacts

    found = History()
    found.sources = {n: SourceFacts(n, name, "ftrace") for n, name in enumerate(names, 1)}
    assert list(found.labels().values()) == labels
