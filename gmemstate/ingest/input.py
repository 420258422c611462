"""Framing: from bytes to numbered lines, with bounded memory, and the account of what became of each line."""

import gzip
import hashlib
import io
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from gmemstate.model.document import Document, Json
from gmemstate.model.errors import CannotRead
from gmemstate.text import printable

HEAD_SIZE = 64 << 10
MAX_LINE = 16 << 10
CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
TRACE_DAT = b"\x17\x08\x44tracing"
FIRST_LINES = 200
"""By how many lines the format of an input is named."""
SHOWN = 5
"""How many unparsed lines are kept, with their numbers."""


_FAILURE = re.compile(
    r"\b(?:fail(?:s|ed|ures?)?|errors?|unable|can(?:no|')t|could ?n[o']t|timed out|refused|denied|rejected|aborted"
    r"|panick?(?:ed)?|corrupt(?:ed|ion)|BUG|WARNING|Oops)\b(?![-_])",
    re.IGNORECASE,
).search
_NONE = re.compile(
    r"\b(?:no|0|without(?: an?)?) (?:\w+ )?(?:errors?|failures?)\b|\berrors? (?:handl|detect|report|correct|collect|inject)",
    re.IGNORECASE,
).search


def as_text(line: bytes) -> str:
    """A line as text; bytes that are none are shown as such."""
    return line.decode("utf-8", "backslashreplace").rstrip("\r")


@dataclass(slots=True)
class Account(Document):
    """What became of the lines of a source: used + context + unparsed is their number, always."""

    lines: int = 0
    used: int = 0
    context: Counter[str] = field(default_factory=Counter)
    """lines that were read and tell nothing, by what they are"""
    unparsed: int = 0
    first_unparsed: list[tuple[int, str]] = field(default_factory=list)
    """the first lines that nobody understands, with their numbers"""
    failures: int = 0
    """lines of logs that report a failure and are not understood"""
    first_failures: list[tuple[int, str]] = field(default_factory=list)

    def note_failure(self, number: int, text: str) -> None:
        """Count a line of a log that no entry of the catalogue understands, if it reports a failure; the first few are kept."""
        if _FAILURE(text) and not _NONE(text):
            self.failures += 1
            if len(self.first_failures) < SHOWN:
                self.first_failures.append((number, printable(text[:200])))

    def add_unparsed(self, number: int, text: str) -> None:
        """Count a line that nobody understands; the first few are kept."""
        self.unparsed += 1
        if len(self.first_unparsed) < SHOWN:
            self.first_unparsed.append((number, printable(text[:200])))

    def take_back_unparsed(self) -> None:
        """The last line that nobody understood is understood together with the next one."""
        self.unparsed -= 1
        if self.unparsed < len(self.first_unparsed):
            self.first_unparsed.pop()
        if self.first_failures and self.first_failures[-1][0] == self.lines - 1:
            self.first_failures.pop()
            self.failures -= 1

    def stored(self) -> dict[str, Json]:
        """The account as it is stored with the end of a source."""
        return {name: fact for name, fact in self.to_json().items() if self.failures or "failures" not in name}


class LineReader(ABC):
    """Cuts what is read of one source into lines, and knows the source again by its first bytes.

    ``offset`` and ``digest`` cover the plain bytes of the lines given so far. ``damage`` says why the source ended early,
    None where it ended well; ``stopped`` says that nobody wants to read on, though more may come. ``progress`` is given the
    offset from time to time.
    """

    def __init__(self, name: str, progress: Callable[[int], None] | None = None) -> None:
        self.name = "standard input" if name == "-" else name
        self._progress = progress
        self.offset = 0
        self.damage: str | None = None
        self.stopped = False
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._given = memoryview(b"")
        """the lines at hand after the first ``_hashed`` bytes, which are those in the hash; hashed at once, not line by line"""
        self._first = b""

    @property
    def head_size(self) -> int:
        """How many bytes at the beginning are at hand to know the source by."""
        return min(len(self._first), HEAD_SIZE)

    def head(self, size: int | None = None) -> str:
        """The hash of the first ``size`` bytes (``head_size`` if None): the identity of a source."""
        return hashlib.sha256(self._first[: self.head_size if size is None else size]).hexdigest()

    def first_lines(self) -> list[str]:
        """The lines at the beginning, as far as they are at hand."""
        return [as_text(line) for line in self._first.split(b"\n")[:FIRST_LINES]]

    @property
    def digest(self) -> str:
        """The hash of everything up to ``offset``."""
        whole = self._hash.copy()
        whole.update(self._given[: self.offset - self._hashed])
        return whole.hexdigest()

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def lines(self) -> Iterator[bytes | None]:
        """All lines without their newline; a last line without one is not given, as it may be cut.

        None between two lines says that it is time to put on record what was read before.
        """
        rest = b""
        kept = dropped = 0  # of a giant line: bytes still at hand that are hashed already, bytes let go
        ahead = self._hash  # with what is hashed of a giant line that has no end yet
        for chunk in self._chunks():
            if chunk is None:
                yield None
                continue
            data = rest + chunk
            parts = data.split(b"\n")
            rest = parts.pop()
            if parts:
                self.offset += dropped
                self._hash, self._hashed = ahead, self.offset + kept
                self._given = memoryview(data)[kept : len(data) - len(rest)]
                for part in parts:
                    self.offset += len(part) + 1
                    yield part[:MAX_LINE]
                self._hash.update(self._given)
                self._hashed, self._given = self.offset, memoryview(b"")
                kept = dropped = 0
            if len(rest) > CHUNK:
                # A giant line: its beginning is enough to see what it is not, the rest is only counted.
                if not kept:
                    ahead = self._hash.copy()
                ahead.update(rest[kept:])
                dropped += len(rest) - MAX_LINE
                rest, kept = rest[:MAX_LINE], MAX_LINE
            if self._progress is not None:
                self._progress(self.offset)
        if rest and self.damage is None and not self.stopped:
            self.damage = "the last line has no end"

    @abstractmethod
    def _chunks(self) -> Iterator[bytes | None]:
        """The bytes of the source, those of ``_first`` before the others; None where the lines so far are due."""

    def _refuse_binary(self) -> None:
        if self._first[257:262] == b"ustar":
            self.close()
            raise CannotRead(f"{self.name}: is an archive; unpack it (tar xf) and name the logs in it")
        if self._first.startswith((b"\xff\xfe", b"\xfe\xff")):
            self.close()
            raise CannotRead(
                f"{self.name}: is text in UTF-16; gmemstate reads UTF-8: "
                f"iconv -f UTF-16 -t UTF-8 {shlex.quote(self.name)} > NEW.txt"
            )
        if b"\0" in self._first[:8192]:
            self.close()
            raise CannotRead(f"{self.name}: is binary data, not a log; gmemstate reads text (and .gz of text)")


