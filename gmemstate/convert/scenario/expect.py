"""Reading what a scenario expects: each fact in its form, as the facts of a simulation are written."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.scenario.tables import ScenarioTable
from gmemstate.convert.simulation.facts import ERRNOS, FORMS, LIST, NUMBER, PAGES, STUCK, TABLE, VERDICTS, VM, words
from gmemstate.model.verdict import Label

_PAGES = re.compile(r"(gmem \d+: )?(.*?)( WARN)?")
"""Pages, of which guest_memfd if it is not the first, and that their rollback has failed."""

Expected = dict[tuple[str | None, str | None], dict[str, Any]]


def expectations(top: ScenarioTable, users: Iterable[str]) -> tuple[Expected, list[str]]:
    """What is expected of ``(dialect, policy)`` (None: any), and the dialects that are named. Raises BadScenario."""
    users = tuple(users)
    everybody = top.table("expect", (*DIALECT_NAMES, *FORMS))
    found: Expected = {(None, None): _facts(everybody, users)}
    named = [key for key in everybody.content if key in DIALECT_NAMES]
    for dialect in named:
        possible = [policy.value for policy in POLICIES[DIALECT_NAMES[dialect]]]
        table = everybody.table(dialect, (*Policy, *FORMS))
        found[dialect, None] = _facts(table, users)
        for policy in (policy.value for policy in Policy if policy in table):
            if policy not in possible:
                raise table.bad(policy, f"{dialect} cannot have this policy; it can have {', '.join(possible)}")
            found[dialect, policy] = _facts(table.table(policy, FORMS), users)
    return found, named


def _facts(table: ScenarioTable, users: tuple[str, ...]) -> dict[str, Any]:
    return {fact: _FORMS[FORMS[fact]](table, fact, users) for fact in table.content if fact in FORMS}


def _errnos(table: ScenarioTable, fact: str, _: tuple[str, ...]) -> list[str]:
    table.errnos(fact, STUCK)  # complains about what is none
    return [str(value) for value in table.items(fact)]


def _pages(table: ScenarioTable, fact: str, value: Any) -> str:
    mark, pages, failed = _PAGES.fullmatch(str(value)).groups("")  # type: ignore[union-attr]
    (run,) = words([table.run(fact, pages if mark or failed else value)])
    return f"{mark}{run}{failed}"


def _table(table: ScenarioTable, fact: str, users: tuple[str, ...]) -> dict[str, list[str]]:
    """What is expected of each user."""
    content = table.content[fact]
    inner = table.table(fact, tuple(content) if isinstance(content, dict) else ())
    for key in inner.content:
        if key not in users:
            raise inner.bad(key, f"{key!r} is no user; there are {', '.join(users) or 'none'}")
    return {key: [_pages(inner, key, value) for value in inner.items(key)] for key in inner.content}


_FORMS: dict[str, Callable[[ScenarioTable, str, tuple[str, ...]], Any]] = {
    LIST: lambda table, fact, _: table.items(fact),
    ERRNOS: _errnos,
    VERDICTS: lambda table, fact, _: table.choices(fact, [*Label]),
    PAGES: lambda table, fact, _: [_pages(table, fact, value) for value in table.items(fact)],
    TABLE: _table,
    NUMBER: lambda table, fact, _: table.number(fact),
    VM: lambda table, fact, _: table.choice(fact, ("ok", "bugged", "dead")),
}
