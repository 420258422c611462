"""Words and numbers that others print, explained: pure functions and tables, no input or output.

Each function reads one kind of word and gives a typed result, or a :class:`Meaning` where there is no more to a word than its
text. Every table names the file or manual that its figures come from. What no source has is not explained: the result is None,
or one whose name is None. Whole lines are explained by :mod:`gmemstate.messages.reading`.
"""

from gmemstate.decode.addresses import address_of
from gmemstate.decode.ept import LevelState, SeptEntry, Spte, level_state, sept_entry, spte
from gmemstate.decode.errnos import Errno, errno, errno_name, errno_of
from gmemstate.decode.hypercalls import (
    HypercallResult,
    MapGpaAttributes,
    hypercall,
    hypercall_result,
    map_gpa_attributes,
    tdvmcall,
    tdvmcall_status,
)
from gmemstate.decode.ioctls import Ioctl, ioctl, ioctl_number, ioctls
from gmemstate.decode.kvm import ExitReason, MemoryAttributes, exit_reason, memory_attributes, memory_fault_flags
from gmemstate.decode.meaning import Meaning
from gmemstate.decode.snp import RmpCode, RmpEntry, psmash, pvalidate, rmp_entry, rmpupdate
from gmemstate.decode.tdx import SeamcallLeaf, TdxOutcome, TdxStatus, seamcall_leaf, seamcall_leaf_of, tdx_status

__all__ = [
    "Errno",
    "ExitReason",
    "HypercallResult",
    "Ioctl",
    "LevelState",
    "MapGpaAttributes",
    "Meaning",
    "MemoryAttributes",
    "RmpCode",
    "RmpEntry",
    "SeamcallLeaf",
    "SeptEntry",
    "Spte",
    "TdxOutcome",
    "TdxStatus",
    "address_of",
    "errno",
    "errno_name",
    "errno_of",
    "exit_reason",
    "hypercall",
    "hypercall_result",
    "ioctl",
    "ioctl_number",
    "ioctls",
    "level_state",
    "map_gpa_attributes",
    "memory_attributes",
    "memory_fault_flags",
    "psmash",
    "pvalidate",
    "rmp_entry",
    "rmpupdate",
    "seamcall_leaf",
    "seamcall_leaf_of",
    "sept_entry",
    "spte",
    "tdvmcall",
    "tdvmcall_status",
    "tdx_status",
]
