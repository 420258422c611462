"""Conversions: the calls that ask for them, each step that a kernel takes, and what they return."""

from gmemstate.model.events.fields import ConversionRef, Errno, Flag, Order, OwnerRef
from gmemstate.model.events.registry import Event, kind
from gmemstate.model.events.words import Through, User


@kind(40, "kvm_vm_ioctl, kvm_gmem_ioctl", {"attributes": "value", "thread": "actor", "through": "result"})
class ConvertAsked(Event):
    """A thread asks for a conversion. Without ``start`` the arguments are unaligned (``detail`` has them) or unknown."""

    conversion: ConversionRef
    through: Through
    owner: OwnerRef | None = None
    thread: int | None = None
    start: int | None = None
    npages: int | None = None
    attributes: int | None = None


@kind(39, "a step or a return of kvm_vm_ioctl, kvm_gmem_ioctl", {"attributes": "value", "thread": "actor", "through": "result"})
class ConvertMet(Event):
    """A thread is seen inside of a conversion whose entry is not on record; some of its steps may not be either."""

    conversion: ConversionRef
    through: Through
    owner: OwnerRef | None = None
    thread: int | None = None
    start: int | None = None
    npages: int | None = None
    attributes: int | None = None


@kind(41, "tracepoint kvm_vm_set_mem_attributes", {"attributes": "value", "thread": "actor"})
class ConvertAttempted(Event):
    """The arguments of a VM ioctl passed validation; nothing is said of its result."""

    conversion: ConversionRef
    start: int
    npages: int
    attributes: int
    owner: OwnerRef | None = None
    thread: int | None = None


@kind(42, "return of kvm_vm_ioctl, kvm_gmem_ioctl", {"error_offset": "value", "thread": "actor"})
class ConvertReturned(Event):
    """The ioctl returned; ``error_offset`` in bytes is set where the kernel wrote it (EAGAIN, ENOMEM).

    ``start, npages`` are the arguments as a return probe has read them again; what differs from the entry was unreadable.
    """

    conversion: ConversionRef
    result: Errno
    start: int | None = None
    npages: int | None = None
    owner: OwnerRef | None = None
    error_offset: int | None = None
    thread: int | None = None


@kind(43, "kvm_range_has_memory_attributes", {"attributes": "value", "thread": "actor", "equal": "result"})
class AttrsCompared(Event):
    """The kernel compared a whole range with ``attributes``: ``equal`` is 1 if every page has them."""

    start: int
    npages: int
    attributes: int
    equal: Flag
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
    thread: int | None = None


@kind(44, "compute_work (RFC v2)")
class WorkItem(Event):
    """One range of the request differs from its target."""

    conversion: ConversionRef
    owner: OwnerRef | None
    start: int
    npages: int


@kind(45, "xa_reserve, mas_preallocate")
class Reserved(Event):
    """Memory for the new attributes is reserved, or not (``result``)."""

    conversion: ConversionRef
    result: Errno
    owner: OwnerRef | None = None


@kind(
    46,
    "kvm_arch_pre_set_memory_attributes, unmap_mapping_pages, __kvm_gmem_invalidate_start",
    {"attributes": "value", "slot": "actor"},
)
class ZapStarted(Event):
    """Users of a range begin to lose their mappings for a conversion to ``attributes``."""

    conversion: ConversionRef
    start: int
    npages: int
    owner: OwnerRef | None = None
    attributes: int | None = None
    slot: int | None = None


@kind(47, "kvm_mmu_invalidate_range_add")
class InvalidateAdded(Event):
    """Faults in a range are retried until the invalidation ends; it may be wider than what is zapped."""

    start: int
    npages: int
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None


@kind(48, "kvm_mmu_invalidate_end")
class InvalidateEnded(Event):
    """The invalidation of a conversion ends."""

    conversion: ConversionRef
    owner: OwnerRef | None = None


@kind(49, "kvm_unmap_gfn_range, unmap_mapping_pages, a notifier's response", {"entries": "value", "user": "actor"})
class UserAnswered(Event):
    """A user unmapped a range (``result`` 0), refused (errno) or its answer is unknown (None); ``entries`` it lost."""

    user: User
    start: int
    npages: int
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
    result: Errno | None = None
    entries: int | None = None


@kind(56, "a request to map again after a refusal (mail of 2025-06-04)", {"user": "actor"})
class MapAnswered(Event):
    """A user that had unmapped a range was asked to map it again: it did (``result`` 0), refused (errno) or was silent."""

    user: User
    start: int
    npages: int
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
    result: Errno | None = None


@kind(
    50,
    "the in-use test: kvm_gmem_is_safe_for_conversion, __folio_has_outstanding_references",
    {"references": "value", "expected": "actor"},
)
class UsersChecked(Event):
    """Pages were tested for other users: ``result`` 0 if there are none, else the errno and the ``references`` found."""

    conversion: ConversionRef
    start: int
    npages: int
    result: Errno
    owner: OwnerRef | None = None
    references: int | None = None
    expected: int | None = None


@kind(51, "xa_store, mas_store_prealloc", {"attributes": "value"})
class AttrsStored(Event):
    """The attribute of pages (``npages`` None: to the end) is written; in-place the range is merged with equal neighbours."""

    start: int
    npages: int | None
    attributes: int
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
    result: Errno = 0


@kind(52, "kvm_gmem_split_folio", {"order": "value"})
class FolioSplit(Event):
    """A large folio was split, or not (``result``)."""

    conversion: ConversionRef
    owner: OwnerRef | None
    start: int
    npages: int
    result: Errno
    order: Order | None = None


@kind(53, "kvm_gmem_merge_folios", {"order": "value"})
class FolioMerged(Event):
    """Small folios were merged, or not (``result``)."""

    conversion: ConversionRef
    owner: OwnerRef | None
    start: int
    npages: int
    result: Errno
    order: Order | None = None


@kind(54, "rollback of kvm_gmem_convert_range", {"attributes": "value"})
class Undone(Event):
    """One item of a rollback; a ``result`` other than 0 is a WARN and leaves the range torn.

    ``attributes`` is what the pages of the range have, where that is known.
    """

    conversion: ConversionRef
    owner: OwnerRef | None
    start: int
    npages: int
    result: Errno
    attributes: int | None = None


@kind(55, "kvm_unmap_hva_range")
class HvaUnmapped(Event):
    """Host virtual pages ``start, npages`` lose their mapping (mmu notifier); ``owner`` is the guest of the thread."""

    start: int
    npages: int
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None
