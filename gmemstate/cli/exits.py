"""How a verb ends, and how it speaks to the person besides its answer."""

import sys
from enum import IntEnum

import click

from gmemstate.text import named, plain_lines, printable


class Exit(IntEnum):
    """Exit codes; where several fit, 4 goes before 2, 1, 3 and 0."""

    CLEAN = 0
    FINDINGS = 1
    USAGE = 2
    INCOMPLETE = 3
    CANNOT_READ = 4
    INTERRUPTED = 130


_PRECEDENCE = (Exit.CANNOT_READ, Exit.USAGE, Exit.FINDINGS, Exit.INCOMPLETE, Exit.CLEAN)


def worst(*codes: Exit) -> Exit:
    """The code that counts among several."""
    return next(code for code in _PRECEDENCE if code in codes or code is Exit.CLEAN)


def shown(text: str) -> str:
    """A text as it may be shown: what a terminal would obey is escaped, and passwords in URLs are left out."""
    return printable(named(text))


def echo(text: str = "", *, nl: bool = True, err: bool = False) -> None:
    """Print text of ours and of others: nothing of it is obeyed by a terminal, and what a stream cannot show is replaced."""
    stream = sys.stderr if err else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    click.echo(plain_lines(text).encode(encoding, "backslashreplace").decode(encoding), nl=nl, err=err)


def talk(text: str) -> None:
    """Say one line to the person, not to the pipe."""
    echo(shown(text), err=True)
