"""A poisoned page that a kernel log names by its pfn and a trace by its index is one page, whichever is read first."""

from itertools import permutations
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import Cause

INPUTS = Path(__file__).parent / "inputs" / "poison-twice"


@pytest.mark.parametrize("order", list(permutations(("dmesg.txt", "ftrace.txt"))), ids="-".join)
def test_a_page_in_two_sources_is_one(order: tuple[str, ...], tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(*(INPUTS / name for name in order))
        (entry,) = ledger.messed_up()
    assert (entry.cause, entry.pfn, entry.index, entry.count) == (Cause.POISONED, 0x1058FA, 5, 1)
