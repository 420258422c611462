"""The registry of events is closed, numbered for ever, and loses nothing on the way through columns and bytes."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmemstate.model.encoding import encode
from gmemstate.model.errors import BadEvent, GmemstateError
from gmemstate.model.events import (
    BY_NAME,
    COLUMNS,
    KIND,
    KINDS,
    Event,
    SourceShows,
    VmmSaid,
    VmSeen,
    conversion_of,
    detail,
    details,
    event_of,
    kinds,
)
from tests.model.batch import decode
from tests.model.drawn import EVENTS, TEXT, of_kind

COMMON = ("t", "source", "line", "detail")
MIGRATIONS = Path(__file__).parents[2] / "migrations" / "versions"

ALL = [pytest.param(kind, id=kind.name) for kind in kinds()]


# --- the registry


def test_numbers_and_names_are_unique() -> None:
    classes = {kind for parent in Event.__subclasses__() for kind in (parent, *parent.__subclasses__())} - {Event}
    registered = set(KINDS.values())
    assert registered == set(BY_NAME.values()) == {kind for kind in classes if "code" in vars(kind)}
    assert len(registered) == len(KINDS) == len(BY_NAME)


@pytest.mark.parametrize("kind", ALL)
def test_a_kind_is_complete(kind: type[Event]) -> None:
    """A frozen dataclass with a number of one byte (and 256 for each later version), a name, an analogue, a claim."""
    assert 1 <= kind.code % 256 <= 255
    assert 0 <= kind.code // 256 < 128
    assert kind.name == re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
    assert kind.analogue
    assert (kind.__doc__ or "").split("\n")[0].rstrip().endswith((".", ","))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(**dict.fromkeys(kind.columns)), "t", 1)  # noqa: B010


@pytest.mark.parametrize("kind", ALL)
def test_each_field_has_a_column_of_its_own(kind: type[Event]) -> None:
    assert set(kind.columns) == {field.name for field in dataclasses.fields(kind)}
    assert len(set(kind.columns.values())) == len(kind.columns)
    assert set(kind.columns.values()) <= set(COLUMNS) - {"seq", "kind"}
    assert {field: kind.columns[field] for field in COMMON} == {field: field for field in COMMON}


def test_views_of_the_database_name_the_columns_as_the_registry_does() -> None:
    """The first migration has each kind with its columns as text; the registry may not leave it without a new migration."""
    views: dict[int, tuple[str, dict[str, str]]] = {}
    for path in sorted(MIGRATIONS.glob("[0-9]*.py")):
        spec = importlib.util.spec_from_file_location(f"migration_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        migration = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(migration)
        for line in getattr(migration, "VIEWS", "").strip().splitlines():
            number, name, columns = line.replace(":", " ", 1).partition(" ")[0], line.split()[1][:-1], line.partition(":")[2]
            words = [column.split() for column in columns.split(",") if column.strip()]
            views[int(number)] = (name, {column[-1]: column[0] for column in words})
    own = {code: dict(kind.columns) for code, kind in KINDS.items()}
    stored = {"owner": "space", "holder": "owner"}  # what stores have called them from the first day
    assert views == {
        code: (KINDS[code].name, {stored.get(field, field): column for field, column in columns.items() if field not in COMMON})
        for code, columns in own.items()
    }


# --- there and back


@pytest.mark.parametrize("kind", ALL)
def test_an_event_survives_its_row_and_its_bytes(kind: type[Event]) -> None:
    @settings(max_examples=20)
    @given(of_kind(kind))
    def there_and_back(event: Event) -> None:
        row = event.row()
        assert len(row) == len(COLUMNS)
        assert row[KIND] == kind.code
        assert all(type(column) in (int, str, type(None)) for column in row)
        again = event_of(row)
        assert again == event
        assert conversion_of(row) == getattr(event, "conversion", None)
        assert [type(getattr(again, field)) for field in kind.columns] == [
            type(getattr(event, field)) for field in kind.columns
        ]
        assert decode(encode([row]), first=0) == [row]

    there_and_back()


@given(st.lists(EVENTS, max_size=20))
def test_a_batch_of_any_events_survives_its_bytes(events: list[Event]) -> None:
    rows = decode(encode([event.row() for event in events]), first=0)
    assert [event_of((0, *row[1:])) for row in rows] == events


# --- what is refused


@pytest.mark.parametrize("code", [0, -1, 6, 255, 1 + 256, 2**40])
def test_an_unknown_kind_or_version_is_refused_with_its_number(code: int) -> None:
    assert code not in KINDS
    with pytest.raises(BadEvent, match=str(code)) as caught:
        event_of((1, None, code, *[None] * 10))
    assert isinstance(caught.value, GmemstateError)
    assert (caught.value.code, caught.value.data) == ("bad-event", {"kind": code})


@pytest.mark.parametrize("capability", [None, 0, 200, -1])
def test_an_unknown_word_of_a_closed_list_is_refused(capability: int | None) -> None:
    """A newer version may have added a word to an enumeration: that is no crash either."""
    row = list(SourceShows(capability=1).row())
    row[COLUMNS.index("value")] = capability
    with pytest.raises(BadEvent, match="source_shows"):
        event_of(tuple(row))


@pytest.mark.parametrize(
    "event",
    [
        VmSeen(owner=1, pointer=2**64),
        VmSeen(owner=1, pointer=-(2**63) - 1),
        VmSeen(owner=2**63),
        VmSeen(owner=1, thread=2**63),
        VmSeen(owner=1, t=2**63),
        VmmSaid(detail="\udcff"),
    ],
)
def test_what_does_not_fit_into_a_column_is_refused(event: Event) -> None:
    """Nothing is cut off or wrapped around."""
    with pytest.raises(BadEvent):
        encode([event.row()])


# --- facts beside


@given(st.dictionaries(TEXT, st.none() | TEXT | st.integers() | st.lists(TEXT)))
def test_details_are_canonical_and_come_back(facts: dict[str, object]) -> None:
    """One text for the same facts, whatever their order; None is left out, and no facts are no text."""
    text = detail(**facts)
    assert details(text) == {name: fact for name, fact in facts.items() if fact is not None}
    assert text == detail(**dict(reversed(facts.items())))
    assert (text is None) == all(fact is None for fact in facts.values())
