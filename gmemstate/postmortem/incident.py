"""Incidents as data, and the post-mortem that they stand in: what the library returns, and what text, page and JSON show."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from gmemstate.model.document import Answer, Document
from gmemstate.model.units import END, Gfn, Ns, ns, seconds
from gmemstate.model.verdict import Basis
from gmemstate.text import count as counted

SHOWN = 8
"""How many places of one source are listed."""
NEXT_STEPS = frozenset(("Do", "Do now", "Fix"))
"""The words of sections that say what to do."""


class IncidentKind(StrEnum):
    """What an incident is about."""

    PARTLY_APPLIED = "partly applied"
    SUCCESS_NOT_APPLIED = "returned success, not applied"
    SHORT_SUCCESS = "ioctl returned success, partly applied"
    REQUEST_REFUSED = "request refused"
    REFUSED_THEN_APPLIED = "not applied, then applied"
    NOT_APPLIED = "not applied"
    REJECTED = "refused by the argument checks"
    PRIVATE_WITHOUT_MEMORY = "private without memory"
    POISON = "memory error"
    LOST_RACE = "a fault lost a race"
    STOPPED = "guest stopped at a page"
    KILLED = "killed inside a conversion"
    OUT_OF_MEMORY = "VMM killed for want of memory"
    RESULT_UNKNOWN = "result not seen"
    SLOT_SWAP = "private memory replaced"
    HOST_PAGE_SUSPECT = "host page suspect"
    PAGE_REUSED = "bad page given away"
    UNEXPECTED_EVENT = "impossible history"
    SOURCES_DISAGREE = "sources disagree"
    VM_DEAD = "VM dead"
    HOST_FAULT = "host accessed a guest's page"
    VMM_REPORT = "VMM reports a failure"
    KERNEL_REPORT = "kernel reports a failure"
    OTHER_REPORT = "other report of the kernel"
    NOT_UNDERSTOOD = "failure in a line that is not understood"


class Blame(StrEnum):
    """Whose fault an incident can be."""

    KERNEL = "kernel or module"
    HOST = "host platform"
    VMM = "VMM"
    GUEST = "guest"
    MEMORY = "memory shortage"
    UNKNOWN = "unknown"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, order=True)
class Evidence(Document):
    """Lines of a source that show something: ``first`` to ``last``, both included."""

    file: str
    label: str
    """the tail of its name that tells it from other sources"""
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class TimelineRow(Document):
    """One step of an incident: ``t`` in ns of its source's clock, ``result`` an errno's name, "ok" or empty."""

    what: str
    t: Ns | None
    text: str
    result: str = ""
    note: str = ""
    logged: str = ""
    """the time as a log prints it, where its clock does not count seconds"""

    @property
    def when(self) -> str:
        """The time in seconds, or as the log prints it; "?" where none is known."""
        return self.logged if self.t is None and self.logged else seconds(self.t)


def step(what: str, t: int | None, text: str, result: str = "", note: str = "", logged: str = "") -> TimelineRow:
    """A row of a timeline; ``t`` in ns."""
    return TimelineRow(what, ns(t), text, result, note, logged)


@dataclass(frozen=True, slots=True)
class Section(Document):
    """A word for the margin (Why, Left, Host, Do ...) and a text."""

    word: str
    text: str


@dataclass(frozen=True, slots=True)
class GfnRange(Document):
    """Gfns ``[start, end)``; ``end`` is None where the range goes to the end of the guest's memory."""

    start: Gfn
    end: Gfn | None


@dataclass(frozen=True, slots=True)
class IncidentTable(Document):
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class KnownProblem(Document):
    """A known problem that fits an incident: ``missing`` is the evidence without which it is only likely."""

    name: str
    title: str
    fits: str
    evidence: tuple[Evidence, ...]
    missing: tuple[str, ...]
    means: str
    remedy: str
    seen_in: str
    fixed_in: str

    def __str__(self) -> str:
        lines = cited(self.evidence)
        return (
            f"{'likely' if self.missing else 'known'}: {self.title}. Fits: {self.fits}{f' ({lines})' if lines else ''}."
            + "".join(f" Missing: {one}." for one in self.missing)
            + f" {self.means}. {self.remedy}. Seen in: {self.seen_in}."
            + (f" Fixed in: {self.fixed_in}." if self.fixed_in else "")
        )


@dataclass(slots=True)
class Story:
    """What is said of an incident, while it is put together, in the order in which it is read."""

    blame: Blame
    title: str
    who: str
    summary: str
    timeline: Sequence[TimelineRow] = ()
    table: IncidentTable | None = None
    sections: list[Section] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    complete: bool = True
    limit: int = 12
    """how many rows of the timeline are kept"""

    def add(self, word: str, text: str | None) -> None:
        """Add a section, if there is something to say."""
        if text:
            self.sections.append(Section(word, text))


class Relation(StrEnum):
    """What a part of an incident is to the rest of it."""

    CAUSE = "cause"
    CONSEQUENCE = "consequence"


