"""A log that is being written is on record within a second; whatever ends the reading, the next one goes on where it ended."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gmemstate.ingest.input import HEAD_SIZE
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import DETAIL, KIND, KernelWarned, SourceOpened
from tests.cli.running import GMEMSTATE, PLAIN, Ran, run, say
from tests.traces import lines_of

SOON = 5.0
"""Within how many seconds a busy machine must have it on record; what is promised is measured by a clock that is not its
own."""
PATIENCE = 30.0
"""How long a busy machine may take (s) before a test gives up."""


def text(case: str) -> bytes:
    """A trace as `trace_pipe` gives it: without the header that counts the entries."""
    return b"".join(line + b"\n" for line in lines_of(case) if not line.startswith(b"#"))


def whole(content: bytes, folder: Path) -> list[tuple[Any, ...]]:
    """The record that one reading of the whole file gives."""
    (folder / "whole.txt").write_bytes(content)
    with Ledger.open(folder / "whole.db", durable=False) as ledger:
        ledger.ingest(folder / "whole.txt")
        return without_name(ledger)


def without_name(ledger: Ledger) -> list[tuple[Any, ...]]:
    """All events, each with all that it says; of the opening not the name of the file and how much of it was there."""
    return [row[:DETAIL] if row[KIND] == SourceOpened.code else row for row in ledger.record_.events()]


def record_of(where: Path) -> list[tuple[Any, ...]]:
    with Ledger.open(where, readonly=True) as ledger:
        return without_name(ledger)


def count(where: Path) -> int:
    """How many events are committed, as any program sees it."""
    try:
        connection = sqlite3.connect(f"file:{where}?mode=ro", uri=True)
        with connection:
            return int(connection.execute("SELECT count(*) FROM event").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def until(true: Callable[[], bool]) -> float:
    """Wait until something is so; how many seconds it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < PATIENCE, "it did not come to be"
        time.sleep(0.02)
    return time.monotonic() - begun


