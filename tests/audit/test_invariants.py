"""The invariants: each is broken by what breaks it and by nothing else, and none is said to hold that was not looked at."""

import json
import os
import random
from collections.abc import Callable, Iterable
from errno import EAGAIN, ENOMEM
from pathlib import Path

import pytest

from gmemstate.audit.history.history import History
from gmemstate.audit.invariants import CATALOGUE, InvariantChecker, InvariantOutcome, InvariantResult, evaluate
from gmemstate.audit.invariants.catalogue import OnRecord
from gmemstate.audit.invariants.checker import KEPT
from gmemstate.audit.invariants.context import AFTER, AT_END, BEFORE
from gmemstate.convert.scenario import load as reading
from gmemstate.convert.scenario import run as outcome
from gmemstate.ledger.ledger import Ledger
from gmemstate.model import events as e
from gmemstate.model.events import KIND, NPAGES, RESULT, SEQ, START, VALUE, Dialect, EventRow
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.record import resolve
from tests.audit.histories import answers, guests, hostpages, kinds, steps
from tests.audit.histories.telling import TALES, Tale
from tests.audit.hosts import simulated
from tests.audit.story import Story
from tests.cli.running import run, say
from tests.store import histories
from tests.traces import (
    CASES,
    ground_truth,
    header_length,
    interleaved,
    kinds_of,
    lines_of,
    read_case,
    read_lines,
    renamed,
    without,
)

SUBJECTS = (answers, steps, kinds, hostpages, guests)
"""The modules of stories; importing them tells them all."""
NEVER = ("INV-13", "INV-21", "INV-30", "INV-46", "INV-47")
"""Those that no event of the registry can show, whole or broken."""
ONLY_BROKEN = ("INV-08", "INV-33")
"""Those of which only the breaking can be seen."""


def judged(rows: Iterable[EventRow]) -> dict[str, InvariantResult]:
    return {found.invariant.id: found for found in evaluate(rows)}


def broken(rows: Iterable[EventRow]) -> dict[str, list[str]]:
    """The invariants that are broken, with their findings."""
    return {found.invariant.id: [str(finding) for finding in found.findings] for found in evaluate(rows) if found.broken}


# --- the catalogue --------------------------------------------------------------------------------------------------


def test_the_catalogue_is_numbered_and_a_judge_for_each_that_can_be_seen() -> None:
    assert list(CATALOGUE) == [f"INV-{n:02}" for n in range(1, len(CATALOGUE) + 1)]
    tables = [*BEFORE.values(), *AFTER.values(), AT_END]
    with_a_judge = {code for table in tables for judges in table.values() for code, _ in judges}
    assert set(CATALOGUE) - with_a_judge == set(NEVER)


def test_each_that_can_be_seen_has_a_story_that_breaks_it_and_one_that_does_not() -> None:
    assert {tale.invariant for tale in TALES if tale.breaks} == set(CATALOGUE) - set(NEVER)
    assert {tale.invariant for tale in TALES if not tale.breaks} == set(CATALOGUE) - set(NEVER) - set(ONLY_BROKEN)


PAGE = Path(__file__).parents[2] / "gmemstate" / "docs" / "invariants.md"


def catalogue_in_words() -> str:
    """The catalogue as the page shows it."""
    parts = []
    nothing = OnRecord(dialects=set(Dialect))
    for entry in CATALOGUE.values():
        dialects = ", ".join(dialect.word for dialect in entry.dialects)
        lacks = "; or ".join(reason for need in entry.needs if (reason := need(nothing)) is not None)
        parts.append(f"### {entry.id} ({entry.severity}; {dialects})\n\n{entry.claim}\nSource: {entry.source}.\n"
                     f"Not evaluable where {lacks}.\n")  # fmt: skip
    return "\n".join(parts)


