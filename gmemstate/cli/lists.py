"""The verbs that list what is on record."""

import json
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, shown
from gmemstate.cli.options import at_option, finish, json_option, reading
from gmemstate.model.errors import UsageError

if TYPE_CHECKING:
    from gmemstate.audit.queries import StateRow
    from gmemstate.model.units import PageRange


@click.command()
@at_option()
@json_option()
@click.pass_obj
def conversions(db: str, at: str | None, as_json: bool) -> Exit:
    """List conversions: what was asked, told, applied, left.

    The verdict is a label; --json has its three axes: what the caller was told, what was applied, what is left different.
    """
    from gmemstate.audit import queries as views

    with reading(db) as ledger:
        history = ledger.history(at)
        found = views.conversions(history)
        if as_json:
            render.as_json(found)
        else:
            from gmemstate.model.units import seconds
            from gmemstate.postmortem import words

            render.as_table(
                ("id", "guest", "time", "range", "to", "told", "verdict", "took", "asked by", "thread"),
                [
                    (c.id, row["guest"], seconds(c.first_observed), words.where(c), row["to"], words.errno_name(row["errno"]),
                     row["label"], words.took(c), row["trigger"], c.thread)
                    for c, row in zip(history.ordered(), found, strict=True)
                ],
                empty="no conversion is on record",
                folding=(),
            )  # fmt: skip
        return finish(history, also=any(row["label"] in ("attempted", "cut") for row in found))


@click.command()
@at_option()
@json_option()
@click.pass_obj
def requests(db: str, at: str | None, as_json: bool) -> Exit:
    """List what guests asked for, and what they were told."""
    from gmemstate.audit import queries as views

    with reading(db) as ledger:
        history = ledger.history(at)
        found = views.requests(history)
        if as_json:
            render.as_json(found)
        else:
            from gmemstate.model.units import seconds

            asked = [history.requests[row["id"]].asked for row in found]
            render.as_table(
                ("id", "guest", "gpa", "pages", "to", "applied", "told", "notes", "time", "conversions"),
                [
                    (row["id"], row["guest"], row["gpa"], row["pages"], row["to"], row["applied_pages"],
                     "not seen" if row["told"] is None else row["told"], ", ".join(row["notes"]).lower().replace("_", " "),
                     seconds(t), ",".join(map(str, row["conversions"])))
                    for row, t in zip(found, asked, strict=True)
                ],
                empty="no guest has asked for anything on record",
                folding=("notes",),
            )  # fmt: skip
        return finish(history)


@click.command()
@click.argument("range_", metavar="[RANGE]", required=False)
@at_option()
@json_option()
@click.pass_obj
def state(db: str, range_: str | None, at: str | None, as_json: bool) -> Exit:
    """Show which pages are shared, private or unknown.

    RANGE is 0x100000-0x100080 (gfns, half-open), gfn:0x100004+4, gpa:0x100004000 or idx:0x5 (pages of a guest_memfd).
    Without it, everything that is known is shown. Exit code 3 if the state of a page that was asked for is not known.
    """
    from gmemstate.audit import queries as views
    from gmemstate.model.machines.range import TORN, UNKNOWN
    from gmemstate.model.units import END, span

    place = _place(range_)
    with reading(db) as ledger:
        moment = ledger.moment(at)
        start, end = (place.start, place.end) if place else (0, END)
        rows = list(views.state(moment, start, end, place.unit if place else "gfn"))
        if place is None:
            rows = [row for row in rows if row.state != UNKNOWN or row.guest == views.NO_GUEST]
        if as_json:
            render.as_json([views.state_json(row) for row in rows])
        else:
            render.as_table(
                ("guest", "unit", "range", "pages", "state", "note"),
                [
                    (row.guest, "gfn" if row.gmem is None else f"idx of {row.gmem}", span(row.start, row.end),
                     "" if row.end >= END else row.end - row.start, row.state, _note(row))
                    for row in rows
                ],
                empty="nothing is known of any page",
            )  # fmt: skip
        return finish(moment, also=not rows or any(row.state in (UNKNOWN, TORN) for row in rows))


