"""``gmemstate host``: which VMs may be started here."""

from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import at_option, finish, json_option, reading

if TYPE_CHECKING:
    from gmemstate.audit.history.history import History
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
                "answers": [answer.to_json() for answer in found.answers],
                "messed_up": [{"id": entry.id, "cause": entry.cause.name.lower(), "page": _page(entry), "pfn": None if entry.pfn is None else hex(entry.pfn), "pages": entry.count, "guest": _where(history, entry), "reuse_risk": entry.reuse_risk, "cleared_by": entry.cleared_by} for entry in found.entries],
                "doubts": [doubt.to_json() for doubt in found.doubts],
                "at_least": found.at_least is not None,
                "why_more": found.at_least,
                "kernel_log_read": found.kernel_log_read,
            })  # fmt: skip
        else:
            rows = [(answer.guests, answer.verdict, answer.until, answer.reason) for answer in found.answers]
            render.as_table(("start", "verdict", "until", "reason"), rows, empty="", folding=("reason",))
            _pages(history, found.entries, found.at_least)
        return finish(history.missing(), also=any(answer.verdict is Advice.UNKNOWN for answer in found.answers))


def _pages(history: "History", entries: "tuple[MessedUp, ...]", at_least: str | None) -> None:
    if not entries:
        return
    click.echo("")
    rows: list[tuple[Any, ...]] = [
        (
            entry.cause.name.lower().replace("_", " "),
            _page(entry),
            _where(history, entry),
            entry.reuse_risk,
            _CLEARED[entry.cleared_by],
        )
        for entry in entries
    ]
    render.as_table(("messed up", "page", "guest", "reuse", "until"), rows, empty="", folding=("reuse",))
    if at_least:
        click.echo(f"at least these: {at_least}")


_CLEARED = {"reboot": "the next reboot", "fix": "the cause is mended", "never": "for ever"}


def _page(entry: "MessedUp") -> str:
    if entry.pfn is None:
        return "page not named" if entry.count == 1 else "at least one page, not named"
    return f"pfn {entry.pfn:#x}" + (f"+{entry.count}" if entry.count not in (1, None) else "")


def _where(history: "History", entry: "MessedUp") -> str:
    vm = history.memory.vms.get(entry.vm or 0)
    gfn = f"gfn {entry.gfn:#x}" if entry.gfn is not None else ""
    return " ".join(part for part in (vm.name if vm is not None else "", gfn) if part) or "?"
