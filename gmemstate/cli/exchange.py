"""The verbs that carry a record from one place to another."""

import io
import sys

import click

from gmemstate.cli.exits import Exit, talk
from gmemstate.cli.options import reading


@click.command()
@click.argument("file", metavar="FILE")
@click.pass_obj
def export(db: str, file: str) -> Exit:
    """Write the whole record as JSON lines to a file.

    FILE `-` is standard output. The same record gives the same bytes. Every verb that reads takes the file in place of a
    ledger: `gmemstate --db FILE check`.
    """
    with reading(db) as ledger:
        if file == "-":
            if isinstance(sys.stdout, io.TextIOWrapper):  # data is UTF-8, whatever the locale
                sys.stdout.reconfigure(encoding="utf-8", newline="\n")
            head = ledger.export(sys.stdout)
        else:
            head = ledger.export(file)
    talk(f"{head.seq} events, head {head.hash.hex()}")
    return Exit.CLEAN


@click.command("import")
@click.argument("file", metavar="FILE")
@click.pass_obj
def import_(db: str, file: str) -> Exit:
    """Make a new ledger of an export.

    It has the same batches and hashes. An export that was altered is refused, with the line, and nothing of it is kept.
    """
    from gmemstate import restore

    head = restore(db, file)
    talk(f"{db}: {head.seq} events, head {head.hash.hex()}")
    return Exit.CLEAN
