"""Stories as text for a terminal of 80 columns."""

import textwrap

from gmemstate.postmortem.story import Story, Table

WIDTH = 80
MARGIN = 8


def render(story: Story, number: int, count: int, *, width: int = WIDTH) -> str:
    """One story: blame class first, evidence and what is missing last."""
    head = f"{story.blame}: {story.title.upper()}"
    right = f"incident {number} of {count}"
    lines = [f"{head}{right:>{max(len(right) + 2, width - len(head))}}", f"{story.who}"]
    lines += textwrap.wrap(story.summary, width)
    if story.timeline:
        lines += ["", *_timeline(story.timeline, width)]
    if story.table is not None:
        lines += ["", *_table(story.table)]
    if story.paragraphs:
        lines.append("")
    for word, text in story.paragraphs:
        lines += _paragraph(word, text, width)
    if story.evidence or story.missing:
        lines += [""] if not story.paragraphs else []
    if story.evidence:
        lines += _paragraph("Lines", story.evidence, width)
    for missing in dict.fromkeys(story.missing):
        lines += _paragraph("Missing", missing, width)
    return "\n".join(lines)


def paragraph(word: str, text: str, width: int = WIDTH) -> str:
    """A word in the margin and a text beside it."""
    return "\n".join(_paragraph(word, text, width))


def _paragraph(word: str, text: str, width: int) -> list[str]:
    indent = " " * MARGIN
    return textwrap.wrap(
        text, width, initial_indent=word.ljust(MARGIN), subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )


def _timeline(rows: list[tuple[str, ...]], width: int) -> list[str]:
    times = max(len(row[1]) for row in rows)
    texts = min(max((len(row[2]) for row in rows if any(row[3:])), default=0), 44)
    words = max(len(row[0]) for row in rows)
    told = max(len(row[3]) for row in rows)
    lines = []
    for word, when, text, result, note in rows:
        start = f"  {word:{words}} {when:>{times}}  " if words else f"  {when:>{times}}  "
        line = f"{start}{text:{texts}}  {result:{told}}  {note}".rstrip()
        lines += [line] if len(line) <= width + 20 else textwrap.wrap(line, width + 20, subsequent_indent=" " * len(start))
    return lines


def _table(table: Table) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(table.header, *table.rows, strict=True)]
    rows = [table.header, *table.rows]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
