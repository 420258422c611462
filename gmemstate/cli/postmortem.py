"""The verbs that tell what failed."""

from typing import TYPE_CHECKING

import click

from gmemstate import CannotWrite
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, talk
from gmemstate.cli.options import json_option, reading

if TYPE_CHECKING:
    from gmemstate import Queries


@click.command()
@click.argument("incident", type=int, required=False)
@click.option("--html", "html_file", metavar="FILE", help="Write a self-contained HTML page as well.")
@json_option()
@click.pass_obj
def postmortem(db: str, incident: int | None, html_file: str | None, as_json: bool) -> Exit:
    """Tell what failed: whose fault, what is left, what to do.

    INCIDENT is a number; without it all are printed. A failure that is explained whole is an answer: exit code 0. It is 3 if
    evidence is missing that concerns the story.
    """
    with reading(db) as ledger:
        return _tell(ledger, incident, html_file, as_json)


@click.command()
@click.pass_obj
def demo(db: str) -> Exit:
    """Tell what happened in two bundled traces of real failures.

    The same is written as a page, gmemstate-demo.html.
    """
    import tempfile
    from importlib.resources import as_file, files
    from pathlib import Path

    from gmemstate import Ledger

    target = Path("gmemstate-demo.html")
    with (
        tempfile.TemporaryDirectory() as folder,
        as_file(files("gmemstate") / "data" / "demo") as captures,
        Ledger.open(Path(folder) / "demo.db", durable=False) as ledger,
    ):
        for capture in sorted(captures.glob("*.txt")):
            ledger.ingest(capture)
        code = _tell(ledger, None, str(target), as_json=False)
    echo(f"\nThe same as a page: {target.resolve()}\nYour own trace:     gmemstate ingest trace.txt && gmemstate postmortem")
    return code


def _tell(ledger: "Queries", incident: int | None, html_file: str | None, as_json: bool) -> Exit:
    from gmemstate import page, report

    found = ledger.incidents(incident)
    if as_json:
        render.as_json(found)
    else:
        echo(report(found))
    if html_file is not None:
        _write(html_file, page(found))
    return Exit.CLEAN if found.complete else Exit.INCOMPLETE


def _write(name: str, page: str) -> None:
    from pathlib import Path

    try:
        Path(name).write_text(page, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{name}: {error.strerror or error}; name a file in a folder that can be written") from None
    talk(f"written: {name}")
