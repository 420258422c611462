"""Scenarios: small TOML files that say who uses which pages, what is asked, what goes wrong, and what must come of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from gmemstate.convert import users
from gmemstate.convert.dialects.rfc_v2 import DEFECTS
from gmemstate.convert.engine import Setting, VmType
from gmemstate.convert.facts import FACTS, LIST, NUMBER, TABLE
from gmemstate.convert.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.tables import BadScenario, Run, Table, parse
from gmemstate.model.events import Dialect, RequestPath, UnmapStep
from gmemstate.model.machines import PRIVATE, SHARED

FIRST = "the-mail"
"""The scenario that is listed first: what the program was made for."""

# --- the words of the format

TOP = ("title", "about", "source", "dialects", "policies", "guest", "user", "fault", "do", "expect")
GUEST = (
    "type", "pages", "huge", "starts", "private", "shared", "allocated", "memslot", "mmap", "mmap_is_hva", "in_place",
    "private_mem", "defects",
)  # fmt: skip
MEMSLOT = ("slot", "gfn", "count", "page", "vm", "gmem", "plain")
USER = ("name", "is", "pages", "gmem", "refuses", "refuses_pages", "turns")
FAULT = ("at", "page", "nth", "times", "errno", "step")
STEPS: dict[str, tuple[str, ...]] = {
    "convert": (
        "to", "gmem", "through", "address", "size", "attributes", "flags", "reserved", "error_offset", "readable", "writable",
        "same_mm",
    ),
    "guest_asks": ("to", "path", "answers", "interrupted"),
    "touch": ("page", "as", "accept"),
    "use": ("pages",),
    "release": (),
    "punch": ("gmem",),
    "allocate": ("gmem",),
    "poison": ("gmem",),
    "populate": ("gmem",),
    "memslot": ("gfn", "count", "page", "vm", "gmem", "plain", "delete"),
    "close": ("gmem",),
    "bug_vm": (),
}  # fmt: skip
"""What a step can do, and its options."""

HUGE = {"4K": 0, "2M": 9, "1G": 18}
USERS: dict[str, Callable[..., users.PageUser]] = {
    "host": users.host,
    "guest": users.guest,
    "iommu": users.iommu,
    "pin": users.pin,
    "reference": users.reference,
    "lru batch": users.lru_batch,
}
MAPPING = ("host", "guest", "iommu")
FAULTS = ("reserve", "work_item", "store", "split", "merge", "undo", "private_unmap", "make_private", "rmp_update")
PATHS = {
    "vmcall": RequestPath.VMCALL,
    "tdvmcall": RequestPath.TDVMCALL,
    "psc msr": RequestPath.PSC_MSR,
    "psc ghcb": RequestPath.PSC_GHCB,
}
SILENCE, AS_TOLD = "silence", "as told"


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A user of pages, as a scenario names it."""

    name: str
    kind: str
    pages: tuple[Run, ...]
    gmem: int = 1
    refuses: int | None = 0
    refused: tuple[Run, ...] = ()
    turns: int | None = None

    def make(self) -> users.PageUser:
        """A fresh user."""
        pages = _pages(self.pages)
        if self.kind in MAPPING:
            refused = frozenset(_pages(self.refused or self.pages)) if self.refuses != 0 else frozenset()
            return USERS[self.kind](self.name, pages, refuses=self.refuses, refused=refused, turns=self.turns or 0)
        return USERS[self.kind](self.name, pages, *([self.turns] if self.kind == "reference" else []))


