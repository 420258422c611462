"""The verbs that carry a record from one place to another."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gmemstate.cli.exits import Exit, talk
from gmemstate.cli.options import reading
from gmemstate.model.errors import CannotWrite

if TYPE_CHECKING:
    from gmemstate.ledger.queries import Queries
    from gmemstate.model.record import Head


@click.command()
@click.argument("file", metavar="FILE")
@click.pass_obj
def export(db: str, file: str) -> Exit:
    """Write the whole record as JSON lines to a file.

    FILE `-` is standard output. The same record gives the same bytes. Every verb that reads takes the file in place of a ledger: `gmemstate --db FILE check`.
    """
    from gmemstate.store import jsonl

    with reading(db) as ledger:
        head = jsonl.export(ledger.record_, sys.stdout) if file == "-" else _written(Path(file), ledger)
    talk(f"{head.seq} events, head {head.hash.hex()}")
    return Exit.CLEAN


def _written(path: Path, ledger: "Queries") -> "Head":
    """Write a file that is not there yet, whole or not at all."""
    from gmemstate.store import jsonl

    try:
        with path.open("x", encoding="utf-8", newline="\n") as target:
            try:
                return jsonl.export(ledger.record_, target)
            except BaseException:
                path.unlink()
                raise
    except FileExistsError:
        raise CannotWrite(f"{path}: is there already; name a file that is not there yet") from None
    except OSError as error:
        raise CannotWrite(f"{path}: cannot be written: {error.strerror}; make room, or name another file") from None


@click.command("import")
@click.argument("file", metavar="FILE")
@click.pass_obj
def import_(db: str, file: str) -> Exit:
    """Make a new ledger of an export.

    It has the same batches and hashes. An export that was altered is refused, with the line, and nothing of it is kept.
    """
    from gmemstate.ledger.ledger import restore
    from gmemstate.store.jsonl import JsonlRecord

    head = restore(db, JsonlRecord(Path(file)))
    talk(f"{db}: {head.seq} events, head {head.hash.hex()}")
    return Exit.CLEAN
