"""A pasted line or word explained: which message of the catalogue it is, and what the words in it mean."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from gmemstate.decode import addresses, errnos, words
from gmemstate.decode.meaning import Meaning
from gmemstate.messages.catalogue import DECODED, Message, messages
from gmemstate.messages.fields import TYPES, Piece, explained
from gmemstate.model.document import Document

MAX_LINE = 4096
"""What a line has after so many characters is not read."""


@dataclass(frozen=True, slots=True)
class Word(Document):
    """A word of a line: where it begins (``column``, from 1) and everything that it may mean, the most plausible first.

    ``certain`` is False where the meanings are possibilities, even if there is but one.
    """

    column: int
    text: str
    meanings: tuple[Meaning, ...]
    certain: bool


@dataclass(frozen=True, slots=True)
class Form(Document):
    """A message of the catalogue: who prints such lines, and what they mean."""

    who: str
    says: str


@dataclass(frozen=True, slots=True)
class Explanation(Document):
    """What a line or a single word says: who prints such lines and what they mean (``forms``), and the words in it."""

    text: str
    forms: tuple[Form, ...]
    words: tuple[Word, ...]

    written: ClassVar = ("text", "known", "forms", "words")

    @property
    def known(self) -> bool:
        """Whether anything in it is known."""
        return bool(self.forms) or any(word.meanings for word in self.words)


_SPELLING = re.compile(r"_IOC\([^()]*\)|\((?:0x[0-9a-fA-F]+(?:, )?){3}\)").fullmatch
_TOKEN = re.compile(r"(?<![\w.-])(?:_IOC\([^()]{1,80}\)|[A-Za-z0-9](?:[\w.]*[A-Za-z0-9])?)(?![\w-])", re.ASCII).finditer


def read(text: str) -> Explanation:
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
            return Explanation(line, (), (Word(line.index(bare) + 1, bare, tuple(meaning for _, meaning in whole), certain),))
    return _line(line)


def recognised(text: str) -> bool:
    """Whether a text has the form of a message, so that words typed apart belong together."""
    return any(message.search(text[:MAX_LINE]) for message in messages(*DECODED))


def _line(line: str) -> Explanation:
    forms: dict[Form, None] = {}
    found: dict[int, Word] = {}
    taken: list[tuple[int, int]] = []
    fields: list[tuple[int, int]] = []
    for message in messages(*DECODED):
        for match in message.pattern.finditer(line) if message.literal in line else ():
            if any(match.start() < end and start < match.end() for start, end in taken):
                continue
            taken.append(match.span())
            fields += [match.span(name) for name, kind in message.types.items() if kind is not TYPES["text"] and match[name]]
            forms[Form(message.speaker, message.says)] = None
            for word in _of_match(message, match, line):
                found[word.column] = word
    for word in _sure(line, fields):
        found.setdefault(word.column, word)
    return Explanation(line, tuple(forms), tuple(found[column] for column in sorted(found)))


def _of_match(message: Message, match: re.Match[str], line: str) -> Iterator[Word]:
    numbers, texts = message.values(match)
    for name, text in match.groupdict().items():
        if text is not None:
            kind = message.types.get(name, TYPES["text"])
            meanings = explained(kind, Piece(text, numbers.get(name, 0), numbers, texts, line, message.call))
            if meanings:
                yield Word(match.start(name) + 1, text, meanings, len(meanings) == 1 and kind.certain)


def _sure(line: str, fields: list[tuple[int, int]]) -> Iterator[Word]:
    """Words that mean one thing wherever they stand, outside of the fields of messages."""
    for match in _TOKEN(line):
        if not any(match.start() < end and start < match.end() for start, end in fields):
            text = match[0]
            meanings = words.sure(text) if len(text) > 3 else ()
            if meanings:
                yield Word(match.start() + 1, text, meanings, len(meanings) == 1)
