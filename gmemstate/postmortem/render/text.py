"""A post-mortem as text for a terminal of 80 columns."""

import textwrap

from gmemstate.postmortem.incident import Incident, IncidentTable, PostMortem
from gmemstate.text import columns

WIDTH = 80
MARGIN = 8


def report(found: PostMortem) -> str:
    """All of a post-mortem: the incidents, then what was covered and what is missing."""
    parts = [render(incident, found.count) for incident in found.incidents]
    if found.silence is not None:
        parts.append(textwrap.fill(found.silence, WIDTH))
    return "\n\n".join([*parts, "\n".join(paragraph(one.word, one.text) for one in found.ends())])


def render(incident: Incident, count: int, width: int = WIDTH) -> str:
    """One incident of ``count``: blame first, evidence and what is missing last."""
    head = f"{incident.blame}: {incident.title.upper()}"
    right = f"incident {incident.number} of {count}"
    lines = [f"{head}{right:>{max(len(right) + 2, width - len(head))}}"]
    lines += textwrap.wrap(incident.who, width)
    lines += textwrap.wrap(incident.summary, width)
    if incident.timeline:
        lines += ["", *_timeline(incident.rows(), width)]
    if incident.table is not None:
        lines += ["", *_table(incident.table, width)]
    margin = incident.margin()
    lines += [""] if margin else []
    return "\n".join([*lines, *(paragraph(one.word, one.text, width) for one in margin)])


def paragraph(word: str, text: str, width: int = WIDTH) -> str:
    """A word in the margin and a text next to it."""
    indent = " " * MARGIN
    return textwrap.fill(text, width, initial_indent=word.ljust(MARGIN), subsequent_indent=indent, break_on_hyphens=False)


def _timeline(rows: list[tuple[str, str, str, str, str]], width: int) -> list[str]:
    """Rows in columns; a text that leaves no room for what follows it breaks its row only."""
    words, times, _, results, notes = (max(map(len, column)) for column in zip(*rows, strict=True))
    margin = len("  ") + (words + 1 if words else 0) + times + len("  ")
    room = width - margin - len("  ") - results - len("  ") - notes
    texts = max((len(text) for _, _, text, _, _ in rows if len(text) <= room), default=0)
    lines = []
    for word, when, text, result, note in rows:
        start = f"  {word:{words}} {when:>{times}}  " if words else f"  {when:>{times}}  "
        line = f"{start}{text:{texts}}  {result:{results}}  {note}".rstrip()
        lines += textwrap.wrap(line, width, subsequent_indent=" " * len(start), break_on_hyphens=False)
    return lines


def _table(table: IncidentTable, width: int) -> list[str]:
    """Rows with two blanks between the columns, or one where they would not fit."""
    lines = list(columns([table.header, *table.rows]))
    fits = max(map(len, lines)) + 2 <= width
    return ["  " + line for line in (lines if fits else columns([table.header, *table.rows], " "))]
