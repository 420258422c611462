"""A report of the kernel while its lines are read: header, task, stacks, locks, registers; and a run of poisoned pages.

One report is one thing, however many stacks and headers are in it: the stack of its task is its own; those of other CPUs, of
who allocated and freed, and of the chain of locks are kept apart.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

from gmemstate.decode import rmp_entry
from gmemstate.ingest.fact import Fact
from gmemstate.model.reports import KernelReportCode
from gmemstate.text import printable

STACK = 64
"""How many frames of a stack are kept."""
NEIGHBOURS = 16
"""How many runs of equal RMP entries are kept of a dump."""
ACTIONS = 16
"""How many different actions are kept of a run of poisoned pages."""
LOCKS = 8
"""How many locks are kept of a report."""
APART = 40
"""How many lines of others may stand between two of a report."""
CLOSE = 12
"""How many lines may stand between a report that has ended and the panic that follows from it."""
TEXT = 300
ERRNOS = (1 << 64) - 4096
"""Words from here on are error pointers."""
WHAT = {
    "warning_text": KernelReportCode.WARNING,
    "fault_code": KernelReportCode.PAGE_FAULT,
    "machine_check": KernelReportCode.MACHINE_CHECK,
    "rmpupdate": KernelReportCode.RMPUPDATE,
    "rmp_refused": KernelReportCode.RMPUPDATE,
    "rmp_kept": KernelReportCode.RMPUPDATE,
}
"""What a report is that another line than a header has begun; else it is a stack."""
OWN, INTERRUPT = "main", "cpu"


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
class StackFrame:
    """A function of a stack, and the module that it is in."""

    function: str
    module: str | None = None
    inlined: bool = False
    """into the one below it, which is where the code is"""


@dataclass(slots=True)
class Report:
    """What lines have said so far. ``begun`` is the name of the fact that began it, ``what`` its kind."""

    begun: str
    what: str
    line: int
    t: int | None
    args: dict[str, int]
    words: dict[str, str]
    last: int = 0
    cut: bool = False
    """lines of it are missing"""
    closed: bool = False
    """the line that ends it was read"""
    section: str = OWN
    """whose stack the frames are that follow"""
    sections: dict[str, list[StackFrame]] = field(default_factory=dict)
    guessed: list[StackFrame] = field(default_factory=list)
    """frames that the kernel is not sure of"""
    locks: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    """functions that have taken locks of the task's own, and have not returned"""
    errors: dict[str, int] = field(default_factory=dict)
    """registers that hold an errno"""
    user: bool = False
    """the registers that follow are those of a program"""
    call: dict[str, int] = field(default_factory=dict)
    """registers of its system call"""
    neighbours: list[Neighbours] = field(default_factory=list)
    more: int = 0
    """neighbours beyond those that are kept"""

    JOINS: ClassVar[dict[str, tuple[str, ...]]] = {
        "trap": (
            "page fault",
            "general protection",
            "BUG",
            "abort",
            "list corruption",
            "slab corruption",
            "double fault",
            "KASAN",
        ),
        "place": ("list corruption", "refcount", "slab corruption", "bad page", "hard lockup"),
    }
    """By the role of a header: the kinds of open reports that it completes."""

    @classmethod
    def of(cls, fact: Fact) -> "Report":
        """The report that a fact begins."""
        words = {name: shown(word) for name, word in fact.words.items()}
        what = words.pop("what", None) if fact.name == "report" else None
        return cls(
            fact.name, what or WHAT.get(fact.name, KernelReportCode.STACK), fact.line, fact.t, dict(fact.args), words, fact.line
        )

    def add(self, fact: Fact) -> bool:
        """Take one more line in; what is known already stays."""
        self.args = {**fact.args, **self.args}
        self.words = {**{name: shown(word) for name, word in fact.words.items()}, **self.words}
        return self.go_on(fact)

    def go_on(self, fact: Fact) -> bool:
        """Note that a line belongs to it."""
        self.last = fact.line
        return True

    def near(self, fact: Fact) -> bool:
        """Whether a line may still belong to it."""
        return not self.closed and fact.line - self.last <= APART

    def ends_before(self, fact: Fact) -> bool:
        """Whether it has ended, so recently that what follows from it may still come."""
        return self.closed and fact.line - self.last <= CLOSE

    # --- headers

    def takes(self, fact: Fact) -> bool:
        """Whether a header belongs to this report: it completes it, repeats it, or follows from it."""
        role, what = fact.words.get("role", ""), fact.words.get("what")
        if role == "consequence":
            return "panic" not in self.words and fact.line - self.last <= CLOSE and self.begun != "rmpupdate"
        if not self.near(fact):
            return False
        if self.begun == "warning_text":
            return True  # the header that its text stands before
        if role == "again":
            return self.what == what and not self.sections and fact.line - self.last <= 2
        if role == "trap":
            return self.what in self.JOINS["trap"] and "oops" not in self.args
        return role == "place" and self.what in self.JOINS["place"] and "site" not in self.words

    def join(self, fact: Fact) -> bool:
        """Take in a header that belongs to it."""
        words = {name: word for name, word in fact.words.items() if name not in ("what", "role")}
        if fact.words.get("role") == "consequence":
            self.words["panic"] = shown(fact.words["text"])
            self.section = INTERRUPT
            return self.go_on(fact)
        if self.begun == "warning_text":
            self.begun, self.what = fact.name, fact.words["what"]
        if fact.words.get("role") == "again":
            self.add_frames([self.words.pop("function", "")], inlined=True)
        elif fact.words.get("role") == "trap":
            words.pop("rule", None)
        return self.add(fact._replace(words=words))

    # --- parts

    def enter(self, fact: Fact) -> bool:
        """A stack begins: whose it is."""
        section = fact.words["section"]
        if section in (OWN, "cpu", "task"):
            section = OWN if OWN not in self.sections and "panic" not in self.words else "other"
        elif section == "end":
            section = "after" if OWN in self.sections else OWN
        self.section = section
        if "by" in fact.args and f"{section}_by" not in self.args:
            self.args[f"{section}_by"] = fact.args["by"]
        if section == OWN and "cpu" in fact.args:
            self.args.setdefault("cpu", fact.args["cpu"])
        return self.go_on(fact)

    def add_frames(self, names: list[str], module: str | None = None, *, sure: bool = True, inlined: bool = False) -> None:
        """Frames of the stack at hand, innermost first."""
        frames = self.sections.setdefault(self.section, []) if sure else self.guessed
        if sure or self.section == OWN:
            known = [name for name in names if name.replace(".", "_").isidentifier()]
            frames += [StackFrame(name, module, inlined) for name in known[: STACK - len(frames)]]

    def add_place(self, fact: Fact) -> bool:
        """The place of an instruction pointer: of the report before its stack, of what was interrupted inside of one."""
        if self.section != OWN:
            return self.go_on(fact)
        if not all(frame.inlined for frame in self.sections.get(OWN, ())):
            self.add_frames([fact.words["function"]], fact.words.get("module"))
            return self.go_on(fact)
        self.words.setdefault("rip", shown(fact.words["function"]))
        if module := fact.words.get("module", fact.words.get("mod")):
            self.words.setdefault("rip_module", module)
        return self.go_on(fact)

    def add_lock(self, fact: Fact) -> bool:
        """A lock that is held or wanted, and the function that takes it; the first one is what lockdep is about."""
        lock = f"{shown(fact.words['lock']).strip('()')} at {fact.words['function']}"
        if lock not in self.locks and len(self.locks) < LOCKS:
            self.locks.append(lock)
        self.words.setdefault("lock_at", fact.words["function"])
        if self.section != "other":
            self.held.append(fact.words["function"])
        return self.go_on(fact)

    def add_registers(self, fact: Fact) -> bool:
        """Registers that hold an errno tell of an error pointer; those of a program, which call it made."""
        if self.user:
            self.call |= {
                name: value for name, value in fact.args.items() if name in ("RSI", "ORIG_RAX") and name not in self.call
            }
        elif self.what in ("page fault", "general protection", "abort"):
            self.errors |= {name: value - (1 << 64) for name, value in fact.args.items() if value >= ERRNOS}
        return self.go_on(fact)

    @property
    def own(self) -> list[StackFrame]:
        """Its own stack, innermost first; what the kernel only guesses at where it has nothing better."""
        return self.sections.get(OWN) or self.guessed

    @property
    def frames(self) -> list[str]:
        """The functions of its own stack, innermost first."""
        return [frame.function for frame in self.own]

    def outlined(self, section: str = OWN) -> list[str]:
        """The functions of a stack, innermost first, those that are inlined into others last."""
        frames = self.own if section == OWN else self.sections.get(section, [])
        return [frame.function for frame in sorted(frames, key=lambda frame: frame.inlined)]

    @property
    def thread(self) -> int | None:
        """The thread that it is about, where it is named."""
        return self.args.get("pid")

    # --- RMP

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


@dataclass(slots=True)
class PoisonRun:
    """Lines about poisoned pages that follow one another, as leaked SNP pages once were reported."""

    line: int
    t: int | None
    args: dict[str, int]
    words: dict[str, str]
    last: int
    end: int
    """the page after it"""
    lines: int = 1
    actions: Counter[str] = field(default_factory=Counter)
    """what the kernel says that it did"""

    @classmethod
    def of(cls, fact: Fact) -> "PoisonRun":
        """The run that a fact begins."""
        words = {name: shown(word) for name, word in fact.words.items()}
        return cls(fact.line, fact.t, dict(fact.args), words, fact.line, fact.args["pfn"])

    def near(self, fact: Fact) -> bool:
        """Whether a line may still belong to it."""
        return fact.line - self.last <= APART

    def add(self, fact: Fact) -> None:
        """Take one more line in; what is known already stays."""
        self.args = {**fact.args, **self.args}
        self.words = {**{name: shown(word) for name, word in fact.words.items()}, **self.words}
        self.last = fact.line
        self.lines += 1

    def add_action(self, action: str) -> None:
        """What the kernel did with one page of it."""
        if action in self.actions or len(self.actions) < ACTIONS:
            self.actions[action] += 1
