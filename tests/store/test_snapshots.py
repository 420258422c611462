"""A snapshot saves time and changes no answer: it is verified before it is used, dropped where it is wrong, never trusted by
`check`."""

import random
import struct
import zlib
from collections.abc import Iterator
from hashlib import sha256

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.record import unresolved
from gmemstate.model.snapshot import MAGIC
from gmemstate.store import snapshots
from gmemstate.store.engine import connect
from gmemstate.store.recorder import Recorder
from tests import traces
from tests.store.histories import history
from tests.store.places import Place, assert_chained, conversion, guests

DERIVED = ("range", "conversion", "request", "messed_up", "source", "snapshot")


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot behind every ten events."""
    monkeypatch.setattr(snapshots, "SPACING", 10)


@pytest.fixture
def filled(place: Place) -> Iterator[Place]:
    """Two captures in batches of three events, with snapshots."""
    recorder = Recorder(connect(place.where, writable=True, synchronous="OFF"), place.where, iter(range(1 << 40)).__next__)
    for case in ("half_done", "hwpoison_private"):
        known: dict[int, int] = {}
        rows = [unresolved(row) for row in traces.read_case(case).rows]
        for at in range(0, len(rows), 3):
            recorder.append(rows[at : at + 3], known)
    recorder.close()
    assert len(place.sql("SELECT seq FROM snapshot")) > 8
    return place


def visible(place: Place, moments: range) -> list[object]:
    """What a user can see of a ledger: every answer at the end, and the states at some moments."""
    with place.open(readonly=True) as ledger:
        ends = [
            ledger.conversions(),
            ledger.requests(),
            ledger.messed_up(),
            ledger.moment().missing(),
            list(ledger.events()),
            ledger.head(),
            *(sorted(ledger.record_.table(name)) for name in DERIVED[:-1]),
        ]
        at = [(state(ledger, seq), ledger.messed_up(at=seq), ledger.moment(seq).missing()) for seq in moments]
        assert ledger.dropped == []
    return [*ends, *at]


def state(ledger: Ledger, at: int | str) -> list[object]:
    return list(ledger.state(at=at))


def kept(place: Place) -> list[int]:
    return [seq for (seq,) in place.sql("SELECT seq FROM snapshot ORDER BY seq")]


# --- no answer depends on them


def test_any_moment_is_the_same_with_and_without_snapshots(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        moments = range(0, ledger.head().seq + 1, 7)
    before = visible(filled, moments)
    filled.sql("DELETE FROM snapshot")
    assert visible(filled, moments) == before


def test_whoever_deletes_all_that_is_derived_and_rebuilds_sees_no_difference(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        moments = range(0, ledger.head().seq + 1, 11)
    before, seqs = visible(filled, moments), kept(filled)
    for table in DERIVED:
        filled.sql(f'DELETE FROM "{table}"')
    with filled.open() as ledger:
        ledger.rebuild()
        assert ledger.check().problems == ()
    assert visible(filled, moments) == before
    assert kept(filled) == seqs


@pytest.mark.parametrize("seed", range(8))
def test_a_recorder_that_resumes_goes_on_as_one_that_has_seen_everything(place: Place, seed: int) -> None:
    """Whatever the history: its memory, its tables and its snapshots are those of the fold."""
    known: dict[int, int] = {}
    for events in history(random.Random(seed), 40):
        recorder = Recorder(connect(place.where, writable=True, synchronous="OFF"), place.where, lambda: 0)
        recorder.append([event.row() for event in events], known)
        recorder.close()
    with place.open(readonly=True) as ledger:
        assert ledger.stale_projections(ledger.history()) == []
        assert [problem.code for problem in ledger.check().problems if problem.code == "SNAPSHOT"] == []
        assert ledger.dropped == []
        assert len(kept(place)) > 5
        assert_chained(ledger)


def test_many_requests_are_let_go_of_and_none_is_missed(place: Place) -> None:
    """Which of them a memory still holds does not depend on how the events were cut into batches."""
    from gmemstate.model.events import Gap, GapKind, GuestAnswered, GuestAsked, RequestPath

    with place.open() as ledger:
        ledger.record(*guests(1))
        for n in range(150):
            asked = GuestAsked(request=-1, thread=n % 3, owner=2, start=n, npages=1, path=RequestPath.VMCALL, source=1)
            told = [GuestAnswered(request=-1, result=0, owner=2)] if n % 5 else []
            ledger.record(asked, *told, *([Gap(gap=GapKind.LOST, source=1)] if n % 50 == 49 else []))
        assert [problem.code for problem in ledger.check().problems] == []


def test_a_time_is_found_through_snapshots_as_without_them(filled: Place) -> None:
    with place_with_one_source(filled) as ledger:
        times = [f"{seconds:.4f}" for seconds in (0, 5.29, 5.3, 5.3061, 5.3065, 5.31, 9)]
        found = [ledger.memory(time).seq for time in times]
        assert len(set(found)) > 3
    filled.sql("DELETE FROM snapshot")
    with filled.open(readonly=True) as ledger:
        assert [ledger.memory(time).seq for time in times] == found


def place_with_one_source(place: Place) -> Ledger:
    for table in (*DERIVED, "event", "batch"):
        guard = ("event", "batch")
        if table in guard and place.kind == "sqlite":
            place.sql(f"DROP TRIGGER {table}_no_delete")
        elif table in guard:
            place.sql(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")
        place.sql(f'DELETE FROM "{table}"')
    rows = traces.read_case("half_done").rows
    recorder = Recorder(connect(place.where, writable=True, synchronous="OFF"), place.where, lambda: 0)
    known: dict[int, int] = {}
    for at in range(0, len(rows), 3):
        recorder.append(rows[at : at + 3], known)
    recorder.close()
    return place.open(readonly=True)


# --- when they are made


def test_a_snapshot_ends_where_a_batch_ends_and_names_its_hash(filled: Place) -> None:
    with filled.open(readonly=True) as ledger:
        ends = {batch.last: batch.hash for batch in ledger.record_.batches()}
        for one in ledger.record_.snapshots():
            assert one.head == ends[one.seq]
    assert all(10 <= later - seq < 13 for seq, later in zip(kept(filled), kept(filled)[1:], strict=False))


def test_large_memories_are_kept_less_often(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one event for four runs of pages lies between two snapshots."""
    monkeypatch.setattr(snapshots, "SPACING", 1)
    with place.open() as ledger:
        ledger.record(*guests(1))
        for n in range(60):
            ledger.record(*conversion(2, 32 * n))
        memory = ledger.memory()
        runs = sum(map(len, memory.maps()))
        assert runs > 100
        seqs = kept(place)
        assert seqs[-1] - seqs[-2] >= runs // snapshots.SHARE - 10 > 10 > seqs[1] - seqs[0]


