"""Reading scenarios: small TOML files, and those that come with the program."""

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.convert.engine.dialects.rfc_v2 import DEFECTS
from gmemstate.convert.engine.ioctl import Setting, VmType
from gmemstate.convert.engine.policies import DIALECT_NAMES, Policy
from gmemstate.convert.scenario.definition import HOLDERS, MAPPERS, MemslotSpec, Scenario, UserSpec
from gmemstate.convert.scenario.expect import expectations
from gmemstate.convert.scenario.tables import BadScenario, ScenarioTable, parse
from gmemstate.convert.simulation.facts import FORMS
from gmemstate.model.events import RequestPath, UnmapStep
from gmemstate.model.machines.range import PRIVATE, SHARED

FIRST = "the-mail"
"""The scenario that is listed first: what the program was made for."""

TOP = tuple(["title", "about", "source", "dialects", "policies", "guest", "user", "fault", "do", "expect"])
GUEST = tuple(
    [
        "type",
        "pages",
        "huge",
        "starts",
        "private",
        "shared",
        "allocated",
        "memslot",
        "mmap",
        "mmap_is_hva",
        "in_place",
        "private_mem",
        "defects",
    ]
)
MEMSLOT = ("slot", "gfn", "count", "page", "vm", "gmem", "plain")
USER = ("name", "is", "pages", "gmem", "refuses", "refuses_pages", "maps_again", "checks")
FAULT = ("at", "page", "nth", "times", "errno", "step")
STEPS = {
    verb: tuple(options.split())
    for verb, options in {
        "convert": "to gmem through address size attributes flags reserved error_offset readable writable same_mm",
        "guest_asks": "to path answers interrupted",
        "access": "page as accept",
        "use": "pages",
        "release": "",
        "punch": "gmem",
        "allocate": "gmem",
        "poison": "gmem",
        "populate": "gmem",
        "memslot": "gfn count page vm gmem plain delete",
        "close": "gmem",
        "bug_vm": "",
    }.items()
}
"""What a step can do, and its options."""

HUGE = {"4K": 0, "2M": 9, "1G": 18}
SNP_FAULTS = ("make_private", "rmp_update", "launch_update", "reclaim")
FAULTS = ("reserve", "work_item", "store", "split", "merge", "undo", "private_unmap", *SNP_FAULTS)
HARDWARE = {"private_unmap": VmType.TDX} | dict.fromkeys(SNP_FAULTS, VmType.SNP)
"""Which type of guest a failure of the hardware takes."""
PATHS = {
    "vmcall": RequestPath.VMCALL,
    "tdvmcall": RequestPath.TDVMCALL,
    "psc msr": RequestPath.PSC_MSR,
    "psc ghcb": RequestPath.PSC_GHCB,
}
HARDWARE_OF = {RequestPath.TDVMCALL: VmType.TDX, RequestPath.PSC_MSR: VmType.SNP, RequestPath.PSC_GHCB: VmType.SNP}
"""Which type of guest asks on a path; all make VMCALLs."""
UNMAP_STEPS = ("BLOCK", "TRACK", "REMOVE", "WBINVD")
SILENCE, AS_RETURNED = "silence", "as returned"
MOST = 1 << 20
"""How many pages a guest_memfd of a scenario has at most: 4 GiB."""


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
    return _scenario(path.stem, ScenarioTable(source, "", 0, content, TOP))


