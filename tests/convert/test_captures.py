"""The engine does what real kernels did: each call of a captured run has its errno, and every page ends as it did there."""

from collections import Counter
from errno import EAGAIN, ENOMEM
from typing import Any

import pytest

from tests.convert.replayed import InPlace
from tests.convert.replayed_vm import SKIP, OnVm
from tests.convert.reports import reports
from tests.traces import CASES, meta, read_case

NO_MEMORY: dict[str, Any] = {"fault": ENOMEM}
READ_ONLY: dict[str, Any] = {"writable": False}
NOTES: dict[str, dict[str, Any]] = {
    "no maple node": NO_MEMORY,
    "to shared, no maple node": NO_MEMORY,
    "pinned and no memory: ENOMEM first": NO_MEMORY,
    "reserved[0]": {"reserved": 1},
    "reserved[10]": {"reserved": 1},
    "read-only struct, page 5 pinned": READ_ONLY,
    "read-only struct, success writes nothing": READ_ONLY,
    "guest_memfd of a default VM": {"private_mem": False},
    "VM fd": SKIP,
    "vCPU fd": SKIP,
}
"""What a program has done to a call on purpose, by its own words."""

DEFAULT_VM: dict[str, Any] = {"default": True}
CALLS: dict[str, dict[int, dict[str, Any]]] = {
    "einval": {9: {"same_mm": False}, 10: DEFAULT_VM, 11: DEFAULT_VM, 12: SKIP, 13: SKIP},
    "enomem": {1: NO_MEMORY, 2: NO_MEMORY},
    "guest_ask": {0: NO_MEMORY},
    "half_done": {1: NO_MEMORY},
}
"""What was special about calls on a VM, by their number: memory was refused by fault injection, another process or VM was
used."""

TRANSIENT = ("ip_transient", "ip_race_host", "ip_race_host2", "ip_race_host_nostrace", "st_gmem_conversions")
"""Runs in which others held pages, of whom nothing is known but the errno that they caused."""
IN_PLACE_OFF = ("ip_off",)


def calls(case: str, op: str) -> int:
    return sum(report.op == op for report in reports(case))


ON_VM = [case for case in CASES if calls(case, "set_memory_attributes") and not calls(case, "set_memory_attributes2")]
IN_PLACE = [case for case in CASES if calls(case, "set_memory_attributes2") and case not in TRANSIENT]
OLD = [case for case in CASES if meta(case)["kernel"].startswith("7.2")]
SHOWN_ON_VM = [
    case for case in OLD if case not in ON_VM and any(c.in_vm for c in read_case(case).history.ordered())
]  # fmt: skip


@pytest.mark.parametrize("case", ON_VM)
def test_mainline(case: str) -> None:
    """Each reported call on a VM, and each exit of its guest, with the memory that was refused to it by fault injection."""
    run = OnVm(case, CALLS.get(case, {}))
    assert run.wrong == []
    assert run.conversions == calls(case, "set_memory_attributes") - sum(how is SKIP for how in CALLS.get(case, {}).values())


@pytest.mark.parametrize("case", SHOWN_ON_VM)
def test_mainline_as_a_trace_shows_it(case: str) -> None:
    """Programs that report nothing: the kernel's selftests, and one that was killed in the middle."""
    run = OnVm(case, {})
    assert run.wrong == []
    assert run.conversions == len(read_case(case).conversions) > 0


@pytest.mark.parametrize("case", IN_PLACE)
def test_inplace(case: str) -> None:
    """Errno, error_offset, the host page table entries that are left, the guest's that went, touches that are refused."""
    run = InPlace(case, NOTES, in_place=case not in IN_PLACE_OFF)
    assert run.wrong == []
    assert run.compared["conversions"] >= calls(case, "set_memory_attributes2") - 2
    looked = [report for report in reports(case) if report.op == "host_ptes" and report.fields["when"].startswith("after")]
    assert run.compared["page tables"] >= len(looked)


@pytest.mark.parametrize("case", TRANSIENT)
def test_inplace_with_transient_references(case: str) -> None:
    """Nobody can predict such a run call by call. But each errno that the kernel gave is one that the engine gives if, at that
    moment, somebody holds the page that the kernel named; and without such a reference the engine gives what it gave then.
    """
    run = InPlace(case, NOTES, transient=True)
    assert run.wrong == []
    assert run.compared["conversions"] == calls(case, "set_memory_attributes2")


def test_captures_show_what_they_are_here_for() -> None:
    """Enough was compared: calls that failed in every way, and what they left over."""
    errnos = Counter(report.errno for case in IN_PLACE for report in reports(case) if report.op == "set_memory_attributes2")
    assert errnos[EAGAIN] > 25
    assert errnos[ENOMEM] == 3
    assert sum(len(OnVm(case, CALLS.get(case, {})).held_off) for case in ("enomem", "thp_split", "st_conv_full")) == 13
    runs = [InPlace(case, NOTES) for case in ("ip_eagain_pin", "ip_eagain_otherhva", "ip_pin_middle", "ip_hwpoison_private")]
    assert [run.compared["guest entries"] for run in runs] == [6, 6, 3, 3]
    assert [run.compared["page tables"] for run in runs] == [2, 2, 4, 0]
    assert [run.compared["exits"] for run in runs] == [0, 0, 0, 2]
