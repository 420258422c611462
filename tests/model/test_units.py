"""Units: pages, addresses and times are what their names say, and text is read as it is printed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mypy import api

from gmemstate.model import units

U64 = st.integers(0, 2**64 - 1)


MIXED = """
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Slot, Vm
from gmemstate.model.units import Gfn, Gpa, PageIndex, Pfn, gfn_of, gpa_of

def mixed(memory: Memory, vm: Vm, slot: Slot, gfn: Gfn, gpa: Gpa, pfn: Pfn, index: PageIndex) -> None:
    {}
"""


@pytest.mark.parametrize(
    ("fits", "mixed"),
    [
        ("gfn_of(gpa)", "gfn_of(gfn)"),
        ("gpa_of(gfn)", "gpa_of(gpa)"),
        ("vm.slot_of(gfn)", "vm.slot_of(pfn)"),
        ("slot.gfn_at(index)", "slot.gfn_at(gfn)"),
        ("memory.place(1, index)", "memory.place(1, gfn)"),
        ("memory.attribute(1, gfn)", "memory.attribute(1, index)"),
    ],
)
def test_a_number_of_one_kind_of_page_is_refused_where_another_is_wanted(fits: str, mixed: str, tmp_path: Path) -> None:
    """The type checker that the project is held to tells gfns, gpas, pfns and page indices apart."""
    file = tmp_path / "mixed.py"
    file.write_text(MIXED.format(f"{fits}\n    {mixed}  # type: ignore[arg-type]"))
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path.parent / 'mypy'}"]
    out, err, code = api.run([*options, str(file)])
    assert (code, err) == (0, ""), out  # a complaint that is not made would be an unused ignore


@given(U64)
def test_a_gpa_lies_in_its_page(gpa: int) -> None:
    gfn = units.gfn_of(units.Gpa(gpa))
    assert units.gpa_of(gfn) <= gpa < units.gpa_of(gfn) + 4096


@given(U64)
def test_u64_survives_its_stored_form(value: int) -> None:
    """Storage is the two's complement that the machine itself uses."""
    assert units.signed(value).to_bytes(8, "little", signed=True) == value.to_bytes(8, "little")
    assert units.unsigned(units.signed(value)) == value
    assert units.hexadecimal(units.signed(value)) == hex(value)


@pytest.mark.parametrize(
    ("address", "size", "run"),
    [
        (0, 0x1000, (0, 1)),
        (0x1000_0000_0, 0x20_0000, (0x100000, 512)),
        (2**64 - 4096, 4096, (2**52 - 1, 1)),
        (0, 0, None),
        (0x1000, 0, None),
        (0x800, 0x1000, None),
        (0x1000, 0x1800, None),
        (0x1000, 0x1, None),
        (2**64 - 4096, 8192, None),
    ],
)
def test_only_whole_pages_without_a_wrap_are_a_run(address: int, size: int, run: tuple[int, int] | None) -> None:
    """What is None here is EINVAL in kvm_vm_ioctl_set_mem_attributes()."""
    assert units.pages(address, size) == run


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("5", ("gfn", 5, 6)),
        ("0x100-0x200", ("gfn", 0x100, 0x200)),
        ("0x100..0x200", ("gfn", 0x100, 0x200)),
        ("[0x100,0x200)", ("gfn", 0x100, 0x200)),
        (" gfn:0x100 + 16 ", ("gfn", 0x100, 0x110)),
        ("gpa:0x100000000", ("gfn", 0x100000, 0x100001)),
        ("gpa:0x100000800", ("gfn", 0x100000, 0x100002)),
        ("gpa:0x100000000+0x1000", ("gfn", 0x100000, 0x100001)),
        ("gpa:0x100000000+0x1001", ("gfn", 0x100000, 0x100002)),
        ("idx:5", ("idx", 5, 6)),
        ("idx:0-512", ("idx", 0, 512)),
        ("010", ("gfn", 10, 11)),
    ],
)
def test_text_of_a_range_is_understood(text: str, address: tuple[str, int, int]) -> None:
    assert units.parse_range(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "0x", "0xg", "-1", "pnf:5", "0x100-", "1-2-3"),
        *("5-5", "6-5", "5+0", "gpa:0+0"),
        *("1 2 3", "0x10 0", "5)", "(5", "[[5", "gfn: 5-", "1_000", "\u0663"),
        *("0x1" + "0" * 16 + "-0x2" + "0" * 16, "0x1" + "0" * 16, "9" * 5000),
    ],
)
def test_text_that_is_no_range_is_refused(text: str) -> None:
    assert units.parse_range(text) is None


@given(st.text() | st.text("0123456789xabcdef-+.,:[)gpni \t"))
def test_any_text_is_a_range_or_none(text: str) -> None:
    address = units.parse_range(text)
    assert address is None or 0 <= address.start < address.end <= 2**64


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**64))
def test_a_printed_range_is_read_back(start: int, end: int) -> None:
    if start < end < 2**64:
        assert units.parse_range(units.span(start, end)) == ("gfn", start, end)


def test_a_range_to_the_end_says_so() -> None:
    assert units.span(0x10, units.END) == "[0x10,end)"


@pytest.mark.parametrize(
    ("ns", "printed", "words"),
    [
        (None, "?", "?"),
        (0, "0.000000", "0 ns"),
        (999, "0.000000", "999 ns"),
        (1_000, "0.000001", "1 us"),
        (5_274_207_999, "5.274207", "5.27 s"),
        (123_456_789, "0.123456", "123 ms"),
        (100_000_000_000, "100.000000", "100 s"),
    ],
)
def test_times_are_printed_as_ftrace_and_people_do(ns: int | None, printed: str, words: str) -> None:
    assert (units.seconds(ns), units.duration(ns)) == (printed, words)


@pytest.mark.parametrize(
    ("npages", "words"),
    [
        (1, "1 page (4 KiB)"),
        (2, "2 pages (8 KiB)"),
        (256, "256 pages (1 MiB)"),
        (257, "257 pages (1028 KiB)"),
        (1 << 18, "262144 pages (1 GiB)"),
        (0, "0 pages"),
    ],
)
def test_sizes_are_told_in_whole_units(npages: int, words: str) -> None:
    assert units.size_in_words(npages) == words
