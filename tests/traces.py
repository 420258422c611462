"""Captures and what may be done to them: read, cut, renamed, merged. Readers of ground truth."""

import gzip
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.ingest.input import Account, Input
from gmemstate.ingest.session import IngestSession
from gmemstate.model.events import EventRow
from gmemstate.model.record import resolve
from tests import views

CAPTURES = Path(__file__).parent / "captures"
CASES = sorted(path.parent.name for path in CAPTURES.glob("*/meta.json"))
SHARED = Path(__file__).parents[2] / "shared"
_FOLDERS = {path.parent.name: path.parent for path in [*SHARED.glob("captures/**/meta.json"), *CAPTURES.glob("*/meta.json")]}
ALL_CASES = sorted(_FOLDERS)
"""Those of this folder, and those beside the project, where there are any."""


def capture(case: str) -> Path:
    """The trace of a case."""
    plain = _FOLDERS[case] / "ftrace.txt"
    return plain if plain.exists() else plain.with_suffix(".txt.gz")


@cache
def lines_of(case: str) -> tuple[bytes, ...]:
    """The lines of the trace of a case."""
    path = capture(case)
    data = path.read_bytes()
    return tuple((gzip.decompress(data) if path.suffix == ".gz" else data).split(b"\n")[:-1])


@cache
def meta(case: str) -> dict[str, Any]:
    """What is on file about a case."""
    facts: dict[str, Any] = json.loads((_FOLDERS[case] / "meta.json").read_text())
    return facts


@dataclass
class Read:
    """A trace that was read and folded."""

    history: History
    rows: list[EventRow]
    account: Account

    @property
    def conversions(self) -> list[views.Json]:
        return views.conversions(self.history)

    def guest(self, pointer: int) -> list[int]:
        """The guests that were met at a pointer."""
        return [vm.id for vm in self.history.memory.vms.values() if vm.pointer == pointer]

    def runs(self, vm: int) -> list[tuple[int, int, str]]:
        """The states of all gfns of a guest, coalesced."""
        return coalesced(self.history.memory.guest_runs(vm))


def coalesced(runs: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for start, end, state in runs:
        if found and found[-1][1:] == (start, state):
            found[-1] = (found[-1][0], end, state)
        elif start < end:
            found.append((start, end, state))
    return found


def read_file(path: Path | str) -> Read:
    """Read and fold one trace, without any store."""
    source = Input(str(path))
    try:
        reading = IngestSession(source)
        rows: list[EventRow] = []
        known: dict[int, int] = {}
        for events in reading.events():
            numbered, new = resolve([event.row() for event in events], len(rows) + 1, known)
            known.update(new)
            rows += numbered
    finally:
        source.close()
    account = reading.account
    assert account.used + sum(account.context.values()) + account.unparsed == account.lines, "a line was lost, or counted twice"
    return Read(compared(History().fold(rows)), rows, account)


def read_lines(lines: Iterable[bytes], folder: Path) -> Read:
    """Read and fold lines."""
    path = folder / "trace.txt"
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(data)
    read = read_file(path)
    assert read.account.lines == data.count(b"\n"), "a line was not counted"
    return read


@cache
def read_case(case: str) -> Read:
    """A case, read once for all tests. Not to be changed."""
    return read_file(capture(case))


# --- what may be done to a trace -----------------------------------------------------------------------------------

_LINE_KIND = re.compile(rb" *.+?-\d+ +\[\d+\] \S+ +[\d.]+: +(sys_\w+ ->|sys_\w+|<stack trace>|\w+)")
_GRAPH_KIND = re.compile(rb" *[\d.]+ \| +\d+\) .*\|[^|]*\|\s+(\} /\* \w+|/\* \w+|[\w.]+)")


def kind_of(line: bytes) -> str | None:
    """What a person would call the kind of a line; None for a header."""
    match = _LINE_KIND.match(line) or _GRAPH_KIND.match(line)
    return match[1].decode() if match else None


def kinds_of(case: str) -> list[str]:
    """All kinds of lines of a case."""
    return sorted({kind for line in lines_of(case) if (kind := kind_of(line)) is not None})


def without(lines: Iterable[bytes], kind: str) -> list[bytes]:
    """The lines with those of one kind blanked, so that line numbers stay."""
    return [b"" if kind_of(line) == kind else line for line in lines]


def header_length(lines: tuple[bytes, ...]) -> int:
    """The number of lines before the first event."""
    return next(number for number, line in enumerate(lines) if kind_of(line) is not None)


def renamed(line: bytes, pids: int = 70_000, pointers: bytes = b"0xffff9991") -> bytes:
    """A line with other process ids and other kernel pointers."""

    def shifted(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%d" % (int(match[2]) + pids) + match[3]

    line = re.sub(rb"(-)(\d+)( +(?:\[|\|))", shifted, line)
    line = re.sub(rb"(\bpid=)(\d+)()", shifted, line)
    return re.sub(rb"0xffff8881([0-9a-f]{8})", lambda match: pointers + match[1], line)


def later(line: bytes, seconds: int) -> bytes:
    """A line with its time shifted."""

    def shifted(match: re.Match[bytes]) -> bytes:
        return match[1] + b"%d" % (int(match[2]) + seconds) + match[3]

    line = re.sub(rb"^( *)(\d+)(\.\d{6} \|)", shifted, line)
    return re.sub(rb"( )(\d+)(\.\d{6}: )", shifted, line, count=1)


def interleaved(
    first: list[bytes], second: list[bytes], dice: random.Random, longest: int
) -> tuple[list[bytes], list[int], list[int]]:
    """Two traces in one, each in its own order; and where the lines of each went (from 1)."""
    sides = [(first, iter(first), list[int]()), (second, iter(second), list[int]())]
    merged: list[bytes] = []
    while any(len(places) < len(lines) for lines, _, places in sides):
        _, rest, places = dice.choice([side for side in sides if len(side[2]) < len(side[0])])
        for line in islice(rest, dice.randint(1, longest)):
            merged.append(line)
            places.append(len(merged))
    return merged, sides[0][2], sides[1][2]


# --- ground truth --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """One call as the program itself saw it; ``t`` is when it had returned (ns of the trace's clock)."""

    t: int
    thread: int
    op: str
    fields: dict[str, str]

    def number(self, name: str) -> int | None:
        value = self.fields.get(name)
        return None if value is None else int(value.split("(")[0], 0)

    @property
    def errno(self) -> int:
        return self.number("errno") or 0


def ground_truth(case: str) -> list[Truth]:
    """All operations that the program of a case has reported."""
    found = []
    for line in meta(case)["ground_truth"] or ():
        match = re.match(r"mono=(\d+)\.(\d{6}) (?:tid=(\d+) )?op=(\S+)(?: (.*))?", line)
        assert match, line
        fields = dict(part.split("=", 1) for part in re.sub(r"\([^)]*\)", "", match[5] or "").split() if "=" in part)
        found.append(Truth(int(match[1] + match[2]) * 1000, int(match[3] or 0), match[4], fields))
    return found
