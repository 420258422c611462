"""Recording with tracefs: an instance of our own, probes that are placed and taken away again, the trace in a file.

Kernel: Documentation/trace/kprobetrace.rst, eprobes in events.rst, instances in ftrace.rst. Probes are the same for all
instances, whether they are recorded is not: what others trace is left alone.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from capturing import host
from capturing.host import Refused
from capturing.probes import GROUP, PROBES, TRACEPOINTS, Probe

INSTANCE = "gmemstate"
BUFFER_KB = 16384
"""The ring buffer of each CPU at most: some seconds of a busy guest."""
BUFFERS_KB = 1 << 20
"""All ring buffers together at most, on hosts with many CPUs."""
READABLE = {
    "latency-format": "0",
    "context-info": "1",
    "fields": "0",
    "markers": "1",
    "raw": "0",
    "hex": "0",
    "bin": "0",
    "irq-info": "1",
}
"""Options that an instance inherits from the top level, as `gmemstate ingest` needs them."""
POLL = 0.2


def buffer_kb(cpus: int) -> int:
    """The size (KiB) of the ring buffer of each CPU of a host with so many."""
    return max(1024, min(BUFFER_KB, BUFFERS_KB // cpus))


class Tracefs:
    """A tracefs, the real one or a folder that looks like one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, name: str, text: str, *, add: bool = False) -> None:
        """Write a control file at once, as the kernel wants it. Raises OSError where it refuses."""
        file = os.open(self.root / name, os.O_WRONLY | (os.O_APPEND if add else os.O_TRUNC))
        try:
            os.write(file, f"{text}\n".encode())
        finally:
            os.close(file)

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder."""
        return (self.root / name).exists()

    def make_instance(self) -> None:
        """Make a ring buffer of our own, with switches of its own."""
        (self.root / "instances" / INSTANCE).mkdir()

    def remove_instance(self) -> None:
        """Take it away; what is switched on in it is switched off."""
        (self.root / "instances" / INSTANCE).rmdir()

    def read(self, name: str) -> str:
        """What a control file says; nothing where there is none."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            return ""

    def complaint(self) -> str:
        """The kernel's last word on a definition that it has refused."""
        lines = self.read("error_log").splitlines()
        return next((line.partition("error: ")[2].strip() for line in reversed(lines) if "error: " in line), "")


