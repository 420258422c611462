"""Words of the TDX module: completion statuses and leaves of SEAMCALL.

Layout of a status: bit 63 error, 62 not recoverable, 61 fatal, 60 a hint that the host can recover, 47:40 class, 39:32 detail,
31:0 an operand or details (api_error_code_u in the module's tdx_api_defs.h). What the statuses mean for an unmap:
arch/x86/kvm/vmx/tdx.c of Linux 7.2.
"""

from dataclasses import dataclass
from enum import StrEnum

from gmemstate.decode.kvm import VMX_EXITS
from gmemstate.decode.meaning import Meaning
from gmemstate.decode.tdx_tables import CLASSES, LEAVES, OPERANDS, STATUSES

SOURCE = "TDX module tdx_error_codes_defs.h, Linux asm/shared/tdx_errno.h"
LEAF_SOURCE = "TDX module tdx_api_defs.h, Linux virt/vmx/tdx/tdx.h"

CODE_MASK = 0xFFFF_FFFF_0000_0000
"""TDX_SEAMCALL_STATUS_MASK: what identifies a status, without its operand."""
_ERROR, _NON_RECOVERABLE, _FATAL = 1 << 63, 1 << 62, 1 << 61
_FLAGS = 0xF000_0000
_VARIANTS = {0x4000_0002, 0x6000_0007}
"""Linux has these statuses with other flags than the module documents."""

RCX = 0x01
OPERAND_INVALID = 0xC000_0100 << 32
OPERAND_BUSY = 0x8000_0200 << 32
EPT_WALK_FAILED = 0xC000_0B00 << 32
GPA_RANGE_NOT_BLOCKED = 0xC000_0B06 << 32
EPT_ENTRY_STATE_INCORRECT = 0xC000_0B0D << 32

_MEANS = {
    "TDX_OPERAND_BUSY": "somebody else holds the lock of the operand; on an unmap KVM puts all vCPUs out of the TD "
    "and tries once "
    "more, so as the last word it is a bug of the kernel or of the module",
    "TDX_PREVIOUS_TLB_EPOCH_BUSY": "vCPUs still run in the previous TLB epoch; they are put out and TRACK is tried again",
    "TDX_OPERAND_INVALID": "the caller passed a value that the leaf does not take",
    "TDX_PAGE_METADATA_INCORRECT": "the module's page table (PAMT) says another owner or type; a page "
    "that an earlier TD was not "
    "rid of gives this when a new TD gets it, or when it is reclaimed",
    "TDX_PAGE_NOT_FREE": "the host page is still owned by a TD or by the module",
    "TDX_TD_ASSOCIATED_PAGES_EXIST": "the TD still owns pages: an earlier removal failed, or was never done",
    "TDX_TD_FATAL": "the TD is dead, e.g. after it consumed poisoned memory; it can only be torn down",
    "TDX_NON_RECOVERABLE_TD": "the TD cannot run again",
    "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE": "the TD cannot run again and its memory cannot "
    "be read, e.g. after a machine check",
    "TDX_NON_RECOVERABLE_VCPU": "this vCPU cannot run again",
    "TDX_TD_KEYS_NOT_CONFIGURED": "the TD has no key on this package: not yet, or no longer",
    "TDX_FLUSHVP_NOT_DONE": "a vCPU of the TD is still bound to a CPU",
    "TDX_VCPU_NOT_ASSOCIATED": "the vCPU is bound to no CPU; VP.FLUSH may ignore it",
    "TDX_INTERRUPTED_RESTARTABLE": "interrupted; the call is made again from its beginning",
    "TDX_INTERRUPTED_RESUMABLE": "interrupted; the call is made again and goes on",
    "TDX_EPT_WALK_FAILED": "a table on the way to the address is missing; entry and level_state show where the walk ended",
    "TDX_GPA_RANGE_NOT_BLOCKED": "the entry has to be blocked first (block, track, remove)",
    "TDX_TLB_TRACKING_NOT_DONE": "TRACK was not called after the block, or vCPUs have not all left since "
    "(block, track, remove)",
    "TDX_PAGE_SIZE_MISMATCH": "accepted at 2M where 4K pages are mapped; the guest splits the range and tries again",
    "TDX_PAGE_ALREADY_ACCEPTED": "the guest accepted a page twice",
    "TDX_EPT_ENTRY_STATE_INCORRECT": "the entry is not in a state that the leaf takes",
}

_PURPOSES = {
    2: "adds a page to a TD that is being built",
    3: "adds a page of secure EPT",
    6: "maps a page; it is pending until the guest accepts it",
    7: "blocks an entry: step 1 of an unmap",
    15: "splits a mapping into smaller ones",
    23: "merges mappings into a larger one",
    28: "takes a page back at the end of a TD",
    29: "takes a page out of the secure EPT: step 3 of an unmap",
    30: "takes out a page of secure EPT",
    38: "begins a new TLB epoch: step 2 of an unmap",
    39: "unblocks an entry",
    41: "flushes a page's cache lines: step 4 of an unmap",
}


class TdxOutcome(StrEnum):
    """What a caller may do after a status."""

    SUCCESS = "success"
    """done; a status other than 0 tells more"""
    TRANSIENT = "transient"
    """may be tried again"""
    FINAL = "final"
    """trying again does not help"""


_SAID = {
    TdxOutcome.SUCCESS: "success",
    TdxOutcome.TRANSIENT: "transient: may be tried again",
    TdxOutcome.FINAL: "final: trying again does not help",
}


