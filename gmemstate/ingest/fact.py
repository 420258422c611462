"""A fact: one line of a trace, understood but not yet joined to anything."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gmemstate.model.events import Capability
from gmemstate.model.linux import LAST_PAGE, PRIVATE_ATTRIBUTE

NOTHING: Mapping[str, str] = MappingProxyType({})


class Fact(NamedTuple):
    """What one line says: ``name`` is that of its probe or tracepoint, ``args`` its numbers, ``text`` what is no number.

    ``t`` is in ns of the trace's clock, None where the clock does not count seconds. ``thread`` is 0 where the line names none.
    ``words`` are the named texts of a line that has several.
    """

    line: int
    t: int | None
    thread: int
    comm: str
    name: str
    args: Mapping[str, int]
    text: str = ""
    words: Mapping[str, str] = NOTHING


class Marker(NamedTuple):
    """A line about the trace itself: a gap (``text`` says of what), or the header's count of entries."""

    line: int
    name: str
    entries: int | None = None
    lost: int | None = None
    text: str = ""


class Context(NamedTuple):
    """A line that is recognised and says nothing that a conversion needs; ``proof`` if only a known format has such lines."""

    kind: str
    proof: bool = False


Parsed = Fact | list[Fact] | Marker | Context | None
"""What a reader makes of a line: what it says, something about the log itself, context, or None where it does not know it."""


SECONDS = "[0-8]?[0-9]{1,9}"
"""Seconds whose nanoseconds fit into 64 bits, as a pattern."""


def nanoseconds(whole: str | None, part: str) -> int | None:
    """The time of a line from its seconds and their fraction; None where the clock does not count seconds."""
    return None if whole is None else int(whole + part.ljust(9, "0")[:9])


class FactKind(NamedTuple):
    """A kind of fact of a trace: the numbers without which it says nothing, and what a line of it proves."""

    needs: tuple[str, ...] = ()
    shows: Capability | None = None
    outside: bool = False
    """its thread is not, or no longer, inside of a conversion, whether or not the return of that was seen"""


PROBES = {
    "vm_ioctl": FactKind(shows=Capability.ASKED),
    "vm_ioctl_ret": FactKind(shows=Capability.RETURNED),
    "gmem_ioctl": FactKind(shows=Capability.ASKED),
    "gmem_ioctl_ret": FactKind(shows=Capability.RETURNED),
    "vcpu_ioctl_ret": FactKind(),
    "uexit": FactKind(shows=Capability.EXITS, outside=True),
    "run_ret": FactKind(shows=Capability.FAULT_EXITS, outside=True),
    "hc_done": FactKind(outside=True),
    "range_has_attrs": FactKind(("kvm", "start", "end", "attrs", "ret"), Capability.COMPARED),
    "pre_set": FactKind(("kvm",)),
    "post_set": FactKind(("kvm",)),
    "unmap_gfn": FactKind(("kvm",), Capability.GUEST_UNMAP),
    "inv_start": FactKind(),
    "inv_add": FactKind(("kvm", "start", "end")),
    "inv_end": FactKind(),
    "tlb_flush": FactKind(),
    "gmem_create": FactKind(("kvm", "size", "fd"), outside=True),
    "gmem_bind": FactKind(("kvm",), outside=True),
    "gmem_prepare": FactKind(("kvm",), outside=True),
    "gmem_commit": FactKind(("kvm",), outside=True),
    "gmem_unbind": FactKind(("base_gfn", "npages")),
    "gmem_fallocate": FactKind(("mode", "offset", "len", "ret"), outside=True),
    "gmem_release": FactKind(("inode",), outside=True),
    "gmem_error": FactKind(("inode", "index")),
    "gmem_get_pfn": FactKind(("kvm", "gfn", "ret"), Capability.PRIVATE_FAULTS, outside=True),
    "gmem_ufault": FactKind(("pgoff", "addr", "ret"), Capability.HOST_FAULTS, outside=True),
    "gmem_inv": FactKind(("start", "end"), Capability.ZAP),
    "gmem_store": FactKind(("index", "last", "val"), Capability.STORED),
    "set_region": FactKind(outside=True),
    "set_region_ret": FactKind(shows=Capability.SLOTS, outside=True),
    "vm_created": FactKind(("kvm",), outside=True),
    "vm_destroyed": FactKind(("kvm",)),
    "page_remove": FactKind(("gpa", "status")),
    "host_unmap": FactKind(("start", "nr"), Capability.HOST_UNMAP),
    "lru_folio": FactKind(shows=Capability.REFERENCES),
    "lru_drain_all": FactKind(),
}
"""The probes of tools/capture, whose numbers are printed as ``name=value``: that is how each fact is called."""

