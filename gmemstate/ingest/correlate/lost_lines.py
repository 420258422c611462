"""Lines that are missing though nothing says so: half of a pair of which the same thread has shown both halves before.

A trace that was filtered, cut or joined by hand has no "LOST EVENTS". But a thread that has shown how it enters a call and how
it returns does not return from one that it was not seen to enter.
"""

from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.fact import Fact
from gmemstate.model.linux import (
    KVM_EXIT_HYPERCALL,
    KVM_HC_MAP_GPA_RANGE,
    KVM_SET_MEMORY_ATTRIBUTES,
    KVM_SET_MEMORY_ATTRIBUTES2,
)

_PAIRS = {
    "vm_ioctl_ret": "vm_ioctl",
    "gmem_ioctl_ret": "gmem_ioctl",
    "set_region_ret": "set_region",
    "hc_done": "hypercall",
    "uexit": "exit",
}
"""What ends a call, or is the second line of one event, and what begins it."""
_INSIDE = {"attempt": "vm_ioctl", "pre_set": "vm_ioctl", "post_set": "vm_ioctl", "gmem_store": "gmem_ioctl"}
"""Steps that are made inside of a call only, and what begins it."""
_ONCE = frozenset(("vm_ioctl", "gmem_ioctl", "set_region", "exit"))
"""What does not begin again before it has ended; a hypercall that KVM itself answers has no end."""
_CONVERSIONS = (KVM_SET_MEMORY_ATTRIBUTES, KVM_SET_MEMORY_ATTRIBUTES2)


def lines_are_missing(thread: Thread, fact: Fact) -> bool:
    """Whether a fact shows that its thread has made a line that is not here; notes what it begins or ends."""
    name = fact.name
    if name == "leave_ioctl":
        thread.open -= {"vm_ioctl", "gmem_ioctl", "set_region"}
        return False
    if name in _BEGINS:
        return _begins(thread, fact)
    if name in _PAIRS:
        return _ends(thread, fact, _PAIRS[name])
    return name in _INSIDE and _INSIDE[name] in thread.paired and _INSIDE[name] not in thread.open


_BEGINS = frozenset(_PAIRS.values())
WATCHED = frozenset((*_PAIRS, *_PAIRS.values(), *_INSIDE, "leave_ioctl"))
"""The kinds of facts that are looked at."""


def _begins(thread: Thread, fact: Fact) -> bool:
    name = fact.name
    if name in ("vm_ioctl", "gmem_ioctl") and fact.args.get("cmd") not in _CONVERSIONS:
        return False
    if name == "hypercall" and fact.args.get("number") != KVM_HC_MAP_GPA_RANGE:
        return False
    missing = name in thread.open and name in thread.paired and name in _ONCE
    if name == "exit" and fact.args.get("reason") == KVM_EXIT_HYPERCALL and "hypercall" in thread.paired:
        missing = missing or "hypercall" not in thread.open
    thread.open.add(name)
    return missing


def _ends(thread: Thread, fact: Fact, begin: str) -> bool:
    if begin in ("vm_ioctl", "gmem_ioctl") and fact.args.get("cmd") not in (*_CONVERSIONS, None):
        return False
    if begin in thread.open:
        thread.open.remove(begin)
        thread.paired.add(begin)
        return False
    return begin in thread.paired
