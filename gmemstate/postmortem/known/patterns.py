"""An event as words, and patterns that must fit them: how known problems and the meanings of reports are recognised."""

import re
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from gmemstate.model.events import EventRow, details, event_of
from gmemstate.postmortem import words

_HEX = frozenset(("start", "pfn", "iova", "address", "flags", "status"))
_LEFT_OUT = frozenset(("t", "line", "source", "detail"))

Facts = Mapping[str, str]


def facts(row: EventRow) -> dict[str, str]:
    """An event as words: its kind, its columns, and what its detail holds; a result by the name of its errno.

    Addresses in pages are ``gfn`` and ``pages``, whatever column or detail they stand in.
    """
    event = event_of(row)
    found: dict[str, Any] = {**details(event.detail), "kind": type(event).name}
    for field in fields(event):
        value = getattr(event, field.name)
        if value is not None and field.name not in _LEFT_OUT:
            found[field.name] = _word(field.name, value)
    for name, known in (("gfn", "start"), ("pages", "npages")):
        if known in found:
            found.setdefault(name, found[known])
    return {name: _shown(value) for name, value in found.items()}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} = {part}" for name, part in value.items())
    if isinstance(value, list) and all(isinstance(run, list) and len(run) == 2 for run in value):
        return ", ".join(f"[{first},{behind})" for first, behind in value)
    return value if isinstance(value, str) else repr(value)


def _word(name: str, value: Any) -> str:
    if name == "result":
        return words.errno_name(value)
    if isinstance(value, Enum):
        return value.name
    return hex(value) if name in _HEX else str(value)


def fits(wanted: Facts, known: Facts) -> bool:
    """Whether each pattern fits the whole of the fact of its name; a fact that is not known fits nothing."""
    return all(name in known and re.fullmatch(pattern, known[name], re.DOTALL) for name, pattern in wanted.items())


def gaps_in(template: str, known: Facts) -> bool:
    """Whether a text names a fact in braces that is not known."""
    return any(known.get(name, "not known") == "not known" for name in re.findall(r"\{(\w+)\}", template))
