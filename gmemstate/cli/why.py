"""``gmemstate why``: who made a page what it is, and the proof."""

from typing import TYPE_CHECKING

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo
from gmemstate.cli.options import at_option, finish, json_option, reading
from gmemstate.text import count

if TYPE_CHECKING:
    from gmemstate import Why


@click.command()
@click.argument("address", metavar="ADDRESS")
@click.option("--guest", metavar="NAME", help="Which guest (or guest_memfd, for idx:), where there are several.")
@at_option()
@json_option()
@click.pass_obj
def why(db: str, address: str, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """Say why a page is what it is: its last writer first.

    What that rests on follows. ADDRESS is gfn:0x100004, gpa:0x100004000, idx:0x5 (page of a guest_memfd) or
    pfn:0x80a5669 (page of the host). Folded alone the events give the same state, backing and marks; none can be left out.
    """
    with reading(db) as ledger:
        found = ledger.why(address, guest=guest, at=at)
    if as_json:
        render.as_json(found)
    else:
        echo(f"{address}: {_headline(found)}")
        _tell(found)
    return finish(found.missing, also=found.state in ("unknown", "torn"))


def _tell(found: "Why") -> None:
    lines = {event.seq: str(event) for event in found.events}
    for reason in found.reasons:
        by = f"conversion {reason.conversion}" if reason.conversion else f"event {reason.seq}"
        echo(f"{reason.fact}: made so by {by}")
        for seq in reason.events:
            echo(lines[seq])
    if found.rests_on:
        echo("which rests on")
        for seq in found.rests_on:
            echo(lines[seq])
    if lines:
        seqs = ", ".join(map(str, lines))
        echo(f"Proof: {count(len(lines), 'event')} ({seqs}), folded alone, give the same; none can be left out.")


def _headline(found: "Why") -> str:
    parts = [found.state or "a page of the host", *([] if found.backing is None else [f"with {found.backing}"])]
    parts += [f"{mark.cause.name.lower()} ({mark.state})" for mark in found.marks]
    if not found.events:
        return f"{', '.join(parts)}; no event on record is about it"
    return ", ".join(parts)
