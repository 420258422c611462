"""The same recording, told by trace-cmd instead of the kernel, is the same history."""

import shutil
from pathlib import Path

import pytest

from gmemstate.model.events import CONVERSION, KIND, NPAGES, RESULT, START, VALUE, EventRow, T
from tests.traces import CAPTURES, SHARED, Read, read_case, read_file

RECORDINGS = sorted((SHARED / "captures").glob("**/trace.dat"))

COLUMNS = (T, KIND, START, NPAGES, RESULT, VALUE)


def told(rows: list[EventRow]) -> list[tuple[object, ...]]:
    """The events without the places of their lines; in no order, since a fact may be shown by another line."""
    return sorted(tuple(row[n] if row[n] is not None else -1 for n in COLUMNS) for row in rows if row[CONVERSION] is not None)


def assert_same(kernel: Read, report: Read) -> None:
    assert told(report.rows) == told(kernel.rows)
    assert len(report.rows) == len(kernel.rows)
    assert [c["label"] for c in report.conversions] == [c["label"] for c in kernel.conversions] != []
    assert report.account.unparsed == 0
    (vm,), (other,) = kernel.history.memory.vms, report.history.memory.vms
    assert report.runs(other) == kernel.runs(vm)


def test_trace_cmd_report_of_a_recording_gives_the_same_events_and_states() -> None:
    assert_same(read_case("simple"), read_file(CAPTURES / "simple" / "trace-cmd.txt.gz"))


@pytest.mark.skipif(
    shutil.which("trace-cmd") is None, reason="NOT TESTED: trace-cmd is not installed (apt-get install trace-cmd)"
)
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.parent.name)
def test_a_recording_itself_gives_the_same_events_and_states(recording: Path) -> None:
    """Read through the trace-cmd that is installed."""
    assert_same(read_file(recording.with_name("ftrace.txt")), read_file(recording))
