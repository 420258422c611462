"""Recording with tracefs: an instance of our own, probes that are placed and taken away again, the trace in a file.

Kernel: Documentation/trace/kprobetrace.rst, eprobes in events.rst, instances in ftrace.rst. Probes are the same for all instances,
whether they are recorded is not: what others trace is left alone.
"""

import contextlib
import os
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
"""The ring buffer of each CPU: some seconds of a busy guest."""
POLL = 0.2


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

    def complaint(self) -> str:
        """The kernel's last word on a definition that it has refused."""
        try:
            lines = (self.root / "error_log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return next((line.partition("error: ")[2].strip() for line in reversed(lines) if "error: " in line), "")


class Recording:
    """What is placed, and what was refused. Leaving it takes everything away again, whatever happened inside."""

    def __init__(self, tracefs: Tracefs, functions: set[str] | None, told: Callable[[str], None]) -> None:
        self._tracefs = tracefs
        self._functions = functions
        self._told = told
        self._placed: list[str] = []
        self._made = False
        self.used: dict[str, str] = {}
        """the definition of each event that is placed"""
        self.missing: dict[str, str] = {}
        """why an event is not there"""

    def __enter__(self) -> "Recording":
        if self._tracefs.exists(f"instances/{INSTANCE}"):
            raise Refused(
                f"another capture runs, or one was killed: `tools/capture clean` takes away what it left in {self._tracefs.root}"
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
            self._told(f"could not be taken away: {', '.join(left)}; try `tools/capture clean`")

    def begin(self, *, per_page: bool, pid: int | None) -> None:
        """Make the instance, place the probes, and switch on what is there. Raises Refused where nothing is."""
        try:
            self._tracefs.make_instance()
        except OSError as error:
            raise Refused(f"{self._tracefs.root}/instances: {error.strerror}; this kernel lets nobody trace") from None
        self._made = True
        for name, value in (("trace_clock", "mono"), ("buffer_size_kb", str(BUFFER_KB))):
            try:
                self._tracefs.write(self._of_instance(name), value)
            except OSError as error:
                self._told(f"{name} cannot be set ({error.strerror}): it stays as it is")
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
        """Switch an event on, behind its filter."""
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


@contextlib.contextmanager
def until(command: list[str]) -> Iterator[Callable[[], bool]]:
    """Whether to go on: while a command runs, or until SIGINT or SIGTERM come."""
    come: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: come.append(number)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    process = None
    try:
        if command:
            process = subprocess.Popen(command)
        yield lambda: not come and (process is None or process.poll() is None)
    except FileNotFoundError:
        raise Refused(f"{command[0]}: there is no such program") from None
    finally:
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
