"""A large entry over small ones: pages that had other memory behind them were taken from the guest; pages that had the same
were not."""

from pathlib import Path

import pytest

from tests.ingest.witness import details, said

FAULT = "vcpu-4711    [078] ..... 5.{n:06}: {text}"
CHANGED = "kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level {level} old_spte {old:x} new_spte {new:x}"
TABLE, HUGE, SMALL, FROZEN = 0x100B1B16827, 0xEA7, 0xE67, 0x5A0
BASE = 0x100B4A00


def lines(*below: tuple[int, int], table: int = TABLE) -> list[str]:
    """2M at gfn 0x800 instead of a table, and then the small entries that go: their gfns and old host pages."""
    changes = [CHANGED.format(gfn=0x800, level=2, old=table, new=BASE << 12 | HUGE)]
    changes += [CHANGED.format(gfn=gfn, level=1, old=pfn << 12 | SMALL if pfn else 0, new=FROZEN) for gfn, pfn in below]
    return [FAULT.format(n=n, text=text) for n, text in enumerate(changes)]


def replaced(told: list[str], folder: Path) -> list[object]:
    events = said(told, folder).events
    return [details(event)["replaced"] for event in events if event.name == "fault_served" and "replaced" in details(event)]


def test_pages_with_other_memory_behind_them_are_told_in_runs(tmp_path: Path) -> None:
    assert replaced(lines((0x800, 0x1111), (0x801, 0x2222), (0x803, 0), (0x9FF, 0x3333)), tmp_path) == [
        [["0x800", "0x802"], ["0x9ff", "0xa00"]]
    ]


@pytest.mark.parametrize(
    "told",
    [
        lines((0x800, BASE), (0x801, BASE + 1), (0x9FF, BASE + 0x1FF)),
        lines((0x800, 0), (0x801, 0)),
        lines((0x7FF, 0x1111), (0xA00, 0x2222)),
        lines((0x800, 0x1111), table=0),
        lines((0x800, 0x1111), table=BASE << 12 | HUGE),
    ],
    ids=["the same memory", "nothing was there", "beside it", "no table before", "a large entry before"],
)
def test_whatever_loses_nothing_is_not_told(told: list[str], tmp_path: Path) -> None:
    assert replaced(told, tmp_path) == []


def test_what_another_thread_removes_is_not_laid_to_this_one(tmp_path: Path) -> None:
    first, *rest = lines((0x800, 0x1111), (0x801, 0x2222))
    assert replaced([first, *(line.replace("vcpu-4711", "vcpu-4712") for line in rest)], tmp_path) == []
