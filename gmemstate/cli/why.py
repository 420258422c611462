"""``gmemstate why``: the events that make a page what it is."""

import re
from typing import TYPE_CHECKING

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import at_option, finish, json_option, reading
from gmemstate.model.errors import UsageError
from gmemstate.model.units import Gpa, gfn_of

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
    from gmemstate.audit.history.when import seq_of
    from gmemstate.audit.why import find_spot
    from gmemstate.audit.why import why as explain
    from gmemstate.narrate import Narrator

    unit, page = _address(address)
    with reading(db) as ledger:
        last = seq_of(ledger.record_, at)
        then = ledger.moment(last)
        spot = find_spot(then.memory, unit, page, guest)
        answer = explain(ledger.record_, spot, last)
        narrator = Narrator(then.memory, then.labels())
        if as_json:
            from gmemstate.audit.events import event_facts

            events = [
                {**event_facts(seq, event), "text": narrator.sentence(event), "evidence": narrator.evidence(event) or None}
                for seq, event in answer.events
            ]
            render.as_json({**_facts(answer), "events": events})
        else:
            click.echo(_headline(address, answer))
            for seq, event in answer.events:
                click.echo(narrator.line(seq, event))
    return finish(then.missing(), also=answer.facts.state in ("unknown", "torn"))


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(gfn|gpa|pfn|idx):)?(0x[0-9a-fA-F]{1,16}|\d{1,20})", text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no address: write gfn:0x100004, gpa:0x100004000, idx:0x5 or pfn:0x80a5669")
    number = int(match[2], 0)
    return ("gfn", gfn_of(Gpa(number))) if match[1] == "gpa" else (match[1] or "gfn", number)


def _facts(answer: "Why") -> dict[str, object]:
    state, backing, marks = answer.facts
    return {
        "unit": answer.spot.unit,
        "page": hex(answer.spot.page),
        "owner": answer.spot.owner,
        "state": state,
        "backing": None if backing is None else BACKING[backing],
        "marks": [
            {"cause": cause.lower(), "state": mark, "pfn": None if pfn is None else hex(pfn)}
            for cause, mark, pfn, _, _ in marks
        ],
    }


def _headline(address: str, answer: "Why") -> str:
    from gmemstate.text import count

    state, backing, marks = answer.facts
    parts = [state or "a page of the host"]
    if backing is not None and BACKING[backing] is not None:
        parts.append(f"{BACKING[backing]} behind it")
    parts += [f"{cause.lower()} ({mark})" for cause, mark, *_ in marks]
    if not answer.events:
        return f"{address}: {', '.join(parts)}; nothing on record says anything of it"
    return f"{address}: {', '.join(parts)}; because of {count(len(answer.events), 'event')}:"
