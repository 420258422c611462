"""A report of the kernel: several lines that together tell one thing, and the event that they amount to."""

from collections import Counter
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any

from gmemstate.decode import errno, rmp_entry, rmpupdate
from gmemstate.ingest.correlate.stacks import about, entry_path, place
from gmemstate.ingest.fact import Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.reports import KernelReportCode
from gmemstate.text import printable

STACK = 64
"""How many frames of a stack are kept."""
NEIGHBOURS = 16
"""How many runs of equal RMP entries are kept of a dump."""
ACTIONS = 16
"""How many different actions are kept of a run of poisoned pages."""
APART = 40
"""How many lines of others may stand between two of a report."""
RMP_FAULT = 1 << 31
PTE_PFN = ((1 << 51) - 1) & ~0xFFF
"""Without bit 51, where the mark of encrypted memory may be."""
TEXT = 300


def shown(text: str) -> str:
    """A text of others as a detail: printable, and not too long."""
    return printable(text.expandtabs(1))[:TEXT]


@dataclass(slots=True)
class Neighbours:
    """Host pages ``[start, end)`` whose RMP entries are alike, in a dump."""

    start: int
    end: int
    owner: str


@dataclass(slots=True)
class Report:
    """What lines have told so far. ``kind`` is the name of the fact that began it."""

    kind: str
    line: int
    t: int | None
    args: dict[str, int]
    words: dict[str, str]
    last: int = 0
    lines: int = 1
    end: int = 0
    """of a run of poisoned pages: the page after it"""
    stack: list[str] = field(default_factory=list)
    guessed: list[str] = field(default_factory=list)
    """frames that the kernel is not sure of"""
    errors: dict[str, int] = field(default_factory=dict)
    """registers that hold an errno"""
    neighbours: list[Neighbours] = field(default_factory=list)
    more: int = 0
    """neighbours beyond those that are kept"""
    actions: Counter[str] = field(default_factory=Counter)
    """what the kernel says that it did with poisoned pages"""

    @classmethod
    def of(cls, fact: Fact) -> "Report":
        """The report that a fact begins."""
        words = {name: shown(word) for name, word in fact.words.items()}
        return cls(fact.name, fact.line, fact.t, dict(fact.args), words, fact.line)

    def add(self, fact: Fact) -> bool:
        """Take one more line in; what is known already stays."""
        self.args = {**fact.args, **self.args}
        self.words = {**{name: shown(word) for name, word in fact.words.items()}, **self.words}
        return self.go_on(fact)

    def go_on(self, fact: Fact) -> bool:
        """Note that a line belongs to it."""
        self.last = fact.line
        self.lines += 1
        return True

    def add_frames(self, names: list[str], *, sure: bool = True) -> None:
        """Frames of its stack, innermost first."""
        frames = self.stack if sure else self.guessed
        frames += [name for name in names if name.replace(".", "_").isidentifier()][: STACK - len(frames)]

    def near(self, fact: Fact) -> bool:
        """Whether a line may still belong to it."""
        return fact.line - self.last <= APART

    @property
    def frames(self) -> list[str]:
        """The stack, innermost first; what the kernel only guesses at where it has nothing better."""
        return self.stack or self.guessed

    @property
    def thread(self) -> int | None:
        """The thread that it is about, where it is named."""
        return self.args.get("pid")

    def add_entry(self, pfn: int, lo: int, hi: int) -> None:
        """An RMP entry of a dump: of the page itself, or of a neighbour."""
        entry = rmp_entry(hi, lo)
        owner = entry.owner
        if pfn == self.args.get("pfn"):
            self.words.setdefault("owner", entry.meaning().text)
            self.words.setdefault("entry", f"[{lo:#018x} - {hi:#018x}]")
        elif self.neighbours and (run := self.neighbours[-1]).owner == owner and run.end == pfn:
            run.end = pfn + 1
        elif len(self.neighbours) < NEIGHBOURS:
            self.neighbours.append(Neighbours(pfn, pfn + 1, owner))
        else:
            self.more += 1

    def add_action(self, action: str) -> None:
        """What the kernel did with one poisoned page of a run."""
        if action in self.actions or len(self.actions) < ACTIONS:
            self.actions[action] += 1

    # --- the event

    def event(self) -> e.Event:
        """What the report amounts to."""
        at: dict[str, Any] = {"t": self.t, "line": self.line}
        make = _EVENTS.get(self.kind, Report._warned)
        return make(self, at)

    def detail(self, **facts: Any) -> str | None:
        """Where and who, as far as the lines tell, and what the kind of report adds."""
        where, site = place(self.words.get("function"), self.frames), self.words.get("site")
        return detail(
            **{
                "at": self.words.get("at"),
                "host": self.words.get("host"),
                "comm": self.words.get("comm"),
                "site": site and normpath(site),
                "function": where,
                "path": entry_path(self.frames, where),
                "about": about(where, self.frames),
                "text": self.words.get("text"),
                "last": self.last if self.last > self.line else None,
                **facts,
            }
        )

    def _warned(self, at: dict[str, Any]) -> e.Event:
        what = self.words.get("what", _WHAT.get(self.kind, self.kind))
        numbers = {
            name: hex(value) for name, value in self.args.items() if name in ("address", "error_code", "exit_code", "pfn")
        }
        injected = self.words.get("cache")
        return e.KernelWarned(
            thread=self.thread, detail=self.detail(what=what, cache=injected, errors=self._errors(), **numbers), **at
        )

    def _errors(self) -> dict[str, str] | None:
        """Registers that hold an errno, by its name: an error pointer that was followed."""
        known = {name: found.name for name, value in self.errors.items() if (found := errno(value)) is not None}
        return known or None

    def _stuck(self, at: dict[str, Any]) -> e.Event:
        return e.TaskStuck(thread=self.thread or 0, detail=self.detail(seconds=self.args.get("seconds")), **at)

    def _faulted(self, at: dict[str, Any]) -> e.Event:
        """A page fault of the host: at a page that the RMP gives to somebody else, or at a bad address."""
        if not self.args.get("error_code", 0) & RMP_FAULT:
            return self._warned(at)
        pte = self.args.get("pte")
        pfn = self.args.get("pfn", None if pte is None else (pte & PTE_PFN) >> PAGE_SHIFT)
        return e.RmpViolation(
            pfn=pfn,
            detail=self.detail(
                what=KernelReportCode.HOST_PAGE_FAULT,
                thread=self.thread,
                address=_hex(self.args.get("address")),
                error_code=hex(self.args["error_code"]),
                **self._rmp(),
            ),
            **at,
        )

    def _rmp(self) -> dict[str, Any]:
        near = [[hex(run.start), hex(run.end), run.owner] for run in self.neighbours]
        region = None if "first" not in self.args else [hex(self.args["first"]), hex(self.args["end"])]
        return {
            "owner": self.words.get("owner"),
            "entry": self.words.get("entry"),
            "region": region,
            "near": near or None,
            "near_more": self.more or None,
        }

    def _protected(self, at: dict[str, Any]) -> e.Event:
        facts = self.detail(thread=self.thread, errors=self._errors())
        return e.GeneralProtection(address=self.args.get("address"), detail=facts, **at)

    def _aborted(self, at: dict[str, Any]) -> e.Event:
        """An abort of Arm's; a granule protection fault is there what an RMP violation is on AMD."""
        if "Granule Protection Fault" in self.words.get("text", ""):
            return e.RmpViolation(detail=self.detail(what=KernelReportCode.GRANULE_FAULT, thread=self.thread), **at)
        return self._warned(at)

    def _stack_alone(self, at: dict[str, Any]) -> e.Event:
        """A stack whose header is cut off: RMPUPDATE dumps one when it fails, all else may be anything."""
        if any(frame.startswith("rmpupdate") for frame in self.frames):
            return self._rmp_failed(at)
        return self._warned(at)

    def _rmp_failed(self, at: dict[str, Any]) -> e.Event:
        """RMPUPDATE failed. The stack, the caller's line or the entry gives the direction; else it is unknown."""
        to, basis = self._direction()
        code = self.args.get("ret")
        said = None if code is None else rmpupdate(code)
        level = self.args.get("level")
        facts = {
            "what": KernelReportCode.RMPUPDATE,
            "ret": code,
            "code": said.name if said else None,
            "level": level,
            "to": to,
            "basis": basis,
            "error": _errno(self.args.get("error")),
            "index": _hex(self.args.get("index")),
            **self._rmp(),
        }
        status = code if code is not None else abs(self.args["error"]) if "error" in self.args else None
        if "retry" in self.words:
            return e.KernelWarned(
                thread=self.thread, detail=self.detail(**facts, pfn=_hex(self.args.get("pfn")), outcome="tried again"), **at
            )
        facts["thread"] = self.thread
        if to == "private":
            gfn = self.args.get("gfn")
            npages = None if gfn is None else 512 if level == 2 else 1
            return e.PrivateMapFailed(
                pfn=self.args.get("pfn"), start=gfn, npages=npages, status=status, detail=self.detail(**facts), **at
            )
        if to == "shared":
            step = e.UnmapStep.PSMASH if self.words.get("step") == "PSMASH" else e.UnmapStep.RMPUPDATE
            return e.PrivateUnmapFailed(
                step=step,
                pfn=self.args.get("pfn"),
                start=self.args.get("gfn"),
                status=status,
                detail=self.detail(**facts),
                **at,
            )
        facts["thread"] = None
        return e.KernelWarned(thread=self.thread, detail=self.detail(**facts, pfn=_hex(self.args.get("pfn"))), **at)

    def _direction(self) -> tuple[str | None, str | None]:
        if "to" in self.words:
            return self.words["to"], None
        frames = " ".join(self.frames)
        if "rmp_make_private" in frames:
            return "private", None
        if "rmp_make_shared" in frames:
            return "shared", None
        # guest_memfd gives back only what the RMP says is assigned (sev_gmem_invalidate).
        return ("private", "implied") if "unassigned" in self.words else (None, None)

    def _poisoned(self, at: dict[str, Any]) -> e.Event:
        count = self.end - self.args["pfn"]
        actions = [action for action, _ in self.actions.most_common(4)]
        return e.Poisoned(
            pfn=self.args["pfn"],
            npages=count,
            detail=detail(
                action=actions[0] if len(actions) == 1 else None,
                actions=actions if len(actions) > 1 else None,
                text=self.words.get("text") if not actions else None,
                users=self.args.get("users"),
                punched=self.args.get("punched"),
                injected=self.words.get("injected"),
                at=self.words.get("at"),
                host=self.words.get("host"),
                lines=self.lines if self.lines > 1 else None,
                last=self.last if self.lines > 1 else None,
            ),
            **at,
        )


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _errno(value: int | None) -> str | None:
    found = None if value is None else errno(value)
    return None if found is None else found.name


_WHAT = {
    **dict.fromkeys(("warning", "warning_text"), KernelReportCode.WARNING),
    **dict.fromkeys(("fault", "fault_code"), KernelReportCode.PAGE_FAULT),
    **dict.fromkeys(("frame", "frames", "task", "place"), KernelReportCode.STACK),
    "abort": KernelReportCode.ABORT,
}

_EVENTS = {
    "stuck": Report._stuck,
    "fault": Report._faulted,
    "fault_code": Report._faulted,
    "protection": Report._protected,
    "abort": Report._aborted,
    "frame": Report._stack_alone,
    "task": Report._stack_alone,
    "rmpupdate": Report._rmp_failed,
    "rmp_refused": Report._rmp_failed,
    "rmp_kept": Report._rmp_failed,
    "bad_memory": Report._poisoned,
}
