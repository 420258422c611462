"""strace: which calls a VMM made, and what was returned; never what it passed in memory.

Formats: strace 5 to 6 with ``-f``, ``-t``, ``-tt``, ``-ttt``, ``-r``, ``-T``, ``-yy`` and ``-X``; an ioctl stands there by its
name, as
``_IOC(...)`` or as a number. KVM_SET_MEMORY_ATTRIBUTES has a pointer as its argument, so only its result is known.
"""

import re
from typing import NamedTuple

from gmemstate.decode import errno_of, ioctl, ioctls
from gmemstate.ingest.fact import SECONDS, Context, Fact, Parsed, nanoseconds, sound
from gmemstate.ingest.readers.envelopes import REALTIME, LogClock, LogEnvelope
from gmemstate.model.linux import KVM_MEM_GUEST_MEMFD, KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY
from gmemstate.model.reports import SourceFormat

DAY = "time of day"
UNFINISHED = 4096
"""Calls of how many threads may be unfinished at a time."""
SECOND = 1_000_000_000
SINCE_EPOCH = 100_000_000
"""Seconds below this are no time of day but a distance (``-r``)."""
CONVERTING = frozenset(
    known.number
    for name in (
        "KVM_SET_MEMORY_ATTRIBUTES",
        "KVM_SET_MEMORY_ATTRIBUTES2",
        "KVM_GMEM_CONVERT_SHARED",
        "KVM_GMEM_CONVERT_PRIVATE",
    )
    if (known := ioctl(name)) is not None
)
"""The ioctls that convert, by number."""
SI_CODES = {
    "SI_USER": 0,
    "SI_KERNEL": 128,
    "SI_TKILL": -6,
    "BUS_ADRALN": 1,
    "BUS_ADRERR": 2,
    "BUS_OBJERR": 3,
    "BUS_MCEERR_AR": 4,
    "BUS_MCEERR_AO": 5,
}
SIGNALS = {"SIGBUS": 7, "SIGKILL": 9}
MODES = {
    "FALLOC_FL_KEEP_SIZE": 1,
    "FALLOC_FL_PUNCH_HOLE": 2,
    "FALLOC_FL_COLLAPSE_RANGE": 8,
    "FALLOC_FL_ZERO_RANGE": 16,
    "FALLOC_FL_INSERT_RANGE": 32,
}
FILES = ("kvm-vm", "kvm-gmem", "kvm-vcpu")

