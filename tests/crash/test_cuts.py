"""A WAL that ends anywhere: what was committed in front of the cut is there, and nothing else."""

from pathlib import Path
from typing import NamedTuple

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.crash.rounds import Acknowledged, assert_recovered, copied, next_batch

SECTOR = 512


class Interrupted(NamedTuple):
    """A ledger whose WAL is full of batches, as a crash leaves it; how long the WAL was behind each."""

    path: Path
    ends: list[tuple[int, Acknowledged]]
    wal: int


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    with Ledger.open(path) as ledger:
        head = ledger.record(*next_batch(0))
    ends = [(0, Acknowledged(*head))]
    with Ledger.open(path) as ledger:
        for _ in range(12):
            head = ledger.record(*next_batch(head.seq))
            ends.append((Path(f"{path}-wal").stat().st_size, Acknowledged(*head)))
        copied(path, path.with_name("copy.db"), ends[-1][0])
    return Interrupted(path.with_name("copy.db"), ends, ends[-1][0])


def assert_cut(whole: Interrupted, at: int, tmp_path: Path) -> None:
    cut = copied(whole.path, tmp_path / f"{at}.db", at)
    last = max((end, head) for end, head in whole.ends if end <= at)[1]
    assert assert_recovered(str(cut), last) == last


@pytest.mark.parametrize("part", range(8))
def test_a_wal_that_is_cut_somewhere_keeps_what_was_committed_before(
    interrupted: Interrupted, tmp_path: Path, part: int
) -> None:
    """In front of, at and behind the end of a batch."""
    end = interrupted.ends[part + 2][0]
    for at in (end - SECTOR - end % SECTOR, end - 1, end):
        assert_cut(interrupted, at, tmp_path)


@pytest.mark.crash
def test_a_wal_that_is_cut_at_every_sector_keeps_what_was_committed_before(interrupted: Interrupted, tmp_path: Path) -> None:
    cuts = range(0, interrupted.wal + SECTOR, SECTOR)
    assert len(cuts) > 300
    for at in cuts:
        assert_cut(interrupted, at, tmp_path)
        for path in tmp_path.iterdir():
            path.unlink()
