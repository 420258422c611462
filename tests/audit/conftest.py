from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.store import places
from tests.traces import capture

place = places.place


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two captures in two batches; to be read only."""
    where = tmp_path_factory.mktemp("original") / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        ledger.ingest(capture("ip_eagain_pin"))
    return where


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    """A copy of that ledger, to be altered."""
    where = tmp_path / "copy.db"
    where.write_bytes(original.read_bytes())
    return where
