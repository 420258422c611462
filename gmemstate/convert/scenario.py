"""Scenarios: small TOML files that say who uses which pages, what is asked, what goes wrong, and what must come of it."""

import errno as errnos
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.convert import users
from gmemstate.convert.engine import Setting, VmType
from gmemstate.convert.policies import DIALECT_NAMES, Policy
from gmemstate.model.errors import CannotRead
from gmemstate.model.events import Dialect, RequestPath, UnmapStep
from gmemstate.model.machines import PRIVATE, SHARED

HUGE = {"4K": 0, "2M": 9, "1G": 18}
USERS: dict[str, Callable[..., users.PageUser]] = {
    "host": users.host,
    "guest": users.guest,
    "iommu": users.iommu,
    "pin": users.pin,
    "reference": users.reference,
    "lru batch": users.lru_batch,
}
FAULTS = ("reserve", "work_item", "store", "split", "merge", "undo", "private_unmap", "rmp_update")
PATHS = {
    "vmcall": RequestPath.VMCALL,
    "tdvmcall": RequestPath.TDVMCALL,
    "psc msr": RequestPath.PSC_MSR,
    "psc ghcb": RequestPath.PSC_GHCB,
}
SILENCE = "silence"

Run = tuple[int, int]


class BadScenario(CannotRead):
    """A scenario that cannot be read; the text names file, line and key."""

    code = "BAD-SCENARIO"


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A user of pages, as a scenario names it."""

    name: str
    kind: str
    pages: tuple[Run, ...]
    refuses: int | None = 0
    refused: tuple[Run, ...] = ()
    turns: int | None = None

    def make(self) -> users.PageUser:
        """A fresh user."""
        pages = _pages(self.pages)
        if self.kind in ("host", "guest", "iommu"):
            refused = frozenset(_pages(self.refused or self.pages)) if self.refuses != 0 else frozenset()
            return USERS[self.kind](self.name, pages, refuses=self.refuses, refused=refused, turns=self.turns or 0)
        return (
            USERS[self.kind](self.name, pages, self.turns) if self.kind == "reference" else USERS[self.kind](self.name, pages)
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a file says; ``steps`` are ``(verb, options)``, ``expect`` maps ``(dialect, policy)`` (None: any) to facts."""

    name: str
    title: str
    about: str
    source: str
    setting: Setting
    pages: int
    starts: str
    exceptions: tuple[Run, ...]
    allocated: tuple[Run, ...]
    memslots: tuple[dict[str, int], ...]
    users: tuple[UserSpec, ...]
    faults: tuple[dict[str, Any], ...]
    steps: tuple[tuple[str, dict[str, Any]], ...]
    dialects: tuple[Dialect, ...]
    expect: dict[tuple[str | None, str | None], dict[str, Any]] = field(default_factory=dict)

    def expected(self, dialect: Dialect, policy: Policy) -> dict[str, Any]:
        """What must come of it: what is said of all, then of the dialect, then of the policy."""
        name = next(text for text, found in DIALECT_NAMES.items() if found is dialect)
        facts: dict[str, Any] = {}
        for key in ((None, None), (name, None), (name, policy.value)):
            facts |= self.expect.get(key, {})
        return facts


def catalogue() -> dict[str, Path]:
    """The scenarios that come with the program, by name."""
    folder = Path(str(resources.files("gmemstate"))) / "data" / "scenarios"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load(name: str) -> Scenario:
    """The scenario of a file, or of a name of the catalogue. Raises BadScenario."""
    known = catalogue()
    path = Path(name)
    if name in known:
        path = known[name]
    elif not path.is_file():
        raise BadScenario(f"{name}: neither a file nor a scenario of the catalogue; `gmemstate simulate --list` shows those")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadScenario(f"{path}: cannot be read as text: {error}") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadScenario(f"{path}: is no TOML: {error}") from None
    return _Reader(str(path), text).scenario(path.stem, content)


def _pages(runs: Iterable[Run]) -> set[int]:
    return {page for start, end in runs for page in range(start, end)}


