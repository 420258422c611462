"""Several who record on one ledger: they take turns, and each can make sure that nobody came between."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gmemstate.model.errors import CannotWrite, Conflict
from tests.store.places import ROOT, Place, assert_chained, conversion, guests, record_of


@pytest.fixture
def filled(place: Place) -> Place:
    """A ledger with the guests 2 and 3, whose last events are 4 and 5."""
    with place.open() as ledger:
        ledger.record(*guests(2))
    return place


# --- expecting


def test_whoever_has_seen_everything_may_record(filled: Place) -> None:
    with filled.open() as ledger:
        assert ledger.record(*conversion(2, 0), expect={2: 4}).seq == 7
        assert ledger.record(*conversion(2, 0x10), expect={2: 7, 3: 5}).seq == 9


def test_conflict_says_what_was_expected_and_found_and_stores_nothing(filled: Place) -> None:
    with filled.open() as ledger, filled.open() as other:
        other.record(*conversion(2, 0))
        before = record_of(other)
        with pytest.raises(Conflict, match="guest 2 has events up to 7, not 4") as caught:
            ledger.record(*conversion(2, 0x10), expect={2: 4})
        assert caught.value.code == "conflict"
        assert caught.value.data == {"guest": 2, "expected": 4, "found": 7}
        assert record_of(other) == before


def test_a_retry_with_what_was_found_succeeds(filled: Place) -> None:
    with filled.open() as ledger, filled.open() as other:
        other.record(*conversion(2, 0))
        with pytest.raises(Conflict) as caught:
            ledger.record(*conversion(2, 0x10), expect={2: 4})
        assert ledger.record(*conversion(2, 0x10), expect={2: caught.value.data["found"]}).seq == 9
        assert_chained(ledger)
        assert ledger.stale_projections(ledger.history()) == []


def test_conflict_is_about_one_guest_only(filled: Place) -> None:
    with filled.open() as ledger, filled.open() as other:
        other.record(*conversion(3, 0))
        assert ledger.record(*conversion(2, 0), expect={2: 4}).seq == 9
        with pytest.raises(Conflict) as caught:
            ledger.record(*conversion(2, 0x10), expect={2: 9, 3: 5})
        assert caught.value.data == {"guest": 3, "expected": 5, "found": 7}


def test_the_pages_of_a_guest_memfd_are_pages_of_its_guest(filled: Place) -> None:
    from gmemstate.model.events import GmemCreated, PageAdded

    with filled.open() as ledger:
        gmem = ledger.record(GmemCreated(owner=-1, vm=2, npages=16, flags=0, result=0)).seq
        seen = ledger.record(PageAdded(owner=gmem, start=0, npages=1, pfn=7)).seq
        with pytest.raises(Conflict) as caught:
            ledger.record(*conversion(2, 0), expect={2: 4})
        assert caught.value.data["found"] == seen


def test_a_guest_that_nobody_knows_has_no_events(filled: Place) -> None:
    with filled.open() as ledger:
        with pytest.raises(Conflict) as caught:
            ledger.record(*conversion(2, 0), expect={99: 4})
        assert caught.value.data == {"guest": 99, "expected": 4, "found": 0}
        ledger.record(*conversion(2, 0), expect={99: 0})


# --- taking turns


def test_two_ledgers_that_are_open_at_once_take_turns(filled: Place) -> None:
    """Without expecting anything: each finds the seqs taken, catches up and appends behind them."""
    with filled.open() as one, filled.open() as two:
        for n in range(5):
            assert one.record(*conversion(2, 0x10 * n)).seq == 7 + 4 * n
            assert two.record(*conversion(3, 0x10 * n)).seq == 9 + 4 * n
        assert record_of(one) == record_of(two)
        assert_chained(one)
        assert one.stale_projections(one.history()) == []


def test_a_reader_sees_each_batch_as_soon_as_it_is_recorded_and_never_half(filled: Place) -> None:
    with filled.open() as ledger, filled.open(readonly=True) as reader:
        started = reader.record_.events()
        first = next(started)
        ledger.record(*conversion(2, 0))
        assert [first, *started] == list(ledger.record_.events(1, 5)), "what was begun ends as it began"
        assert reader.head() == ledger.head()
        assert len(reader.conversions()) == 1


def test_a_recorder_waits_neither_for_readers_nor_for_others_when_it_closes(filled: Place) -> None:
    """And nothing is lost by that: the next one who closes makes an SQLite ledger one file again."""
    with filled.open() as other, filled.open(readonly=True) as reader, reader.record_.read_transaction():
        started = reader.record_.events()
        next(started)
        other.record(*conversion(3, 0))
        ledger = filled.open()
        ledger.record(*conversion(2, 0))
        begun = time.monotonic()
        ledger.close()
        hold = filled.hold()
        late = filled.open(readonly=True)
        late.close()
        hold.close()
        assert time.monotonic() - begun < 5, "half of the time that is waited for a writer"
        assert len(list(started)) == 4
    with filled.open() as ledger:
        assert ledger.rebuild() == 9
        assert ledger.check().problems == ()
    assert not Path(f"{filled.where}-wal").exists()


WRITER = """
import sys
from gmemstate.ledger.ledger import Ledger
from tests.store.places import conversion
where, guest, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with Ledger.open(where, durable=False) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(count):
        ledger.record(*conversion(guest, 16 * n))
"""


def test_processes_that_write_to_one_ledger_serialise(filled: Place) -> None:
    """Nothing is lost, nothing comes between the events of a batch, and the tables are those of the record."""
    count = 60
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, filled.where, str(guest), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for guest in (2, 3)
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    with filled.open(readonly=True) as ledger:
        assert_chained(ledger)
        assert ledger.head().seq == 5 + 2 * 2 * count
        events = {one.seq: one.event for one in ledger.events()}
        assert all(
            {events[seq].owner for seq in range(batch.first, batch.first + batch.size)} in ({2}, {3})
            for batch in list(ledger.record_.batches())[1:]
        )
        history = ledger.history()
        assert ledger.stale_projections(history) == []
        assert [sum(c.owner == guest for c in history.conversions.values()) for guest in (2, 3)] == [count, count]
        assert {c.state for c in history.conversions.values()} == {"committed"}


def test_a_thread_waits_for_another_one_that_is_writing(filled: Place) -> None:
    with filled.open() as one, filled.open() as two:
        one.record(*conversion(2, 0))
        hold = filled.hold()
        done = threading.Event()

        def write() -> None:
            two.record(*conversion(3, 0))
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.2)
        hold.close()
        assert done.wait(10)
        thread.join()
        assert one.head().seq == 9


def test_somebody_who_never_ends_is_not_waited_for_for_ever(filled: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmemstate.store.engine.PATIENCE", 0.1)
    with filled.open() as ledger:
        before = record_of(ledger)
        hold = filled.hold()
        with pytest.raises(CannotWrite, match="somebody else is writing and does not end; try again") as caught:
            ledger.record(*conversion(2, 0))
        assert caught.value.code == "cannot-write"
        hold.close()
        assert record_of(ledger) == before
        ledger.record(*conversion(2, 0))
        assert_chained(ledger)
