"""Whatever is in a log, every answer can be given: no exception, no line lost, nothing that a terminal obeys, memory bounded.

A sample runs always; `tools/test -m fuzz` runs the long form, for minutes and elsewhere at each run.
"""

import random
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmemstate.conclusions.host import host
from gmemstate.ingest.input import MAX_LINE, Input
from gmemstate.ingest.session import IngestSession
from gmemstate.messages.reading import read as decode
from gmemstate.model.encoding import encode
from gmemstate.model.errors import CannotRead
from gmemstate.postmortem.render import html, text
from tests import views
from tests.ingest.test_readers_any_line import FRAMES, KNOWN, NUMBERS
from tests.postmortem.telling import post_mortem_of
from tests.traces import CASES, SHARED, Read, lines_of, read_file

OBEYED = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
CAPTURED = [line for case in CASES for line in lines_of(case)[:60:4]]
PUBLIC = [line for path in sorted(SHARED.glob("samples/*/*.log")) for line in path.read_bytes().splitlines()]
"""Real lines of others, where they are at hand."""
LINES = [line.encode() for line in KNOWN] + CAPTURED + PUBLIC
FOREIGN = [
    b"\x1b[31;5mred\x07", b"\x1b]0;title\x07", b"\x9b2J", b"\r", b"\x08\x08", b"\xff\xfe\x80", b"\xc3",
        b"\xed\xa0\x80", "\u202e\u2066\u200b".encode(),
    b"\x00", b"\x0b\x0c\x1c\x85", "\u2028".encode(), b"<script>", b"%s%n", b"{" * 50, b"[" * 5000, b'"',
        b"\\", b"...", b"[ cut here ]",
    *(number.encode("utf-8", "surrogatepass") for number in NUMBERS),
]  # fmt: skip


def clean(shown: str, also: str = "\n") -> bool:
    """Whether there is nothing that a terminal obeys, and nothing that turns text round or hides."""
    return not OBEYED.search(shown) and all(char.isprintable() or char in also for char in shown)


def answer_everything(data: bytes, folder: Path) -> None:
    """Read a log and ask all that can be asked; only CannotRead may be raised, and what it says is clean."""
    path = folder / "a.log"
    path.write_bytes(data)
    try:
        read = read_file(path)  # which checks the account
    except CannotRead as error:
        refusal = str(error)
    else:
        ask_everything(read, data)
        return
    assert clean(refusal)


def ask_everything(read: Read, data: bytes) -> None:
    assert read.account.lines == data.count(b"\n")
    assert all(clean(line) for _, line in read.account.first_unparsed)
    encode(read.rows)
    told = post_mortem_of(read)
    assert clean(text.report(told))
    assert clean(html.page(told))
    host(read.history)
    views.conversions(read.history)
    views.requests(read.history)
    views.messed_up(read.history)
    list(views.state(read.history))
    list(views.state(read.history, unit="idx"))


def explain(line: bytes) -> None:
    """Decode a line as it may be pasted."""
    decode(line.decode("utf-8", "backslashreplace"))


# --- mutations ------------------------------------------------------------------------------------------------------


def _cut(line: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(line) + 1)
    return dice.choice((line[:at], line[at:]))


def _foreign(line: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(line) + 1)
    return line[:at] + dice.choice(FOREIGN) + line[at + dice.randrange(4) :]


def _flip(line: bytes, dice: random.Random) -> bytes:
    changed = bytearray(line or b" ")
    changed[dice.randrange(len(changed))] = dice.choice([byte for byte in range(256) if byte != 10])
    return bytes(changed)


def _number(line: bytes, dice: random.Random) -> bytes:
    found = list(re.finditer(rb"0x[0-9a-f]+|\d+", line))
    if not found:
        return line
    match = dice.choice(found)
    return line[: match.start()] + dice.choice(NUMBERS).encode("utf-8", "surrogatepass") + line[match.end() :]


