"""What verbs have in common: options, the ledger that they read, and how an answer ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli.exits import Exit, talk

if TYPE_CHECKING:
    from gmemstate.audit.history.moment import Moment
    from gmemstate.ledger.queries import Answers

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option() -> Decorator:
    """``--json`` for a verb."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON (u64 as hex strings, times as decimal strings in ns)."
    )


def at_option() -> Decorator:
    """``--at`` for a verb."""
    return click.option("--at", metavar="SEQ|TIME", help="As of an event (42) or of a time of the trace's clock (5.31).")


@contextmanager
def reading(where: str) -> "Iterator[Answers]":
    """A ledger, or an export of one, that is only read; an export needs no database."""
    from gmemstate.store.jsonl import is_export

    if is_export(Path(where)):
        from gmemstate.ledger.queries import Exported

        yield Exported(Path(where))
        return
    from gmemstate.ledger.ledger import Ledger

    with Ledger.open(where, readonly=True) as ledger:
        yield ledger
        warn(ledger)


def warn(ledger: "Answers") -> None:
    """Say which snapshots were not used, and why."""
    for told in ledger.dropped:
        talk(f"warning: {told}")


def finish(moment: "Moment", *, also: bool = False) -> Exit:
    """Say what is missing from an answer, and the exit code that follows; ``also``: the answer itself is not whole."""
    missing = moment.missing()
    for reason in missing:
        talk(f"incomplete: {reason}")
    return Exit.INCOMPLETE if missing or also else Exit.CLEAN
