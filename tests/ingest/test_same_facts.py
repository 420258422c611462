"""Other names for the same things, other clocks, other containers of the same lines: the same facts."""

import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gmemstate.model.events import DETAIL, KIND, SourceOpened, SourceRead
from tests.postmortem.telling import post_mortem_of
from tests.traces import CAPTURES, CASES, Read, capture, later, lines_of, read_case, read_file, read_lines, renamed
from tests.views import Json, messed_up, requests

PIDS = 70_000
HOUR = 3600
NS = 10**9


def conversions(read: Read, *, pids: int = 0, seconds: int = 0) -> list[Json]:
    """All conversions, with other thread numbers and another clock taken back, and without the name of the file."""
    found = read.conversions
    for one in found:
        one["thread"] -= pids
        one["evidence"].pop("file")
        for name in ("started_ns", "observed_ns", "ended_ns"):
            one[name] = None if one[name] is None else str(int(one[name]) - seconds * NS)
    return found


def states(read: Read) -> list[object]:
    """The states of all pages, space by space."""
    memory = read.history.memory
    return [[tuple(run) for run in memory.runs(owner)] for owner in (*memory.vms, *memory.gmems)]


def words(read: Read) -> list[object]:
    """Everything that was said but has no thread, pointer or time in it."""
    history = read.history
    asked = [(one["gpa"], one["to"], one["applied_pages"], one["returned"], one["notes"]) for one in requests(history)]
    faults = [(fault.start, fault.kind, fault.result, fault.line) for fault in history.faults]
    pages = [(one["cause"], one["gfn"], one["index"], one["count"]) for one in messed_up(history)]
    return [asked, faults, pages, [str(finding) for finding in history.findings], read.account]


@pytest.mark.parametrize("case", CASES)
def test_other_process_ids_and_other_pointers_make_no_difference(case: str, tmp_path: Path) -> None:
    """Names of threads and guests carry no meaning; those of the kernel's own pages stay (pfns are no pointers)."""
    read, base = read_lines((renamed(line, PIDS) for line in lines_of(case)), tmp_path), read_case(case)
    assert conversions(read, pids=PIDS) == conversions(base)
    assert states(read) == states(base)
    assert words(read) == words(base)


@pytest.mark.parametrize("case", CASES)
def test_another_clock_shifts_the_times_and_nothing_else(case: str, tmp_path: Path) -> None:
    read, base = read_lines((later(line, HOUR) for line in lines_of(case)), tmp_path), read_case(case)
    assert conversions(read, seconds=HOUR) == conversions(base)
    assert states(read) == states(base)
    assert words(read) == words(base)


def rows(read: Read) -> list[object]:
    """All events, but for the name, the hash and the size of the file."""
    return [row[:DETAIL] if row[KIND] in (SourceOpened.code, SourceRead.code) else row for row in read.rows]


@pytest.mark.parametrize("case", ["simple", "ip_eagain_pin", "simple_graph", "lost_overrun"])
def test_plain_and_compressed_text_give_the_same_events(case: str, tmp_path: Path) -> None:
    plain = tmp_path / "trace.txt"
    plain.write_bytes(gzip.decompress(capture(case).read_bytes()))
    assert rows(read_file(plain)) == rows(read_case(case))


@pytest.mark.parametrize("unpacked", [True, False])
def test_standard_input_gives_the_same_events(unpacked: bool) -> None:
    data = capture("simple").read_bytes()
    program = "from tests.traces import read_file; print(*read_file('-').rows, sep='\\n')"
    said = subprocess.run(
        [sys.executable, "-c", program],
        input=gzip.decompress(data) if unpacked else data,
        cwd=CAPTURES.parents[1], capture_output=True, check=True,
    ).stdout.decode().splitlines()  # fmt: skip
    read = [str(row) for row in read_case("simple").rows]
    assert said[1:-1] == read[1:-1]  # the first and the last name the file
    assert len(said) == len(read)


@pytest.mark.parametrize("case", ["simple", "ip_eagain_pin", "simple_graph"])
def test_carriage_returns_make_no_difference(case: str, tmp_path: Path) -> None:
    read, base = read_lines((line + b"\r" for line in lines_of(case)), tmp_path), read_case(case)
    assert conversions(read) == conversions(base)
    assert states(read) == states(base)
    assert words(read) == words(base)


@pytest.mark.parametrize("case", [case for case in CASES if len(lines_of(case)) < 1000])
def test_a_clock_that_counts_no_seconds_costs_the_times_and_nothing_else(case: str, tmp_path: Path) -> None:
    """As x86-tsc and counter: what is known by its place in the trace stays known."""
    lines = [re.sub(rb" (\d+)\.(\d{6})(: | \|)", rb" \1\2\3", line) for line in lines_of(case)]
    read, base = read_lines(lines, tmp_path), read_case(case)
    timed = [one["started_ns"] for one in read.conversions]
    assert timed == [None] * len(timed)
    for one, other in zip(conversions(read), conversions(base), strict=True):
        times = dict.fromkeys(("started_ns", "observed_ns", "ended_ns"))
        assert {**one, **times} == {**other, **times}
    assert states(read) == states(base)
    assert words(read) == words(base)
    found, known = post_mortem_of(read).incidents, post_mortem_of(base).incidents
    assert [(one.blame, one.title) for one in found] == [(one.blame, one.title) for one in known]
    assert all("?" not in f"{row[1]}{row[4]}" for one in found for row in one.rows())


# --- the function graph ------------------------------------------------------------------------------------------------

GRAPH = re.compile(rb"( *\d+\.\d+) \| +(\d+)\) +(\S+-\d+) +\|([^|]*)\|(.*)")
COLUMNS = {
    "no duration": rb"\1 |   \2)  \3   |  \5",
    "latency-format": rb"\1 |   \2)  \3   |  d..1. |\4|\5",
    "no CPU": rb"\1 |  \3   |\4|\5",
    "a name with blanks": rb"\1 |   \2)  CPU 0/\3   |\4|\5",
}
WORDS = {
    "results of older kernels": (rb" ret=(?=-?[0-9a-fx]+ \*/)", b" = "),
    "the caller behind a call": (rb"(?<=\) \{)$", b" /* <-somebody+0x1c/0x60 */"),
}


def without_times(read: Read) -> list[tuple[object, ...]]:
    """The events that are not about the source, without the bytes that were read and the names of tasks."""
    rows = [row for row in read.rows if row[KIND] not in (SourceOpened.code, SourceRead.code)]
    return [tuple(value for n, value in enumerate(row) if n != DETAIL) for row in rows]


@pytest.mark.parametrize("form", [*COLUMNS, *WORDS])
@pytest.mark.parametrize("case", ["simple_graph", "ip_eagain_graph"])
def test_other_columns_of_the_function_graph_make_no_difference(case: str, form: str, tmp_path: Path) -> None:
    if form in COLUMNS:
        lines = [GRAPH.sub(COLUMNS[form], line) for line in lines_of(case)]
    else:
        lines = [re.sub(*WORDS[form], line) for line in lines_of(case)]
    assert lines != [*lines_of(case)]
    assert without_times(read_lines(lines, tmp_path)) == without_times(read_case(case))


def test_without_arguments_the_function_graph_still_tells_the_result_of_what_the_tracepoint_shows(tmp_path: Path) -> None:
    lines = [re.sub(rb"\((?!\)|0x).*\)(?= \{|;)", b"()", line) for line in lines_of("simple_graph")]
    read = read_lines(lines, tmp_path)
    assert [c["errno"] for c in read.conversions] == [0, 0, 0]
    assert [c["start"] for c in read.conversions] == ["0x100004"] * 3
