"""Reading the tables of a scenario file: each value of the kind that is wanted, each complaint with file, line and key."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from gmemstate.decode.errnos import errno_of
from gmemstate.model.errors import CannotRead
from gmemstate.model.linux import PAGE_SHIFT

PageRun = tuple[int, int]
"""Pages ``[start, end)``."""

_HEADER = re.compile(r"\s*\[\[?\s*([\w.\"'-]+)\s*\]?\]")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+")
_PAGES = re.compile(rf"({_NUMBER.pattern})(?:([+-])({_NUMBER.pattern}))?")
U64 = 1 << 64


class BadScenario(CannotRead):
    """A scenario that cannot be read; the text names file, line and key."""

    code = "bad-scenario"


class ScenarioText:
    """The text of a file, and where in it things stand (the TOML reader keeps no lines)."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.sections = list(_sections(self.lines))

    def section(self, header: str, n: int) -> tuple[int, int]:
        """The lines ``[first, last)`` of the ``n``-th table with a header; of the table around it, if it is part of a line."""
        found = [(first, last) for name, first, last in self.sections if name == header]
        if n < len(found):
            return found[n]
        if header:
            return self.section(header.rpartition(".")[0], 0)
        return 0, self.sections[0][1] if self.sections else len(self.lines)

    def line(self, header: str, n: int, key: str) -> int:
        """The number of the line on which a key of a table stands, or else the header of the table."""
        first, last = self.section(header, n)
        pattern = re.compile(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]|.*[{{,]\s*[\"']?{re.escape(key)}[\"']?\s*=")
        hits = [number for number in range(first, last) if pattern.match(self.lines[number])]
        whole = f"{header}.{key}".lstrip(".")  # the key may be a table of its own
        hits += [start for name, start, _ in self.sections if f"{name}.".startswith(f"{whole}.")]
        return (hits[0] if hits else first) + 1


def _sections(lines: list[str]) -> Iterable[tuple[str, int, int]]:
    starts = []
    inside = False
    for number, line in enumerate(lines):
        if not inside and (match := _HEADER.match(line)):
            starts.append((match[1].replace('"', "").replace("'", ""), number))
        inside ^= (line.count('"""') + line.count("'''")) % 2 == 1
    for (name, first), (_, last) in pairwise([*starts, ("", len(lines))]):
        yield name, first, last


class ScenarioTable:
    """One table of a file, the ``n``-th with its ``header`` ("" is the top)."""

    def __init__(self, source: ScenarioText, header: str, n: int, content: Any, known: Iterable[str]) -> None:
        self.source, self.header, self.n = source, header, n
        if not isinstance(content, Mapping):
            raise self.bad(header.rpartition(".")[2], "is a table")
        self.content: Mapping[str, Any] = content
        known = tuple(known)
        for key in content:
            if key not in known:
                raise self.bad(key, f"is not known here; known are {', '.join(known)}")

    def bad(self, key: str, what: str) -> BadScenario:
        """What is wrong with a key, and where."""
        line = self.source.line(self.header, self.n, key)
        return BadScenario(
            f"{self.source.path}:{line}: {key}: {what}; `gmemstate help scenarios` has the format", line=line, key=key
        )

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def need(self, *keys: str) -> None:
        """Check that keys are there. Raises BadScenario."""
        for key in keys:
            if key not in self.content:
                raise self.bad(key, f"is missing{f' in [{self.header}]' if self.header else ''}")

    def tables(self, key: str, known: Iterable[str]) -> list["ScenarioTable"]:
        """The tables of a list of tables. Raises BadScenario."""
        header = f"{self.header}.{key}".lstrip(".")
        content = self.content.get(key, [])
        if not isinstance(content, list):
            raise self.bad(key, f"is a list of tables: write [[{header}]]")
        return [ScenarioTable(self.source, header, n, each, known) for n, each in enumerate(content)]

    def table(self, key: str, known: Iterable[str]) -> "ScenarioTable":
        """A table of the table; an empty one if it is missing."""
        return ScenarioTable(self.source, f"{self.header}.{key}".lstrip("."), 0, self.content.get(key, {}), known)

    # --- values

    def text(self, key: str, default: str = "") -> str:
        """A text. Raises BadScenario."""
        value = self.content.get(key, default)
        if not isinstance(value, str):
            raise self.bad(key, f"{value!r} is no text: put it in quotes")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value. Raises BadScenario."""
        value = self.content.get(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, f"{value!r} is neither true nor false")
        return value

    def number(self, key: str, default: int = 0) -> int:
        """A number that fits into 64 bits, 12, 0xc or "0xc". Raises BadScenario."""
        value = self.content.get(key, default)
        if isinstance(value, str) and _NUMBER.fullmatch(value):
            value = int(value, 16 if value.startswith("0x") else 10)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < U64:
            raise self.bad(key, f"{value!r} is no number from 0 to 2^64 - 1")
        return value

    def one_or_two(self, key: str) -> int:
        """The number of one of two things, 1 unless it is given. Raises BadScenario."""
        value = self.number(key, 1)
        if value not in (1, 2):
            raise self.bad(key, f"{value} is neither 1 nor 2")
        return value

    def choice(self, key: str, among: Iterable[str], default: str = "") -> str:
        """One of a few words."""
        return self._among(key, self.content.get(key, default), among)

    def choices(self, key: str, among: Iterable[str]) -> list[str]:
        """A list of some of a few words."""
        among = tuple(among)
        return [self._among(key, value, among) for value in self.items(key)]

    def _among(self, key: str, value: Any, among: Iterable[str]) -> str:
        among = tuple(among)
        if value not in among:
            raise self.bad(key, f"{value!r} is none of {', '.join(among)}")
        return str(value)

    def items(self, key: str) -> list[Any]:
        """A list. Raises BadScenario."""
        value = self.content.get(key, [])
        if not isinstance(value, list):
            raise self.bad(key, f"{value!r} is no list: write [...]")
        return value

    def errno(self, key: str, default: str = "") -> int:
        """The number of an errno by its name."""
        return self._errno(key, self.content.get(key, default))

    def errnos(self, key: str, besides: str) -> list[int | None]:
        """A list of errnos, 0, and a word besides (None)."""
        return [None if value == besides else 0 if value in (0, "0") else self._errno(key, value) for value in self.items(key)]

    def _errno(self, key: str, value: Any) -> int:
        found = errno_of(value) if isinstance(value, str) and value.isupper() else None
        if found is None:
            raise self.bad(key, f"{value!r} is no errno: write one like EAGAIN")
        return found.number

    def runs(self, key: str, limit: int | None = None) -> tuple[PageRun, ...]:
        """Pages: ``5``, ``"0+16"`` (from page 0, 16 pages), ``"0-16"`` (from 0 to before 16), or a list of these.

        Raises BadScenario.
        """
        value = self.content.get(key, [])
        runs = tuple(self.run(key, each) for each in (value if isinstance(value, list) else [value]))
        for _, end in runs:
            if limit is not None and end > limit:
                raise self.bad(key, f"page {end - 1} is not there: the last one is {limit - 1}")
        return runs

    def page(self, key: str, limit: int) -> int:
        """One page. Raises BadScenario."""
        page = self.number(key)
        if page >= limit:
            raise self.bad(key, f"page {page} is not there: the last one is {limit - 1}")
        return page

    def run(self, key: str, value: Any) -> PageRun:
        """One run of pages. Raises BadScenario."""
        match = _PAGES.fullmatch(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else None
        if match is None:
            raise self.bad(key, f'{value!r} are no pages: write 5, "0+16" or "0-16"')
        start = int(match[1], 0) if match[1].startswith("0x") else int(match[1])
        end = start + 1
        if match[2]:
            end = (int(match[3], 16) if match[3].startswith("0x") else int(match[3])) + (start if match[2] == "+" else 0)
        if not start < end < U64 >> PAGE_SHIFT:
            raise self.bad(key, f"{value!r} is no run of pages: the end comes after the start")
        return start, end


def parse(path: Path) -> tuple[ScenarioText, dict[str, Any]]:
    """The text of a TOML file and its content. Raises BadScenario."""
    if path.is_dir():
        raise BadScenario(f"{path}: is a directory; name a scenario file in it")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadScenario(
            f"{path}: is no text (byte {error.start}); a scenario is a TOML file, see `gmemstate help scenarios`"
        ) from None
    except OSError as error:
        raise BadScenario(f"{path}: cannot be read: {error.strerror}; check path and permissions") from None
    try:
        return ScenarioText(str(path), text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).partition(" (at ")
        line = re.search(r"line (\d+)", place)
        where = f"{path}:{line[1] if line else len(text.splitlines()) or 1}"
        raise BadScenario(f"{where}: is no TOML: {what}; `gmemstate help scenarios` has an example") from None
