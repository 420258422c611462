"""The engine and the naive host, side by side: whatever happens, happens to both, and both must say the same of it."""

from dataclasses import asdict, dataclass, field

from hypothesis import strategies as st

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import ConversionCall, Fault, Setting, VmType
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model.events import KIND, RESULT, Undone
from gmemstate.model.fold.apply import fold
from gmemstate.model.memory import Memory
from tests.convert.naive import Naive
from tests.convert.naive_host import PRIVATE, SHARED, Person, Request, Returned, Trouble

PAGES = 24
ORDER = 3
"""A huge page of eight, so that three of them can be looked at page by page."""
MAKE = {"host": users.host, "guest": users.guest, "iommu": users.iommu}
HOLD = {"pin": users.pin, "reference": users.reference, "lru": users.lru_batch}
POINTS = ("reserve", "work_item", "store", "split", "merge", "undo", "private_unmap", "rmp_update")
GMEM_DIALECTS = ("rfc-v2", "inplace", "check-first")
LAYOUTS = {
    "whole": ((0, 0, PAGES),),
    "two": ((0, 0, 10), (10, 10, PAGES - 10)),
    "part": ((4, 4, 9),),
    "none": (),
    "moved": ((0x100, 0, PAGES),),
    "crossed": ((0x100, 12, 12), (0x200, 0, 12)),
}
"""Memslots: first gfn, first page, number of pages."""


@dataclass(frozen=True)
class World:
    """What is fixed when a guest is made, and who is there from its beginning."""

    dialect: str
    policy: str = "bug-vm"
    type: str = "sw"
    order: int = 0
    starts: str = SHARED
    notifier: bool = True
    layout: str = "whole"
    others: tuple[tuple[int, int], ...] = ()
    """pages that are of the other kind"""
    holes: tuple[tuple[int, int], ...] = ()
    """pages without memory"""
    people: tuple[tuple[str, frozenset[int], int | None], ...] = ()
    """who maps everything that it can: kind, what it does not let go, what it answers then"""
    in_place: bool = True
    private_mem: bool = True
    defects: frozenset[str] = frozenset()


