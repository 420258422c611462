"""perf: the same tracepoints as in ftrace, with their group before the name, and system calls as ``perf trace`` tells them.

Formats: tools/perf builtin-script.c (``comm TID [CPU] TIME: group:event: text``, maybe PID/TID and a period, call chains below)
and builtin-trace.c (``ms (duration): comm/TID group:event(field: value)``). perf names an ioctl by type and number alone.
"""

import re
from collections.abc import Mapping

from gmemstate.ingest.fact import SECONDS, Context, Fact, Marker, Parsed, nanoseconds, sound
from gmemstate.ingest.readers.envelopes import PROCESS, LogClock, LogEnvelope
from gmemstate.ingest.readers.ftrace import read_event
from gmemstate.ingest.readers.strace import CONVERTING, ioctl_of, returned
from gmemstate.messages.catalogue import ParsedMessage
from gmemstate.model.linux import (
    FALLOC_FL_COLLAPSE_RANGE,
    FALLOC_FL_INSERT_RANGE,
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_ZERO_RANGE,
)
from gmemstate.model.reports import SourceFormat

_SCRIPT = re.compile(
    r" *+(?!> )(?P<comm>\S.{0,14}?) +(?:\d{1,9}/)?(?P<thread>\d{1,9}) +(?:\[\d{1,5}\] +)?(?:[^ \d][^ ]{1,8} +)?"
    rf"(?P<s>{SECONDS})\.(?P<f>\d{{6,9}}): +(?:\d{{1,20}} +)?(?P<group>[a-z]\w{{0,30}}):(?P<name>\w{{1,60}}): *(?P<rest>.*)"
).fullmatch
_CHAIN = re.compile(r"\s+[0-9a-f]{8,16} .*\(.*\)$|\s+[0-9a-f]{12,16} \[unknown\].*$").fullmatch
_LOST = re.compile(
    r".{0,80}PERF_RECORD_LOST:?(?: lost)? (?P<count>\d{1,18})\b|(?:Processed \d{1,18} events and )?lost \d{1,18} chunks\b"
).match

_TRACE = re.compile(
    r" *+(?P<s>\d{1,12})\.(?P<f>\d{3}) \((?: *(?P<ds>\d{1,12})\.(?P<df>\d{3}) ms| +)\): "
    r"(?:(?P<comm>.{1,32}?)/)?(?P<thread>\d{1,9}) "
    r"(?P<body>.*)"
).fullmatch
_CALL = re.compile(r"(?P<name>[a-z_][a-z0-9_]{1,40})\((?P<rest>.*)").fullmatch
_EVENT = re.compile(r"(?P<group>[a-z]\w{0,30}):(?P<name>\w{1,60})\((?P<fields>.*)\)$").fullmatch
_CONTINUED = re.compile(r" ?\.\.\. \[continued\]: (?P<name>[a-z0-9_]{1,40})\(\)\)(?P<rest>.*)").fullmatch
_RESULT = re.compile(r"\) += (?P<ret>-?\d{1,19}|0x[0-9a-f]{1,16}|\?)(?: (?P<error>E[A-Z0-9_]+) \(.{1,80}\))?$").search
_FIELD = re.compile(r"\b(\w{1,40}): (-?\d{1,20}|0x[0-9a-f]{1,16})\b").findall
_CMD = re.compile(r"\bcmd: (?P<cmd>\((?:0x[0-9a-f]+|0), (?:0x[0-9a-f]+|0), (?:0x[0-9a-f]+|0)\)|[A-Z][A-Z0-9_]+)").search
_MODE = re.compile(r"\bmode: (?P<mode>[A-Z_|]{1,100}|0x[0-9a-f]{1,8}|\d{1,10})").search
_FALLOCATE_FLAGS = {
    "KEEP_SIZE": FALLOC_FL_KEEP_SIZE,
    "PUNCH_HOLE": FALLOC_FL_PUNCH_HOLE,
    "COLLAPSE_RANGE": FALLOC_FL_COLLAPSE_RANGE,
    "ZERO_RANGE": FALLOC_FL_ZERO_RANGE,
    "INSERT_RANGE": FALLOC_FL_INSERT_RANGE,
}
MICROSECOND = 1000

_TRACEPOINTS = {
    "kvm_vm_set_mem_attributes": ("attempt", {"start": "start", "end": "end", "attr": "attrs"}),
    "kvm_set_vm_mem_attributes": ("attempt", {"start": "start", "end": "end", "attr": "attrs"}),
    "kvm_hypercall": ("hypercall", {"nr": "number", "a0": "a0", "a1": "a1", "a2": "a2"}),
    "kvm_userspace_exit": ("exit", {"reason": "reason", "errno": "err"}),
    "kvm_page_fault": ("page_fault", {"vcpu_id": "vcpu", "fault_address": "address", "error_code": "error_code"}),
    "kvm_unmap_hva_range": ("unmap_hva", {"start": "hva", "end": "end"}),
    "kvm_tdp_mmu_spte_changed": (
        "spte",
        {"as_id": "as_id", "gfn": "gfn", "level": "level", "old_spte": "old", "new_spte": "new"},
    ),
}
"""Tracepoint to the name of its fact, and field by field its name there."""


