"""Forms of messages: a pattern whose named parts are the numbers and words of a fact."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NO_WORDS: Mapping[str, str] = MappingProxyType({})

_PARTS = {
    "h": r"(?:0x)?+[0-9a-fA-F]{1,16}+(?![0-9a-zA-Z])",
    "d": r"-?[0-9]{1,19}+(?![0-9])",
    "w": r"[^\s,;()]{1,200}",
}
"""Hexadecimal with or without 0x, decimal, a word."""

_PLACEHOLDER = re.compile(r"<(\w+):([hdw])>")


class ParsedMessage(NamedTuple):
    """What a message says, without its time and its thread: ``args`` its numbers, ``words`` its named texts, ``text`` all of it."""

    name: str
    args: Mapping[str, int]
    text: str = ""
    words: Mapping[str, str] = NO_WORDS


class Form(NamedTuple):
    """One kind of message: the name of its fact, where its numbers and words stand, and what the form itself says."""

    name: str
    pattern: re.Pattern[str]
    bases: Mapping[str, int]
    """the groups that are numbers, and their base"""
    fixed: Mapping[str, str]

    def said(self, text: str) -> ParsedMessage | None:
        """What a text of this form says; it may stand anywhere in it."""
        match = self.pattern.search(text)
        if match is None:
            return None
        args: dict[str, int] = {}
        words = dict(self.fixed)
        for name, found in match.groupdict().items():
            if found is None:
                continue
            if name in self.bases:
                args[name] = int(found, self.bases[name])
            else:
                words[name] = found
        return ParsedMessage(self.name, args, text, words)


def form(name: str, pattern: str, **fixed: str) -> Form:
    """A form. ``<name:h>`` is a number in hexadecimal, ``<name:d>`` in decimal, ``<name:w>`` a word; ``(?P<name>...)`` is a text."""
    bases = {found[1]: 16 if found[2] == "h" else 10 for found in _PLACEHOLDER.finditer(pattern) if found[2] != "w"}
    return Form(name, re.compile(_PLACEHOLDER.sub(_named, pattern), re.ASCII), bases, fixed)


def _named(match: re.Match[str]) -> str:
    return f"(?P<{match[1]}>{_PARTS[match[2]]})"


def first(forms: tuple[Form, ...], text: str) -> ParsedMessage | None:
    """What the first form that fits says."""
    for candidate in forms:
        said = candidate.said(text)
        if said is not None:
            return said
    return None
