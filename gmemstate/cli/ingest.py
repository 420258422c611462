"""The verb that reads evidence in."""

import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, talk, worst
from gmemstate.cli.options import json_option
from gmemstate.model.errors import GmemstateError

if TYPE_CHECKING:
    from gmemstate.ledger import Ingested


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option()
@click.pass_obj
def ingest(db: str, files: tuple[str, ...], as_json: bool) -> Exit:
    """Read kernel traces into the ledger.

    FILE is the text of ftrace or of `trace-cmd report`, plain or .gz; `-` is standard input. What was read before adds
    nothing, a file that has grown is continued. Prints what became of every line.
    """
    from gmemstate.ingest.lines import printable
    from gmemstate.ledger import Ledger

    codes, done = [Exit.CLEAN], []
    # A trace can be read again, so only the end has to be durable.
    with Ledger.open(db, durable=False) as ledger:
        for name in files:
            try:
                shown = "standard input" if name == "-" else printable(name)
                with render.progress(f"reading {shown}", _size(name)) as progress:
                    result = ledger.ingest(name, progress=progress)[0]
            except GmemstateError as error:
                talk(f"gmemstate: {error}")
                codes.append(Exit(error.exit_code))
                continue
            done.append(result)
            codes.append(Exit.CLEAN if result.complete else Exit.INCOMPLETE)
            if not as_json:
                _tell(printable(result.name), result)
    if as_json:
        render.as_json([_json(printable(result.name), result) for result in done])
    return worst(*codes)


def _size(name: str) -> int | None:
    """How many bytes of text there are to read, where the file system knows."""
    try:
        facts = Path(name).stat()
    except (OSError, ValueError):
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) and not name.endswith(".gz") else None


def _tell(name: str, result: "Ingested") -> None:
    account = result.account
    what = "was read before; nothing is new" if result.known else f"{result.events} events"
    click.echo(
        f"{name}: {what}; {account.lines} lines = {account.used} used + {sum(account.context.values())} context + "
        f"{account.unparsed} not understood"
    )
    for number, text in account.first_unparsed:
        click.echo(f"  {name}:{number}: not understood: {text}")
    if result.gaps:
        talk(f"incomplete: {name}: evidence is missing in {result.gaps} place{'s' * (result.gaps != 1)}")
    if result.damage is not None:
        talk(f"incomplete: {name}: {result.damage}; what came before it is stored")


def _json(name: str, result: "Ingested") -> dict[str, Any]:
    return {
        "file": name,
        "events": result.events,
        "known": result.known,
        "gaps": result.gaps,
        "damage": result.damage,
        "account": result.account.as_facts(),
    }
