"""What verbs have in common: options, the ledger that they read, and how an answer ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli.exits import Exit, talk

if TYPE_CHECKING:
    from gmemstate import Queries

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option() -> Decorator:
    """``--json`` for a verb."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON (u64 as hex strings, times as decimal strings in ns)."
    )


def at_option() -> Decorator:
    """``--at`` for a verb."""
    return click.option("--at", metavar="SEQ|TIME", help="As of an event (42) or of a time of the trace's clock (5.31).")


def range_argument() -> Decorator:
    """``[RANGE]`` for a verb."""
    return click.argument("pages", metavar="[RANGE]", required=False)


def guest_option() -> Decorator:
    """``--guest`` for a verb that lists."""
    return click.option("--guest", metavar="NAME", help="Only what is of this guest, e.g. vm1.")


@contextmanager
def reading(where: str) -> "Iterator[Queries]":
    """A ledger, or an export of one, that is only read; an export needs no database."""
    import gmemstate

    with gmemstate.read(where) as ledger:
        yield ledger
        warn(ledger)


def warn(ledger: "Queries") -> None:
    """Say which snapshots were not used, and why."""
    for reason in ledger.dropped:
        talk(f"warning: {reason}")


def finish(missing: Sequence[str], *, also: bool = False) -> Exit:
    """Say what is missing from an answer, and the exit code that follows; ``also``: the answer itself is not whole."""
    for reason in missing:
        talk(f"incomplete: {reason}")
    return Exit.INCOMPLETE if missing or also else Exit.CLEAN
