"""Post-mortems of captures without a store, and ways to read them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from gmemstate.model.events import SEQ, EventRow
from gmemstate.model.memory import Memory
from gmemstate.model.record import Head, LoadedSnapshot
from gmemstate.postmortem.incident import Incident, PostMortem
from gmemstate.postmortem.report import post_mortem
from tests.traces import Read, read_case


@dataclass
class Rows:
    """A record in memory, as far as telling needs one."""

    rows: list[EventRow]

    def events(self, first: int = 1, last: int | None = None) -> Iterator[EventRow]:
        return (row for row in self.rows if first <= row[SEQ] and (last is None or row[SEQ] <= last))

    def head(self) -> Head:
        return Head(len(self.rows), b"")

    def remembered(self, last: int | None = None, *, time: int | None = None) -> LoadedSnapshot:
        return LoadedSnapshot(Memory(), [])


def post_mortem_of(read: Read) -> PostMortem:
    """The post-mortem of what was read."""
    return post_mortem(Rows(read.rows), read.history)


@cache
def of_case(case: str) -> PostMortem:
    """The post-mortem of a capture."""
    return post_mortem_of(read_case(case))


def only(case: str) -> Incident:
    """The incident of a capture with one."""
    (incident,) = of_case(case).incidents
    return incident


def titled(case: str, title: str) -> Incident:
    """The incident of a capture with a title, of which there is one."""
    (incident,) = (incident for incident in of_case(case).incidents if incident.title == title)
    return incident


def about(incident: Incident, word: str) -> str:
    """What stands next to a word in the margin."""
    return " ".join(section.text for section in incident.margin() if section.word == word)


def rows(incident: Incident) -> list[tuple[str, ...]]:
    """The timeline, without the words before the times."""
    return [row[1:] for row in incident.rows()]
