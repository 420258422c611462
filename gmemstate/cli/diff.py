"""``gmemstate diff``: two moments of a record, or two records."""

from pathlib import Path

import click

from gmemstate import UsageError, span
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, worst
from gmemstate.cli.options import finish, json_option, reading


@click.command()
@click.argument("other", required=False, metavar="[OTHER]")
@click.option("--from", "since", metavar="SEQ|TIME", help="The earlier moment; without it the empty beginning.")
@click.option("--to", "at", metavar="SEQ|TIME", help="The later moment; without it the end.")
@json_option()
@click.pass_obj
def diff(db: str, other: str | None, since: str | None, at: str | None, as_json: bool) -> Exit:
    """Show what differs between two moments, or two records.

    OTHER is a ledger or an export: then the first event that differs is shown, and the states that differ at the end. Exit 1 if
    two records differ.
    """
    if (other is None) == (since is None and at is None):
        raise UsageError("name another ledger, or the moments to compare with --from and --to")
    if other is not None and not Path(other).exists() and "://" not in other:
        raise UsageError(f"{other}: no ledger and no export here")
    with reading(db) as ledger:
        unusable = ledger.unusable()
        if other is None:
            found = ledger.diff(since=since, at=at)
        else:
            with reading(other) as second:
                found = ledger.diff(second)
                unusable += second.unusable()
    parted = found.first_difference
    if as_json:
        render.as_json(found)
    else:
        if parted is not None:
            echo(f"the records differ from event {parted.seq} on")
            for name, event in (("this: ", parted.this), ("other:", parted.other)):
                echo(f"  {name} {'has ended' if event is None else str(event).strip()}")
        render.as_table(
            ("guest", "range", "before", "after"),
            [
                (one.guest, "" if one.start is None else span(one.start, one.end), one.before, one.after)
                for one in found.changes
            ],
            empty="no state differs",
        )
    return worst(finish(unusable), Exit.CLEAN if parted is None else Exit.FINDINGS)
