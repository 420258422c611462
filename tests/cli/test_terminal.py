"""What a terminal shows and a pipe does not: colour, width, progress. Real processes on real pseudo-terminals."""

import io
import re
from pathlib import Path

import pytest

from gmemstate.cli import render
from tests.cli.running import Ran, on_terminal, run, say
from tests.traces import lines_of

ESCAPE = "\x1b"


def widths(ran: Ran) -> list[int]:
    """How wide the lines are, without escapes."""
    return [len(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip()) for line in ran.err.splitlines()]


@pytest.mark.parametrize("verb", ["conversions", "state", "postmortem", "status", "events", "replay"])
def test_a_pipe_gets_no_escape(verb: str, half_done: Path) -> None:
    ran = say("--db", half_done, verb)
    assert ESCAPE not in ran.out + ran.err
    assert "\r" not in ran.out + ran.err


def test_a_pipe_gets_every_column_however_narrow_the_terminal_is(half_done: Path) -> None:
    ran = run("--db", half_done, "conversions", env={"COLUMNS": "20"})
    assert ran.out.splitlines()[0].split() == [
        "id",
        "guest",
        "time",
        "range",
        "to",
        "returned",
        "verdict",
        "took",
        "asked",
        "by",
        "thread",
    ]
    assert ran.err == ""


def test_a_table_keeps_to_80_columns_and_says_what_it_leaves_out(half_done: Path) -> None:
    ran = on_terminal("--db", half_done, "conversions", columns=80)
    assert ran.code == 0
    assert max(widths(ran)) <= 80
    assert "gfn [0x100000,0x100080)" in ran.err
    assert "for want of width without: took, asked by, thread (a pipe and --json have them)" in ran.err


def test_a_wide_terminal_shows_all_columns(half_done: Path) -> None:
    ran = on_terminal("--db", half_done, "conversions", columns=200)
    assert ran.code == 0
    assert "guest_request" in ran.err
    assert "for want of width" not in ran.err
    assert 80 < max(widths(ran)) <= 200


def test_a_header_is_bold_on_a_terminal_and_NO_COLOR_brings_no_colour(half_done: Path) -> None:  # noqa: N802
    assert f"{ESCAPE}[1m" in on_terminal("--db", half_done, "state").err
    plain = on_terminal("--db", half_done, "state", env={"NO_COLOR": "1"}).err
    colours = [code for code in plain.split(f"{ESCAPE}[")[1:] if code[0] in "349" and code[1:2].isdigit()]
    assert colours == []
    dumb = on_terminal("--db", half_done, "state", env={"TERM": "dumb"}).err
    assert ESCAPE not in dumb


def test_a_postmortem_is_the_same_on_a_wide_terminal_and_in_a_pipe(half_done: Path) -> None:
    ran = on_terminal("--db", half_done, "postmortem", columns=300)
    assert ran.err == say("--db", half_done, "postmortem").out
    assert max(widths(ran)) <= 80


# --- progress -------------------------------------------------------------------------------------------------------

TRACE = b"\n".join(lines_of("half_done")) + b"\n"


def test_a_long_reading_shows_how_far_it_is_on_standard_error_only(tmp_path: Path) -> None:
    """The trace comes slowly, in pieces that are larger than a pipe; standard output is a pipe too."""
    ran = on_terminal("--db", tmp_path / "a.db", "ingest", "-", out=False, given=[TRACE[:70_000], TRACE[70_000:]], after=1)
    assert ran.code == 0
    assert ran.out == "standard input: 76 events; 998 lines = 602 used + 396 context + 0 not understood\n"
    assert "reading standard input" in ran.err
    assert ran.err.endswith(f"{ESCAPE}[2K"), "the bar is wiped away"


def test_a_short_reading_shows_no_bar(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(TRACE)
    ran = on_terminal("--db", tmp_path / "a.db", "ingest", tmp_path / "short.txt", out=False)
    assert (ran.code, ran.err) == (0, "")


def test_without_a_terminal_there_is_no_bar_however_long_it_takes(tmp_path: Path) -> None:
    slow = "(sleep 1; cat) | {}"
    ran = run("--db", tmp_path / "a.db", "ingest", "-", given=TRACE, shell=slow)
    assert (ran.code, ran.err) == (0, "")


def test_folding_a_long_record_shows_how_far_it_is(half_done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, with a terminal that is none and no patience: what is told is how many events were folded."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(render, "PATIENCE", 0.0)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("TERM", "xterm")
    with render.progress("folding", 76) as progress:
        progress(0)
        progress(38)
    assert "folding" in shown.getvalue()
    assert "50%" in shown.getvalue()
