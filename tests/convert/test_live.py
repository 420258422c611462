"""Conversions on a ledger: durable step by step, in turns, and open until somebody says what became of them."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import gmemstate
from gmemstate.convert.engine import users
from gmemstate.convert.engine.users import UnmapAnswer
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import UsageError
from gmemstate.model.events import (
    ConvertReturned,
    Dialect,
    Event,
    GmemBound,
    GmemCreated,
    Interrupted,
    PageAdded,
    SlotSet,
    User,
    VmCreated,
    VmSeen,
    ZapStarted,
)
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.verdict import Label
from gmemstate.store.recorder import Recorder

VM, GMEM = 1, 3


def guest(dialect: Dialect) -> list[Event]:
    """A guest with 16 shared pages of one guest_memfd, at gfn 0x100."""
    return [
        VmSeen(owner=-1, made=1),
        VmCreated(owner=-1, dialect=dialect),
        GmemCreated(owner=-2, vm=-1, npages=16, flags=2, result=0),
        SlotSet(slot=0, owner=-1, start=0x100, npages=16, flags=4),
        GmemBound(owner=-1, start=0x100, npages=16, index=0, gmem=-2),
        PageAdded(owner=-2, start=0, npages=16, pfn=0x1000),
    ]


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "vm.db"


@pytest.fixture
def ledger(where: Path) -> Iterator[Ledger]:
    with gmemstate.open(where) as made:
        made.record(*guest(Dialect.INPLACE))
        yield made


def states(ledger: Ledger, owner: int = GMEM) -> list[tuple[int, int, str]]:
    return [tuple(run) for run in ledger.memory().runs(owner, 0, 16)]


def killed_at_its_first_question(where: Path) -> int:
    """A process that dies when the kernel asks its user to unmap; the id of the conversion that it leaves."""
    program = f"""
        import os, signal, gmemstate
        class Dies:
            name, kind = "D", 1
            def unmap(self, start, end, *, ask):
                os.kill(os.getpid(), signal.SIGKILL)
            def references(self, start, end, *, drained):
                return 0
            def access(self, page):
                return True
        with gmemstate.open({str(where)!r}) as ledger:
            ledger.convert({GMEM}, 0, 8, "private", users=[Dies()])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    with gmemstate.open(where, readonly=True) as ledger:
        return ledger.conversions()[-1].id


def test_a_refused_conversion_says_what_it_returned_and_what_is_left(ledger: Ledger) -> None:
    result = ledger.convert(GMEM, 0, 16, "private", users=[users.host("A", range(16)), users.pin("vfio", [5])])
    assert result.errno == 11
    assert result.label is Label.FAILED_RESIDUE
    assert result.applied.extent == "none"
    assert [(left.what, left.start, left.end) for left in result.residue or ()] == [("host mapping", 0, 16)]
    assert (
        next(event for event in (one.event for one in result.events) if isinstance(event, ConvertReturned)).error_offset
        == 5 << 12
    )
    assert states(ledger) == [(0, 16, "shared")]


@pytest.mark.parametrize(("dialect", "owner", "start"), [(Dialect.MAINLINE, VM, 0x100), (Dialect.RFC_V2, GMEM, 0)])
def test_each_dialect_converts_where_its_attribute_lives(where: Path, dialect: Dialect, owner: int, start: int) -> None:
    with gmemstate.open(where) as ledger:
        ledger.record(*guest(dialect))
        assert ledger.convert(owner, start, start + 4, "private").label is Label.COMMITTED
        assert ledger.range(0x100).state == "private"
        assert ledger.range(0x104).state == "shared"
        with pytest.raises(UsageError, match="holds the attribute"):
            ledger.convert(GMEM if owner == VM else VM, 0, 1, "private")


