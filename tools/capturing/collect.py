"""One archive of everything that a post-mortem may need, for another machine.

``logs/`` in it holds what `gmemstate ingest` reads (a line of the kernel is there once, not also from the journal); ``about/`` holds
what people ask about the host; ``collected.txt`` says what is there and what is not, and why.
"""

import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
    """A .tar.gz that grows; it comes to its name when it is complete."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise Refused(f"{path} exists already; name another file")
        self.path = path
        self._top = path.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar")
        self._part = path.with_name(f".{path.name}.part")
        try:
            self._tar = tarfile.open(self._part, "w:gz")  # noqa: SIM115
        except OSError as error:
            raise Refused(f"{path}: {error.strerror}; name a file in a folder that can be written") from None
        self.said: list[str] = []

    def add(self, name: str, content: bytes) -> None:
        """Add a file of our own."""
        entry = tarfile.TarInfo(f"{self._top}/{name}")
        entry.size, entry.mtime = len(content), int(time.time())
        self._tar.addfile(entry, io.BytesIO(content))
        self.said.append(f"{name}: {len(content)} bytes")

    def copy(self, name: str, path: Path) -> None:
        """Add a file of others as it is now; one that grows meanwhile is taken up to where it was."""
        try:
            with path.open("rb") as file:
                entry = self._tar.gettarinfo(arcname=f"{self._top}/{name}", fileobj=file)
                self._tar.addfile(entry, file)
        except OSError as error:
            self.miss(name, f"{path}: {error.strerror}")
        else:
            self.said.append(f"{name}: {entry.size} bytes, from {path}")

    def miss(self, name: str, why: str) -> None:
        """Say what is not there."""
        self.said.append(f"{name}: NOT COLLECTED: {why}")

    def finish(self) -> None:
        """Complete it."""
        self.add("collected.txt", "\n".join([*self.said, ""]).encode())
        self._tar.close()
        self._part.rename(self.path)

    def drop(self) -> None:
        """Leave nothing behind."""
        self._tar.close()
        self._part.unlink(missing_ok=True)


def collect(path: Path, files: list[Path], told: Callable[[str], None]) -> None:
    """Make the archive. ``files`` are logs and traces of QEMU, strace and others, or the folders of a capture."""
    for file in files:
        if not file.exists():
            raise Refused(f"{file}: no such file")
    archive = Archive(path)
    try:
        before = host.clock_pair()
        _kernel_log(archive)
        _journal(archive)
        named = list(_named(files))
        for name, file in named:
            archive.copy(name, file)
        for log in sorted(LIBVIRT_LOGS.glob("*.log")) if LIBVIRT_LOGS.is_dir() else ():
            archive.copy(f"logs/libvirt-{log.name}", log)
        archive.add("about/clocks.json", json.dumps({"before": before, "after": host.clock_pair()}, indent=2).encode())
        archive.add("about/versions.txt", "".join(f"{name}: {text}\n" for name, text in host.facts().items()).encode())
        _configuration(archive)
        archive.finish()
    except BaseException:
        archive.drop()
        raise
    for line in archive.said:
        told(line)


def _named(files: list[Path]) -> Iterator[tuple[str, Path]]:
    """Files by the name that they have in the archive, none twice."""
    taken: set[str] = set()
    for given in files:
        for file in sorted(path for path in given.rglob("*") if path.is_file()) if given.is_dir() else [given]:
            about = file.name in ("probes.txt", "clocks.json", "versions.txt")
            folder = f"about/{given.name}" if about else "logs"
            name = f"{folder}/{file.name}"
            while name in taken:
                name = f"{folder}/{len(taken)}-{file.name}"
            taken.add(name)
            yield name, file


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
    if shutil.which("journalctl") is None:
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
