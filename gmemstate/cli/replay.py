"""The verbs that fold the record again."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, worst
from gmemstate.cli.options import finish, json_option, reading
from gmemstate.model.errors import UsageError

if TYPE_CHECKING:
    from gmemstate.audit.invariants import InvariantResult
    from gmemstate.model.events import EventRow


@click.command()
@click.option("--steps", is_flag=True, help="Print every step of the machines instead, in the words of runtime verification.")
@click.option("--from", "first", metavar="SEQ|TIME", help="With --steps: only those from here on.")
@click.option("--to", "last", metavar="SEQ|TIME", help="With --steps: only those up to here.")
@json_option()
@click.pass_obj
def replay(db: str, steps: bool, first: str | None, last: str | None, as_json: bool) -> Exit:
    """Fold the record anew; say what fits no machine or invariant.

    Also compares the tables for SQL readers with what the record folds to.
    """
    if steps:
        return _steps(db, first, last, as_json=as_json)
    if first is not None or last is not None:
        raise UsageError("--from and --to choose the steps to print: add --steps")
    from gmemstate.audit.history.corroboration import compared
    from gmemstate.audit.history.history import History
    from gmemstate.audit.invariants import InvariantChecker, InvariantOutcome
    from gmemstate.text import count

    with reading(db) as ledger:
        history = History()
        inspection = InvariantChecker(history.memory)
        with render.progress("folding", ledger.head().seq) as progress:
            history.fold(inspection.watch(_watched(ledger.record_.events(), progress)))
        compared(history)
        judged = inspection.results()
        broken = [invariant for invariant in judged if invariant.outcome is InvariantOutcome.BROKEN]
        differing = ledger.stale_projections(history)
        findings = history.findings
        facts = {
            "events": history.memory.seq,
            "conversions": len(history.ordered()),
            "requests": len(history.requests),
            "guests": len(history.memory.vms),
            "findings": [finding.as_json() for finding in findings],
            "stale_tables": differing,
            "invariants": [invariant.json() for invariant in judged],
        }
        if as_json:
            render.as_json(facts)
        else:
            click.echo(
                f"{count(history.memory.seq, 'event')} folded: "
                f"{count(len(history.memory.vms), 'guest')}, {count(len(history.ordered()), 'conversion')}, "
                f"{count(len(history.requests), 'request')}, {count(len(findings), 'finding')}"
            )
            for finding in findings:
                click.echo(f"  {finding}")
            for invariant in broken:
                _tell_broken(invariant)
            click.echo(_account(judged))
            for table in differing:
                click.echo(f"  table {table} is not what the record folds to: `gmemstate rebuild` makes it anew")
        code = finish(history.missing())
        return worst(code, Exit.FINDINGS if findings or broken or differing else Exit.CLEAN)


def _steps(db: str, first: str | None, last: str | None, *, as_json: bool) -> Exit:
    """The steps of some events, each as it is taken."""
    import json

    from gmemstate.audit.history.when import seq_of, since
    from gmemstate.audit.transitions import steps
    from gmemstate.model.units import END

    with reading(db) as ledger:
        beginning, end = since(ledger.record_, first), seq_of(ledger.record_, last)
        for seq, step in steps(ledger.record_.events(1, end), beginning, END if end is None else end):
            click.echo(json.dumps({"seq": seq, "step": step}) if as_json else f"{seq:>6} {step}")
    return Exit.CLEAN


def _tell_broken(judged: "InvariantResult") -> None:
    """An invariant, its claim, and its findings."""
    invariant = judged.invariant
    click.echo(f"  {invariant.id} ({invariant.severity}) is broken: {invariant.claim}")
    for finding in judged.findings:
        click.echo(f"    {finding}")
    if judged.broken > len(judged.findings):
        click.echo(f"    and {judged.broken - len(judged.findings)} more")


def _account(judged: "list[InvariantResult]") -> str:
    """How many invariants came to what."""
    from gmemstate.audit.invariants import InvariantOutcome

    found = Counter(invariant.outcome for invariant in judged)
    return f"{len(judged)} invariants: {', '.join(f'{found[outcome]} {outcome}' for outcome in InvariantOutcome)}"


def _watched(rows: "Iterable[EventRow]", progress: Callable[[int], None]) -> "Iterator[EventRow]":
    for n, row in enumerate(rows):
        if not n % 1000:
            progress(n)
        yield row


@click.command()
@click.pass_obj
def rebuild(db: str) -> Exit:
    """Make the tables for SQL readers anew from the record."""
    from gmemstate.ledger.ledger import Ledger
    from gmemstate.text import count

    with Ledger.open(db) as ledger:
        click.echo(f"{count(ledger.rebuild(), 'event')} folded; the tables are those of the record")
    return Exit.CLEAN
