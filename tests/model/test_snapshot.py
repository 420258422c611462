"""A snapshot of a memory is the memory, and tells which fold has made it."""

import gzip
import random
from hashlib import sha256
from pathlib import Path

import pytest

from gmemstate.model.events import EventRow
from gmemstate.model.fold.apply import apply
from gmemstate.model.memory import Memory
from gmemstate.model.snapshot import FOLD, BadSnapshot, Snapshot, content_of, decode, encode
from gmemstate.store.jsonl import JsonlRecord

HASH = bytes(range(32))
FOLDED = "792675ba549b942ddfc939eefc9205576dee821e92ee47049b12f5b53f6a2b60"
"""What the events of ``folds/events.jsonl.gz`` fold to, as a digest of the snapshot."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[EventRow]:
    """Parts of captures, and events of all kinds that fit each other badly."""
    file = tmp_path_factory.mktemp("folds") / "events.jsonl"
    file.write_bytes(gzip.decompress((Path(__file__).parent / "folds" / "events.jsonl.gz").read_bytes()))
    return list(JsonlRecord(file).events())


def kept(memory: Memory) -> bytes:
    return content_of(Snapshot(memory, HASH, 5))


def test_the_version_of_the_fold_is_raised_whenever_the_fold_changes(rows: list[EventRow]) -> None:
    """Else snapshots of before would still be used. Whoever changes what events fold to raises FOLD and writes the digest
    here."""
    memory = Memory()
    for row in rows:
        apply(memory, row)
    assert (FOLD, sha256(kept(memory)).hexdigest()) == (10, FOLDED)


def test_a_fold_can_go_on_from_a_snapshot_anywhere(rows: list[EventRow]) -> None:
    """Also where news are let go of now and then: the memory does not depend on it."""
    dice = random.Random(1)
    whole, others = Memory(), list[Memory]()
    for row in rows:
        for memory in (whole, *others):
            apply(memory, row)
            if dice.random() < 0.1:
                memory.clear_pending()
        if whole.seq % 97 == 0:
            now = kept(whole)
            assert [kept(memory) for memory in others] == [now] * len(others)
            snapshot = decode(encode(Snapshot(whole, HASH, 5)))
            assert (content_of(snapshot), snapshot.head, snapshot.latest, snapshot.memory.seq) == (now, HASH, 5, whole.seq)
            others = [*others[-2:], snapshot.memory]


@pytest.mark.parametrize("data", [b"", b"gmemstate snapshot 1\n", b"gmemstate snapshot 2\n" + bytes(99), b"\x80\x04."])
def test_what_is_no_snapshot_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(BadSnapshot, match=r"is no snapshot of this version: .*; `gmemstate rebuild` makes it again"):
        decode(data)


def test_a_cut_or_changed_snapshot_is_refused_wherever_it_is_cut_or_changed(rows: list[EventRow]) -> None:
    memory = Memory()
    for row in rows[:600]:
        apply(memory, row)
    whole = encode(Snapshot(memory, HASH, None))
    for at in range(0, len(whole), 29):
        for spoilt in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
            with pytest.raises(BadSnapshot):
                decode(spoilt)