def _place(text: str | None) -> "PageRange | None":
    from gmemstate.model.units import parse_range

    if text is None:
        return None
    place = parse_range(text)
    if place is None:
        raise UsageError(f"{text!r} is no range: write 0x100000-0x100080, gfn:0x100004+4, gpa:0x100004000 or idx:0x5")
    return place


def _note(row: "StateRow") -> str:
    if row.gone is not None:
        return f"the guest is {row.gone}"
    notes = [] if row.unbacked is None else [f"no memory behind it ({row.unbacked})"]
    if row.held_by is not None:
        notes.append(f"in conversion {row.held_by}")
    return ", ".join(notes)


@click.command("messed-up")
@at_option()
@json_option()
@click.pass_obj
def messed_up(db: str, at: str | None, as_json: bool) -> Exit:
    """List host pages not to be trusted, and what clears them."""
    from gmemstate.audit import queries as views

    with reading(db) as ledger:
        moment = ledger.moment(at)
        found = views.messed_up(moment)
        if as_json:
            render.as_json(found)
        else:
            render.as_table(
                ("id", "cause", "pfn", "guest", "gfn", "index", "reuse", "cleared by"),
                [
                    (row["id"], row["cause"], row["pfn"] or "not known", row["guest"], row["gfn"], row["index"],
                     row["reuse_risk"], row["cleared_by"])
                    for row in found
                ],
                empty="no page is messed up, as far as the record goes",
                folding=("reuse", "cleared by"),
            )  # fmt: skip
        return finish(moment)


@click.command()
@click.argument("range_", metavar="[RANGE]", required=False)
@click.option("--kind", metavar="KIND", help="Only events of this kind, e.g. convert_returned.")
@click.option("--guest", metavar="NAME", help="Only events of this guest and its guest_memfds, e.g. vm1.")
@click.option("--conversion", type=int, metavar="ID", help="Only events of this conversion or request.")
@click.option("--from", "first", metavar="SEQ|TIME", help="Only events from here on.")
@at_option()
@json_option()
@click.pass_obj
def events(
    db: str,
    range_: str | None,
    kind: str | None,
    guest: str | None,
    conversion: int | None,
    first: str | None,
    at: str | None,
    as_json: bool,
) -> Exit:
    """List the events of the record, oldest first.

    RANGE is 0x100000-0x100080 (gfns) or idx:0x5 (pages of guest_memfds). With --json, each event is one line of JSON.
    """
    from gmemstate.audit.events import Filter, event_facts
    from gmemstate.audit.history.when import seq_of, since
    from gmemstate.model.events import BY_NAME, SEQ, event_of
    from gmemstate.narrate import Narrator

    if kind is not None and kind not in BY_NAME:
        raise UsageError(f"{kind!r} is no kind of event; kinds are {', '.join(sorted(BY_NAME))}")
    with reading(db) as ledger:
        beginning, last = since(ledger.record_, first), seq_of(ledger.record_, at)
        moment = ledger.moment()
        narrator = Narrator(moment.memory, moment.labels())
        about = moment.memory if guest is not None or range_ is not None else None
        wanted = Filter.of(about, BY_NAME[kind].code if kind else None, guest, conversion, _place(range_))
        for row in ledger.record_.events(beginning, last):
            if wanted.lets(row):
                event = event_of(row)
                click.echo(
                    json.dumps(event_facts(row[SEQ], event), ensure_ascii=False) if as_json else narrator.line(row[SEQ], event)
                )
    return Exit.CLEAN


@click.command()
@json_option()
@click.pass_obj
def status(db: str, as_json: bool) -> Exit:
    """Show what the ledger holds: sources, guests, events."""
    from gmemstate.audit.status import summary

    with reading(db) as ledger:
        history = ledger.history()
        found: dict[str, Any] = summary(shown(db), ledger.head(), history)
        if as_json:
            render.as_json(found)
        else:
            for name, value in found.items():
                for line in value if isinstance(value, list) else [value]:
                    click.echo(f"{name:14} {line}")
        return finish(history)
