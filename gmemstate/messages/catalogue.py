"""The catalogue of messages: what kernels, VMMs and tracers print, for ``decode`` and for all readers of logs.

Each file ``*.toml`` of this package holds the messages of one speaker, in the order in which they are tried. An entry has

``line``      a regular expression, with fields in it: ``<name>`` (of the type ``name``, see :mod:`gmemstate.messages.fields`),
              ``<name:type>``, and ``<name=pattern>`` or ``<name:type=pattern>`` for one that is written in another way;
``says``      what it means;
``example``   a line of this form;
``fact``      what readers make of it (without one, only ``decode`` explains it);
``words``     what this wording adds to the fact;
``call``      the call that an errno in it is the result of;
``trace``     that it is a trace event of a VMM, of which a line may have several;
``speaker``, ``source``   where they are other than those of the file.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from gmemstate.messages.fields import TYPES, FieldType

NO_WORDS: Mapping[str, str] = MappingProxyType({})

KERNEL = ("tdx", "platform", "owner", "snp", "memory", "host")
"""Messages of a kernel that are complete in a line."""
VMMS = ("qemu", "other_vmms")
DECODED = (*KERNEL, "reports", "report_lines", "traces", "syscalls", *VMMS, "parts")
"""All files, in the order in which ``decode`` tries them."""

_FIELD = re.compile(r"(?<!\?P)<(\w+)(?::(\w+))?(?:=([^<>]*))?>")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[*+?]\+?|\{[\d,]+\}\+?|.", re.DOTALL)


class ParsedMessage(NamedTuple):
    """A message without its time and its thread: ``args`` its numbers, ``words`` its named texts, ``text`` all of it."""

    name: str
    args: Mapping[str, int]
    text: str = ""
    words: Mapping[str, str] = NO_WORDS


@dataclass(frozen=True)
class Message:
    """A kind of line. It may stand anywhere in a line."""

    speaker: str
    line: str
    says: str
    example: str
    source: str = ""
    fact: str | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    call: str | None = None
    trace: bool = False

    @cached_property
    def types(self) -> Mapping[str, FieldType]:
        """The types of the fields, by their names. Raises KeyError for a type that does not exist."""
        return {
            name: TYPES["text" if pattern and not kind and name not in TYPES else kind or name]
            for name, kind, pattern in _FIELD.findall(self.line)
        }

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression with its fields as named groups."""
        return re.compile(
            _FIELD.sub(lambda match: f"(?P<{match[1]}>{match[3] or self.types[match[1]].pattern})", self.line), re.ASCII
        )

    @cached_property
    def literal(self) -> str:
        """The longest text that each line of this form has."""
        best, run, depth = "", "", 0
        line = self.line.removeprefix("(?P<text>") if self.line.endswith(")") else self.line  # all of it is the text
        for token in _TOKEN.findall(_FIELD.sub(r"\\w", line)):
            depth += (token == "(") - (token == ")")
            plain = token[1:] if token[0] == "\\" and not token[1:].isalnum() else token
            if token == "|" and not depth:
                return ""
            if depth or len(plain) > 1 or (plain in "()[].^$*+?{}|" and plain is token):
                run = run[:-1] if token[0] in "*?{" else run
                best, run = max(best, run, key=len), ""
            else:
                run += plain
        return max(best, run, key=len)

    def values(self, match: re.Match[str]) -> tuple[dict[str, int], dict[str, str]]:
        """The numbers and the texts of the fields of a match."""
        numbers, texts = {}, {}
        for name, text in match.groupdict().items():
            if text is not None and (base := self.types.get(name, TYPES["text"]).base) is not None:
                numbers[name] = int(text, base)
            elif text is not None:
                texts[name] = text
        return numbers, texts

    def search(self, text: str) -> re.Match[str] | None:
        """Where a text has this form."""
        return self.pattern.search(text) if self.literal in text else None

    def parsed(self, match: re.Match[str]) -> ParsedMessage | None:
        """What a match says; None where a number cannot be what it is said to be: the line is damaged."""
        numbers, texts = self.values(match)
        if any(number >= (self.types[name].end or number + 1) for name, number in numbers.items()):
            return None
        return ParsedMessage(self.fact or "", numbers, match.string, {**self.words, **texts})


@cache
def messages(*files: str) -> tuple[Message, ...]:
    """The messages of some files of the catalogue, in their order."""
    return tuple(message for name in files for message in _load(name))


@cache
def facts(*files: str) -> tuple[Message, ...]:
    """The messages of some files that readers make facts of."""
    return tuple(message for message in messages(*files) if message.fact is not None)


@cache
def _load(name: str) -> tuple[Message, ...]:
    content = tomllib.loads(resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8"))
    common = {key: content[key] for key in ("speaker", "source") if key in content}
    return tuple(Message(**{**common, **entry}) for entry in content["message"])


def first(known: tuple[Message, ...], text: str) -> tuple[Message, re.Match[str]] | None:
    """The first message that a text has the form of, and where."""
    for message in known:
        if message.literal in text and (match := message.pattern.search(text)):
            return message, match
    return None
