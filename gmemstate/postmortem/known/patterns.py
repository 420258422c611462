"""Patterns of facts: how known problems and the meanings of reports are recognised."""

import re
from collections.abc import Callable, Mapping
from functools import cache

Facts = Mapping[str, str]
"""Facts of a report by their names, or a pattern for each of them."""


def fits(wanted: Facts, known: Facts) -> bool:
    """Whether each pattern fits the whole of the fact of its name; a fact that is not known fits nothing."""
    return all(name in known and _matcher(pattern)(known[name]) for name, pattern in wanted.items())


@cache
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(pattern, re.DOTALL).fullmatch


def filled(template: str, known: Facts) -> str:
    """A text with facts in the place of their names in braces; what is not known reads "not known"."""
    return re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], "not known"), template)


def gaps_in(template: str, known: Facts) -> bool:
    """Whether a text names a fact in braces that is not known."""
    return any(known.get(name, "not known") == "not known" for name in re.findall(r"\{(\w+)\}", template))