_LINE = re.compile(
    r"(?:\[pid +(?P<pid>\d{1,9})\] |(?P<tid>\d{1,9}) +)?"
    rf"(?:(?P<h>\d\d):(?P<m>\d\d):(?P<sec>\d\d)(?:\.(?P<hf>\d{{6}}))? |(?P<s>{SECONDS})\.(?P<f>\d{{6}}) |[+ ] *\d+\.\d{{6}} )?"
    r"(?P<body>(?:[a-z_][a-z0-9_]{1,40}\(|<\.\.\. [a-z0-9_]{1,40} resumed>|--- SIG|\+\+\+ ).*)"
).fullmatch
_RESULT = re.compile(
    r"\) += (?P<ret>\d{1,19}|-1(?= E| \(errno)|0x[0-9a-f]{1,16}|\?)(?:<.{1,300}>)?(?:\(deleted\))?(?: (?P<error>E[A-Z0-9_]+) "
    r"\([^)]{1,80}\)| \([^)]{1,80}\))?"
    r"(?: <(?P<ds>\d{1,9})\.(?P<df>\d{6})>)?$"
).search
_CALL = re.compile(r"(?P<name>[a-z_][a-z0-9_]{1,40})\((?P<rest>.*)").fullmatch
_RESUMED = re.compile(r"<\.\.\. (?P<name>[a-z0-9_]{1,40}) resumed>(?P<rest>.*)").fullmatch
_FD = re.compile(r"(?P<fd>\d{1,9})(?:<(?P<file>.{0,300}?)>(?:\(deleted\))?)?(?=[,) ]|$)").match
_IOCTL = re.compile(
    r", (?P<cmd>0x[0-9a-f]{1,8}|_IOC\([^)]{1,80}\)|[A-Z][A-Z0-9_]{1,60}(?: or [A-Z0-9_]{1,60}){0,4})(?: /\* .{1,80}? \*/)?"
).match
_SLOT = re.compile(
    r"\{slot=(?P<slot>\d{1,10}), flags=(?P<flags>[\w|]{1,100}), guest_phys_addr=(?P<gpa>0x[0-9a-f]{1,16}|\d{1,20}), "
    r"memory_size=(?P<size>0x[0-9a-f]{1,16}|\d{1,20}), userspace_addr=(?P<hva>0x[0-9a-f]{1,16}|\d{1,20})"
).search
_SLOT_FLAGS = {
    "KVM_MEM_LOG_DIRTY_PAGES": KVM_MEM_LOG_DIRTY_PAGES,
    "KVM_MEM_READONLY": KVM_MEM_READONLY,
    "KVM_MEM_GUEST_MEMFD": KVM_MEM_GUEST_MEMFD,
}
_FALLOCATE = re.compile(
    r", (?P<mode>0x[0-9a-f]{1,8}|[A-Z_0-9|]{1,200})(?: /\* .{1,200}? \*/)?, (?P<offset>\d{1,19}), (?P<len>\d{1,19})"
).match
_SIGNAL = re.compile(r"--- (?P<signal>SIG[A-Z0-9]+) \{.{0,200}?si_code=(?P<code>[A-Z_0-9-]{1,20})").match
_KILLED = re.compile(r"\+\+\+ killed by (?P<signal>SIG[A-Z]+)").match
_OTHER = re.compile(r"strace: Process \d+ (?:attached|detached)|\+\+\+ exited with|--- ").match


class Entered(NamedTuple):
    """A call that was begun: what its line has shown so far."""

    name: str
    args: dict[str, int]
    words: dict[str, str]


def number(text: str) -> int:
    """A number as strace prints it."""
    return int(text, 16 if text.startswith("0x") else 10)


def flags_of(text: str, names: dict[str, int]) -> int | None:
    """Flags by name or number; None if one of them is not in the table."""
    parts = text.split("|")
    if all(part in names for part in parts):
        return sum(names[part] for part in parts)
    return number(text) if re.fullmatch(r"0x[0-9a-f]+|\d+", text) else None


def returned(ret: str, error: str | None) -> int | None:
    """The result of a call, negative errno for an error; None where it is not shown or not known."""
    if ret == "?":
        return None
    known = None if error is None else errno_of(error)
    if error is not None:
        return -known.number if known is not None else None
    return number(ret)


def ioctl_of(text: str, file: str | None, *, by_number: bool = False) -> tuple[int, str] | None:
    """Number and name of the KVM ioctl that a spelling means on a file; ``by_number``: of its type and number only."""
    found = ioctls(text)
    if file == "kvm-gmem" and by_number:
        found = found[::-1]
    chosen = next(
        (one for one in found if one.number is not None and one.name is not None and one.name.startswith("KVM_")), None
    )
    return None if chosen is None or chosen.number is None or chosen.name is None else (chosen.number, chosen.name)