@dataclass
class Pair:
    """Both hosts."""

    world: World
    simulation: Simulation = field(init=False)
    naive: Naive = field(init=False)
    stuck: bool = False

    def __post_init__(self) -> None:
        world = self.world
        slots = LAYOUTS[world.layout]
        setting = Setting(
            type=VmType(world.type), order=world.order, mmap_is_hva=world.notifier, in_place=world.in_place,
            private_mem=world.private_mem, defects=world.defects,
        )  # fmt: skip
        self.simulation = s = Simulation(DIALECT_NAMES[world.dialect], Policy(world.policy), setting)
        s.open("pair")
        s.vm = s.make_vm()
        s.gmem = s.make_gmem(s.vm, PAGES, shared=world.starts == SHARED)
        for n, (gfn, page, npages) in enumerate(slots):
            s.set_slot(s.vm, n, gfn, npages, s.gmem, page)
        covered = [set(range(page, page + npages)) for _, page, npages in slots]
        self.naive = Naive(world.dialect, world.policy, PAGES, world.starts, world.type, world.order, world.notifier,
                           world.in_place, world.private_mem, world.defects, covered)  # fmt: skip
        holes = {page for start, npages in world.holes for page in range(start, start + npages)}
        for page in sorted(set(range(PAGES)) - holes):
            self.allocate(page)
        for start, npages in world.others:
            other = PRIVATE if self.naive.kind[start] == SHARED else SHARED
            self.convert(Request(start << 12, min(npages, PAGES - start) << 12, 8 if other == PRIVATE else 0))
        for n, (kind, stubborn, answer) in enumerate(world.people):
            self.add(Person(f"{kind}{n}", kind, self.reachable(kind, covered), stubborn, answer))

    def reachable(self, kind: str, slots: list[set[int]]) -> set[int]:
        """What somebody of a kind can map: the guest what its slots cover, others what is shared."""
        pages = {page for page in self.naive.folio if page < PAGES}
        if kind == "guest":
            return pages & set().union(*slots)
        if self.world.dialect == "mainline":
            return set(range(PAGES))
        return {page for page in pages if self.naive.kind[page] == SHARED}

    # --- what can happen

    def allocate(self, page: int) -> None:
        if page not in self.naive.folio:
            self.simulation.allocate(page, page + 1)
            self.naive.allocate(page)

    def add(self, person: Person) -> None:
        pages = set(person.pages)
        if person.kind in MAKE:
            how = {"refuses": person.answer, "refused": person.stubborn}
            self.simulation.add_user(MAKE[person.kind](person.name, pages, **how))
        else:
            self.simulation.add_user(HOLD[person.kind](person.name, pages))
        self.naive.people.append(person)

    def trouble(self, at: str, page: int | None = None, nth: int = 1, times: int = 1) -> None:
        self.naive.troubles.append(Trouble(at, page, nth, times=times))
        self.simulation.faults = [*self.simulation.faults, Fault(at, page, nth if nth > 1 else None, times=times)]

    def convert(self, request: Request) -> tuple[Returned, Returned]:
        """What the engine and what the naive host tell the caller; the rule of all or nothing is looked at on the way."""
        before, rows = self.kinds(), len(self.simulation.rows)
        returned = self.simulation.convert(ConversionCall(self.simulation.owner, thread=1, **asdict(request)))
        expected = self.naive.convert(request)
        self.stuck = returned is None
        if returned is not None and "shadowed-ret" not in self.world.defects:
            warned = any(row[KIND] == Undone.code and row[RESULT] for row in self.simulation.rows[rows:])
            wanted = {page: request.target for page in request.pages if page < PAGES} if returned.errno == 0 else {}
            assert warned or self.kinds() == before | wanted, "neither all new nor all old"
            assert not (warned and returned.errno == 0)
        return (None if returned is None else (returned.errno, returned.error_offset)), expected

    def access(self, person: Person, page: int, kind: str = SHARED) -> tuple[bool, int]:
        """Whether the engine serves the access, and the errno that the naive host has for it."""
        user = next(user for user in self.simulation.users if user.name == person.name)
        served = self.simulation.access(user, page, private=kind == PRIVATE)
        touch = (
            self.naive.guest_touches(person, page, kind) if person.kind == "guest" else self.naive.host_touches(person, page)
        )
        return served, touch

    def release(self, person: Person) -> None:
        user = next(user for user in self.simulation.users if user.name == person.name)
        assert isinstance(user, users.Holder)
        self.simulation.release(user)
        person.pages.clear()

    def punch(self, start: int, end: int) -> None:
        self.simulation.punch(start, end)
        self.naive.punch(set(range(start, end)))

    def poison(self, page: int) -> None:
        self.simulation.poison(page)
        self.naive.poison(page)

    def close(self) -> None:
        self.simulation.close_gmem()
        self.naive.close()

    # --- what both say

    def kinds(self) -> dict[int, str]:
        found = self.simulation.kernel().kinds(self.simulation.owner, 0, PAGES)
        return {page: kind for start, end, kind in found for page in range(start, end)}

    def agree(self) -> None:
        """The same kinds, folios, messed-up pages, state of the VM and, unless somebody waits for ever, mappings."""
        s, naive = self.simulation, self.naive
        assert self.kinds() == {page: naive.kind[page] for page in range(PAGES)}
        assert {(head, 1 << order) for head, order in s.kernel().folios(s.gmem, 0, PAGES)} == set(naive.folio.values())
        entries = s.memory.messed_up.values()
        assert {(entry.cause.name, entry.gfn if entry.index is None else entry.index) for entry in entries} == naive.lost
        assert s.memory.vms[s.vm].gone == ("bugged" if naive.bugged else None)
        assert {finding.code for finding in s.memory.findings} == ({"PFN-REUSED"} if naive.reused else set())
        if not self.stuck:
            mapping = {user.name: user.pages for user in s.users if isinstance(user, users.Mapper)}
            assert mapping == {person.name: person.pages for person in naive.people if person.kind in MAKE}

    def laws(self) -> None:
        """What must never be, whoever is right: INV-03, INV-10 and, at rest, INV-11."""
        s = self.simulation
        private = {page for page, kind in self.kinds().items() if kind == PRIVATE}
        if self.world.dialect == "mainline" or self.stuck:
            return
        for user in s.users:
            if isinstance(user, users.Mapper) and user.name.startswith("host"):
                assert not user.pages & private, "private, and in a host page table"
        for head, order in s.kernel().folios(s.gmem, 0, PAGES):
            assert not order or set(range(head, head + (1 << order))) <= private, "a huge page with a shared page in it"

    def folds_alike(self) -> None:
        """The rows alone make the same memory, by compiled tables and by live machines."""
        mine = self.simulation.memory
        for memory in (fold(self.simulation.rows), fold(self.simulation.rows, Memory(live=True))):
            assert memory.ranges == mine.ranges
            assert memory.mappings == mine.mappings
            assert memory.conversions == mine.conversions
            assert memory.ended == mine.ended
            assert memory.messed_up == mine.messed_up
            assert memory.gmems == mine.gmems
            assert memory.findings == mine.findings


