"""Guests stay apart: several in one trace, with equal gfns, one thread or one address; and several traces in one ledger."""

import random
import re
from pathlib import Path

import pytest

import gmemstate
from tests import views
from tests.ingest.compare import changed
from tests.traces import CASES, Read, capture, header_length, interleaved, lines_of, read_case, read_lines, renamed

MIXABLE = [case for case in CASES if len(lines_of(case)) < 2500]
PAIRS = 40


def mixed(cases: list[str], dice: random.Random, folder: Path) -> tuple[Read, list[tuple[Read, dict[int, int]]]]:
    """Traces with other threads and other pointers in one; each by itself, with the way from lines of the one to its own."""
    heads: list[bytes] = []
    merged: list[bytes] = []
    parts: list[tuple[Read, dict[int, int]]] = []
    for number, case in enumerate(cases):
        lines = [renamed(line, 100_000 * number, b"0xffff9%03d" % number) for line in lines_of(case)]
        first = header_length(lines_of(case))
        merged, old, new = interleaved(merged, lines[first:], dice, dice.choice([1, 3, 20, 200]))
        parts = [(part, {old[place - 1]: line for place, line in origin.items()}) for part, origin in parts]
        parts.append((read_lines(lines, folder), {place: first + n for n, place in enumerate(new, 1)}))
        heads += lines[:first]
    return read_lines([*heads, *merged], folder), [
        (part, {len(heads) + place: line for place, line in origin.items()}) for part, origin in parts
    ]


def assert_apart(whole: Read, parts: list[tuple[Read, dict[int, int]]]) -> None:
    """Each part says of itself in the whole what it says alone."""
    assert len(whole.history.memory.vms) == sum(len(part.history.memory.vms) for part, _ in parts)
    assert len(whole.conversions) == sum(len(part.conversions) for part, _ in parts)
    for part, origin in parts:
        assert changed(part, whole, origin.get, alone=False) == []


@pytest.mark.parametrize("seed", range(PAIRS))
def test_two_captures_in_one_trace_stay_apart(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    cases = dice.sample(MIXABLE, 2)
    whole, parts = mixed(cases, dice, tmp_path)
    assert_apart(whole, parts)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(PAIRS, 1000))
def test_any_two_captures_in_one_trace_stay_apart(seed: int, tmp_path: Path) -> None:
    test_two_captures_in_one_trace_stay_apart(seed, tmp_path)


def test_three_guests_with_equal_gfns_stay_apart(tmp_path: Path) -> None:
    whole, parts = mixed(["simple", "half_done", "enomem"], random.Random(0), tmp_path)
    assert_apart(whole, parts)
    states = [
        whole.runs(vm) for vm in sorted(whole.history.memory.vms, key=lambda vm: whole.history.memory.vms[vm].pointer or 0)
    ]
    assert states == [part.runs(next(iter(part.history.memory.vms))) for part, _ in parts]
    assert states[0] != states[1]


def test_each_test_of_a_selftest_has_its_own_guest_though_the_kernel_uses_addresses_again() -> None:
    """Each makes a guest with the same gfns; slot 0 is the first thing that it makes in it."""
    made = [line for line in lines_of("st_gmem_conversions") if b"set_region: " in line and b" slot=0 " in line]
    guests = read_case("st_gmem_conversions").history.memory.vms.values()
    assert len(guests) == len(made)
    assert len({guest.pointer for guest in guests}) < len(guests)


def test_two_guests_of_one_thread_stay_apart() -> None:
    read = read_case("einval")
    pointers = [re.search(rb"vm_ioctl_ret: .* kvm=(0x\w+)", line) for line in lines_of("einval")]
    expected = [int(match[1], 16) for match in pointers if match]
    vms = read.history.memory.vms
    assert [vms[one.owner or 0].pointer for one in read.history.ordered()] == expected
    assert len(set(expected)) == 2


@pytest.mark.parametrize(("first", "second"), [("einval", "nogmem"), ("ip_race", "ip_hwpoison_private"), ("nogmem", "einval")])
def test_the_same_pointer_in_two_captures_of_one_ledger_is_two_guests(first: str, second: str, tmp_path: Path) -> None:
    pointers = [{vm.pointer for vm in read_case(case).history.memory.vms.values()} for case in (first, second)]
    assert pointers[0] & pointers[1]
    with gmemstate.open(tmp_path / "two.db") as ledger:
        ledger.ingest(capture(first), capture(second))
        history = ledger.history()
    vms = list(history.memory.vms.values())
    assert len({vm.id for vm in vms}) == sum(len(read_case(case).history.memory.vms) for case in (first, second))
    states = [[tuple(run) for run in history.memory.guest_runs(vm.id)] for vm in vms]
    alone = [
        [tuple(run) for run in read_case(case).history.memory.guest_runs(vm)]
        for case in (first, second)
        for vm in read_case(case).history.memory.vms
    ]
    assert states == alone
    labels = [one["label"] for one in views.conversions(history)]
    assert labels == [one["label"] for case in (first, second) for one in read_case(case).conversions]
