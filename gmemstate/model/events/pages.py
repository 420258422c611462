"""Pages: faults, private mappings, backing memory, poison, and what makes a host page messed up."""

from gmemstate.model.events.fields import ConversionRef, Errno, Order, OwnerRef
from gmemstate.model.events.registry import Event, kind
from gmemstate.model.events.words import Access, UnmapStep


@kind(60, "kvm_gmem_get_pfn, kvm_tdp_mmu_spte_changed, kvm_gmem_fault_user_mapping", {"pfn": "value", "access": "actor"})
class FaultServed(Event):
    """A run of pages was accessed and got its memory (``result`` 0) or not; ``pfn`` is that of the first page."""

    access: Access
    start: int
    npages: int
    owner: OwnerRef | None = None
    result: Errno = 0
    pfn: int | None = None


@kind(61, "tdh_mem_page_aug, rmp_make_private", {"pfn": "value"})
class PrivateMapped(Event):
    """A host page was given to a guest as private."""

    pfn: int
    owner: OwnerRef | None = None
    start: int | None = None
    npages: int = 1


@kind(62, "tdh_mem_page_aug, rmp_make_private", {"pfn": "value", "status": "result"})
class PrivateMapFailed(Event):
    """A host page could not be given to a guest; ``status`` is the low form of the error, ``detail`` the words."""

    pfn: int | None = None
    owner: OwnerRef | None = None
    start: int | None = None
    npages: int | None = None
    status: int | None = None


@kind(63, "tdx_sept_remove_leaf_spte, sev_gmem_invalidate", {"pfn": "value", "step": "actor", "status": "result"})
class PrivateUnmapFailed(Event):
    """A private page could not be taken back from a guest: its host page is messed up. ``detail`` has entry and level."""

    step: UnmapStep
    pfn: int | None = None
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
    start: int | None = None
    npages: int | None = None
    status: int | None = None


@kind(64, "snp_leak_pages", {"pfn": "start"})
class PageLeaked(Event):
    """The kernel gives up host pages ``pfn, npages`` for good: lost, but safe."""

    pfn: int
    npages: int
    owner: OwnerRef | None = None


@kind(65, "HKID n is leaked", {"hkid": "value"})
class HkidLeaked(Event):
    """A TDX key id is lost until the next boot."""

    hkid: int | None = None


@kind(66, "tdx_reclaim_page, snp_page_reclaim", {"pfn": "value", "status": "result"})
class ReclaimFailed(Event):
    """A page of a guest's own structures could not be taken back."""

    pfn: int | None = None
    owner: OwnerRef | None = None
    status: int | None = None


@kind(67, "mm_filemap_add_to_page_cache", {"pfn": "value", "order": "actor"})
class PageAdded(Event):
    """A host page became the memory of a page of a guest_memfd."""

    owner: OwnerRef | None
    start: int
    npages: int
    pfn: int
    order: Order = 0


@kind(68, "mm_filemap_delete_from_page_cache", {"pfn": "value", "order": "actor"})
class PageFreed(Event):
    """A host page left a guest_memfd."""

    owner: OwnerRef | None
    start: int
    npages: int
    pfn: int | None = None
    order: Order = 0


@kind(69, "kvm_gmem_fallocate", {"mode": "value", "thread": "actor"})
class Punched(Event):
    """A range of a guest_memfd was punched out (mode 3) or allocated (mode 1); attributes stay as they are."""

    mode: int
    result: Errno
    owner: OwnerRef | None = None
    start: int | None = None
    npages: int | None = None
    thread: int | None = None


@kind(70, "kvm_gmem_error_folio, memory_failure", {"pfn": "value"})
class Poisoned(Event):
    """A page has a memory error: of a guest_memfd (``owner``, ``start``), of the host (``pfn``) or both.

    ``detail`` has the words of the kernel; "Failed" is its normal way with guest_memfd pages.
    """

    owner: OwnerRef | None = None
    start: int | None = None
    npages: int | None = None
    pfn: int | None = None


@kind(71, "kvm_rmp_fault, #PF with the RMP bit", {"pfn": "value"})
class RmpViolation(Event):
    """The host accessed a page that the RMP gives to somebody else."""

    pfn: int | None = None
    owner: OwnerRef | None = None


@kind(72, "exc_general_protection", {"address": "value"})
class GeneralProtection(Event):
    """The kernel took a general protection fault."""

    address: int | None = None


@kind(73, "do_machine_check", {"pfn": "value"})
class MachineCheck(Event):
    """The machine reported a memory error."""

    pfn: int | None = None
