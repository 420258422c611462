"""One archive of everything that a post-mortem may need, for another machine.

``logs/`` in it holds what `gmemstate ingest` reads (a line of the kernel is there once, not also from the journal); ``about/``
holds what people ask about the host; ``collected.txt`` says what is there and what is not, and why.
"""

import contextlib
import errno
import io
import json
import os
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from capturing import host
from capturing.host import Refused

LIBVIRT_LOGS = Path("/var/log/libvirt/qemu")
SPEAKERS = (
    "qemu",
    "libvirt",
    "virt",
    "kata",
    "containerd",
    "cloud-hypervisor",
    "vmm",
    "systemd-machined",
    "mcelog",
    "rasdaemon",
)
"""The programs whose lines in the journal are taken: those that run VMs, and those that speak of bad memory."""
CONFIG = ("KVM", "SEV", "TDX", "KPROBE", "PROBE_EVENTS", "FTRACE", "BTF", "MEMORY_FAILURE")


class Archive:
    """A .tar.gz that grows in a folder of its own, readable by nobody else; it comes to its name when it is complete."""

    def __init__(self, path: Path) -> None:
        if os.path.lexists(path):
            raise Refused(f"{shown(path)} exists already; name another file")
        self.path = path
        self.top = top_of(path)
        try:
            self._folder = Path(tempfile.mkdtemp(prefix=".collecting-", dir=path.parent))
        except OSError as error:
            raise Refused(f"{shown(path)}: {error.strerror}; name a file in a folder that can be written") from None
        self._part = self._folder / "part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self._file = os.fdopen(os.open(self._part, flags, 0o600), "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w:gz")  # noqa: SIM115
        self.said: list[str] = []

    def add(self, name: str, content: bytes) -> None:
        """Add a file of our own."""
        self._put(name, io.BytesIO(content), len(content), time.time())
        self.said.append(f"{name}: {len(content)} bytes")

    def copy(self, name: str, found: "Found") -> None:
        """Add a file of others as it is now; one that grows up to where it was, one that shrinks as far as it goes."""
        try:
            with found.open() as file, tempfile.TemporaryFile(dir=self._folder) as copied:
                before = os.fstat(file.fileno())
                size = _copy(file, copied, before.st_size)
                copied.seek(0)
                self._put(name, copied, size, before.st_mtime)
        except OSError as error:
            self.miss(name, f"{shown(found.path)}: {error.strerror}")
            return
        short = "" if size == before.st_size else f", of {before.st_size}: it was shortened while it was copied"
        self.said.append(f"{shown(name)}: {size} bytes{short}, from {shown(found.path)}")

    def _put(self, name: str, content: IO[bytes], size: int, changed: float) -> None:
        entry = tarfile.TarInfo(f"{self.top}/{name}")
        entry.size, entry.mtime, entry.mode = size, int(changed), 0o600
        self._tar.addfile(entry, content)

    def miss(self, name: str, why: str) -> None:
        """Say what is not there."""
        self.said.append(f"{shown(name)}: NOT COLLECTED: {why}")

    def finish(self) -> None:
        """Complete it. Raises Refused where somebody else has taken its name meanwhile, or the disk is full."""
        try:
            self.add("collected.txt", "\n".join([*self.said, ""]).encode())
            self._close()
            os.link(self._part, self.path, follow_symlinks=False)
        except OSError as error:
            raise Refused(f"{shown(self.path)}: {error.strerror}; nothing was written") from None
        self.drop()

    def _close(self) -> None:
        self._tar.close()
        self._file.close()

    def drop(self) -> None:
        """Leave nothing else than the archive."""
        with contextlib.suppress(OSError):
            self._close()
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Found(NamedTuple):
    """A file to be copied: its path, and the open folder that it is in, if any, so that nobody can put a link in between."""

    path: Path
    folder: int | None = None

    def open(self) -> BinaryIO:
        """Open it, if it is a plain file and no link. Raises OSError."""
        name = self.path if self.folder is None else self.path.name
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, "is no plain file")
        return os.fdopen(file, "rb")


