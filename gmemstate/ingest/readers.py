"""Which reader understands a line: several formats may stand in one input, in any order."""

from collections import Counter
from typing import Protocol

from gmemstate.ingest.facts import Context, Fact, Marker
from gmemstate.ingest.ftrace import FtraceReader

Parsed = Fact | Marker | Context | None
"""What a reader makes of a line: a fact, something about the log itself, context, or None where it does not know it."""


class Reader(Protocol):
    """Reads one format line by line. It must know a line by its text alone: what follows may be of another format."""

    format: str
    """how people call the format"""

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says; None if it is not of this format."""


def readers() -> list[Reader]:
    """A fresh reader of each format; the more a format demands of a line, the earlier it is asked."""
    return [FtraceReader()]


class Chooser:
    """Gives each line to the reader that understood the line before, then to the others."""

    def __init__(self) -> None:
        self._readers = readers()

    @property
    def entries(self) -> int:
        """The entries of trace buffers that were met."""
        return sum(reader.entries for reader in self._readers if isinstance(reader, FtraceReader))

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says to the first reader that understands it."""
        for place, reader in enumerate(self._readers):
            said = reader.parse(number, text)
            if said is not None:
                if place:
                    self._readers.insert(0, self._readers.pop(place))
                return said
        return None


def formats(lines: list[str]) -> str:
    """The names of the formats that understand something in lines, the most frequent one first."""
    found: Counter[str] = Counter()
    for reader in readers():
        found[reader.format] = sum(isinstance(reader.parse(n, text), Fact) for n, text in enumerate(lines, 1))
    return ", ".join(name for name, count in found.most_common() if count) or "unknown"
