"""The record: append-only, gapless, chained, and a batch is stored as a whole or not at all."""

import pytest

from gmemstate.model.encoding import NO_HASH
from gmemstate.model.errors import BadEvent, UsageError
from gmemstate.model.events import (
    KINDS,
    AttrsStored,
    ConvertAsked,
    ConvertReturned,
    GeneralProtection,
    PageAdded,
    SourceOpened,
    Through,
    VmmSaid,
    VmSeen,
    detail,
    event_of,
)
from gmemstate.store.recorder import Recorder
from tests import traces
from tests.store.places import Place, assert_chained, conversion, guests, record_of

TABLES = ("event", "batch")


@pytest.fixture
def filled(place: Place) -> Place:
    """A place with a ledger of a few batches."""
    with place.open() as ledger:
        ledger.record(*guests(1))
        for n in range(3):
            ledger.record(*conversion(2, 0x100 * n))
    return place


FORBIDDEN = [
    "UPDATE event SET t = 1 WHERE seq = 2",
    "UPDATE event SET seq = seq + 100",
    "DELETE FROM event WHERE seq = 9",
    "DELETE FROM event",
    "INSERT INTO event (seq, kind) VALUES (2, 1) ON CONFLICT (seq) DO UPDATE SET kind = 1",
    "UPDATE batch SET recorded = 0",
    "DELETE FROM batch WHERE first = 1",
]
FORBIDDEN_IN = {
    "sqlite": [
        "REPLACE INTO event (seq, kind) VALUES (2, 1)",
        "INSERT OR REPLACE INTO event SELECT * FROM event WHERE seq = 9",
        "UPDATE OR REPLACE batch SET first = 1 WHERE first = 6",
        "REPLACE INTO batch SELECT * FROM batch WHERE first = 1",
    ],
    "postgresql": [
        "TRUNCATE event",
        "TRUNCATE batch, event CASCADE",
        "WITH gone AS (DELETE FROM batch RETURNING first) SELECT count(*) FROM gone",
    ],
}


def test_the_database_refuses_to_change_what_is_on_record(filled: Place) -> None:
    with filled.open() as ledger:
        before = record_of(ledger)
    for statement in FORBIDDEN + FORBIDDEN_IN[filled.kind]:
        with pytest.raises(Exception, match="append-only"):
            filled.sql(statement)
    with filled.open() as ledger:
        assert record_of(ledger) == before
        assert_chained(ledger)


def test_a_new_ledger_is_empty_and_has_the_zero_hash(place: Place) -> None:
    with place.open() as ledger:
        assert ledger.head() == (0, NO_HASH)
        assert list(ledger.events()) == []
        assert_chained(ledger)


def test_each_record_call_is_one_batch_and_returns_the_head(place: Place) -> None:
    with place.open() as ledger:
        first = ledger.record(*guests(1))
        second = ledger.record(*conversion(2, 0))
        assert (first.seq, second.seq) == (3, 5)
        assert [(batch.first, batch.last, batch.hash) for batch in ledger.record_.batches()] == [
            (1, 3, first.hash),
            (4, 5, second.hash),
        ]
        assert ledger.head() == second
        assert_chained(ledger)


def test_the_chain_goes_on_over_openings(place: Place) -> None:
    for n in range(4):
        with place.open() as ledger:
            ledger.record(*(guests(1) if n == 0 else conversion(2, 0x100 * n)))
    with place.open(readonly=True) as ledger:
        assert len(list(ledger.record_.batches())) == 4
        assert_chained(ledger)


