"""All verbs, in the order in which one needs them. Each parses, calls and renders; nothing else."""

import click

from gmemstate.cli.check import check, checkpoint
from gmemstate.cli.decoding import decode
from gmemstate.cli.diff import diff
from gmemstate.cli.exchange import export, import_
from gmemstate.cli.help import help_
from gmemstate.cli.host import host
from gmemstate.cli.ingest import ingest
from gmemstate.cli.lists import conversions, events, messed_up, requests, state, status
from gmemstate.cli.machine import machine
from gmemstate.cli.postmortem import demo, postmortem
from gmemstate.cli.replay import rebuild, replay
from gmemstate.cli.simulate import simulate
from gmemstate.cli.why import why

VERBS: dict[str, click.Command] = {
    "demo": demo,
    "ingest": ingest,
    "postmortem": postmortem,
    "conversions": conversions,
    "requests": requests,
    "state": state,
    "messed-up": messed_up,
    "host": host,
    "events": events,
    "status": status,
    "why": why,
    "diff": diff,
    "replay": replay,
    "rebuild": rebuild,
    "check": check,
    "checkpoint": checkpoint,
    "export": export,
    "import": import_,
    "simulate": simulate,
    "machine": machine,
    "decode": decode,
    "help": help_,
}
