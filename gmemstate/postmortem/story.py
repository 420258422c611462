"""A story: one incident in words, whoever reads it where; and the report that they stand in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

SHOWN = 8
Blame = Literal["kernel or module", "host platform", "VMM", "guest", "memory shortage", "unknown", "nobody"]
"""Whose fault an incident can be."""


class Evidence(NamedTuple):
    """Lines of a source that show something: ``first`` to ``last``, both included."""

    file: str
    label: str
    """the tail of its name that tells it from other sources"""
    first: int
    last: int


class Covered(NamedTuple):
    """What was looked at of one source."""

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
    """it says of itself nothing else than that all of it is there"""

    def __str__(self) -> str:
        if self.lines is None:
            return f"{self.label}: its reading has not come to an end"
        entries = f"{self.entries} entries in " if self.entries else ""
        size = f"at least {self.lost} events lost" if self.lost else "how much is lost is not known"
        gaps = f"{self.gaps} gap{'s' * (self.gaps != 1)}, {size}" if self.gaps else "none lost" if self.whole else "not whole"
        parts = f"{self.used} used, {self.context} context, {self.unparsed} not understood"
        return f"{self.label}: {entries}{self.lines} lines ({parts}), {gaps}"


@dataclass(slots=True)
class Table:
    """Rows under a header; cells are text."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(slots=True)
class Story:
    """What an expert would want to read first, in the order in which it is read."""

    blame: Blame
    title: str
    who: str
    summary: str
    timeline: list[tuple[str, ...]] = field(default_factory=list)
    """rows of: what, when, text, result, note"""
    table: Table | None = None
    paragraphs: list[tuple[str, str]] = field(default_factory=list)
    """a word for the margin, and the text"""
    evidence: list[Evidence] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """what would complete it, with the way to get it"""
    complete: bool = True

    def add(self, word: str, text: str | None) -> None:
        """Add a paragraph, if there is something to say."""
        if text:
            self.paragraphs.append((word, text))

    def margin(self) -> list[tuple[str, str]]:
        """All paragraphs: what is to say, the lines that show it, and what is missing."""
        lines = [("Lines", cited(self.evidence))] if self.evidence else []
        return [*self.paragraphs, *lines, *(("Missing", missing) for missing in dict.fromkeys(self.missing))]


def cited(evidence: Sequence[Evidence]) -> str:
    """Where to look: ``ftrace.txt:642-777, 780-783``."""
    by_file: dict[str, list[str]] = {}
    for _, label, first, last in evidence:
        by_file.setdefault(label, []).append(str(first) if first == last else f"{first}-{last}")
    parts = []
    for label, places in by_file.items():
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        parts.append(f"{label}:{', '.join(places[:SHOWN])}{more}")
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Report:
    """Some or all stories of a record, with what was covered and what is missing from all of it."""

    stories: list[tuple[int, Story]]
    """each with its number"""
    count: int
    """how many there are in all"""
    covered: list[Covered]
    missing: list[str]

    @property
    def complete(self) -> bool:
        """Whether no evidence is missing that touches a story."""
        return not self.missing and all(story.complete for _, story in self.stories)

    def ends(self) -> list[tuple[str, str]]:
        """The last words: what was covered, what is missing."""
        covered = [str(source) for source in self.covered] or ["nothing: the ledger has no source"]
        return [*(("Covered", text) for text in covered), *(("Missing", reason) for reason in self.missing)]

    @property
    def silence(self) -> str | None:
        """What to say if there is nothing to tell."""
        return None if self.stories else "No conversion failed in what was recorded."
