"""The pictures of the state machines: readable by the tools that they are for, and nothing but the machines."""

import json
import re
from collections.abc import Iterator

import pytest

from gmemstate.model.machines.run import MACHINES
from tests.cli.running import say

NAMES = ("range", "conversion", "messed-up")
Arrow = tuple[str, str, str]


def arrows(name: str) -> set[Arrow]:
    """All (state, trigger, next state) of a machine."""
    return set(MACHINES[name].transitions())


def identifier(state: str) -> str:
    return re.sub(r"[(>]", "_", state).rstrip(")")


class Dot:
    """Reads a picture as rvgen's automata.py does: word by word, states from the node lines, events from the last word."""

    def __init__(self, source: str) -> None:
        lines = source.splitlines()
        assert lines[0].split()[:2] == ["digraph", "state_automaton"]
        nodes = [line for line in lines if line.split()[0] == "{node"]
        names = [re.sub('["};]', "", line.split()[-1]) for line in nodes]
        (self.initial,) = (name.removeprefix("__init_") for name in names if name.startswith("__init_"))
        self.final = {name for name, line in zip(names, nodes, strict=True) if "doublecircle" in line}
        self.states = {name for name in names if not name.startswith("__init_")}
        behind = lines[lines.index(nodes[-1]) + 1 :]
        assert behind[0].split() == [f'"__init_{self.initial}"', "->", f'"{self.initial}";']
        assert behind[-1] == "}"
        self.arrows = {arrow for line in behind[1:-1] for arrow in self._arrows(line)}

    @staticmethod
    def _arrows(line: str) -> Iterator[Arrow]:
        words = line.split()
        assert (len(words), words[1], words[3:6]) == (8, "->", ["[", "label", "="])
        for event in words[-2].strip('"').replace("\\n", " ").split():
            yield words[0].strip('"'), event, words[2].strip('"')


@pytest.mark.parametrize("name", NAMES)
def test_the_dot_is_read_by_the_tools_of_runtime_verification_as_the_same_machine(name: str) -> None:
    picture = Dot(say("machine", name, "--as", "dot").out)
    expected = {(identifier(state), trigger, identifier(dest)) for state, trigger, dest in arrows(name)}
    assert picture.arrows == expected
    assert picture.states == {identifier(state) for state in MACHINES[name].states}
    assert picture.initial == identifier(MACHINES[name].states[0])
    assert picture.final == {identifier(state) for state in MACHINES[name].final}


@pytest.mark.parametrize("name", NAMES)
def test_states_and_events_are_identifiers_so_that_c_can_be_made_of_them(name: str) -> None:
    picture = Dot(say("machine", name, "--as", "dot").out)
    words = {*picture.states, *(event for _, event, _ in picture.arrows)}
    assert [word for word in words if not re.fullmatch(r"[a-z_][a-z0-9_]*", word)] == []
    assert len(picture.states) == len(MACHINES[name].states), "two states have become one"


QUOTED = r'"(?:[^"\\]|\\.)*"'
STATEMENT = re.compile(
    rf"\t(?:center = true;|size = {QUOTED};|\{{node \[[a-z]+ ?= ?\w+(?:, ?\w+=\w+)*(?:, label={QUOTED})?\] {QUOTED}\}};"
    rf"|{QUOTED} -> {QUOTED}(?: \[ label = {QUOTED} \])?;)"
)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_the_dot_is_a_statement_of_graphviz(name: str) -> None:
    first, *statements, last = say("machine", name, "--as", "dot").out.splitlines()
    assert (first, last) == ("digraph state_automaton {", "}")
    assert [line for line in statements if not STATEMENT.fullmatch(line)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_mermaid_is_a_state_diagram_of_every_change(name: str) -> None:
    first, *lines = say("machine", name, "--as", "mermaid").out.splitlines()
    assert first == "stateDiagram-v2"
    names: dict[str, str] = {}
    found: set[Arrow] = set()
    ends: list[tuple[str, str]] = []
    for line in lines:
        if match := re.fullmatch(r"    (s\d+): (\S+)", line):
            names[match[1]] = match[2]
        elif match := re.fullmatch(r"    (s\d+) --> (s\d+): (\w+(?:, \w+)*)", line):
            found |= {(names[match[1]], trigger, names[match[2]]) for trigger in match[3].split(", ")}
        else:
            match = re.fullmatch(r"    (\[\*\]|s\d+) --> (\[\*\]|s\d+)", line)
            assert match, line
            ends.append((match[1], match[2]))
    machine = MACHINES[name]
    assert found == {(state, trigger, dest) for state, trigger, dest in arrows(name) if state != dest}
    assert ends[0][0] == "[*]"
    assert names[ends[0][1]] == machine.states[0]
    assert [names[state] for state, _ in ends[1:]] == list(machine.final)
    assert list(names.values()) == list(machine.states)


@pytest.mark.parametrize("name", NAMES)
def test_table_and_data_have_the_same_rows(name: str) -> None:
    header, *rows = say("machine", name).out.splitlines()
    data = json.loads(say("machine", name, "--json").out)
    assert header.split() == ["row", "trigger", "from", "to", "note"]
    assert [row.split()[:2] for row in rows] == [[row["id"], row["trigger"]] for row in data["rows"]]
    assert data["states"] == list(MACHINES[name].states)
