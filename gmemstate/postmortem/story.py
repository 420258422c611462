"""A story: one incident in words, whoever reads it where."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Table:
    """Rows under a header; cells are text."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(slots=True)
class Story:
    """What an expert would want to read first, in the order in which it is read."""

    blame: str
    """the class that is to blame: kernel or module, host platform, VMM, guest, memory shortage, unknown, nobody"""
    title: str
    who: str
    summary: str
    timeline: list[tuple[str, ...]] = field(default_factory=list)
    """rows of: what, when, text, result"""
    table: Table | None = None
    paragraphs: list[tuple[str, str]] = field(default_factory=list)
    """a word for the margin, and the text"""
    evidence: str = ""
    missing: list[str] = field(default_factory=list)
    """what would complete it, with the way to get it"""
    complete: bool = True

    def add(self, word: str, text: str | None) -> None:
        """Add a paragraph, if there is something to say."""
        if text:
            self.paragraphs.append((word, text))
