"""``gmemstate host``: which VMs may be started here."""

from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import at_option, finish, json_option, reading

if TYPE_CHECKING:
    from gmemstate.model.objects import MessedUp


@click.command()
@at_option()
@json_option()
@click.pass_obj
def host(db: str, at: str | None, as_json: bool) -> Exit:
    """Say which VMs may be started on this host, and until when.

    Counts what failed unmaps, leaks and poison have left behind since the host was last started. Without a kernel log nothing is
    said to be well: exit 3.
    """
    from gmemstate.audit.host import Advice
    from gmemstate.audit.host import host as ask

    with reading(db) as ledger:
        history = ledger.history(at)
        found = ask(history)
        if as_json:
            render.as_json({
                "answers": [answer._asdict() for answer in found.answers],
                "messed_up": [{"id": entry.id, "cause": entry.cause.name.lower(), "page": _page(entry)} for entry in found.entries],
                "at_least": found.at_least,
                "kernel_log_read": found.looked,
            })  # fmt: skip
        else:
            rows = [(answer.guests, answer.advice, answer.until, answer.why) for answer in found.answers]
            render.as_table(("start", "may you", "until", "why"), rows, empty="", folding=("why",))
            _pages(found.entries, at_least=found.at_least)
        return finish(history, also=any(answer.advice is Advice.UNKNOWN for answer in found.answers))


def _pages(entries: "tuple[MessedUp, ...]", *, at_least: bool) -> None:
    if not entries:
        return
    click.echo("")
    rows: list[tuple[Any, ...]] = [
        (entry.cause.name.lower().replace("_", " "), _page(entry), entry.reuse_risk, entry.cleared_by) for entry in entries
    ]
    render.as_table(("messed up", "page", "reuse", "cleared by"), rows, empty="", folding=("reuse",))
    if at_least:
        click.echo("at least these: the kernel prints the first failure of a VM only")


def _page(entry: "MessedUp") -> str:
    if entry.pfn is None:
        return "page not named" if entry.count == 1 else "at least one page, not named"
    return f"pfn {entry.pfn:#x}" + (f"+{entry.count}" if entry.count not in (1, None) else "")
