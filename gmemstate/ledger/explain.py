"""What needs no record: the state machines, and what words and lines of kernels and VMMs mean."""

from typing import Literal

from gmemstate.messages.reading import MAX_LINE, Explanation, recognised
from gmemstate.messages.reading import read as explain
from gmemstate.model.machines.definition import Definition
from gmemstate.model.machines.render import dot, mermaid
from gmemstate.model.machines.run import MACHINES

__all__ = ["MAX_LINE", "Definition", "Explanation", "MachineName", "dot", "explain", "machine", "mermaid", "recognised"]

MachineName = Literal["range", "conversion", "messed-up", "platform", "kernel"]


def machine(name: MachineName) -> Definition:
    """A state machine as data: its states, and its rows with their triggers."""
    return MACHINES[name]
