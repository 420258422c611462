"""``gmemstate diff``: two moments of a record, or two records."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import json_option, reading
from gmemstate.model.errors import UsageError

if TYPE_CHECKING:
    from gmemstate.audit.diff import Change, Divergence
    from gmemstate.audit.history.moment import Moment


@click.command()
@click.argument("other", required=False, metavar="[OTHER]")
@click.option("--from", "first", metavar="SEQ|TIME", help="The earlier moment; without it the empty beginning.")
@click.option("--to", "last", metavar="SEQ|TIME", help="The later moment; without it the end.")
@json_option()
@click.pass_obj
def diff(db: str, other: str | None, first: str | None, last: str | None, as_json: bool) -> Exit:
    """Show what differs between two moments, or two records.

    OTHER is a ledger or an export: then the first event that differs is shown, and the states that differ at the end. Exit 1 if
    two records differ.
    """
    from gmemstate.audit import diff as differ

    if (other is None) == (first is None and last is None):
        raise UsageError("name another ledger, or the moments to compare with --from and --to")
    with reading(db) as ledger:
        if other is None:
            found = list(differ.changes(ledger.memory(0 if first is None else first), ledger.memory(last)))
            _show(found, as_json=as_json)
            return Exit.CLEAN
        if not Path(other).exists() and "://" not in other:  # an export is compared where no database is installed
            raise UsageError(f"{other}: no ledger and no export here")
        with reading(other) as second:
            parted = differ.divergence(ledger.record_, second.record_)
            moments = (ledger.moment(), second.moment()) if parted is not None else None
            found = [] if moments is None else list(differ.changes(moments[0].memory, moments[1].memory))
            _show(found, parted, moments, as_json=as_json)
            return Exit.CLEAN if parted is None else Exit.FINDINGS


def _show(
    found: "list[Change]",
    parted: "Divergence | None" = None,
    moments: "tuple[Moment, Moment] | None" = None,
    *,
    as_json: bool,
) -> None:
    from gmemstate.model.units import hexadecimal, span

    if as_json:
        changes: list[dict[str, Any]] = [
            {**change._asdict(), "start": hexadecimal(change.start), "end": None if change.end is None else hex(change.end)}
            for change in found
        ]
        difference = None if parted is None else {"seq": parted.seq, "this": _facts(parted.one), "other": _facts(parted.other)}
        render.as_json({"first_difference": difference, "changes": changes})
        return
    if parted is not None and moments is not None:
        click.echo(f"the records differ from event {parted.seq} on")
        click.echo(f"  this:  {_event(parted.one, moments[0])}")
        click.echo(f"  other: {_event(parted.other, moments[1])}")
    render.as_table(
        ("guest", "range", "before", "after"),
        [(c.guest, "" if c.start is None or c.end is None else span(c.start, c.end), c.before, c.after) for c in found],
        empty="no state differs",
    )


def _facts(row: Any) -> dict[str, Any] | None:
    from gmemstate.audit.events import event_facts
    from gmemstate.model.events import SEQ, event_of

    return None if row is None else event_facts(row[SEQ], event_of(row))


def _event(row: Any, moment: "Moment") -> str:
    from gmemstate.model.events import SEQ, event_of
    from gmemstate.narrate import Narrator

    return "has ended" if row is None else Narrator(moment.memory, moment.labels()).line(row[SEQ], event_of(row)).strip()
