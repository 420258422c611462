"""bpftrace, and the probe program of this project: one JSON object in each line.

``bpftrace -f json`` prints ``{"type": "printf", "data": "..."}``: what a script printed stands in ``data`` and is read as any
other line (see :mod:`gmemstate.ingest.readers.envelopes`); ``lost_events`` are a gap; the rest is context.

The probe program prints an object with

=========  ==========================================================================================================
``t``      ns of CLOCK_MONOTONIC
``tid``    the thread
``comm``   its name (may be missing)
``kind``   the name of an ftrace probe (``vm_ioctl_ret``, ``gmem_inv``, ...) or of a KVM tracepoint (``kvm_hypercall``, ...)
``at``     what ftrace prints in brackets: ``kvm_vm_ioctl+0x4 <- kvm_range_has_memory_attributes`` (may be missing)
=========  ==========================================================================================================

and the fields of the ftrace probe of that name, as numbers or as strings with 0x; of a tracepoint its text, as ``text``.
"""

import json
import re
from typing import Any, TypeGuard

from gmemstate.ingest.fact import PROBES, Context, Fact, Marker, Parsed, sound
from gmemstate.ingest.readers.ftrace import read_event
from gmemstate.model.reports import SourceFormat

_NUMBER = re.compile(r"-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20})").fullmatch
_OWN = frozenset(("t", "tid", "comm", "kind", "at", "text"))
_LIMIT = 1 << 64
_TIME_LIMIT = 1 << 63
_THREADS = 1 << 31
_TYPES = frozenset(
    ("attached_probes", "map", "stats", "hist", "time", "printf", "value", "cat", "join", "syscall", "helper_error")
)


class BpftraceReader:
    """Reads JSON lines; keeps nothing."""

    format = SourceFormat.BPFTRACE

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: the fact of a probe, a gap, context, or None for what is neither."""
        if not text.startswith("{"):
            return None
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(record, dict):
            return None
        if "kind" in record and "t" in record:
            return _probe(number, record)
        return _of_bpftrace(number, record)


def _probe(number: int, record: dict[str, Any]) -> Fact | Context | None:
    kind, t, thread = record["kind"], record["t"], record.get("tid")
    if not isinstance(kind, str) or not _whole(t, _TIME_LIMIT) or not _whole(thread, _THREADS):
        return None
    place, comm = record.get("at", ""), record.get("comm", "")
    if kind not in PROBES:
        text = record.get("text")
        said = read_event(kind, text if isinstance(text, str) else "")
        return said if said is None or isinstance(said, Context) else Fact(number, t, thread, str(comm), *said)
    args: dict[str, int] = {}
    for name, given in record.items():
        if name in _OWN:
            continue
        value = int(given, 16 if "x" in given else 10) if isinstance(given, str) and _NUMBER(given) else given
        if isinstance(value, bool) or not isinstance(value, int) or not -_TIME_LIMIT <= value < _LIMIT:
            return None
        args[name] = value
    return Fact(number, t, thread, str(comm), kind, args, f"({place})") if sound(kind, args) else None


def _whole(value: object, limit: int) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _of_bpftrace(number: int, record: dict[str, Any]) -> Marker | Context | None:
    kind, data = record.get("type"), record.get("data")
    if kind == "lost_events":
        lost = data.get("events") if isinstance(data, dict) else None
        return Marker(number, "lost", lost=lost if _whole(lost, _TIME_LIMIT) else None)
    if kind == "printf" or not isinstance(kind, str) or kind not in _TYPES:
        return None  # what was printed is a line of its own
    return Context(SourceFormat.BPFTRACE, proof=True)
