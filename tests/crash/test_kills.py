"""Whoever is killed while it records has lost nothing that it was promised."""

import random
import time
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.crash.rounds import BORN, Acknowledged, assert_recovered, dies_at, endless, expected, started
from tests.store.places import Place, guests

AFRESH = 25
"""After so many rounds a new ledger is begun, so that some are killed while they make one."""


def kill(where: str, dice: random.Random, slowest: float) -> Acknowledged | None:
    """Let a recorder begin, kill it at some moment; the last batch that it was promised."""
    import multiprocessing

    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = started(endless, where, theirs)
    theirs.close()
    acknowledged = None
    if dice.random() < 0.9 and ours.poll(60):  # it records; the others die on the way there
        acknowledged = Acknowledged(*ours.recv())
    time.sleep(dice.uniform(0, slowest))
    process.kill()
    process.join()
    try:
        while True:
            acknowledged = Acknowledged(*ours.recv())
    except EOFError:
        return acknowledged
    finally:
        ours.close()


def rounds_of(place: Place, tmp_path: Path, rounds: int) -> int:
    """Kill, look, go on; the number of batches that were promised."""
    dice = random.Random(rounds)
    where, before, promised = place.where, 0, 0
    for n in range(rounds):
        if n % AFRESH == 0 and place.kind == "sqlite":
            where, before = str(tmp_path / f"{n}.db"), 0
        acknowledged = kill(where, dice, 0.1)
        with Ledger.open(where) as ledger:
            found = ledger.head().seq
        if acknowledged is None:  # it was promised nothing, so what was there before is what must be there
            acknowledged = last_batch(where, before)
        assert found >= before
        before = assert_recovered(where, acknowledged).seq
        promised += 1 if acknowledged else 0
    return promised


def last_batch(where: str, seq: int) -> Acknowledged | None:
    with Ledger.open(where, readonly=True) as ledger:
        return next((Acknowledged(b.last, b.hash) for b in ledger.record_.batches() if b.last == seq), None)


def test_some_killed_recorders_have_lost_nothing(place: Place, tmp_path: Path) -> None:
    assert rounds_of(place, tmp_path, 6)


@pytest.mark.crash
def test_two_hundred_killed_recorders_have_lost_nothing(place: Place, tmp_path: Path) -> None:
    assert rounds_of(place, tmp_path, 200) > 150


# --- migrations


def migrated_after(place: Place, empty: str, statement: int) -> bool:
    """Kill whoever makes a ledger in front of a statement; the next opening makes it whole. False behind the last one."""
    process = started(dies_at, empty, statement)
    process.join()
    assert process.exitcode in (0, -9)
    with Ledger.open(empty) as ledger:
        assert ledger.head().seq == 0
        ledger.record(*guests(1))
        assert [event for event in (one.event for one in ledger.events())] == expected(3)
        assert ledger.check().problems == ()
    return bool(process.exitcode)


def nowhere(place: Place, tmp_path: Path, number: int) -> str:
    """Where no ledger is yet."""
    if place.kind == "sqlite":
        return str(tmp_path / f"{number}.db")
    return str(place.server.database())  # type: ignore[attr-defined]


def upgraded_after(place: Place, old: str, statement: int) -> bool:
    """Kill whoever upgrades a ledger in front of a statement; the next opening finishes it. False behind the last one."""
    process = started(dies_at, old, statement)
    process.join()
    assert process.exitcode in (0, -9)
    with Ledger.open(old) as ledger:
        head = ledger.head()
        assert [event for event in (one.event for one in ledger.events())] == expected(head.seq)
        assert head.seq == BORN
        assert ledger.check().problems == ()
    return bool(process.exitcode)


def aged(place: Place, tmp_path: Path, number: int) -> str:
    """A ledger as the first schema has made it."""
    where = nowhere(place, tmp_path, number)
    with Ledger.open(where) as ledger:
        ledger.record(*guests(1))
    old = place.at(where)
    old.sql("DROP TABLE snapshot")
    old.sql("UPDATE alembic_version SET version_num = '0001'")
    return where


@pytest.mark.crash
def test_an_upgrade_that_is_killed_at_each_statement_is_finished_at_the_next_opening(place: Place, tmp_path: Path) -> None:
    statement = 0
    while upgraded_after(place, aged(place, tmp_path, statement), statement):
        statement += 1
    assert statement > 5


def test_a_migration_that_is_killed_is_made_whole_at_the_next_opening(place: Place, tmp_path: Path) -> None:
    for statement in (0, 3, 9, 40):
        assert migrated_after(place, nowhere(place, tmp_path, statement), statement)


@pytest.mark.crash
def test_a_migration_that_is_killed_at_each_statement_is_made_whole(place: Place, tmp_path: Path) -> None:
    statement = 0
    while migrated_after(place, nowhere(place, tmp_path, statement), statement):
        statement += 1
    assert statement > 60, "one for each view at least"
