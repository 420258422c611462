"""What stands before a message: the frames of journald, syslog, dmesg, containers and libraries of log lines, and quote marks.

Formats: journalctl(1) ``-o short``, ``short-iso``, ``short-precise``, ``short-monotonic`` and ``json``; dmesg(1) without
options, with
``-T``, ``-e``, ``-d``, ``-x`` and ``--time-format iso``; CONFIG_PRINTK_CALLER; kata and containerd (logfmt), CRI and Docker
logs; libvirt's own log; QEMU's ``-msg timestamp=on``; env_logger and tracing of Rust; bpftrace ``-f json``.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from gmemstate.ingest.fact import SECONDS, nanoseconds
from gmemstate.model.units import seconds

BOOT, REALTIME, PROCESS = "boot", "realtime", "process"
"""Clocks: seconds since the host was started, since 1970, since the writing process was started."""
KERNEL = "kernel"
DEPTH = 6
"""How many frames may stand around a message."""


class LogEnvelope(NamedTuple):
    """A message without its frames. ``t`` is in ns of ``clock``; ``at`` is a time as text, which is not known in ns."""

    text: str
    t: int | None = None
    clock: str | None = None
    at: str | None = None
    host: str | None = None
    program: str | None = None
    thread: int | None = None

    def timed(self, t: int | None, clock: str, written: str) -> "LogEnvelope":
        """The envelope with a time (ns), unless an outer one has given it already."""
        if self.t is not None:
            return self
        return self._replace(t=t, clock=clock) if t is not None else self._replace(at=self.at or written)


class LogClock:
    """The clock of a source is that of its first time; what another clock showed cannot stand among its times."""

    def __init__(self) -> None:
        self.name: str | None = None

    def of(self, envelope: LogEnvelope) -> tuple[int | None, str | None]:
        """The time of a frame in ns, or as a text where it is none of this clock."""
        if envelope.t is None:
            return None, envelope.at
        self.name = self.name or envelope.clock
        return (envelope.t, None) if envelope.clock == self.name else (None, f"{seconds(envelope.t)} ({envelope.clock})")


def iso_ns(text: str) -> int | None:
    """Nanoseconds since 1970 of an ISO 8601 time with its zone; None without one, or for what is no time."""
    match = _ISO_TIME(text)
    if match is None or match["zone"] is None:
        return None
    zone = "+00:00" if match["zone"] == "Z" else match["zone"]
    try:
        moment = datetime.fromisoformat(f"{match['whole'].replace(' ', 'T')}{zone}")
        return int((moment - _EPOCH).total_seconds()) * 1_000_000_000 + int((match["part"] or "0").ljust(9, "0")[:9])
    except (ValueError, OverflowError):
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?: ?(?:Z|[+-]\d\d:?\d\d))?"
_ISO_TIME = re.compile(
    r"(?P<whole>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](?P<part>\d{1,9}))? ?(?P<zone>Z|[+-]\d\d:?\d\d)?"
).fullmatch
_LEVEL = "(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR)"


def _boot(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    thread = int(match["task"]) if match["task"] else envelope.thread
    timed = envelope.timed(nanoseconds(match["s"], match["f"]), BOOT, match["s"])
    return timed._replace(text=match["rest"], program=envelope.program or KERNEL, thread=thread)


def _dated(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    return envelope.timed(None, REALTIME, match["at"])._replace(text=match["rest"], program=envelope.program or KERNEL)


def _syslog(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    return _sent(envelope.timed(None, REALTIME, match["at"]), match)


def _iso(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    return envelope.timed(iso_ns(match["at"]), REALTIME, match["at"])._replace(text=match["rest"])


def _sent(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    """Host and program, as syslog has them."""
    return envelope._replace(
        text=match["rest"], host=envelope.host or match["host"], program=envelope.program or match["program"]
    )


def _rust(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    return _iso(envelope, match)._replace(program=envelope.program or match["program"])


def _process(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    timed = envelope.timed(nanoseconds(match["s"], match["f"]), PROCESS, match["s"])
    return timed._replace(text=match["rest"], program=envelope.program or match["program"])


def _thread(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    timed = envelope.timed(nanoseconds(match["s"], match["f"]), REALTIME, match["s"])
    return timed._replace(text=match["rest"], thread=int(match["thread"]))


_ERROR_OF_LOGFMT = re.compile(r'" error="(?P<error>(?:[^"\\]|\\.)*+)"').search


def _logfmt(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    error = _ERROR_OF_LOGFMT(match[0])
    said = match["message"] + (f": {error['error']}" if error is not None else "")
    text = re.sub(r'\\(["\\])', r"\1", said).replace("\\n", " ")
    return envelope.timed(iso_ns(match["at"]), REALTIME, match["at"])._replace(text=text)


def _bare(envelope: LogEnvelope, match: re.Match[str]) -> LogEnvelope:
    return envelope._replace(text=match["rest"])


_HOST = r"(?P<host>[^\s:\[\]{}()\"]{1,255})"
_PROGRAM = r"(?P<program>[^\s:\[\]{}()\"]{1,64})(?:\[\d{1,9}\])?"

_FRAMES: tuple[tuple[Callable[[str], re.Match[str] | None], Callable[[LogEnvelope, re.Match[str]], LogEnvelope]], ...] = (
    (re.compile(r"(?:> ?)+(?P<rest>.*)").fullmatch, _bare),
    (
        re.compile(
            r"(?:<\d{1,3}>|[a-z]+\d? *:[a-z]+ *: *)?"
            rf"\[ *(?P<s>{SECONDS})\.(?P<f>\d{{1,9}})\] ?(?:\[ *(?:T(?P<task>\d{{1,9}})|C\d{{1,9}})\] ?)?(?P<rest>.*)"
        ).fullmatch,
        _boot,
    ),
    (re.compile(r"\[(?P<at>[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})\] (?P<rest>.*)").fullmatch, _dated),
    (re.compile(r"\[(?P<at>[A-Z][a-z]{2} ?\d{1,2} \d\d:\d\d| *[+<] *\d+\.\d{6}>?)\] (?P<rest>.*)").fullmatch, _dated),
    (
        re.compile(
            rf"(?P<at>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{{1,9}})?) {_HOST} {_PROGRAM}: (?P<rest>.*)"
        ).fullmatch,
        _syslog,
    ),
    (re.compile(rf"(?P<at>{_ISO}):? \d{{1,9}}: (?:debug|info|warning|error) : \w+:\d+ : (?P<rest>.*)").fullmatch, _iso),
    (re.compile(rf"(?P<at>{_ISO}) (?:stdout|stderr) [FP] (?P<rest>.*)").fullmatch, _iso),
    (re.compile(rf"\[(?P<at>{_ISO}) +{_LEVEL} +(?P<program>[\w:.-]{{1,100}})\] (?P<rest>.*)").fullmatch, _rust),
    (re.compile(rf"(?P<at>{_ISO}) +{_LEVEL} +(?P<program>[\w:.-]{{1,100}}): (?P<rest>.*)").fullmatch, _rust),
    (re.compile(rf"(?P<at>{_ISO}):? +(?P<rest>.*)").fullmatch, _iso),
    (
        re.compile(
            r'time="?(?P<at>[^" ]{10,40})"? (?:level=\w+ )?(?:\w+=\S+ )?msg="(?P<message>(?:[^"\\]|\\.)*+)".*'
        ).fullmatch,
        _logfmt,
    ),
    (
        re.compile(
            rf"(?P<program>cloud-hypervisor): *(?P<s>{SECONDS})\.(?P<f>\d{{1,9}})s?: <[^<>]*> \w+:\S+ -- (?P<rest>.*)"
        ).fullmatch,
        _process,
    ),
    (re.compile(rf"(?P<thread>\d{{1,9}})@(?P<s>{SECONDS})\.(?P<f>\d{{6}}):(?P<rest>.*)").fullmatch, _thread),
    (re.compile(r"\[kmsg\]: (?P<rest>.*)").fullmatch, _bare),
    (re.compile(r"message repeated \d{1,9} times: \[ ?(?P<rest>.*)\]").fullmatch, _bare),
)

_FRAMED = re.compile(
    r"[>\[<\d]|[A-Z][a-z]{2} [ \d]\d |time=|cloud-hypervisor:|message repeated|[a-z]+\d? *:[a-z]+ *: *\["
).match
"""How every frame begins; most messages do not."""

_BEHIND_TIME = re.compile(rf"{_HOST} {_PROGRAM}: (?P<rest>.*)").fullmatch
"""Host and program after a time: only there, as two words and a colon begin many a message."""


@lru_cache(4)
def strip_envelopes(line: str) -> LogEnvelope:
    """Take all frames off a line; a line without any is a frame without a time."""
    envelope = LogEnvelope(line)
    for _ in range(DEPTH):
        text = envelope.text.strip()
        inner = _json(envelope, text) if text.startswith("{") else _next(envelope._replace(text=text), text)
        if inner is None:
            return envelope._replace(text=text)
        envelope = inner
    return envelope


def _next(envelope: LogEnvelope, text: str) -> LogEnvelope | None:
    for matches, take in _FRAMES if _FRAMED(text) else ():
        match = matches(text)
        if match is not None:
            return take(envelope, match)
    timed = envelope.t is not None or envelope.at is not None
    match = _BEHIND_TIME(text) if timed and envelope.host is None else None
    return _sent(envelope, match) if match is not None and _is_sender(match["program"]) else None


def _is_sender(program: str) -> bool:
    """Whether a word before a colon is a program that logs: the start of a message is often of the same shape.

    QEMU puts the name of the guest where syslog has the host; its prefix is left to its reader.
    """
    return program == KERNEL or program.startswith(("libvirt", "kata", "virt", "cloud-hypervisor", "systemd", "containerd"))


def _json(envelope: LogEnvelope, text: str) -> LogEnvelope | None:
    """A record of journald, Docker or another program, or of bpftrace: the message in it."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    if record.get("type") == "printf" and isinstance(record.get("data"), str):
        return envelope._replace(text=record["data"].strip())
    message = next((record[name] for name in ("MESSAGE", "msg", "message", "log") if name in record), None)
    if isinstance(message, list):  # journald gives bytes that are no text as numbers
        message = "".join(chr(byte) if isinstance(byte, int) and 0 < byte < 256 else "?" for byte in message)
    if not isinstance(message, str):
        return None
    framed = _json_time(envelope, record)
    host, program = record.get("_HOSTNAME"), record.get("SYSLOG_IDENTIFIER", record.get("_COMM"))
    return framed._replace(
        text=" ".join(message.split("\n")),
        host=host if isinstance(host, str) else envelope.host,
        program=program if isinstance(program, str) else envelope.program,
    )


def _json_time(envelope: LogEnvelope, record: dict[str, Any]) -> LogEnvelope:
    stamp = record.get("__REALTIME_TIMESTAMP", record.get("_SOURCE_REALTIME_TIMESTAMP"))
    if isinstance(stamp, str) and stamp.isascii() and stamp.isdigit() and len(stamp) <= 16:
        return envelope.timed(int(stamp) * 1000, REALTIME, stamp)
    written = next((record[name] for name in ("time", "ts", "timestamp") if isinstance(record.get(name), str)), None)
    return envelope if written is None else envelope.timed(iso_ns(written), REALTIME, written[:40])
