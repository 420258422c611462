"""Functions of the kernel, by what their presence on a stack tells (``functions.toml``).

A stack proves that a task was in its functions, not that one of them failed.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources


@cache
def _tables() -> Mapping[str, Mapping[str, list[str]]]:
    return tomllib.loads(resources.files(__package__).joinpath("functions.toml").read_text(encoding="utf-8"))


@cache
def _helpers() -> tuple[frozenset[str], tuple[str, ...]]:
    table = _tables()["helpers"]
    return frozenset(name for group, names in table.items() if group != "prefixes" for name in names), tuple(table["prefixes"])


@cache
def _owner(table: str) -> Mapping[str, str]:
    return {function: group for group, functions in _tables()[table].items() for function in functions}


LESS = frozenset(("free", "vm ioctl"))
"""Ways that are only part of others, which tell more."""
SHOWN = 8
"""How many functions that work on private memory are listed of one stack."""


def plain(function: str) -> str:
    """The name of a function without what the compiler appended."""
    return function.partition(".")[0]


def is_helper(function: str) -> bool:
    """Whether a function only reports, locks, copies, enters or schedules: it is never the one that something happened in."""
    names, prefixes = _helpers()
    return plain(function) in names or function.startswith(prefixes)


def culprit(functions: Iterable[str]) -> str | None:
    """The first function that is no helper."""
    return next((plain(name) for name in functions if not is_helper(name)), None)


def entry_path(frames: Sequence[str]) -> str | None:
    """By which way the kernel was entered, innermost frame first; None where no frame tells."""
    found = [path for frame in frames if (path := _owner("paths").get(plain(frame))) is not None]
    return next((path for path in found if path not in LESS), found[0] if found else None)


def about(frames: Sequence[str]) -> str | None:
    """Which step of the life of a private page the innermost frames are; None where they are something else."""
    return next((what for frame in frames[:5] if (what := _owner("about").get(plain(frame))) is not None), None)


def inside(frames: Sequence[str]) -> list[str]:
    """The functions among them that work on private memory: the task was in them."""
    known = (_owner("about"), _owner("paths"), _owner("inside"))
    return list(dict.fromkeys(name for frame in frames if any((name := plain(frame)) in table for table in known)))[:SHOWN]


def of_a_guest(frames: Iterable[str]) -> bool:
    """Whether a stack has a function that only the kernel of a protected guest runs."""
    return any(plain(frame) in _owner("guest") for frame in frames)
