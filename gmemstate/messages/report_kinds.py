"""Kinds of reports of the kernel: what each does to the host, and why (``report_kinds.toml``)."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources


class Effect(StrEnum):
    """What the kind of report alone says of the host."""

    MEMORY_OVERWRITTEN = "memory overwritten"
    """possibly: whose, is not known"""
    LOCKS_HELD = "locks held"
    """by a task that is dead"""
    NOTHING = "nothing"
    KERNEL_DEAD = "kernel dead"
    UNKNOWN = "unknown"


class TaskState(StrEnum):
    """What the task of a report does meanwhile."""

    GOES_ON = "goes on"
    RUNS = "runs"
    """and does not come to an end"""
    WAITS = "waits"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ReportKind:
    """A kind of report. ``states``: its header names a function in which the thing happened."""

    what: str
    effect: Effect
    reason: str
    task: TaskState
    states: bool = False
    when: Mapping[str, str] = field(default_factory=dict)


PANIC = "a panic followed: the kernel stops"


@cache
def report_kinds() -> tuple[ReportKind, ...]:
    """All rows of the table, in the order in which they are tried."""
    content = tomllib.loads(resources.files(__package__).joinpath("report_kinds.toml").read_text(encoding="utf-8"))
    return tuple(
        ReportKind(**{**row, "effect": Effect(row["effect"]), "task": TaskState(row["task"])}) for row in content["kind"]
    )


def report_kind(words: Mapping[str, object]) -> ReportKind | None:
    """The row for the detail of a report: by its ``what``, then by its other words; None for what is no report."""
    return next((one for one in report_kinds() if one.what == words.get("what") and _fits(one.when, words)), None)


def effect_of(words: Mapping[str, object]) -> tuple[Effect, str] | None:
    """What a report does to the host and why; None for what is no report. A panic after it ends the kernel."""
    if words.get("panic"):
        return Effect.KERNEL_DEAD, PANIC
    known = report_kind(words)
    return None if known is None else (known.effect, known.reason)


def states_a_function(what: str) -> bool:
    """Whether reports of a kind name a function in which the thing happened."""
    return any(one.states for one in report_kinds() if one.what == what)


def _fits(when: Mapping[str, str], words: Mapping[str, object]) -> bool:
    return all(re.fullmatch(pattern, str(words.get(name, ""))) for name, pattern in when.items())
