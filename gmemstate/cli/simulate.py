"""``gmemstate simulate``: scenarios under dialects and policies."""

import shutil
import textwrap
from collections.abc import Sequence
from itertools import groupby

import click

from gmemstate import Ledger, UsageError
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, talk, worst
from gmemstate.cli.options import json_option
from gmemstate.ledger.simulate import (
    DIALECT_NAMES,
    PAGE_SHIFT,
    SOURCES,
    Listing,
    Policy,
    ScenarioOutcome,
    scenarios,
    step,
    story,
    usual_policy,
)
from gmemstate.ledger.simulate import simulate as play
from gmemstate.text import some

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
    "--policy", type=click.Choice([*map(str, Policy), ALL]), help="What follows a failed unmap [default: bug-vm, or leave]."
)
@click.option("--store", is_flag=True, help="Keep what happened in the ledger.")
@json_option()
@click.pass_obj
def simulate(
    db: str, scenario: str | None, listing: bool, dialect: str | None, policy: str | None, store: bool, as_json: bool
) -> Exit:
    """Carry out a scenario under dialects and policies.

    A scenario is a request, the users of its pages, what goes wrong, and what must come of it. With `all` the outcomes stand
    side by side; otherwise the steps are printed. An expectation of the scenario that does not hold is exit 1, with the first
    event that differs.
    """
    if listing:
        return _list(as_json=as_json)
    if scenario is None:
        raise UsageError("name a scenario file, or one of `gmemstate simulate --list`")
    outcomes = play(
        scenario, None if dialect in (None, ALL) else DIALECT_NAMES[dialect], None if policy in (None, ALL) else Policy(policy)
    )
    if dialect is None:
        outcomes = Listing(tuple(outcome for outcome in outcomes if outcome.dialect is outcomes[0].dialect))
    if policy is None and dialect != ALL:
        usual = [outcome for outcome in outcomes if outcome.policy is usual_policy(outcome.dialect)]
        outcomes = Listing(tuple(usual[:1] or outcomes[:1]))
    if store:
        _keep(db, outcomes)
    if as_json:
        render.as_json(outcomes)
    elif len(outcomes) == 1 and ALL not in (dialect, policy):
        _tell(outcomes[0])
    else:
        _compare(outcomes)
    return _judge(outcomes)


def _tell(outcome: ScenarioOutcome) -> None:
    width = min(shutil.get_terminal_size().columns, WIDTH)
    scenario = outcome.scenario
    echo(f"{scenario.name}: {scenario.title}")
    if scenario.source:
        echo(textwrap.fill(f"({scenario.source})", width, break_on_hyphens=False))
    if scenario.about:
        echo("\n" + "\n\n".join(textwrap.fill(" ".join(part.split()), width) for part in scenario.about.split("\n\n")))
    policy = f", policy {outcome.policy}" if len(scenario.policies_of(outcome.dialect)) > 1 else ""
    head = f"{outcome.dialect.word}{policy}: {SOURCES[outcome.dialect]}"
    echo("\n" + textwrap.fill(head, width, break_on_hyphens=False))
    for sentence in story(outcome):
        indent = "  " + " " * (len(sentence) - len(sentence.lstrip()))
        echo(textwrap.fill(sentence.strip(), width, initial_indent=indent, subsequent_indent=indent + "  "))


def _compare(outcomes: Sequence[ScenarioOutcome]) -> None:
    """The outcomes side by side, one row for each policy that a dialect can have."""
    scenario = outcomes[0].scenario
    echo(f"{scenario.name}: {scenario.title}\n")
    rows = [
        [outcome.dialect.word, *([outcome.policy.value] if scenario.has_policies else []), *_cells(outcome)]
        for outcome in outcomes
    ]
    render.as_table(("DIALECT", *(["POLICY"] if scenario.has_policies else []), *HEADER), rows, empty="")


HEADER = ("MATCH", "RETURNED", "PRIVATE", "LOST", "MESSED UP", "VM")
"""What is said of each pair, the important first: a narrow terminal leaves out the last."""


def _cells(outcome: ScenarioOutcome) -> list[str]:
    facts = outcome.facts
    returned = [
        f"{text}@{int(offset, 16) >> PAGE_SHIFT}" if text in ("EAGAIN", "ENOMEM") and offset != "-" else text
        for text, offset in zip(facts.returned, facts.error_offset, strict=True)
    ]
    repeated = [(text, len(list(group))) for text, group in groupby(returned)]
    calls = [f"{n}x {text}" if n > 1 else text for text, n in repeated]
    lost = [f"{name} {sum(int(run.partition('+')[2]) for run in runs)}" for name, runs in facts.lost.items()]
    pages = dict.fromkeys(entry.rpartition(" ")[2] for entry in facts.messed_up)
    verdict = "-" if not outcome.expects else "no" if outcome.differences else "yes"
    lists = [(calls, 4), (facts.private, 2), (lost, 3), (list(pages), 3)]
    return [verdict, *(some(texts, most) or "none" for texts, most in lists), facts.vm]


def _list(*, as_json: bool) -> Exit:
    played = [play(scenario) for scenario in scenarios()]
    if as_json:
        render.as_json(Listing(tuple(outcome for outcomes in played for outcome in outcomes)))
    else:
        rows = [
            [
                outcomes[0].scenario.name,
                f"{sum(not outcome.differences for outcome in outcomes)}/{len(outcomes)}",
                outcomes[0].scenario.title,
            ]
            for outcomes in played
        ]
        render.as_table(("SCENARIO", "MATCH", "TITLE"), rows, empty="no scenarios")
        talk("MATCH: under how many dialects and policies it came as expected, and of how many")
    return worst(*(_judge(outcomes) for outcomes in played), Exit.CLEAN)


def _judge(outcomes: Sequence[ScenarioOutcome]) -> Exit:
    """Print of each outcome that is not as expected where it first is not."""
    code = Exit.CLEAN
    for outcome in outcomes:
        for difference in outcome.differences[:1]:
            code = Exit.FINDINGS
            pair = f"{outcome.dialect.word}/{outcome.policy}"
            talk(
                f"{outcome.scenario.name}: {pair}: {difference.fact}: expected {difference.expected}, found {difference.found}"
            )
            if difference.seq is not None:
                talk(f"  first at {step(outcome, difference.seq)}")
    return code


def _keep(db: str, outcomes: Sequence[ScenarioOutcome]) -> None:
    with Ledger.open(db) as ledger:
        for outcome in outcomes:
            head = ledger.record_rows(outcome.simulation.rows)
            talk(f"{outcome.scenario.name}: {len(outcome.simulation.rows)} events stored, up to {head.seq}")
