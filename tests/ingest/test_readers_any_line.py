"""Any bytes are a log: no exception but the one that says so, every line accounted for, every event fit to be stored."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.ingest.correlate.kernel_report import NEIGHBOURS, STACK, TEXT, Report
from gmemstate.ingest.correlate.tracker import Tracker
from gmemstate.ingest.fact import Context, Fact, Marker
from gmemstate.ingest.input import MAX_LINE, Account, Input
from gmemstate.ingest.readers.detect import FormatDetector, readers
from gmemstate.ingest.readers.envelopes import LogClock
from gmemstate.ingest.readers.strace import UNFINISHED, StraceReader
from gmemstate.ingest.session import IngestSession
from gmemstate.model.encoding import encode
from gmemstate.model.errors import CannotRead
from gmemstate.model.events import Event, detail, details
from tests.ingest import test_readers_calls, test_readers_frames, test_readers_kernel, test_readers_vmm

KNOWN = [
    *(line for line, *_ in test_readers_kernel.LINES.values()),
    *(line for line, *_ in test_readers_vmm.LINES.values()),
    *test_readers_calls.RESULTS,
    *test_readers_calls.THROUGH,
    *test_readers_kernel.WARNING.splitlines(),
    *test_readers_kernel.FAULT.splitlines(),
    *test_readers_kernel.STACK.splitlines(),
    *test_readers_kernel.GAPS,
    test_readers_frames.TRACE,
    test_readers_frames.PERF,
    "     0.100 ( 0.010 ms): vmm/77 ioctl(fd: 4, cmd: (0xae, 0xd2, 0x1), arg: 0x7ffc)     = -1 ENOTTY (Inappropriate ioctl "
    "for device)",
    '{"t": 5, "tid": 77, "comm": "a", "kind": "vm_ioctl", "cmd": "0x4020aed2", "addr": 4096, "size": 4096, "attrs": 8}',
]
FRAMES = [frame for frame, *_ in test_readers_frames.FRAMES.values()]
NUMBERS = [
    "0",
    "-1",
    "0x0",
    "f" * 16,
    "0x" + "f" * 16,
    "9" * 19,
    "9" * 20,
    str(1 << 63),
    hex(1 << 52),
    "\x1b[31m",
    "é",
    "\u202e",
    "\x00",
]

known = st.sampled_from(KNOWN)
lines = st.builds(lambda frame, line: frame.replace("{}", line), st.sampled_from(FRAMES), known) | known


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A known line, cut, with something foreign in it, or with other numbers."""
    line = draw(lines)
    at = draw(st.integers(0, len(line)))
    end = draw(st.integers(at, len(line)))
    foreign = draw(st.sampled_from(NUMBERS) | st.text(max_size=8) | known)
    return draw(
        st.sampled_from([line[:at], line[at:], line[:at] + foreign + line[end:], line[:at] + line[at:end] * 3 + line[end:]])
    ).encode("utf-8", "surrogatepass")


def read(data: bytes, folder: Path) -> tuple[Account, list[Event]] | None:
    """What a file says; None if it is refused."""
    path = folder / "a.log"
    path.write_bytes(data)
    try:
        source = Input(str(path))
    except CannotRead:
        return None
    try:
        reading = IngestSession(source)
        return reading.account, [event for events in reading.events() for event in events]
    except CannotRead:
        return None
    finally:
        source.close()


def check(data: bytes, folder: Path) -> None:
    found = read(data, folder)
    if found is None:
        return
    account, events = found
    assert account.used + sum(account.context.values()) + account.unparsed == account.lines == data.count(b"\n")
    encode([event.row() for event in events])
    for event in events:
        assert event.detail is None or event.detail == detail(**details(event.detail)), "canonical JSON"
        assert event.detail is None or event.detail.isprintable()


@given(st.lists(damaged() | lines.map(str.encode) | st.binary(max_size=40), max_size=12))
def test_damaged_lines_are_accounted_for_and_what_they_still_say_can_be_stored(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    check(b"".join(part.replace(b"\n", b" ") + b"\n" for part in parts), tmp_path_factory.getbasetemp())


NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_that_cannot_be_makes_no_event_that_cannot_be_stored(number: str, tmp_path: Path) -> None:
    """Each number of each known line is put in the place of a reasonable one."""
    changed = [line[: found.start()] + number + line[found.end() :] for line in KNOWN for found in NUMBER.finditer(line)]
    check("".join(f"{line}\n" for line in changed).encode(), tmp_path)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    check(data, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("reader", range(len(readers(LogClock()))))
@given(text=st.text(max_size=60) | damaged().map(lambda line: line.decode("utf-8", "backslashreplace")))
def test_no_reader_raises(reader: int, text: str) -> None:
    said = readers(LogClock())[reader].parse(1, text)
    assert said is None or isinstance(said, Fact | Context | Marker | list)


FRAGMENTS = [
    "0",
    " ",
    "a",
    "<",
    ">",
    "(",
    "[",
    "-",
    ": ",
    "0x1, ",
    "\\",
    '"',
    "a-1 ",
    "1 ",
    "[1] ",
    "> ",
    "E",
    "_IOC(",
    '{"a":',
    "T1] ",
    ")",
]


@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_a_giant_line_is_over_soon(fragment: str) -> None:
    """Each known line with its second half drowned in repetitions: time in proportion to the length, or this never ends."""
    chooser = FormatDetector()
    for line in KNOWN[::3]:
        chooser.parse(1, (line[: len(line) // 2] + fragment * MAX_LINE)[:MAX_LINE])
    chooser.parse(1, (fragment * MAX_LINE)[:MAX_LINE])


def test_calls_that_never_end_are_not_remembered_for_ever() -> None:
    reader = StraceReader(LogClock())
    for thread in range(UNFINISHED + 100):
        reader.parse(thread, f"{thread} ioctl(4, KVM_RUN <unfinished ...>")
    assert len(reader._entered) == UNFINISHED


def test_a_report_without_an_end_does_not_grow_for_ever() -> None:
    chooser, tracker = FormatDetector(), Tracker()
    tell = ["SEV-SNP: RMPUPDATE failed for PFN 2a3b4c, pg_level: 1, ret: 2"]
    tell += [f" frame_{n}+0x1/0x2 [kvm]" for n in range(1000)]
    tell += [f"SEV-SNP: PFN: {n:#x}, [{1 | n << 12 | (n % 1000) << 51:#018x} - 0x0]" for n in range(1000)]
    tell += [" ".join(["very"] * 4000) + " long+0x1/0x2"]
    for number, line in enumerate(tell, 1):
        said = chooser.parse(number, line)
        if isinstance(said, Fact):
            tracker.feed(said)
    report = tracker.report
    assert isinstance(report, Report)
    assert len(report.frames) == STACK
    assert len(report.neighbours) == NEIGHBOURS
    tracker.flush()
    (event,) = tracker.take()
    assert all(len(text) <= TEXT for text in json.loads(event.detail or "{}").values() if isinstance(text, str))