def _scenario(name: str, top: ScenarioTable) -> Scenario:
    top.need("title", "do")
    if not top.text("title").strip():
        raise top.bad("title", "says nothing: write one sentence")
    guest = top.table("guest", GUEST)
    setting, pages = _setting(guest), guest.number("pages", 16)
    if not 0 < pages <= MOST or pages % (1 << setting.order):
        raise guest.bad("pages", f"{pages} is no size: 1 to {MOST}, a multiple of {1 << setting.order} where huge says so")
    starts = guest.choice("starts", (SHARED, PRIVATE), SHARED)
    other = PRIVATE if starts == SHARED else SHARED
    if starts in guest:
        raise guest.bad(starts, f"says nothing: all pages start {starts}; name those that are {other}")
    slots = guest.tables("memslot", MEMSLOT)
    memslots = tuple(_memslot(slot, n, pages) for n, slot in enumerate(slots)) if slots else (MemslotSpec(0, 0, pages),)
    limit = max([pages, *(slot.gfn + slot.npages for slot in memslots)])
    specs: dict[str, UserSpec] = {}
    for user in top.tables("user", USER):
        spec = _user(user, limit)
        if spec.name in specs:
            raise user.bad("name", f"there is another user {spec.name!r}")
        specs[spec.name] = spec
    expect, named = expectations(top, specs)
    dialects = top.choices("dialects", DIALECT_NAMES) or named or list(DIALECT_NAMES)
    for dialect in named:
        if dialect not in dialects:
            raise top.table("expect", (*DIALECT_NAMES, *FORMS)).bad(dialect, "is not among the dialects of the scenario")
    steps = [_Step(step, setting.type, specs, limit) for step in top.tables("do", (*STEPS, *_options()))]
    _check_slots(memslots, steps, pages)
    return Scenario(
        name=name,
        title=top.text("title"),
        about=top.text("about").strip(),
        source=top.text("source"),
        setting=setting,
        pages=pages,
        starts=starts,
        exceptions=guest.runs(other, pages),
        allocated=guest.runs("allocated", pages) if "allocated" in guest else ((0, pages),),
        memslots=memslots,
        users=tuple(specs.values()),
        faults=tuple(_fault(fault, setting.type, limit) for fault in top.tables("fault", FAULT)),
        steps=tuple((step.verb, step.what(), step.options()) for step in steps),
        dialects=tuple(DIALECT_NAMES[text] for text in dialects),
        policies=tuple(Policy(text) for text in top.choices("policies", [*Policy])),
        expect=expect,
    )


def _setting(guest: ScenarioTable) -> Setting:
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


def _memslot(slot: ScenarioTable, n: int, pages: int) -> MemslotSpec:
    slot.need("gfn", "count")
    spec = MemslotSpec(
        slot=slot.number("slot", n),
        gfn=slot.number("gfn"),
        npages=slot.number("count"),
        page=slot.number("page"),
        vm=slot.one_or_two("vm"),
        gmem=0 if slot.flag("plain", default=False) else slot.one_or_two("gmem"),
    )
    _check_size(slot, pages, backed=spec.gmem > 0)
    return spec


def _check_size(slot: ScenarioTable, pages: int, *, backed: bool) -> None:
    count, page = slot.number("count"), slot.number("page")
    if not 0 < count <= MOST:
        raise slot.bad("count", f"{count} is no size: 1 to {MOST}")
    if backed and page + count > pages:
        raise slot.bad("count", f"the guest_memfd ends at page {pages}: {count} pages from {page} on do not fit")


def _user(user: ScenarioTable, limit: int) -> UserSpec:
    user.need("name", "is")
    kind = user.choice("is", [*MAPPERS, *HOLDERS])
    for key in ("refuses", "refuses_pages", "maps_again"):
        if key in user and kind not in MAPPERS:
            raise user.bad(key, f"a {kind} is never notified; only {', '.join(MAPPERS)} can refuse")
    if "checks" in user and kind != "reference":
        raise user.bad("checks", f"a {kind} does not go by itself; only a reference does")
    return UserSpec(
        name=user.text("name"),
        kind=kind,
        pages=user.runs("pages", limit),
        gmem=user.one_or_two("gmem"),
        refuses=_word_of(user, "refuses"),
        refused=user.runs("refuses_pages", limit),
        checks=user.number("checks") if "checks" in user else None,
        maps_again=_word_of(user, "maps_again"),
    )


def _word_of(user: ScenarioTable, key: str) -> int | None:
    """What a user answers: an errno, silence (None), or that it does as it is asked (0)."""
    if user.content.get(key) == SILENCE:
        return None
    return user.errno(key) if key in user else 0


def _fault(fault: ScenarioTable, guest: VmType, limit: int) -> dict[str, Any]:
    fault.need("at")
    facts: dict[str, Any] = {"at": fault.choice("at", FAULTS)}
    if guest is not (needed := HARDWARE.get(facts["at"], guest)):
        raise fault.bad("at", f"{facts['at']} never happens to a guest of type {guest}; it takes one of type {needed}")
    if "page" in fault:
        facts["page"] = fault.page("page", limit)
    for key in ("nth", "times"):
        if key in fault:
            facts[key] = fault.number(key)
            if not facts[key]:
                raise fault.bad(key, "0 is no count: write 1 or more")
    if "errno" in fault:
        facts["errno"] = fault.errno("errno")
    if "step" in fault:
        if facts["at"] != "private_unmap":
            raise fault.bad("step", "only private_unmap has steps")
        facts["step"] = UnmapStep[fault.choice("step", UNMAP_STEPS)]
    return facts


def _options() -> Iterable[str]:
    return dict.fromkeys(option for options in STEPS.values() for option in options)


