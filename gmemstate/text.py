"""Text as all output writes it: counted things, lists, columns, and names of others without control characters."""

import re
from collections.abc import Iterable, Iterator, Sequence


def printable(text: str) -> str:
    """A text of others without control characters: each stands as an escape, so that no terminal obeys it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}" for char in text
    )


def plain_lines(text: str) -> str:
    """Lines of which none has anything that a terminal obeys or that hides or turns text: it stands there as an escape."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def count(n: int, thing: str, plural: str | None = None) -> str:
    """A number of things: ``1 page``, ``3 pages``."""
    return f"{n} {thing}" if n == 1 else f"{n} {plural or thing + 's'}"


def columns(rows: Sequence[Sequence[str]], gap: str = "  ") -> Iterator[str]:
    """Rows of cells as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield gap.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def some(items: Iterable[str], limit: int) -> str:
    """At most ``limit`` items, separated by commas; a longer list by its first one and the number of the others."""
    listed = list(items)
    return ", ".join(listed) if len(listed) <= limit else f"{listed[0]} and {len(listed) - 1} more"


def named(where: str) -> str:
    """The name of a ledger, or a sentence with one in it, as it may be shown: of a URL the server and the database only."""
    if "://" in where:
        where = re.sub(r"(://\S*?)\?(\S*?)(?=[:;,]?(?:\s|$))", _server, re.sub(r"://[^\n]*@", "://", where))
    return re.sub(r"(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]+)", r"\1***", where)


def _server(url: re.Match[str]) -> str:
    """A URL of which the query says no more than where the server is."""
    kept = "&".join(part for part in url[2].split("&") if part.startswith(("host=", "port=")))
    return url[1] + (f"?{kept}" if kept else "")
