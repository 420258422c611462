"""From data to a terminal or a pipe."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gmemstate.cli.exits import echo
from gmemstate.text import columns, printable

if TYPE_CHECKING:
    from gmemstate import Document

FOLDED = 20
"""How narrow a column may be that is folded."""
PATIENCE = 0.5
"""After how many seconds a person at a terminal is shown how far it is."""


def as_json(data: "Document") -> None:
    """Print an answer as JSON."""
    echo(ascii_escapes(json.dumps(data.to_json(), indent=2, ensure_ascii=False)))


def as_line(data: "Document") -> None:
    """Print one of many answers as a line of JSON."""
    echo(ascii_escapes(json.dumps(data.to_json(), ensure_ascii=False)))


def ascii_escapes(text: str) -> str:
    """JSON in which what a terminal obeys (C0, C1, bidi and the like) stands as an escape of JSON: it means the same."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def as_table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, folding: Sequence[str] | None = None) -> None:
    """Print a table: plain and whole in a pipe; on a terminal as wide as that.

    Where a terminal is too narrow, the columns named by ``folding`` (the last one if None) are folded; then the last ones are
    left out, which is said.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        echo(empty, err=True)
        return
    if sys.stdout is None or not sys.stdout.isatty():
        echo("\n".join(columns([header, *cells])))
        return
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns
    folding = header[-1:] if folding is None else folding
    shown = _that_fit(header, cells, folding, width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header[:shown]:
        table.add_column(name, no_wrap=name not in folding, overflow="fold")
    for row in cells:
        table.add_row(*row[:shown])
    Console(width=width, highlight=False, markup=False).print(table)
    if shown < len(header):
        echo(f"for want of width without: {', '.join(header[shown:])} (a pipe and --json have them)", err=True)


def _that_fit(header: Sequence[str], cells: list[list[str]], folding: Sequence[str], width: int) -> int:
    """How many columns fit side by side, at least one."""
    needed = [max(len(cell) for cell in column) for column in zip(header, *cells, strict=True)]
    needed = [min(need, FOLDED) if name in folding else need for name, need in zip(header, needed, strict=True)]
    shown = len(needed)
    while shown > 1 and sum(needed[:shown]) + 2 * (shown - 1) > width:
        shown -= 1
    return shown


def _cell(value: Any) -> str:
    return "" if value is None else printable(str(value))


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on standard error for what takes long, on a terminal only; yields the function to tell it how far it is.

    ``total`` is None where the end is not known.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, begun = bar.add_task(what, total=total), time.monotonic()

    def progress(done: int) -> None:
        if not bar.live.is_started and time.monotonic() - begun >= PATIENCE:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()
