"""One function for each verb: parse, call, render."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.main import Exit, talk, worst
from gmemstate.model.errors import GmemstateError, UsageError

if TYPE_CHECKING:
    from gmemstate.audit.history import History
    from gmemstate.ledger import Ingested, Ledger
    from gmemstate.model.units import Address

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option() -> Decorator:
    """``--json`` for a verb."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print JSON (u64 as hex strings, times as decimal strings in ns)."
    )


def at_option() -> Decorator:
    """``--at`` for a verb."""
    return click.option("--at", metavar="SEQ|TIME", help="As of an event (42) or of a time of the trace's clock (5.31).")


@contextmanager
def reading(where: str) -> "Iterator[Ledger]":
    """A ledger that is only read."""
    from gmemstate.ledger import Ledger

    with Ledger.open(where, readonly=True) as ledger:
        yield ledger


def finish(history: "History", *, also: bool = False) -> Exit:
    """Say what is missing from an answer, and the exit code that follows."""
    missing = history.missing()
    for reason in missing:
        talk(f"incomplete: {reason}")
    return Exit.INCOMPLETE if missing or also else Exit.CLEAN


# --- reading in ---------------------------------------------------------------------------------------------------


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option()
@click.pass_obj
def ingest(db: str, files: tuple[str, ...], as_json: bool) -> Exit:
    """Read kernel traces into the ledger.

    FILE is the text of ftrace or of `trace-cmd report`, plain or .gz; `-` is standard input. What was read before adds
    nothing, a file that has grown is continued. Prints what became of every line.
    """
    from gmemstate.ledger import Ledger

    codes, done = [Exit.CLEAN], []
    # A trace can be read again, so only the end has to be durable.
    with Ledger.open(db, durable=False) as ledger:
        for name in files:
            try:
                result = ledger.ingest(name)[0]
            except GmemstateError as error:
                talk(f"gmemstate: {error}")
                codes.append(Exit(error.exit_code))
                continue
            done.append(result)
            codes.append(Exit.CLEAN if result.complete else Exit.INCOMPLETE)
            if not as_json:
                _tell_ingested(result)
    if as_json:
        render.as_json([_ingested_json(result) for result in done])
    return worst(*codes)


def _tell_ingested(result: "Ingested") -> None:
    account = result.account
    what = "was read before; nothing is new" if result.known else f"{result.events} events"
    click.echo(
        f"{result.name}: {what}; {account.lines} lines = {account.used} used + {sum(account.context.values())} context + "
        f"{account.unparsed} not understood"
    )
    for number, text in account.first_unparsed:
        click.echo(f"  {result.name}:{number}: not understood: {text}")
    if result.gaps:
        talk(f"incomplete: {result.name}: evidence is missing in {result.gaps} place{'s' * (result.gaps != 1)}")
    if result.damage is not None:
        talk(f"incomplete: {result.name}: {result.damage}; what came before it is stored")


def _ingested_json(result: "Ingested") -> dict[str, Any]:
    return {
        "file": result.name,
        "events": result.events,
        "known": result.known,
        "gaps": result.gaps,
        "damage": result.damage,
        "account": result.account.as_facts(),
    }


# --- answers --------------------------------------------------------------------------------------------------------


@click.command()
@at_option()
@json_option()
@click.pass_obj
def conversions(db: str, at: str | None, as_json: bool) -> Exit:
    """List conversions: what was asked, told, applied and left, and by whose wish."""
    from gmemstate.audit import views

    with reading(db) as ledger:
        history = ledger.history(at)
        found = views.conversions(history)
        if as_json:
            render.as_json(found)
        else:
            from gmemstate.model.units import seconds
            from gmemstate.postmortem import words

            render.as_table(
                ("id", "guest", "time", "thread", "range", "to", "told", "verdict", "asked by", "took"),
                [
                    (c.id, row["guest"], seconds(c.asked), c.thread, words.where(c), row["to"], words.errno_name(c.result),
                     row["label"], row["trigger"], words.took(c))
                    for c, row in zip(history.ordered(), found, strict=True)
                ],
                empty="no conversion is on record",
            )  # fmt: skip
        return finish(history, also=any(row["label"] in ("attempted", "cut") for row in found))


