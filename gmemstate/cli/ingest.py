"""The verb that reads evidence in."""

import stat
from pathlib import Path

import click

from gmemstate import GmemstateError, Ingested, Ledger, Listing, Refused, UsageError
from gmemstate.cli import following, render
from gmemstate.cli.exits import Exit, echo, talk, worst
from gmemstate.cli.options import json_option, warn
from gmemstate.text import printable


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--follow", is_flag=True, help="Read the one FILE as it grows, until Ctrl-C or SIGTERM.")
@json_option()
@click.pass_obj
def ingest(db: str, files: tuple[str, ...], follow: bool, as_json: bool) -> Exit:
    """Read kernel traces and logs into the ledger.

    FILE is the text of ftrace or of `trace-cmd report`, plain or .gz; `-` is standard input. Name all files of one run
    together: their clocks are compared by the calls that they share, and they become one history in the order of time. What
    was read before adds nothing, a file that has grown is continued. Prints what became of every line.

    With --follow, and from a pipe, what a line says is on record within a second; a log that is rotated is followed into its
    next file. Whatever ended it, the same command goes on at the next line.
    """
    if follow and len(files) > 1:
        raise UsageError("--follow reads one file; begin one `gmemstate ingest --follow` for each (they may share a ledger)")
    if follow or (files == ("-",) and following.is_pipe()):
        return _follow(db, files[0], as_json=as_json)
    codes = [Exit.CLEAN]
    # A trace can be read again, so only the end has to be durable.
    with Ledger.open(db, durable=False) as ledger:
        shown = f"{len(files)} files" if len(files) > 1 else "standard input" if files[0] == "-" else printable(files[0])
        sizes = [_size(name) for name in files]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        with render.progress(f"reading {shown}", total) as progress:
            results = list(ledger.read(*files, progress=progress))
        for result in results:
            if isinstance(result, Refused):
                talk(f"gmemstate: {result.error}")
                codes.append(Exit(result.error.exit_code))
                continue
            codes.append(Exit.CLEAN if result.complete else Exit.INCOMPLETE)
            if not as_json:
                _tell(printable(result.name), result)
        warn(ledger)
        if any(isinstance(result, Ingested) and result.late for result in results):
            talk(f"in order: {printable(ledger.in_order())} reads all of it by the time it tells of")
    if as_json:
        render.as_json(Listing(tuple(results)))
    return worst(*codes)


def _follow(db: str, name: str, *, as_json: bool) -> Exit:
    """Follow one source. What it says cannot be waited for, and perhaps not be read again: every commit is durable."""
    done, code, shown = [], Exit.CLEAN, "standard input" if name == "-" else printable(name)
    with Ledger.open(db) as ledger, following.until_signal() as signals:
        if name != "-":
            talk(f"following {shown} (Ctrl-C ends)")
        try:
            with render.progress(f"reading {shown}", None) as progress:
                for result in ledger.follow(name, signals.caught, say=talk, progress=progress if name == "-" else None):
                    done.append(result)
                    if not as_json:
                        _tell(printable(result.name), result)
        except GmemstateError as error:
            talk(f"gmemstate: {error}")
            code = Exit(error.exit_code)
        warn(ledger)
    if as_json:
        render.as_json(Listing(tuple(done)))
    if signals.interrupted:
        return Exit.INTERRUPTED
    return worst(code, *(Exit.CLEAN if result.complete else Exit.INCOMPLETE for result in done))


def _size(name: str) -> int | None:
    """How many bytes of text there are to read, where the file system knows."""
    try:
        facts = Path(name).stat()
    except (OSError, ValueError):
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) and not name.endswith(".gz") else None


def _tell(name: str, result: Ingested) -> None:
    account = result.account
    what = "was read before; nothing is new" if result.known else f"{result.events} events"
    echo(
        f"{name}: {what}; {account.lines} lines = {account.used} used + {sum(account.context.values())} context + "
        f"{account.unparsed} not understood"
    )
    for number, text in account.first_unparsed:
        echo(f"  {name}:{number}: not understood: {text}")
    if result.clock is not None:
        by = f"{result.calls} calls that both show" if result.calls else "the pair of clocks that it states"
        echo(
            f"  its clock was compared with that of {printable(result.clock)} by {by}: "
            f"right within {(result.within_ns or 0) / 1_000_000:.3f} ms"
        )
    elif result.apart:
        echo("  its clock cannot be compared with that of the other sources: its events keep the order of reading")
    if result.late:
        talk(
            f"incomplete: {name}: {result.late} events are older than what was on record of their time: they are recorded "
            f"and not applied "
            "no page"
        )
    if result.gaps:
        talk(f"incomplete: {name}: evidence is missing in {result.gaps} place{'s' * (result.gaps != 1)}")
    if result.damage is not None:
        talk(f"incomplete: {name}: {result.damage}; what came before it is stored")
