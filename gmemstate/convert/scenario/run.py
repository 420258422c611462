"""Running scenarios: what came of one under a dialect and a policy, and where that is not what was expected."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from gmemstate.convert.engine.ioctl import ConversionCall, Fault
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.users import Holder
from gmemstate.convert.scenario.definition import MemslotSpec, Scenario
from gmemstate.convert.scenario.tables import PageRun
from gmemstate.convert.simulation import guest_requests as requests
from gmemstate.convert.simulation.facts import ScenarioFacts, Seen, answer, facts, plain, refusal, shown_by
from gmemstate.convert.simulation.host import VMM, SimulatedUser
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.decode import errno_name
from gmemstate.model.document import Document
from gmemstate.model.events import Dialect, RequestPath, event_of
from gmemstate.model.linux import PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED


@dataclass(frozen=True, slots=True)
class Difference(Document):
    """An expectation that did not come true: the fact, what was expected and found, and the event that shows it (a seq)."""

    fact: str
    expected: object
    found: object
    seq: int | None


@dataclass(frozen=True, slots=True)
class ScenarioOutcome(Document):
    """What came of a scenario: the simulation with its record, and the facts that expectations name."""

    scenario: Scenario
    dialect: Dialect
    policy: Policy
    simulation: Simulation
    facts: ScenarioFacts
    first: int
    """the seq of the first event after the guest was made and its users were added"""

    written: ClassVar = ("scenario", "dialect", "policy", "facts", "differences")

    @property
    def differences(self) -> tuple[Difference, ...]:
        """Where the facts are not as the scenario expects, the earliest event first; so are faults of which none struck."""
        faults = self.simulation.faults
        found = []
        if faults and not any(fault.struck for fault in faults):
            found.append(Difference("faults", [fault.at for fault in faults], [], None))
        for fact, expected in self.scenario.expected(self.dialect, self.policy).items():
            have = getattr(self.facts, fact)
            if plain(expected) != plain(have):
                found.append(Difference(fact, expected, have, shown_by(self.simulation, self.first, fact, expected, have)))
        return tuple(sorted(found, key=lambda difference: difference.seq or 0))

    @property
    def expects(self) -> bool:
        """Whether the scenario says anything of this pair."""
        return bool(self.scenario.expected(self.dialect, self.policy))


def pairs(scenario: Scenario) -> list[tuple[Dialect, Policy]]:
    """The dialects of a scenario with the policies that each can have and that can matter."""
    return [(dialect, policy) for dialect in scenario.dialects for policy in scenario.policies_of(dialect)]


def run(scenario: Scenario, dialect: Dialect, policy: Policy) -> ScenarioOutcome:
    """Play a scenario under a dialect and a policy; it ends early at an ioctl that never returns."""
    simulation = Simulation(dialect, policy, scenario.setting)
    play = _Play(scenario, simulation)
    first = len(simulation.rows) + 1
    simulation.faults = [Fault(**fault) for fault in scenario.faults]
    for verb, what, options in scenario.steps:
        getattr(play, f"do_{verb}")(what, **options)
        if simulation.returned and simulation.returned[-1] is None:
            break
    else:
        simulation.close_record()
    return ScenarioOutcome(scenario, dialect, policy, simulation, facts(simulation, first, play.seen), first)


class _Play:
    """A scenario on its way: what is there at the beginning, and the verbs of its steps."""

    def __init__(self, scenario: Scenario, simulation: Simulation) -> None:
        self.simulation = simulation
        simulation.open(scenario.name)
        slots = [*scenario.memslots, *(_memslot(what, **how) for verb, what, how in scenario.steps if verb == "memslot")]
        self.vms = [simulation.make_vm() for _ in range(max([1, *(slot.vm for slot in slots)]))]
        simulation.vm = self.vms[0]
        shared = scenario.starts == SHARED
        named = [how.get("gmem", 1) for _, _, how in scenario.steps]
        ngmems = max([1, *(slot.gmem for slot in slots), *(user.gmem for user in scenario.users), *named])
        self.gmems = [simulation.make_gmem(simulation.vm, scenario.pages, shared=shared) for _ in range(ngmems)]
        simulation.gmem = self.gmems[0]
        for slot in scenario.memslots:
            self._set(slot)
        if simulation.in_vm and not shared:
            simulation.convert_pages(0, scenario.pages, PRIVATE)
        for start, end in scenario.allocated:
            for gmem in self.gmems:
                simulation.allocate(start, end, gmem)
        for start, end in scenario.exceptions:
            simulation.convert_pages(start, end, PRIVATE if shared else SHARED)
        simulation.returned.clear()
        for user in scenario.users:
            simulation.add_user(user.make(), self.gmems[user.gmem - 1])
        self.seen = Seen({user.name: set(user.pages) for user in simulation.users})

    def _set(self, slot: MemslotSpec) -> None:
        gmem = self.gmems[slot.gmem - 1] if slot.gmem else None
        self.simulation.set_slot(self.vms[slot.vm - 1], slot.slot, slot.gfn, slot.npages, gmem, slot.page)

    def user(self, name: str) -> SimulatedUser:
        return next(user for user in self.simulation.users if user.name == name)

    # --- the steps

    def do_convert(self, what: tuple[PageRun, ...], to: str = PRIVATE, gmem: int = 1, through: str = "", **how: Any) -> None:
        owner = self.simulation.vm if through or self.simulation.in_vm else self.gmems[gmem - 1]
        attributes = PRIVATE_ATTRIBUTE if to == PRIVATE else 0
        for start, end in what or ((0, 0),):
            call = {"address": start << PAGE_SHIFT, "size": (end - start) << PAGE_SHIFT, "attributes": attributes, **how}
            returned = self.simulation.convert(ConversionCall(owner, thread=VMM, **call))
            if returned is None:
                return

    def do_guest_asks(
        self,
        what: tuple[PageRun, ...],
        to: str = PRIVATE,
        path: RequestPath = RequestPath.VMCALL,
        answers: Iterable[int | None] = (),
        interrupted: int | None = None,
    ) -> None:
        returned = requests.ask(self.simulation, what, to, path, tuple(answers), interrupted)
        self.seen.guest_answered += [answer(result) for result in returned]

    def do_access(self, what: str, page: int, accept: bool = False, **how: str) -> None:
        seq = len(self.simulation.rows)
        private = how["as"] == PRIVATE if "as" in how else None
        fine = self.simulation.access(self.user(what), page, private=private, accept=accept)
        event = event_of(self.simulation.rows[-1]) if len(self.simulation.rows) > seq else None
        self.seen.accessed.append(f"{what} {page} {'ok' if fine else refusal(event)}")
        if fine:
            self.seen.mapped[what].add(page)

    def do_use(self, what: str, pages: tuple[PageRun, ...]) -> None:
        user = self.user(what)
        for start, end in pages:
            if isinstance(user, Holder):
                self.simulation.hold(user, start, end)
            else:
                for page in range(start, end):
                    self.simulation.access(user, page)
        self.seen.mapped[what] |= user.pages

    def do_release(self, what: str) -> None:
        user = self.user(what)
        assert isinstance(user, Holder)
        self.simulation.release(user)

    def do_punch(self, what: tuple[PageRun, ...], gmem: int = 1) -> None:
        for start, end in what:
            self.simulation.punch(start, end, self.gmems[gmem - 1])

    def do_allocate(self, what: tuple[PageRun, ...], gmem: int = 1) -> None:
        for start, end in what:
            self.simulation.fallocate(start, end, self.gmems[gmem - 1])

    def do_poison(self, what: int, gmem: int = 1) -> None:
        self.simulation.poison(what, self.gmems[gmem - 1])

    def do_populate(self, what: tuple[PageRun, ...], gmem: int = 1) -> None:
        for start, end in what:
            self.seen.populated.append(errno_name(self.simulation.populate(start, end, self.gmems[gmem - 1])))

    def do_memslot(self, what: int, **how: Any) -> None:
        slot = _memslot(what, **how)
        if slot.npages:
            self._set(slot)
        else:
            self.simulation.delete_slot(self.vms[slot.vm - 1], slot.slot)

    def do_close(self, _: tuple[()], gmem: int = 1) -> None:
        self.simulation.close_gmem(self.gmems[gmem - 1])

    def do_bug_vm(self, _: tuple[()]) -> None:
        self.simulation.bug_vm()


def _memslot(
    slot: int,
    gfn: int = 0,
    count: int = 0,
    page: int = 0,
    vm: int = 1,
    gmem: int = 1,
    plain: bool = False,
    delete: bool = False,
) -> MemslotSpec:
    return MemslotSpec(slot, gfn, 0 if delete else count, page, vm, 0 if plain else gmem)
