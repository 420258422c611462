"""The machines that run: one ``transitions.Machine`` for each definition, shared by all instances.

A live step fires a trigger of the real machine on a light row object (:func:`fire`). Bulk folds use tables that are compiled
from the same Machine objects (:func:`compiled`), so that there is one list of transitions only.
"""

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from gmemstate.model.machines.conversion import CONVERSION
from gmemstate.model.machines.definition import Definition
from gmemstate.model.machines.host import KERNEL, PART
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.machines.range import RANGE

if TYPE_CHECKING:
    from transitions import Machine

MACHINES = {definition.name: definition for definition in (RANGE, CONVERSION, MESSED_UP, PART, KERNEL)}

NO_WAY = 255
"""In a table of codes: the trigger is not expected in this state."""


class _Instance:
    """One instance of a machine: a range, a conversion or a messed-up entry with nothing but its state."""

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


@cache
def machine(definition: Definition) -> "Machine":
    """The shared ``transitions.Machine`` of a definition. What stays in its state is an internal transition of it."""
    from transitions import Machine  # half of the start-up time of a command that needs no machine

    return Machine(
        model=None,
        states=list(definition.states),
        initial=definition.states[0],
        transitions=[
            {"trigger": trigger, "source": state, "dest": None if state == dest else dest}
            for state, trigger, dest in definition.transitions()
        ],
        auto_transitions=False,
        send_event=True,
    )


class Compiled(NamedTuple):
    """A machine as tables, by trigger; a state in which the trigger is not expected has no entry."""

    next_state: dict[str, dict[str, str]]
    """from state to next state"""
    codes: dict[str, bytes]
    """256 bytes: the code of the next state (its place in ``Definition.states``) for each code of a state, else NO_WAY"""
    steady: frozenset[str]
    """the triggers that change no state, and that every state but the final ones expects"""


@cache
def compiled(definition: Definition) -> Compiled:
    """The tables of a machine, read out of the events and transitions of its ``transitions.Machine``."""
    next_state: dict[str, dict[str, str]] = {}
    codes: dict[str, bytes] = {}
    code_of = {state: code for code, state in enumerate(definition.states)}
    for trigger, event in machine(definition).events.items():
        ways = {state: one.dest or state for state, (one, *_) in event.transitions.items() if one is not None}
        table = bytearray([NO_WAY] * 256)
        for state, dest in ways.items():
            table[code_of[state]] = code_of[dest]
        next_state[trigger], codes[trigger] = ways, bytes(table)
    lasting = set(definition.states) - set(definition.final)
    steady = {trigger for trigger, ways in next_state.items() if ways == {state: state for state in lasting}}
    return Compiled(next_state, codes, frozenset(steady))


def fire(definition: Definition, state: str, trigger: str) -> str | None:
    """Fire a trigger of the real machine on an instance in ``state``; the next state, or None if it is not expected there."""
    from transitions import MachineError

    event = machine(definition).events.get(trigger)
    if event is None:
        return None
    instance = _Instance(state)
    try:
        event.trigger(instance)
    except MachineError:
        return None
    return instance.state


def triggers(definition: Definition, state: str) -> list[str]:
    """The triggers that the real machine expects in a state."""
    return list(machine(definition).get_triggers(state))


def may(definition: Definition, state: str, trigger: str) -> bool:
    """Whether the trigger is expected in the state."""
    return trigger in triggers(definition, state)
