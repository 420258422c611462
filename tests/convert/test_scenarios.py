"""The scenarios that come with the program: each comes out as its specification says, and its record is whole and fits."""

import json
import os
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from gmemstate.audit.invariants import InvariantOutcome as Judgement
from gmemstate.audit.invariants import evaluate
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES
from gmemstate.convert.scenario.definition import Scenario
from gmemstate.convert.scenario.load import catalogue, load
from gmemstate.convert.scenario.run import ScenarioOutcome, pairs, run
from gmemstate.convert.scenario.story import story
from gmemstate.convert.simulation.facts import FORMS, NUMBER, TABLE, VM
from gmemstate.model.events import KIND, RESULT, SEQ, VALUE, ConvertReturned, DmaFaulted, SourceRead, Undone, UsersChecked
from gmemstate.model.fold.apply import fold
from gmemstate.model.memory import Memory
from tests.cli.running import say

GOLDEN = Path(__file__).parent / "golden"
SCENARIOS = {name: load(name) for name in catalogue()}
PAIRS = [
    pytest.param(name, dialect, policy, id=f"{name}-{dialect.word}-{policy}")
    for name, scenario in SCENARIOS.items()
    for dialect, policy in pairs(scenario)
]


@cache
def played(name: str, dialect: Any, policy: Any) -> ScenarioOutcome:
    return run(SCENARIOS[name], dialect, policy)


def of(name: str, dialect: str, policy: str = "bug-vm") -> ScenarioOutcome:
    """A scenario under a pair, by their names."""
    found = [pair for pair in pairs(SCENARIOS[name]) if (pair[0].word, pair[1]) == (dialect, policy)]
    return played(name, *found[0])


def returned(outcome: ScenarioOutcome) -> str:
    """The story, one line for each sentence."""
    return "\n".join(story(outcome))


# --- what must come of them


@pytest.mark.parametrize(("name", "dialect", "policy"), PAIRS)
def test_it_comes_as_the_specification_says(name: str, dialect: Any, policy: Any) -> None:
    outcome = played(name, dialect, policy)
    assert outcome.expects, "a pair that nothing is expected of shows nothing"
    assert outcome.differences == ()


def test_a_fault_that_never_strikes_fails_the_scenario() -> None:
    """Whatever it expects would come true without it as well."""
    scenario = SCENARIOS["sc-05-store-fails"]
    assert scenario.faults
    for dialect, policy in pairs(scenario):
        never = replace(scenario, faults=tuple({**fault, "page": 60_000} for fault in scenario.faults), expect={})
        assert [one.fact for one in run(never, dialect, policy).differences] == ["faults"]


@pytest.mark.parametrize(("name", "dialect", "policy"), PAIRS)
def test_its_record_is_whole_and_fits_the_machines(name: str, dialect: Any, policy: Any) -> None:
    """No finding but those that are expected; the rows alone make the same memory, and the real machines do too."""
    outcome = played(name, dialect, policy)
    simulation = outcome.simulation
    expected = SCENARIOS[name].expected(dialect, policy).get("findings", [])
    assert sorted({finding.code for finding in simulation.memory.findings}) == expected
    if outcome.facts.returned[-1:] != ["stuck"]:
        assert simulation.rows[-1][KIND] == SourceRead.code
        assert simulation.memory.open_conversions() == []
    for memory in (fold(simulation.rows), fold(simulation.rows, Memory(live=True))):
        assert state(memory) == state(simulation.memory)


BROKEN = {
    # An IOMMU that follows the notifications has lost its mapping, and EAGAIN is all that the VMM hears.
    ("the-mail", "rfc-v2"): {"INV-18"},
    ("the-mail", "inplace"): {"INV-18"},
    ("sc-45-cannot-map-again", "rfc-v2"): {"INV-18"},
    # An ioctl that never returns.
    ("sc-09-rollback-below-zero", "rfc-v2"): {"INV-36"},
    ("sc-10-page-remove-fails", "uninformed"): {"INV-36"},
    # A page that did not come off is mapped by the host, or given away.
    ("sc-10-page-remove-fails", "rfc-v2", "bug-vm"): {"INV-22"},
    ("sc-10-page-remove-fails", "check-first", "bug-vm"): {"INV-22"},
    ("sc-10-page-remove-fails", "inplace"): {"INV-22"},
    ("sc-13-bugged-and-reused", "mainline"): {"INV-22"},
    ("sc-27-punch-messed-up", "bug-vm"): {"INV-22"},
    ("ip-22-remove-fails", "inplace"): {"INV-22"},
    # The RMP goes on giving a page to the guest.
    ("sc-38-rmpupdate-on-free", "bug-vm"): {"INV-22", "INV-33"},
    ("ip-23-rmpupdate-fails", "inplace"): {"INV-33"},
    # Told 0, and only a part is converted.
    ("sc-41-returned-ok-half-converted", "rfc-v2"): {"INV-01", "INV-40"},
}
"""The invariants that scenarios are there to break; all others hold wherever they can be looked at."""


