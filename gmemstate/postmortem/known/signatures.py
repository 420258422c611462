"""Known problems: small files that say what one looks like, what it means, and what mends it.

A problem is claimed only with the lines that fit, and with what is missing to be certain.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.model.events import SEQ, EventRow
from gmemstate.postmortem import words
from gmemstate.postmortem.incidents import Incident
from gmemstate.postmortem.known.patterns import Facts, facts, fits
from gmemstate.postmortem.stories.platform import Platform
from gmemstate.postmortem.story import cited


@dataclass(frozen=True, slots=True)
class Signature:
    """A known problem. ``match``: patterns of which one must fit an event of the incident; each pattern of ``also`` an event anywhere.

    Each pattern of ``confirm`` that fits no event of the record leaves a doubt, and says what evidence would take it away.
    """

    name: str
    title: str
    match: tuple[Mapping[str, str], ...]
    also: tuple[Mapping[str, str], ...]
    confirm: tuple[tuple[Mapping[str, str], str], ...]
    fits: str
    missing: str
    """what no record can show, and the command that does"""
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
    content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    match = content["match"]
    return Signature(
        name=path.stem,
        title=content["title"],
        match=tuple(match) if isinstance(match, list) else (match,),
        also=tuple(content.get("also", ())),
        confirm=tuple((_without(one, "missing"), one["missing"]) for one in content.get("confirm", ())),
        fits=content["fits"],
        missing=content.get("missing", ""),
        means=content["means"],
        remedy=content["remedy"],
        seen_in=content["seen_in"],
        fixed_in=content.get("fixed_in", ""),
    )


def _without(table: Mapping[str, str], name: str) -> Mapping[str, str]:
    return {key: value for key, value in table.items() if key != name}


Known = tuple[Facts, EventRow | None]
"""An event as words, and the row that a line can be cited of."""


def everything(history: History) -> dict[int, Known]:
    """All that a known problem may be about, by seq."""
    platform = Platform.of(history)
    return {row[SEQ]: (platform.place(facts(row)), row) for row in (*history.marks.values(), *history.reports)}


def matches(history: History, incident: Incident, returned: Mapping[int, Known]) -> Iterator[str]:
    """What is known of an incident, in words: the problem, the lines that fit, what is missing, what mends it."""
    own = [returned[entry.id] for entry in incident.entries if entry.id in returned]
    own += [returned.get(row[SEQ], (facts(row), row)) for row in incident.reports]
    own += [
        ({"kind": "convert_returned", "result": words.errno_name(conversion.result), "to": conversion.target or ""}, None)
        for conversion in incident.conversions
    ]
    if not own:
        return
    for signature in catalogue():
        fitting = [one for pattern in signature.match for one in own if fits(pattern, one[0])]
        if not fitting:
            continue
        beside = [[one for one in returned.values() if fits(pattern, one[0])] for pattern in signature.also]
        if all(beside):
            confirmed = [[one for one in returned.values() if fits(pattern, one[0])] for pattern, _ in signature.confirm]
            doubts = [text for (_, text), found in zip(signature.confirm, confirmed, strict=True) if not found]
            doubts += [signature.missing] if signature.missing else []
            seen = [*fitting[:4], *(one for found in (*beside, *confirmed) for one in found[:2])]
            yield _claim(history, signature, seen, doubts)


def _claim(history: History, signature: Signature, seen: list[Known], doubts: list[str]) -> str:
    rows = list({row[0]: row for _, row in seen if row is not None}.values())
    lines = cited(sorted(set(words.evidence(history, rows))))
    return (
        f"{'likely' if doubts else 'known'}: {signature.title}. Fits: {signature.fits}{f' ({lines})' if lines else ''}."
        + "".join(f" Missing: {doubt}." for doubt in doubts)
        + f" {signature.means}. {signature.remedy}. Seen in: {signature.seen_in}."
        + (f" Fixed in: {signature.fixed_in}." if signature.fixed_in else "")
    )
