"""The verbs that list what is on record."""

from typing import TYPE_CHECKING

import click

from gmemstate import duration, seconds, span
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo
from gmemstate.cli.options import at_option, finish, guest_option, json_option, range_argument, reading

if TYPE_CHECKING:
    from gmemstate import ConversionRow, SourceStatus, StateRow

UNCERTAIN = ("unknown", "torn")
"""States of pages of which nobody knows what they are."""


@click.command()
@range_argument()
@guest_option()
@at_option()
@json_option()
@click.pass_obj
def conversions(db: str, pages: str | None, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """List conversions: what was asked, returned, applied, left.

    RANGE is 0x100000-0x100080 (gfns, half-open), gfn:0x100004+4, gpa:0x100004000 or idx:0x5 (pages of a guest_memfd). The
    verdict is a label; --json has its three axes: what the ioctl returned, what was applied, what is left different.
    """
    with reading(db) as ledger:
        found = ledger.conversions(pages, guest=guest, at=at)
    if as_json:
        render.as_json(found)
    else:
        render.as_table(
            ("id", "guest", "time", "range", "to", "returned", "verdict", "took", "asked by", "thread"),
            [
                (row.id, row.guest, seconds(row.observed_ns), _asked(row), row.to, _errno(row.errno), row.label, _took(row),
                 row.trigger, row.thread)
                for row in found
            ],
            empty="no conversion is on record",
            folding=(),
        )  # fmt: skip
    return finish(found.missing, also=any(row.label in ("attempted", "cut") for row in found))


def _errno(code: int | None) -> str:
    from gmemstate import errno_name

    return "not seen" if code is None else errno_name(code)


def _asked(row: "ConversionRow") -> str:
    """The pages of a conversion in its own unit, or its bytes where they are no whole pages."""
    if not row.arguments_known:
        return "arguments that the kernel did not read"
    if row.pages is not None:
        return f"{row.pages.unit} {span(row.pages.start, row.pages.end)}"
    address = row.gpa if row.offset is None else row.offset
    return "range not known" if address is None or row.size is None else f"{address:#x}+{row.size:#x}"


def _took(row: "ConversionRow") -> str:
    """How long a conversion took; nothing where its line has one time only, as in strace without ``-T``."""
    if row.started_ns is None or row.ended_ns is None or row.ended_ns == row.started_ns:
        return ""
    return duration(row.ended_ns - row.started_ns)


@click.command()
@range_argument()
@guest_option()
@at_option()
@json_option()
@click.pass_obj
def requests(db: str, pages: str | None, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """List what guests asked for, and what was returned to them."""
    with reading(db) as ledger:
        found = ledger.requests(pages, guest=guest, at=at)
    if as_json:
        render.as_json(found)
    else:
        render.as_table(
            ("id", "guest", "gpa", "pages", "to", "applied", "returned", "notes", "time", "conversions"),
            [
                (row.id, row.guest, _hex(row.gpa), row.pages, row.to, row.applied_pages,
                 "not seen" if row.returned is None else row.returned, ", ".join(row.notes).replace("_", " "),
                 seconds(row.asked_ns), ",".join(map(str, row.conversions)))
                for row in found
            ],
            empty="no guest has asked for anything on record",
            folding=("notes",),
        )  # fmt: skip
    return finish(found.missing)


def _hex(value: int | None) -> str | None:
    return None if value is None else f"{value:#x}"


@click.command()
@range_argument()
@guest_option()
@at_option()
@json_option()
@click.pass_obj
def state(db: str, pages: str | None, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """Show which pages are shared, private or unknown.

    RANGE is 0x100000-0x100080 (gfns, half-open), gfn:0x100004+4, gpa:0x100004000 or idx:0x5 (pages of a guest_memfd).
    Without it, everything that is known is shown. Exit code 3 if the state of a page that was asked for is not known.
    """
    with reading(db) as ledger:
        found = ledger.state(pages, guest=guest, known=pages is None, at=at)
    if as_json:
        render.as_json(found)
    else:
        render.as_table(
            ("guest", "unit", "range", "pages", "state", "note"),
            [
                (row.guest, row.unit if row.gmem is None else f"{row.unit} of {row.gmem}", span(row.start, row.end), row.pages,
                 row.state, _note(row))
                for row in found
            ],
            empty="nothing is known of any page",
        )  # fmt: skip
    return finish(found.missing, also=not found or any(row.state in UNCERTAIN for row in found))


def _note(row: "StateRow") -> str:
    if row.guest_gone is not None:
        return f"the guest is {row.guest_gone}"
    notes = [] if row.unbacked is None else [f"no memory for it ({row.unbacked})"]
    if row.held_by is not None:
        notes.append(f"in conversion {row.held_by}")
    return ", ".join(notes)


@click.command("messed-up")
@range_argument()
@guest_option()
@at_option()
@json_option()
@click.pass_obj
def messed_up(db: str, pages: str | None, guest: str | None, at: str | None, as_json: bool) -> Exit:
    """List host pages not to be trusted, and what clears them."""
    with reading(db) as ledger:
        found = ledger.messed_up(pages, guest=guest, at=at)
    if as_json:
        render.as_json(found)
    else:
        render.as_table(
            ("id", "cause", "pfn", "guest", "gfn", "index", "reuse", "cleared by"),
            [
                (row.id, row.cause.name.lower(), _hex(row.pfn) or "not known", row.guest, _hex(row.gfn), _hex(row.index),
                 row.reuse_risk, row.cleared_by)
                for row in found
            ],
            empty="no page is messed up, as far as the record goes",
            folding=("reuse", "cleared by"),
        )  # fmt: skip
    return finish(found.missing)


@click.command()
@range_argument()
@click.option("--kind", metavar="KIND", help="Only events of this kind, e.g. convert_returned.")
@guest_option()
@click.option("--conversion", type=int, metavar="ID", help="Only events of this conversion or request.")
@click.option("--from", "since", metavar="SEQ|TIME", help="Only events from here on.")
@at_option()
@json_option()
@click.pass_obj
def events(
    db: str,
    pages: str | None,
    kind: str | None,
    guest: str | None,
    conversion: int | None,
    since: str | None,
    at: str | None,
    as_json: bool,
) -> Exit:
    """List the events of the record, oldest first.

    RANGE is 0x100000-0x100080 (gfns) or idx:0x5 (pages of guest_memfds). With --json, each event is one line of JSON.
    """
    with reading(db) as ledger:
        for event in ledger.events(pages, kind=kind, guest=guest, conversion=conversion, since=since, at=at):
            render.as_line(event) if as_json else echo(str(event))
        return finish(ledger.unusable())


DURABILITY = (
    "recorded and followed events, and pipes: every commit (synchronous FULL); "
    "ingested files: at the end, as they can be read again"
)
_CLOCKS = {
    "compared": "; its clock is compared with that of {}",
    "not_comparable": "; its clock cannot be compared with that of the others: its events keep the order of reading",
}


@click.command()
@json_option()
@click.pass_obj
def status(db: str, as_json: bool) -> Exit:
    """Show what the ledger holds: sources, guests, events."""
    with reading(db) as ledger:
        found = ledger.status()
    if as_json:
        render.as_json(found)
    else:
        rows = [
            ("ledger", found.ledger),
            ("events", found.events),
            ("head", found.head),
            *(("sources", _source(source)) for source in found.sources),
            *(
                ("guests", f"{vm.name} ({vm.command or '?'} {vm.thread})" + (f", {vm.gone}" if vm.gone else ""))
                for vm in found.guests
            ),
            ("conversions", found.conversions),
            ("requests", found.requests),
            ("messed up", found.messed_up),
            ("durability", DURABILITY),
        ]
        for name, value in rows:
            echo(f"{name:14} {value}")
    return finish(found.missing)


def _source(source: "SourceStatus") -> str:
    lines = "?" if source.lines is None else source.lines
    return f"{source.name} ({source.format}): {lines} lines" + _CLOCKS.get(source.clock, "").format(source.reference)
