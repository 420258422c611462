"""A record with less than everything is incomplete, says why, and is never wrong for it."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.running import Ran, run
from tests.ingest.truth import ATTEMPTS, LATE
from tests.traces import CASES, Read, capture, lines_of, meta, read_case, read_lines

CLEAN, INCOMPLETE = 0, 3
LOST = b"CPU:0 [LOST 17 EVENTS]"
KNOWN = {"shared", "private"}


def asked(folder: Path, case: str, *words: str) -> Ran:
    """What a verb says of a capture."""
    database = ("--db", folder / "ledger.db")
    run(*database, "ingest", capture(case))
    return run(*database, *words)


@pytest.mark.parametrize("case", ATTEMPTS)
def test_attempts_without_results_are_an_incomplete_answer(case: str, tmp_path: Path) -> None:
    said = asked(tmp_path, case, "conversions", "--json")
    assert said.code == INCOMPLETE
    assert {one["label"] for one in json.loads(said.out)["rows"]} == {"attempted"}
    assert {one["errno"] for one in json.loads(said.out)["rows"]} == {None}
    said = asked(tmp_path, case, "state", "--json", "0x100000+1024")
    assert said.code == INCOMPLETE
    assert {row["state"] for row in json.loads(said.out)["rows"]} == {"unknown"}


@pytest.mark.parametrize("case", ["late_attach", *LATE])
def test_a_late_or_torn_record_is_an_incomplete_answer(case: str, tmp_path: Path) -> None:
    said = asked(tmp_path, case, "state", "--json")
    assert said.code == INCOMPLETE
    assert "incomplete: " in said.err


@pytest.mark.parametrize("case", ["simple", "half_done", "ip_eagain_pin"])
def test_a_whole_record_is_a_complete_answer(case: str, tmp_path: Path) -> None:
    assert asked(tmp_path, case, "conversions", "--json").code == CLEAN


# --- overwritten and lost ---------------------------------------------------------------------------------------------


def gaps(read: Read) -> list[tuple[int | None, int | None]]:
    (source,) = read.history.sources.values()
    return source.gaps


@pytest.mark.parametrize("case", CASES)
def test_every_event_that_the_kernel_lost_is_counted(case: str) -> None:
    """The header of a trace says how many entries were written and how many are left."""
    headers = [re.match(rb"# entries-in-buffer/entries-written: (\d+)/(\d+)", line) for line in lines_of(case)]
    lost = sum(int(header[2]) - int(header[1]) for header in headers if header)
    assert sum(count or 0 for _, count in gaps(read_case(case))) == lost == meta(case)["ftrace_lost_events"]


def lossy(case: str, at: int, folder: Path) -> Read:
    """A capture with one line lost, and the trace says so."""
    lines = list(lines_of(case))
    lines[at] = LOST
    return read_lines(lines, folder)


def test_lost_events_are_counted_where_they_are_missing(tmp_path: Path) -> None:
    assert gaps(lossy("simple", 100, tmp_path)) == [(101, 17)]


def inside(case: str, number: int) -> int:
    """A place between the entry and the return of a conversion."""
    entries = [
        n for n, line in enumerate(lines_of(case)) if re.search(rb"[vg]me?m?_ioctl: ", line) and b"set_region" not in line
    ]
    return entries[number] + 1


@pytest.mark.parametrize("case", ["simple", "half_done", "ip_basic", "ip_two_slots"])
def test_a_conversion_with_a_gap_inside_has_no_outcome(case: str, tmp_path: Path) -> None:
    read = lossy(case, inside(case, 0), tmp_path)
    first = read.conversions[0]
    assert first["errno"] is None
    assert first["label"] in ("cut", "attempted")
    assert first["applied"]["extent"] == "unknown"


@pytest.mark.parametrize("case", ["simple", "half_done", "ip_basic", "ip_two_slots"])
def test_no_page_is_known_right_behind_a_gap(case: str, tmp_path: Path) -> None:
    at = inside(case, 0)
    read = read_lines([*lines_of(case)[:at], LOST], tmp_path)
    memory = read.history.memory
    assert not KNOWN & {run.state for owner in (*memory.vms, *memory.gmems) for run in memory.runs(owner)}
    assert not KNOWN & {run.state for vm in memory.vms for run in memory.guest_runs(vm)}


@pytest.mark.parametrize("case", ["simple", "race", "ip_basic"])
def test_a_record_that_ends_inside_of_a_conversion_cuts_it(case: str, tmp_path: Path) -> None:
    read = read_lines(lines_of(case)[: inside(case, 1) + 1], tmp_path)
    assert read.conversions[-1]["label"] in ("cut", "in_flight")
    assert read.conversions[-1]["errno"] is None