def test_every_step_is_stored_before_the_next_one(ledger: Ledger, where: Path) -> None:
    seen: list[list[str]] = []

    class Looks:
        name, kind = "L", User.HOST

        def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
            with gmemstate.open(where, readonly=True) as other:
                seen.append([event.name for event in (one.event for one in other.events(since=other.head().seq))])
                assert other.conversions()[-1].label == "in_flight"
            return UnmapAnswer(0, 0)

        def references(self, start: int, end: int, *, drained: bool) -> int:
            return 0

        def access(self, page: int) -> bool:
            return True

    ledger.convert(GMEM, 0, 16, "private", users=[Looks()])
    assert seen == [[ZapStarted.name]]


def test_a_killed_conversion_is_in_flight_until_the_next_one_gets_the_lock(where: Path) -> None:
    with gmemstate.open(where) as ledger:
        ledger.record(*guest(Dialect.INPLACE))
    left = killed_at_its_first_question(where)
    with gmemstate.open(where) as ledger:
        assert ledger.conversions()[-1].label == "in_flight"
        with pytest.raises(UsageError, match="torn"):
            ledger.convert(GMEM, 0, 16, "private")
        assert [event.conversion for event in (one.event for one in ledger.events()) if isinstance(event, Interrupted)] == [
            left
        ]
        assert ledger.conversions()[-1].label == "cut"
        assert states(ledger) == [(0, 8, "torn"), (8, 16, "shared")]
        assert ledger.convert(GMEM, 8, 16, "private").errno == 0  # what it had not changed is as before


@pytest.mark.parametrize(
    ("how", "outcome", "state"),
    [
        ("roll-back", None, "shared"),
        ("declare", "old", "shared"),
        ("declare", "new", "private"),
        ("declare", "unknown", "torn"),
    ],
)
def test_an_open_conversion_is_resolved_as_somebody_says(where: Path, how: str, outcome: str | None, state: str) -> None:
    with gmemstate.open(where) as ledger:
        ledger.record(*guest(Dialect.INPLACE))
    left = killed_at_its_first_question(where)
    with gmemstate.open(where) as ledger:
        assert ledger.resolve(left, how, outcome).label is Label.DECLARED
        assert states(ledger)[0] == ((0, 16, state) if state == "shared" else (0, 8, state))
        assert not ledger.history().findings
        with pytest.raises(UsageError, match="not open"):
            ledger.resolve(left, how, outcome)


def dies_behind_its_step(where: Path, owner: int, start: int, n: int) -> bool:
    """A process that is killed as soon as the n-th event of its conversion is stored; whether it got so far."""
    child = os.fork()
    if not child:
        stored = iter(range(1, n + 1))
        append = Recorder.append

        def and_dies(*args: Any, **options: Any) -> Any:
            result = append(*args, **options)
            if next(stored) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        try:
            Recorder.append = and_dies  # type: ignore[method-assign]
            with gmemstate.open(where, durable=False) as ledger:
                pages = range(start, start + 16)
                who = [users.host("A", pages), users.guest("guest", pages)]
                ledger.convert(owner, start, start + 16, "private", users=who)
        finally:
            os._exit(0)  # whatever was raised, no second pytest goes on from here
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("dialect", [Dialect.MAINLINE, Dialect.RFC_V2, Dialect.INPLACE])
def test_whichever_step_was_its_last_a_roll_back_gives_everything_back(tmp_path: Path, dialect: Dialect) -> None:
    """Of pages of both kinds, behind the end of the invalidation too; and what is resolved can be converted again."""
    owner, start = (VM, 0x100) if dialect is Dialect.MAINLINE else (GMEM, 0)
    whole, where = tmp_path / "whole.db", tmp_path / "vm.db"

    def kinds(ledger: Ledger) -> list[tuple[int, str]]:
        return [(run.end - start, run.state) for run in ledger.memory().runs(owner, start, start + 16)]

    with gmemstate.open(whole) as ledger:
        ledger.record(*guest(dialect))
        ledger.convert(owner, start + 4, start + 8, "private")
    labels = []
    for n in count(1):
        shutil.copy(whole, where)
        if not dies_behind_its_step(where, owner, start, n):
            break
        with gmemstate.open(where, durable=False) as ledger:
            left = ledger.conversions()[1:]
            labels.append(left[0].label if left else None)
            if labels[-1] == "in_flight":
                assert ledger.resolve(left[0].id, "roll-back").label is Label.DECLARED
                assert kinds(ledger) == [(4, SHARED), (8, PRIVATE), (16, SHARED)]
            assert not ledger.history().findings
            assert ledger.convert(owner, start, start + 16, SHARED).errno == 0
    assert labels == [None] + ["in_flight"] * (len(labels) - 3) + ["committed"] * 2
    assert len(labels) > 10