def test_the_page_has_the_catalogue_word_for_word() -> None:
    text, _, said = PAGE.read_text(encoding="utf-8").partition("\n### INV-01")
    if os.environ.get("GMEMSTATE_RENEW"):
        PAGE.write_text(f"{text}\n{catalogue_in_words()}", encoding="utf-8")
        said = PAGE.read_text(encoding="utf-8").partition("\n### INV-01")[2]
    assert f"### INV-01{said}" == catalogue_in_words()


# --- one by one -----------------------------------------------------------------------------------------------------


def _named(tale: Tale) -> str:
    return f"{tale.invariant}-{tale.name}"


@pytest.mark.parametrize("tale", [tale for tale in TALES if tale.breaks], ids=_named)
def test_a_story_breaks_its_invariant_at_one_event_and_no_other_invariant(tale: Tale) -> None:
    story, shown = tale.returned()
    assert set(broken(story.rows)) == {tale.invariant, *tale.also}
    found = judged(story.rows)[tale.invariant]
    assert found.outcome is InvariantOutcome.BROKEN
    assert {finding.seq for finding in found.findings} == {shown}
    assert {finding.severity for finding in found.findings} == {CATALOGUE[tale.invariant].severity}


@pytest.mark.parametrize("tale", [tale for tale in TALES if not tale.breaks], ids=_named)
def test_a_story_that_is_as_it_must_be_is_looked_at_and_holds(tale: Tale) -> None:
    story, _ = tale.returned()
    assert broken(story.rows) == {}
    found = judged(story.rows)[tale.invariant]
    assert found.outcome is InvariantOutcome.HELD
    assert found.evaluations


def test_what_broke_is_said_with_its_pages() -> None:
    story = Story(Dialect.INPLACE)
    story.converted(0, 8, PRIVATE)
    story.touched(e.Access.HOST, 6, 4)
    (finding,) = judged(story.rows)["INV-05"].findings
    assert (finding.owner, finding.start, finding.end) == (story.gmem, 6, 8)
    assert str(finding) == f"{finding.seq}: event host fault_served not expected in the state private [0x6,0x8) [INV-05]"


def test_many_findings_of_one_invariant_are_counted_and_the_first_are_kept() -> None:
    story = Story(Dialect.INPLACE)
    story.converted(0, 8, PRIVATE)
    shown = [story.touched(e.Access.HOST, n % 8) for n in range(KEPT + 5)]
    found = judged(story.rows)["INV-05"]
    assert (found.evaluations, found.broken) == (KEPT + 5, KEPT + 5)
    assert [finding.seq for finding in found.findings] == shown[:KEPT]


# --- nothing holds that was not looked at ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [Dialect.MAINLINE, Dialect.RFC_V2, Dialect.INPLACE, Dialect.CHECK_FIRST])
def test_of_a_guest_to_which_nothing_has_happened_only_its_memslots_are_said_to_hold(dialect: Dialect) -> None:
    found = judged(Story(dialect).rows)
    assert [code for code, one in found.items() if one.outcome is InvariantOutcome.HELD] == ["INV-29"]
    assert all((one.missing is None) == (one.outcome is not InvariantOutcome.NOT_EVALUABLE) for one in found.values())
    assert all(found[code].outcome is InvariantOutcome.NOT_EVALUABLE for code in NEVER)


def test_an_empty_record_shows_nothing() -> None:
    found = judged([])
    assert {one.outcome for one in found.values()} == {InvariantOutcome.NOT_EVALUABLE}
    assert found["INV-02"].missing == "no guest of dialect mainline is on record"
    assert found["INV-26"].missing == "no event punched is on record: nothing was punched or allocated"


def test_what_a_source_has_not_proven_to_show_is_named() -> None:
    found = judged(read_case("ip_kill_mid").rows)
    assert found["INV-01"].outcome is InvariantOutcome.NOT_EVALUABLE
    assert found["INV-01"].missing == "no source has shown stores of attributes (maple_tree:ma_write)"
    assert found["INV-37"].missing == "nothing of TDX or SNP hardware is on record"


