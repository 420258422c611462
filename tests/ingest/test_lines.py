"""Framing: every byte belongs to a line, every line is counted, and no line is too long for the memory."""

import gzip
import hashlib
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.ingest.input import MAX_LINE, Input
from gmemstate.model.errors import CannotRead
from gmemstate.text import printable
from tests.cli.running import GMEMSTATE, PLAIN
from tests.traces import lines_of, read_file, read_lines

GIANT = 200 << 20
EVENT = b" qemu-7 [000] ..... 1.000000: kvm_vm_set_mem_attributes: 0x00000000000001 -- 0x00000000000002 [0x8]"


def given_lines(path: Path) -> tuple[list[bytes], Input]:
    source = Input(str(path))
    lines = list(source.lines())
    source.close()
    return lines, source


@given(parts=st.lists(st.binary(max_size=60).map(lambda data: data.replace(b"\n", b"").replace(b"\0", b"")), min_size=1))
def test_lines_offset_and_digest_are_those_of_the_bytes(parts: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    data = b"".join(part + b"\n" for part in parts)
    path = tmp_path_factory.mktemp("framing") / "log"
    path.write_bytes(b"x" + data)
    lines, source = given_lines(path)
    assert lines == [b"x" + parts[0], *parts[1:]]
    assert (source.offset, source.digest) == (len(data) + 1, hashlib.sha256(b"x" + data).hexdigest())
    assert source.damage is None


def test_the_digest_covers_the_lines_given_so_far_and_nothing_behind_them(tmp_path: Path) -> None:
    data = b"first\n" + b"y" * (5 << 20) + b"\nlast\n\n" + b"z" * (3 << 20)
    (tmp_path / "log").write_bytes(data)
    source = Input(str(tmp_path / "log"))
    offsets = []
    for _ in source.lines():
        offsets.append(source.offset)
        assert source.digest == hashlib.sha256(data[: source.offset]).hexdigest()
    source.close()
    assert offsets == [6, 7 + (5 << 20), 12 + (5 << 20), 13 + (5 << 20)]
    assert source.digest == hashlib.sha256(data[: offsets[-1]]).hexdigest()


@pytest.mark.parametrize("length", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
def test_the_beginning_of_a_long_line_is_given_and_all_of_it_counted(length: int, tmp_path: Path) -> None:
    data = b"first\n" + b"y" * length + b"\nlast\n"
    (tmp_path / "log").write_bytes(data)
    lines, source = given_lines(tmp_path / "log")
    assert lines == [b"first", b"y" * min(length, MAX_LINE), b"last"]
    assert (source.offset, source.digest) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_last_line_without_an_end_may_be_cut_and_is_not_read(tmp_path: Path) -> None:
    whole = read_lines([EVENT], tmp_path)
    (tmp_path / "cut").write_bytes(EVENT + b"\n" + EVENT[:-7])
    cut = read_file(tmp_path / "cut")
    assert cut.account.lines == 1
    assert cut.conversions[0]["start"] == whole.conversions[0]["start"]
    (source,) = cut.history.sources.values()
    assert source.damage == "the last line has no end"


def test_damaged_compression_gives_what_came_before_it(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(EVENT + b"\n" for _ in range(50_000)), mtime=0)
    (tmp_path / "log.gz").write_bytes(packed[: len(packed) // 2])
    read = read_file(tmp_path / "log.gz")
    (source,) = read.history.sources.values()
    assert source.damage is not None
    assert "damaged or cut" in source.damage
    assert 0 < read.account.lines < 50_000


# --- strange bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strange",
    [b"\xff\xfe\x80 what", b"\x1b]0;owned\x07\x1b[2J", b"\xe2\x80\xae\xe2\x80\xa8", b"a\tb\x7f\x9b31m", b"\xc3\x28", b""],
    ids=["not UTF-8", "terminal escapes", "bidirectional text", "control characters", "cut UTF-8", "nothing"],
)
def test_strange_bytes_between_events_change_nothing_and_are_shown_harmless(strange: bytes, tmp_path: Path) -> None:
    read = read_lines([EVENT, strange, EVENT], tmp_path)
    assert len(read.conversions) == 2
    assert all(text.isprintable() for _, text in read.account.first_unparsed)
    assert read.account.unparsed == (1 if strange else 0)


def test_strange_bytes_inside_of_events_are_stored_harmless(tmp_path: Path) -> None:
    name = EVENT.replace(b"qemu", b"q\x1b[31m\xffmu")
    failure = b" qemu-7 [000] ..... 2.0: memory_failure_event: pfn 0x1: recovery action for \x1b[2Jpage: Failed"
    read = read_lines([name, failure], tmp_path)
    assert len(read.conversions) == 1
    assert all(text.isprintable() for row in read.rows for text in row if isinstance(text, str))


def test_a_null_byte_behind_the_beginning_is_one_strange_line(tmp_path: Path) -> None:
    read = read_lines([*[EVENT] * 200, b"\0\0\0", EVENT], tmp_path)
    assert (read.account.used, read.account.unparsed) == (201, 1)


@pytest.mark.parametrize(
    "data", [b"", b"\0\0\0\0", EVENT + b"\0\n", b"\x17\x08\x44tracing6\0", b"\x1f\x8b\x08", b"\n" * 10, b"hello\n"]
)
def test_what_is_no_log_is_refused_in_one_line_that_names_it(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "strange"
    path.write_bytes(data)
    with pytest.raises(CannotRead) as refused:
        read_file(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@given(st.text())
def test_printable_text_holds_nothing_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


# --- memory -------------------------------------------------------------------------------------------------------------


def giant() -> Iterator[bytes]:
    """A giant line between two events."""
    yield EVENT + b"\n"
    for _ in range(GIANT >> 20):
        yield b"z" * (1 << 20)
    yield b"\n" + EVENT + b"\n"


def test_a_giant_line_takes_a_few_buffers_of_memory(tmp_path: Path) -> None:
    path = tmp_path / "giant.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.writelines(giant())
    tracemalloc.start()
    try:
        read = read_file(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (read.account.lines, read.account.used, read.account.unparsed) == (3, 2, 1)
    assert peak < 16 << 20


def test_a_giant_line_in_a_pipe_is_read_by_a_process_with_little_memory(tmp_path: Path) -> None:
    """Of the 320 MiB of address space, Python and SQLAlchemy take most."""
    limited = [
        "bash",
        "-c",
        'ulimit -v 327680; exec "$@"',
        "bash",
        *GMEMSTATE,
        "--db",
        str(tmp_path / "giant.db"),
        "ingest",
        "-",
    ]
    reader = subprocess.Popen(limited, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=PLAIN)
    assert reader.stdin is not None
    for piece in giant():
        reader.stdin.write(piece)
    out, err = reader.communicate(timeout=300)
    assert (reader.returncode, err) == (0, b"")
    assert b"3 lines = 2 used + 0 context + 1 not understood" in out


def test_a_long_log_without_one_event_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmemstate.ingest.session.GIVE_UP_AFTER", 500)
    path = tmp_path / "novel"
    path.write_bytes(b"It was a dark and stormy night.\n" * 100_000)
    with pytest.raises(CannotRead, match="no line of a known format among 500; line 1 is: It was"):
        read_file(path)


# --- time -----------------------------------------------------------------------------------------------------------------

HOSTILE = r"""
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.ingest.input import MAX_LINE
reader = FtraceReader()
line, graph = " a-1 [000] ..... 1.0: ", " 1.0 | 0) a-1 | | "
units = [" ", "-", "-1 ", "-1 [0] ", "(", "a", "a ", "a=1 ", "a: 1, ", ".", "1",
         "|", "#", "ret=1 ", ")", ");", ");/* ", "/* ", "a.part", "=>", "\t"]
starts = ["", "a-1 ", "a-1 [000] ", "# ", "CPU:", "0) ", "1.",
        *(line + word for word in ("", "sys_ioctl(", "sys_", "gmem_inv: ",
    "kvm_page_fault: vcpu 0 ", "kvm_userspace_exit: reason ", "signal_generate: ", "memory_failure_event: pfn 0x1: ")),
    *(graph + word for word in ("", "f(", "f(); /* ", "f(); /* ret=", "} /* ", "} /* a [", "} /* a ret=", "/* a: "))]
for _ in range(3):
    for start in starts:
        for unit in units:
            reader.parse(1, (start + unit * MAX_LINE)[:MAX_LINE])
"""


def test_hostile_lines_take_time_in_proportion_to_their_length() -> None:
    """2000 lines at some milliseconds each; if one of the patterns went back over what it has read, they would take hours."""
    subprocess.run([sys.executable, "-c", HOSTILE], env=PLAIN, timeout=240, check=True)


# --- the account ------------------------------------------------------------------------------------------------------------


def test_lines_that_are_not_understood_are_counted_and_the_first_ones_kept(tmp_path: Path) -> None:
    strange = [b"strange %d" % n for n in range(20)]
    read = read_lines([line for pair in zip(strange, [EVENT] * 20, strict=True) for line in pair], tmp_path)
    assert (read.account.used, read.account.unparsed, read.account.lines) == (20, 20, 40)
    assert read.account.first_unparsed == [(2 * n + 1, f"strange {n}") for n in range(5)]


def test_the_account_of_a_capture_has_every_line_of_the_file(tmp_path: Path) -> None:
    """`read_file` checks of whatever any test reads that used + context + unparsed is the number of lines."""
    read = read_lines(lines_of("simple"), tmp_path)
    assert read.account.lines == len(lines_of("simple"))
    assert read.account.used + sum(read.account.context.values()) == read.account.lines
