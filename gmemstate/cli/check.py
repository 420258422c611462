"""The verbs that tell whether a record can be relied on."""

from pathlib import Path
from typing import Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, worst
from gmemstate.cli.options import json_option, reading
from gmemstate.model.errors import CannotRead


@click.command()
@click.option("--checkpoint", "against", metavar="FILE", help="Hold the record against a checkpoint that was kept elsewhere.")
@json_option()
@click.pass_obj
def check(db: str, against: str | None, as_json: bool) -> Exit:
    """Check the record from its first byte to its last.

    Re-hashes every batch, follows the chain, reads every row, runs the database's own check, folds everything through the
    state machines and compares the tables. Says what was looked at and what was not. Exit 1: something is wrong; exit 3:
    something could not be checked.
    """
    from gmemstate.audit.check import Checkpoint

    checkpoint = None if against is None else Checkpoint.parse(_read(against), against)
    with reading(db) as ledger:
        result = ledger.check(checkpoint)
    findings = result.history.findings if result.history is not None else []
    wrong = [problem.as_json() for problem in result.problems]
    looked_at = ["every hash and link", *result.medium, *(["machines", "tables"] if result.history is not None else [])]
    if as_json:
        render.as_json({
            "problems": wrong,
            "findings": [_finding(finding) for finding in findings],
            "batches": result.batches,
            "events": result.events,
            "looked_at": looked_at,
            "not_covered": result.not_covered,
        })  # fmt: skip
    else:
        for problem in result.problems:
            click.echo(f"{problem.severity}: {problem}; {problem.as_json()['next_step']}")
        for finding in findings:
            click.echo(f"{finding.severity}: {finding}")
        click.echo(f"{result.events} events in {result.batches} batches; looked at: {', '.join(looked_at)}")
        for reason in result.not_covered:
            click.echo(f"not covered: {reason}")
        if not wrong and not findings and not result.not_covered:
            click.echo("nothing is wrong with what was looked at")
    return worst(Exit.FINDINGS if wrong or findings else Exit.CLEAN, Exit.INCOMPLETE if result.not_covered else Exit.CLEAN)


def _finding(finding: Any) -> dict[str, Any]:
    return {"code": finding.code, "severity": finding.severity, "seq": finding.seq, "text": str(finding)}


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotRead(f"{name}: no checkpoint can be read: {error}") from None


@click.command()
@click.pass_obj
def checkpoint(db: str) -> Exit:
    """Print a checkpoint: a few lines to keep elsewhere. `check --checkpoint FILE` exposes a record that was written anew."""
    with reading(db) as ledger:
        click.echo(str(ledger.checkpoint()), nl=False)
    return Exit.CLEAN
