"""Running scenarios: what came of one under a dialect and a policy, and where that is not what was expected."""

import errno as errnos
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from gmemstate.convert import requests
from gmemstate.convert.engine import Call, Fault, Told, runs_of
from gmemstate.convert.host import VMM
from gmemstate.convert.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.scenario import Run, Scenario
from gmemstate.convert.simulation import Simulation
from gmemstate.convert.users import Holder, PageUser
from gmemstate.model.events import (
    KIND,
    SEQ,
    AttrsStored,
    ConvertReturned,
    Dialect,
    DmaFaulted,
    FaultServed,
    GuestAnswered,
    MemoryFaultExit,
    RequestPath,
    Undone,
    User,
    UserAnswered,
    VmBugged,
    VmDead,
)
from gmemstate.model.machines import PRIVATE, SHARED
from gmemstate.model.units import PAGE_SHIFT, hexadecimal
from gmemstate.model.units import PRIVATE as PRIVATE_ATTRIBUTE

STUCK = "stuck"
"""What is told by an ioctl that never returns."""


class Difference(NamedTuple):
    """An expectation that did not come true: the fact, what was expected and found, and the event that shows it (a seq)."""

    fact: str
    expected: Any
    found: Any
    seq: int | None


@dataclass
class Outcome:
    """What came of a scenario: the simulation with its record, and the facts that expectations name."""

    scenario: Scenario
    dialect: Dialect
    policy: Policy
    simulation: Simulation
    facts: dict[str, Any]
    first: int
    """the seq of the first event behind the setting up"""

    @property
    def differences(self) -> list[Difference]:
        """Where the expectations of the scenario are not met."""
        found = []
        for fact, expected in self.scenario.expected(self.dialect, self.policy).items():
            have = self.facts[fact]
            if _plain(expected) != _plain(have):
                found.append(Difference(fact, expected, have, _shows(self, fact, expected, have)))
        return found

    @property
    def expects(self) -> bool:
        """Whether the scenario says anything of this pair."""
        return bool(self.scenario.expected(self.dialect, self.policy))


def pairs(scenario: Scenario) -> list[tuple[Dialect, Policy]]:
    """The dialects of a scenario with the policies that each can have; where nothing fails to unmap, one is enough."""
    matters = any(fault["at"] == "private_unmap" for fault in scenario.faults)
    return [
        (dialect, policy) for dialect in scenario.dialects for policy in (POLICIES[dialect] if matters else (Policy.BUG_VM,))
    ]


def run(scenario: Scenario, dialect: Dialect, policy: Policy) -> Outcome:
    """Play a scenario under a dialect and a policy."""
    simulation = _set_up(scenario, dialect, policy)
    first = len(simulation.rows) + 1
    simulation.faults = [Fault(**fault) for fault in scenario.faults]
    before = {user.name: set(getattr(user, "pages", ())) for user in simulation.users}
    play = _Play(scenario, simulation, before)
    for verb, options in scenario.steps:
        getattr(play, f"do_{verb}")(**options)
        if simulation.told and simulation.told[-1] is None:
            break
    if not simulation.told or simulation.told[-1] is not None:
        simulation.close_record()
    return Outcome(scenario, dialect, policy, simulation, play.facts(), first)


def _set_up(scenario: Scenario, dialect: Dialect, policy: Policy) -> Simulation:
    simulation = Simulation(dialect, policy, scenario.setting)
    simulation.open(scenario.name)
    simulation.vm = simulation.make_vm()
    simulation.gmem = simulation.make_gmem(simulation.vm, scenario.pages, shared=scenario.starts == SHARED)
    for n, slot in enumerate(scenario.memslots):
        gmem = None if slot.get("plain") else simulation.gmem
        simulation.set_slot(simulation.vm, slot.get("slot", n), slot["gfn"], slot["count"], gmem, slot.get("page", 0))
    if simulation.in_vm and scenario.starts == PRIVATE:
        simulation.convert_pages(0, scenario.pages, PRIVATE)
    for start, end in scenario.allocated:
        simulation.allocate(start, end)
    for start, end in scenario.exceptions:
        simulation.convert_pages(start, end, SHARED if scenario.starts == PRIVATE else PRIVATE)
    simulation.told.clear()
    for spec in scenario.users:
        simulation.add_user(spec.make())
    return simulation


