"""Results as JSON: the annotation of a field says how it is written."""

import json
from dataclasses import dataclass
from enum import IntEnum, StrEnum, auto

import pytest

from gmemstate.model.document import SCHEMA, Answer, Document, Listing
from gmemstate.model.units import END, U64, Gfn, Ns, Page, PageRange, Unit, bounded, ns, u64


class Colour(StrEnum):
    RED = "bright red"


class Number(IntEnum):
    SEVENTEEN = auto()


@dataclass(frozen=True)
class Row(Document):
    id: int
    start: Gfn
    end: Gfn | None
    size: U64 | None
    t: Ns | None
    colour: Colour
    number: Number | None
    ranges: tuple[tuple[Page, Page | None], ...]
    inner: "Row | None" = None


ROW = Row(
    7, Gfn(0x100), None, u64(-1), ns(1 << 60), Colour.RED, Number.SEVENTEEN, ((Page(16), bounded(END)), (Page(1), bounded(2)))
)


def test_numbers_are_written_as_their_types_say() -> None:
    assert ROW.to_json() == {
        "id": 7, "start": "0x100", "end": None, "size": "0xffffffffffffffff", "t": "1152921504606846976",
        "colour": "bright red", "number": "seventeen", "ranges": [["0x10", None], ["0x1", "0x2"]], "inner": None,
    }  # fmt: skip


def test_a_listing_is_a_sequence_and_a_document_with_the_version_of_its_schema() -> None:
    found = Listing((ROW,), ("a.txt:7: 3 events lost",))
    assert (len(found), found[0], list(found), ROW in found) == (1, ROW, [ROW], True)
    assert found.to_json() == {"schema": SCHEMA, "rows": [ROW.to_json()], "missing": ["a.txt:7: 3 events lost"]}
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_what_stands_in_another_document_has_no_version_of_its_own() -> None:
    @dataclass(frozen=True)
    class Holder(Answer):
        facts: dict[str, tuple[int, ...]]

    assert Holder({"a": (1, 2)}).to_json() == {"schema": SCHEMA, "facts": {"a": [1, 2]}}


@pytest.mark.parametrize(
    ("pages", "meets"),
    [((Unit.GFN, 0x100, 0x200), True), ((Unit.GFN, 0x1FF, None), True), ((Unit.GFN, 0x200, None), False),
     ((Unit.GFN, 0, 0x100), False),
     ((Unit.INDEX, 0x100, 0x200), False), ((Unit.GFN, None, None), False)],
)  # fmt: skip
def test_pages_meet_where_one_is_in_both_ranges(pages: tuple[Unit, int | None, int | None], meets: bool) -> None:
    assert PageRange(Unit.GFN, 0x100, 0x200).meets(*pages) is meets
