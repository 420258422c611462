"""What a failed conversion left different is what its program has measured in its own page tables."""

from typing import NamedTuple

import pytest

from tests.traces import CASES, Truth, ground_truth, read_case
from tests.views import Json

CONVERSION = "set_memory_attributes2"
MEASURE = "host_ptes"
TOUCHING = ("KVM_RUN", "host_retouch", "host_read", "host_write")
"""What may bring host page table entries back between two measurements."""


class Measured(NamedTuple):
    """A conversion, its number in its case, and the pages with host page table entries before and behind it."""

    number: int
    call: Truth
    before: set[int] | None
    behind: set[int]


def entries(truth: Truth) -> set[int]:
    """The pages that had an entry, of ``ranges=0-3,7``."""
    ranges = truth.fields["ranges"]
    pairs = [part.partition("-") for part in ranges.split(",")] if ranges != "none" else []
    return {page for first, _, last in pairs for page in range(int(first), int(last or first) + 1)}


def measured(case: str) -> list[Measured]:
    """The conversions of a case right behind which the entries were counted."""
    found: list[Measured] = []
    number, before, behind = -1, None, None
    for truth in ground_truth(case):
        if truth.op == CONVERSION:
            number, behind = number + 1, truth
        elif truth.op == MEASURE and behind is not None:
            found.append(Measured(number, behind, before, entries(truth)))
            before, behind = entries(truth), None
        elif truth.op == MEASURE:
            before = entries(truth)
        elif truth.op.startswith(TOUCHING):
            before = behind = None
    return found


def lost(conversion: Json, what: str) -> set[int] | None:
    """The pages whose mappings a conversion is said to have taken although it failed; None if that is not known."""
    if conversion["residue"] is None:
        return None
    return {
        page
        for left in conversion["residue"]
        if left["what"] == what
        for page in range(int(left["start"], 16), int(left["end"], 16))
    }


MEASURED = [case for case in CASES if measured(case) and case not in ("ip_basic_tp", "ip_eagain_tp", "ip_lost_overrun")]
"""Without the cases whose trace does not show the measured conversions."""


@pytest.mark.parametrize("case", MEASURED)
def test_host_mappings_that_are_said_to_be_lost_are_gone_and_those_that_are_gone_are_said_to_be_lost(case: str) -> None:
    conversions = read_case(case).conversions
    for one in measured(case):
        conversion = conversions[one.number]
        assert conversion["errno"] == one.call.errno
        claimed = lost(conversion, "host mapping")
        assert claimed is not None
        assert not claimed & one.behind
        if one.call.errno and one.before is not None:
            assert one.before - one.behind <= claimed


def test_the_program_has_measured_failures_of_each_kind() -> None:
    errnos = {one.call.errno for case in MEASURED for one in measured(case)}
    assert errnos == {0, 11, 12, 14}


GUEST_ENTRIES = {
    "ip_eagain_pin": 16,  # userspace_addr of the slot maps the file: the mmu notifier takes the guest's entries too
    "ip_eagain_vmsplice": 16,
    "ip_eagain_otherhva": 0,  # it maps something else: they stay
    "ip_pin_middle": 16,  # the guest had touched pages 696 to 711
}
"""How many entries of the guest's page tables the first request of a case takes away, by the lines of the kernel."""


@pytest.mark.parametrize("case", GUEST_ENTRIES)
def test_the_entries_that_the_guest_lost_in_a_failure_are_counted(case: str) -> None:
    residue = read_case(case).conversions[0]["residue"]
    assert sum(left["entries"] for left in residue if left["what"] == "guest mapping") == GUEST_ENTRIES[case]


@pytest.mark.parametrize("case", ["enomem", "guest_ask", "half_done", "ip_enomem"])
def test_a_conversion_that_failed_for_want_of_memory_has_touched_nothing(case: str) -> None:
    failed = [conversion for conversion in read_case(case).conversions if conversion["errno"]]
    assert failed
    for conversion in failed:
        assert (conversion["label"], conversion["residue"], conversion["applied"]["extent"]) == ("failed", [], "none")