class _Play:
    """The verbs of a scenario's steps."""

    def __init__(self, scenario: Scenario, simulation: Simulation, mapped: dict[str, set[int]]) -> None:
        self.scenario = scenario
        self.simulation = simulation
        self.mapped = mapped
        self.touched: list[str] = []
        self.guest_told: list[int] = []

    def user(self, name: str) -> PageUser:
        return next(user for user in self.simulation.users if user.name == name)

    def do_convert(self, what: tuple[Run, ...] | None, to: str = PRIVATE, **how: Any) -> None:
        start, end = what[0] if what else (0, 0)
        call = {
            "address": start << PAGE_SHIFT,
            "size": (end - start) << PAGE_SHIFT,
            "attributes": PRIVATE_ATTRIBUTE if to == PRIVATE else 0,
            "thread": VMM,
            **how,
        }
        self.simulation.convert(Call(self.simulation.space, **call))

    def do_release(self, what: str) -> None:
        user = self.user(what)
        if isinstance(user, Holder):
            self.simulation.release(user)

    def do_use(self, what: str, pages: tuple[Run, ...]) -> None:
        user = self.user(what)
        for start, end in pages:
            for page in range(start, end):
                self.simulation.touch(user, page)
        self.mapped[what] |= set(getattr(user, "pages", ()))

    def do_punch(self, what: tuple[Run, ...]) -> None:
        for start, end in what:
            self.simulation.punch(start, end)

    def do_poison(self, what: int) -> None:
        self.simulation.poison(what)

    def do_touch(self, what: str, page: int, **how: str) -> None:
        user = self.user(what)
        seq = len(self.simulation.rows)
        fine = self.simulation.touch(user, page, private=how.get("as") == PRIVATE)
        row = self.simulation.rows[-1] if len(self.simulation.rows) > seq else None
        self.touched.append(f"{what} {page} {'ok' if fine else _refusal(row)}")
        if fine:
            self.mapped[what].add(page)

    def do_close(self) -> None:
        self.simulation.close_gmem()

    def do_memslot(
        self, what: int, gfn: int = 0, count: int = 0, page: int = 0, *, plain: bool = False, delete: bool = False
    ) -> None:
        simulation = self.simulation
        gmem = None if plain else simulation.gmem
        simulation.set_slot(simulation.vm, what, gfn, 0 if delete else count, gmem, page)

    def do_bug_vm(self) -> None:
        self.simulation.bug_vm()

    def do_kill_vm(self) -> None:
        self.simulation.kill_vm()

    def do_guest_asks(
        self,
        what: tuple[Run, ...],
        to: str = PRIVATE,
        path: RequestPath = RequestPath.VMCALL,
        answers: Iterable[int | None] = (),
        interrupted: int | None = None,
    ) -> None:
        self.guest_told += requests.ask(self.simulation, what, to, path, tuple(answers), interrupted)

    def facts(self) -> dict[str, Any]:
        """All facts that an expectation can name."""
        simulation = self.simulation
        memory, gmem = simulation.memory, simulation.memory.gmems[simulation.gmem]
        kinds = list(simulation.kernel().kinds(simulation.space, 0, self.scenario.pages))
        private = [(start, end) for start, end, kind in kinds if kind == PRIVATE]
        lost = {
            user.name: _words(runs_of(gone))
            for user in simulation.users
            if not isinstance(user, Holder) and (gone := self.mapped[user.name] - set(getattr(user, "pages", ())))
        }
        dma = {page for user in simulation.users if getattr(user, "dma", False) or user.kind is User.IOMMU
               for page in getattr(user, "pages", ())}  # fmt: skip
        return {
            "told": [_told(told) for told in simulation.told],
            "error_offset": [_offset(told) for told in simulation.told],
            "private": _words(private),
            "lost": lost,
            "messed_up": [f"{entry.cause.name.lower()} {entry.index}" for entry in memory.messed_up.values()],
            "vm": memory.vms[simulation.vm].gone or "ok",
            "huge": _words([(a, b) for a, b, order in gmem.orders if order and b <= self.scenario.pages]),
            "touched": self.touched,
            "guest_told": [hexadecimal(told) if told > 4096 or told < -4096 else str(told) for told in self.guest_told],
            "findings": sorted({finding.code for finding in memory.findings}),
            "dma_at_risk": _words(runs_of(page for page in dma if _within(page, private))),
        }


def _within(page: int, runs: Iterable[Run]) -> bool:
    return any(start <= page < end for start, end in runs)


def _words(runs: Iterable[Run]) -> list[str]:
    merged: list[Run] = []
    for start, end in runs:
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
    return [f"{start}+{end - start}" for start, end in merged]


def _told(told: Told | None) -> str:
    if told is None:
        return STUCK
    return errnos.errorcode[told.errno] if told.errno else "0"


def _offset(told: Told | None) -> str:
    return "-" if told is None or told.error_offset is None else hex(told.error_offset)


def _refusal(row: Any) -> str:
    if row is None:
        return "no"
    if row[KIND] == DmaFaulted.code:
        return "DMA fault"
    if row[KIND] == FaultServed.code:
        return "SIGBUS"
    return "memory fault EHWPOISON" if row[8] == 133 else "memory fault"


def _plain(fact: Any) -> Any:
    if isinstance(fact, dict):
        return {key: _plain(value) for key, value in fact.items()}
    if isinstance(fact, (list, tuple)):
        return [_plain(value) for value in fact]
    return str(fact)


_SHOWN_BY = {
    "told": (ConvertReturned.code,),
    "error_offset": (ConvertReturned.code,),
    "private": (AttrsStored.code, Undone.code),
    "lost": (UserAnswered.code,),
    "vm": (VmBugged.code, VmDead.code),
    "touched": (FaultServed.code, DmaFaulted.code, MemoryFaultExit.code),
    "guest_told": (GuestAnswered.code,),
}


def _shows(outcome: Outcome, fact: str, expected: Any, found: Any) -> int | None:
    """The event at which expectation and history part: for lists the n-th of its kind, else the last."""
    rows = [row for row in outcome.simulation.rows if row[SEQ] >= outcome.first and row[KIND] in _SHOWN_BY.get(fact, ())]
    if not rows:
        return outcome.simulation.rows[-1][SEQ]
    if fact in ("told", "error_offset", "touched", "guest_told") and isinstance(expected, list):
        n = next((n for n, pair in enumerate(zip(expected, found, strict=False)) if _plain(pair[0]) != _plain(pair[1])), None)
        if n is not None and n < len(rows):
            return rows[n][SEQ]
    return rows[-1][SEQ]


def dialect_name(dialect: Dialect) -> str:
    """How the command line calls a dialect."""
    return next(name for name, found in DIALECT_NAMES.items() if found is dialect)