class PerfScriptReader:
    """Reads ``perf script``; keeps nothing."""

    format = SourceFormat.PERF_SCRIPT

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: the fact of its tracepoint, context, or None for what is no line of perf script."""
        match = _SCRIPT(text)
        if match is None:
            if lost := _LOST(text):
                return Marker(number, "lost", lost=int(lost["count"]) if lost["count"] else None)
            return Context("call chain") if _CHAIN(text) else None
        said = read_event(match["name"], match["rest"])
        if said is None or isinstance(said, Context):
            return said
        return Fact(number, nanoseconds(match["s"], match["f"]), int(match["thread"]), match["comm"], *said)


class PerfTraceReader:
    """Reads ``perf trace``; keeps the arguments of calls that are continued on a later line."""

    format = SourceFormat.PERF_TRACE

    def __init__(self, clock: LogClock) -> None:
        self._clock = clock
        self._entered: dict[int, Fact] = {}

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: a call or a tracepoint, context, or None for what is no line of perf trace."""
        match = _TRACE(text.rstrip())
        if match is None:
            return None
        begun = int(match["s"]) * 1_000_000 + int(match["f"]) * MICROSECOND
        t, at = self._clock.of(LogEnvelope("", begun, PROCESS))
        thread = int(match["thread"])
        fact = Fact(number, t, thread, match["comm"] or "", "system_call", {}, text, {"at": at} if at else {})
        if event := _EVENT(match["body"]):
            return _event(fact, event["name"], event["fields"])
        duration = None if match["ds"] is None else int(match["ds"]) * 1_000_000 + int(match["df"]) * MICROSECOND
        return self._call(fact, match["body"], duration)

    def _call(self, fact: Fact, body: str, duration: int | None) -> Parsed:
        continued, call, result = _CONTINUED(body), _CALL(body), _RESULT(body)
        phase = "whole"
        entered: Fact | None = None
        if continued is not None:
            entered = self._entered.pop(fact.thread, None)
            phase = "returned"
            if entered is not None and entered.words["call"] != continued["name"]:
                entered = None
        elif call is not None:
            entered = _entered(fact, call["name"], call["rest"])
            if result is None:
                phase = "entered"
                self._entered.pop(fact.thread, None)
                if entered is not None and len(self._entered) < 4096:
                    self._entered[fact.thread] = entered
        if entered is None:
            return Context("system_call", proof=True)
        args = dict(entered.args)
        if result is not None and (ret := returned(result["ret"], result["error"])) is not None:
            args["ret"] = ret
            args |= {} if duration is None else {"duration": duration}
        if not sound(entered.name, args):
            return Context("system_call", proof=True)
        return entered._replace(line=fact.line, t=fact.t, args=args, text=fact.text, words={**entered.words, "phase": phase})


def _entered(fact: Fact, name: str, rest: str) -> Fact | None:
    fields = {field: int(value, 0) if value.startswith("0x") else int(value) for field, value in _FIELD(rest)}
    if "fd" not in fields:
        return None
    args, words, kind = {"fd": fields["fd"]}, {**fact.words, "call": name, "by": "number"}, "system_call"
    if name == "ioctl":
        cmd = _CMD(rest)
        named = ioctl_of(cmd["cmd"], None) if cmd is not None else None
        if named is None:
            return None
        args["cmd"], words["ioctl"] = named
        kind = "convert_call" if named[0] in CONVERTING else kind
    elif name == "fallocate":
        mode = _MODE(rest)
        if mode is None or not {"offset", "len"} <= fields.keys():
            return None
        parts = mode["mode"].split("|")
        known = all(part in _FALLOCATE_FLAGS for part in parts)
        args |= {"mode": sum(_FALLOCATE_FLAGS[part] for part in parts) if known else int(mode["mode"], 0), **fields}
    elif name != "close":
        return None
    return fact._replace(name=kind, args=args, words=words)


def _event(fact: Fact, name: str, fields: str) -> Parsed:
    known = _TRACEPOINTS.get(name)
    if known is None:
        return Context("other events", proof=True)
    given = {field: int(value, 0) if value.startswith("0x") else int(value) for field, value in _FIELD(fields)}
    args = {new: given[old] for old, new in known[1].items() if old in given}
    said = _said(known[0], args, name)
    return None if said is None else fact._replace(name=said.name, args=said.args, text=said.text)


def _said(name: str, args: Mapping[str, int], event: str) -> ParsedMessage | None:
    if not sound(name, args):
        return None
    if name == "exit" and args.get("err", 0) == 0:
        args = {**args, "err": 0}
    return ParsedMessage(name, args, f"{event}: ")
