"""``gmemstate simulate``: scenarios under dialects and policies."""

import shutil
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, talk, worst
from gmemstate.cli.options import json_option
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.model.errors import UsageError
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.text import some

if TYPE_CHECKING:
    from gmemstate.convert.scenario.definition import Scenario
    from gmemstate.convert.simulation.run import ScenarioOutcome

ALL = "all"
WIDTH = 100
"""How wide a story is at most."""


@click.command()
@click.argument("scenario", required=False, metavar="FILE|NAME")
@click.option("--list", "listing", is_flag=True, help="List the scenarios that come with the program, each with its verdict.")
@click.option(
    "--dialect", type=click.Choice([*DIALECT_NAMES, ALL]), help="The kernel that converts [default: the first that fits]."
)
@click.option(
    "--policy", type=click.Choice([*map(str, Policy), ALL]), help="What follows a failed private unmap [default: bug-vm]."
)
@click.option("--store", is_flag=True, help="Keep what happened in the ledger.")
@json_option()
@click.pass_obj
def simulate(
    db: str, scenario: str | None, listing: bool, dialect: str | None, policy: str | None, store: bool, as_json: bool
) -> Exit:
    """Carry out a scenario under dialects and policies.

    A scenario is a request, the users of its pages, what goes wrong, and what must come of it. With `all` the outcomes stand side by side; otherwise the steps are told. An expectation of the scenario that is not met
    is exit 1, with the first event that differs.
    """
    from gmemstate.convert.scenario.load import catalogue, load

    if listing:
        return _list([load(name) for name in catalogue()], as_json=as_json)
    if scenario is None:
        raise UsageError("name a scenario file, or one of `gmemstate simulate --list`")
    found = load(scenario)
    outcomes = _outcomes(found, dialect, policy)
    if store:
        _keep(db, outcomes)
    if as_json:
        render.as_json([_as_json(outcome) for outcome in outcomes])
    elif len(outcomes) == 1 and ALL not in (dialect, policy):
        _tell(outcomes[0])
    else:
        _compare(found, outcomes)
    return _judge(outcomes)


def _outcomes(scenario: "Scenario", dialect: str | None, policy: str | None) -> "list[ScenarioOutcome]":
    from gmemstate.convert.simulation.run import pairs, run

    wanted = pairs(scenario)
    if dialect not in (None, ALL):
        chosen = DIALECT_NAMES[str(dialect)]
        wanted = [pair for pair in wanted if pair[0] is chosen] or [(chosen, each) for each in POLICIES[chosen]]
    elif dialect is None:
        wanted = [pair for pair in wanted if pair[0] is wanted[0][0]]
    if policy not in (None, ALL):
        wanted = [(kind, Policy(str(policy))) for kind in dict.fromkeys(kind for kind, _ in wanted)]
        if impossible := [kind for kind, each in wanted if each not in POLICIES[kind]]:
            if len(impossible) == len(wanted):
                raise UsageError(
                    f"{impossible[0].word} cannot have the policy {policy}: guest_memfd does not learn of the failure there"
                )
            wanted = [pair for pair in wanted if pair[0] not in impossible]
    elif policy is None and dialect != ALL:
        kept = [pair for pair in wanted if pair[1] is Policy.BUG_VM]
        wanted = kept[:1] or wanted[:1]
    return [run(scenario, kind, each) for kind, each in wanted]


