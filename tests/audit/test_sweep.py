"""Every alteration of a ledger of a thousand events is named, with its batch or its page, or provably changes nothing."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.audit.sqlite_file import SIZE
from tests.audit.sweeping import EVENTS, Areas, Swept, thousand

PARTS = 4
"""Into how many tests a long sweep is cut, for several processors."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = thousand(tmp_path_factory.mktemp("whole"))
    with Ledger.open(where, readonly=True) as ledger:
        result = ledger.check()
    assert (result.problems, result.not_covered, result.events) == ((), (), EVENTS)
    return where


@pytest.fixture
def swept(original: Path, tmp_path: Path) -> Iterator[Swept]:
    made = Swept(original, tmp_path)
    yield made
    made.close()
    assert made.where.read_bytes() == original.read_bytes()
    print(f"{made.looks} checks: {dict(made.returned)}")


def test_the_areas_of_the_sweep_are_all_pages_of_the_record(swept: Swept) -> None:
    areas = Areas.of(swept)
    assert areas.size() % (SIZE * 8) == 0
    assert areas.size() // (SIZE * 8) > 10
    bits = [*areas.rest, *(bit for rows in areas.rows.values() for bit in rows), *(bit for free in areas.free for bit in free)]
    assert len(set(bits)) == len(bits)


def test_a_sample_of_flipped_bits_is_named_or_changes_nothing(swept: Swept) -> None:
    areas, dice = Areas.of(swept), random.Random(7)
    for bit in dice.sample(areas.rest, 50):
        swept.flip(bit)
    for bit in dice.sample([bit for rows in areas.rows.values() for bit in rows], 20):
        swept.flip(bit)
    for _ in range(10):
        swept.flip_apart({span: dice.choice(rows) for span, rows in areas.rows.items()}, verify=True)
    for free in areas.free:
        swept.flip_free(free)
    assert swept.returned["named"] > 300
    assert swept.returned["nothing"] > 1000, "what lies in no row"


def test_a_sample_of_flipped_bits_of_the_rest_of_the_file_is_named_or_changes_nothing(swept: Swept) -> None:
    """The header of the file, its schema, its tables for readers."""
    dice = random.Random(11)
    for bit in dice.sample(range(100 * 8), 40) + dice.sample(range(800, len(swept.data) * 8), 60):
        swept.flip(bit)
    assert sum(swept.returned.values()) == 100


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
def test_every_flipped_bit_of_every_event_is_named_or_changes_nothing(swept: Swept, part: int) -> None:
    rows = Areas.of(swept).rows
    for n in range(part, max(map(len, rows.values())), PARTS):
        swept.flip_apart({span: bits[n] for span, bits in rows.items() if n < len(bits)}, verify=n // PARTS % 8 == 0)
    assert sum(swept.returned.values()) == sum(len(bits[part::PARTS]) for bits in rows.values())


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(PARTS))
def test_every_flipped_bit_of_batches_pointers_and_heads_of_pages_is_named_or_changes_nothing(swept: Swept, part: int) -> None:
    bits = Areas.of(swept).rest[part::PARTS]
    for n, bit in enumerate(bits):
        swept.flip(bit, verify=n % 8 == 0)
    assert sum(swept.returned.values()) == len(bits)


@pytest.mark.exhaustive
def test_every_flipped_bit_that_lies_in_no_row_changes_nothing(swept: Swept) -> None:
    """Sixty-four at a time."""
    free = Areas.of(swept).free
    for bits in free:
        for at in range(0, len(bits), 64):
            swept.flip_free(bits[at : at + 64])
    assert swept.returned == {"nothing": sum(map(len, free))}


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
    for table, key, keys in (
        ("event", "seq", [1, 2, 500, 999, 1000]),
        ("batch", "first", [swept.batches[n][0] for n in (0, 1, -1)]),
    ):
        for statements in done_to(swept, table, key, keys):
            swept.alter(*statements)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", range(10))
def test_every_event_dropped_doubled_swapped_and_replaced_is_named(swept: Swept, part: int) -> None:
    for statements in done_to(swept, "event", "seq", list(range(1 + part * 100, 101 + part * 100))):
        swept.alter(*statements)
    assert sum(swept.returned.values()) >= 599


@pytest.mark.exhaustive
def test_every_batch_dropped_doubled_swapped_and_replaced_is_named(swept: Swept) -> None:
    for statements in done_to(swept, "batch", "first", [batch[0] for batch in swept.batches]):
        swept.alter(*statements)
    assert sum(swept.returned.values()) == 6 * len(swept.batches) - 1
