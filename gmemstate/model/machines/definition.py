"""What a state machine is made of: states, and rows ``(row id, trigger, sources, destination, note)``.

The row ids are those of the machines' page in the documentation. There are no conditions and no callbacks: a guard is a
trigger of its own. ``=`` as destination means that the state stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from gmemstate.model.document import Answer, Document

STAY = "="


@dataclass(frozen=True, slots=True)
class Row(Document):
    """One row of a machine: from every state of ``sources``, ``trigger`` leads to ``dest``."""

    id: str
    trigger: str
    sources: tuple[str, ...]
    dest: str
    """``=``: the state stays as it is"""
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class Definition(Answer):
    """A machine as data: its states in a fixed order, the first one initial, and its rows."""

    name: str
    states: tuple[str, ...]
    rows: tuple[Row, ...]
    final: tuple[str, ...]
    """the states that nothing leaves"""

    def transitions(self) -> Iterator[tuple[str, str, str]]:
        """All ``(state, trigger, next state)``, with ``=`` resolved."""
        for row in self.rows:
            for state in row.sources:
                yield state, row.trigger, state if row.dest == STAY else row.dest

    def triggers(self) -> tuple[str, ...]:
        """The names of all triggers, in the order of their first row."""
        return tuple(dict.fromkeys(row.trigger for row in self.rows))
