"""The enumerations that fields of events have. Their numbers are stored and never change."""

from enum import IntEnum


class Capability(IntEnum):
    """What a source has proven to show; only then is silence about it evidence."""

    ASKED = 1
    """entries of the conversion ioctls (probe vm_ioctl, gmem_ioctl)"""
    RETURNED = 2
    """results of the conversion ioctls (vm_ioctl_ret, gmem_ioctl_ret)"""
    ATTEMPTED = 3
    """kvm_vm_set_mem_attributes"""
    COMPARED = 4
    """kvm_range_has_memory_attributes"""
    ZAP = 5
    """pre_set, gmem_inv: the beginning of an invalidation"""
    STORED = 6
    """post_set, maple_tree:ma_write with raw values"""
    GUEST_ENTRIES = 7
    """kvm_tdp_mmu_spte_changed: each entry of the guest page tables"""
    GUEST_UNMAP = 8
    """kvm_unmap_gfn_range"""
    HOST_UNMAP = 9
    """unmap_mapping_pages"""
    REFERENCES = 10
    """lru_cache_drain_for_folio: the test of a folio's references"""
    EXITS = 11
    """kvm_userspace_exit: every return of KVM_RUN"""
    HYPERCALLS = 12
    """kvm_hypercall"""
    FAULT_EXITS = 13
    """the address of a KVM_EXIT_MEMORY_FAULT (run_ret)"""
    PRIVATE_FAULTS = 14
    """kvm_gmem_get_pfn"""
    HOST_FAULTS = 15
    """kvm_gmem_fault_user_mapping"""
    SLOTS = 16
    """KVM_SET_USER_MEMORY_REGION2"""
    SIGNALS = 17
    """signal_generate"""


class GapKind(IntEnum):
    """Why evidence is missing."""

    LOST = 1
    """the ring buffer dropped events ("LOST n EVENTS")"""
    OVERWRITTEN = 2
    """the beginning of the ring buffer was overwritten"""
    SUPPRESSED = 3
    """rate-limited lines ("callbacks suppressed")"""
    ELIDED = 4
    """a person cut something out ("...")"""
    CUT = 5
    """the input ends in the middle"""
    UNREADABLE = 6
    """bytes that are no text, or damaged"""
    LATE = 7
    """what the source says up to this time is older than what was on record already"""


class Through(IntEnum):
    """The call by which a conversion is asked."""

    VM_IOCTL = 1
    """KVM_SET_MEMORY_ATTRIBUTES on the VM: gfns, attribute in the VM"""
    GMEM_IOCTL = 2
    """KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd: page indices, attribute in the inode"""
    GMEM_CONVERT = 3
    """KVM_GMEM_CONVERT_PRIVATE and _SHARED of RFC v2"""


class Dialect(IntEnum):
    """Where the attribute lives and how a conversion goes."""

    UNKNOWN = 0
    MAINLINE = 1
    RFC_V2 = 2
    INPLACE = 3
    CHECK_FIRST = 4
    NOTIFY = 5

    @property
    def word(self) -> str:
        """How people call it: ``rfc-v2``."""
        return self.name.lower().replace("_", "-")


class User(IntEnum):
    """Who maps or holds pages: the mail's A, B and C."""

    HOST = 1
    """host page tables (mmap of the guest_memfd, or of the memory that a slot names)"""
    GUEST = 2
    """the guest's page tables (EPT, NPT, secure EPT)"""
    IOMMU = 3
    PIN = 4
    REFERENCE = 5
    """a plain reference to the folio"""


class Access(IntEnum):
    """Who accessed a page, and as what."""

    GUEST = 1
    """the guest; as what is not shown"""
    GUEST_PRIVATE = 2
    GUEST_SHARED = 3
    HOST = 4
    """the host through the mmap of a guest_memfd"""


class UnmapStep(IntEnum):
    """The step of a private unmap that failed (TDX SEAMCALL leaf or SNP instruction)."""

    BLOCK = 1
    TRACK = 2
    REMOVE = 3
    WBINVD = 4
    RMPUPDATE = 5
    PSMASH = 6


class Cause(IntEnum):
    """Why a host page is messed up."""

    SEPT_STILL_MAPS = 1
    RMP_STILL_GUEST = 2
    LEAKED_BY_KERNEL = 3
    POISONED = 4
    UNUSABLE_PRIVATE = 5
    RECLAIM_REFUSED = 6
    STALE_DMA = 7
    UNTRACKED = 8
    """TDH.MEM.TRACK failed: whether the page was removed after that is not printed"""
    UNFLUSHED = 9
    """TDH.PHYMEM.PAGE.WBINVD failed: the page is removed, its cache lines are not written back"""
    UNSPLIT = 10
    """PSMASH failed: the page is part of a 2M entry of the RMP that is a guest's"""


class RequestPath(IntEnum):
    """How a guest asks."""

    VMCALL = 1
    TDVMCALL = 2
    PSC_MSR = 3
    PSC_GHCB = 4