class MemslotSpec(NamedTuple):
    """Gfns of a guest, and the guest_memfd behind them (0: none) from ``page`` on; ``npages`` 0 deletes the slot."""

    slot: int
    gfn: int
    npages: int
    page: int = 0
    vm: int = 1
    gmem: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a file says; ``steps`` are ``(verb, what, options)``, ``expect`` maps ``(dialect, policy)`` (None: any) to facts."""

    name: str
    title: str
    about: str
    source: str
    setting: Setting
    pages: int
    starts: str
    exceptions: tuple[Run, ...]
    allocated: tuple[Run, ...]
    memslots: tuple[MemslotSpec, ...]
    users: tuple[UserSpec, ...]
    faults: tuple[dict[str, Any], ...]
    steps: tuple[tuple[str, Any, dict[str, Any]], ...]
    dialects: tuple[Dialect, ...]
    policies: tuple[Policy, ...]
    expect: dict[tuple[str | None, str | None], dict[str, Any]] = field(default_factory=dict)

    @property
    def has_policies(self) -> bool:
        """Whether it matters what guest_memfd learns of a private page that does not come off."""
        return any(fault["at"] == "private_unmap" for fault in self.faults)

    def expected(self, dialect: Dialect, policy: Policy) -> dict[str, Any]:
        """What must come of it: what is said of all, then of the dialect, then of the policy."""
        name = next(text for text, found in DIALECT_NAMES.items() if found is dialect)
        facts: dict[str, Any] = {}
        for key in ((None, None), (name, None), (name, policy.value)):
            facts |= self.expect.get(key, {})
        return facts


def catalogue() -> dict[str, Path]:
    """The scenarios that come with the program, by name, in the order in which they are listed."""
    folder = Path(str(resources.files("gmemstate"))) / "data" / "scenarios"
    found = {path.stem: path for path in folder.glob("*.toml")}
    return {name: found[name] for name in sorted(found, key=lambda name: (name != FIRST, not name.startswith("sc-"), name))}


def load(name: str) -> Scenario:
    """The scenario of a file, or of a name or id (``sc-02``) of the catalogue. Raises BadScenario."""
    known = catalogue()
    named = [stem for stem in known if stem == name] or [stem for stem in known if f"-{name}-" in f"-{stem}-"]
    path = Path(name)
    if len(named) == 1 and not path.is_file():
        path = known[named[0]]
    elif not path.exists():
        raise BadScenario(f"{name}: neither a file nor a scenario of the catalogue; `gmemstate simulate --list` shows those")
    source, content = parse(path)
    return _scenario(path.stem, Table(source, "", 0, content, TOP))


# --- reading


def _scenario(name: str, top: Table) -> Scenario:
    top.need("title", "do")
    guest = top.table("guest", GUEST)
    starts = guest.choice("starts", (SHARED, PRIVATE), SHARED)
    other = PRIVATE if starts == SHARED else SHARED
    if starts in guest:
        raise guest.bad(starts, f"says nothing: all pages start {starts}; name those that are {other}")
    pages = guest.number("pages", 16)
    slots = guest.tables("memslot", MEMSLOT)
    memslots = tuple(_memslot(slot, n) for n, slot in enumerate(slots)) if slots else (MemslotSpec(0, 0, pages),)
    limit = max([pages, *(slot.gfn + slot.npages for slot in memslots)])
    specs = tuple(_user(user, limit) for user in top.tables("user", USER))
    for n, user in enumerate(specs):
        if user.name in [each.name for each in specs[:n]]:
            raise top.tables("user", USER)[n].bad("name", f"there are two users {user.name!r}")
    expect, named = _expectations(top)
    dialects = top.choices("dialects", DIALECT_NAMES) or named or list(DIALECT_NAMES)
    for dialect in named:
        if dialect not in dialects:
            raise top.table("expect", (*DIALECT_NAMES, *FACTS)).bad(dialect, "is not among the dialects of the scenario")
    known_users = {user.name: user for user in specs}
    return Scenario(
        name=name,
        title=top.text("title"),
        about=top.text("about").strip(),
        source=top.text("source"),
        setting=_setting(guest),
        pages=pages,
        starts=starts,
        exceptions=guest.runs(other, pages),
        allocated=guest.runs("allocated", pages) if "allocated" in guest else ((0, pages),),
        memslots=memslots,
        users=specs,
        faults=tuple(_fault(fault) for fault in top.tables("fault", FAULT)),
        steps=tuple(_step(step, known_users, limit) for step in top.tables("do", (*STEPS, *_options()))),
        dialects=tuple(DIALECT_NAMES[text] for text in dialects),
        policies=tuple(Policy(text) for text in top.choices("policies", [*Policy])) or tuple(Policy),
        expect=expect,
    )


def _setting(guest: Table) -> Setting:
    mmap = guest.flag("mmap", default=True)
    return Setting(
        type=VmType(guest.choice("type", [*VmType], VmType.SW)),
        order=HUGE[guest.choice("huge", HUGE, "4K")],
        mmap=mmap,
        mmap_is_hva=guest.flag("mmap_is_hva", default=mmap),
        in_place=guest.flag("in_place", default=True),
        private_mem=guest.flag("private_mem", default=True),
        defects=frozenset(guest.choices("defects", DEFECTS)),
    )


def _memslot(slot: Table, n: int) -> MemslotSpec:
    slot.need("gfn", "count")
    return MemslotSpec(
        slot=slot.number("slot", n),
        gfn=slot.number("gfn"),
        npages=slot.number("count"),
        page=slot.number("page"),
        vm=slot.number("vm", 1),
        gmem=0 if slot.flag("plain", default=False) else slot.number("gmem", 1),
    )


def _user(user: Table, limit: int) -> UserSpec:
    user.need("name", "is")
    silent = user.content.get("refuses") == SILENCE
    return UserSpec(
        name=user.text("name"),
        kind=user.choice("is", USERS),
        pages=user.runs("pages", limit),
        gmem=user.number("gmem", 1),
        refuses=None if silent else user.errno("refuses") if "refuses" in user else 0,
        refused=user.runs("refuses_pages", limit),
        turns=user.number("turns") if "turns" in user else None,
    )


def _fault(fault: Table) -> dict[str, Any]:
    fault.need("at")
    facts: dict[str, Any] = {"at": fault.choice("at", FAULTS)}
    facts |= {key: fault.number(key) for key in ("page", "nth", "times") if key in fault}
    if "errno" in fault:
        facts["errno"] = fault.errno("errno")
    if "step" in fault:
        facts["step"] = UnmapStep[fault.choice("step", [step.name for step in UnmapStep])]
    return facts


def _options() -> Iterable[str]:
    return dict.fromkeys(option for options in STEPS.values() for option in options)


def _step(step: Table, known: dict[str, UserSpec], limit: int) -> tuple[str, Any, dict[str, Any]]:
    verbs = [verb for verb in STEPS if verb in step]
    if len(verbs) != 1:
        raise step.bad(verbs[1] if verbs else "do", f"a step does one thing, one of {', '.join(STEPS)}")
    verb = verbs[0]
    for key in step.content:
        if key not in (verb, *STEPS[verb]):
            raise step.bad(key, f"is no option of {verb}; known are {', '.join(STEPS[verb]) or 'none'}")
    user = known.get(str(step.content[verb]))
    if verb in ("touch", "use", "release") and user is None:
        raise step.bad(verb, f"{step.content[verb]!r} is no user; there are {', '.join(known) or 'none'}")
    if user is not None and verb == "release" and user.kind in MAPPING:
        raise step.bad(verb, f"{user.name} maps pages and holds none; only a pin, a reference or an lru batch is released")
    step.need(*{"touch": ("page",), "use": ("pages",)}.get(verb, ()))
    return verb, _what(step, verb, limit), {key: _option(step, key, limit) for key in step.content if key != verb}


def _what(step: Table, verb: str, limit: int) -> Any:
    """What stands behind the verb."""
    if verb in ("close", "bug_vm") or (verb == "convert" and step.content[verb] is True):
        if not step.flag(verb, default=True):
            raise step.bad(verb, "is written true, or the step is left out")
        return ()
    if verb in ("convert", "guest_asks"):
        return step.runs(verb)
    if verb in ("punch", "allocate", "populate"):
        return step.runs(verb, limit)
    if verb == "poison":
        return step.page(verb, limit)
    return step.number(verb) if verb == "memslot" else step.text(verb)


def _option(step: Table, key: str, limit: int) -> Any:
    if key in ("to", "as"):
        return step.choice(key, (SHARED, PRIVATE))
    if key == "through":
        return step.choice(key, ("vm",))
    if key == "path":
        return PATHS[step.choice(key, PATHS)]
    if key == "answers":
        return step.errnos(key, AS_TOLD)
    if key == "pages":
        return step.runs(key, limit)
    if key == "page":
        return step.page(key, limit)
    if key in ("accept", "plain", "delete", "readable", "writable", "same_mm"):
        return step.flag(key, default=True)
    return step.number(key)


def _expectations(top: Table) -> tuple[dict[tuple[str | None, str | None], dict[str, Any]], list[str]]:
    everybody = top.table("expect", (*DIALECT_NAMES, *FACTS))
    found: dict[tuple[str | None, str | None], dict[str, Any]] = {(None, None): _facts(everybody)}
    named = [key for key in everybody.content if key in DIALECT_NAMES]
    for dialect in named:
        possible = [policy.value for policy in POLICIES[DIALECT_NAMES[dialect]]]
        table = everybody.table(dialect, (*Policy, *FACTS))
        found[dialect, None] = _facts(table)
        for policy in (policy.value for policy in Policy if policy in table):
            if policy not in possible:
                raise table.bad(policy, f"{dialect} cannot have this policy; it can have {', '.join(possible)}")
            found[dialect, policy] = _facts(table.table(policy, FACTS))
    return found, named


def _facts(table: Table) -> dict[str, Any]:
    """The facts of one table of expectations, each in its form."""
    found: dict[str, Any] = {}
    for fact in (key for key in table.content if key in FACTS):
        form = FACTS[fact][0]
        if form == LIST:
            found[fact] = table.items(fact)
        elif form == NUMBER:
            found[fact] = table.number(fact)
        elif form == TABLE:
            inner = table.table(fact, tuple(table.content[fact]) if isinstance(table.content[fact], dict) else ())
            found[fact] = {key: inner.items(key) for key in inner.content}
        else:
            found[fact] = table.text(fact)
    return found


def _pages(runs: Iterable[Run]) -> set[int]:
    return {page for start, end in runs for page in range(start, end)}
