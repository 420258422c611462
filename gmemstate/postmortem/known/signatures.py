"""Known problems: small files that say what one looks like, what it means, and what mends it.

A problem is claimed only with the lines that fit, and with what is missing to be certain.
"""

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.postmortem import words
from gmemstate.postmortem.incident import KnownProblem
from gmemstate.postmortem.known.patterns import Facts, fits
from gmemstate.postmortem.reports import ReportedEvent, Reports


@dataclass(frozen=True, slots=True)
class Signature:
    """A known problem. One pattern of ``match`` must fit an event of the incident, each of ``also`` some event of the record.

    Each pattern of ``confirm`` that fits no event of the record makes it only likely, and says what evidence is missing.
    """

    name: str
    title: str
    match: tuple[Facts, ...]
    also: tuple[Facts, ...]
    confirm: tuple[tuple[Facts, str], ...]
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
        confirm=tuple((one, one.pop("missing")) for one in content.get("confirm", ())),
        fits=content["fits"],
        missing=content.get("missing", ""),
        means=content["means"],
        remedy=content["remedy"],
        seen_in=content["seen_in"],
        fixed_in=content.get("fixed_in", ""),
    )


Own = tuple[Facts, ReportedEvent | None]
"""Facts of an incident, and the event that they are of, where lines can be cited."""


def known_problems(history: History, reports: Reports, own: list[Own]) -> Iterator[KnownProblem]:
    """The known problems that fit the facts of an incident, with the lines that fit and the evidence that is missing."""
    for signature in catalogue() if own else ():
        fitting = [report for pattern in signature.match for facts, report in own if fits(pattern, facts)]
        if not fitting:
            continue
        also = [_all_that_fit(reports, pattern) for pattern in signature.also]
        if all(also):
            confirmed = [_all_that_fit(reports, pattern) for pattern, _ in signature.confirm]
            missing = [text for (_, text), found in zip(signature.confirm, confirmed, strict=True) if not found]
            missing += [signature.missing] if signature.missing else []
            shown = [
                *(one for one in fitting[:4] if one is not None),
                *(one for found in (*also, *confirmed) for one in found[:2]),
            ]
            yield KnownProblem(
                name=signature.name,
                title=signature.title,
                fits=signature.fits,
                evidence=tuple(sorted(set(words.evidence(history, shown)))),
                missing=tuple(missing),
                means=signature.means,
                remedy=signature.remedy,
                seen_in=signature.seen_in,
                fixed_in=signature.fixed_in,
            )


def _all_that_fit(reports: Reports, pattern: Facts) -> list[ReportedEvent]:
    return [report for report in reports if fits(pattern, report.words)]