def test_a_missing_step_says_nothing_in_a_record_that_does_not_show_such_steps() -> None:
    """The same story once more, and nothing has proven that stores would be seen."""
    story = Story(Dialect.INPLACE)
    silent = [row for row in story.rows if (row[KIND], row[VALUE]) != (e.SourceShows.code, e.Capability.STORED)]
    for rows in (story.rows, silent):
        first = len(rows) + 1
        asked = e.ConvertAsked(conversion=first, through=e.Through.GMEM_IOCTL, owner=story.gmem, start=0, npages=8,
                               attributes=8,
                               thread=1, source=1)  # fmt: skip
        rows += [(first, *asked.row()[1:]),
                 (first + 1,
                   *e.ConvertReturned(conversion=first, result=EAGAIN, error_offset=0, source=1).row()[1:])]  # fmt: skip
    assert judged(story.rows)["INV-01"].outcome is InvariantOutcome.HELD
    assert judged(silent)["INV-01"].outcome is InvariantOutcome.NOT_EVALUABLE


# --- real kernels ---------------------------------------------------------------------------------------------------

BROKEN_BY_STORY: dict[str, tuple[str, ...]] = {}
"""Captures whose story is that an invariant is broken; there is none."""
LOOKED_AT = (
    "INV-01", "INV-02", "INV-03", "INV-05", "INV-06", "INV-07", "INV-15", "INV-17", "INV-18", "INV-19", "INV-20", "INV-26",
    "INV-27", "INV-28", "INV-29", "INV-34", "INV-38", "INV-41", "INV-42", "INV-44", "INV-45",
)  # fmt: skip
"""What the captures really show."""


@pytest.mark.parametrize("case", CASES)
def test_a_real_kernel_breaks_none(case: str) -> None:
    assert tuple(broken(read_case(case).rows)) == BROKEN_BY_STORY.get(case, ())


def test_the_captures_are_really_looked_at() -> None:
    held = {
        found.invariant.id
        for case in CASES
        for found in evaluate(read_case(case).rows)
        if found.outcome is InvariantOutcome.HELD
    }
    assert sorted(held) == list(LOOKED_AT)


@pytest.mark.parametrize(
    ("case", "invariant", "errno"),
    [("ip_enomem", "INV-17", ENOMEM), ("ip_eagain_pin", "INV-15", EAGAIN), ("ip_eagain_vmsplice", "INV-15", EAGAIN),
     ("ip_transient", "INV-15", EAGAIN), ("ip_transient", "INV-18", EAGAIN), ("ip_race_host", "INV-20", 0)],
)  # fmt: skip
def test_each_answer_that_the_program_has_got_was_looked_at(case: str, invariant: str, errno: int) -> None:
    answers = [call for call in ground_truth(case) if call.op == "set_memory_attributes2" and call.errno == errno]
    assert answers
    assert judged(read_case(case).rows)[invariant].evaluations == len(answers)


Tamper = Callable[[EventRow], EventRow]