class StraceReader:
    """Reads one line at a time; keeps the calls that threads are inside of."""

    format = SourceFormat.STRACE

    def __init__(self, clock: LogClock) -> None:
        self._clock = clock
        self._entered: dict[int, Entered] = {}

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: a call or a signal that matters, context, or None for what strace does not print."""
        match = _LINE(text.rstrip())
        if match is None:
            return Context("system_call", proof=True) if _OTHER(text) else None
        thread = int(match["pid"] or match["tid"] or 0)
        t, at = self._clock.of(_time(match))
        fact = Fact(number, t, thread, "", "system_call", {}, text, {"at": at} if at else {})
        body = match["body"]
        if body.startswith(("---", "+++")):
            return _signalled(fact, body)
        return self._call(fact, body)

    def _call(self, fact: Fact, body: str) -> Parsed:
        resumed, call = _RESUMED(body), _CALL(body)
        entered = None
        if resumed is not None:
            entered = self._entered.pop(fact.thread, None)
            if entered is None or entered.name != resumed["name"]:
                return Context("system_call", proof=True)
        elif call is not None:
            self._entered.pop(fact.thread, None)  # its return is missing
            entered = _entered(call["name"], call["rest"])
        unfinished = body.endswith("<unfinished ...>")
        result = _RESULT(body)
        if entered is None or not (unfinished or result):
            # Without a result and no mark that it comes later, it is not strace's; `exit_group(0) = ?` has one.
            return Context("system_call", proof=True) if result or unfinished else None
        if unfinished:
            if len(self._entered) < UNFINISHED:
                self._entered[fact.thread] = entered
            return _said(fact, entered, "entered", {})
        outcome: dict[str, int] = {}
        if result is not None:
            ret = returned(result["ret"], result["error"])
            if ret is not None and abs(ret) < 1 << 62:
                outcome["ret"] = ret
            if result["ds"] is not None:
                outcome["duration"] = nanoseconds(result["ds"], result["df"]) or 0
        return _said(fact, entered, "whole" if resumed is None else "returned", outcome)


def _time(match: re.Match[str]) -> LogEnvelope:
    if match["s"] is not None and int(match["s"]) >= SINCE_EPOCH:
        return LogEnvelope("", nanoseconds(match["s"], match["f"]), REALTIME)
    if match["h"] is not None:
        seconds = int(match["h"]) * 3600 + int(match["m"]) * 60 + int(match["sec"])
        return LogEnvelope("", seconds * SECOND + int((match["hf"] or "0").ljust(9, "0")), DAY)
    return LogEnvelope("")


def _entered(name: str, rest: str) -> Entered | None:
    """What the beginning of a call tells; None for calls that do not matter."""
    if name not in ("ioctl", "fallocate", "close", "dup", "dup2", "dup3", "openat", "open", "memfd_create"):
        return None
    fd = _FD(rest)
    args = {"fd": int(fd["fd"])} if fd is not None else {}
    file = next((known for known in FILES if fd is not None and known in (fd["file"] or "")), None)
    words = {"call": name} | ({"file": file} if file is not None else {})
    if name == "ioctl":
        cmd = _IOCTL(rest, fd.end()) if fd is not None else None
        named = ioctl_of(cmd["cmd"], file) if cmd is not None else None
        if named is None:
            return None
        args["cmd"], words["ioctl"] = named
        if slot := _SLOT(rest):
            args |= {key: number(slot[key]) for key in ("slot", "gpa", "size", "hva")}
            flags = flags_of(slot["flags"], _SLOT_FLAGS)
            args |= {} if flags is None else {"flags": flags}
    elif name == "fallocate":
        found = _FALLOCATE(rest, fd.end()) if fd is not None else None
        mode = None if found is None else flags_of(found["mode"], MODES)
        if found is None or mode is None:
            return None
        args |= {"mode": mode, "offset": int(found["offset"]), "len": int(found["len"])}
    return Entered(name, args, words)


def _said(fact: Fact, entered: Entered, phase: str, outcome: dict[str, int]) -> Fact | Context:
    name = "convert_call" if entered.args.get("cmd") in CONVERTING else "system_call"
    if not sound(name, {**entered.args, **outcome}):
        return Context("system_call", proof=True)
    return fact._replace(name=name, args={**entered.args, **outcome}, words={**fact.words, **entered.words, "phase": phase})


def _signalled(fact: Fact, body: str) -> Parsed:
    """SIGBUS and SIGKILL matter: a poisoned page, and the end of a thread."""
    match = _SIGNAL(body) or _KILLED(body)
    signal = SIGNALS.get(match["signal"]) if match is not None else None
    if match is None or signal is None:
        return Context("system_call", proof=True)
    code = match.groupdict().get("code")
    args = {"sig": signal} | ({"code": SI_CODES[code]} if code in SI_CODES else {})
    return fact._replace(name="signalled", args=args)