def shown(name: str | Path) -> str:
    """A name as it may be printed: whatever is no printable character is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def top_of(path: Path) -> str:
    """The folder that everything in an archive stands in; never none, which would make its names absolute."""
    top = path.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")
    return top if top.strip(".") else "host"


def _copy(file: BinaryIO, to: IO[bytes], size: int) -> int:
    """Copy so many bytes, or as many as there are; how many that were."""
    left = size
    while left and (data := file.read(min(left, 1 << 20))):
        to.write(data)
        left -= len(data)
    return size - left


def collect(path: Path, files: list[Path], say: Callable[[str], None]) -> None:
    """Make the archive. ``files``: logs and traces of others, or folders of a capture; links are not followed."""
    for file in files:
        if file.is_symlink():
            raise Refused(f"{shown(file)}: is a link; name what it points to")
        if not file.exists():
            raise Refused(f"{shown(file)}: no such file")
    archive = Archive(path)
    try:
        before = host.clock_pair()
        _kernel_log(archive)
        _journal(archive)
        names: set[str] = set()
        for given in files:
            for found in _found(given):
                archive.copy(_name(found.path, given, names), found)
        for log in sorted(LIBVIRT_LOGS.glob("*.log")) if LIBVIRT_LOGS.is_dir() else ():
            archive.copy(f"logs/libvirt-{log.name}", Found(log))
        archive.add("about/clocks.json", json.dumps({"before": before, "after": host.clock_pair()}, indent=2).encode())
        archive.add("about/versions.txt", "".join(f"{name}: {text}\n" for name, text in host.facts().items()).encode())
        _configuration(archive)
        archive.finish()
    except BaseException:
        archive.drop()
        raise
    for line in archive.said:
        say(line)


def _found(given: Path) -> Iterator[Found]:
    """The files of a folder, in order, links and all (which are refused when they are opened); or the one file."""
    if not given.is_dir():
        yield Found(given)
        return
    for root, folders, names, folder in os.fwalk(given):
        folders.sort()
        for name in sorted(names):
            yield Found(Path(root, name), folder)


def _name(file: Path, given: Path, taken: set[str]) -> str:
    """The name of a file in the archive, none twice."""
    about = file.name in ("probes.txt", "clocks.json", "versions.txt")
    folder = f"about/{given.name}" if about and given != file else "about" if about else "logs"
    name = f"{folder}/{file.name}"
    while name in taken:
        name = f"{folder}/{len(taken)}-{file.name}"
    taken.add(name)
    return name


def _kernel_log(archive: Archive) -> None:
    log = host.run(["dmesg"])
    if log is None:
        archive.miss("logs/kernel.log", "dmesg is not allowed; run it as root")
    elif not log:
        archive.miss("logs/kernel.log", "the kernel's buffer is empty")
    else:
        archive.add("logs/kernel.log", log)


def _journal(archive: Archive) -> None:
    """What the programs have logged; each record has its time on two clocks."""
    if shutil.which("journalctl", path=host.PATH) is None:
        archive.miss("logs/journal.json", "journalctl is not installed")
        return
    said = host.lines(["journalctl", "--boot", "--output=json", "--no-pager", "--quiet"])
    if kept := [line for line in said if _speaks(line)]:
        archive.add("logs/journal.json", b"".join(kept))
    else:
        archive.miss("logs/journal.json", "no program that runs VMs has logged anything in this boot")


def _speaks(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    speaker = record.get("SYSLOG_IDENTIFIER", record.get("_COMM"))
    return record.get("_TRANSPORT") != "kernel" and isinstance(speaker, str) and speaker.startswith(SPEAKERS)


def _configuration(archive: Archive) -> None:
    """The lines of the kernel's configuration that decide what there is to see."""
    import gzip
    import platform

    for place, opened in ((Path(f"/boot/config-{platform.release()}"), Path.read_bytes), (Path("/proc/config.gz"), _unzipped)):
        try:
            lines = opened(place).decode(errors="replace").splitlines(keepends=True)
        except (OSError, gzip.BadGzipFile):
            continue
        archive.add("about/config.txt", "".join(line for line in lines if any(word in line for word in CONFIG)).encode())
        return
    archive.miss("about/config.txt", "the kernel does not tell its configuration")


def _unzipped(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes())