def test_the_same_events_make_another_hash_behind_another_past(place: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Place(str(tmp_path_factory.mktemp("other") / "ledger.db"))
    heads = []
    for where, pointer in ((place, 1), (other, 2)):
        with where.open() as ledger:
            ledger.record(VmSeen(owner=-1, pointer=pointer))
            heads.append(ledger.record(VmSeen(owner=-1, pointer=3)).hash)
            assert_chained(ledger)
    assert heads[0] != heads[1]


def test_recording_nothing_changes_nothing(filled: Place) -> None:
    with filled.open() as ledger:
        before = record_of(ledger), ledger.head()
        assert ledger.record() == before[1]
        assert (record_of(ledger), ledger.head()) == before


def test_events_come_back_as_they_were_recorded(place: Place) -> None:
    """Numbers up to 2**64, missing facts, text of any script: one of them for every kind of column."""
    events = [
        SourceOpened(source=1, detail=detail(name="ä/試.txt", format="ftrace")),
        VmSeen(source=1, owner=2, pointer=0xFFFF_8881_2345_6000, thread=7, t=5_000_000_001, line=3),
        ConvertAsked(conversion=3, through=Through.GMEM_CONVERT, owner=2, start=(1 << 52) - 1, attributes=1 << 63),
        ConvertReturned(conversion=3, result=0, owner=2),
        AttrsStored(start=0, npages=None, attributes=8, owner=2),
        PageAdded(owner=2, start=0, npages=1, pfn=(1 << 52) - 1, order=9),
        GeneralProtection(address=0xFFFF_FFFF_FFFF_FFFF),
        VmmSaid(detail='{"text":"\\\\x1b[31m"}'),
    ]
    with place.open() as ledger:
        ledger.record(*events)
    with place.open(readonly=True) as ledger:
        assert [(one.seq, one.event) for one in ledger.events()] == list(enumerate(events, 1))
        assert_chained(ledger)


def test_events_first_to_last_are_given_both_included(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        everything = list(ledger.events())
        assert list(ledger.events(since=2, at=5)) == everything[1:5]
        assert list(ledger.events(since=5)) == everything[4:]
        assert list(ledger.events(at=3)) == everything[:3]


def test_a_reference_becomes_the_seq_of_the_first_event_that_carries_it(place: Place) -> None:
    with place.open() as ledger:
        ledger.record(SourceOpened(source=-7), VmSeen(source=-7, owner=-9, pointer=1), *conversion(-9, 0x10, reference=-4))
        rows = [event for event in (one.event for one in ledger.events())]
        assert [event.source for event in rows[:2]] == [1, 1]
        assert {getattr(event, "owner", None) for event in rows[1:]} == {2}
        assert {getattr(event, "conversion", None) for event in rows[2:]} == {3}


def test_references_hold_over_the_batches_of_one_source_only(place: Place) -> None:
    """Every call of ``record`` begins with no references: the same negative number is another guest then."""
    with place.open() as ledger:
        ledger.record(VmSeen(owner=-1, pointer=1))
        ledger.record(VmSeen(owner=-1, pointer=2))
        assert [event.owner for event in (one.event for one in ledger.events())] == [1, 2]
        assert len(ledger.memory().vms) == 2


@pytest.mark.parametrize("bad", [{"npages": 1 << 63}, {"t": -(1 << 63) - 1}, {"thread": 1 << 64}, {"line": 1.5}])
def test_an_event_that_does_not_fit_stops_its_whole_batch(filled: Place, bad: dict[str, int]) -> None:
    with filled.open() as ledger:
        before = record_of(ledger)
        fields = {"through": Through.VM_IOCTL, "owner": 2, "start": 0, "npages": 1, **bad}
        misfit = ConvertAsked(conversion=-1, **fields)  # type: ignore[arg-type]
        with pytest.raises(BadEvent) as caught:
            ledger.record(*conversion(2, 0x500), misfit)
        assert caught.value.code == "bad-event"
        assert record_of(ledger) == before
        ledger.record(*conversion(2, 0x500))
        assert_chained(ledger)


class BrokenError(Exception):
    """Something that nobody expects."""


@pytest.mark.parametrize("where", ["fold", "project"])
def test_an_exception_in_the_middle_of_a_batch_leaves_nothing_half(
    filled: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whether it is the fold that breaks or the writing of the projections: the next batch finds everything as before."""
    from gmemstate.store import recorder
    from gmemstate.store.projections import Projector

    tables = [*TABLES, "range", "conversion"]
    with filled.open() as ledger:
        ledger.record(*conversion(2, 0x400))
        before = {table: filled.sql(f'SELECT * FROM "{table}"') for table in tables}

        def break_down(*_: object) -> None:
            raise BrokenError

        with monkeypatch.context() as patch:
            patch.setattr(*((recorder, "fold") if where == "fold" else (Projector, "write")), break_down)
            with pytest.raises(BrokenError):
                ledger.record(*conversion(2, 0x500))
        assert {table: filled.sql(f'SELECT * FROM "{table}"') for table in tables} == before
        ledger.record(*conversion(2, 0x500))
        assert_chained(ledger)
        assert ledger.stale_projections(ledger.history()) == []


def test_an_interrupted_batch_leaves_nothing_half(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is no error of ours: it goes through as it is."""
    with filled.open() as ledger:
        before = record_of(ledger)

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "_commit", interrupt)
            with pytest.raises(KeyboardInterrupt):
                ledger.record(*conversion(2, 0x500))
        assert record_of(ledger) == before
        ledger.record(*conversion(2, 0x500))
        assert_chained(ledger)


def test_a_ledger_opened_for_reading_records_nothing(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        before = record_of(ledger)
        for change in (lambda: ledger.record(*conversion(2, 0)), ledger.rebuild):
            with pytest.raises(UsageError, match="opened for reading"):
                change()
        assert record_of(ledger) == before


def test_every_kind_has_a_view_with_the_names_of_its_fields(place: Place) -> None:
    """Whoever reads with SQL finds ``pointer`` and ``thread``, not ``value`` and ``actor``."""
    with place.open() as ledger:
        ledger.ingest(traces.capture("half_done"))
        stored = {one.seq: one.event for one in ledger.events()}
    for kind in KINDS.values():
        columns = ("seq", *kind.columns)
        stored_as = {"owner": "space", "holder": "owner"}
        quoted = (f'"{stored_as.get(name, name)}"' for name in columns)
        rows = place.sql(f'SELECT {", ".join(quoted)} FROM "{kind.name}" ORDER BY seq')
        assert [row[0] for row in rows] == [seq for seq, event in stored.items() if type(event) is kind]
        for row in rows:
            row_of = stored[row[0]].row()
            assert dict(zip(columns[1:], row[1:], strict=True)) == {
                field: row_of[_column(kind, field)] for field in kind.columns
            }


def _column(kind: type, field: str) -> int:
    from gmemstate.model.events import COLUMNS

    return COLUMNS.index(kind.columns[field])


def test_what_is_stored_is_typed_again(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        assert [event_of(row) for row in ledger.record_.events()] == [event for event in (one.event for one in ledger.events())]
