"""What is acknowledged is kept, also when the ground moves under a ledger: removed, moved, replaced, linked, another folder."""

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from gmemstate import CannotWrite
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import Gap, GapKind, SourceOpened
from gmemstate.store import recorder
from gmemstate.store.locks import owner_lock

OPENED = SourceOpened(source=-1)


def _removed(where: Path) -> None:
    where.unlink()


def _moved(where: Path) -> None:
    where.rename(where.with_name("b.db"))


def _replaced(where: Path) -> None:
    shutil.copy(where, where.with_name("b.db"))
    where.with_name("b.db").replace(where)


@pytest.mark.parametrize("move", [_removed, _moved, _replaced])
def test_a_ledger_that_is_no_longer_there_acknowledges_nothing(move: object, tmp_path: Path) -> None:
    where = tmp_path / "a.db"
    with Ledger.open(where) as ledger:
        ledger.record(OPENED)
        move(where)  # type: ignore[operator]
        for _ in range(3):
            with pytest.raises(CannotWrite, match="removed, moved or replaced"):
                ledger.record(Gap(gap=GapKind.LOST, source=1))
        assert where.exists() == (move is _replaced), "no other ledger is made in its place"


def test_a_relative_name_means_the_same_after_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with Ledger.open("a.db") as ledger:
        monkeypatch.chdir(tmp_path / "other")
        ledger.record(OPENED)
        assert ledger.head().seq == 1
        assert len(list(ledger.events())) == 1
    assert not list((tmp_path / "other").iterdir())


def test_two_names_of_one_ledger_are_one_ledger(tmp_path: Path) -> None:
    where, link = tmp_path / "a.db", tmp_path / "link.db"
    writer = Ledger.open(where)
    writer.record(OPENED)
    link.symlink_to(where)
    with Ledger.open(link, readonly=True) as ledger:
        assert ledger.head().seq == 1, "what is in the WAL of the file is read through a link"
    with owner_lock(writer.record_.engine, str(link), 7):
        assert (tmp_path / "a.db.7.lock").exists()
    writer.close()


def test_who_closes_while_others_read_syncs_the_wal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(recorder, "_sync", synced.append)
    where = tmp_path / "a.db"
    ledger = Ledger.open(where, durable=False)
    ledger.record(OPENED)
    reader = sqlite3.connect(where)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM event").fetchall()
    ledger.record(Gap(gap=GapKind.LOST, source=1))
    ledger.close()
    reader.close()
    assert synced == [f"{os.path.realpath(where)}-wal"]