@click.command()
@at_option()
@json_option()
@click.pass_obj
def requests(db: str, at: str | None, as_json: bool) -> Exit:
    """List what guests asked for, what was done of it, and what they were told."""
    from gmemstate.audit import views

    with reading(db) as ledger:
        history = ledger.history(at)
        found = views.requests(history)
        if as_json:
            render.as_json(found)
        else:
            from gmemstate.model.units import seconds

            asked = [history.requests[row["id"]].asked for row in found]
            render.as_table(
                ("id", "guest", "time", "gpa", "pages", "to", "applied", "told", "conversions", "notes"),
                [
                    (row["id"], row["guest"], seconds(t), row["gpa"], row["pages"], row["to"], row["applied_pages"],
                     "not seen" if row["told"] is None else row["told"], ",".join(map(str, row["conversions"])), " ".join(row["notes"]))
                    for row, t in zip(found, asked, strict=True)
                ],
                empty="no guest has asked for anything on record",
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
    Without it, everything that is known is shown.
    """
    from gmemstate.audit import views
    from gmemstate.model.machines import UNKNOWN
    from gmemstate.model.units import END, span

    place = _place(range_)
    with reading(db) as ledger:
        history = ledger.history(at)
        start, end = (place.start, place.end) if place else (0, END)
        rows = list(views.state(history, start, end, place.unit if place else "gfn"))
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
        unknown = not rows or any(row.state in (UNKNOWN, "torn") or "(" in row.state for row in rows)
        return finish(history, also=unknown)


def _place(text: str | None) -> "Address | None":
    from gmemstate.model.units import parse_range

    if text is None:
        return None
    place = parse_range(text)
    if place is None:
        raise UsageError(f"{text!r} is no range: write 0x100000-0x100080, gfn:0x100004+4, gpa:0x100004000 or idx:0x5")
    return place


def _note(row: Any) -> str:
    notes = [] if row.unbacked is None else [f"no memory behind it ({row.unbacked})"]
    if row.held_by is not None:
        notes.append(f"in conversion {row.held_by}")
    return ", ".join(notes)


@click.command("messed-up")
@at_option()
@json_option()
@click.pass_obj
def messed_up(db: str, at: str | None, as_json: bool) -> Exit:
    """List host pages that can no longer be trusted, and what clears them."""
    with reading(db) as ledger:
        from gmemstate.audit import views

        history = ledger.history(at)
        found = views.messed_up(history)
        if as_json:
            render.as_json(found)
        else:
            render.as_table(
                ("id", "cause", "pfn", "guest", "gfn", "index", "reuse", "cleared by"),
                [
                    (row["id"], row["cause"], row["pfn"] or "not known", row["guest"], row["gfn"], row["index"], row["reuse_risk"], row["cleared_by"])
                    for row in found
                ],
                empty="no page is messed up, as far as the record goes",
            )  # fmt: skip
        return finish(history)


@click.command()
@click.option("--kind", metavar="KIND", help="Only events of this kind, e.g. convert_returned.")
@at_option()
@json_option()
@click.pass_obj
def events(db: str, kind: str | None, at: str | None, as_json: bool) -> Exit:
    """List the events of the record, oldest first."""
    from gmemstate.audit.events import event_json, event_line
    from gmemstate.audit.history import moment
    from gmemstate.model.events import BY_NAME

    if kind is not None and kind not in BY_NAME:
        raise UsageError(f"{kind!r} is no kind of event; kinds are {', '.join(sorted(BY_NAME))}")
    with reading(db) as ledger:
        last = moment(ledger.record_, at)
        for seq, event in ledger.events(1, last):
            if kind is None or event.name == kind:
                click.echo(event_json(seq, event) if as_json else event_line(seq, event))
    return Exit.CLEAN


@click.command()
@json_option()
@click.pass_obj
def status(db: str, as_json: bool) -> Exit:
    """Show what the ledger holds: sources, guests, events, and how durable it is."""
    from gmemstate.audit.status import summary

    with reading(db) as ledger:
        history = ledger.history()
        found = summary(db, ledger.head(), history)
        if as_json:
            render.as_json(found)
        else:
            for name, value in found.items():
                for line in value if isinstance(value, list) else [value]:
                    click.echo(f"{name:14} {line}")
        return finish(history)


@click.command()
@click.option("--live", is_flag=True, help="Fire every trigger of the real state machines instead of the compiled tables.")
@json_option()
@click.pass_obj
def replay(db: str, live: bool, as_json: bool) -> Exit:
    """Fold the whole record again and say where it does not fit the state machines.

    Also compares the tables for SQL readers with what the record folds to.
    """
    from gmemstate.audit.history import History

    with reading(db) as ledger:
        history = History(live=live).fold(ledger.record_.events())
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
                f"{facts['events']} events folded ({facts['machines']} machines): {facts['guests']} guests, {facts['conversions']} "
                f"conversions, {facts['requests']} requests, {len(findings)} findings"
            )
            for finding in findings:
                click.echo(f"  {finding}")
            for table in differing:
                click.echo(f"  table {table} is not what the record folds to: `gmemstate rebuild` makes it anew")
        code = finish(history)
        return worst(code, Exit.FINDINGS if findings or differing else Exit.CLEAN)


@click.command()
@click.pass_obj
def rebuild(db: str) -> Exit:
    """Make the tables for SQL readers anew from the record."""
    from gmemstate.ledger import Ledger

    with Ledger.open(db) as ledger:
        click.echo(f"{ledger.rebuild()} events folded; the tables are those of the record")
    return Exit.CLEAN


@click.command()
@click.argument("incident", type=int, required=False)
@click.option("--html", "html_file", metavar="FILE", help="Write a self-contained HTML page as well.")
@json_option()
@click.pass_obj
def postmortem(db: str, incident: int | None, html_file: str | None, as_json: bool) -> Exit:
    """Tell what failed: whose fault it is, what was done and told, what is left, what to do.

    INCIDENT is a number; without it all are told.
    """
    with reading(db) as ledger:
        return _postmortem(ledger, incident, html_file, as_json)


def _postmortem(ledger: "Ledger", incident: int | None, html_file: str | None, as_json: bool) -> Exit:
    from pathlib import Path

    from gmemstate.postmortem import stories, text
    from gmemstate.postmortem.html import page

    history = ledger.history()
    told = stories.tell(ledger.record_, history)
    if incident is not None and not 1 <= incident <= len(told):
        raise UsageError(f"there is no incident {incident}: there {'is' if len(told) == 1 else 'are'} {len(told)}")
    chosen = [(n, story) for n, story in enumerate(told, 1) if incident in (None, n)]
    covered = stories.covered(history)
    if html_file is not None:
        Path(html_file).write_text(page(chosen, len(told), covered, history.missing()), encoding="utf-8")
        talk(f"written: {html_file}")
    if as_json:
        render.as_json(
            {
                "incidents": [stories.story_json(n, story) for n, story in chosen],
                "covered": covered,
                "missing": history.missing(),
            }
        )
    else:
        for n, story in chosen:
            click.echo(text.render(story, n, len(told)) + "\n")
        if not told:
            click.echo("Nothing failed in what was recorded.")
        click.echo(text.paragraph("Covered", covered))
        for reason in history.missing():
            click.echo(text.paragraph("Missing", reason))
    complete = not history.missing() and all(story.complete for _, story in chosen)
    return Exit.CLEAN if complete else Exit.INCOMPLETE


@click.command()
@click.pass_obj
def demo(db: str) -> Exit:
    """Read two bundled real captures of failing conversions and tell what happened in them."""
    import tempfile
    from importlib.resources import as_file, files
    from pathlib import Path

    from gmemstate.ledger import Ledger

    target = Path("gmemstate-demo.html")
    with (
        tempfile.TemporaryDirectory() as folder,
        as_file(files("gmemstate") / "data" / "demo") as captures,
        Ledger.open(Path(folder) / "demo.db", durable=False) as ledger,
    ):
        for capture in sorted(captures.glob("*.txt")):
            ledger.ingest(capture)
        code = _postmortem(ledger, None, str(target), as_json=False)
    click.echo(
        f"\nThe same as a page: {target.resolve()}\nYour own trace:     gmemstate ingest trace.txt && gmemstate postmortem"
    )
    return code


@click.command()
@click.argument("name", type=click.Choice(["range", "conversion", "messed-up"]), default="range")
@click.option("--as", "form", type=click.Choice(["table", "dot", "mermaid"]), default="table", help="How to print it.")
@json_option()
def machine(name: str, form: str, as_json: bool) -> Exit:
    """Show a state machine: range, conversion or messed-up."""
    from gmemstate.model import machines

    definition = machines.MACHINES[name]
    if as_json:
        render.as_json({"name": name, "states": definition.states, "rows": [row._asdict() for row in definition.rows]})
    elif form == "table":
        rows = [(row.id, row.trigger, _states(row.sources), row.dest, row.note) for row in machines.table(definition)]
        render.as_table(("row", "trigger", "from", "to", "note"), rows, empty="")
    else:
        click.echo(machines.dot(definition) if form == "dot" else machines.mermaid(definition))
    return Exit.CLEAN


def _states(states: tuple[str, ...]) -> str:
    return ", ".join(states) if len(states) <= 3 else f"{states[0]}, {states[1]} and {len(states) - 2} more"


VERBS: dict[str, click.Command] = {
    "demo": demo,
    "ingest": ingest,
    "postmortem": postmortem,
    "conversions": conversions,
    "requests": requests,
    "state": state,
    "messed-up": messed_up,
    "events": events,
    "status": status,
    "replay": replay,
    "rebuild": rebuild,
    "machine": machine,
}
