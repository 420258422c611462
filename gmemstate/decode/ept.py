"""Entries of second-level page tables: the module's secure EPT as SEAMCALL reports it, and KVM's own SPTEs.

Secure EPT: level_state bits 2:0 level, 15:8 state, 17:16 VM (Linux arch/x86/kvm/vmx/tdx_arch.h names states 0 to 4, the
module's sept_state_lookup.c the others; layout sept_entry_arch_info_u in sept_manager.h). An entry is an EPT entry: bits 2:0
rights, 7 leaf, 51:12 host page. SPTEs: arch/x86/kvm/mmu/spte.h.
"""

from dataclasses import dataclass

from gmemstate.decode.meaning import Meaning, bits, listed
from gmemstate.decode.tdx import EPT_ENTRY_STATE_INCORRECT, EPT_WALK_FAILED, GPA_RANGE_NOT_BLOCKED, OPERAND_BUSY, RCX, TdxStatus
from gmemstate.model.linux import SPTE_HUGE, SPTE_MMU_PRESENT, SPTE_PFN

SEPT_SOURCE = "Linux kvm/vmx/tdx_arch.h, TDX module sept_manager.h"
SPTE_SOURCE = "Linux kvm/mmu/spte.h"

LEVELS = {0: "4K", 1: "2M", 2: "1G", 3: "512G", 4: "256T"}
"""The module counts from 0; KVM's pg_level is one more."""

STATES = {
    0: "FREE",
    1: "BLOCKED",
    2: "PENDING",
    3: "PENDING_BLOCKED",
    4: "PRESENT",
    5: "REMOVED",
    8: "BLOCKEDW",
    9: "EXPORTED_BLOCKEDW",
    11: "EXPORTED_DIRTY",
    12: "EXPORTED_DIRTY_BLOCKEDW",
    16: "PENDING_BLOCKEDW",
    17: "PENDING_EXPORTED_BLOCKEDW",
    19: "PENDING_EXPORTED_DIRTY",
    20: "PENDING_EXPORTED_DIRTY_BLOCKEDW",
    32: "MMIO_MAPPED",
    33: "MMIO_BLOCKED",
    34: "MMIO_PENDING",
    129: "NL_BLOCKED",
    132: "NL_MAPPED",
}
FREE, PRESENT, REMOVED = 0, 4, 5

REPORTING = (EPT_WALK_FAILED, GPA_RANGE_NOT_BLOCKED, EPT_ENTRY_STATE_INCORRECT)
"""The statuses with which the module reports an entry; OPERAND_BUSY does so where the operand is RCX, the entry itself."""

_SUPPRESS_VE = 1 << 63
_FROZEN = (0x1A0, 0x5A0)
"""FROZEN_SPTE (REMOVED_SPTE before 6.10) is 0x5a0; traces of 7.2 show 0x1a0. With TDX compiled in, bit 63 is set as well."""


@dataclass(frozen=True, slots=True)
class LevelState:
    """Level and state of a secure EPT entry; ``state`` has a name, or None where no table has it."""

    word: int
    level: int
    state: int
    vm: int

    @property
    def level_name(self) -> str:
        """``4K``, ``2M``, ..."""
        return LEVELS.get(self.level, f"level {self.level}")

    @property
    def state_name(self) -> str:
        """``PRESENT``, ``BLOCKED``, ...; the number where no table has it."""
        return STATES.get(self.state, f"state {self.state:#x}")

    def meaning(self) -> Meaning:
        """Level and state in words."""
        vm = f", VM {self.vm}" if self.vm else ""
        return Meaning("secure EPT level_state", f"level {self.level_name}, state {self.state_name}{vm}", (), SEPT_SOURCE)


def level_state(word: int) -> LevelState:
    """Take ``level_state`` apart, the second word that BLOCK, REMOVE, AUG, ADD and SEPT.ADD report."""
    return LevelState(word, word & 7, word >> 8 & 0xFF, word >> 16 & 3)


_RULE = (
    "the module reports entry and level_state with TDX_EPT_WALK_FAILED, TDX_GPA_RANGE_NOT_BLOCKED, "
    "TDX_EPT_ENTRY_STATE_INCORRECT, "
    "and with TDX_OPERAND_BUSY of the entry itself (operand RCX); with other statuses both are 0 or something else"
)