class Recording:
    """What is placed, and what was refused. Leaving it takes everything away again, whatever happened inside."""

    def __init__(self, tracefs: Tracefs, functions: set[str] | None, say: Callable[[str], None]) -> None:
        self._tracefs = tracefs
        self._functions = functions
        self._say = say
        self._placed: list[str] = []
        self._made = False
        self.used: dict[str, str] = {}
        """the definition of each event that is placed"""
        self.missing: dict[str, str] = {}
        """why an event is not there"""

    def __enter__(self) -> "Recording":
        if self._tracefs.exists(f"instances/{INSTANCE}"):
            raise Refused(
                f"another capture runs, or one was killed: `tools/capture clean` takes away what it left in "
                f"{self._tracefs.root}"
            )
        taken = [probe.name for probe in PROBES if self._tracefs.exists(f"events/{GROUP}/{probe.name}")]
        if taken:
            raise Refused(
                f"there are probes {GROUP}/{taken[0]} already; `tools/capture clean` takes them away if nobody uses them"
            )
        return self

    def __exit__(self, *_: Any) -> None:
        left = take_away(self._tracefs, self._placed, instance=self._made)
        if left:
            self._say(f"could not be taken away: {', '.join(left)}; try `tools/capture clean`")

    def begin(self, *, per_page: bool, pid: int | None, buffer: int | None = None) -> None:
        """Make the instance, place the probes, and switch on what is there. Raises Refused where nothing is.

        ``buffer`` is the size (KiB) of each CPU's ring buffer; None takes what fits the host.
        """
        try:
            self._tracefs.make_instance()
        except OSError as error:
            raise Refused(f"{self._tracefs.root}/instances: {error.strerror}; this kernel lets nobody trace") from None
        self._made = True
        wanted = {"trace_clock": "mono", "buffer_size_kb": str(buffer or buffer_kb(os.cpu_count() or 1))}
        wanted.update({f"options/{name}": value for name, value in READABLE.items()})
        for name, value in wanted.items():
            try:
                self._tracefs.write(self._of_instance(name), value)
            except FileNotFoundError:
                continue  # this kernel does not have the option
            except OSError as error:
                self._say(f"{name} cannot be set ({error.strerror}): it stays as it is")
        if self._tracefs.read("options/record-cmd").strip() == "0":
            self._say("options/record-cmd is 0: tasks have no names in the trace; echo 1 into it to see them")
        if pid is not None:
            self._switch("set_event_pid", " ".join(host.threads(pid)))
            self._switch("options/event-fork", "1")
        for probe in PROBES:
            if per_page or not probe.per_page:
                self._place(probe)
        for event in TRACEPOINTS:
            if per_page or not event.per_page:
                self._enable(event.name, event.filter)
        if not any(name.startswith((f"{GROUP}/", "kvm/")) for name in self.used):
            raise Refused("this kernel shows nothing of conversions: it has neither probes nor the tracepoints of KVM")

    def _of_instance(self, name: str) -> str:
        return f"instances/{INSTANCE}/{name}"

    def _switch(self, name: str, value: str) -> None:
        try:
            self._tracefs.write(self._of_instance(name), value)
        except OSError as error:
            raise Refused(f"{name} cannot be set to {value}: {error.strerror}; capture without --pid") from None

    def _place(self, probe: Probe) -> None:
        """Place a probe by the first definition that the kernel takes."""
        event, why = f"{GROUP}/{probe.name}", "its function is not in this kernel, or was inlined"
        if probe.needs is not None and self._functions is not None and probe.needs not in self._functions:
            self.missing[event] = f"not needed: this kernel has no {probe.needs}()"
            return
        for definition, symbol in zip(probe.definitions, probe.symbols, strict=True):
            if not self._is_there(definition, symbol):
                continue
            try:
                self._tracefs.write("dynamic_events", definition, add=True)
            except OSError as error:
                why = f"refused ({self._tracefs.complaint() or error.strerror})"
                continue
            self._placed.append(probe.name)
            if self._tracefs.exists(f"events/{event}") and self._enable(event, probe.filter):
                self.used[event] = definition
                self.missing.pop(event, None)
                return
            why = self.missing.get(event, "refused without a word")
            remove(self._tracefs, probe.name)
            self._placed.remove(probe.name)
        self.missing[event] = why

    def _is_there(self, definition: str, symbol: str) -> bool:
        if definition.startswith("e:"):
            return self._tracefs.exists(f"events/{symbol.replace('.', '/')}")
        return self._functions is None or symbol in self._functions

    def _enable(self, event: str, condition: str | None) -> bool:
        """Switch an event on, after its filter."""
        folder = self._of_instance(f"events/{event}")
        try:
            if condition is not None:
                self._tracefs.write(f"{folder}/filter", condition)
            self._tracefs.write(f"{folder}/enable", "1")
        except OSError as error:
            self.missing[event] = (
                "not in this kernel" if isinstance(error, FileNotFoundError) else f"refused ({error.strerror})"
            )
            return False
        self.used.setdefault(event, condition or "")
        return True

    def record(self, to: BinaryIO, goes_on: Callable[[], bool], at_end: Callable[[], None]) -> int:
        """Copy the trace into a file as it comes, until nobody wants more; the number of bytes.

        ``at_end`` is called before what is left in the buffer is copied.
        """
        pipe, count, ended = (
            os.open(self._tracefs.root / self._of_instance("trace_pipe"), os.O_RDONLY | os.O_NONBLOCK),
            0,
            False,
        )
        try:
            while not ended:
                if not goes_on():
                    at_end()
                    ended = True
                for data in _ready(pipe):
                    to.write(data)
                    count += len(data)
                to.flush()
                if not ended:
                    time.sleep(POLL)
        finally:
            os.close(pipe)
        return count

    def mark(self, pair: dict[str, str]) -> None:
        """Write the time on other clocks into the trace, so that it can be compared with logs."""
        with contextlib.suppress(OSError):
            said = " ".join(f"{clock}={time}" for clock, time in pair.items())
            self._tracefs.write(self._of_instance("trace_marker"), f"clock_pair: {said}")

    def stop(self) -> None:
        """Let the kernel record no more."""
        self._tracefs.write(self._of_instance("tracing_on"), "0")

    def missed(self) -> dict[str, int]:
        """How often each probe could not fire, as it could not follow so many calls at once; those that missed none left out.

        The kernel counts them in kprobe_profile (probes_profile_seq_show() of kernel/trace/trace_kprobe.c).
        """
        found = {}
        for line in self._tracefs.read("kprobe_profile").splitlines():
            words = line.split()
            if len(words) == 3 and words[0] in self._placed and words[2].isdecimal() and int(words[2]):
                found[words[0]] = int(words[2])
        return found

    def lost(self) -> int:
        """How many events the ring buffers have lost: they were full."""
        folder = self._tracefs.root / self._of_instance("per_cpu")
        stats = [self._tracefs.read(str(path.relative_to(self._tracefs.root))) for path in folder.glob("cpu*/stats")]
        counted = re.findall(r"^(?:overrun|dropped events): (\d+)$", "\n".join(stats), re.MULTILINE)
        return sum(map(int, counted))