# --- drawing -------------------------------------------------------------------------------------------------------

PAGE = st.integers(0, PAGES - 1)
SPAN = st.tuples(PAGE, st.integers(1, PAGES))
ANSWERS = st.sampled_from([0, 16, 16, 11, None])
"""yes (and it is not true), EBUSY, EAGAIN, nothing at all"""


@st.composite
def people(draw: st.DrawFn, world: dict[str, object]) -> tuple[tuple[str, frozenset[int], int | None], ...]:
    """The guest, and some hosts and IOMMUs; some do not let go. Of a TD's own entries only removal can fail."""
    kinds = ["guest", *draw(st.lists(st.sampled_from(["host", "host", "iommu"]), max_size=3))]
    found = []
    for kind in kinds:
        stubborn = draw(st.sampled_from([None, None, None, PAGE])) if kind != "guest" or world["type"] == "sw" else None
        if stubborn is None:
            found.append((kind, frozenset(), 0))
        else:
            found.append((kind, draw(st.frozensets(stubborn, min_size=1, max_size=3)), draw(ANSWERS)))
    return tuple(found)


@st.composite
def worlds(draw: st.DrawFn, dialect: str, **fixed: object) -> World:
    """Any guest under a dialect."""
    huge = dialect in ("rfc-v2", "check-first")
    layouts = [name for name in LAYOUTS if dialect != "mainline" or name not in ("moved", "crossed")]
    world: dict[str, object] = {
        "dialect": dialect,
        "policy": draw(st.sampled_from([policy.value for policy in POLICIES[DIALECT_NAMES[dialect]]])),
        "type": draw(st.sampled_from(["sw", "tdx", "snp"])),
        "order": draw(st.sampled_from([0, ORDER])) if huge else 0,
        "starts": draw(st.sampled_from([SHARED, PRIVATE])),
        "notifier": draw(st.booleans()),
        "layout": draw(st.sampled_from(layouts)),
        "others": tuple(draw(st.lists(SPAN, max_size=3))),
        "holes": tuple(draw(st.lists(SPAN, max_size=2))),
    }
    world |= fixed
    world["people"] = draw(people(world))
    return World(**world)  # type: ignore[arg-type]


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Most are well formed and inside of the file; some are not."""
    start, npages = draw(SPAN)
    attributes = draw(st.sampled_from([8, 0]))
    if draw(st.integers(0, 9)):
        return Request(start << 12, min(npages, PAGES - start) << 12, attributes)
    how = draw(st.sampled_from([
        {}, {"flags": 1}, {"reserved": 1}, {"attributes": 9}, {"attributes": 1}, {"error_offset": 0x1234}, {"readable": False},
        {"writable": False}, {"writable": False, "error_offset": 1}, {"same_mm": False},
    ]))  # fmt: skip
    address = draw(st.sampled_from([start << 12, (start << 12) + 0x200, (1 << 64) - 4096]))
    size = draw(st.sampled_from([npages << 12, 0, 0x1010, 4096, 8192]))
    return Request(address, size, **{"attributes": attributes, **how})  # type: ignore[arg-type]
