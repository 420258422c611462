"""The steps of the state machines, one by one, in the words of Linux runtime verification.

``shared x zap_to_private -> zapping(shared>private)`` is a transition; ``event X not expected in the state Y`` is a finding
(Documentation/trace/rv/runtime-verification.rst).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gmemstate.model.document import Answer
from gmemstate.model.events import SEQ, EventRow
from gmemstate.model.fold.apply import apply
from gmemstate.model.machines.conversion import CONVERSION
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.machines.range import RANGE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, MessedUp
from gmemstate.model.soundness import possible
from gmemstate.model.units import span


class Stepped(Memory):
    """A memory that notes every transition of its machines."""

    def __init__(self) -> None:
        super().__init__(live=True)
        self.noted: list[str] = []

    def step(self, owner: int, trigger: str, start: int, end: int, seq: int) -> None:
        """Fire a trigger on pages ``[start, end)``, and note the new state of each run."""
        before = self.runs(owner, start, end)
        super().step(owner, trigger, start, end, seq)
        for run in before:
            after = self.runs(owner, run.start, run.end)
            if [part.state for part in after] != [run.state]:
                self._note(f"{self._name(owner)} {span(run.start, run.end)}", run.state, trigger, after[0].state, RANGE.final)

    def move(self, conversion: Conversion, trigger: str, seq: int) -> None:
        """Fire a trigger on a conversion, and note it."""
        before = conversion.state
        super().move(conversion, trigger, seq)
        if conversion.state != before:
            self._note(f"conversion {conversion.id}", before, trigger, conversion.state, CONVERSION.final)

    def mark(self, entry: MessedUp, trigger: str, seq: int) -> None:
        """Fire a trigger on a messed-up entry, and note it."""
        before = entry.state
        super().mark(entry, trigger, seq)
        self._note(f"messed-up {entry.id}", before, trigger, entry.state, MESSED_UP.final)

    def _name(self, owner: int) -> str:
        return self.vms[owner].name if owner in self.vms else f"guest_memfd {owner}"

    def _note(self, who: str, before: str, trigger: str, after: str, final: tuple[str, ...]) -> None:
        self.noted.append(f"{who}: {before} x {trigger} -> {after}{' (final)' * (after in final)}")


@dataclass(frozen=True, slots=True)
class Step(Answer):
    """A transition, or a finding, with the seq of its event."""

    seq: int
    text: str

    def __str__(self) -> str:
        return f"{self.seq:>6} {self.text}"


def steps(rows: Iterable[EventRow], first: int = 1, last: int | None = None) -> Iterator[Step]:
    """The transitions and findings of the events ``first .. last`` (None: to the end)."""
    memory = Stepped()
    for row in possible(rows, memory):
        if last is not None and row[SEQ] > last:
            return
        apply(memory, row)
        if row[SEQ] >= first:
            yield from (Step(row[SEQ], note) for note in memory.noted)
            yield from (Step(row[SEQ], str(finding)) for finding in memory.findings)
        memory.noted.clear()
        memory.clear_pending()
