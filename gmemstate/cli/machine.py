"""The verb that shows the state machines."""

from typing import get_args

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo
from gmemstate.cli.options import json_option
from gmemstate.ledger.explain import MachineName, dot, mermaid
from gmemstate.ledger.explain import machine as definition_of


@click.command()
@click.argument("name", type=click.Choice(get_args(MachineName)), default="range")
@click.option("--as", "form", type=click.Choice(["table", "dot", "mermaid"]), default="table", help="How to print it.")
@json_option()
def machine(name: MachineName, form: str, as_json: bool) -> Exit:
    """Show a state machine: range, conversion or messed-up."""
    definition = definition_of(name)
    if as_json:
        render.as_json(definition)
    elif form == "table":
        rows = [(row.id, row.trigger, _states(row.sources), row.dest, row.note) for row in definition.rows]
        render.as_table(("row", "trigger", "from", "to", "note"), rows, empty="", folding=("from", "to", "note"))
    else:
        echo(dot(definition) if form == "dot" else mermaid(definition))
    return Exit.CLEAN


def _states(states: tuple[str, ...]) -> str:
    return ", ".join(states) if len(states) <= 3 else f"{states[0]}, {states[1]} and {len(states) - 2} more"