class Input(LineReader):
    """One input, read once from its beginning: a path or ``-``, plain or gzipped; a trace.dat where trace-cmd is installed.

    Raises CannotRead where there is nothing to read at all.
    """

    def __init__(self, name: str, progress: Callable[[int], None] | None = None) -> None:
        super().__init__(name, progress)
        self._opened: BinaryIO | None = None
        self._report: subprocess.Popen[bytes] | None = None
        self._file = self._open(name)
        try:
            self._first = self._fill(HEAD_SIZE)
            if self._first.startswith(TRACE_DAT) and self._opened is not None and self._file is self._opened:
                self._report_of(name)
        except BaseException:
            self.close()
            raise
        if not self._first:
            self.close()
            raise CannotRead(f"{self.name}: {self.damage or 'is empty'}; there is nothing to read")
        self._refuse_binary()

    def close(self) -> None:
        """Let go of the file."""
        if self._opened is not None:
            self._file.close()
            self._opened.close()  # which a GzipFile leaves open
        if self._report is not None:
            self._report.kill()
            self._report.wait()

    def _chunks(self) -> Iterator[bytes | None]:
        chunk = self._first
        while chunk:
            yield chunk
            chunk = self._read(CHUNK)

    def _open(self, name: str) -> Any:
        if name == "-":
            if sys.stdin is None:
                raise CannotRead("standard input: is closed; there is nothing to read")
            return self._unzipped(sys.stdin.buffer)
        path = Path(name)
        try:
            if path.is_dir():
                raise CannotRead(f"{name}: is a directory; name the files in it, e.g. {path / '*.txt'}")
            self._opened = path.open("rb")
            return self._unzipped(self._opened)
        except OSError as error:
            raise CannotRead(f"{name}: {error.strerror or error}; check the name and its permissions") from None

    def _unzipped(self, file: Any) -> Any:
        buffered = file if hasattr(file, "peek") else io.BufferedReader(file)
        if buffered.peek(2)[:2] == GZIP:
            return gzip.GzipFile(fileobj=buffered, mode="rb")
        return buffered

    def _report_of(self, name: str) -> None:
        """Read on in the text that trace-cmd makes of a recording, if it is installed and can read it."""
        program = shutil.which("trace-cmd")
        if program is None:
            return
        self._report = subprocess.Popen(
            [program, "report", "-N", "-i", name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._file = self._report.stdout
        self._first = self._fill(HEAD_SIZE)
        if not self._first:
            raise CannotRead(
                f"{self.name}: is a binary trace-cmd recording of which `trace-cmd report {self.name}` gives no text: "
                "it is damaged, or newer than the trace-cmd here; "
                "give the text that trace-cmd makes of it where it was recorded"
            )

    def _read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end or where the input is damaged. What comes before damage is given."""
        try:
            data = bytes(self._file.read1(size))
            if not data and self._report is not None and self._report.wait():
                self.damage = "trace-cmd could not read it to its end"
            return data
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.damage = f"the gzip data is damaged or cut ({error})"
        except OSError as error:
            self.damage = f"it cannot be read on ({error.strerror or error})"
        return b""

    def _fill(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (more := self._read(size - len(data))):
            data += more
        return data

    def _refuse_binary(self) -> None:
        if self._first.startswith(TRACE_DAT):
            self.close()
            file = self.name if self._opened is not None else "FILE"
            raise CannotRead(
                f"{self.name}: is a binary trace-cmd recording, which is read as it is where trace-cmd is installed; "
                f"give its text: `trace-cmd report {file} | gmemstate ingest -`"
            )
        super()._refuse_binary()
