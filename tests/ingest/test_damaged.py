"""Damaged traces are read as far as they can be: no exception but those that say what to do, no line uncounted."""

import contextlib
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gmemstate.ingest.fact import PROBES, Marker
from gmemstate.ingest.readers.detect import FormatDetector
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.model.encoding import encode
from gmemstate.model.errors import GmemstateError
from gmemstate.model.linux import LAST_PAGE
from tests import views
from tests.traces import CASES, Read, lines_of, read_lines

SMALL = [
    case
    for case in CASES
    if case not in ("ip_race_host2", "st_conv_full", "st_set_region", "st_conv_tp", "st_gmem_conversions")
]
NUMBERS = (
    b"0", b"-1", b"7", b"007", b"0x", b"0xffffffffffffffff", b"0x10000000000000000", b"0x8000000000000000",
        b"18446744073709551615",
    b"99999999999999999999", b"-9223372036854775808", b"-9223372036854775809", b"4503599627370496", b"9" * 5000,
        b"0x" + b"f" * 5000,
    b"-0x1", b"1.5", b"nan", b"(fault)", "\u0663".encode(),
)  # fmt: skip
"""What a number is not, or seldom is."""
NUMBER = re.compile(rb"-?(?:0x[0-9a-f]+|\d+)")

Mutation = Callable[[list[bytes], random.Random], None]


def _flip(lines: list[bytes], dice: random.Random) -> None:
    line = bytearray(dice.choice(lines) or b" ")
    line[dice.randrange(len(line))] = dice.choice([byte for byte in range(256) if byte != 10])
    lines[dice.randrange(len(lines))] = bytes(line)


def _cut(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(lines))
    lines[at] = lines[at][: dice.randrange(len(lines[at]) + 1)]


def _number(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(lines))
    if found := list(NUMBER.finditer(lines[at])):
        match = dice.choice(found)
        lines[at] = lines[at][: match.start()] + dice.choice(NUMBERS) + lines[at][match.end() :]


def _numbers(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(lines))
    head, colon, body = lines[at].partition(b": ")
    lines[at] = head + colon + NUMBER.sub(lambda match: dice.choice([match[0], *NUMBERS]), body)


def _field(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(lines))
    if found := list(re.finditer(rb" \w+=\S+", lines[at])):
        match = dice.choice(found)
        lines[at] = lines[at][: match.start()] + lines[at][match.end() :]


def _swap(lines: list[bytes], dice: random.Random) -> None:
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _repeat(lines: list[bytes], dice: random.Random) -> None:
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))


def _thread(lines: list[bytes], dice: random.Random) -> None:
    other = re.search(rb"-\d+ +\[", dice.choice(lines))
    at = dice.randrange(len(lines))
    if other:
        lines[at] = re.sub(rb"-\d+ +\[", other[0], lines[at], count=1)


def _join(lines: list[bytes], dice: random.Random) -> None:
    at = dice.randrange(len(lines))
    lines[at] += dice.choice(lines)


def _about_itself(lines: list[bytes], dice: random.Random) -> None:
    said = (b"CPU:0 [LOST 3 EVENTS]", b"CPU:1 [LOST EVENTS]", b"CPU:0 [999999999999999999999 EVENTS DROPPED]",
            b"##### CPU 1 buffer started ####", b"# tracer: nop",
                b"# entries-in-buffer/entries-written: 9/3   #P:2")  # fmt: skip
    lines[dice.randrange(len(lines))] = dice.choice(said)


MUTATIONS = (_flip, _cut, _number, _numbers, _field, _swap, _repeat, _thread, _join, _about_itself)


def damaged(case: str, seed: int, count: int) -> list[bytes]:
    """A capture with so many damages, the same ones for the same seed."""
    dice, lines = random.Random(seed), list(lines_of(case)[:1500])
    for _ in range(count):
        dice.choice(MUTATIONS)(lines, dice)
    return lines


def ask_everything(read: Read) -> None:
    """Every answer can be given, and every event can be stored."""
    encode(read.rows)
    views.conversions(read.history)
    views.requests(read.history)
    views.messed_up(read.history)
    list(views.state(read.history))
    list(views.state(read.history, unit="idx"))
    read.history.missing()


def read_damaged(lines: list[bytes], folder: Path) -> None:
    with contextlib.suppress(GmemstateError):
        ask_everything(read_lines(lines, folder))  # which checks the account


