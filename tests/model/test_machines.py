"""The three machines do what their tables say, live and compiled, and what no table may say they never do."""

import re
from collections.abc import Iterable

import pytest
from transitions import Machine, MachineError

from gmemstate.model.machines.conversion import CONVERSION, ENDED
from gmemstate.model.machines.definition import Definition
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.machines.range import RANGE
from gmemstate.model.machines.render import dot, mermaid
from gmemstate.model.machines.run import MACHINES, NO_WAY, compiled, fire, machine, may, triggers
from tests.model import tables

ALL = [pytest.param(definition, id=definition.name) for definition in MACHINES.values()]
SPECIFIED = [
    pytest.param(RANGE, tables.RANGE, id="range"),
    pytest.param(CONVERSION, tables.CONVERSION, id="conversion"),
    pytest.param(MESSED_UP, tables.MESSED_UP, id="messed-up"),
]
SETTLED = ("unknown", "shared", "private")


class Anything:
    """A model of `transitions` with nothing but a state."""

    def __init__(self, state: str) -> None:
        self.state = state


def triggered(live: Machine, state: str, trigger: str) -> str | None:
    """What the library itself does with a trigger in a state; None if it refuses."""
    row = Anything(state)
    try:
        live.events[trigger].trigger(row)
    except MachineError:
        assert row.state == state
        return None
    return row.state


def parts(state: str) -> tuple[str, str, str] | None:
    """Phase, before and target of a state inside a conversion."""
    match = re.fullmatch(r"(\w+)\((\w+)>(\w+)\)", state)
    return None if match is None else (match[1], match[2], match[3])


# --- one definition, three forms


@pytest.mark.parametrize("definition", ALL)
def test_live_machine_and_compiled_tables_agree_on_every_pair(definition: Definition) -> None:
    live = machine(definition)
    assert set(live.states) == set(definition.states)
    assert set(live.events) == set(definition.triggers())
    tables_of = compiled(definition)
    assert set(tables_of.codes) == set(tables_of.next_state) == set(definition.triggers())
    for trigger in definition.triggers():
        codes = tables_of.codes[trigger]
        assert len(codes) == 256
        assert set(codes[len(definition.states) :]) <= {NO_WAY}
        for code, state in enumerate(definition.states):
            after = triggered(live, state, trigger)
            assert fire(definition, state, trigger) == after
            assert tables_of.next_state[trigger].get(state) == after
            assert may(definition, state, trigger) == (trigger in triggers(definition, state)) == (after is not None)
            assert codes[code] == (NO_WAY if after is None else definition.states.index(after))


@pytest.mark.parametrize("definition", ALL)
def test_no_row_contradicts_another(definition: Definition) -> None:
    """From one state a trigger leads to one state: which of two rows would count is never a question."""
    found: dict[tuple[str, str], str] = {}
    for state, trigger, dest in definition.transitions():
        assert found.setdefault((state, trigger), dest) == dest, (state, trigger)
        assert {state, dest} <= set(definition.states)


@pytest.mark.parametrize("definition", ALL)
def test_an_unknown_trigger_is_expected_nowhere(definition: Definition) -> None:
    assert all(fire(definition, state, "no_such_event") is None for state in definition.states)
    assert not any(may(definition, state, "no_such_event") for state in definition.states)


@pytest.mark.parametrize("definition", ALL)
def test_states_are_few_enough_for_a_byte_and_all_can_be_reached(definition: Definition) -> None:
    """All but a store of nobody knows what: a store is always seen with its value."""
    assert len(set(definition.states)) == len(definition.states) < NO_WAY
    reached = {definition.states[0]}
    while more := {dest for state, _, dest in definition.transitions() if state in reached} - reached:
        reached |= more
    assert set(definition.states) - reached == {state for state in definition.states if re.match(r"stored\(.*>unknown", state)}


# --- the specification


@pytest.mark.parametrize(("definition", "text"), SPECIFIED)
def test_every_row_of_the_specification_holds(definition: Definition, text: str) -> None:
    wrong = {
        (row, state, trigger, dest, fire(definition, state, trigger))
        for row, state, trigger, dest in tables.ways(text)
        if fire(definition, state, trigger) != dest
    }
    assert not wrong


@pytest.mark.parametrize(("definition", "text"), SPECIFIED)
def test_the_specification_knows_all_states(definition: Definition, text: str) -> None:
    named = {name for _, state, _, dest in tables.ways(text) for name in (state, dest)}
    assert named <= set(definition.states)
    assert set(definition.states) - named <= {"failed"}


@pytest.mark.parametrize(("definition", "text"), SPECIFIED)
def test_rows_bear_the_numbers_of_the_specification(definition: Definition, text: str) -> None:
    numbers = {row for row, *_ in tables.ways(text)}
    assert {row.id for row in definition.rows} == numbers


# --- what no row may do


def steps(definition: Definition) -> Iterable[tuple[str, str, str]]:
    """The transitions that change something."""
    return ((state, trigger, dest) for state, trigger, dest in definition.transitions() if state != dest)


def test_nothing_comes_back_from_an_end() -> None:
    for definition in MACHINES.values():
        ends = [one for one in definition.transitions() if one[0] in definition.final]
        assert not [(state, trigger, dest) for state, trigger, dest in ends if dest != state]
    assert set(ENDED) == set(CONVERSION.final)


def test_the_settled_value_changes_by_the_result_of_a_conversion_only() -> None:
    """Shared becomes private, or the reverse, in one step where a success without visible steps is on record (R15)."""
    flips = {trigger for state, trigger, dest in steps(RANGE) if {state, dest} == {"shared", "private"}}
    assert flips == {"returned_ok_shared", "returned_ok_private"}