def _words(line: bytes, dice: random.Random) -> bytes:
    words = line.split(b" ")
    dice.shuffle(words)
    return b" ".join(words)


def _frame(line: bytes, dice: random.Random) -> bytes:
    head, _, tail = dice.choice(FRAMES).partition("{}")
    return head.encode() + line + tail.encode()


def _join(line: bytes, dice: random.Random) -> bytes:
    return line + dice.choice((b" ", b"", b"; ")) + dice.choice(LINES)


def _repeat(line: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(line) + 1)
    return line[:at] + line[at : at + 8] * dice.choice((2, 50, 3000)) + line[at:]


def _giant(line: bytes, dice: random.Random) -> bytes:
    return line + dice.choice((b"a", b" 0x1", b", ", b"(", b"\\", b"+0x1/0x2 ")) * (MAX_LINE // dice.choice((2, 8)))


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _cut, _foreign, _flip, _number, _words, _frame, _join, _repeat, _foreign, _number, _giant,
)  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    """A real line with some damage, or none."""
    line = dice.choice(LINES)
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        line = dice.choice(MUTATIONS)(line, dice)
    return line.replace(b"\n", b" ")


def log(dice: random.Random) -> bytes:
    """A log of real lines, most of them damaged, some in the order that they came in."""
    lines: list[bytes] = []
    for _ in range(dice.choice((1, 3, 12, 40))):
        if dice.random() < 0.2:
            at = dice.randrange(len(LINES))
            lines += LINES[at : at + dice.randrange(12)]
        lines.append(mutated(dice))
    end = dice.choice((b"\n", b"\n", b"\r\n", b""))
    return b"\n".join(lines) + end


# --- tests ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 48))
def test_every_answer_can_be_given_of_a_damaged_log(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    answer_everything(log(random.Random(seed)), tmp_path_factory.getbasetemp())


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 48))
def test_a_damaged_line_is_decoded_as_far_as_it_can_be(seed: int) -> None:
    explain(mutated(random.Random(seed)))


def seeds(minutes: float) -> Iterator[int]:
    """Ever new seeds until the time is up."""
    end, chance = time.monotonic() + 60 * minutes, random.SystemRandom()
    while time.monotonic() < end:
        yield chance.randrange(1 << 48)


@pytest.mark.fuzz
def test_every_answer_can_be_given_of_many_damaged_logs(tmp_path: Path) -> None:
    for seed in seeds(6):
        try:
            answer_everything(log(random.Random(seed)), tmp_path)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error


@pytest.mark.fuzz
def test_many_damaged_lines_are_decoded_as_far_as_they_can_be() -> None:
    for seed in seeds(2):
        line = mutated(random.Random(seed))
        before = time.process_time()
        try:
            explain(line)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert time.process_time() - before < 5, f"seed {seed}"


@pytest.mark.fuzz
@settings(max_examples=5_000, derandomize=False, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=2000) | st.text(max_size=1000).map(lambda words: words.encode("utf-8", "replace")))
def test_many_random_bytes_are_read_or_refused(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    answer_everything(data, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.fuzz), pytest.param(3, marks=pytest.mark.fuzz)])
def test_the_memory_of_a_reader_does_not_grow_with_a_hostile_log(seed: int, tmp_path: Path) -> None:
    """Twice the damaged lines take no more memory: what is not bounded by the guests and pages named is let go.

    One giant line without an end (tens of megabytes) is in it as well.
    """
    dice = random.Random(seed)
    some = [mutated(dice).replace(b"\0", b"")[:2000] for _ in range(300)]  # a file with a NUL is no log

    def peak(times: int) -> int:
        path = tmp_path / f"{times}.log"
        path.write_bytes(b"".join(line + b"\n" for line in some * times) + b"SEAMCALL " * (2 << 20))
        source = Input(str(path))
        tracemalloc.start()
        try:
            for _ in IngestSession(source).events():
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            source.close()
            path.unlink()

    assert peak(16) < peak(4) + (4 << 20)