def _tell(outcome: "ScenarioOutcome") -> None:
    from gmemstate.convert.engine.dialects import SOURCES
    from gmemstate.convert.simulation.story import tell

    width = min(shutil.get_terminal_size().columns, WIDTH)
    scenario = outcome.scenario
    click.echo(f"{scenario.name}: {scenario.title}")
    if scenario.source:
        click.echo(textwrap.fill(f"({scenario.source})", width, break_on_hyphens=False))
    if scenario.about:
        click.echo("\n" + "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in scenario.about.split("\n\n")))
    policy = f", policy {outcome.policy}" if scenario.has_policies else ""
    head = f"{outcome.dialect.word}{policy}: {SOURCES[outcome.dialect]}"
    click.echo("\n" + textwrap.fill(head, width, break_on_hyphens=False))
    for sentence in tell(outcome):
        indent = "  " + " " * (len(sentence) - len(sentence.lstrip()))
        click.echo(textwrap.fill(sentence.strip(), width, initial_indent=indent, subsequent_indent=indent + "  "))


def _compare(scenario: "Scenario", outcomes: "list[ScenarioOutcome]") -> None:
    """The outcomes side by side; a policy that a dialect cannot have is a row of dashes."""
    click.echo(f"{scenario.name}: {scenario.title}\n")
    have = {(outcome.dialect, outcome.policy): outcome for outcome in outcomes}
    policies = [policy for policy in Policy if any(policy is each for _, each in have)]
    rows: list[list[str]] = []
    for dialect in dict.fromkeys(dialect for dialect, _ in have):
        for policy in policies:
            outcome = have.get((dialect, policy))
            if outcome is not None or policy not in POLICIES[dialect]:
                cells = ["-"] * len(HEADER) if outcome is None else _cells(outcome)
                rows.append([dialect.word, *([policy.value] if scenario.has_policies else []), *cells])
    render.as_table(("DIALECT", *(["POLICY"] if scenario.has_policies else []), *HEADER), rows, empty="")


HEADER = ("MET", "RETURNED", "PRIVATE", "LOST", "MESSED UP", "VM")
"""What is said of each pair, the important first: a narrow terminal leaves out the last."""


def _cells(outcome: "ScenarioOutcome") -> list[str]:
    facts = outcome.facts
    returned = [
        f"{text}@{int(offset, 16) >> PAGE_SHIFT}" if text in ("EAGAIN", "ENOMEM") and offset != "-" else text
        for text, offset in zip(facts["returned"], facts["error_offset"], strict=True)
    ]
    repeated = [(text, len(list(group))) for text, group in groupby(returned)]
    lost = [f"{name} {sum(int(run.partition('+')[2]) for run in runs)}" for name, runs in facts["lost"].items()]
    pages = dict.fromkeys(entry.rpartition(" ")[2] for entry in facts["messed_up"])
    verdict = "-" if not outcome.expects else "no" if outcome.differences else "yes"
    return [verdict, some([f"{n}x {text}" if n > 1 else text for text, n in repeated], 4) or "none", some(facts["private"], 2) or "none",
            some(lost, 3) or "none", some(pages, 3) or "none", facts["vm"]]  # fmt: skip


def _list(scenarios: "list[Scenario]", *, as_json: bool) -> Exit:
    from gmemstate.convert.simulation.run import pairs, run

    played = [(scenario, [run(scenario, *pair) for pair in pairs(scenario)]) for scenario in scenarios]
    if as_json:
        render.as_json([_as_json(outcome) for _, outcomes in played for outcome in outcomes])
    else:
        rows = [
            [scenario.name, f"{sum(not outcome.differences for outcome in outcomes)}/{len(outcomes)}", scenario.title]
            for scenario, outcomes in played
        ]
        render.as_table(("SCENARIO", "MET", "TITLE"), rows, empty="no scenarios")
        talk("MET: under how many dialects and policies it came as expected, and of how many")
    return worst(*(_judge(outcomes) for _, outcomes in played), Exit.CLEAN)


def _judge(outcomes: "list[ScenarioOutcome]") -> Exit:
    """Say of each outcome that is not as expected where it first is not."""
    from gmemstate.model.events import event_of
    from gmemstate.narrate import Narrator

    code = Exit.CLEAN
    for outcome in outcomes:
        for difference in outcome.differences[:1]:
            code = Exit.FINDINGS
            pair = f"{outcome.dialect.word}/{outcome.policy}"
            talk(
                f"{outcome.scenario.name}: {pair}: {difference.fact}: expected {difference.expected}, found {difference.found}"
            )
            if difference.seq is not None:
                row = outcome.simulation.rows[difference.seq - 1]
                narrator = Narrator(outcome.simulation.memory, simulated=True)
                talk(f"  first at {narrator.line(difference.seq, event_of(row)).strip()}")
    return code


def _as_json(outcome: "ScenarioOutcome") -> dict[str, Any]:
    return {
        "scenario": outcome.scenario.name,
        "dialect": outcome.dialect.word,
        "policy": outcome.policy.value,
        **outcome.facts,
        "differences": [difference._asdict() for difference in outcome.differences],
    }


def _keep(db: str, outcomes: "list[ScenarioOutcome]") -> None:
    from gmemstate.ledger.ledger import Ledger

    with Ledger.open(db) as ledger:
        for outcome in outcomes:
            head = ledger.record_rows(outcome.simulation.rows)
            talk(f"{outcome.scenario.name}: {len(outcome.simulation.rows)} events stored, up to {head.seq}")
