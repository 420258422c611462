"""``gmemstate help``: the pages that come with the program."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click

from gmemstate import Document, Listing, UsageError
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo
from gmemstate.cli.options import json_option


@dataclass(frozen=True, slots=True)
class HelpPage(Document):
    """A page that comes with the program, in Markdown."""

    topic: str
    title: str
    text: str


@click.command("help")
@click.argument("topic", required=False)
@click.argument("verb", required=False)
@json_option()
def help_(topic: str | None, verb: str | None, as_json: bool) -> Exit:
    """Show a page on a topic, or which pages there are.

    `help json VERB` prints the JSON Schema of what a verb prints with --json.
    """
    if verb is not None:
        echo(_schema(topic, verb), nl=False)
        return Exit.CLEAN
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted((_package() / "docs").glob("*.md"))}
    if topic is not None and topic not in pages:
        raise UsageError(f"there is no page {topic!r}; there are {', '.join(pages)}", topic=topic)
    shown = [topic] if topic is not None else list(pages)
    if as_json:
        render.as_json(Listing(tuple(HelpPage(name, _title(pages[name]), pages[name]) for name in shown)))
    elif topic is None:
        render.as_table(("TOPIC", "PAGE"), [(name, _title(pages[name])) for name in shown], empty="no pages")
    else:
        echo(pages[topic], nl=False)
    return Exit.CLEAN


def _schema(topic: str | None, verb: str) -> str:
    there = {path.stem: path for path in sorted((_package() / "schemas").glob("*.json"))}
    if topic != "json" or verb not in there:
        raise UsageError(f"there is no page {topic!r} on {verb!r}; `help json` has {', '.join(there)}", topic=topic)
    return there[verb].read_text(encoding="utf-8")


def _package() -> Path:
    return Path(str(resources.files("gmemstate")))


def _title(page: str) -> str:
    """The first heading of a page."""
    return next((line.removeprefix("# ") for line in page.splitlines() if line.startswith("# ")), "")