def broken(outcome: ScenarioOutcome) -> set[str]:
    """The invariants that a record breaks."""
    judged = evaluate(outcome.simulation.rows)
    return {each.invariant.id for each in judged if each.outcome is Judgement.BROKEN}


def meant(outcome: ScenarioOutcome) -> set[str]:
    """Those that it is meant to break."""
    name, dialect, policy = outcome.scenario.name, outcome.dialect.word, outcome.policy.value
    keys = ((name, dialect), (name, policy), (name, dialect, policy))
    return set().union(*(BROKEN.get(key, set()) for key in keys))


@pytest.mark.parametrize(("name", "dialect", "policy"), PAIRS)
def test_it_breaks_the_invariants_that_it_is_about_and_no_other(name: str, dialect: Any, policy: Any) -> None:
    outcome = played(name, dialect, policy)
    assert broken(outcome) == meant(outcome)


def test_each_invariant_that_is_to_be_broken_is_of_a_pair_that_is_played() -> None:
    played_pairs = [(s.name, d.word, p.value) for s in SCENARIOS.values() for d, p in pairs(s)]
    for key in BROKEN:
        assert [pair for pair in played_pairs if pair[0] == key[0] and set(key) <= set(pair)], key


def state(memory: Memory) -> list[Any]:
    """All that a memory says."""
    conversions = [*memory.conversions.values(), *memory.ended]
    return [memory.ranges, memory.mappings, memory.messed_up, memory.gmems, memory.vms, conversions, memory.findings]


def test_nothing_is_expected_that_does_not_come() -> None:
    """The test of the tests: whatever is expected, something else is noticed, with an event that shows it."""
    looked_at = set()
    for name, scenario in SCENARIOS.items():
        for dialect, policy in pairs(scenario):
            outcome = played(name, dialect, policy)
            for fact, value in scenario.expected(dialect, policy).items():
                other = replace(outcome, scenario=replace(scenario, expect={(None, None): {fact: wrong(fact, value)}}))
                (difference,) = other.differences
                assert (difference.fact, difference.found) == (fact, getattr(outcome.facts, fact))
                assert difference.seq is not None
                assert 0 < difference.seq <= len(outcome.simulation.rows)
                looked_at.add(fact)
    assert looked_at == set(FORMS), "each fact is expected somewhere"


def wrong(fact: str, value: Any) -> Any:
    form = FORMS[fact]
    if form == TABLE:
        return {**value, "nobody": ["0+1"]}
    if form in (NUMBER, VM):
        return value + 1 if form == NUMBER else f"not {value}"
    return [*value[:-1], "something else"] if value else ["something"]


@pytest.mark.parametrize(
    ("name", "dialect", "fact", "value", "kind", "n"),
    [
        ("sc-03-unpin-and-retry", "rfc-v2", "returned", ["EAGAIN", "EAGAIN"], ConvertReturned, 1),
        ("sc-03-unpin-and-retry", "rfc-v2", "returned", ["0", "0"], ConvertReturned, 0),
        ("the-mail", "inplace", "accessed", ["A 3 ok", "D 3 ok"], DmaFaulted, 0),
        ("sc-06-rollback-fails", "rfc-v2", "undone", ["4+4 WARN", "12+4 WARN"], Undone, 1),
        ("ip-27-poison-blocks", "inplace", "references", ["5: 3, not 2", "6: 3, not 2"], UsersChecked, 1),
    ],
)
def test_a_difference_names_the_event_at_which_the_two_part(
    name: str, dialect: str, fact: str, value: Any, kind: Any, n: int
) -> None:
    outcome = of(name, dialect)
    other = replace(outcome, scenario=replace(outcome.scenario, expect={(None, None): {fact: value}}))
    rows = [row for row in outcome.simulation.rows if row[KIND] == kind.code and row[SEQ] >= outcome.first]
    assert other.differences[0].seq == rows[n][SEQ]