@contextmanager
def following(where: Path, *words: object, given: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that follows; it is killed at the end if it has not ended."""
    process = subprocess.Popen(
        [*GMEMSTATE, "--db", str(where), "ingest", *map(str, words)],
        stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PLAIN,
    )  # fmt: skip
    try:
        if given is None:  # from then on signals are heard
            assert process.stderr is not None
            assert process.stderr.readline().startswith(b"following ")
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: "subprocess.Popen[bytes]", by: signal.Signals) -> Ran:
    process.send_signal(by)
    out, err = process.communicate(timeout=PATIENCE)
    return Ran(process.returncode, out.decode(), err.decode())


# --- soon, and exactly once


def test_what_is_written_is_on_record_while_the_file_is_open(tmp_path: Path) -> None:
    """And while the process goes on."""
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    lines = text("half_done").splitlines(keepends=True)
    returned = max(n for n, line in enumerate(lines) if b" vm_ioctl_ret: " in line)
    log.write_bytes(b"".join(lines[:200]))
    with following(where, "--follow", log) as process, log.open("ab", buffering=0) as file:
        until(lambda: count(where) > 0)
        before = count(where)
        file.write(b"".join(lines[200 : returned + 1]))
        assert until(lambda: count(where) > before and len(conversions(where)) == 2) < SOON
        assert process.poll() is None
        assert ended(process, signal.SIGTERM).code == 0


def conversions(where: Path) -> list[Any]:
    if not count(where):
        return []
    with Ledger.open(where, readonly=True) as ledger:
        return [one for one in ledger.conversions() if one.errno is not None]


def test_however_often_it_is_killed_the_events_are_those_of_one_reading(tmp_path: Path) -> None:
    """Killed by SIGKILL at moments in the middle of the file, in the middle of a line, and while nothing is written."""
    content = text("race")
    expected = whole(content, tmp_path)
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    cuts = [0, len(content) // 3, len(content) // 2 + 7, len(content)]
    log.touch()
    for first, end in pairwise(cuts):
        with following(where, "--follow", log) as process, log.open("ab", buffering=0) as file:
            before = count(where)
            file.write(content[first:end])
            until(lambda before=before: count(where) > before)
            process.kill()
    with following(where, "--follow", log) as process:
        until(lambda: len(record_of(where)) >= len(expected) - 1)
        assert ended(process, signal.SIGTERM).code == 0
    say("--db", where, "ingest", log)  # states the end of the reading if it was ended while it recognised what it knew
    assert record_of(where) == expected
    assert say("--db", where, "check").code == 0


def test_reading_it_again_as_a_file_adds_nothing(tmp_path: Path) -> None:
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    log.write_bytes(text("simple"))
    with following(where, "--follow", log) as process:
        until(lambda: count(where) > 0)
        assert ended(process, signal.SIGTERM).code == 0
    before = record_of(where)
    assert "was read before; nothing is new" in say("--db", where, "ingest", log).out
    assert record_of(where) == before


def test_a_source_is_known_again_however_its_beginning_came(tmp_path: Path) -> None:
    """In pieces that end behind the bytes by which a source is known."""
    content, log, where = text("half_done"), tmp_path / "trace.txt", tmp_path / "a.db"
    log.write_bytes(content)
    ours, theirs = os.pipe()
    with following(where, "-", given=ours) as process, os.fdopen(theirs, "wb", buffering=0) as pipe:
        os.close(ours)
        pipe.write(content[: HEAD_SIZE - 100])
        time.sleep(0.1)
        pipe.write(content[HEAD_SIZE - 100 :])
        pipe.close()
        process.communicate(timeout=PATIENCE)
    assert "was read before; nothing is new" in say("--db", where, "ingest", log).out


def test_a_message_of_the_kernel_is_on_record_though_nothing_follows_it(tmp_path: Path) -> None:
    """Its other lines would have come at once; who waits for the next message may wait for days."""
    log, where = tmp_path / "kernel.log", tmp_path / "a.db"
    log.write_bytes(b"[  100.000001] kvm_intel: load kvm_intel with TDX.\n")
    with following(where, "--follow", log) as process, log.open("ab", buffering=0) as file:
        file.write(WARNING)
        until(lambda: warnings(where) == 1)
        process.kill()
        process.wait()
        known = count(where)
        file.write(b"[  300.000000] Memory failure: 0x1234: recovery action for dirty LRU page: Recovered\n")
    with following(where, "--follow", log) as process:
        until(lambda: count(where) > known)
        assert ended(process, signal.SIGINT).code == 130
    assert warnings(where) == 1
    assert say("--db", where, "ingest", log).out.startswith(f"{log}: was read before; nothing is new; 6 lines")


WARNING = b"""\
[  102.000000] ------------[ cut here ]------------
[  102.000001] WARNING: CPU: 3 PID: 77 at arch/x86/kvm/vmx/tdx.c:1700 tdx_sept_remove_private_spte+0x1a2/0x1b0 [kvm_intel]
[  102.000002] Call Trace:
[  102.000003]  kvm_vm_ioctl+0x1a2/0x1b0 [kvm]
"""


def warnings(where: Path) -> int:
    if not count(where):
        return 0
    with Ledger.open(where, readonly=True) as ledger:
        return sum(isinstance(event, KernelWarned) for event in (one.event for one in ledger.events()))


def test_two_logs_are_followed_into_one_ledger_at_once(tmp_path: Path) -> None:
    where, logs = tmp_path / "a.db", [tmp_path / "a.txt", tmp_path / "b.txt"]
    for log in logs:
        log.touch()
    contents = [text("simple").splitlines(keepends=True), text("ip_eagain_pin").splitlines(keepends=True)]
    with following(where, "--follow", logs[0]) as one, following(where, "--follow", logs[1]) as other:
        for part in range(8):
            for log, lines in zip(logs, contents, strict=True):
                with log.open("ab") as file:
                    file.writelines(lines[len(lines) * part // 8 : len(lines) * (part + 1) // 8])
            time.sleep(0.2)
        until(lambda: len(conversions(where)) == 3 + 6)
        assert [ended(process, signal.SIGTERM).code for process in (one, other)] == [0, 0]
    assert say("--db", where, "check").code == 0
    for log in logs:
        assert "was read before; nothing is new" in say("--db", where, "ingest", log).out


# --- files that are moved and emptied


def test_a_log_that_is_renamed_is_read_to_its_end_and_then_its_successor(tmp_path: Path) -> None:
    """Lines that come into the old file behind its renaming are read, as long as the writer has not begun the new one."""
    log, old, where = tmp_path / "trace.txt", tmp_path / "trace.txt.1", tmp_path / "a.db"
    first, second = text("half_done"), text("ip_eagain_pin")
    log.write_bytes(first[:-3000])
    with following(where, "--follow", log) as process:
        until(lambda: count(where) > 0)
        with log.open("ab", buffering=0) as file:
            log.rename(old)
            log.touch()
            time.sleep(0.4)
            file.write(first[-3000:])
        time.sleep(0.4)
        log.write_bytes(second)
        until(lambda: len(sources(where)) == 2)
        ran = ended(process, signal.SIGTERM)
    assert ran.code == 0
    assert [line.partition(" events")[0] for line in ran.out.splitlines()] == [
        f"{log}: 76",
        f"{log}: {len(whole(second, tmp_path))}",
    ]
    assert "another file has its name now" in ran.err
    assert say("--db", where, "ingest", old).out.startswith(f"{old}: was read before; nothing is new")


def test_a_log_that_is_copied_and_emptied_is_said_to_be_incomplete_and_its_copy_completes_it(tmp_path: Path) -> None:
    """Also where the new content is longer than the old one was by the time at which it is looked at."""
    log, copy, where = tmp_path / "trace.txt", tmp_path / "trace.txt.1", tmp_path / "a.db"
    first, second = text("ip_eagain_pin"), text("half_done")
    assert len(second) > len(first)
    log.write_bytes(first[:-3000])
    with following(where, "--follow", log) as process:
        until(lambda: count(where) > 50)
        time.sleep(0.3)
        copy.write_bytes(first)
        log.write_bytes(second)
        until(lambda: len(sources(where)) == 2)
        ran = ended(process, signal.SIGTERM)
    assert ran.code == 3
    assert "it was emptied while it was followed" in ran.err
    assert "0 not understood" in ran.out.splitlines()[1]
    assert say("--db", where, "ingest", copy).code == 0
    with Ledger.open(where, readonly=True) as ledger:
        assert len(ledger.record_.sources()) == 2
        assert not ledger.history().missing()
        assert len(ledger.conversions()) == 2 + 6


def test_a_log_that_says_nothing_known_is_told_and_its_successor_is_followed(tmp_path: Path) -> None:
    log, where = tmp_path / "qemu.log", tmp_path / "a.db"
    log.write_bytes(b"Dear kernel,\n")
    with following(where, "--follow", log) as process:
        time.sleep(0.5)
        log.rename(tmp_path / "old.log")
        log.write_bytes(text("simple"))
        until(lambda: count(where) > 0)
        ran = ended(process, signal.SIGTERM)
    assert ran.code == 0
    assert "no line of a known format among 1; line 1 is: Dear kernel," in ran.err


def test_a_log_that_says_nothing_known_ends_by_Ctrl_C_as_any_other(tmp_path: Path) -> None:  # noqa: N802
    log = tmp_path / "qemu.log"
    log.write_bytes(b"Dear kernel,\n")
    with following(tmp_path / "a.db", "--follow", log) as process:
        time.sleep(0.5)
        ran = ended(process, signal.SIGINT)
    assert ran.code == 130
    assert "no line of a known format among 1" in ran.err


def sources(where: Path) -> list[Any]:
    with Ledger.open(where, readonly=True) as ledger:
        return ledger.record_.sources()


# --- how it begins and ends


def test_a_file_that_does_not_exist_yet_is_waited_for_and_it_is_said(tmp_path: Path) -> None:
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    with following(where, "--follow", log) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(f"{log}: does not exist yet; waiting until it is made".encode())
        log.write_bytes(text("simple"))
        until(lambda: count(where) > 0)
        assert ended(process, signal.SIGINT).code == 130
    assert record_of(where) == whole(text("simple"), tmp_path)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_ends_by_a_signal_before_anything_was_read(by: signal.Signals, code: int, tmp_path: Path) -> None:
    with following(tmp_path / "a.db", "--follow", tmp_path / "never.txt") as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert ended(process, by) == (code, "", "")


def test_a_last_line_without_an_end_waits_for_its_rest(tmp_path: Path) -> None:
    """It is neither read in part nor called damaged."""
    content = text("half_done")
    at = content.rindex(b" vm_ioctl_ret: ") + 20
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    log.write_bytes(content[:at])
    with following(where, "--follow", log) as process:
        until(lambda: len(conversions(where)) == 1)
        time.sleep(1)
        assert len(conversions(where)) == 1
        first = ended(process, signal.SIGTERM)
    assert (first.code, "incomplete" in first.err) == (0, False)
    with following(where, "--follow", log) as process, log.open("ab", buffering=0) as file:
        file.write(content[at:])
        until(lambda: len(conversions(where)) == 2)
        assert ended(process, signal.SIGTERM).code == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no/such/folder.txt", "there is no folder"),
        (".", "is a directory; name the one file in it"),
        ("trace.gz", "is compressed, which cannot be followed"),
        ("trace.dat", "is a binary trace-cmd recording, which cannot be followed"),
        ("noise", "is binary data, not a log"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_one_line(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "trace.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    (tmp_path / "trace.dat").write_bytes(b"\x17\x08\x44tracing" + bytes(100))
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 300)
    ran = say("--db", tmp_path / "a.db", "ingest", "--follow", tmp_path / name)
    assert (ran.code, ran.out) == (4, "")
    *_, line = ran.err.splitlines()
    assert line.startswith(f"gmemstate: {tmp_path / name}: ")
    assert said in line


def test_two_files_cannot_be_followed_by_one_command(tmp_path: Path) -> None:
    ran = say("--db", tmp_path / "a.db", "ingest", "--follow", "a", "b")
    assert (ran.code, "begin one `gmemstate ingest --follow` for each" in ran.err) == (2, True)


# --- a pipe


def test_what_comes_through_a_pipe_is_on_record_while_it_is_open(tmp_path: Path) -> None:
    content, where = text("half_done"), tmp_path / "a.db"
    ours, theirs = os.pipe()
    pushed = os.fdopen(theirs, "wb", buffering=0)
    end = content.rindex(b" vm_ioctl_ret: ")
    end = content.index(b"\n", end) + 1
    with pushed, following(where, "-", given=ours) as process:
        os.close(ours)
        pushed.write(content[:40_000])
        until(lambda: count(where) > 0)
        pushed.write(content[40_000:end])
        assert until(lambda: len(conversions(where)) == 2) < SOON
        assert process.poll() is None
        ran = ended(process, signal.SIGTERM)
    assert ran.code == 0
    assert ran.out.startswith("standard input: ")


def test_a_pipe_gives_what_the_file_gives_and_again_adds_nothing(tmp_path: Path) -> None:
    content, where = text("ip_eagain_pin"), tmp_path / "a.db"
    assert run("--db", where, "ingest", "-", given=content).code == 0
    assert record_of(where) == whole(content, tmp_path)
    assert "was read before; nothing is new" in run("--db", where, "ingest", "-", given=content).out


def test_a_pipe_may_be_zipped_in_several_members(tmp_path: Path) -> None:
    import gzip

    content, where = text("simple"), tmp_path / "a.db"
    assert run("--db", where, "ingest", "-", given=gzip.compress(content[:9999]) + gzip.compress(content[9999:])).code == 0
    assert record_of(where) == whole(content, tmp_path)
    cut = run("--db", tmp_path / "b.db", "ingest", "-", given=gzip.compress(content)[:-900])
    assert cut.code == 3
    assert "the gzip data is damaged or cut" in cut.err


# --- what it takes


def test_status_says_that_what_is_followed_is_durable_at_once(tmp_path: Path) -> None:
    log, where = tmp_path / "trace.txt", tmp_path / "a.db"
    log.write_bytes(text("simple"))
    say("--db", where, "ingest", log)
    assert "followed" in say("--db", where, "status").out
