"""Stories of captures, told without a store, and ways to look into them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from gmemstate.model.events import SEQ, EventRow
from gmemstate.model.memory import Memory
from gmemstate.model.record import Head, LoadedSnapshot
from gmemstate.postmortem import report as stories
from gmemstate.postmortem.story import Report, Story
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


def tell(read: Read) -> Report:
    """All stories of what was read."""
    told = stories.tell(Rows(read.rows), read.history)
    return stories.report(read.history, list(enumerate(told, 1)), len(told))


@cache
def told(case: str) -> Report:
    """All stories of a capture."""
    return tell(read_case(case))


def only(case: str) -> Story:
    """The story of a capture with one incident."""
    ((_, story),) = told(case).stories
    return story


def titled(case: str, title: str) -> Story:
    """The story with a title, of which there is one."""
    (story,) = (story for _, story in told(case).stories if story.title == title)
    return story


def about(story: Story, word: str) -> str:
    """What stands beside a word in the margin."""
    return " ".join(text for margin, text in story.margin() if margin == word)


def rows(story: Story) -> list[tuple[str, ...]]:
    """The timeline, without the words before the times."""
    return [row[1:] for row in story.timeline]
