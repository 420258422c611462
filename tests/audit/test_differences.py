"""What differs between two moments and two records, and the steps that were taken between them."""

from pathlib import Path

import pytest

from gmemstate.audit.diff import between, divergence
from gmemstate.audit.steps import steps
from gmemstate.ledger import Ledger
from tests.traces import capture


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two captures."""
    where = tmp_path_factory.mktemp("whole") / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        ledger.ingest(capture("ip_eagain_pin"))
    return where


def test_the_difference_of_two_moments_is_what_was_converted_between_them(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        first = ledger.conversions()[0]
        changed = between(ledger.record_, first["id"] + 5, None)
        assert [(change.start, change.end, change.before, change.after) for change in changed] == [
            (int(first["start"], 16), int(first["end"], 16), "shared", "private")
        ]


def test_two_records_part_at_their_first_difference(original: Path, tmp_path: Path) -> None:
    with Ledger.open(original, readonly=True) as one, Ledger.open(tmp_path / "other.db") as other:
        rows = list(one.record_.events())
        other.record_rows([*rows[:50], (*rows[50][:6], 7, *rows[50][7:]), *rows[51:]])
        parted = divergence(one.record_, other.record_)
        assert parted is not None
        assert parted.seq == 51
        assert divergence(one.record_, one.record_) is None


def test_the_steps_of_a_conversion_are_told_in_order(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        told = [step for _, step in steps(ledger.record_.events())]
    zap = next(n for n, step in enumerate(told) if "shared x zap_to_private -> zapping(shared>private)" in step)
    stored = next(n for n, step in enumerate(told) if "x store_private -> stored(shared>private)" in step)
    assert zap < stored
    assert any(step.endswith("(final)") for step in told)
