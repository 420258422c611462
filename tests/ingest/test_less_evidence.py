"""Less evidence costs facts and changes none: a kind of line that is not traced, a record that begins late or ends early, lost
lines.

The quick tests take the first lines of each capture, and a few places in them; the exhaustive ones take all of them.
"""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.ingest.fact import Context
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.model.events import LINE
from tests.ingest.compare import beginning, changed
from tests.traces import CASES, Read, header_length, kind_of, lines_of, read_lines, without

LENGTH = 1000
PLACES = 4
SHORT = [case for case in CASES if len(lines_of(case)) < 1000]
LOST = b"CPU:0 [LOST 1 EVENTS]"
Lines = tuple[bytes, ...]


def excerpt(case: str) -> Lines:
    """The first lines of a capture, and those up to the next return of a conversion."""
    lines = lines_of(case)
    returns = (n for n, line in enumerate(lines, 1) if b"m_ioctl_ret: " in line or b"} /* kvm_vm_ioctl " in line)
    return lines[: next((n for n in returns if n > LENGTH), LENGTH)]


def whole(case: str, lines: Lines, folder: Path) -> Read:
    """A capture as it is read without any loss."""
    read = read_lines(lines, folder)
    if case == "kvm_exits":
        # Both touches of private memory are of memory without a guest_memfd; that two guests share a thread hides it.
        for fault in read.history.faults:
            fault.kind = fault.kind.UNBACKED
    return read


def telling_kinds(lines: Lines) -> set[str]:
    """The kinds of lines that say something by themselves."""
    reader = FtraceReader()
    said = [(line, reader.parse(number, line.decode())) for number, line in enumerate(lines, 1)]
    return {kind for line, what in said if not isinstance(what, Context) and (kind := kind_of(line)) is not None}


def places(case: str, lines: Lines, count: int) -> list[int]:
    """Some numbers of lines behind the header, the same ones each time; half of them among the steps of conversions."""
    dice = random.Random(case)
    anywhere = range(header_length(lines), len(lines))
    steps = [at for at in anywhere if b"ioctl" in lines[at] or b"attributes" in lines[at]]
    chosen = [*dice.sample(anywhere, min(count, len(anywhere))), *dice.sample(steps, min(count, len(steps)))]
    return sorted(set(chosen[: len(chosen) - count % 2 : 2]))


# --- a kind of line is not traced -----------------------------------------------------------------------------------


def dropped(case: str, lines: Lines, folder: Path) -> dict[str, list[str]]:
    """What changes if one kind of line is left out, kind by kind; all that say nothing are left out at once."""
    base = whole(case, lines, folder)
    telling = telling_kinds(lines)
    found = {kind: changed(base, read_lines(without(lines, kind), folder)) for kind in telling}
    quiet = [line if kind_of(line) in (*telling, None) else b"" for line in lines]
    found["all others"] = changed(base, read_lines(quiet, folder))
    return {kind: changes for kind, changes in found.items() if changes}


@pytest.mark.parametrize("case", CASES)
def test_leaving_out_a_kind_of_line_changes_no_fact(case: str, tmp_path: Path) -> None:
    assert dropped(case, excerpt(case), tmp_path) == {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES)
def test_leaving_out_any_two_kinds_of_line_changes_no_fact(case: str, tmp_path: Path) -> None:
    lines = excerpt(case)
    for kind in sorted(telling_kinds(lines)):
        assert dropped(case, tuple(without(lines, kind)), tmp_path) == {}, f"without {kind}, and"


# --- a line is missing, and nothing says so --------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_single_line_that_is_missing_changes_no_fact(case: str, tmp_path: Path) -> None:
    """As where somebody has filtered a trace with grep. Two together may well make two calls look like one."""
    lines = excerpt(case)
    base = whole(case, lines, tmp_path)
    for at in places(case, lines, PLACES):
        assert changed(base, read_lines([*lines[:at], b"", *lines[at + 1 :]], tmp_path)) == [], f"without line {at + 1}"


# --- a record that ends early ---------------------------------------------------------------------------------------


def ends_early(base: Read, lines: Lines, at: int, folder: Path) -> list[str]:
    """What a record of the first lines says that the whole one does not say: at its end, or of the states by then."""
    cut = read_lines(lines[:at], folder)
    rows = next((n for n, row in enumerate(base.rows) if (row[LINE] or 0) > at), len(base.rows))
    then = replace(base, history=compared(History().fold(base.rows[:rows])))
    new = [f"event {row}" for row in beginning(base.rows, cut.rows)]
    return new + [change for change in changed(base, cut, then=then)]


@pytest.mark.parametrize("case", CASES)
def test_a_record_that_ends_early_is_the_beginning_of_the_whole_one(case: str, tmp_path: Path) -> None:
    lines = excerpt(case)
    base = whole(case, lines, tmp_path)
    for at in places(case, lines, PLACES):
        assert ends_early(base, lines, at, tmp_path) == [], f"cut before line {at + 1}"


# --- a record that begins late ----------------------------------------------------------------------------------------


def begins_late(base: Read, lines: Lines, at: int, folder: Path) -> list[str]:
    first = header_length(lines)
    return changed(base, read_lines([*lines[:first], *[b""] * (at - first), *lines[at:]], folder))


@pytest.mark.parametrize("case", CASES)
def test_a_record_that_begins_late_says_nothing_new(case: str, tmp_path: Path) -> None:
    lines = excerpt(case)
    base = whole(case, lines, tmp_path)
    for at in places(case, lines, PLACES):
        assert begins_late(base, lines, at, tmp_path) == [], f"begun at line {at + 1}"


# --- lost events ------------------------------------------------------------------------------------------------------


def loses(base: Read, lines: Lines, at: int, count: int, folder: Path) -> list[str]:
    """What changes if ``count`` lines are lost and the trace says so in the place of the first."""
    left = [*lines[:at], LOST, *[b""] * (count - 1), *lines[at + count :]]
    return changed(base, read_lines(left[: len(lines)], folder))


@pytest.mark.parametrize("case", CASES)
def test_lost_events_leave_what_is_known_true(case: str, tmp_path: Path) -> None:
    lines = excerpt(case)
    base = whole(case, lines, tmp_path)
    for at, count in zip(places(case, lines, PLACES), (1, 5, 30, 120), strict=False):
        assert loses(base, lines, at, count, tmp_path) == [], f"{count} lost from line {at + 1} on"


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", SHORT)
def test_no_place_to_cut_or_to_lose_changes_a_fact(case: str, tmp_path: Path) -> None:
    lines = lines_of(case)
    base = whole(case, lines, tmp_path)
    for at in range(header_length(lines), len(lines)):
        assert ends_early(base, lines, at, tmp_path) == [], f"cut before line {at + 1}"
        assert begins_late(base, lines, at, tmp_path) == [], f"begun at line {at + 1}"
        for count in (1, 5, 30, 120):
            assert loses(base, lines, at, count, tmp_path) == [], f"{count} lost from line {at + 1} on"
