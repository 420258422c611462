"""The verbs that tell whether a record can be relied on."""

from collections import Counter
from pathlib import Path

import click

from gmemstate import CannotRead
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, worst
from gmemstate.cli.options import json_option, reading
from gmemstate.text import count


@click.command()
@click.option("--checkpoint", "against", metavar="FILE", help="Hold the record against a checkpoint that was kept elsewhere.")
@json_option()
@click.pass_obj
def check(db: str, against: str | None, as_json: bool) -> Exit:
    """Check the record from its first byte to its last.

    Re-hashes every batch, follows the chain, reads every row, runs the database's own check, folds everything through the
    state machines and the invariants, and compares the tables. Says what was looked at and what was not; `gmemstate help check`
    lists all that can be found. Exit 1: something is wrong; exit 3: something could not be checked.
    """
    from gmemstate import Checkpoint

    checkpoint = None if against is None else Checkpoint.parse(_read(against), against)
    with reading(db) as ledger:
        result = ledger.check(checkpoint)
    if as_json:
        render.as_json(result)
    else:
        for problem in result.problems:
            echo(f"{problem.severity}: {problem}; {problem.next_step}")
        for finding in result.findings:
            echo(f"{finding.severity}: {finding}")
        echo(
            f"{count(result.events, 'event')} in {result.batches} batches; "
            f"looked at: {', '.join(result.looked_at) or 'nothing'}"
        )
        if result.invariants:
            outcomes = Counter(one.outcome for one in result.invariants)
            echo(f"{len(result.invariants)} invariants: {', '.join(f'{n} {outcome}' for outcome, n in outcomes.items())}")
        for lack, invariants in result.not_evaluable.items():
            echo(f"not evaluable: {', '.join(invariants)}: {lack}")
        for reason in result.not_covered:
            echo(f"not covered: {reason}")
        if not result.problems and not result.findings and not result.not_covered:
            echo("nothing is wrong with what was looked at")
    return worst(
        Exit.FINDINGS if result.problems or result.findings else Exit.CLEAN,
        Exit.INCOMPLETE if result.not_covered else Exit.CLEAN,
    )


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRead(f"{name}: no checkpoint can be read: {error}") from None


@click.command()
@click.pass_obj
def checkpoint(db: str) -> Exit:
    """Print a checkpoint: a few lines to keep elsewhere. `check --checkpoint FILE` exposes a record that was written again."""
    with reading(db) as ledger:
        echo(str(ledger.checkpoint()), nl=False)
    return Exit.CLEAN