def _with(row: EventRow, column: int, value: int | None) -> EventRow:
    changed: tuple[object, ...] = (*row[:column], value, *row[column + 1 :])
    return changed  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("case", "kind", "only", "tamper", "shown"),
    [
        ("ip_sigbus", e.FaultServed, 13, lambda row: _with(row, RESULT, 0), "INV-05"),
        ("ip_eagain_pin", e.ConvertReturned, EAGAIN, lambda row: _with(row, VALUE, 0x10000), "INV-15"),
        ("ip_enomem", e.ConvertReturned, ENOMEM, lambda row: _with(row, VALUE, 0x3000), "INV-17"),
        ("ip_basic", e.AttrsStored, 0, lambda row: _with(row, NPAGES, 8), "INV-01"),
        ("ip_punch", e.AttrsStored, 0, lambda row: _with(_with(row, START, 8), NPAGES, 8), "INV-07"),
        ("enomem", e.AttrsCompared, 0, lambda row: _with(row, RESULT, 1), "INV-02"),
        ("simple", e.AttrsCompared, 1, lambda row: _with(row, RESULT, 0), "INV-02"),
        ("punch_mapped", e.Punched, 0, lambda row: _with(row, RESULT, EAGAIN), "INV-26"),
        ("ip_basic", e.FaultServed, 0, lambda row: _with(row, VALUE, row[SEQ]), "INV-45"),
        ("half_done", e.GuestAnswered, -12, lambda row: _with(row, RESULT, 0), "INV-38"),
        ("st_set_region", e.SlotSet, 0, lambda row: _with(_with(row, START, 0x5), NPAGES, 2), "INV-29"),
    ],
)
def test_a_real_trace_with_another_word_in_it_breaks_one(
    case: str, kind: type[e.Event], only: int, tamper: Tamper, shown: str
) -> None:
    """All events of a kind that have some result are changed a little."""
    rows = [tamper(row) if row[KIND] == kind.code and row[RESULT] == only else row for row in read_case(case).rows]
    assert rows != read_case(case).rows
    assert shown in broken(rows)


SMALL = [case for case in CASES if len(lines_of(case)) < 1500]


@pytest.mark.parametrize("case", SMALL)
def test_less_of_a_trace_breaks_none(case: str, tmp_path: Path) -> None:
    """Kinds of lines are left out, ends are cut off: facts go, and none that is left turns false."""
    dice = random.Random(case)
    lines, first = lines_of(case), header_length(lines_of(case))
    kinds = kinds_of(case)
    for _ in range(6):
        rest: tuple[bytes, ...] = lines
        for kind in dice.sample(kinds, min(len(kinds), dice.randint(1, 4))):
            rest = tuple(without(rest, kind))
        assert broken(read_lines(rest, tmp_path).rows) == {}
    for _ in range(2):
        start, end = sorted((dice.randint(first, len(lines)), dice.randint(first, len(lines))))
        assert broken(read_lines([*lines[:first], *lines[start:end]], tmp_path).rows) == {}