def test_an_observed_conversion_can_only_be_declared(where: Path) -> None:
    from tests.traces import lines_of

    trace = where.with_name("cut.txt")
    lines = lines_of("enomem")
    entry = max(n for n, line in enumerate(lines) if b": vm_ioctl:" in line)
    trace.write_bytes(b"\n".join(lines[: entry + 1]) + b"\n")
    with gmemstate.open(where) as ledger:
        ledger.ingest(trace)
        left = ledger.conversions()[-1].id
        with pytest.raises(UsageError, match="observed"):
            ledger.resolve(left, "roll-back")
        assert ledger.resolve(left, "declare", "unknown").label is Label.DECLARED


@pytest.mark.parametrize(("outcome", "state"), [("old", "shared"), ("new", "private"), ("unknown", "torn")])
def test_what_was_seen_up_to_its_store_is_what_an_operator_says(where: Path, outcome: str, state: str) -> None:
    """A trace that ends behind a store: no finding comes of a declaration, whichever it is."""
    from tests.traces import lines_of

    trace = where.with_name("cut.txt")
    lines = lines_of("half_done")
    store = next(n for n, line in enumerate(lines) if b": post_set:" in line)
    trace.write_bytes(b"\n".join(lines[: store + 1]) + b"\n")
    with gmemstate.open(where) as ledger:
        ledger.ingest(trace)
        assert ledger.range(0x100000).state == "stored(shared>private)"
        ledger.resolve(ledger.conversions()[-1].id, "declare", outcome)
        assert ledger.range(0x100000).state == state
        assert not ledger.history().findings


def test_conversions_of_one_space_take_turns_over_threads(ledger: Ledger, where: Path) -> None:
    """Two threads convert overlapping pages to and fro: no interval of one overlaps with one of the other (INV-20)."""

    def work(kind: str) -> None:
        with gmemstate.open(where, durable=False) as mine:
            for _ in range(5):
                mine.convert(GMEM, 0, 12, kind)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in ("private", "shared")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    inside = None
    for event in (one.event for one in ledger.events()):
        conversion = getattr(event, "conversion", None)
        if conversion is not None:
            assert inside in (None, conversion)
            inside = None if isinstance(event, ConvertReturned) else conversion
    history = ledger.history()
    assert len(history.conversions) == 10
    assert not history.findings


def test_conversions_of_one_space_take_turns_over_processes(ledger: Ledger, where: Path) -> None:
    program = f"""
        import gmemstate
        with gmemstate.open({str(where)!r}, durable=False) as ledger:
            for kind in ("private", "shared", "private"):
                ledger.convert({GMEM}, 0, 16, kind)
    """
    children = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)]) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    history = ledger.history()
    assert len(history.conversions) == 6
    assert not history.findings
    assert {conversion.result for conversion in history.conversions.values()} == {0}


def test_a_silent_user_leaves_the_conversion_stuck(ledger: Ledger) -> None:
    result = ledger.convert(
        GMEM, 0, 16, "private", users=[users.host("S", range(16), refuses=None, refused=frozenset(range(16)))]
    )
    assert result.errno is None
    assert ledger.conversions()[-1].stuck


def test_nothing_is_left_beside_the_ledger(where: Path) -> None:
    with gmemstate.open(where) as ledger:
        ledger.record(*guest(Dialect.INPLACE))
        ledger.convert(GMEM, 0, 16, "private")
    assert [path.name for path in where.parent.iterdir()] == ["vm.db"]
