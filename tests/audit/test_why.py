"""The reasons for a page: enough of them, and none too many."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmemstate.audit.why import Facts, LeastEvents, Spot, facts, find_spot, why
from gmemstate.convert.engine.policies import POLICIES
from gmemstate.convert.scenario.load import catalogue, load
from gmemstate.convert.scenario.run import pairs, run
from gmemstate.ledger.ledger import Ledger
from gmemstate.model import events as e
from gmemstate.model.errors import UsageError
from gmemstate.model.events import ACTOR, KIND, SEQ, Dialect, EventRow, conversion_of
from gmemstate.model.fold.apply import apply
from gmemstate.model.memory import Memory
from tests.audit.alterations import Kept
from tests.audit.hosts import simulated
from tests.cli.running import say
from tests.model.test_histories import PRIVATE, SHARED, VM
from tests.traces import CASES, capture


class Rows:
    """A record that is a list."""

    def __init__(self, rows: Sequence[EventRow]) -> None:
        self.rows = rows

    def events(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        return (row for row in self.rows if row[SEQ] >= first and (last is None or row[SEQ] <= last))


def folded(rows: Sequence[EventRow]) -> Memory:
    memory = Memory()
    for row in rows:
        apply(memory, row)
    return memory


def last_change(values: Sequence[tuple[int, object]]) -> int | None:
    """Who began the last run of equal values; None where the first run is the last."""
    at = len(values) - 1
    while at and values[at - 1][1] == values[at][1]:
        at -= 1
    return values[at][0] if at else None


def writers(rows: Sequence[EventRow], spot: Spot) -> dict[str, int | None]:
    """Who changed the state and the backing of a page last, and who brought about each mark: from all values, looking back."""
    memory, seen = Memory(), [(0, Facts(None, None, ()))]
    for row in rows:
        apply(memory, row)
        seen.append((conversion_of(row) or row[SEQ], facts(memory, spot)))
    states = [(key, one.state or "unknown") for key, one in seen]
    settled = [one for one in states if "(" not in one[1]]
    return {
        "state": last_change(states if "(" in states[-1][1] else settled),
        "backing": last_change([(key, one.backing) for key, one in seen]),
        **{str(mark): last_change([(key, mark in one.marks) for key, one in seen]) for mark in seen[-1][1].marks},
    }


def same(rows: Sequence[EventRow], goal: Facts, made: dict[str, int | None], whole: Memory, spot: Spot) -> bool:
    """Whether some events alone make the page what it is, by the same writers, and accuse nobody else."""
    if writers(rows, spot) != made:
        return False
    memory = folded(rows)
    accused = {(finding.code, finding.seq) for finding in memory.findings}
    known = spot.unit != "idx" or spot.owner in memory.gmems or goal.state == "unknown"
    return known and facts(memory, spot) == goal and accused <= {(finding.code, finding.seq) for finding in whole.findings}


def assert_irreducible(rows: Sequence[EventRow], spot: Spot) -> LeastEvents:
    """Folded alone the reasons give the same, and without any one of them they do not."""
    answer, whole, made = why(Rows(rows), spot), folded(rows), writers(rows, spot)  # type: ignore[arg-type]
    by_seq = {row[SEQ]: row for row in rows}
    kept = [by_seq[seq] for seq, _ in answer.events]
    assert [row[SEQ] for row in kept] == sorted(row[SEQ] for row in kept)
    assert answer.facts == facts(whole, spot)
    assert sorted(writer.key for writer in answer.writers.values()) == sorted(key for key in made.values() if key is not None)
    assert {writer.key for writer in answer.writers.values()} <= {conversion_of(row) or row[SEQ] for row in kept}
    assert same(kept, answer.facts, made, whole, spot)
    for n in range(len(kept)):
        assert not same(kept[:n] + kept[n + 1 :], answer.facts, made, whole, spot), (spot, kept[n])
    return answer


def spots(memory: Memory, dice: random.Random, count: int) -> list[Spot]:
    """Some pages of each numbering: at the borders of runs, and everything that is messed up."""
    found = {
        Spot("gfn", page, vm)
        for vm in memory.vms
        for start, end, _ in memory.guest_runs(vm)
        for page in (start, min(end - 1, start + 7))
        if start < end
    }
    found |= {
        Spot("idx", page, gmem)
        for gmem in memory.gmems
        for start, end, _ in memory.runs(gmem, 0, 64)
        for page in (start, end - 1)
    }
    marked = [Spot("pfn", entry.pfn, None) for entry in memory.messed_up.values() if entry.pfn is not None]
    marked += [Spot("gfn", m.gfn, m.vm) for m in memory.messed_up.values() if m.gfn is not None and m.vm is not None]
    some = sorted(found, key=str)
    return dice.sample(some, min(count, len(some))) + marked[:count]


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("st_") and "race_host" not in case])
def test_the_reasons_of_pages_of_captures_are_enough_and_none_can_be_left_out(case: str, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.ingest(capture(case))
        rows = list(ledger.record_.events())
    for spot in spots(folded(rows), random.Random(3), 3):
        assert_irreducible(rows, spot)


@pytest.mark.parametrize("name", catalogue())
def test_the_reasons_of_pages_of_scenarios_are_enough_and_none_can_be_left_out(name: str) -> None:
    """Refusals, undoing, splits, punches, slots that come and go, pages that cannot be unmapped."""
    scenario, dice = load(name), random.Random(name)
    for dialect, policy in list(pairs(scenario))[-1:]:
        rows = run(scenario, dialect, policy).simulation.rows
        for spot in spots(folded(rows), dice, 2):
            assert_irreducible(rows, spot)


@pytest.mark.parametrize("dialect", POLICIES)
@pytest.mark.parametrize("seed", range(4))
def test_the_reasons_of_pages_of_any_host_are_enough_and_none_can_be_left_out(dialect: Dialect, seed: int) -> None:
    dice = random.Random(seed)
    rows = simulated(dialect, dice).rows
    for spot in spots(folded(rows), dice, 3):
        assert_irreducible(rows, spot)


def names(answer: LeastEvents) -> list[str]:
    return [event.name for _, event in answer.events]


def test_a_page_is_explained_by_the_last_conversion_that_it_was_part_of() -> None:
    """Its range was split by another one meanwhile; what was there before does not matter."""
    story = Kept()
    story.convert(0, 16, PRIVATE)
    last = story.convert(8, 2, SHARED)
    story.convert(10, 6, SHARED)
    answer = assert_irreducible(story.rows, Spot("gfn", 9, VM))
    assert answer.facts.state == "shared"
    assert {seq for seq, event in answer.events if getattr(event, "conversion", None) is not None} <= set(range(last, last + 4))


def test_a_punched_page_is_explained_by_the_hole() -> None:
    story = Kept()
    gmem = story.tell(e.GmemSeen, owner=story.seq + 1, vm=VM)
    story.tell(e.PageAdded, owner=gmem, start=0, npages=8, pfn=0x100)
    hole = story.tell(e.Punched, mode=3, owner=gmem, start=2, npages=2, result=0)
    answer = assert_irreducible(story.rows, Spot("idx", 3, gmem))
    assert hole in [seq for seq, _ in answer.events]
    assert hole not in [seq for seq, _ in assert_irreducible(story.rows, Spot("idx", 4, gmem)).events]


def test_a_page_is_explained_as_of_a_moment() -> None:
    story = Kept()
    first = story.convert(0, 16, PRIVATE)
    moment = story.seq
    story.convert(0, 16, SHARED)
    answer = why(Rows(story.rows), Spot("gfn", 3, VM), moment)  # type: ignore[arg-type]
    assert answer.facts.state == "private"
    assert max(seq for seq, _ in answer.events) <= moment
    assert first <= max(seq for seq, _ in answer.events)


def test_a_messed_up_page_is_explained_by_what_failed_wherever_one_asks() -> None:
    """By its gfn and by its pfn."""
    story = Kept()
    story.convert(0, 8, PRIVATE)
    failed = story.tell(e.PrivateUnmapFailed, step=e.UnmapStep.REMOVE, pfn=0x500, owner=VM, start=3, npages=1, status=0x8000)
    for spot in (Spot("gfn", 3, VM), Spot("pfn", 0x500, None)):
        answer = assert_irreducible(story.rows, spot)
        assert [mark[0] for mark in answer.facts.marks] == ["SEPT_STILL_MAPS"]
        assert failed in [seq for seq, _ in answer.events]
    assert_irreducible(story.rows, Spot("gfn", 4, VM))


def test_a_gpa_is_the_page_that_holds_it(tmp_path: Path) -> None:
    where = tmp_path / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
    by_gfn, by_gpa = say("--db", where, "why", "gfn:0x100004", "--json"), say("--db", where, "why", "gpa:0x100004abc", "--json")
    assert by_gfn == by_gpa
    assert '"events"' in by_gfn.out


def test_a_page_of_several_guests_is_asked_for_by_name(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"), capture("ip_eagain_pin"))
        memory = ledger.memory()
    with pytest.raises(UsageError, match="whose page"):
        find_spot(memory, "gfn", 0x100004)
    assert find_spot(memory, "gfn", 0x100004, "vm1").owner == min(memory.vms)


@pytest.mark.parametrize("case", ["half_done", "hwpoison_private", "ip_punch"])
def test_the_reasons_of_pages_are_enough_where_evidence_came_late(case: str, tmp_path: Path) -> None:
    """A second source of the same run is read after the first: its late events are recorded, not applied."""
    folder = Path(__file__).parents[1] / "captures" / case
    with Ledger.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.ingest(capture(case))
        for later in sorted(folder.glob("[!f]*.txt.gz")):
            ledger.ingest(later)
        rows = list(ledger.record_.events())
    assert any(row[KIND] == e.Gap.code and row[ACTOR] == e.GapKind.LATE for row in rows)
    for spot in spots(folded(rows), random.Random(9), 5):
        assert_irreducible(rows, spot)


@given(
    st.lists(st.tuples(st.sampled_from((PRIVATE, SHARED)), st.integers(0, 12), st.integers(1, 8), st.booleans()), max_size=12)
)
def test_the_last_writer_of_a_page_is_the_last_conversion_that_changed_it(steps: list[tuple[int, int, int, bool]]) -> None:
    """Against a page that is a value and a name: success that changes the value writes the name, all else writes nothing."""
    story, value, writer, refused = Kept(), "shared", None, set()
    for to, start, npages, succeeds in steps:
        conversion = story.convert(start, npages, to) if succeeds else refuse(story, start, npages, to)
        wanted = "private" if to == PRIVATE else "shared"
        if not succeeds:
            refused.add(conversion)
        elif start <= 7 < start + npages and value != wanted:
            value, writer = wanted, conversion
    answer = why(Rows(story.rows), Spot("gfn", 7, VM))  # type: ignore[arg-type]
    assert answer.facts.state == value
    assert [one.conversion for fact, one in answer.writers.items() if fact.name == "state"] == [writer]
    assert not refused & {conversion_of(event.row()) for _, event in answer.events}


def refuse(story: Kept, start: int, npages: int, to: int) -> int:
    """A conversion that takes mappings away and is then refused."""
    conversion = story.ask(start, npages, to)
    story.zap(conversion, start, npages)
    story.answer(conversion, -11)
    return conversion
