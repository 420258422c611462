"""The verbs that fold the record again."""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from gmemstate.cli import render
from gmemstate.cli.main import Exit, worst
from gmemstate.cli.options import finish, json_option, reading

if TYPE_CHECKING:
    from gmemstate.model.events import EventRow


@click.command()
@click.option("--live", is_flag=True, help="Fire every trigger of the real state machines instead of the compiled tables.")
@json_option()
@click.pass_obj
def replay(db: str, live: bool, as_json: bool) -> Exit:
    """Fold the whole record again; say where it fits no machine.

    Also compares the tables for SQL readers with what the record folds to.
    """
    from gmemstate.audit.history import History
    from gmemstate.postmortem.words import count

    with reading(db) as ledger:
        with render.progress("folding", ledger.head().seq) as progress:
            history = History(live=live).fold(_watched(ledger.record_.events(), progress))
        differing = ledger.stale_projections(history)
        findings = history.findings
        facts = {
            "events": history.memory.seq,
            "machines": "live" if live else "compiled",
            "conversions": len(history.conversions),
            "requests": len(history.requests),
            "guests": len(history.memory.vms),
            "findings": [{"code": f.code, "severity": f.severity, "seq": f.seq, "text": str(f)} for f in findings],
            "stale_tables": differing,
        }
        if as_json:
            render.as_json(facts)
        else:
            click.echo(
                f"{count(history.memory.seq, 'event')} folded ({facts['machines']} machines): "
                f"{count(len(history.memory.vms), 'guest')}, {count(len(history.conversions), 'conversion')}, "
                f"{count(len(history.requests), 'request')}, {count(len(findings), 'finding')}"
            )
            for finding in findings:
                click.echo(f"  {finding}")
            for table in differing:
                click.echo(f"  table {table} is not what the record folds to: `gmemstate rebuild` makes it anew")
        code = finish(history)
        return worst(code, Exit.FINDINGS if findings or differing else Exit.CLEAN)


def _watched(rows: "Iterable[EventRow]", progress: Callable[[int], None]) -> "Iterator[EventRow]":
    for n, row in enumerate(rows):
        if not n % 1000:
            progress(n)
        yield row


@click.command()
@click.pass_obj
def rebuild(db: str) -> Exit:
    """Make the tables for SQL readers anew from the record."""
    from gmemstate.ledger import Ledger
    from gmemstate.postmortem.words import count

    with Ledger.open(db) as ledger:
        click.echo(f"{count(ledger.rebuild(), 'event')} folded; the tables are those of the record")
    return Exit.CLEAN