@dataclass(frozen=True, slots=True)
class SeptEntry:
    """An entry that a SEAMCALL reported, with what may be concluded from it.

    ``reported`` is False where the words are not an entry: both 0, or a status with which none is reported. ``pfn`` is the host
    page of a leaf, None where there is none; never 0 for want of a report.
    """

    word: int
    where: LevelState
    reported: bool
    leaf: bool
    pfn: int | None

    def meaning(self) -> Meaning:
        """The entry in words."""
        if not self.reported:
            text = "not reported with this status: no page can be concluded from it"
            return Meaning("secure EPT entry", text, (("rule", _RULE),), SEPT_SOURCE)
        state = f"{self.where.state_name} at {self.where.level_name}"
        if self.pfn is not None:
            text = f"{state}, host page pfn {self.pfn:#x}"
        elif self.where.state in (FREE, REMOVED):
            text = f"{state}: maps nothing"
        else:
            text = f"{state}, leads to a lower table: no page"
        return Meaning("secure EPT entry", text, (("rights", _rights(self.word)),), SEPT_SOURCE)


def sept_entry(entry: int, level_state_word: int, status: TdxStatus | None = None) -> SeptEntry:
    """Read an entry with its level_state and, where known, the status that they came with.

    An entry is a leaf at 4K, above it if bit 7 says so; only a leaf has a host page. Without a status the words are taken for
    an entry unless both are 0.
    """
    where = level_state(level_state_word)
    reported = bool(entry or level_state_word) and (status is None or reports_entry(status))
    leaf = reported and where.state not in (FREE, REMOVED) and (where.level == 0 or bool(entry & SPTE_HUGE))
    return SeptEntry(entry, where, reported, leaf, (entry & SPTE_PFN) >> 12 if leaf else None)


def reports_entry(status: TdxStatus) -> bool:
    """Whether the module reports entry and level_state with this status."""
    return status.code in REPORTING or (status.code == OPERAND_BUSY and status.low == RCX)


@dataclass(frozen=True, slots=True)
class Spte:
    """An entry of KVM's second-level page tables: ``present``, ``frozen`` (a zap is going on), ``none`` or ``other``."""

    word: int
    state: str
    leaf: bool | None
    pfn: int | None

    def meaning(self) -> Meaning:
        """The entry in words."""
        if self.state == "present":
            kind = {True: "maps host page", False: "leads to the table in host page", None: "host page"}[self.leaf]
            details = (("rights", _rights(self.word)),)
            return Meaning("SPTE", f"present, {kind} pfn {self.pfn:#x}", details, SPTE_SOURCE)
        text = {
            "none": "nothing is mapped",
            "frozen": "frozen: a thread is zapping the entry",
            "other": "not present; an MMIO or software value",
        }[self.state]
        return Meaning("SPTE", text, (), SPTE_SOURCE)


def spte(word: int, level: int | None = None) -> Spte:
    """Read an SPTE as kvmmmu tracepoints print it; ``level`` 1 is 4K, without it a table and a 4K leaf look alike."""
    plain = word & ~_SUPPRESS_VE
    if plain == 0:
        return Spte(word, "none", None, None)
    if plain in _FROZEN:
        return Spte(word, "frozen", None, None)
    if not word & SPTE_MMU_PRESENT:
        return Spte(word, "other", None, None)
    leaf = True if level == 1 or word & SPTE_HUGE else None if level is None else False
    return Spte(word, "present", leaf, (word & SPTE_PFN) >> 12)


_VIOLATION = {0: "read", 1: "write", 2: "fetch", 3: "entry readable", 4: "entry writable", 5: "entry executable",
    7: "linear address valid", 8: "final translation"}  # fmt: skip


def ept_violation(word: int) -> Meaning:
    """The exit qualification of an EPT violation (kvm_page_fault on Intel); a TD's private faults always show a write."""
    names, rest = bits(word, _VIOLATION)
    text = listed(names) + (f", other bits {rest:#x}" if rest else "")
    return Meaning("EPT violation", text, (), "Linux asm/vmx.h (EPT_VIOLATION_*)")


def _rights(word: int) -> str:
    """Bits 2:0 as EPT has them; NPT has present, write and user there."""
    names = [name for bit, name in enumerate(("read", "write", "execute")) if word >> bit & 1]
    return f"bits 2:0 = {word & 7:#x} (EPT: {listed(names)})"
