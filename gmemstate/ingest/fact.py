"""A fact: one line of a trace, understood but not yet joined to anything."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gmemstate.model.linux import LAST_PAGE

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


NEEDS: dict[str, tuple[str, ...]] = {
    "range_has_attrs": ("kvm", "start", "end", "attrs", "ret"),
    "pre_set": ("kvm",),
    "post_set": ("kvm",),
    "unmap_gfn": ("kvm",),
    "inv_add": ("kvm", "start", "end"),
    "host_unmap": ("start", "nr"),
    "gmem_arguments": ("start", "nr", "attrs"),
    "gmem_inv": ("start", "end"),
    "gmem_store": ("index", "last", "val"),
    "gmem_create": ("kvm", "size", "fd"),
    "gmem_bind": ("kvm",),
    "gmem_prepare": ("kvm",),
    "gmem_commit": ("kvm",),
    "gmem_unbind": ("base_gfn", "npages"),
    "gmem_release": ("inode",),
    "gmem_fallocate": ("mode", "offset", "len", "ret"),
    "gmem_error": ("inode", "index"),
    "gmem_get_pfn": ("kvm", "gfn", "ret"),
    "gmem_ufault": ("pgoff", "addr", "ret"),
    "memslots_updated": ("kvm",),
    "vm_destroyed": ("kvm",),
    "page_remove": ("gpa", "status"),
}
"""The numbers without which a fact says nothing."""

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
    for field in NEEDS.get(name, ()):
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
