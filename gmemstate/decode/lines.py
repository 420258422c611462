"""A pasted line or word: what kind of line it is, which of its words are worth explaining, and where they stand."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gmemstate.decode import addresses, errnos, words
from gmemstate.decode.forms import FORMS
from gmemstate.decode.groups import GUESSED, Piece, read_group
from gmemstate.decode.meaning import Meaning

MAX_LINE = 4096
"""What a line has beyond this is not looked at."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line: where it begins (``column``, from 1) and everything that it may mean, the most plausible first.

    ``certain`` is False where the meanings are possibilities, even if there is but one.
    """

    column: int
    text: str
    meanings: tuple[Meaning, ...]
    certain: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What a line or a single word says: who prints such lines and what they tell, and the words in it."""

    text: str
    forms: tuple[tuple[str, str], ...]
    words: tuple[Word, ...]

    @property
    def known(self) -> bool:
        """Whether anything in it is known."""
        return bool(self.forms) or any(word.meanings for word in self.words)


_SPELLING = re.compile(r"_IOC\([^()]*\)|\((?:0x[0-9a-fA-F]+(?:, )?){3}\)").fullmatch
_TOKEN = re.compile(r"(?<![\w.-])(?:_IOC\([^()]{1,80}\)|[A-Za-z0-9](?:[\w.]*[A-Za-z0-9])?)(?![\w-])", re.ASCII).finditer


def read(text: str) -> Reading:
    """Explain a word or a line; nothing raises, what nobody knows is a reading that is not ``known``."""
    line = text.strip()[:MAX_LINE]
    if (
        not re.search(r"\s", line)
        or _SPELLING(line)
        or errnos.errno_of(line) is not None
        or addresses.address_of(line) is not None
    ):
        bare = line.strip("\"'`,;[]") or line
        whole = words.ranked(bare)
        if whole or not re.search(r"[=:(]", bare):
            certain = len(whole) == 1 and whole[0][0] is words.Rank.SURE
            return Reading(line, (), (Word(line.index(bare) + 1, bare, tuple(meaning for _, meaning in whole), certain),))
    return _line(line)


def recognised(text: str) -> bool:
    """Whether a text has the form of a line that is known, so that words typed apart belong together."""
    return any(form.pattern.search(text[:MAX_LINE]) for form in FORMS)


def _line(line: str) -> Reading:
    forms: dict[tuple[str, str], None] = {}
    found: dict[int, Word] = {}
    taken: list[tuple[int, int]] = []
    for form in FORMS:
        for match in form.pattern.finditer(line):
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            forms[form.who, form.says] = None
            for word in _of_match(match, line):
                found[word.column] = word
    for word in _sure(line, taken):
        found.setdefault(word.column, word)
    return Reading(line, tuple(forms), tuple(found[column] for column in sorted(found)))


def _of_match(match: re.Match[str], line: str) -> Iterator[Word]:
    groups = match.groupdict()
    for name, text in groups.items():
        if text is not None:
            meanings = read_group(name, Piece(text, groups, line))
            if meanings:
                yield Word(match.start(name) + 1, text, meanings, len(meanings) == 1 and name not in GUESSED)


def _sure(line: str, taken: list[tuple[int, int]]) -> Iterator[Word]:
    """Words that mean one thing wherever they stand."""
    for match in _TOKEN(line):
        if not any(match.start() < end and start < match.end() for start, end in taken):
            text = match[0]
            meanings = words.sure(text) if len(text) > 3 else ()
            if meanings:
                yield Word(match.start() + 1, text, meanings, len(meanings) == 1)
