"""From data to a terminal or a pipe."""

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click


def as_json(data: Any) -> None:
    """Print data as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def as_table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print a table: with colour and lines on a terminal, plain and never shortened in a pipe."""
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        click.echo(empty, err=True)
        return
    if not sys.stdout.isatty():
        _plain(header, cells)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console(width=shutil.get_terminal_size().columns, highlight=False, markup=False).print(table)


def _plain(header: Sequence[str], cells: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(header, *cells, strict=True)]
    for row in [list(header), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    return "" if value is None else str(value)
