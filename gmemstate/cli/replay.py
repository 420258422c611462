"""The verbs that fold the record again."""

from collections import Counter
from typing import TYPE_CHECKING

import click

from gmemstate import UsageError
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, worst
from gmemstate.cli.options import finish, json_option, reading
from gmemstate.text import count

if TYPE_CHECKING:
    from gmemstate import InvariantResult


@click.command()
@click.option("--steps", is_flag=True, help="Print every step of the machines instead, in the words of runtime verification.")
@click.option("--from", "first", metavar="SEQ|TIME", help="With --steps: only those from here on.")
@click.option("--to", "last", metavar="SEQ|TIME", help="With --steps: only those up to here.")
@json_option()
@click.pass_obj
def replay(db: str, steps: bool, first: str | None, last: str | None, as_json: bool) -> Exit:
    """Fold the record again; say what fits no machine or invariant.

    Also compares the tables for SQL readers with what the record folds to.
    """
    if steps:
        return _steps(db, first, last, as_json=as_json)
    if first is not None or last is not None:
        raise UsageError("--from and --to choose the steps to print: add --steps")
    with reading(db) as ledger, render.progress("folding", ledger.head().seq) as progress:
        found = ledger.replay(progress)
    if as_json:
        render.as_json(found)
    else:
        echo(
            f"{count(found.events, 'event')} folded: {count(found.guests, 'guest')}, {count(found.conversions, 'conversion')}, "
            f"{count(found.requests, 'request')}, {count(len(found.findings), 'finding')}"
        )
        for finding in found.findings:
            echo(f"  {finding}")
        for invariant in found.broken:
            _tell_broken(invariant)
        from gmemstate import InvariantOutcome

        outcomes = Counter(one.outcome for one in found.invariants)
        summary = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in InvariantOutcome)
        echo(f"{len(found.invariants)} invariants: {summary}")
        for table in found.stale_tables:
            echo(f"  table {table} is not what the record folds to: `gmemstate rebuild` makes it again")
    findings = found.findings or found.broken or found.stale_tables
    return worst(finish(found.missing), Exit.FINDINGS if findings else Exit.CLEAN)


def _steps(db: str, since: str | None, at: str | None, *, as_json: bool) -> Exit:
    """The steps of some events, each as it is taken."""
    with reading(db) as ledger:
        for step in ledger.steps(since=since, at=at):
            render.as_line(step) if as_json else echo(str(step))
        return finish(ledger.unusable())


def _tell_broken(invariant: "InvariantResult") -> None:
    """An invariant, its claim, and its findings."""
    echo(f"  {invariant.id} ({invariant.severity}) is broken: {invariant.claim}")
    for finding in invariant.findings:
        echo(f"    {finding}")
    if invariant.broken > len(invariant.findings):
        echo(f"    and {invariant.broken - len(invariant.findings)} more")


@click.command()
@click.pass_obj
def rebuild(db: str) -> Exit:
    """Make the tables for SQL readers again from the record."""
    from gmemstate import Ledger

    with Ledger.open(db) as ledger:
        echo(f"{count(ledger.rebuild(), 'event')} folded; the tables are those of the record")
    return Exit.CLEAN
