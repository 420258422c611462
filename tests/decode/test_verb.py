"""The verb `decode`: real processes, what goes to which stream, exit codes, and outputs that are read as a person reads
them."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.txt"))


def run(*arguments, given=None):
    """Run the verb as a process; standard input is ``given``, or nothing at all."""
    given = given.encode() if isinstance(given, str) else given
    command = [sys.executable, "-m", "gmemstate", "decode", *arguments]
    return subprocess.run(command, input=given or b"", capture_output=True, timeout=60, check=False)


def transcript(process):
    """What a person sees: standard output, standard error behind ``2>``, the exit code."""
    errors = "".join(f"2> {line}\n" for line in process.stderr.decode().splitlines())
    return f"{process.stdout.decode()}{errors}exit {process.returncode}\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_an_example_is_answered_word_for_word(path):
    """The first line of each file is the command, the rest what it prints."""
    command, _, expected = path.read_text(encoding="utf-8").partition("\n")
    words = shlex.split(command)
    assert words[:3] == ["$", "gmemstate", "decode"]
    assert transcript(run(*words[3:])) == expected


def test_there_are_ten_examples_and_more():
    assert len(GOLDEN) >= 10


def test_words_that_the_shell_took_apart_are_one_line_if_they_look_like_one():
    line = "SEV-SNP: RMPUPDATE failed for PFN 56700, pg_level: 1, ret: 2"
    assert run(*line.split()).stdout == run(line).stdout
    several = run("0x8000020000000092", "EAGAIN").stdout.decode()
    assert several.startswith("0x8000020000000092\n")
    assert "\nEAGAIN\n" in several


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_lines_are_read_from_standard_input(arguments):
    process = run(*arguments, given="-14\n\nKVM: unknown exit reason 24\n")
    assert process.returncode == 0
    assert "EFAULT (14)" in process.stdout.decode()
    assert "KVM_EXIT_SYSTEM_EVENT (24)" in process.stdout.decode()
    assert process.stderr == b""


def test_unknown_lines_of_standard_input_are_counted_and_the_first_are_named():
    process = run("-", given="EAGAIN\n" + "Call Trace:\n" * 9)
    assert process.returncode == 3
    errors = process.stderr.decode().splitlines()
    assert errors[0] == "line 2: nothing known in it: Call Trace:"
    assert len(errors) == 6
    assert errors[-1] == "9 of 10 lines hold nothing that is known"
    assert process.stdout.decode().startswith("EAGAIN\n")


@pytest.mark.parametrize(("arguments", "given"), [((), ""), (("-",), "\n \n"), (("",), None), (("  ",), None)])
def test_nothing_to_decode_is_wrong_usage(arguments, given):
    process = run(*arguments, given=given)
    assert process.returncode == 2
    assert process.stdout == b""
    assert process.stderr.decode().startswith("gmemstate: there is nothing to decode: give a word")


def test_a_word_that_nobody_knows_is_said_to_be_unknown():
    process = run("0xdeadbeef", "EAGAIN")
    assert process.returncode == 3
    assert process.stderr.decode().startswith("0xdeadbeef: not known")
    assert "EAGAIN (11)" in process.stdout.decode()


def test_a_negative_number_is_a_word_and_no_option():
    assert run("-14").returncode == 0
    assert run("-EAGAIN").stdout.decode().startswith("-EAGAIN\n  errno: EAGAIN (11)")


def test_json_holds_what_the_text_says():
    process = run("--json", "39", "0xdeadbeef", "KVM: unknown exit reason 24")
    several, unknown, line = json.loads(process.stdout)["rows"]
    assert process.returncode == 3
    assert (several["known"], several["words"][0]["certain"]) == (True, False)
    assert several["words"][0]["meanings"][0]["kind"] == "KVM exit"
    assert (unknown["known"], unknown["words"][0]["meanings"]) == (False, [])
    assert line["forms"] == [{"who": "QEMU", "says": "an exit that this QEMU does not know"}]
    assert (line["words"][0]["column"], line["words"][0]["text"]) == (26, "24")


HOSTILE = b"\x1b]0;owned\x07 EAGAIN \xc2\x9b31m \xe2\x80\xae 0x8000020000000092 \x1b[2J\x00 \xff\xfe EFAULT\x08\r\n"


@pytest.mark.parametrize("arguments", [("-",), ("-", "--json")])
def test_nothing_that_a_terminal_obeys_gets_through(arguments):
    process = run(*arguments, given=HOSTILE)
    shown = process.stdout.decode() + process.stderr.decode()
    assert "TDX_OPERAND_BUSY" in shown
    assert all(char == "\n" or char.isprintable() for char in shown)
    assert "\\x1b" in shown


def test_a_giant_line_is_looked_at_as_far_as_is_said():
    process = run("-", given="x " * 3000 + "EAGAIN\n")
    assert process.returncode == 3
    assert process.stdout == b""
    assert "line 1: only its first 4096 characters are looked at" in process.stderr.decode()


def test_colours_do_not_hide_words():
    process = run("-", given="\x1b[32m[    1.0] \x1b[0m\x1b[33mtdx: \x1b[0m\x1b[1;31mEAGAIN\x1b[0m\n")
    assert process.stdout.decode().startswith("[    1.0] tdx: EAGAIN\n")
    assert "errno: EAGAIN (11)" in process.stdout.decode()


def test_a_terminal_gets_lines_that_fit_and_every_word_of_them():
    far, near = os.openpty()
    command = [sys.executable, "-m", "gmemstate", "decode", "-14", "EAGAIN"]
    with subprocess.Popen(command, stdin=near, stdout=near, stderr=near, env=os.environ | {"COLUMNS": "72"}) as process:
        os.close(near)
        shown = b""
        # A terminal that nobody writes to any more ends with an error, not with an end of file.
        with contextlib.suppress(OSError):
            while piece := os.read(far, 1 << 16):
                shown += piece
    os.close(far)
    assert process.returncode == 0
    lines = shown.decode().splitlines()
    assert max(map(len, lines)) <= 72
    assert " ".join(" ".join(lines).split()) == " ".join(run("-14", "EAGAIN").stdout.decode().split())


def test_a_terminal_with_nothing_typed_is_not_waited_for():
    far, near = os.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "gmemstate", "decode"], stdin=near, capture_output=True, timeout=60, check=False
    )
    os.close(near)
    os.close(far)
    assert process.returncode == 2
    assert b"there is nothing to decode" in process.stderr


def test_hostile_words_on_the_command_line_are_shown_escaped():
    process = run("\x1b[31mred", "x\x9by", "\u202ebackwards")
    assert process.returncode == 3
    assert re.fullmatch(r"[\x20-\x7e\n]*", process.stderr.decode())


def test_a_reader_that_has_had_enough_is_no_error():
    command = f"yes EAGAIN | head -20000 | {shlex.quote(sys.executable)} -m gmemstate decode - | head -1"
    process = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert process.stdout == b"EAGAIN\n"
    assert process.stderr == b""
