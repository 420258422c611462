"""Known problems: small files that say what one looks like, what it means, and what mends it.

A problem is claimed only with the evidence that fits and with what is missing to be certain.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.audit.history import History
from gmemstate.model.events import DETAIL, KIND, KINDS, RESULT, EventRow, details
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident


@dataclass(frozen=True, slots=True)
class Signature:
    """A known problem. ``match`` maps facts of an event to patterns that must fit them whole; ``with_`` those of other events."""

    name: str
    title: str
    match: dict[str, str]
    also: tuple[dict[str, str], ...]
    fits: str
    missing: str
    means: str
    remedy: str
    seen_in: str
    fixed_in: str


@cache
def catalogue() -> tuple[Signature, ...]:
    """All known problems, by the names of their files."""
    folder = Path(str(resources.files("gmemstate"))) / "data" / "signatures"
    return tuple(_read(path) for path in sorted(folder.glob("*.toml")))


def _read(path: Path) -> Signature:
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return Signature(
        name=path.stem,
        title=content["title"],
        match=content["match"],
        also=tuple(content.get("also", ())),
        fits=content["fits"],
        missing=content.get("missing", ""),
        means=content["means"],
        remedy=content["remedy"],
        seen_in=content["seen_in"],
        fixed_in=content.get("fixed_in", ""),
    )


def matches(history: History, incident: Incident) -> Iterator[str]:
    """What is known of an incident, in words: the problem, what fits, what is missing, what mends it."""
    own = [
        _facts(row)
        for row in (*(history.marks[entry.id] for entry in incident.entries if entry.id in history.marks), *incident.reports)
    ]
    own += [
        {"kind": "convert_returned", "result": words.errno_name(conversion.result), "to": conversion.target or ""}
        for conversion in incident.conversions
    ]
    everything = [_facts(row) for row in (*history.marks.values(), *history.reports)]
    for known in catalogue():
        if any(_fits(known.match, facts) for facts in own) and all(
            any(_fits(wanted, facts) for facts in everything) for wanted in known.also
        ):
            certain = "likely" if known.missing else "known"
            missing = f" Missing: {known.missing}." if known.missing else ""
            fixed = f" Fixed in: {known.fixed_in}." if known.fixed_in else ""
            yield f"{certain}: {known.title}. Fits: {known.fits}.{missing} {known.means}. {known.remedy}. Seen in: {known.seen_in}.{fixed}"


def _facts(row: EventRow) -> dict[str, str]:
    """An event as words: its kind, its result, and what its detail holds."""
    facts: dict[str, Any] = {"kind": KINDS[row[KIND]].name, **details(row[DETAIL])}
    if row[RESULT] is not None:
        facts["result"] = words.errno_name(row[RESULT])
    return {name: fact if isinstance(fact, str) else repr(fact) for name, fact in facts.items()}


def _fits(wanted: dict[str, str], facts: dict[str, str]) -> bool:
    return all(name in facts and re.fullmatch(pattern, facts[name], re.DOTALL) for name, pattern in wanted.items())
