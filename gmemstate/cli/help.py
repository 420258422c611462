"""``gmemstate help``: the pages that come with the program."""

from importlib import resources
from pathlib import Path

import click

from gmemstate.cli import render
from gmemstate.cli.exits import Exit
from gmemstate.cli.options import json_option
from gmemstate.model.errors import UsageError


@click.command("help")
@click.argument("topic", required=False)
@json_option()
def help_(topic: str | None, as_json: bool) -> Exit:
    """Show a page on a topic, or which pages there are."""
    pages = {path.stem: path.read_text(encoding="utf-8") for path in sorted(_folder().glob("*.md"))}
    if topic is not None and topic not in pages:
        raise UsageError(f"there is no page {topic!r}; there are {', '.join(pages)}", topic=topic)
    shown = [topic] if topic is not None else list(pages)
    if as_json:
        render.as_json([{"topic": name, "title": _title(pages[name]), "text": pages[name]} for name in shown])
    elif topic is None:
        render.as_table(("TOPIC", "PAGE"), [(name, _title(pages[name])) for name in shown], empty="no pages")
    else:
        click.echo(pages[topic], nl=False)
    return Exit.CLEAN


def _folder() -> Path:
    return Path(str(resources.files("gmemstate"))) / "docs"


def _title(page: str) -> str:
    """The first heading of a page."""
    return next((line.removeprefix("# ") for line in page.splitlines() if line.startswith("# ")), "")