def _ready(pipe: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while select.select([pipe], [], [], 0)[0] and (data := os.read(pipe, 1 << 16)):
            yield data


# --- taking away


def remove(tracefs: Tracefs, name: str) -> bool:
    """Take a probe away."""
    try:
        tracefs.write("dynamic_events", f"-:{GROUP}/{name}", add=True)
    except OSError:
        return False
    return True


def take_away(tracefs: Tracefs, placed: list[str], *, instance: bool) -> list[str]:
    """Take away the instance, which switches its events off, and then probes; what could not be taken away."""
    left = []
    if instance:
        try:
            tracefs.remove_instance()
        except OSError:
            left.append(f"instances/{INSTANCE}")
    return left + [f"{GROUP}/{name}" for name in placed if not remove(tracefs, name)]


def clean(tracefs: Tracefs) -> list[str]:
    """Take away what a capture that was killed has left; what could not be taken away."""
    placed = [probe.name for probe in PROBES if tracefs.exists(f"events/{GROUP}/{probe.name}")]
    return take_away(tracefs, placed, instance=tracefs.exists(f"instances/{INSTANCE}"))


# --- how long


class Until:
    """How long to record: while a command runs, or until a signal comes."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._come: list[int] = []

    def start(self) -> None:
        """Start the command, if there is one: everything is placed by now. Raises Refused where it cannot be run."""
        if self._command:
            try:
                self._process = subprocess.Popen(self._command)
            except OSError as error:
                raise Refused(f"{self._command[0]}: cannot be run: {error.strerror}") from None

    def goes_on(self) -> bool:
        """Whether to record on."""
        return not self._come and (self._process is None or self._process.poll() is None)

    @property
    def status(self) -> int:
        """The exit status of the command as a shell gives it; 0 without one, and where it was ended by us."""
        code = None if self._process is None or self._come else self._process.returncode
        return 0 if code is None else 128 - code if code < 0 else code

    def note(self, number: int, _frame: object) -> None:
        """Take note of a signal."""
        self._come.append(number)

    def end(self) -> None:
        """End the command, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


@contextlib.contextmanager
def until(command: list[str]) -> Iterator[Until]:
    """While a command runs once it is started, or until SIGINT, SIGTERM or SIGHUP come."""
    one = Until(command)
    before = {number: signal.signal(number, one.note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield one
    finally:
        one.end()
        for number, handler in before.items():
            signal.signal(number, handler)
