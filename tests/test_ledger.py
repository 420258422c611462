"""The front door: what is on record comes out, now or at a moment, and what one knows oneself goes in."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import gmemstate
from gmemstate.audit.queries.state import StateRow
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import UnexpectedTrigger, UsageError
from gmemstate.model.events import Cause, ConvertReturned, SourceOpened, SourceRead, VmDestroyed, VmSeen
from gmemstate.model.fold.apply import fold
from gmemstate.model.units import Gfn
from tests import traces
from tests.store import places
from tests.store.places import ROOT, Place, assert_chained, conversion, guests, python

place = places.place


@pytest.fixture
def asked(place: Place) -> Ledger:
    """A ledger of a guest that asks: five requests, three conversions."""
    with place.open() as ledger:
        ledger.ingest(traces.capture("guest_ask"))
    return place.open(readonly=True)


def test_the_memory_at_an_event_is_what_the_record_up_to_it_folds_to(asked: Ledger) -> None:
    with asked as ledger:
        rows = list(ledger.record_.events())
        (vm,) = ledger.memory().vms
        for seq in range(7, len(rows) + 1, 10):
            memory = ledger.memory(at=seq)
            assert memory.seq == seq
            assert list(memory.guest_runs(vm)) == list(fold(rows[:seq]).guest_runs(vm))


def test_the_state_changes_with_the_moment(asked: Ledger) -> None:
    """By number or as text; before the first conversion nothing is private, and in the end nothing is again."""
    with asked as ledger:
        first, *_, last = [row.id for row in ledger.conversions()]
        assert ledger.state(at=last) == ledger.state(at=str(last))
        moments = [private(ledger.state(at=seq)) for seq in (first, last)]
        assert moments[0] == 0 < moments[1]
        assert private(ledger.state()) == 0


def private(rows: Iterable[StateRow]) -> int:
    return sum(row.end - row.start for row in rows if row.state == "private")


def test_state_at_a_time_is_that_before_the_first_later_event(asked: Ledger) -> None:
    with asked as ledger:
        timed = [(one.seq, one.event.t) for one in ledger.events() if one.event.t is not None]
        seq, t = next((seq, t) for seq, t in timed if seq > 40)
        last = max(seq for seq, other in timed if other <= t)
        second = f"{t // 10**9}.{t % 10**9:09d}"
        assert ledger.memory(at=second).seq == last >= seq
        assert ledger.state(at=second) == ledger.state(at=last)


def test_state_is_clipped_to_the_pages_that_are_asked_for(asked: Ledger) -> None:
    with asked as ledger:
        rows = ledger.state("0x100-0x200")
        assert (rows[0].start, rows[-1].end) == (0x100, 0x200)
        assert sum(row.end - row.start for row in rows) == 0x100


def test_requests_and_conversions_are_those_up_to_the_moment(asked: Ledger) -> None:
    with asked as ledger:
        conversions, requests = ledger.conversions(), ledger.requests()
        assert (len(conversions), len(requests)) == (3, 5)
        assert {key for row in requests for key in row.conversions} == {row.id for row in conversions}
        for n, row in enumerate(requests):
            assert len(ledger.requests(at=row.id)) == n + 1
        for n, row in enumerate(conversions):
            assert [one.label for one in ledger.conversions(at=row.id)][n] == "in_flight"


def test_events_are_typed_and_in_order(asked: Ledger) -> None:
    with asked as ledger:
        events = list(ledger.events())
        assert [one.seq for one in events] == list(range(1, ledger.head().seq + 1))
        assert isinstance(events[0].event, SourceOpened)
        assert isinstance(events[-1].event, SourceRead)
        returned = [one.event.result for one in events if isinstance(one.event, ConvertReturned)]
        assert returned == [row.errno for row in ledger.conversions()]


def test_messed_up_pages_are_listed_from_the_moment_they_are(place: Place) -> None:
    with place.open() as ledger:
        ledger.ingest(traces.capture("hwpoison_private"))
        (entry,) = ledger.messed_up()
        assert entry.cause is Cause.POISONED
        assert not ledger.messed_up(at=entry.id - 1)
        assert len(ledger.messed_up(at=entry.id)) == 1


def test_a_history_remembers_what_a_memory_lets_go(asked: Ledger) -> None:
    with asked as ledger:
        history = ledger.history()
        assert len(history.conversions) == len(ledger.conversions()) > len(ledger.memory().conversions)
        assert ledger.stale_projections(history) == []


# --- one range


def test_a_range_is_the_run_of_equal_state_that_holds_a_gfn(place: Place) -> None:
    with place.open() as ledger:
        ledger.record(*guests(1))
        ledger.record(*conversion(2, 0x100, 0x10))
        ledger.record(*conversion(2, 0x110, 0x10))
        page = ledger.range(0x117)
        assert (page.guest, page.start, page.end, page.state) == ("vm1", 0x100, 0x120, "private")
        first, asked, last = page.history
        assert (first.kind, first.before, first.after) == ("vm_created", "unknown", "shared")
        assert (asked.kind, asked.before, asked.after) == ("convert_asked", "shared", "unknown"), "as long as no result is seen"
        assert (last.kind, last.before, last.after) == ("convert_returned", "unknown", "private")
        assert page.since == last
        assert last.seq == ledger.head().seq
        assert ledger.range(0xFF).end == 0x100
        assert ledger.range(0x120).start == 0x120
        assert ledger.range(0x120).state == "shared"
        assert ledger.range(0x100, at=3).state == "shared"


def test_a_range_may_only_do_what_its_machine_allows(place: Place) -> None:
    with place.open() as ledger:
        ledger.record(*guests(1))
        page = ledger.range(0x100)
        assert page.may("zap_to_private")
        assert not page.may("undone")
        assert not page.may("no such trigger")
        assert "zap_to_private" in page.triggers
        with pytest.raises(UnexpectedTrigger, match="event undone not expected in the state shared") as caught:
            page.fire("undone")
        assert caught.value.data == {"trigger": "undone", "state": "shared"}
        assert page.fire("zap_to_private") == page.state == "zapping(shared>private)"
        assert ledger.range(0x100).state == "shared", "what is on record is moved by events only"


def test_the_ranges_of_a_destroyed_guest_are_gone(place: Place) -> None:
    with place.open() as ledger:
        ledger.record(*guests(1), VmDestroyed(owner=2))
        page = ledger.range(0x100)
        assert (page.state, page.triggers) == ("gone", ["answered", "private_unmap_failed", "slot_changed", "backing_changed"])
        assert [moved.kind for moved in page.history] == ["vm_created", "vm_destroyed"]
        assert ledger.memory().attribute(2, Gfn(0x100)) == "shared", "what it had at its end can still be read"


def test_a_range_of_one_of_several_guests_needs_its_name(place: Place) -> None:
    with place.open() as ledger:
        with pytest.raises(UsageError, match="which guest\\? There are: none"):
            ledger.range(0x100)
        ledger.record(*guests(2))
        ledger.record(*conversion(3, 0x100))
        with pytest.raises(UsageError, match="There are: vm1, vm2") as caught:
            ledger.range(0x100)
        assert caught.value.exit_code == 2
        assert [ledger.range(0x100, guest).state for guest in ("vm1", "vm2")] == ["shared", "private"]
        with pytest.raises(UsageError, match="There are: vm1, vm2"):
            ledger.range(0x100, "vm3")


# --- recording beside logs


def test_events_of_ones_own_stand_behind_those_of_a_log(place: Place) -> None:
    with place.open() as ledger:
        ledger.ingest(traces.capture("simple"))
        ledger.record(VmSeen(owner=-1, pointer=1))
        _, vm = ledger.memory().vms
        head = ledger.record(*conversion(vm, 0x5000))
        assert ledger.range(0x5000, "vm2").state == "private"
        (again,) = ledger.ingest(traces.capture("simple"))
        assert again.known
        assert ledger.head() == head
        assert_chained(ledger)
        assert ledger.stale_projections(ledger.history()) == []


def test_a_record_made_elsewhere_is_taken_over_as_one_batch(place: Place) -> None:
    rows = traces.read_case("half_done").rows
    with place.open() as ledger:
        ledger.record(VmSeen(owner=-1, pointer=1))
        head = ledger.record_rows(rows)
        assert head.seq == len(rows) + 1
        assert [row[2] for row in ledger.record_.events(2)] == [row[2] for row in rows]
        assert len(ledger.conversions()) == len(traces.read_case("half_done").conversions)
        assert len(list(ledger.record_.batches())) == 2
        assert_chained(ledger)


def test_the_module_opens_ledgers(tmp_path: Path) -> None:
    with gmemstate.open(tmp_path / "vm.db") as ledger:
        assert isinstance(ledger, gmemstate.Ledger)
        ledger.record(*guests(1))
    with gmemstate.open(str(tmp_path / "vm.db"), readonly=True) as ledger:
        assert ledger.head().seq == 3


def test_the_programs_in_the_readme_run(tmp_path: Path) -> None:
    """As they stand there, but for the place of the file that one reads."""
    reads, converts = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    file = "gmemstate/data/demo/half_done.txt"
    assert file in reads
    done = python(reads.replace(file, str(ROOT / file)), cwd=tmp_path)
    assert done.stderr == ""
    assert "events;" in done.stdout
    assert "failed" in done.stdout or "committed" in done.stdout
    done = python(converts, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