# --- those that are wrong


def reseal(content: bytes) -> bytes:
    """A snapshot with another content and the digest that fits it."""
    packed = zlib.compress(content)
    return MAGIC + sha256(packed).digest() + packed


def content(data: bytes) -> bytes:
    return zlib.decompress(data[len(MAGIC) + 32 :])


def put(place: Place, seq: int, data: bytes) -> None:
    if place.kind == "sqlite":
        place.sql("UPDATE snapshot SET content = ? WHERE seq = ?", data, seq)
    else:
        place.sql("UPDATE snapshot SET content = %s WHERE seq = %s", data, seq)


def stored(place: Place, seq: int) -> bytes:
    return bytes(place.sql(f"SELECT content FROM snapshot WHERE seq = {seq}")[0][0])


def _flipped(place: Place, seq: int) -> None:
    data = bytearray(stored(place, seq))
    data[-20] ^= 1
    put(place, seq, bytes(data))


def _another_head(place: Place, seq: int) -> None:
    put(place, seq, stored(place, kept(place)[2]))


def _another_fold(place: Place, seq: int) -> None:
    put(place, seq, reseal(content(stored(place, seq)).replace(b'"fold":', b'"food":', 1)))


def _pickled(place: Place, seq: int) -> None:
    put(place, seq, b"cos\nsystem\n(S'touch hacked'\ntR.")


