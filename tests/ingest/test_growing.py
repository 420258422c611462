"""A source that grows says in time that what was read is due; measured by a clock of the test."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gmemstate.ingest import follow as growing
from gmemstate.ingest.follow import FollowedFile
from gmemstate.ingest.input import HEAD_SIZE

PROMISED = 1.0
"""Within how many seconds what was written is due."""
EVENT = b" qemu-7 [000] ..... 1.000000: kvm_vm_set_mem_attributes: 0x00000000000001 -- 0x00000000000002 [0x8]\n"


class Clock:
    """A time that passes by sleeping only; at some moments lines are written."""

    def __init__(self, path: Path, writes: dict[float, bytes]) -> None:
        self.now = 0.0
        self._path = path
        self._writes = sorted(writes.items())
        self.written: list[tuple[float, int]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._writes and self._writes[0][0] <= self.now:
            at, data = self._writes.pop(0)
            with self._path.open("ab") as file:
                file.write(data)
            self.written += [(at, number) for number in range(data.count(b"\n"))]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "trace.txt"
    path.touch()
    return path


def due(log: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, until: float) -> Iterator[tuple[float, int]]:
    """When something was due, and how many lines had been given by then."""
    monkeypatch.setattr(growing, "time", clock)
    source, given = FollowedFile(str(log), lambda: clock.now > until, lambda _sentence: None), 0
    for line in source.lines():
        if line is None:
            yield clock.now, given
        else:
            given += 1
    source.close()


@pytest.mark.parametrize("gap", [0.03, 0.1, 0.4, 0.7, 3.0])
def test_every_line_is_due_within_a_second_of_its_writing(gap: float, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(log, {gap * n: EVENT for n in range(1, 20)})
    found = list(due(log, clock, monkeypatch, gap * 20 + 2))
    for number, (written, _) in enumerate(clock.written, 1):
        assert any(written <= at < written + PROMISED and given >= number for at, given in found), (written, found)


def test_nothing_is_due_where_nothing_was_written(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(log, {1.0: EVENT})
    assert len(list(due(log, clock, monkeypatch, 60))) == 1


def test_what_is_less_than_a_line_is_not_given(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(log, {1.0: EVENT, 2.0: EVENT[:50], 9.0: EVENT[50:]})
    assert [given for at, given in due(log, clock, monkeypatch, 20) if at > 9] == [2]
    assert all(given == 1 for at, given in due(log, Clock(log, {}), monkeypatch, 0.4))


def test_a_source_has_no_more_to_be_known_by_than_a_file_that_is_read_at_once(log: Path) -> None:
    log.write_bytes(EVENT * (3 * HEAD_SIZE // len(EVENT)))
    source = FollowedFile(str(log), lambda: False, lambda _sentence: None)
    assert source.head_size == HEAD_SIZE
    source.close()


@pytest.mark.parametrize("how", ["renamed", "emptied", "emptied and longer than before"])
def test_the_end_of_a_file_is_seen(how: str, log: Path) -> None:
    log.write_bytes(EVENT)
    lines: list[Any] = []
    source = FollowedFile(str(log), lambda: False, lambda _sentence: None)
    if how == "renamed":
        log.rename(log.with_suffix(".1"))
    else:
        os.truncate(log, 0)
    log.write_bytes(EVENT.replace(b"1.000000", b"2.000000") * (1 if how != "emptied and longer than before" else 9))
    lines += [line for line in source.lines() if line is not None]
    source.close()
    assert lines == [EVENT[:-1]]
    assert source.moved
    assert (source.damage is None) == (how == "renamed")
