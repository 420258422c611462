"""The one shape in which every table answers, and how numbers are read."""

import re
from dataclasses import dataclass
from typing import Protocol

from gmemstate.model.document import Document, Pairs


@dataclass(frozen=True, slots=True)
class Meaning(Document):
    """What a word means: the ``kind`` of word, one line of ``text``, details, and the ``source`` of the figures."""

    kind: str
    text: str
    details: Pairs = ()
    source: str = ""


class Explained(Protocol):
    """A typed result that can say what it is."""

    def meaning(self) -> Meaning:
        """What it means, in words."""
        ...


def said(found: Explained | None) -> Meaning | None:
    """The meaning of a typed result, if there is one."""
    return None if found is None else found.meaning()


def listed(names: list[str]) -> str:
    """Names as a person lists them; ``none`` for none."""
    return ", ".join(names) if names else "none"


def bits(word: int, names: dict[int, str]) -> tuple[list[str], int]:
    """The names of the bits that are set (table of bit numbers), and the bits that have none."""
    found = [name for bit, name in names.items() if word >> bit & 1]
    return found, word & ~sum(1 << bit for bit in names)


_NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]+|[0-9]+)").fullmatch


def number_of(text: str) -> int | None:
    """The number that a text is, in decimal (leading zeros or not) or with 0x; None for anything else."""
    if not _NUMBER(text):
        return None
    return int(text, 16 if "x" in text.lower() else 10)
