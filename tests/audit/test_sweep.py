"""Every alteration of a ledger of a thousand events is named, with its batch or its page, or provably changes nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.ledger import Ledger
from tests.audit.sweeping import EVENTS, Swept, thousand

PAGES = 20
"""More than the record of a thousand events has."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = thousand(tmp_path_factory.mktemp("whole"))
    with Ledger.open(where, readonly=True) as ledger:
        result = ledger.check()
    assert (result.problems, result.not_covered, result.events) == ([], [], EVENTS)
    return where


@pytest.fixture
def swept(original: Path, tmp_path: Path) -> Iterator[Swept]:
    made = Swept(original, tmp_path)
    yield made
    assert made.where.read_bytes() == original.read_bytes()
    print(dict(made.told))


def test_a_sample_of_flipped_bits_is_named_or_changes_nothing(swept: Swept) -> None:
    dice = random.Random(7)
    for page in swept.pages():
        for bit in dice.sample(swept.bits(page), 20):
            swept.flip(bit)
    assert swept.told["BATCH-HASH"] > 50
    assert swept.told["nothing"] > 5, "what lies in no row"


def test_a_sample_of_flipped_bits_of_the_rest_of_the_file_is_named_or_changes_nothing(swept: Swept) -> None:
    """The header of the file, its schema, its tables for readers."""
    dice = random.Random(11)
    for bit in dice.sample(range(100 * 8), 40) + dice.sample(range(800, len(swept.data) * 8), 60):
        swept.flip(bit)
    assert sum(swept.told.values()) == 100


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", range(PAGES))
def test_every_flipped_bit_of_events_and_batches_is_named_or_changes_nothing(swept: Swept, number: int) -> None:
    found = swept.pages()
    assert len(found) <= PAGES
    if number >= len(found):
        return
    for bit in swept.bits(found[number]):
        swept.flip(bit, verify=bit % 8 == number % 8)
    assert sum(swept.told.values()) == 32768


def done_to(swept: Swept, table: str, key: str, keys: list[int]) -> Iterator[tuple[str, ...]]:
    """Everything that is done to some rows of a table: dropped, cut off, put elsewhere, twice, in another order, replaced."""
    whole = [row[0] for row in (swept.events if table == "event" else swept.batches)]
    other = "space" if table == "event" else "recorded"
    columns = "t, kind, source, space, conversion, start, npages, result, value, actor, line, detail"
    columns = columns if table == "event" else "size, recorded, previous, hash"
    for at in keys:
        yield (f"DELETE FROM {table} WHERE {key} = {at}",)
        yield (f"DELETE FROM {table} WHERE {key} >= {at}",)
        yield (f"UPDATE {table} SET {key} = {EVENTS + at} WHERE {key} = {at}",)
        yield (f"INSERT INTO {table} ({key}, {columns}) SELECT {EVENTS + 1}, {columns} FROM {table} WHERE {key} = {at}",)
        yield (f"REPLACE INTO {table} SELECT {at}, {columns.replace(other, '77')} FROM {table} WHERE {key} = {at}",)
        beyond = next((later for later in whole if later > at), None)
        if beyond is not None:
            yield (
                f"UPDATE {table} SET {key} = -1 WHERE {key} = {at}",
                f"UPDATE {table} SET {key} = {at} WHERE {key} = {beyond}",
                f"UPDATE {table} SET {key} = {beyond} WHERE {key} = -1",
            )


def test_a_sample_of_rows_dropped_doubled_swapped_and_replaced_is_named(swept: Swept) -> None:
    for table, key, keys in (("event", "seq", [1, 2, 500, 999, 1000]), ("batch", "first", [1, 2, swept.batches[-1][0]])):
        for statements in done_to(swept, table, key, keys):
            swept.alter(*statements)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(10))
def test_every_event_dropped_doubled_swapped_and_replaced_is_named(swept: Swept, part: int) -> None:
    for statements in done_to(swept, "event", "seq", list(range(1 + part * 100, 101 + part * 100))):
        swept.alter(*statements)
    assert sum(swept.told.values()) >= 599


@pytest.mark.exhaustive
def test_every_batch_dropped_doubled_swapped_and_replaced_is_named(swept: Swept) -> None:
    for statements in done_to(swept, "batch", "first", [batch[0] for batch in swept.batches]):
        swept.alter(*statements)
    assert sum(swept.told.values()) == 6 * len(swept.batches) - 1
