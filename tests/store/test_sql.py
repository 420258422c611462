"""What the page on SQL says is so: its queries run on both databases and answer what they are asked."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import gmemstate
from gmemstate.model.events import KINDS
from tests.store.places import Place
from tests.traces import capture

PAGE = (Path(gmemstate.__file__).parent / "docs" / "sql.md").read_text(encoding="utf-8")
FAILED, TOLD, REFUSED = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


def ask(place: Place, query: str) -> list[tuple[Any, ...]]:
    if place.kind == "postgresql":
        query = re.sub(r"printf\('0x%x', ([\w.]+)\)", r"'0x' || to_hex(\1)", query)
    return [tuple(row) for row in place.sql(query)]


@pytest.fixture
def filled(place: Place) -> Place:
    """A request of which one half was done, and a pinned page that was refused again and again."""
    with place.open() as ledger:
        ledger.ingest(capture("half_done"), capture("ip_eagain_pin"))
    return place


def test_failed_conversions_are_listed_with_their_time_and_lines(filled: Place) -> None:
    found = ask(filled, FAILED)
    assert [row[1:6] for row in found] == [
        ("0x100080", 128, "private", 12, "failed"),
        ("0x0", 16, "private", 11, "failed_residue"),
        ("0x0", 16, "private", 11, "failed_residue"),
        ("0x5", 1, "private", 11, "failed_residue"),
    ]
    assert [row[6] for row in found] == [11744, 512, 462, 169]
    assert str(found[0][7]).endswith("half_done/ftrace.txt.gz:780-783")


def test_a_guest_that_was_told_of_a_failure_although_a_half_was_done_is_found(filled: Place) -> None:
    ((_, asked, converted, told),) = ask(filled, TOLD)
    assert (asked, converted, told) == (256, 128, -12)


def test_a_refused_page_is_followed_to_the_conversion_that_went_through(filled: Place) -> None:
    found = ask(filled, REFUSED)
    assert [row[2] for row in found] == ["0x5", "0x5", "0x5"]
    assert len({row[3] for row in found}) == 1, "the same one for all three"
    with filled.open(readonly=True) as ledger:
        by_id = {conversion.id: conversion for conversion in ledger.conversions()}
    through = by_id[found[0][3]]
    assert (through.errno, through.offset, through.size) == (0, 0, 0x10000)
    assert all(row[4] > 0 for row in found)


def test_every_table_and_view_that_the_page_names_is_there_and_can_be_read(filled: Place) -> None:
    tables = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE, re.MULTILINE)
    names = [name for cell in tables for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) == 7
    for name in [*names, *(kind.name for kind in KINDS.values())]:
        filled.sql(f'SELECT * FROM "{name}" LIMIT 1')


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3")
@pytest.mark.parametrize("query", [FAILED, TOLD, REFUSED])
def test_the_queries_can_be_typed_into_sqlite3(tmp_path: Path, query: str) -> None:
    place = Place(str(tmp_path / "vm.db"))
    with place.open() as ledger:
        ledger.ingest(capture("half_done"), capture("ip_eagain_pin"))
    typed = subprocess.run(["sqlite3", "-readonly", place.where], input=query, capture_output=True, text=True, check=True)
    assert typed.stderr == ""
    assert len(typed.stdout.splitlines()) == len(place.sql(query)) > 0
