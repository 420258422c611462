"""All verbs, in the order in which one needs them. Each parses, calls and renders; nothing else.

What a verb needs is imported with it: not before somebody uses it, and not for the list of them all.
"""

from importlib import import_module
from typing import NamedTuple

import click


class Verb(NamedTuple):
    """Where a verb is: its module and its name in there, and what the list of verbs says of it."""

    module: str
    name: str
    says: str

    def load(self) -> click.Command:
        """The verb itself."""
        command: click.Command = getattr(import_module(f"gmemstate.cli.{self.module}"), self.name)
        return command


VERBS = {
    "demo": Verb("postmortem", "demo", "Tell what happened in two bundled traces of real failures."),
    "ingest": Verb("ingest", "ingest", "Read kernel traces and logs into the ledger."),
    "postmortem": Verb("postmortem", "postmortem", "Tell what failed: whose fault, what is left, what to do."),
    "conversions": Verb("lists", "conversions", "List conversions: what was asked, returned, applied, left."),
    "requests": Verb("lists", "requests", "List what guests asked for, and what was returned to them."),
    "state": Verb("lists", "state", "Show which pages are shared, private or unknown."),
    "messed-up": Verb("lists", "messed_up", "List host pages not to be trusted, and what clears them."),
    "host": Verb("host", "host", "Say which VMs may be started on this host."),
    "events": Verb("lists", "events", "List the events of the record, oldest first."),
    "status": Verb("lists", "status", "Show what the ledger holds: sources, guests, events."),
    "why": Verb("why", "why", "Say why a page is what it is: its last writer first."),
    "diff": Verb("diff", "diff", "Show what differs between two moments, or two records."),
    "replay": Verb("replay", "replay", "Fold the record again; say what fits no machine or invariant."),
    "rebuild": Verb("replay", "rebuild", "Make the tables for SQL readers again from the record."),
    "check": Verb("check", "check", "Check the record from its first byte to its last."),
    "checkpoint": Verb("check", "checkpoint", "Print a checkpoint: a few lines to keep elsewhere."),
    "export": Verb("exchange", "export", "Write the whole record as JSON lines to a file."),
    "import": Verb("exchange", "import_", "Make a new ledger of an export."),
    "simulate": Verb("simulate", "simulate", "Carry out a scenario under dialects and policies."),
    "machine": Verb("machine", "machine", "Show a state machine: range, conversion or messed-up."),
    "decode": Verb("decoding", "decode", "Explain a word, number or line of a kernel, VMM or tracer."),
    "help": Verb("help", "help_", "Show a page on a topic, or which pages there are."),
}