def _later(place: Place, seq: int) -> None:
    place.sql(f"UPDATE snapshot SET seq = seq + 1 WHERE seq = {seq}")


def _latest(place: Place, seq: int) -> None:
    place.sql(f"UPDATE snapshot SET latest = 7 WHERE seq = {seq}")


WRONG = [_flipped, _another_head, _another_fold, _pickled, _later, _latest]


@pytest.mark.parametrize("spoil", WRONG)
def test_a_snapshot_that_is_wrong_is_told_not_used_and_dropped_by_the_next_recorder(filled: Place, spoil: object) -> None:
    """The record wins: the answer is that of the fold."""
    seq = kept(filled)[-1]
    with filled.open(readonly=True) as ledger:
        good = state(ledger, seq + 1), ledger.messed_up(at=seq + 1)
    spoil(filled, seq)  # type: ignore[operator]
    seq = kept(filled)[-1]
    with filled.open(readonly=True) as ledger:
        assert (state(ledger, seq + 1), ledger.messed_up(at=seq + 1)) == good
        (told,) = ledger.dropped
        assert told.startswith(f"the snapshot at event {seq} was not used: it ")
        assert told.endswith("`gmemstate rebuild` makes it again")
        assert "SNAPSHOT" in [problem.code for problem in ledger.check().problems]
    with filled.open() as ledger:
        ledger.record(*guests(1))
        assert ledger.check().problems == ()
        assert len(ledger.dropped) == 1


def test_a_snapshot_that_lies_and_is_sealed_right_is_found_by_check(filled: Place) -> None:
    seq = kept(filled)[3]
    was = content(stored(filled, seq))
    put(filled, seq, reseal(was[:-1] + bytes([1 - was[-1]])))
    with filled.open(readonly=True) as ledger:
        (problem,) = ledger.check().problems
        assert (problem.code, problem.first) == ("SNAPSHOT", seq)
    with filled.open() as ledger:
        ledger.rebuild()
        assert ledger.check().problems == ()


def test_a_snapshot_of_another_fold_is_passed_over_and_goes_with_the_next_one(filled: Place) -> None:
    filled.sql("UPDATE snapshot SET fold = 0")
    with filled.open() as ledger:
        assert ledger.memory().seq == ledger.head().seq
        assert ledger.check().problems == ()
        ledger.record(*guests(1))
        assert ledger.dropped == []
    assert len(kept(filled)) == 1


@pytest.mark.parametrize("seed", range(150))
def test_a_hostile_snapshot_is_refused_or_is_a_memory(filled_once: tuple[Place, int, bytes], seed: int) -> None:
    """Whatever stands in it, and although its digest is right: no answer and no recorder breaks, nothing is executed."""
    place, seq, was = filled_once
    dice = random.Random(seed)
    (length,) = struct.unpack_from("<I", was)
    facts, rest = bytearray(was[4 : 4 + length]), bytearray(was[4 + length :])
    for _ in range(dice.choice((1, 1, 3))):
        where = facts if dice.random() < 0.8 else rest
        at = dice.randrange(len(where))
        insert = dice.choice(
            (b"0", b"-1", b"null", b"[]", b"18446744073709551615", b'"x"', b"{}", b"9" * 400, b"[" * 9999, b"1e9")
        )
        end = at + dice.choice((0, 1, 1, 4))
        where[at:end] = insert if where is facts else bytes([dice.randrange(256)])
    put(place, seq, reseal(struct.pack("<I", len(facts)) + bytes(facts) + bytes(rest)))
    with place.open() as ledger:
        ledger.state()
        ledger.messed_up()
        ledger.moment().missing()
        ledger.record(*conversion(2, 0x100000))


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, int, bytes]:
    """A ledger with one snapshot near its end."""
    place = Place(str(tmp_path_factory.mktemp("hostile") / "ledger.db"))
    with pytest.MonkeyPatch.context() as patch, place.open(durable=False) as ledger:
        patch.setattr(snapshots, "SPACING", 100)
        ledger.ingest(traces.capture("guest_ask"), traces.capture("hwpoison_private"), traces.capture("ip_eagain_pin"))
    seq = kept(place)[-1]
    return place, seq, content(stored(place, seq))
