"""What lines of a log say: the events that they amount to, and what became of each line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from gmemstate.ingest.input import Account
from gmemstate.model.events import Event, SourceOpened, SourceRead, SourceShows, event_of
from tests.traces import Read, read_lines

ABOUT_THE_SOURCE = (SourceOpened, SourceRead, SourceShows)


class ParsedMessage(NamedTuple):
    """What a log says."""

    events: list[Event]
    """those that are not about the log itself"""
    account: Account
    whole: Read


def said(lines: str | Iterable[str], folder: Path) -> ParsedMessage:
    """Read lines as a file of their own."""
    listed = lines.strip("\n").split("\n") if isinstance(lines, str) else list(lines)
    read = read_lines([line.encode("utf-8", "surrogateescape") for line in listed], folder)
    return ParsedMessage(events_of(read), read.account, read)


def events_of(read: Read) -> list[Event]:
    return [event for row in read.rows if not isinstance(event := event_of(row), ABOUT_THE_SOURCE)]


def opened(read: Read) -> dict[str, Any]:
    """What the source is said to be."""
    event = event_of(read.rows[0])
    assert isinstance(event, SourceOpened)
    return details(event)


def details(event: Event) -> dict[str, Any]:
    """The facts of an event that have no column."""
    return json.loads(event.detail) if event.detail else {}


def shows(event: Event, **expected: Any) -> bool:
    """Whether an event has these values, as fields or in its detail."""
    beside = details(event)
    return all(getattr(event, name, beside.get(name)) == value or beside.get(name) == value for name, value in expected.items())