class _Reader:
    """Reads the tables of one file; every complaint names the line."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()

    def bad(self, key: str, what: str, near: str | None = None) -> BadScenario:
        pattern = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*(=|\]|\.)|.*[{{,]\s*{re.escape(key)}\s*=")
        hits = [n for n, line in enumerate(self.lines, 1) if pattern.match(line)]
        if near is not None:
            hits = [n for n in hits if near in self.lines[n - 1]] or hits
        line = hits[0] if hits else len(self.lines)
        return BadScenario(f"{self.path}:{line}: {key}: {what}; `gmemstate help scenarios` has the format")

    def table(self, name: str, content: Mapping[str, Any], known: Iterable[str]) -> Mapping[str, Any]:
        if not isinstance(content, Mapping):
            raise self.bad(name, "is a table")
        known = tuple(known)
        for key in content:
            if key not in known:
                raise self.bad(key, f"is not known in {name}; known are {', '.join(known)}")
        return content

    def number(self, key: str, value: Any) -> int:
        try:
            return int(value, 0) if isinstance(value, str) else int(value)
        except (TypeError, ValueError):
            raise self.bad(key, f"{value!r} is no number", str(value)) from None

    def runs(self, key: str, value: Any) -> tuple[Run, ...]:
        """Pages: ``5``, ``"0+16"`` (from page 0, 16 pages), ``"0-16"`` (from 0 to before 16), or a list of these."""
        if isinstance(value, list):
            return tuple(run for item in value for run in self.runs(key, item))
        text = str(value)
        match = re.fullmatch(r"(0x[0-9a-f]+|\d+)(?:([+-])(0x[0-9a-f]+|\d+))?", text)
        if match is None:
            raise self.bad(key, f'{text!r} are no pages: write 5, "0+16" or "0-16"', text)
        start = int(match[1], 0)
        end = start + 1 if match[2] is None else int(match[3], 0) + (start if match[2] == "+" else 0)
        if end <= start:
            raise self.bad(key, f"{text!r} is empty", text)
        return ((start, end),)

    def choice(self, key: str, value: Any, among: Iterable[str]) -> str:
        among = tuple(among)
        if value not in among:
            raise self.bad(key, f"{value!r} is none of {', '.join(among)}", str(value))
        return str(value)

    def errno(self, key: str, value: Any) -> int:
        number = getattr(errnos, str(value), {"EHWPOISON": 133, "0": 0}.get(str(value)))
        if not isinstance(number, int):
            raise self.bad(key, f"{value!r} is no errno", str(value))
        return number

    # --- the tables

    def scenario(self, name: str, content: Mapping[str, Any]) -> Scenario:
        top = ("title", "about", "source", "dialects", "guest", "user", "fault", "do", "expect")
        self.table("a scenario", content, top)
        if "title" not in content or not content.get("do"):
            raise self.bad("title" if "title" not in content else "do", "is missing")
        guest = self.table("guest", content.get("guest", {}), (
            "type", "pages", "huge", "starts", "private", "shared", "allocated", "memslot", "mmap_is_hva", "in_place",
            "private_mem", "defects",
        ))  # fmt: skip
        starts = self.choice("starts", guest.get("starts", SHARED), (SHARED, PRIVATE))
        pages = self.number("pages", guest.get("pages", 16))
        expect, named = self.expectations(content.get("expect", {}))
        dialects = content.get("dialects") or named or list(DIALECT_NAMES)
        return Scenario(
            name=name,
            title=str(content["title"]),
            about=str(content.get("about", "")).strip(),
            source=str(content.get("source", "")),
            setting=self.setting(guest),
            pages=pages,
            starts=starts,
            exceptions=self.runs("private", guest.get(PRIVATE if starts == SHARED else SHARED, [])),
            allocated=self.runs("allocated", guest.get("allocated", f"0+{pages}")),
            memslots=tuple(
                self.memslot(slot) for slot in guest.get("memslot", [{"slot": 0, "gfn": 0, "count": pages, "page": 0}])
            ),
            users=tuple(self.user(user) for user in content.get("user", [])),
            faults=tuple(self.fault(fault) for fault in content.get("fault", [])),
            steps=tuple(self.step(step) for step in content["do"]),
            dialects=tuple(DIALECT_NAMES[self.choice("dialects", text, DIALECT_NAMES)] for text in dialects),
            expect=expect,
        )

    def setting(self, guest: Mapping[str, Any]) -> Setting:
        return Setting(
            type=VmType(self.choice("type", guest.get("type", "sw"), [kind.value for kind in VmType])),
            order=HUGE[self.choice("huge", guest.get("huge", "4K"), HUGE)],
            mmap_is_hva=bool(guest.get("mmap_is_hva", True)),
            in_place=bool(guest.get("in_place", True)),
            private_mem=bool(guest.get("private_mem", True)),
            defects=frozenset(guest.get("defects", ())),
        )

    def memslot(self, slot: Mapping[str, Any]) -> dict[str, int]:
        self.table("memslot", slot, ("slot", "gfn", "count", "page", "plain"))
        return {key: self.number(key, value) for key, value in slot.items()}

    def user(self, user: Mapping[str, Any]) -> UserSpec:
        self.table("user", user, ("name", "is", "pages", "refuses", "refuses_pages", "turns"))
        for key in ("name", "is"):
            if key not in user:
                raise self.bad("user", f"{key} is missing")
        refuses = user.get("refuses", 0)
        return UserSpec(
            name=str(user["name"]),
            kind=self.choice("is", user["is"], USERS),
            pages=self.runs("pages", user.get("pages", [])),
            refuses=None if refuses == SILENCE else self.errno("refuses", refuses),
            refused=self.runs("refuses_pages", user.get("refuses_pages", [])),
            turns=None if "turns" not in user else self.number("turns", user["turns"]),
        )

    def fault(self, fault: Mapping[str, Any]) -> dict[str, Any]:
        self.table("fault", fault, ("at", "page", "nth", "errno", "step", "times"))
        facts: dict[str, Any] = {"at": self.choice("at", fault.get("at"), FAULTS)}
        facts |= {key: self.number(key, fault[key]) for key in ("page", "nth", "times") if key in fault}
        if "errno" in fault:
            facts["errno"] = self.errno("errno", fault["errno"])
        if "step" in fault:
            facts["step"] = UnmapStep[self.choice("step", fault["step"], [step.name for step in UnmapStep])]
        return facts

    def step(self, step: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        verbs = [verb for verb in STEPS if verb in step]
        if len(verbs) != 1:
            raise self.bad("do", f"a step does one thing, one of {', '.join(STEPS)}")
        verb = verbs[0]
        self.table(f"a step that does {verb}", step, (verb, *STEPS[verb]))
        options = {key: self.option(key, value) for key, value in step.items() if key != verb}
        return verb, options if verb in ALONE else {"what": self.what(verb, step[verb]), **options}

    def what(self, verb: str, value: Any) -> Any:
        if verb in ("convert", "punch", "guest_asks"):
            return None if value is True else self.runs(verb, value)
        if verb in ("poison", "memslot"):
            return self.number(verb, value)
        return value

    def option(self, key: str, value: Any) -> Any:
        if key == "to":
            return self.choice(key, value, (SHARED, PRIVATE))
        if key == "path":
            return PATHS[self.choice(key, value, PATHS)]
        if key == "answers":
            return [None if answer == "as told" else self.errno(key, answer) for answer in value]
        if key == "pages":
            return self.runs(key, value)
        if isinstance(value, bool):
            return value
        return self.number(key, value) if key not in ("by", "as") else str(value)

    def expectations(self, content: Mapping[str, Any]) -> tuple[dict[tuple[str | None, str | None], dict[str, Any]], list[str]]:
        found: dict[tuple[str | None, str | None], dict[str, Any]] = {}
        policies = [policy.value for policy in Policy]
        named = [key for key in content if key in DIALECT_NAMES]
        self.table("expect", content, (*DIALECT_NAMES, *FACTS))
        found[None, None] = {key: value for key, value in content.items() if key not in DIALECT_NAMES}
        for dialect in named:
            facts = self.table(f"expect.{dialect}", content[dialect], (*policies, *FACTS))
            found[dialect, None] = {key: value for key, value in facts.items() if key not in policies}
            for policy in policies:
                if policy in facts:
                    found[dialect, policy] = dict(self.table(f"expect.{dialect}.{policy}", facts[policy], FACTS))
        return found, named


STEPS: dict[str, tuple[str, ...]] = {
    "convert": ("to", "address", "size", "attributes", "flags", "reserved", "error_offset", "readable", "writable", "same_mm"),
    "release": (),
    "use": ("pages",),
    "punch": (),
    "poison": (),
    "touch": ("page", "as"),
    "close": (),
    "memslot": ("gfn", "count", "page", "plain", "delete"),
    "bug_vm": (),
    "kill_vm": (),
    "guest_asks": ("to", "path", "answers", "interrupted"),
}
"""What a step can do, and its options."""

ALONE = ("close", "bug_vm", "kill_vm")
"""The steps that concern everything: they are written ``close = true``."""

FACTS = (
    "told", "error_offset", "private", "lost", "messed_up", "vm", "huge", "touched", "guest_told", "findings", "dma_at_risk",
)  # fmt: skip
"""What an expectation can name."""
