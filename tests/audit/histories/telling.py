"""How stories about invariants are told: for each one that breaks it, and one that nearly does.

A story that breaks something returns the seq of the event that shows it.
"""

from collections.abc import Callable
from typing import NamedTuple

from gmemstate.model.events import Dialect
from tests.audit.story import Story

EACCES, EHWPOISON = 13, 133
PIN = 1024
MAINLINE, RFC_V2, INPLACE, CHECK_FIRST = Dialect.MAINLINE, Dialect.RFC_V2, Dialect.INPLACE, Dialect.CHECK_FIRST


class Tale(NamedTuple):
    """A story about one invariant."""

    invariant: str
    breaks: bool
    name: str
    dialect: Dialect
    format: str
    tell: Callable[[Story], int | None]
    also: tuple[str, ...] = ()
    """other invariants that it breaks as well"""

    def returned(self) -> tuple[Story, int | None]:
        """The story, and the seq of the event that shows what is wrong."""
        story = Story(self.dialect, self.format)
        return story, self.tell(story)


TALES: list[Tale] = []
Teller = Callable[[Story], int | None]


def breaks(invariant: str, dialect: Dialect, format: str = "ftrace", also: tuple[str, ...] = ()) -> Callable[[Teller], Teller]:
    def register(tell: Teller) -> Teller:
        TALES.append(Tale(invariant, True, tell.__name__, dialect, format, tell, also))
        return tell

    return register


def holds(invariant: str, dialect: Dialect, format: str = "ftrace") -> Callable[[Teller], Teller]:
    def register(tell: Teller) -> Teller:
        TALES.append(Tale(invariant, False, tell.__name__, dialect, format, tell))
        return tell

    return register