KINDS = PROBES | {
    "attempt": FactKind(("start", "end", "attrs"), Capability.ATTEMPTED),
    "gmem_arguments": FactKind(("start", "nr", "attrs")),
    "memslots_updated": FactKind(("kvm",)),
    "unmap_hva": FactKind(("hva", "end")),
    "spte": FactKind(("gfn", "level", "old", "new"), Capability.GUEST_ENTRIES),
    "set_spte": FactKind(("gfn", "level", "new")),
    "page_fault": FactKind(("address",), outside=True),
    "hypercall": FactKind(("number", "a0", "a1", "a2"), Capability.HYPERCALLS, outside=True),
    "exit": FactKind(shows=Capability.EXITS, outside=True),
    "psc_msr": FactKind(("ghcb",)),
    "psc_msr_done": FactKind(("ghcb",)),
    "psc_ghcb": FactKind(("reason",)),
    "psc_ghcb_done": FactKind(("reason", "info2")),
    "rmp_split": FactKind(("gpa", "pfn", "ret")),
    "memory_failure": FactKind(("pfn",)),
    "signal": FactKind(shows=Capability.SIGNALS),
    "oom": FactKind(),
    "clock_pair": FactKind(("mono", "real")),
    "enter_ioctl": FactKind(outside=True),
    "leave_ioctl": FactKind(("returned",)),
    "enter_fallocate": FactKind(outside=True),
    "leave_fallocate": FactKind(),
    "enter_madvise": FactKind(outside=True),
    "leave_madvise": FactKind(),
    "convert_call": FactKind(shows=Capability.RETURNED),
}
"""All kinds of facts of traces; those of logs are the messages of their catalogue."""
_NONE = FactKind()

STORED_ATTRIBUTES = {0x1: 0, 0x11: PRIVATE_ATTRIBUTE}
"""Entries of the maple tree of a guest_memfd (xa_mk_value()) to the attributes that they are."""
FOREVER = (1 << 64) - 1
"""The end of an invalidation that has none."""

_PAGE = (0, LAST_PAGE)
_ADDRESS = (0, FOREVER)
_SMALL = (-(1 << 31), (1 << 32) - 1)
_WORD = (-(1 << 63), FOREVER)
_ANYWHERE = (1 << 32) - 1
"""The numbers from zero to here are within all limits."""
_LIMITS = {
    **dict.fromkeys(("start", "nr", "npages", "gfn", "base_gfn", "index", "pgoff"), _PAGE),
    **dict.fromkeys(("end", "last", "addr", "address", "gpa", "hva", "offset", "gmem_offset", "size", "len"), _ADDRESS),
    **dict.fromkeys(("ret", "err", "fd", "slot", "code", "sig", "pid", "reason", "exit", "vcpu", "refs", "flush"), _SMALL),
    **dict.fromkeys(
        ("leaf", "hkid", "level", "error", "rc", "errno", "seconds", "users", "punched", "set", "mode", "as_id"), _SMALL
    ),
}


def sound(name: str, args: Mapping[str, int]) -> bool:
    """Whether a fact has the numbers that it needs, and none that the kernel cannot have meant: else its line is damaged."""
    for field in KINDS.get(name, _NONE).needs:
        if field not in args:
            return False
    for field, value in args.items():
        if not 0 <= value <= _ANYWHERE:
            low, high = _LIMITS.get(field, _WORD)
            if not low <= value <= high:
                return False
    if "start" not in args or "end" not in args:
        return True
    return args["start"] < args["end"] <= LAST_PAGE or (name == "gmem_inv" and args["end"] == FOREVER)
