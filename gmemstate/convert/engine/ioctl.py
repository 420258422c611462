"""A conversion ioctl: in which setting it is called, with what arguments, what goes wrong meanwhile, and what it returns."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gmemstate.model.events import UnmapStep
from gmemstate.model.linux import ENOMEM, PAGE_SHIFT, PAGE_SIZE, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED


class VmType(StrEnum):
    """What protects the guest; it decides what a private unmap is."""

    SW = "sw"
    """KVM_X86_SW_PROTECTED_VM: nothing but KVM's own word"""
    TDX = "tdx"
    """mirrored page tables; removing a private page is four SEAMCALLs that can fail"""
    SNP = "snp"
    """the RMP; a private page goes back by RMPUPDATE"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is fixed when a guest is made: its type and how its memory is laid out."""

    type: VmType = VmType.SW
    order: int = 0
    """order of the folios that the guest_memfd allocates: 0, 9 (2M) or 18 (1G); rfc-v2 and check-first only"""
    mmap_is_hva: bool = True
    """memslots name the mmap of their own guest_memfd, so that its mmu notifier reaches KVM"""
    in_place: bool = True
    """kvm.gmem_in_place_conversion"""
    private_mem: bool = True
    """the VM type has private memory"""
    defects: frozenset[str] = frozenset()
    """known defects of a posting that are switched on"""
    mmap: bool = True
    """the host can map the guest_memfd (GUEST_MEMFD_FLAG_MMAP)"""

    @property
    def mirrored(self) -> bool:
        """Whether shared and private entries live in different page tables."""
        return self.type is VmType.TDX


@dataclass(slots=True)
class Fault:
    """Something that goes wrong: ``times`` times, from the ``nth`` time (from 1) on that the kernel does ``at``.

    With ``page`` only what concerns that page counts.
    """

    at: str
    page: int | None = None
    nth: int | None = None
    errno: int = ENOMEM
    step: UnmapStep = UnmapStep.REMOVE
    times: int = 1
    seen: int = 0
    struck: int = 0

    def strikes(self, at: str, start: int, end: int) -> bool:
        """Whether it strikes now, at something that concerns pages ``[start, end)``."""
        if at != self.at or not self.times or (self.page is not None and not start <= self.page < end):
            return False
        self.seen += 1
        if self.seen < (self.nth or 1):
            return False
        self.times -= 1
        self.struck += 1
        return True


@dataclass(frozen=True, slots=True)
class ConversionCall:
    """One conversion ioctl as its caller passes it; ``address`` is a gpa or an offset (bytes)."""

    owner: int
    address: int
    size: int
    attributes: int = PRIVATE_ATTRIBUTE
    flags: int = 0
    reserved: int = 0
    error_offset: int = 0
    readable: bool = True
    writable: bool = True
    same_mm: bool = True
    thread: int | None = None

    @property
    def target(self) -> str:
        """The kind that the pages shall have."""
        return PRIVATE if self.attributes & PRIVATE_ATTRIBUTE else SHARED

    @property
    def opposite(self) -> str:
        """The other kind: users who map pages as that lose them."""
        return SHARED if self.attributes & PRIVATE_ATTRIBUTE else PRIVATE


class Returned(NamedTuple):
    """What an ioctl returns: 0 or an errno, and error_offset where the kernel writes it."""

    errno: int = 0
    error_offset: int | None = None


def range_of(call: ConversionCall) -> tuple[int, int]:
    """The pages of a call whose arguments were checked."""
    return call.address >> PAGE_SHIFT, (call.address + call.size) >> PAGE_SHIFT


def wraps(call: ConversionCall) -> bool:
    """Whether address and size go over the end of 64 bits."""
    return call.address + call.size >= 1 << 64


def misaligned(call: ConversionCall) -> bool:
    """Whether address or size are no multiples of a page."""
    return bool((call.address | call.size) % PAGE_SIZE)
