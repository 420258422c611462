"""The tables for readers of SQL are what the record folds to, at every commit and however it was cut into batches."""

import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from gmemstate.audit.history.history import History
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import EventRow
from gmemstate.model.soundness import possible
from gmemstate.store.engine import connect
from gmemstate.store.projections import compare
from gmemstate.store.recorder import Recorder
from tests import traces
from tests.store.histories import history
from tests.store.places import Place, assert_chained, conversion, guests

MOST = 1500
"""How many events of a capture are recorded here; the longest ones go on as they begin."""


def recorded(place: Place, batches: Iterable[list[EventRow]]) -> Iterator[Recorder]:
    """Record batch by batch with references over all of them; give the recorder after every commit."""
    recorder = Recorder(connect(place.where, writable=True, synchronous="OFF"), place.where, iter(range(1 << 40)).__next__)
    known: dict[int, int] = {}
    try:
        for batch in batches:
            recorder.append(batch, known)
            yield recorder
    finally:
        recorder.close()


@pytest.mark.parametrize("case", traces.CASES)
def test_tables_are_the_fold_at_every_commit(place: Place, case: str) -> None:
    rows = traces.read_case(case).rows[:MOST]
    size = 1 + len(rows) // 10
    folded = History()
    for recorder in recorded(place, (rows[at : at + size] for at in range(0, len(rows), size))):
        folded.fold(recorder.record.events(folded.memory.seq + 1))
        assert compare(recorder.record, folded) == [], f"behind event {folded.memory.seq}"
    with place.open(readonly=True) as ledger:
        assert folded.memory.seq == ledger.head().seq == len(rows)
        assert ledger.stale_projections(ledger.history()) == []
        assert_chained(ledger)


@pytest.mark.parametrize("case", ["half_done", "ip_eagain_graph", "ip_lost_overrun", "ip_hwpoison_shared"])
def test_tables_are_the_fold_behind_every_single_event(place: Place, case: str) -> None:
    rows = traces.read_case(case).rows
    for recorder in recorded(place, ([row] for row in rows)):
        assert compare(recorder.record, folded(recorder)) == []


def folded(recorder: Recorder) -> History:
    """The history of a record; what no kind of event can be is left out."""
    found = History()
    return found.fold(possible(recorder.record.events(), found.memory))


@pytest.mark.parametrize("seed", range(15))
def test_tables_are_the_fold_of_any_history_at_all(place: Place, seed: int) -> None:
    """A bad history makes findings; it is recorded like any other."""
    batches = [[event.row() for event in batch] for batch in history(random.Random(seed), 12)]
    for recorder in recorded(place, batches):
        assert compare(recorder.record, folded(recorder)) == []


@pytest.mark.parametrize("case", ["ip_two_slots", "guest_ask", "hwpoison_private"])
def test_tables_do_not_depend_on_how_the_events_were_cut(
    place: Place, tmp_path_factory: pytest.TempPathFactory, case: str
) -> None:
    rows = traces.read_case(case).rows
    other = Place(str(tmp_path_factory.mktemp("other") / "ledger.db"))
    for where, size in ((place, 1), (other, len(rows))):
        for _ in recorded(where, [rows[at : at + size] for at in range(0, len(rows), size)]):
            pass
    assert tables(place) == tables(other)


def test_a_table_that_somebody_changed_is_named_and_made_anew(place: Place) -> None:
    """Also one that lost rows, and one that has more than it should; the record stays as it is."""
    with place.open() as ledger:
        ledger.ingest(traces.capture("guest_ask"), traces.capture("hwpoison_private"))
        head, good = ledger.head(), tables(place)
        assert all(good.values())
        for statement, stale in (
            ("UPDATE range SET state = 'shared' WHERE state = 'private'", "range"),
            ("DELETE FROM conversion WHERE id IN (SELECT max(id) FROM conversion)", "conversion"),
            ("UPDATE request SET result = 99", "request"),
            ("INSERT INTO messed_up SELECT id + 1, cause, state, pfn, count, guest, gfn, gmem, page_index, reuse_risk, "
             "cleared_by, since, last FROM messed_up", "messed_up"),
        ):  # fmt: skip
            place.sql(statement)
            assert ledger.stale_projections(ledger.history()) == [stale]
            assert ledger.rebuild() == head.seq
            assert ledger.stale_projections(ledger.history()) == []
        assert tables(place) == good
        assert ledger.head() == head
        assert_chained(ledger)


def test_recording_goes_on_behind_a_rebuild(place: Place) -> None:
    with place.open() as ledger:
        ledger.record(*guests(1))
        ledger.rebuild()
        ledger.record(*conversion(2, 0x10))
        assert ledger.stale_projections(ledger.history()) == []


def test_rebuilding_many_events_is_done_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are fetched at once; what a piece ends inside of goes on in the next."""
    monkeypatch.setattr("gmemstate.store.recorder.AT_ONCE", 5)
    with place.open() as ledger:
        ledger.ingest(traces.capture("guest_ask"))
        good = tables(place)
        ledger.rebuild()
        assert tables(place) == good


def test_an_empty_ledger_is_rebuilt_to_empty_tables(place: Place) -> None:
    with place.open() as ledger:
        assert ledger.rebuild() == 0
        assert not any(tables(place).values())


def test_the_tables_say_in_sql_what_the_ledger_answers(place: Place) -> None:
    with place.open() as ledger:
        ledger.ingest(traces.capture("half_done"))
        asked = [(row.id, row.errno, row.label, row.to) for row in ledger.conversions()]
        requests = [(row.id, len(row.conversions), row.returned) for row in ledger.requests()]
        private = [(run.start, run.end - run.start) for run in ledger.state() if run.state == "private"]
    assert place.sql("SELECT id, errno, label, target FROM conversion ORDER BY id") == asked != []
    assert place.sql("SELECT id, conversions, result FROM request ORDER BY id") == requests != []
    assert place.sql("SELECT start, npages FROM range WHERE state = 'private' ORDER BY start") == private != []


def tables(place: Place) -> dict[str, list[tuple[Any, ...]]]:
    """All projections."""
    names = ("range", "conversion", "request", "messed_up", "source")
    with Ledger.open(place.where, readonly=True) as ledger:
        return {name: ledger.record_.table(name) for name in names}
