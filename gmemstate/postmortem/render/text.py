"""Stories as text for a terminal of 80 columns."""

import textwrap

from gmemstate.postmortem.story import Report, Story, Table
from gmemstate.text import columns

WIDTH = 80
MARGIN = 8


def report(returned: Report) -> str:
    """All of a report: the stories, then what was covered and what is missing."""
    parts = [render(story, number, returned.count) for number, story in returned.stories]
    if returned.silence is not None:
        parts.append(returned.silence)
    return "\n\n".join([*parts, "\n".join(paragraph(word, text) for word, text in returned.ends())])


def render(story: Story, number: int, count: int, width: int = WIDTH) -> str:
    """One story: blame class first, evidence and what is missing last."""
    head = f"{story.blame}: {story.title.upper()}"
    right = f"incident {number} of {count}"
    lines = [f"{head}{right:>{max(len(right) + 2, width - len(head))}}"]
    lines += textwrap.wrap(story.who, width)
    lines += textwrap.wrap(story.summary, width)
    if story.timeline:
        lines += ["", *_timeline(story.timeline, width)]
    if story.table is not None:
        lines += ["", *_table(story.table, width)]
    words = story.margin()
    lines += [""] if words else []
    return "\n".join([*lines, *(paragraph(word, text, width) for word, text in words)])


def paragraph(word: str, text: str, width: int = WIDTH) -> str:
    """A word in the margin and a text beside it."""
    indent = " " * MARGIN
    return textwrap.fill(text, width, initial_indent=word.ljust(MARGIN), subsequent_indent=indent, break_on_hyphens=False)


def _timeline(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """Rows in columns; a text that leaves no room for what follows it breaks its row only."""
    words, times, _, returned, notes = (max(map(len, column)) for column in zip(*rows, strict=True))
    margin = len("  ") + (words + 1 if words else 0) + times + len("  ")
    room = width - margin - len("  ") - returned - len("  ") - notes
    texts = max((len(row[2]) for row in rows if len(row[2]) <= room), default=0)
    lines = []
    for word, when, text, result, note in rows:
        start = f"  {word:{words}} {when:>{times}}  " if words else f"  {when:>{times}}  "
        line = f"{start}{text:{texts}}  {result:{returned}}  {note}".rstrip()
        lines += textwrap.wrap(line, width, subsequent_indent=" " * len(start), break_on_hyphens=False)
    return lines


def _table(table: Table, width: int) -> list[str]:
    """Rows with two blanks between the columns, or one where they would not fit."""
    lines = list(columns([table.header, *table.rows]))
    fits = max(map(len, lines)) + 2 <= width
    return ["  " + line for line in (lines if fits else columns([table.header, *table.rows], " "))]
