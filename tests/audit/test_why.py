"""The reasons for a page: enough of them, and none too many."""

import random
from pathlib import Path

import pytest

from gmemstate.audit.why import Spot, facts, find_spot, why
from gmemstate.ledger import Ledger
from gmemstate.model.errors import UsageError
from gmemstate.model.memory import Memory
from tests.traces import capture


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two captures."""
    where = tmp_path_factory.mktemp("whole") / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        ledger.ingest(capture("ip_eagain_pin"))
    return where


@pytest.mark.parametrize(
    "case", ["half_done", "ip_eagain_pin", "hwpoison_private", "ip_two_slots", "ip_punch", "nogmem", "ip_swap", "late_attach"]
)
def test_the_reasons_of_a_page_are_enough_and_none_can_be_left_out(case: str, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.ingest(capture(case))
        memory = ledger.memory()
        spots = [Spot("gfn", page, vm.id) for vm in memory.vms.values() for page in _pages(memory, vm.id)]
        rows = {row[0]: row for row in ledger.record_.events()}
        for spot in random.Random(3).sample(spots, min(3, len(spots))):
            answer = why(ledger.record_, spot)
            assert answer.facts == facts(memory, spot)
            kept = [rows[seq] for seq, _ in answer.events]
            assert _facts(kept, spot) == answer.facts
            for n in range(len(kept)):
                fewer = kept[:n] + kept[n + 1 :]
                assert _facts(fewer, spot) != answer.facts or _accuses(fewer, memory), (case, spot, kept[n])


def _pages(memory: Memory, vm: int) -> list[int]:
    runs = [run for run in memory.guest_runs(vm) if run.start < run.end]
    return [page for run in runs for page in {run.start, min(run.end - 1, run.start + 7)}]


def _facts(rows: list, spot: Spot) -> object:  # type: ignore[type-arg]
    memory = Memory()
    try:
        for row in rows:
            memory.apply(row)
        return facts(memory, spot)
    except (KeyError, AttributeError, StopIteration):
        return None


def _accuses(rows: list, whole: Memory) -> bool:  # type: ignore[type-arg]
    """Whether a fold finds what the whole record does not."""
    memory = Memory()
    for row in rows:
        memory.apply(row)
    return bool(memory.findings)


def test_a_page_of_several_guests_is_asked_for_by_name(original: Path) -> None:
    with Ledger.open(original, readonly=True) as ledger:
        memory = ledger.memory()
        with pytest.raises(UsageError, match="whose page"):
            find_spot(memory, "gfn", 0x100004)
        assert find_spot(memory, "gfn", 0x100004, "vm1").space == min(memory.vms)
