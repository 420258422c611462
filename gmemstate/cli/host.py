"""``gmemstate host``: which VMs may be started here."""

import click

from gmemstate import Guests, HostAnswer, MayStart, MessedUpRow, UsageError
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo
from gmemstate.cli.options import at_option, finish, json_option, reading

KINDS = {"plain": Guests.PLAIN, "tdx": Guests.TDX, "snp": Guests.SNP, "cca": Guests.CCA}


@click.command()
@click.option(
    "--for", "asked", metavar="KINDS", help="Of which guests the exit code speaks: plain,tdx,snp,cca [all that can be]."
)
@at_option()
@json_option()
@click.pass_obj
def host(db: str, asked: str | None, at: str | None, as_json: bool) -> Exit:
    """Say which VMs may be started on this host.

    A yes needs the host's kernel log of this boot, whole, the lines that say that the platform works, and nothing that speaks
    against it. Exit 0 is a yes to all that was asked, 1 a no, 3 not known.
    """
    wanted = None if asked is None else _kinds(asked)
    with reading(db) as ledger:
        found = ledger.host(at)
    if as_json:
        render.as_json(found)
    else:
        _print(found)
    answers = [one for one in found.answers if wanted is None or one.guests in wanted]
    if wanted is None:
        answers = [one for one in answers if one.verdict is not MayStart.OTHER] or answers
    verdicts = {one.verdict for one in answers}
    if verdicts & {MayStart.NO, MayStart.OTHER}:
        finish(found.missing)
        return Exit.FINDINGS
    enough = wanted is None or wanted <= {one.guests for one in answers}
    return finish(found.missing, also=verdicts != {MayStart.YES} or not enough)


def _kinds(text: str) -> set[Guests]:
    """The kinds of guests that ``--for`` names. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in KINDS:
            raise UsageError(f"--for {word}: no kind of guest; name some of {','.join(KINDS)}")
    return {KINDS[word] for word in words}


def _print(found: HostAnswer) -> None:
    rows = [(one.guests, one.verdict, one.mended_by or "", one.reason, _some(one.lines)) for one in found.answers]
    render.as_table(("start", "verdict", "until", "reason", "lines"), rows, empty="", folding=("reason",))
    echo("")
    tested = [(one.outcome, one.name, _whom(one.guests), one.reason, _some(one.lines)) for one in found.checks]
    render.as_table(("check", "of", "for", "seen", "lines"), tested, empty="", folding=("seen",))
    hints = dict.fromkeys(one.hint for one in found.checks if one.hint)
    if hints:
        echo("\n" + "\n".join(f"do: {hint}" for hint in hints))
    if not found.messed_up:
        return
    echo("")
    entries = [
        (entry.cause.name.lower().replace("_", " "), _page(entry), _where(entry), entry.reuse_risk, _CLEARED[entry.cleared_by])
        for entry in found.messed_up
    ]
    render.as_table(("messed up", "page", "guest", "reuse", "until"), entries, empty="", folding=("reuse",))
    if found.at_least:
        echo(f"at least these: {found.at_least}")


_CLEARED = {"reboot": "the next reboot", "fix": "the cause is mended", "never": "for ever"}


def _whom(guests: tuple[Guests, ...]) -> str:
    return "" if len(guests) >= len(Guests) - 1 else ", ".join(word for word, kind in KINDS.items() if kind in guests)


def _some(lines: tuple[str, ...]) -> str:
    return ", ".join(lines[:3]) + (f" and {len(lines) - 3} more" if len(lines) > 3 else "")


def _page(entry: MessedUpRow) -> str:
    if entry.pfn is None:
        return "page not named" if entry.count == 1 else "at least one page, not named"
    return f"pfn {entry.pfn:#x}" + (f"+{entry.count}" if entry.count not in (1, None) else "")


def _where(entry: MessedUpRow) -> str:
    gfn = f"gfn {entry.gfn:#x}" if entry.gfn is not None else ""
    return " ".join(part for part in ("" if entry.guest == "?" else entry.guest, gfn) if part) or "?"
