"""The range machine that is persisted for pages of a guest: its state, how it came there, and what may come next."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gmemstate.model.errors import UnexpectedTrigger, UsageError
from gmemstate.model.events import KIND, KINDS, SEQ, EventRow, T
from gmemstate.model.findings import unexpected
from gmemstate.model.fold.apply import apply
from gmemstate.model.machines.range import GONE, RANGE, UNKNOWN
from gmemstate.model.machines.run import fire, may, triggers
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Vm
from gmemstate.model.soundness import possible
from gmemstate.model.units import Gfn


class Moved(NamedTuple):
    """An event that moved a range: its seq, its time (``t``, ns of its source's clock), its kind, and the states."""

    seq: int
    t: int | None
    kind: str
    before: str
    after: str


@dataclass
class RangeMachine:
    """The instance of the range machine for gfns ``[start, end)`` of a guest, the maximal run of equal state.

    The real ``transitions.Machine`` is asked what may come and moves it. What moves the range *on record* is an event:
    record the typed event (:meth:`Ledger.record`); firing a trigger here moves this object only.
    """

    guest: str
    start: Gfn
    end: Gfn
    state: str
    history: tuple[Moved, ...]
    """the events that moved the gfn that was asked for, oldest first"""

    @property
    def since(self) -> Moved | None:
        """The event that brought the gfn into its state; None where nothing on record has moved it."""
        return self.history[-1] if self.history else None

    @property
    def triggers(self) -> list[str]:
        """The triggers that are expected in the present state."""
        return triggers(RANGE, self.state)

    def may(self, trigger: str) -> bool:
        """Whether a trigger is expected in the present state."""
        return may(RANGE, self.state, trigger)

    def fire(self, trigger: str) -> str:
        """Fire a trigger on this object, not on the record; the new state.

        Raises UnexpectedTrigger where the machine does not expect it, with the words of Linux runtime verification.
        """
        after = fire(RANGE, self.state, trigger)
        if after is None:
            text = f"{unexpected(trigger, self.state)}; `triggers` lists those that are"
            raise UnexpectedTrigger(text, trigger=trigger, state=self.state)
        self.state = after
        return after


def range_machine(memory: Memory, rows: Iterable[EventRow], gfn: Gfn, guest: str | None) -> RangeMachine:
    """The machine of the range that holds a gfn, in a memory that events have been folded into.

    ``guest`` may be None where there is one only. Raises UsageError where it is not clear which guest is meant.
    """
    guests = [vm for vm in memory.vms.values() if guest in (None, vm.name)]
    if len(guests) != 1:
        names = ", ".join(vm.name for vm in memory.vms.values()) or "none"
        raise UsageError(f"which guest? There are: {names}", guests=names)
    (vm,) = guests
    state = memory.attribute(vm.id, gfn)
    start, end = gfn, Gfn(gfn + 1)
    runs = [run for run in memory.guest_runs(vm.id) if run.state == state and run.start < run.end]
    for run in runs:
        end = Gfn(run.end) if run.start <= end < run.end else end
    for run in reversed(runs):
        start = Gfn(run.start) if run.start < start <= run.end else start
    return RangeMachine(vm.name, start, end, _state(memory, vm, gfn), tuple(_moves(rows, vm, gfn)))


def _state(memory: Memory, vm: Vm, gfn: Gfn) -> str:
    return GONE if vm.id in memory.destroyed else memory.attribute(vm.id, gfn)


def _moves(rows: Iterable[EventRow], vm: Vm, gfn: Gfn) -> Iterator[Moved]:
    """Fold the events again and note those that change the state of the gfn."""
    memory, before = Memory(), UNKNOWN
    for row in possible(rows, memory):
        apply(memory, row)
        memory.clear_pending()
        if (after := _state(memory, vm, gfn)) != before:
            yield Moved(row[SEQ], row[T], KINDS[row[KIND]].name, before, after)
        before = after