class _Step:
    """One table of ``do``: its verb, the value of that, and its options."""

    def __init__(self, table: ScenarioTable, guest: VmType, users: dict[str, UserSpec], limit: int) -> None:
        self.table, self.limit = table, limit
        verbs = [verb for verb in STEPS if verb in table]
        if len(verbs) != 1:
            raise table.bad(verbs[1] if verbs else "do", f"a step does one thing, one of {', '.join(STEPS)}")
        self.verb = verbs[0]
        for key in table.content:
            if key not in (self.verb, *STEPS[self.verb]):
                raise table.bad(key, f"is no option of {self.verb}; known are {', '.join(STEPS[self.verb]) or 'none'}")
        if self.verb in ("access", "use", "release"):
            self._check_user(guest, users)
        if self.verb == "guest_asks":
            self._check_path(guest)
        if self.verb == "memslot" and "delete" not in table:
            table.need("gfn", "count")

    def _check_user(self, guest: VmType, users: dict[str, UserSpec]) -> None:
        table, name = self.table, self.table.text(self.verb)
        user = users.get(name)
        if user is None:
            raise table.bad(self.verb, f"{name!r} is no user; there are {', '.join(users) or 'none'}")
        if self.verb == "release" and user.kind in MAPPERS:
            raise table.bad(self.verb, f"{name} maps pages and holds none; a pin, a reference, an lru batch is released")
        for key in ("as", "accept"):
            if key in table and user.kind != "guest":
                raise table.bad(key, f"{name} is no guest")
        if "as" in table and guest is VmType.SW:
            raise table.bad("as", "a guest of type sw has no shared bit: each page is accessed as what it is")
        if "accept" in table and guest is not VmType.TDX:
            raise table.bad("accept", "only a guest of type tdx accepts pages")
        table.need(*{"access": ("page",), "use": ("pages",)}.get(self.verb, ()))

    def _check_path(self, guest: VmType) -> None:
        table = self.table
        path = table.choice("path", PATHS, "vmcall")
        if guest is not (needed := HARDWARE_OF.get(PATHS[path], guest)):
            raise table.bad("path", f"a guest of type {guest} cannot ask by {path}; it takes one of type {needed}")
        if "interrupted" in table and PATHS[path] is not RequestPath.TDVMCALL:
            raise table.bad("interrupted", f"only a tdvmcall is cut into chunks, and this is a {path}")

    def what(self) -> Any:
        """The value of the verb."""
        table, verb = self.table, self.verb
        if verb in ("close", "bug_vm") or (verb == "convert" and table.content[verb] is True):
            if not table.flag(verb, default=True):
                raise table.bad(verb, "is written true, or the step is left out")
            return ()
        if verb == "poison":
            return table.page(verb, self.limit)
        if verb == "memslot":
            return table.number(verb)
        if verb in ("access", "use", "release"):
            return table.text(verb)
        runs = table.runs(verb, None if verb == "convert" else self.limit)
        if not runs:
            raise table.bad(verb, "names no pages")
        return runs

    def options(self) -> dict[str, Any]:
        """The options that are given."""
        return {key: self._option(key) for key in self.table.content if key != self.verb}

    def _option(self, key: str) -> Any:
        table = self.table
        if key in ("to", "as"):
            return table.choice(key, (SHARED, PRIVATE))
        if key == "through":
            return table.choice(key, ("vm",))
        if key == "path":
            return PATHS[table.choice(key, PATHS)]
        if key == "answers":
            return table.errnos(key, AS_RETURNED)
        if key in ("vm", "gmem"):
            return table.one_or_two(key)
        if key == "pages":
            return table.runs(key, self.limit)
        if key == "page":
            return table.page(key, self.limit)
        if key in ("accept", "plain", "delete", "readable", "writable", "same_mm"):
            return table.flag(key, default=True)
        return table.number(key)


def _check_slots(memslots: Iterable[MemslotSpec], steps: Iterable[_Step], pages: int) -> None:
    """What is deleted must be there, and what is set must fit."""
    there = {(slot.vm, slot.slot) for slot in memslots}
    for step in steps:
        if step.verb == "memslot":
            slot = step.table.one_or_two("vm"), step.table.number("memslot")
            if step.table.flag("delete", default=False):
                if slot not in there:
                    raise step.table.bad("memslot", f"there is no memslot {slot[1]} to delete")
                there.remove(slot)
            else:
                _check_size(step.table, pages, backed=not step.table.flag("plain", default=False))
                there.add(slot)
