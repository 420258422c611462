"""Batch format 1: the bytes are those that were written down, for ever, and nothing in them can be changed unseen."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.model.encoding import MAGIC, NO_HASH, Batch, encode, seal
from gmemstate.model.errors import BadEvent
from gmemstate.model.events import COLUMNS, EventRow
from tests.model.batch import decode, digest
from tests.model.drawn import EVENTS, I64, TEXT

KIND, DETAIL = 2, 12
FIXED: list[EventRow] = [
    (0, 5_191_511_000, 1, 1, None, None, None, None, None, None, None, 1, '{"name":"trace.txt"}'),
    (0, None, 40, 1, 2, 3, 0x100000, 256, 1, 8, 112, 17, None),
    (0, -1, 42, 1, 2, 3, 0, 0, 11, -(2**63), 2**63 - 1, 18, "naïve\u0000 \U0001f512"),
    (0, None, 10, None, None, None, None, None, None, None, None, None, None),
]

rows_of_events = st.lists(EVENTS.map(lambda event: event.row()), min_size=1, max_size=5)
columns = st.tuples(*[st.none() | (TEXT if name == "detail" else I64) for name in COLUMNS[1:]])
any_rows = st.lists(columns.map(lambda row: (0, *row[:1], row[1] or 1, *row[2:])), max_size=5)


def sealed(rows: list[Any], first: int = 7, recorded: int = 1_700_000_000_000_000_000, previous: bytes = NO_HASH) -> bytes:
    return seal(rows, first, recorded, previous).hash


def test_the_hash_of_a_fixed_batch_is_what_it_was_when_the_format_was_fixed() -> None:
    """If this fails, every ledger there is fails its check: make a format 2 instead."""
    assert MAGIC == b"gmemstate batch 1\n"
    assert sealed(FIXED).hex() == "9ee8ed2863ec0f995e8edab036ad4b555032c663bc1477d295a07527b6bd8801"
    assert sealed([], 1, 0).hex() == "7ee701e1e22ea4e68f228400a27499eacc0a83566008bab8bb84ca053b50af54"


def test_a_batch_knows_its_place() -> None:
    batch = seal(FIXED, 7, 99, bytes(range(32)))
    assert batch == Batch(7, 4, 99, bytes(range(32)), batch.hash)
    assert batch.last == 10


@given(any_rows, I64, I64, st.binary(min_size=32, max_size=32))
def test_another_reader_finds_the_same_rows_and_the_same_hash(
    rows: list[EventRow], first: int, recorded: int, previous: bytes
) -> None:
    data = encode(rows)
    assert decode(data, 0) == [(n, *row[1:]) for n, row in enumerate(rows)]
    assert seal(rows, first, recorded, previous).hash == digest(data, first, len(rows), recorded, previous)


@given(rows_of_events, st.data())
def test_a_flip_of_any_one_bit_changes_the_hash(rows: list[EventRow], data: st.DataObject) -> None:
    """Of any column, the header or the hash before; and a column that is 0 is not one that is missing."""
    n = data.draw(st.integers(0, len(rows) - 1), "event")
    column = data.draw(st.integers(1, 12), "column")
    old = rows[n][column]
    if isinstance(old, int):
        changed: Any = (old ^ (1 << data.draw(st.integers(0, 62), "bit"))) if data.draw(st.booleans(), "flip") else None
    elif old is None:
        changed = "" if column == DETAIL else 0
    else:
        changed = data.draw(st.sampled_from([old + " ", old[:-1], None]), "detail")
    if column == KIND and changed is None:
        changed = old + 1
    other = [*rows[:n], (*rows[n][:column], changed, *rows[n][column + 1 :]), *rows[n + 1 :]]
    assert sealed(other) != sealed(rows)
    bit = 1 << data.draw(st.integers(0, 62), "bit of the header")
    assert sealed(rows, first=7 ^ bit) != sealed(rows)
    assert sealed(rows, recorded=bit) != sealed(rows, recorded=0)
    before = (bit << data.draw(st.integers(0, 193), "shift")).to_bytes(32, "big")
    assert sealed(rows, previous=before) != sealed(rows)


@given(rows_of_events)
def test_events_cannot_be_dropped_doubled_or_reordered(rows: list[EventRow]) -> None:
    whole = sealed(rows)
    assert all(sealed(rows[:n] + rows[n + 1 :]) != whole for n in range(len(rows)))
    assert all(sealed([*rows[:n], row, *rows[n:]]) != whole for n, row in enumerate(rows))
    assert rows == rows[::-1] or sealed(rows[::-1]) != whole


def test_the_bytes_are_canonical() -> None:
    """Flip any bit of a batch: what still can be read has other rows, and those rows have just these bytes."""
    data = encode(FIXED)
    rows = decode(data, 0)
    readable = 0
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            other = decode(bytes(flipped), 0)
        except (AssertionError, UnicodeDecodeError):
            continue
        assert other != rows
        readable += 1
        if all(row[KIND] is not None for row in other):
            assert encode(other) == flipped
    assert readable > len(data)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((0, None, None, *[None] * 10), "kind"),
        ((0, 5, None, *[None] * 10), "kind"),
        ((0, None, 10, *[None] * 9), "type"),
        ((0, 1.5, 10, *[None] * 10), r"\['t'\]"),
        ((0, "1", 10, *[None] * 10), r"\['t'\]"),
        ((0, None, 10, *[None] * 9, 5), "type"),
        ((0, None, 10, *[None] * 9, b"{}"), "type"),
        ((0, 2**63, 10, *[None] * 10), "64 bits"),
        ((0, None, 10, None, -(2**63) - 1, *[None] * 8), "64 bits"),
        ((0, None, 10, *[None] * 9, "\ud800"), "no text"),
    ],
)
def test_what_is_no_row_of_an_event_is_refused_with_a_reason(row: tuple[Any, ...], words: str) -> None:
    with pytest.raises(BadEvent, match=words):
        sealed([FIXED[1], row])
