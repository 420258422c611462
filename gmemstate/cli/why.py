"""``gmemstate why``: the events that make a page what it is."""

import re
from typing import TYPE_CHECKING

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import at_option, json_option, reading
from gmemstate.model.errors import UsageError

if TYPE_CHECKING:
    from gmemstate.audit.why import Why

BACKING = (None, "no memory", "memory", "poisoned memory")


@click.command()
@click.argument("address", metavar="ADDRESS")
@click.option("--guest", metavar="NAME", help="Which guest (or guest_memfd, for idx:), where there are several.")
@at_option()
@json_option()
@click.pass_obj
def why(db: str, address: str, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """Say why a page is what it is: the least events for it.

    Without these events it would not be so. ADDRESS is gfn:0x100004, gpa:0x100004000, idx:0x5 (page of a guest_memfd) or pfn:0x80a5669 (page of the host). Folded alone
    the events give the same state, backing and marks; none of them can be left out.
    """
    from gmemstate.audit.history import moment
    from gmemstate.audit.why import find_spot, narrate
    from gmemstate.audit.why import why as explain

    unit, page = _address(address)
    with reading(db) as ledger:
        last = moment(ledger.record_, at)
        spot = find_spot(ledger.memory(last), unit, page, guest)
        answer = explain(ledger.record_, spot, last)
        if as_json:
            from gmemstate.audit.events import event_facts

            render.as_json({**_facts(answer), "events": [event_facts(seq, event) for seq, event in answer.events]})
        else:
            click.echo(_headline(address, answer))
            for sentence in narrate(answer):
                click.echo(sentence)
    return Exit.CLEAN if answer.facts.state not in ("unknown", "torn") else Exit.INCOMPLETE


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(gfn|gpa|pfn|idx):)?(0x[0-9a-fA-F]{1,16}|\d{1,20})", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no address: write gfn:0x100004, gpa:0x100004000, idx:0x5 or pfn:0x80a5669")
    number = int(match[2], 0)
    return ("gfn", number >> 12) if match[1] == "gpa" else (match[1] or "gfn", number)


def _facts(answer: "Why") -> dict[str, object]:
    state, backing, marks = answer.facts
    return {
        "unit": answer.spot.unit,
        "page": hex(answer.spot.page),
        "space": answer.spot.space,
        "state": state,
        "backing": None if backing is None else BACKING[backing],
        "marks": [
            {"cause": cause.lower(), "state": mark, "pfn": None if pfn is None else hex(pfn)}
            for cause, mark, pfn, _, _ in marks
        ],
    }


def _headline(address: str, answer: "Why") -> str:
    state, backing, marks = answer.facts
    parts = [state or "a page of the host"]
    if backing is not None and BACKING[backing] is not None:
        parts.append(f"{BACKING[backing]} behind it")
    parts += [f"{cause.lower()} ({mark})" for cause, mark, *_ in marks]
    return f"{address}: {', '.join(parts)}; because of {len(answer.events)} events:"