@dataclass(frozen=True, slots=True)
class TdxStatus:
    """A completion status of the module (``word``, a u64), taken apart.

    ``name`` is None where no table has it; ``low`` are bits 31:0, an operand, an exit reason, an MSR or details.
    """

    word: int
    name: str | None
    class_name: str | None
    low: int

    @property
    def code(self) -> int:
        """The word without its operand."""
        return self.word & CODE_MASK

    @property
    def error(self) -> bool:
        """Bit 63."""
        return bool(self.word & _ERROR)

    @property
    def fatal(self) -> bool:
        """Bit 61: the TD is lost."""
        return bool(self.word & _FATAL)

    @property
    def outcome(self) -> TdxOutcome:
        """Success, or whether trying again may help: bit 62 says that it does not."""
        if self.word & _NON_RECOVERABLE:
            return TdxOutcome.FINAL
        return TdxOutcome.TRANSIENT if self.error else TdxOutcome.SUCCESS

    @property
    def documented(self) -> bool:
        """Whether a table has the word with these very flags (an error may be made fatal)."""
        upper = self.word >> 32
        return upper in STATUSES or upper & ~0x2000_0000 in STATUSES or upper in _VARIANTS

    @property
    def operand(self) -> str | None:
        """The operand that the status is about; None where the low bits are no operand, or 0 (RAX counts if refused)."""
        if self.low_is != "operand" or (self.low == 0 and self.code != OPERAND_INVALID):
            return None
        return OPERANDS[self.low]

    @property
    def low_is(self) -> str:
        """What bits 31:0 hold: ``operand``, ``VMX exit reason``, ``MSR`` or ``details``."""
        upper = self.word >> 32
        if upper & 0xFF00 == 0:
            return "VMX exit reason" if upper & 0xFF else "details"
        if upper & 0xFFFE == 0x0920:
            return "MSR"
        return "operand" if self.low in OPERANDS else "details"

    def _low_said(self) -> str:
        if self.low_is == "VMX exit reason":
            return f"{self.low} {VMX_EXITS.get(self.low, '')}".rstrip()
        return f"{self.low:#x} {self.operand or ''}".rstrip()

    def meaning(self) -> Meaning:
        """The status in words."""
        name = self.name or f"a status of class {self.word >> 40 & 0xFF:#04x} that is not in the tables"
        operand = f", operand {self.operand}" if self.operand else ""
        details = [("outcome", _SAID[self.outcome] + (", the TD is lost" if self.fatal else ""))]
        if self.name in _MEANS:
            details.append(("means", _MEANS[self.name]))
        if self.class_name and self.word:
            details.append(("class", f"{self.word >> 40 & 0xFF:#x} {self.class_name}, detail {self.word >> 32 & 0xFF:#x}"))
        if self.low or self.operand:
            details.append((self.low_is, self._low_said()))
        return Meaning("TDX status", f"{name}{operand}", tuple(details), SOURCE)


_BY_KEY = {upper & ~_FLAGS: name for upper, name in STATUSES.items()}
_STATUS_NAMES = {name.removeprefix("TDX_"): upper << 32 for upper, name in STATUSES.items()}


def tdx_status(word: int) -> TdxStatus:
    """Take a completion status apart; any u64 is one, whether or not a table has it."""
    name = _BY_KEY.get(word >> 32 & ~_FLAGS)
    return TdxStatus(word, name, CLASSES.get(word >> 40 & 0xFF), word & 0xFFFF_FFFF)


def tdx_status_of(name: str) -> TdxStatus | None:
    """The status of a name, with or without ``TDX_``; its operand is left 0."""
    word = _STATUS_NAMES.get(name.upper().removeprefix("TDX_"))
    return None if word is None else tdx_status(word)


@dataclass(frozen=True, slots=True)
class SeamcallLeaf:
    """A function of the module that the host calls: ``TDH.MEM.PAGE.REMOVE``, in the kernel ``TDH_MEM_PAGE_REMOVE``."""

    number: int
    name: str
    version: int
    purpose: str | None

    def meaning(self) -> Meaning:
        """The leaf in words."""
        details = [("number", f"{self.number} ({self.number:#x})")]
        if self.version:
            details.append(("version", str(self.version)))
        if self.purpose:
            details.append(("does", self.purpose))
        return Meaning("SEAMCALL leaf", self.name, tuple(details), LEAF_SOURCE)


_LEAF_NUMBERS = {name: number for number, name in LEAVES.items()} | {"TDH.PHYMEM.PAGE.WBINVD.HKID": 41}


def seamcall_leaf(word: int) -> SeamcallLeaf | None:
    """The leaf of a number: bits 15:0, with its version in bits 23:16; None for what no table has."""
    number, version = word & 0xFFFF, word >> 16 & 0xFF
    if word >> 24 or number not in LEAVES:
        return None
    return SeamcallLeaf(number, LEAVES[number], version, _PURPOSES.get(number))


def seamcall_leaf_of(name: str) -> SeamcallLeaf | None:
    """The leaf of a name in any spelling: ``TDH.MEM.TRACK``, ``TDH_MEM_TRACK``, ``tdh_mem_track``, ``MEM.TRACK``."""
    plain = name.upper().replace("_", ".")
    number = _LEAF_NUMBERS.get(plain, _LEAF_NUMBERS.get(f"TDH.{plain}"))
    return None if number is None else seamcall_leaf(number)
