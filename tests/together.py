"""Several sources of one run, read together; and what may be done to each of them that must not change what they say."""

import gzip
import json
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from pathlib import Path

from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import EventRow
from tests.traces import CAPTURES, CASES, Read, lines_of

TRACE, STRACE, KERNEL_LOG = "ftrace.txt", "strace.txt", "dmesg.txt"
WITH_STRACE = [case for case in CASES if (CAPTURES / case / "strace.txt.gz").exists()]
"""The cases whose program was traced from outside as well."""
Files = Mapping[str, Sequence[bytes]]


@cache
def log_of(case: str, name: str) -> tuple[bytes, ...]:
    """The lines of another log of a case; none if it has no such log."""
    path = CAPTURES / case / f"{name}.gz"
    return tuple(gzip.decompress(path.read_bytes()).split(b"\n")[:-1]) if path.exists() else ()


def files_of(case: str) -> dict[str, Sequence[bytes]]:
    """All logs of a case."""
    logs = {TRACE: lines_of(case), STRACE: log_of(case, STRACE), KERNEL_LOG: log_of(case, KERNEL_LOG)}
    return {name: lines for name, lines in logs.items() if lines}


@cache
def clocks() -> dict[str, list[list[int]]]:
    """What CLOCK_MONOTONIC and CLOCK_REALTIME showed (ns) before and behind each run."""
    found: dict[str, list[list[int]]] = json.loads((CAPTURES / "clocks.json").read_text())
    return found


def seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def marked(case: str) -> list[bytes]:
    """The trace with the line that tools/capture writes at its beginning."""
    (monotonic, realtime), _ = clocks()[case]
    pair = f"mono={seconds(monotonic)} real={seconds(realtime)} boot={seconds(monotonic)}"
    line = f"           <...>-1     [000] ..... {monotonic / 1e9:.6f}: tracing_mark_write: clock_pair: {pair}"
    return [line.encode(), *lines_of(case)]


def put(files: Files, folder: Path) -> list[Path]:
    """Write files."""
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_bytes(b"".join(line + b"\n" for line in lines))
    return [folder / name for name in files]


def read_together(files: Files, folder: Path) -> Read:
    """Read files into a new ledger by one call."""
    where = folder / "together.db"
    for old in folder.glob("together.db*"):
        old.unlink()
    with Ledger.open(where, durable=False) as ledger:
        results = ledger.ingest(*put(files, folder / "logs"))
        rows: list[EventRow] = list(ledger.record_.events())
        assert not ledger.stale_projections(ledger.history())
    return Read(compared(History().fold(rows)), rows, results[0].account)


def source_of(read: Read, name: str) -> int:
    """The id of a source."""
    (found,) = [source.id for source in read.history.sources.values() if source.name.endswith(f"/{name}")]
    return found


def result_from(read: Read, name: str) -> Read:
    """What one of the sources has shown, joined with the others as it is."""
    source, history = source_of(read, name), copy(read.history)
    history.conversions = {id: one for id, one in history.conversions.items() if one.source == source}
    history.faults = [fault for fault in history.faults if fault.source == source]
    return Read(history, read.rows, read.account)


# --- what may be done to the lines of strace -----------------------------------------------------------------------------

_KIND = re.compile(
    rb"\d+ +[\d.]+ (?:(\w+)\((?:\d+(?:<[^>]*>)?(?:\(deleted\))?, (KVM_\w+|_IOC\([^)]*\)))?|<\.\.\. (\w+) resumed|(---|\+\+\+))"
)


def kind_of_call(line: bytes) -> str | None:
    """What a person would call the kind of a line."""
    match = _KIND.match(line)
    return None if match is None else (match[2] or match[1] or match[3] or match[4]).decode()


def calls_later(lines: Sequence[bytes], microseconds: int) -> list[bytes]:
    """The lines with their clock set forward."""

    def later(match: re.Match[bytes]) -> bytes:
        time = int(match[2] + match[3]) + microseconds
        return match[1] + b"%d.%06d" % divmod(time, 1_000_000)

    return [re.sub(rb"^(\d+ +)(\d+)\.(\d{6})", later, line) for line in lines]


def calls_of_others(lines: Sequence[bytes], pids: int = 70_000) -> list[bytes]:
    """The lines with other process ids."""
    return [re.sub(rb"^\d+", lambda match: b"%d" % (int(match[0]) + pids), line) for line in lines]
