"""A source that is still being written: a log that is followed, or a pipe.

Every WITHIN seconds it says that what was read is due, so that it is on record soon after it was written. A log that is
followed ends where another file takes its name, or where it is emptied; a pipe where its writer closes it.
"""

import os
import select
import stat
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from gmemstate.ingest.fact import Marker
from gmemstate.ingest.input import GZIP, HEAD_SIZE, TRACE_DAT, LineReader, as_text
from gmemstate.ingest.readers.detect import FormatDetector, proves
from gmemstate.model.errors import CannotRead
from gmemstate.model.linux import EACCES, ENOENT, ENOTDIR

WITHIN = 0.5
"""After how many seconds a line that was read is due; with POLL it makes less than the one second that is promised."""
POLL = 0.1
"""How long nothing may arrive (s) until it is asked whether to stop, and whether the file is still the same one."""
QUIET = 0.25
"""How long nothing arrives (s) where a source is known by less than HEAD_SIZE of its beginning."""
SIZE = 64 << 10
SIZE_ZIPPED = 4 << 10
"""How much is read at once of what may become a thousand times as long."""
LAST = 4 << 10
"""How many bytes before the place of reading are looked at again, to see that the file was not replaced."""


class FollowedFile(LineReader):
    """A log at a path, or standard input (``-``), read as it grows until ``stop`` says so.

    ``report`` is given a sentence where a person has to know what is waited for. ``moved`` says that the name stands for
    another file by now. Raises CannotRead for what cannot be followed.
    """

    def __init__(
        self, name: str, stop: Callable[[], bool], report: Callable[[str], None], progress: Callable[[int], None] | None = None
    ) -> None:
        super().__init__(name, progress)
        self.moved = False
        self._path = None if name == "-" else Path(name)
        self._stop = stop
        self._at = 0
        self._last = b""
        self._sized = False
        """it has a size that tells whether it was emptied; a pipe and the files of tracefs have none"""
        self._unzip: zlib._Decompress | None = None
        self._due: float | None = None
        """when a line that was read has to be on record"""
        self._fd = 0 if self._path is None else self._open(self._path, report)
        if self._fd is None:
            return
        try:
            self._arriving = self._arrive()
            self._first = self._beginning()
            self._refuse_binary()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._path is not None and self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self, path: Path, report: Callable[[str], None]) -> int | None:
        """The file, as soon as there is one; None if nobody wants to wait longer."""
        waiting = False
        while not self._stop():
            try:
                if path.is_dir():
                    raise CannotRead(f"{self.name}: is a directory; name the one file in it that is to be followed")
                file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                if not path.parent.is_dir():
                    raise CannotRead(f"{self.name}: there is no folder {path.parent}; check the name") from None
                if not waiting:
                    report(f"{self.name}: does not exist yet; waiting until it is made (check the name, Ctrl-C ends)")
                waiting = True
                time.sleep(POLL)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise CannotRead(f"{self.name}: {reason}; check the name and its permissions") from None
            else:
                self._sized = stat.S_ISREG(os.fstat(file).st_mode)
                return file
        self.stopped = True
        return None

    # --- what arrives

    def _beginning(self) -> bytes:
        """The first bytes: HEAD_SIZE, or all that comes without a break or until it is due, with a line to know a source by."""
        first, looked, quiet = b"", 0, time.monotonic()
        for data in self._arriving:
            now = time.monotonic()
            if data:
                self._due = self._due or now + WITHIN
                first, quiet = first + data, now
            if len(first) >= HEAD_SIZE:
                break
            late = self._due is not None and now >= self._due
            if (late or now - quiet >= QUIET) and len(first) > looked:
                if _can_be_known(first):
                    break
                looked = len(first)
        return first

    def _chunks(self) -> Iterator[bytes | None]:
        if self._fd is None:
            return
        yield self._first
        while True:
            if self._due is not None and time.monotonic() >= self._due:
                self._due = None
                yield None
            data = next(self._arriving, None)
            if data is None:
                return
            if data:
                yield data
                self._due = self._due or time.monotonic() + WITHIN

    def _arrive(self) -> Iterator[bytes]:
        """What arrives; nothing (b"") every POLL seconds while nothing does. Ends after the last byte that will come."""
        while not self._stop():
            data = self._read()
            if data:
                yield data
            elif data is None or (self._path is not None and self._is_over()):
                return
            else:
                yield b""
                if self._path is not None:
                    time.sleep(POLL)
        self.stopped = True

    def _read(self) -> bytes | None:
        """What can be read now, perhaps nothing; None at the end of a pipe."""
        assert self._fd is not None
        try:
            if self._path is None:
                return self._piped(self._fd)
            if self._rewritten():
                return b""
            data = os.read(self._fd, SIZE)
        except BlockingIOError:
            return b""
        except OSError as error:
            self.damage = f"it cannot be read on ({error.strerror or error})"
            return None
        self._at += len(data)
        if data and self._sized and os.fstat(self._fd).st_size == 0 and self._at == len(data):
            self._sized = False
        if self._sized:
            self._last = (self._last + data)[-LAST:]
        return data

    def _piped(self, pipe: int) -> bytes | None:
        if not select.select([pipe], [], [], POLL)[0]:
            return b""
        data = os.read(pipe, SIZE if self._unzip is None else SIZE_ZIPPED)
        if self._at == 0 and data.startswith(GZIP):
            self._unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        self._at += len(data)
        return (data or None) if self._unzip is None else self._unzipped(data)

    def _unzipped(self, data: bytes) -> bytes | None:
        """The plain bytes of the next zipped ones; members may follow each other."""
        assert self._unzip is not None
        if not data:
            if not self._unzip.eof:
                self.damage = self.damage or "the gzip data is damaged or cut (it ends too early)"
            return None
        plain = b""
        try:
            while data:
                if self._unzip.eof:
                    self._unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
                plain += self._unzip.decompress(data)
                data = self._unzip.unused_data
        except zlib.error as error:
            self.damage = f"the gzip data is damaged or cut ({error})"
            return plain or None
        return plain

    # --- when it is over

    def _is_over(self) -> bool:
        """Whether nothing more will come from this file, all of which was read: it was emptied, or has a successor."""
        assert self._fd is not None
        assert self._path is not None
        own = os.fstat(self._fd)
        if self._sized and (own.st_size < self._at or self._rewritten()):
            self.damage = (
                "it was emptied while it was followed, so that lines written just before may be missing; "
                "if a copy of it was made, ingest that too"
            )
            self.moved = True
            return True
        try:
            now = self._path.stat()
        except OSError as error:
            return error.errno not in (ENOENT, ENOTDIR, EACCES)
        # The writer may go on in the old file until it opens the new one: the first byte there says that it has.
        if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino) or (now.st_size == 0 and stat.S_ISREG(now.st_mode)):
            return False
        self.moved = own.st_size <= self._at or not self._sized
        return self.moved

    def _rewritten(self) -> bool:
        """Whether the bytes just before the place of reading are others than they were."""
        assert self._fd is not None
        return bool(self._last) and os.pread(self._fd, len(self._last), self._at - len(self._last)) != self._last

    def _refuse_binary(self) -> None:
        if self._first.startswith(TRACE_DAT):
            raise CannotRead(
                f"{self.name}: is a binary trace-cmd recording; name the file, "
                "or give its text: `trace-cmd report FILE | gmemstate ingest -`"
                if self._path is None
                else f"{self.name}: is a binary trace-cmd recording, which cannot be followed; ingest it when it is complete"
            )
        if self._first.startswith(GZIP):
            raise CannotRead(f"{self.name}: is compressed, which cannot be followed; ingest it when it is complete")
        super()._refuse_binary()


def _can_be_known(first: bytes) -> bool:
    """Whether a beginning holds more than what many sources have in common, such as the header of a trace; or no text."""
    if b"\0" in first or first.startswith(GZIP):
        return True
    chooser = FormatDetector()
    lines = first.split(b"\n")[:-1]
    said = (chooser.parse(number, as_text(line)) for number, line in enumerate(lines, 1))
    return any(proves(one) and not isinstance(one, Marker) for one in said)