def test_what_touches_no_attribute_moves_no_range() -> None:
    """Answers of users, private unmaps, memslots, backing pages, a bugged VM, folio sizes (R4, R5, R8, R19 to R21)."""
    still = {"answered", "private_unmap_failed", "restructured", "slot_changed", "backing_changed", "vm_bugged"}
    assert still <= set(RANGE.triggers())
    assert not [way for way in steps(RANGE) if way[1] in still]


def test_a_second_conversion_of_the_same_pages_is_not_expected() -> None:
    """R23: the locks of the kernel make it impossible, so that no zap begins inside another conversion."""
    for state in RANGE.states:
        phase, _, target = parts(state) or (None, None, None)
        for kind in SETTLED:
            allowed = phase is None and state != "gone"
            again = phase == "checked" and target == kind
            assert may(RANGE, state, f"zap_to_{kind}") == (allowed or again), (state, kind)


def test_a_range_in_flight_keeps_what_it_was_and_what_it_will_be() -> None:
    """A step inside a conversion may go on to the next phase; before and target change only where they were unknown."""
    for state, trigger, dest in steps(RANGE):
        old, new = parts(state), parts(dest)
        if old is not None and new is not None:
            assert old[1] == new[1], (state, trigger, dest)
            assert old[2] in (new[2], "unknown"), (state, trigger, dest)
        elif old is not None and dest in SETTLED:
            assert dest in old[1:] or old[2] == "unknown", (state, trigger, dest)
        elif new is not None and state in SETTLED:
            assert new[1] == state, (state, trigger, dest)


def test_failure_is_all_old_and_success_is_all_new() -> None:
    for state in RANGE.states:
        failed = fire(RANGE, state, "returned_err")
        if (old := parts(state)) is not None:
            assert failed == (None if old[0] == "stored" else old[1])
        for kind in ("shared", "private"):
            assert fire(RANGE, state, f"returned_ok_{kind}") in (kind, None)


def test_missing_evidence_never_settles_anything() -> None:
    """A gap or an unseen result may cost what was known; it makes nothing known (R10, R18)."""
    for state, trigger, dest in RANGE.transitions():
        if trigger == "gap":
            assert dest in ("unknown", "torn")
        elif trigger.startswith("outcome_lost"):
            assert dest in (state, "unknown", "torn")


def test_behind_a_gap_nothing_is_unexpected() -> None:
    """Whatever comes next, what was lost may have led to it: no kernel and no reader is accused."""
    assert all(may(CONVERSION, "cut", trigger) for trigger in CONVERSION.triggers())
    once = {"born_shared", "born_private"}
    for state in ("unknown", "torn"):
        assert {trigger for trigger in RANGE.triggers() if not may(RANGE, state, trigger)} <= once


def test_a_torn_range_goes_on_as_one_that_was_unknown() -> None:
    for kind in ("shared", "private"):
        for trigger in (f"zap_to_{kind}", f"store_{kind}"):
            assert fire(RANGE, "torn", trigger) == fire(RANGE, "unknown", trigger)


def test_torn_is_left_by_evidence_only() -> None:
    out = {trigger for state, trigger, dest in steps(RANGE) if state == "torn" and dest in ("shared", "private")}
    assert out == {f"{what}_{kind}" for what in ("seen", "returned_ok") for kind in ("shared", "private")}


def test_every_open_conversion_can_end() -> None:
    """C21, C23: whatever it was doing, some result ends it, and an operator can."""
    for state in tables.OPEN:
        ends = {trigger for source, trigger, dest in CONVERSION.transitions() if source == state and dest in ENDED}
        assert "declare" in ends
        assert any(trigger.startswith("returned_") for trigger in ends), state


def test_only_success_commits() -> None:
    """No errno leads to a state of success, and no success to one of failure."""
    for _, trigger, dest in CONVERSION.transitions():
        success = dest in ("committed", "noop", "committed_short")
        if success or trigger in ("returned_ok", "returned_noop", "returned_short"):
            assert success, (trigger, dest)
            assert trigger in ("returned_ok", "returned_noop", "returned_short"), (trigger, dest)


def test_a_page_once_messed_up_is_not_trusted_again() -> None:
    assert not [way for way in MESSED_UP.transitions() if way[2] == "trusted"]


# --- pictures


@pytest.mark.parametrize("definition", ALL)
def test_the_graphviz_picture_has_all_ways(definition: Definition) -> None:
    """It is read back as the kernel's tools for runtime verification read it; states have names that C can have."""
    name = {state: re.sub(r"\W+", "_", state).rstrip("_") for state in definition.states}
    assert len(set(name.values())) == len(name)
    lines = dot(definition).splitlines()
    drawn = set()
    for line in lines:
        if "->" in line and "label" in line:
            state, dest, labels = line.split('"')[1::2]
            drawn |= {(state, trigger, dest) for trigger in labels.split(r"\n")}
    assert drawn == {(name[state], trigger, name[dest]) for state, trigger, dest in definition.transitions()}
    initial = [line.split('"')[3] for line in lines if "->" in line and "label" not in line]
    assert initial == [name[definition.states[0]]]
    ends = {line.split('"')[1] for line in lines if "doublecircle" in line}
    assert ends == {name[state] for state in definition.final}


@pytest.mark.parametrize("definition", ALL)
def test_the_mermaid_picture_has_all_ways_that_change_something(definition: Definition) -> None:
    text = mermaid(definition)
    names = dict(re.findall(r"^    (s\d+): (.+)$", text, re.MULTILINE))
    drawn = {
        (names[a], trigger, names[b])
        for a, b, labels in re.findall(r"^    (s\d+) --> (s\d+): (.+)$", text, re.MULTILINE)
        for trigger in labels.split(", ")
    }
    assert drawn == set(steps(definition))
