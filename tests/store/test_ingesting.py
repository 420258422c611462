"""Reading logs into a ledger: once or again, whole or in pieces, changed or damaged."""

import gzip
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gmemstate.ingest import session as reading
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import CannotRead, SourceChanged
from gmemstate.model.events import Event, FaultServed, HvaUnmapped, SourceOpened, SourceRead, UserAnswered
from gmemstate.store.recorder import Recorder
from tests import traces
from tests.store.places import Place, assert_chained, python, record_of

CASES = [
    "enomem",
    "guest_ask",
    "half_done",
    "ip_eagain_pin",
    "ip_hwpoison_shared",
    "late_attach",
    "lost_overrun",
    "race",
    "st_conv",
]
RUNS = (FaultServed, HvaUnmapped, UserAnswered)
"""Kinds that many lines together make one event of: an end of the file divides it."""


def facts(ledger: Ledger) -> Counter[tuple[Any, ...]]:
    """What is on record, whatever the seqs are; of the kinds that runs are made of, each page once."""
    events = {one.seq: one.event for one in ledger.events()}
    found: Counter[tuple[Any, ...]] = Counter()
    for event in events.values():
        if isinstance(event, SourceRead):
            continue
        names = {name for name in event.columns if name not in ("t", "line", "detail") or not isinstance(event, RUNS)}
        said = {
            name: _named(events, event, name) for name in names - ({"detail"} if isinstance(event, SourceOpened) else set())
        }
        if not isinstance(event, RUNS) or event.npages is None:
            found[event.name, json.dumps(said, sort_keys=True, default=str)] += 1
            continue
        first, npages, entries = said.pop("start"), said.pop("npages"), said.pop("entries", None)
        for name in ("access", "pfn"):  # of the first page of a run
            said.pop(name, None)
        for page in range(first, first + npages):
            found[event.name, json.dumps({**said, "page": page}, sort_keys=True)] = 1
        found["entries", json.dumps(said, sort_keys=True)] += entries or 0
    return found


def _named(events: dict[int, Event], event: Event, name: str) -> Any:
    """A field; a reference by the event that it refers to."""
    value = getattr(event, name)
    refers = event.columns[name] in ("source", "space", "conversion") or (
        name in event.refers and event.columns[name] == "actor"
    )
    return (events[value].name, events[value].line) if refers and value is not None else value


def answers(ledger: Ledger) -> list[Any]:
    """Conversions, requests, messed-up pages and states, without the seqs and the file that name them."""
    states = [(row.guest, row.start, row.end, row.state, row.unbacked) for row in ledger.state()]
    return [
        *(unnamed([row.to_json() for row in rows]) for rows in (ledger.conversions(), ledger.requests(), ledger.messed_up())),
        states,
    ]


def unnamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    named = ("id", "request", "conversions", "gmem", "evidence")
    lines = [(row.get("evidence") or {}) | {"file": None} for row in rows]
    return [
        {name: value for name, value in row.items() if name not in named} | {"lines": line}
        for row, line in zip(rows, lines, strict=True)
    ]


@pytest.fixture
def trace(tmp_path: Path) -> Callable[..., Path]:
    """Writes lines, and perhaps part of one more, into the one file that is read."""

    def write(lines: tuple[bytes, ...], part: bytes = b"", name: str = "trace.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines) + part)
        return path

    return write


Write = Callable[..., Path]


@cache
def whole(case: str) -> tuple[Counter[tuple[Any, ...]], list[Any]]:
    """Facts and answers of a case that is read at once."""
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder) / "whole.db", durable=False) as ledger:
        path = Path(folder) / "trace.txt"
        path.write_bytes(b"".join(line + b"\n" for line in traces.lines_of(case)))
        ledger.ingest(path)
        return facts(ledger), answers(ledger)


# --- the same file again