@dataclass(frozen=True, slots=True)
class IncidentPart(Document):
    """Something that was reported apart and belongs to an incident, with what ties it."""

    kind: IncidentKind
    relation: Relation
    title: str
    summary: str
    why: str
    basis: Basis
    evidence: tuple[Evidence, ...]

    def __str__(self) -> str:
        return f"{self.title}: {self.summary} [{self.basis}: {self.why}] ({cited(self.evidence)})"


@dataclass(frozen=True, slots=True)
class Incident(Document):
    """One thing that went wrong, perhaps several times."""

    number: int
    """from 1 on, in the order in which the incidents of a record began"""
    kind: IncidentKind
    blame: Blame
    title: str
    guest: str | None
    """the name of the guest; None where it is not known, or where the incident is about no guest"""
    who: str
    """the guest with its process and pointer, or what else is known of who it was"""
    ranges: tuple[GfnRange, ...]
    """the guest's pages that it is about, as far as their gfns are known"""
    seq: int
    """the first event"""
    t: Ns | None
    """the first time of it that is known, in ns of its source's clock"""
    summary: str
    timeline: tuple[TimelineRow, ...]
    omitted: int
    """how many rows of the timeline were left out at its end"""
    table: IncidentTable | None
    sections: tuple[Section, ...]
    parts: tuple[IncidentPart, ...]
    """what caused it and what came of it, where that is on record as well"""
    known_problems: tuple[KnownProblem, ...]
    next_steps: tuple[str, ...]
    """what to do now, and what to mend; these are sections, too"""
    evidence: tuple[Evidence, ...]
    missing: tuple[str, ...]
    """what would complete it, with the way to get it"""
    complete: bool

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """The timeline as text: what, when, text, result, note; without times where none of them is known."""
        timed = any(row.when != "?" for row in self.timeline)
        shown = [(row.what, row.when if timed else "", row.text, row.result, row.note) for row in self.timeline]
        return [*shown, ("", "", f"... and {self.omitted} more", "", "")] if self.omitted else shown

    def margin(self) -> list[Section]:
        """All that has a word in the margin: sections, known problems, the lines that show it, and what is missing."""
        matches = [Section("Match", str(problem)) for problem in self.known_problems]
        lines = [Section("Lines", cited(self.evidence))] if self.evidence else []
        parts = [Section("Cause" if part.relation is Relation.CAUSE else "So", str(part)) for part in self.parts]
        return [*parts, *self.sections, *matches, *lines, *(Section("Missing", missing) for missing in self.missing)]


def cited(evidence: Sequence[Evidence]) -> str:
    """Where to look: ``ftrace.txt:642-777, 780-783``."""
    by_file: dict[str, list[str]] = {}
    for one in evidence:
        by_file.setdefault(one.label, []).append(str(one.first) if one.first == one.last else f"{one.first}-{one.last}")
    parts = []
    for label, places in by_file.items():
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        parts.append(f"{label}:{', '.join(places[:SHOWN])}{more}")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Covered(Document):
    """What was read of one source."""

    file: str
    label: str
    entries: int | None
    """how many entries the trace holds, where it is one that counts them"""
    lines: int | None
    """None if its reading has not come to an end"""
    used: int
    context: int
    unparsed: int
    gaps: int
    lost: int
    """at least so many events are missing"""
    whole: bool
    """whether the source itself says that all of it is there"""

    def __str__(self) -> str:
        if self.lines is None:
            return f"{self.label}: its reading has not come to an end"
        entries = f"{self.entries} entries in " if self.entries else ""
        size = f"at least {self.lost} events lost" if self.lost else "how much is lost is not known"
        gaps = f"{counted(self.gaps, 'gap')}, {size}" if self.gaps else "none lost" if self.whole else "not whole"
        parts = f"{self.used} used, {self.context} context, {self.unparsed} not understood"
        return f"{self.label}: {entries}{self.lines} lines ({parts}), {gaps}"


@dataclass(frozen=True, slots=True)
class PostMortem(Answer):
    """Some or all incidents of a record, with what was covered and what is missing from all of it."""

    incidents: tuple[Incident, ...]
    count: int
    """how many there are in all"""
    covered: tuple[Covered, ...]
    missing: tuple[str, ...]
    silence: str | None = None
    """what is said where there is no incident"""

    written: ClassVar = ("incidents", "count", "covered", "missing", "complete")

    @property
    def complete(self) -> bool:
        """Whether no evidence is missing: none that an incident depends on, nor any that nothing else has failed."""
        return not self.missing and all(incident.complete for incident in self.incidents)

    def ends(self) -> list[Section]:
        """The last words: what was covered, what is missing."""
        covered = [str(source) for source in self.covered] or ["nothing: the ledger has no source"]
        return [*(Section("Covered", text) for text in covered), *(Section("Missing", reason) for reason in self.missing)]


def merged(ranges: list[tuple[int, int]]) -> tuple[GfnRange, ...]:
    """Ranges of gfns in order, those that overlap or adjoin as one."""
    found: list[list[int]] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        elif start < end:
            found.append([start, end])
    return tuple(GfnRange(Gfn(start), None if end >= END else Gfn(end)) for start, end in found)