@settings(max_examples=150)
@given(case=st.sampled_from(SMALL), seed=st.integers(0, 1 << 32), count=st.integers(1, 25))
def test_a_damaged_trace_is_read_as_far_as_it_can_be(
    case: str, seed: int, count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_damaged(damaged(case, seed, count), tmp_path_factory.getbasetemp())


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", CASES)
def test_no_damage_is_too_much(case: str, tmp_path: Path) -> None:
    for seed in range(2000):
        read_damaged(damaged(case, seed, 1 + seed % 40), tmp_path)


TEXTS = [
    line for case in ("simple", "ip_eagain_pin", "simple_graph", "guest_ask", "hwpoison_private") for line in lines_of(case)
]


@settings(max_examples=300)
@given(line=st.sampled_from(TEXTS), at=st.floats(0, 1), junk=st.binary(max_size=12))
@example(line=TEXTS[-1], at=0.0, junk=b"")
def test_a_reader_understands_a_line_or_says_that_it_does_not(line: bytes, at: float, junk: bytes) -> None:
    place = int(at * len(line))
    FtraceReader().parse(1, (line[:place] + junk + line[place:]).decode("utf-8", "backslashreplace"))


# --- numbers that cannot be -----------------------------------------------------------------------------------------------

LINE = " qemu-7 [000] ..... 1.000000: "


NEEDS = {name: kind.needs for name, kind in PROBES.items() if kind.needs}


@pytest.mark.parametrize("name", sorted(NEEDS.keys() - {"vm_created", "vm_destroyed"}))
def test_a_probe_without_a_number_that_it_needs_is_not_understood(name: str) -> None:
    fields = {field: f"{field}=0x1" for field in NEEDS[name]} | {"end": "end=0x2"}
    reader = FtraceReader()
    assert reader.parse(1, f"{LINE}{name}: (f+0x4/0x9) {' '.join(fields.values())}") is not None
    for field in NEEDS[name]:
        rest = " ".join(text for other, text in fields.items() if other != field)
        assert reader.parse(1, f"{LINE}{name}: (f+0x4/0x9) {rest}") is None


@pytest.mark.parametrize(
    "said",
    [
        "kvm_vm_set_mem_attributes: 0x00000000000002 -- 0x00000000000002 [0x8]",
        "kvm_vm_set_mem_attributes: 0x00000000000003 -- 0x00000000000002 [0x8]",
        f"kvm_vm_set_mem_attributes: {LAST_PAGE:#x} -- {LAST_PAGE + 1:#x} [0x8]",
        "kvm_tdp_mmu_spte_changed: as id 0 gfn 100000 level 0 old_spte 0 new_spte 0",
        "kvm_tdp_mmu_spte_changed: as id 0 gfn 100000 level 99 old_spte 0 new_spte 0",
        "kvm_unmap_hva_range: mmu notifier unmap range: 0x007f0000002000 -- 0x007f0000001000",
        "gmem_get_pfn: (f) kvm=0x1 gfn=-1 ret=0",
        "gmem_create: (f) kvm=0x1 size=0x1000 fd=99999999999",
        "unmap_gfn: (f) kvm=0x1 start=0x5 end=0x4",
        "range_has_attrs: (f) kvm=0x1 start=0x5 end=0xffffffffffffffff attrs=0x8 ret=1",
    ],
)
def test_numbers_that_the_kernel_cannot_have_meant_are_not_understood(said: str) -> None:
    assert FtraceReader().parse(1, LINE + said) is None


def test_a_time_that_does_not_fit_is_not_understood() -> None:
    assert FtraceReader().parse(1, LINE.replace("1.000000", "99999999999.000000") + "tlb_flush: (f) kvm=0x1") is None


@pytest.mark.parametrize("npages", ["0xffffffffffffffff", "0x8000000000000000", "0x10000000000001"])
def test_a_guest_that_asks_for_more_pages_than_there_are_is_on_record(npages: str, tmp_path: Path) -> None:
    """A guest may put anything into its registers; KVM answers that with an error, and the record must bear it."""
    line = f"{LINE}kvm_hypercall: nr 0xc a0 0x1000 a1 {npages} a2 0x10 a3 0x0"
    read = read_lines([line.encode()], tmp_path)
    ask_everything(read)
    (request,) = views.requests(read.history)
    assert (request["gpa"], request["pages"]) == ("0x1000", int(npages, 16))


@pytest.mark.parametrize("piece", ["-", "- ", " ", "1", "=", "a-1 ", "| ", "[ "])
def test_the_time_for_a_line_grows_with_its_length_and_no_faster(piece: str) -> None:
    """A line is read by patterns that do not try again what has failed: this would not end in a lifetime."""
    for before in ("", " a-1 [000] 1.1: ", "[    1.1] "):
        chooser = FormatDetector()
        for number in (1, 2):
            assert not isinstance(chooser.parse(number, before + piece * (200_000 // len(piece)) + " x~"), Marker)