@pytest.mark.parametrize("case", CASES)
def test_reading_the_same_file_again_adds_nothing(place: Place, case: str) -> None:
    with place.open() as ledger:
        (first,) = ledger.ingest(traces.capture(case))
        before = record_of(ledger)
        (again,) = ledger.ingest(str(traces.capture(case)))
        assert record_of(ledger) == before
    assert (first.known, again.known) == (False, True)
    assert (again.events, again.account, again.complete) == (0, first.account, first.complete)
    assert first.events == len(before[0])


def test_the_same_file_under_another_name_or_zipped_is_the_same_source(place: Place, trace: Write) -> None:
    with place.open() as ledger:
        ledger.ingest(traces.capture("half_done"))
        head = ledger.head()
        (again,) = ledger.ingest(trace(traces.lines_of("half_done"), name="renamed.log"))
        assert again.known
        assert ledger.head() == head


def test_several_files_are_several_sources(place: Place) -> None:
    with place.open() as ledger:
        read = ledger.ingest(traces.capture("simple"), traces.capture("ip_basic"), traces.capture("simple"))
        assert [result.known for result in read] == [False, False, True]
        assert len(ledger.record_.sources()) == 2
        assert len(ledger.memory().vms) == 2
        assert_chained(ledger)


# --- a file that grows


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("part", [0.3, 0.8])
def test_a_grown_file_is_continued_and_says_what_the_whole_says(place: Place, trace: Write, case: str, part: float) -> None:
    """Wherever it ended, also in the middle of a line; what was read before stays as it is."""
    facts_of_whole, answers_of_whole = whole(case)
    lines = traces.lines_of(case)
    cut = traces.header_length(lines) + int(len(lines) * part * 0.9)
    with place.open() as ledger:
        (first,) = ledger.ingest(trace(lines[:cut], lines[cut][: len(lines[cut]) // 2]))
        assert first.damage == "the last line has no end"
        before = record_of(ledger)[0]
        (grown,) = ledger.ingest(trace(lines))
        assert (grown.known, grown.account.lines) == (False, len(lines))
        assert record_of(ledger)[0][: len(before)] == before
        assert facts(ledger) == facts_of_whole
        assert answers(ledger) == answers_of_whole
        (again,) = ledger.ingest(trace(lines))
        assert again.known
        assert len(ledger.record_.sources()) == 1
        assert ledger.stale_projections(ledger.history()) == []
        assert_chained(ledger)


def test_a_file_that_grows_line_by_line_says_what_the_whole_says(place: Place, trace: Write) -> None:
    facts_of_whole, answers_of_whole = whole("kill_mid")
    lines = traces.lines_of("kill_mid")
    with place.open() as ledger:
        for end in range(traces.header_length(lines) + 1, len(lines) + 1):
            ledger.ingest(trace(lines[:end]))
        assert facts(ledger) == facts_of_whole
        assert answers(ledger) == answers_of_whole
        assert len(ledger.record_.sources()) == 1


class PowerCutError(Exception):
    """The program ends."""


def test_reading_that_was_broken_off_is_continued(place: Place, trace: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two batches: those that were stored are recognised, the others are added."""
    facts_of_whole, answers_of_whole = whole("race")
    path = trace(traces.lines_of("race"))
    monkeypatch.setattr(reading, "EVENTS_AT_ONCE", 20)
    append, calls = Recorder.append, iter(range(1000))

    def fail_the_fourth(self: Recorder, *arguments: Any, **how: Any) -> Any:
        if next(calls) == 3:
            raise PowerCutError
        return append(self, *arguments, **how)

    with place.open() as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "append", fail_the_fourth)
            with pytest.raises(PowerCutError):
                ledger.ingest(path)
        assert 50 < ledger.head().seq < 100
        assert ledger.history().missing()
        ledger.ingest(path)
        assert facts(ledger) == facts_of_whole
        assert answers(ledger) == answers_of_whole
        assert not ledger.history().missing()


# --- a file that changed

EDITS = {
    "a result": (rb"(vm_ioctl_ret: .* ret=)\S+", rb"\g<1>-5"),
    "a time": (rb"\.(\d{6}): vm_ioctl_ret", rb".000001: vm_ioctl_ret"),
    "a line that nobody needs": (rb"(kvm_page_fault: .* rip )", rb"\g<1>0x1"),
    "a line more": (rb"\n", rb"\n# a comment\n"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_changed_is_refused_and_nothing_is_added(place: Place, tmp_path: Path, edit: str) -> None:
    """Even where the events that it makes are the same, and even if it has grown too."""
    data = b"".join(line + b"\n" for line in traces.lines_of("enomem"))
    head, tail = data[:70_000], data[70_000:]
    changed = re.sub(*EDITS[edit], tail, count=1)
    assert changed != tail
    path = tmp_path / "trace.txt"
    path.write_bytes(data)
    with place.open() as ledger:
        ledger.ingest(path)
        before = record_of(ledger)
        for more in (b"", b"            more-1    [000] ..... 99.000000: kvm_exit: reason HLT\n"):
            path.write_bytes(head + changed + more)
            with pytest.raises(SourceChanged, match=r"nothing was added\. Read it into another ledger") as caught:
                ledger.ingest(path)
            assert str(caught.value).startswith(str(path))
            assert (caught.value.code, caught.value.exit_code) == ("source-changed", 4)
            assert record_of(ledger) == before


def test_a_file_that_became_shorter_is_refused_and_nothing_is_added(place: Place, trace: Write) -> None:
    lines = traces.lines_of("enomem")
    with place.open() as ledger:
        ledger.ingest(trace(lines))
        before = record_of(ledger)
        with pytest.raises(SourceChanged, match="it is not what it was when it was read before"):
            ledger.ingest(trace(lines[:-100]))
        assert record_of(ledger) == before


# --- damage


def test_a_truncated_gzip_gives_what_is_whole_and_says_so(place: Place, tmp_path: Path) -> None:
    data = traces.capture("half_done").read_bytes()
    path = tmp_path / "trace.txt.gz"
    path.write_bytes(data[: len(data) * 2 // 3])
    with place.open() as ledger:
        (cut,) = ledger.ingest(path)
        assert cut.events == ledger.head().seq > 20
        assert cut.damage is not None
        assert cut.damage.startswith("the gzip data is damaged or cut")
        assert not cut.complete
        damage, result = ledger.history().missing()
        assert damage == f"{path.name}: {cut.damage}"
        assert "the result of 1 conversion is not on record" in result
        path.write_bytes(data)
        (mended,) = ledger.ingest(path)
        assert mended.complete
        assert not ledger.history().missing()
        assert len(ledger.record_.sources()) == 1


def test_the_command_line_says_incomplete_for_a_truncated_gzip(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "trace.txt.gz"
    path.write_bytes(traces.capture("half_done").read_bytes()[:-2000])
    done = python("from gmemstate.cli.main import main; main()", "--db", place.where, "ingest", str(path))
    assert done.returncode == 3
    assert done.stderr.startswith(f"incomplete: {path}: the gzip data is damaged or cut")
    assert "Traceback" not in done.stderr
    with place.open(readonly=True) as ledger:
        assert ledger.head().seq > 20


@pytest.mark.parametrize("name", ["missing.txt", "empty.txt", "noise.txt", "."])
def test_what_cannot_be_read_adds_nothing(place: Place, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "noise.txt").write_text("to be\nor not\n")
    with place.open() as ledger:
        with pytest.raises(CannotRead) as caught:
            ledger.ingest(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert ledger.head().seq == 0


def test_a_zipped_file_grows_by_another_member(place: Place, tmp_path: Path) -> None:
    lines = traces.lines_of("simple")
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines[:200])))
    with place.open() as ledger:
        ledger.ingest(path)
        path.write_bytes(path.read_bytes() + gzip.compress(b"".join(line + b"\n" for line in lines[200:])))
        (grown,) = ledger.ingest(path)
        assert grown.account.lines == len(lines)
        assert len(ledger.conversions()) == len(traces.read_case("simple").conversions)
