"""A ledger of each schema that there ever was, as the program of its day has left it, is opened, checked and answered from."""

import gzip
import json
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger, restore
from gmemstate.store.engine import REVISIONS
from gmemstate.store.jsonl import JsonlRecord, export
from gmemstate.store.schema import HEAD
from tests.audit.verifier import verify
from tests.cli.running import say
from tests.museum.make import MUSEUM, facts
from tests.store.places import Place, assert_chained, conversion

PIECES = sorted(path.name.removesuffix(".db.gz") for path in MUSEUM.glob("*.db.gz"))


@pytest.fixture(params=PIECES)
def piece(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a ledger of the museum, named by its schema."""
    copy = tmp_path / f"{request.param}.db"
    copy.write_bytes(gzip.decompress((MUSEUM / f"{request.param}.db.gz").read_bytes()))
    return copy


def known(piece: Path) -> object:
    return json.loads((MUSEUM / f"{piece.stem}.json").read_text(encoding="utf-8"))


def test_the_museum_has_a_ledger_of_each_schema() -> None:
    """Whoever makes a new schema adds one (`python -m tests.museum.make`)."""
    assert tuple(PIECES) == REVISIONS
    assert REVISIONS[-1] == HEAD


def test_an_old_ledger_is_upgraded_and_says_what_it_said(piece: Path) -> None:
    assert verify(piece).returncode == 0
    with Ledger.open(piece) as ledger:
        assert facts(ledger) == known(piece)
        result = ledger.check()
        assert (result.problems, result.not_covered) == ((), ())
        ledger.record(*conversion(2, 0x5000))
        assert_chained(ledger)
    assert verify(piece).returncode == 0


def test_an_old_ledger_that_is_only_read_is_left_alone_and_the_command_that_upgrades_it_works(piece: Path) -> None:
    before = piece.read_bytes()
    ran = say("--db", piece, "conversions")
    if piece.stem == HEAD:
        assert ran.code in (0, 3)
    else:
        assert (ran.code, ran.out) == (4, "")
        assert piece.read_bytes() == before
        command = ran.err.split("`")[1].split()
        assert command[0] == "gmemstate"
        assert say(*command[1:]).code == 0
        assert say("--db", piece, "conversions").code in (0, 3)


def test_an_old_ledger_can_be_carried_to_another_database(piece: Path, place: Place) -> None:
    Ledger.open(piece).close()
    path = piece.with_suffix(".jsonl")
    with Ledger.open(piece, readonly=True) as ledger, path.open("w", encoding="utf-8", newline="\n") as file:
        export(ledger.record_, file)
    restore(place.where, JsonlRecord(path))
    with place.open(readonly=True) as ledger:
        assert facts(ledger) == known(piece)
        assert ledger.check().problems == ()
