"""The verb ``decode``: explain words, numbers and lines that kernels, VMMs and tracers print."""

import re
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from gmemstate import Listing, UsageError
from gmemstate.cli import render
from gmemstate.cli.exits import Exit, echo, talk
from gmemstate.cli.options import json_option
from gmemstate.ledger.explain import MAX_LINE, Explanation, explain, recognised
from gmemstate.text import printable

if TYPE_CHECKING:
    from gmemstate import Word

LIMIT = 64 << 10
"""A line of standard input is read in pieces of this many bytes."""
SHOWN = 5
"""How many unknown lines of standard input are named."""
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m")
"""How dmesg and others colour what they print; not a part of the words."""


EXAMPLES = """\b
Examples:
  gmemstate decode 0xc0000b0d00000001 -14 KVM_EXIT_MEMORY_FAULT gpa:0x4000000
  gmemstate decode 'SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001'
  dmesg | gmemstate decode -
"""


@click.command(epilog=EXAMPLES, context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[WORD|LINE]...")
@json_option()
def decode(words: tuple[str, ...], as_json: bool) -> Exit:
    """Explain a word, number or line of a kernel, VMM or tracer.

    Statuses of TDX, errnos, ioctls, RMP entries, exit reasons, hypercalls, page table entries, addresses. Without words, or
    with `-`, lines are read from standard input.

    A word that may mean several things is given with all of them, the most plausible first. Exits with 3 if something is not
    known.
    """
    typed = bool(words) and words != ("-",)
    found: list[Explanation] = []
    seen = unknown = 0
    for number, reading in _typed(words) if typed else _piped():
        seen += 1
        if as_json:
            found.append(reading)
        elif reading.known:
            echo("\n".join(_fitted(_lines(reading))))
        if not reading.known:
            unknown += 1
            if typed:
                talk(f"{reading.text}: not known (write a bare address as gpa:0x... or gfn:0x...)")
            elif unknown <= SHOWN:
                talk(f"line {number}: nothing known in it: {reading.text[:200]}")
    if not seen:
        raise UsageError("there is nothing to decode: give a word or a line, or pipe lines into `gmemstate decode -`")
    if as_json:
        render.as_json(Listing(tuple(found)))
    if unknown > SHOWN and not typed:
        talk(f"{unknown} of {seen} lines hold nothing that is known")
    return Exit.INCOMPLETE if unknown else Exit.CLEAN


def _typed(words: tuple[str, ...]) -> Iterator[tuple[int, Explanation]]:
    """Words from the command line; a line that the shell took apart is put together again."""
    line = " ".join(words)
    apart = not any(recognised(word) for word in words) and recognised(line)
    for number, text in enumerate((line,) if apart else words, 1):
        yield from _read(number, text)


def _piped() -> Iterator[tuple[int, Explanation]]:
    """The lines of standard input; none from a terminal, where nobody knows that something is waited for."""
    if sys.stdin.isatty():
        return
    for number, raw in enumerate(iter(lambda: sys.stdin.buffer.readline(LIMIT), b""), 1):
        yield from _read(number, raw.decode("utf-8", "replace"))


def _read(number: int, text: str) -> Iterator[tuple[int, Explanation]]:
    # Cleaned first, so that nothing that a terminal obeys gets any further; columns count in what is shown.
    clean = printable(_COLOUR.sub("", text).strip())
    if len(clean) > MAX_LINE:
        talk(f"line {number}: only its first {MAX_LINE} characters are looked at")
    if clean:
        yield number, explain(clean)


def _fitted(lines: Iterable[str]) -> Iterator[str]:
    """Lines folded to a terminal, below where they begin; as they are in a pipe."""
    if sys.stdout is None or not sys.stdout.isatty():
        yield from lines
        return
    import shutil
    import textwrap

    width = shutil.get_terminal_size().columns
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        yield from textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [line]


def _lines(reading: Explanation) -> Iterator[str]:
    """A reading for people: the line, who prints such lines, and its words with their columns."""
    whole = not reading.forms and len(reading.words) == 1 and reading.words[0].text == reading.text
    yield reading.text
    for form in reading.forms:
        yield f"  {form.who}: {form.says}"
    for word in reading.words:
        if not whole:
            yield f"  {word.column}: {word.text}"
        yield from _meanings(word, "  " if whole else "    ")
    sources = dict.fromkeys(meaning.source for word in reading.words for meaning in word.meanings if meaning.source)
    if sources:
        yield f"  sources: {'; '.join(sources)}"


def _meanings(word: "Word", indent: str) -> Iterator[str]:
    for meaning in word.meanings:
        yield f"{indent}{'' if word.certain else 'possibly '}{meaning.kind}: {meaning.text}"
        width = max((len(name) for name, _ in meaning.details), default=0)
        for name, said in meaning.details:
            yield f"{indent}    {name.ljust(width)}  {said}"