@pytest.mark.parametrize("seed", range(8))
def test_two_hosts_in_one_trace_break_none(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    one, other = dice.sample([case for case in SMALL if not case.endswith("graph")], 2)
    first, second = lines_of(one), [renamed(line) for line in lines_of(other)[header_length(lines_of(other)) :]]
    head = header_length(first)
    merged, _, _ = interleaved(list(first[head:]), second, dice, dice.choice((1, 5, 40)))
    assert broken(read_lines([*first[:head], *merged], tmp_path).rows) == {}


# --- simulated kernels ----------------------------------------------------------------------------------------------

BROKEN_BY_DESIGN = {
    ("the-mail", "INV-18"): "D is an IOMMU that follows notifications: it is told before C refuses",
    ("sc-45-cannot-map-again", "INV-18"): "D is an IOMMU that follows notifications, and RFC v2 returns EAGAIN for C",
    ("sc-09-rollback-below-zero", "INV-36"): "the rollback of RFC v2 never ends",
    ("sc-10-page-remove-fails", "INV-22"): "the host may map a page that did not come off",
    ("sc-10-page-remove-fails", "INV-36"): "nobody tells guest_memfd of the reference that TDX keeps",
    ("sc-13-bugged-and-reused", "INV-22"): "mainline gives the page away",
    ("sc-27-punch-messed-up", "INV-22"): "a punch gives the page away",
    ("sc-38-rmpupdate-on-free", "INV-22"): "the page is freed although it is the guest's",
    ("sc-38-rmpupdate-on-free", "INV-33"): "the page is freed although it is the guest's",
    ("sc-41-returned-ok-half-converted", "INV-01"): "RFC v2 returns success for half of the work",
    ("sc-41-returned-ok-half-converted", "INV-40"): "RFC v2 returns success for half of the work",
    ("ip-22-remove-fails", "INV-22"): "the host may map a page that did not come off",
    ("ip-23-rmpupdate-fails", "INV-33"): "a failed RMPUPDATE is a WARN, and the page counts as shared",
}
"""What scenarios of the catalogue are there to show."""


@pytest.mark.parametrize("name", reading.catalogue())
def test_a_scenario_breaks_what_it_is_there_to_break(name: str) -> None:
    """And where the memory finds a host page reused, so does INV-22."""
    loaded = reading.load(name)
    found: set[str] = set()
    for dialect, policy in outcome.pairs(loaded):
        simulation = outcome.run(loaded, dialect, policy).simulation
        now = broken(simulation.rows)
        assert ("INV-22" in now) == any(finding.code == "PFN-REUSED" for finding in simulation.memory.findings)
        found |= set(now)
    assert found == {invariant for title, invariant in BROKEN_BY_DESIGN if title == name}


@pytest.mark.parametrize(
    "dialect", [Dialect.MAINLINE, Dialect.RFC_V2, Dialect.INPLACE, Dialect.CHECK_FIRST], ids=lambda dialect: dialect.word
)
def test_a_simulated_host_breaks_none(dialect: Dialect) -> None:
    """Whoever maps and holds what, whatever is converted, punched and poisoned, and whatever memory runs out."""
    for seed in range(25):
        assert broken(simulated(dialect, random.Random(seed)).rows) == {}


# --- any history ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_a_history_that_nobody_would_write_is_judged_all_the_same(seed: int) -> None:
    rows: list[EventRow] = []
    known: dict[int, int] = {}
    for batch in histories.history(random.Random(seed), 60):
        numbered, new = resolve([event.row() for event in batch], len(rows) + 1, known)
        known.update(new)
        rows += numbered
    found = evaluate(rows)
    assert len(found) == len(CATALOGUE)
    assert all(one.broken <= one.evaluations and len(one.findings) == min(one.broken, KEPT) for one in found)


@pytest.mark.parametrize("case", ["half_done", "ip_mixed", "ip_lost_overrun"])
def test_looking_changes_nothing_and_live_machines_see_the_same(case: str) -> None:
    rows = read_case(case).rows
    for live in (False, True):
        history = History()
        history.memory.live = live
        inspection = InvariantChecker(history.memory)
        history.fold(inspection.watch(rows))
        assert history.findings == read_case(case).history.findings
        assert history.memory.ranges == read_case(case).history.memory.ranges
        assert inspection.results() == evaluate(rows)


# --- the command line -----------------------------------------------------------------------------------------------


def test_replay_says_what_is_broken_and_counts_the_rest(tmp_path: Path) -> None:
    where = tmp_path / "vm.db"
    story = Story(Dialect.INPLACE)
    story.converted(0, 8, PRIVATE)
    shown = story.touched(e.Access.HOST, 3)
    with Ledger.open(where) as ledger:
        ledger.record(*(e.event_of(row) for row in story.rows))
    ran = run("--db", where, "replay")
    assert ran.code == 1
    first, claim, finding, account = ran.out.splitlines()
    assert first.endswith(", 0 findings")
    assert claim == f"  INV-05 (fatal) is broken: {CATALOGUE['INV-05'].claim}"
    assert finding == f"    {shown}: event host fault_served not expected in the state private [0x3,0x4) [INV-05]"
    found = judged(story.rows)
    counts = [sum(one.outcome is outcome for one in found.values()) for outcome in InvariantOutcome]
    assert account == f"{len(CATALOGUE)} invariants: " + "{} held, {} broken, {} not seen, {} not evaluable".format(*counts)
    facts = json.loads(say("--db", where, "replay", "--json").out)
    assert [one["id"] for one in facts["invariants"]] == list(CATALOGUE)
    assert [one["outcome"] for one in facts["invariants"]] == [one.outcome for one in found.values()]
    (returned,) = (one for one in facts["invariants"] if one["outcome"] == "broken")
    assert returned["findings"][0]["start"] == "0x3"
