"""Which reader understands a line: several formats may stand in one input, in any order."""

import re
from collections import Counter
from typing import Protocol

from gmemstate.ingest.fact import Context, Fact, Marker, Parsed, sound
from gmemstate.ingest.readers.bpftrace import BpftraceReader
from gmemstate.ingest.readers.envelopes import KERNEL, LogClock, LogEnvelope, strip_envelopes
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.ingest.readers.kernel_log import KernelLog, gap
from gmemstate.ingest.readers.other_vmms import OtherVmm
from gmemstate.ingest.readers.perf import PerfScriptReader, PerfTraceReader
from gmemstate.ingest.readers.qemu import Qemu
from gmemstate.ingest.readers.strace import StraceReader
from gmemstate.messages.catalogue import ParsedMessage
from gmemstate.model.reports import SourceFormat
from gmemstate.text import printable

_MAY_BE_A_TRACE = re.compile(
    r"-\d+(?: +[(\[]|: )|\d\) |\d\.\d{6,9}: |\dus.?: |\) += |resumed>|<unfinished|^[{#=]|\+\+\+ |--- SIG|ms\)|\( +\): "
).search
"""What no line of a trace is without; most lines of logs are."""


class Reader(Protocol):
    """Reads one format line by line. It must know a line by its text alone: what follows may be of another format."""

    format: SourceFormat
    """how people call the format"""

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says; None if it is not of this format."""
        ...


class MessageParser(Protocol):
    """Reads messages, whatever frame stood before them."""

    format: SourceFormat

    def parse(self, envelope: LogEnvelope) -> ParsedMessage | list[ParsedMessage] | Context | None:
        """What a message says; None if it is none of this speaker's."""
        ...


class LogReader:
    """Takes the frames off a line and gives the message to a speaker."""

    def __init__(self, parser: MessageParser, clock: LogClock) -> None:
        self.format = parser.format
        self._parser = parser
        self._clock = clock

    def parse(self, number: int, text: str) -> Parsed:
        """What the message of a line says."""
        envelope = strip_envelopes(text)
        said = self._parser.parse(envelope)
        if said is None or isinstance(said, Context):
            return said
        messages = said if isinstance(said, list) else [said]
        if not all(sound(one.name, one.args) for one in messages):
            return None
        t, at = self._clock.of(envelope)
        more = {name: printable(word) for name, word in (("at", at), ("host", envelope.host)) if word is not None}
        facts = [
            Fact(number, t, envelope.thread or 0, "", one.name, one.args, one.text, {**one.words, **more}) for one in messages
        ]
        return facts[0] if len(facts) == 1 else facts


def readers(clock: LogClock, kernel: KernelLog | None = None) -> list[Reader]:
    """A fresh reader of each format; the more a format demands of a line, the earlier it is asked."""
    return [
        FtraceReader(),
        PerfScriptReader(),
        StraceReader(clock),
        PerfTraceReader(clock),
        BpftraceReader(),
        *(LogReader(parser, clock) for parser in (kernel or KernelLog(), Qemu(), OtherVmm())),
    ]


class FormatDetector:
    """Gives each line to the reader that understood the line before, then to the others."""

    def __init__(self) -> None:
        self.clock = LogClock()
        self.joined = False
        """the last line was read together with the one before it: a mail program had broken one line in two"""
        self._kernel = KernelLog()
        self._readers = readers(self.clock, self._kernel)
        self._broken: tuple[int, str] | None = None

    @property
    def entries(self) -> int:
        """The entries of trace buffers that were seen."""
        return sum(reader.entries for reader in self._readers if isinstance(reader, FtraceReader))

    @property
    def format(self) -> str:
        """The format of the last line that was understood."""
        return self._readers[0].format

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says to the first reader that understands it."""
        self.joined = False
        for place, reader in enumerate(self._readers):
            said = reader.parse(number, text)
            if said is not None:
                if place and proves(said):
                    self._readers.insert(0, self._readers.pop(place))
                self._broken = None
                return said
        return self._otherwise(number, text)

    def _otherwise(self, number: int, text: str) -> Parsed:
        """A line that no reader knows as it stands: it may be wrapped or broken, or say that lines are missing."""
        broken, self._broken = self._broken, None
        envelope = strip_envelopes(text)
        if envelope.text != text and (said := self._trace(number, envelope.text)) is not None:
            return said
        if (missing := gap(number, envelope.text)) is not None:
            return missing
        if self._kernel.claims(envelope.text):
            self._broken = None
            return Context("kernel dump")
        if (known := _format_of(envelope.program)) is not None:
            self._broken = None
            return Context(known, proof=True)
        if broken is not None and isinstance(said := self._trace(broken[0], f"{broken[1]} {text.strip()}"), Fact):
            self.joined = True
            return said
        self._broken = (number, text)
        return None

    def _trace(self, number: int, text: str) -> Parsed:
        """What a line says to the readers of traces, which know no frames but their own."""
        if not _MAY_BE_A_TRACE(text):
            return None
        for reader in self._readers:
            said = None if isinstance(reader, LogReader) else reader.parse(number, text)
            if said is not None:
                return said
        return None


_PROGRAMS = {KERNEL: KernelLog.format, "qemu": Qemu.format} | dict.fromkeys(
    ("virt_", "vmm", "krun", "openhcl", "underhill", "cloud-hypervisor", "hypervisor", "libvirt", "virtqemud", "kata"),
    OtherVmm.format,
)
"""The beginning of the name of a program, as a frame has it, and the format of what it logs."""


def _format_of(program: str | None) -> str | None:
    return next((known for name, known in _PROGRAMS.items() if program is not None and program.startswith(name)), None)


def formats(lines: list[str]) -> tuple[str, str | None]:
    """The names of the formats that understand something in lines, the most frequent one first; and their clock."""
    found: Counter[str] = Counter()
    chooser = FormatDetector()
    for number, text in enumerate(lines, 1):
        said = chooser.parse(number, text)
        if proves(said) and not isinstance(said, Marker):
            by_program = isinstance(said, Context) and said.kind in _PROGRAMS.values()
            found[said.kind if by_program and isinstance(said, Context) else chooser.format] += 1
    return ", ".join(name for name, _ in found.most_common()) or SourceFormat.UNKNOWN, chooser.clock.name


def proves(said: Parsed) -> bool:
    """Whether what was said of a line proves that its input is of a known format."""
    if isinstance(said, Marker):
        return said.name != "elided"
    return said is not None and (not isinstance(said, Context) or said.proof)
