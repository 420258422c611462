"""Everything that can be asked of a record, verb by verb, and the answers as a user sees them."""

from collections.abc import Callable
from pathlib import Path

from gmemstate.cli.verbs import VERBS
from gmemstate.ledger.ledger import Ledger
from tests.cli.running import Ran, say

NO_QUESTIONS = {"demo", "ingest", "rebuild", "import", "simulate", "machine", "decode", "help"}
"""Verbs that write, or that ask no record."""

Ask = Callable[..., Ran]


def questions(where: Path) -> list[list[str]]:
    """At least one question for each verb, about the guests and pages that are on record."""
    with Ledger.open(where, readonly=True) as ledger:
        memory, middle = ledger.memory(), ledger.head().seq // 2
        guests = [(vm.name, ledger.memory().guest_runs(vm.id)) for vm in memory.vms.values()]
        gmems = [str(gmem) for gmem in memory.gmems]
        pfns = [entry.pfn for entry in memory.messed_up.values() if entry.pfn is not None]
        conversion = next((row.id for row in ledger.conversions()), 1)
    asked = [
        [verb, *at, *form]
        for verb in ("conversions", "requests", "state", "messed-up", "events")
        for at in ([], ["--at", str(middle)])
        for form in ([], ["--json"])
    ]
    asked += [[verb, *form] for verb in ("postmortem", "host", "status", "replay") for form in ([], ["--json"])]
    asked += [
        ["replay", "--steps"],
        ["replay", "--steps", "--from", str(middle), "--json"],
        ["diff", "--from", str(middle)],
        ["diff", "--to", str(middle), "--json"],
        ["state", "0x100000-0x100040"],
        ["state", "idx:0+16"],
        ["events", "--conversion", str(conversion)],
        ["events", "--kind", "convert_returned", "--from", str(middle)],
        ["check"],
        ["check", "--json"],
        ["checkpoint"],
        ["export", "-"],
    ]
    for name, runs in guests:
        page = next((run.start for run in runs if run.state != "unknown"), 0)
        asked += [["why", f"gfn:{page:#x}", "--guest", name, *form] for form in ([], ["--json"])]
        asked += [["events", "--guest", name, f"{page:#x}+4"]]
    asked += [["why", "idx:0x0", "--guest", gmem] for gmem in gmems]
    asked += [["why", f"pfn:{pfn:#x}"] for pfn in pfns]
    assert {words[0] for words in asked} == set(VERBS) - NO_QUESTIONS
    return asked


def answers(where: Path, asked: list[list[str]], ask: Ask = say) -> dict[str, Ran]:
    """What a user sees; without the name of the ledger and the time of a checkpoint."""
    found = {}
    for words in asked:
        ran = ask("--db", where, *words)
        out = ran.out.replace(str(where), "LEDGER")
        if words[0] == "checkpoint":
            out = out.partition("at ")[0]
        found[" ".join(words)] = Ran(ran.code, out, ran.err.replace(str(where), "LEDGER"))
    return found