def test_a_rollback_that_fails_leaves_what_only_its_warning_knows() -> None:
    """While it is undone a range is in that state; behind a WARN it is torn unless the event says what it has."""
    outcome = of("sc-06-rollback-fails", "rfc-v2")
    simulation = outcome.simulation
    failed, undone = (row for row in simulation.rows if row[KIND] == Undone.code)
    assert (failed[RESULT], undone[RESULT]) == (12, 0)

    def states(rows: Any) -> list[tuple[int, int, str]]:
        return [tuple(found) for found in fold(rows).runs(simulation.gmem, 0, 16)]

    during = states(simulation.rows[: undone[SEQ]])
    assert during == [(0, 12, "shared"), (12, 16, "undoing(private>shared)")]
    assert states(simulation.rows) == [(0, 12, "shared"), (12, 16, "private")]
    silent = [row if row is not failed else (*row[:VALUE], None, *row[VALUE + 1 :]) for row in simulation.rows]
    assert states(silent) == [(0, 4, "shared"), (4, 8, "torn"), (8, 12, "shared"), (12, 16, "private")]


# --- their stories


def test_the_story_of_the_mail_stands_as_it_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word for word. To renew it: ``GMEMSTATE_RENEW=1 pytest tests/convert/test_scenarios.py``; then read the difference."""
    monkeypatch.setenv("COLUMNS", "100")
    printed = "".join(
        say("simulate", "the-mail", "--dialect", dialect).out + "\n"
        for dialect in ("rfc-v2", "check-first", "notify", "mainline", "all")
    )
    path = GOLDEN / "the-mail.txt"
    if os.environ.get("GMEMSTATE_RENEW"):
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8")


def test_the_story_of_the_mail_answers_its_question() -> None:
    """Who was asked, who refused, what stays unmapped, why that is no issue for A and B, and why it is for the IOMMU."""
    story = returned(of("the-mail", "rfc-v2")).splitlines()
    asked = [line.split()[0] for line in story if "unmap" in line]
    assert asked == ["A", "B", "D", "C"]
    assert "    C (host) is asked to unmap pages 0 to 15, refuses (EBUSY), and still maps them".strip() in [
        s.strip() for s in story
    ]
    assert "the ioctl returns EAGAIN, error_offset 0x0 (page 0)" in story
    assert "at the end: everything is shared" in story
    assert "A no longer maps pages 0 to 2, pages 4 to 15: no issue, faulted in by its next access" in story
    assert "B no longer maps pages 0 to 15: no issue, faulted in by its next access" in story
    assert "D accesses page 3: a DMA fault, since a device cannot fault it in" in story
    assert (
        "D no longer maps pages 0 to 15: an issue, its next access is a DMA fault: a device cannot fault anything in" in story
    )


@pytest.mark.parametrize(
    ("name", "dialect", "policy", "phrase"),
    [
        ("sc-02-iommu-pin", "rfc-v2", "bug-vm", "page 5 is in use: 1026 references, not 2; a pin counts 1024"),
        ("sc-06-rollback-fails", "rfc-v2", "bug-vm", "pages 4 to 7 cannot be put back (ENOMEM): a WARN, and shared stays"),
        ("sc-10-page-remove-fails", "rfc-v2", "uninformed", "Spinning on folio: page 512 has 513 references, not 512"),
        ("sc-10-page-remove-fails", "rfc-v2", "uninformed", "the ioctl never returns, and its lock is held"),
        ("sc-11-hold-and-drop", "rfc-v2", "hold-and-drop", "guest_memfd keeps the host memory for ever"),
        ("sc-13-bugged-and-reused", "mainline", "bug-vm", "finding PFN-REUSED: host page 0x100258 was given away"),
        ("sc-15-ip-29-two-vms", "inplace", "bug-vm", "gfns 8192 to 8703 of VM 2"),
        ("sc-16-two-guest-memfds", "inplace", "bug-vm", "pages 0 to 15 of guest_memfd 2"),
        ("sc-28-poisoned-private", "inplace", "bug-vm", "page 5: poisoned, its next access is a memory fault"),
        ("sc-34-mapgpa-interrupted", "mainline", "bug-vm", "the guest gets RETRY, and the gfn to go on from, 512"),
        ("sc-40-access-before-accept", "rfc-v2", "bug-vm", "accesses page 4 before it has accepted it: the VM is dead"),
        ("sc-42-closed-under-its-slots", "inplace", "bug-vm", "the guest_memfd is closed, its next access is a memory fault"),
        ("ip-23-rmpupdate-fails", "inplace", "bug-vm", "host writes to page 5: an RMP fault"),
    ],
)
def test_a_story_says_what_matters(name: str, dialect: str, policy: str, phrase: str) -> None:
    assert phrase in returned(of(name, dialect, policy))


@pytest.mark.parametrize(("name", "dialect", "policy"), PAIRS)
def test_a_story_has_whole_sentences(name: str, dialect: Any, policy: Any) -> None:
    lines = returned(played(name, dialect, policy)).splitlines()
    assert lines
    for line in lines:
        assert not re.search(r"\bNone\b|\{|\}|\bnobody knows\b|  +\S+  ", line.strip()), line
        assert not re.search(r"\bpages? -|to -\d", line), line


def test_what_lost_pages_mean_for_a_user_is_said_of_each_of_them() -> None:
    for name, scenario in SCENARIOS.items():
        for dialect, policy in pairs(scenario):
            outcome = played(name, dialect, policy)
            for user, runs in outcome.facts.lost.items():
                sentences = [line for line in story(outcome) if line.startswith(f"{user} no longer maps ")]
                pages = sum(map(pages_in, sentences))
                assert pages == sum(int(lost.partition("+")[2]) for lost in runs), (name, user)


def pages_in(sentence: str) -> int:
    """How many pages the first part of a sentence names."""
    where = sentence.partition("no longer maps ")[2].partition(": ")[0]
    spans = re.findall(r"(?:pages|gfns) (\d+) to (\d+)|(?:page|gfn) (\d+)", where)
    return sum(1 if one else int(last) - int(first) + 1 for first, last, one in spans)


# --- how they are listed and compared


def test_the_mail_is_listed_first_then_the_general_ones_then_in_place() -> None:
    names = list(catalogue())
    assert names[0] == "the-mail"
    assert names[1:] == sorted(name for name in names if name.startswith("sc-")) + sorted(
        n for n in names if n.startswith("ip-")
    )


def test_the_list_fits_a_hundred_columns_and_everything_is_as_expected() -> None:
    ran = say("simulate", "--list")
    assert ran.code == 0
    assert [line for line in ran.out.splitlines() if len(line) > 100] == []
    rows = [line.split(maxsplit=2) for line in ran.out.splitlines()[1:]]
    assert [row[0] for row in rows] == list(catalogue())
    for name, met, title in rows:
        count = len(pairs(SCENARIOS[name]))
        assert (met, title) == (f"{count}/{count}", SCENARIOS[name].title)


@pytest.mark.parametrize("name", SCENARIOS)
def test_outcomes_stand_side_by_side_in_a_hundred_columns(name: str) -> None:
    ran = say("simulate", name, "--dialect", "all", "--policy", "all")
    assert (ran.code, ran.err) == (0, "")
    assert [line for line in ran.out.splitlines() if len(line) > 100] == []
    column = 2 if SCENARIOS[name].has_policies else 1
    met = [line.split()[column] for line in ran.out.splitlines()[3:]]
    assert met.count("yes") == len(pairs(SCENARIOS[name]))
    assert set(met) <= {"yes", "-"}


def test_pairs_that_cannot_exist_have_no_row() -> None:
    ran = say("simulate", "sc-10", "--dialect", "all", "--policy", "all")
    rows = {(line.split()[0], line.split()[1]) for line in ran.out.splitlines()[3:]}
    dialects = SCENARIOS["sc-10-page-remove-fails"].dialects
    assert rows == {(dialect.word, policy.value) for dialect in dialects for policy in POLICIES[dialect]}


def test_one_pair_has_a_story_and_an_impossible_one_is_refused() -> None:
    ran = say("simulate", "sc-10", "--dialect", "rfc-v2", "--policy", "track")
    assert (ran.code, ran.err) == (0, "")
    assert "rfc-v2, policy track: RFC v2" in ran.out
    ran = say("simulate", "sc-10", "--dialect", "mainline", "--policy", "track")
    assert (ran.code, ran.out) == (2, "")
    assert "mainline cannot have the policy track" in ran.err


def test_a_wrong_expectation_is_a_finding_that_names_the_event(tmp_path: Path) -> None:
    text = catalogue()["sc-13-bugged-and-reused"].read_text(encoding="utf-8")
    path = tmp_path / "wrong.toml"
    path.write_text(text.replace('returned = ["0", "EIO"]', 'returned = ["0", "0"]'), encoding="utf-8")
    for how in ((), ("--dialect", "all"), ("--json",)):
        ran = say("simulate", path, *how)
        assert ran.code == 1
        assert "wrong: mainline/bug-vm: returned: expected ['0', '0'], found ['0', 'EIO']" in ran.err
        assert re.search(r"first at \d+ +[\d.]+ convert_returned +the ioctl returns EIO", ran.err)
        assert len(ran.err.splitlines()) == 2


def test_json_has_all_facts_of_all_pairs() -> None:
    found = json.loads(say("simulate", "sc-10", "--dialect", "all", "--policy", "all", "--json").out)["rows"]
    assert [(each["dialect"], each["policy"]) for each in found] == [
        (dialect.word, policy.value) for dialect, policy in pairs(SCENARIOS["sc-10-page-remove-fails"])
    ]
    for each in found:
        assert set(each) == {"scenario", "dialect", "policy", "facts", "differences"}
        assert set(each["facts"]) == set(FORMS)


@pytest.mark.parametrize(
    ("name", "dialect", "policy"),
    [
        ("the-mail", "rfc-v2", "bug-vm"),
        ("the-mail", "mainline", "bug-vm"),
        ("sc-06-rollback-fails", "rfc-v2", "bug-vm"),
        ("sc-10-page-remove-fails", "rfc-v2", "uninformed"),
        ("sc-13-bugged-and-reused", "mainline", "bug-vm"),
        ("sc-15-ip-29-two-vms", "inplace", "bug-vm"),
        ("sc-41-returned-ok-half-converted", "rfc-v2", "bug-vm"),
        ("ip-13-answer-not-written", "inplace", "bug-vm"),
    ],
)
def test_a_stored_simulation_is_a_record_like_any_other(name: str, dialect: str, policy: str, tmp_path: Path) -> None:
    """In a real ledger: the conversions have the verdicts of the simulation, and the record fits the live machines."""
    where = tmp_path / "simulated.db"
    assert say("--db", where, "simulate", name, "--dialect", dialect, "--policy", policy, "--store").code == 0
    outcome = of(name, dialect, policy)
    rows = json.loads(say("--db", where, "conversions", "--json").out)["rows"]
    verdicts = outcome.facts.verdicts
    assert [row["label"] for row in rows][len(rows) - len(verdicts) :] == verdicts
    assert say("--db", where, "replay").code == (1 if outcome.facts.findings or meant(outcome) else 0)


@pytest.mark.parametrize("dialect", DIALECT_NAMES)
def test_a_scenario_may_be_played_under_any_dialect(dialect: str) -> None:
    """Where nothing is expected the story is printed all the same, and the record fits the machines."""
    kind = DIALECT_NAMES[dialect]
    for scenario in SCENARIOS.values():
        for policy in POLICIES[kind]:
            outcome = run(scenario, kind, policy)
            assert returned(outcome)
            assert {finding.code for finding in outcome.simulation.memory.findings} <= {"PFN-REUSED", "SLOT-SWAP-FLIP"}


def test_a_scenario_is_found_by_its_id() -> None:
    assert load("sc-25").name == load("ip-12").name == "sc-25-ip-12-no-memory"


def test_a_scenario_says_who_says_so() -> None:
    """Where its expectations are from, why it matters, and one sentence that fits a line."""
    for name, scenario in SCENARIOS.items():
        assert isinstance(scenario, Scenario)
        assert scenario.source, name
        assert scenario.about, name
        assert 10 < len(scenario.title) <= 60, name
