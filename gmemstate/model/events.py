"""The closed registry of events: what can be on record, and in which column it stands.

An event is a fact that somebody saw (or, in a simulation, did); what merely follows from facts is computed by the
fold and never recorded. Every kind is a frozen dataclass. It is stored as a row of thirteen columns whose meaning is
the same for all kinds but for ``value``, ``actor`` and, in a few kinds, ``result`` and ``conversion``, which the kind
names itself (see ``columns`` of each class).

Conventions: ``t`` is in ns of the source's own clock; page ranges are half-open runs ``start, npages`` (``npages`` None:
to the end) in gfns of a VM or page indices of a guest_memfd, whichever ``owner`` is; ``result`` is 0 for success or a
positive errno; a missing fact is None.

Sources, spaces, conversions and requests are identified by the seq of the event that opened them. Before that seq is
known an event may carry any negative number instead: the recorder replaces it by the seq of the first event that carries
it.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, Final, dataclass_transform

from gmemstate.model.errors import BadEvent
from gmemstate.model.units import signed, unsigned

COLUMNS = (
    "seq",
    "t",
    "kind",
    "source",
    "space",
    "conversion",
    "start",
    "npages",
    "result",
    "value",
    "actor",
    "line",
    "detail",
)

EventRow = tuple[
    int,
    int | None,
    int,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    str | None,
]
"""An event as its thirteen columns; seq is 0 as long as it is not recorded."""

# Where each column stands in a row. One by one, so that a type checker knows the type behind each.
SEQ: Final = 0
T: Final = 1
KIND: Final = 2
SOURCE: Final = 3
OWNER: Final = 4
"""the attribute owner; stores call this column ``space``"""
CONVERSION: Final = 5
START: Final = 6
NPAGES: Final = 7
RESULT: Final = 8
VALUE: Final = 9
ACTOR: Final = 10
LINE: Final = 11
DETAIL: Final = 12


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
    """Who touched a page, and as what."""

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


class RequestPath(IntEnum):
    """How a guest asks."""

    VMCALL = 1
    TDVMCALL = 2
    PSC_MSR = 3
    PSC_GHCB = 4


def detail(**facts: Any) -> str | None:
    """Facts that no fold needs, as canonical JSON; None where all are None."""
    present = {name: fact for name, fact in facts.items() if fact is not None}
    if not present:
        return None
    return json.dumps(present, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def details(text: str | None) -> dict[str, Any]:
    """The facts of a ``detail`` column."""
    return json.loads(text) if text else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: its time, its source, the line that shows it, and facts beside."""

    t: int | None = None
    source: int | None = None
    line: int | None = None
    detail: str | None = None

    code: ClassVar[int]
    name: ClassVar[str]
    analogue: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    """Field name to column name, for every field."""
    enums: ClassVar[dict[str, Any]]
    """Field name to enumeration, for the fields that have one."""
    actor_is_reference: ClassVar[bool]
    row: ClassVar[Callable[["Event"], EventRow]]


_COLUMN_OF = {"owner": "space"}
"""Fields that stores know by another name."""

KINDS: dict[int, type[Event]] = {}
BY_NAME: dict[str, type[Event]] = {}
WORDS: dict[int, tuple[tuple[int, frozenset[int]], ...]] = {}
"""for each kind with enumerations: their columns, and the words that they have"""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=())
def _kind(
    number: int, analogue: str, renamed: dict[str, str] | None = None, *, version: int = 1, reference: str = ""
) -> Callable[[type[Any]], type[Any]]:
    """Register a kind: its number for ever, the kernel's analogue, and the columns of its own fields."""

    def register(cls: type[Any]) -> type[Any]:
        kind = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        kind.code = number + 256 * (version - 1)
        kind.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
        kind.analogue = analogue
        kind.columns = {
            field.name: (renamed or {}).get(field.name, _COLUMN_OF.get(field.name, field.name)) for field in fields(kind)
        }
        kind.actor_is_reference = bool(reference)
        taken = list(kind.columns.values())
        if kind.code in KINDS or len(set(taken)) != len(taken) or not set(taken) <= set(COLUMNS):
            raise TypeError(f"{cls.__name__} does not fit the columns")
        enums = {
            field.name: field.type for field in fields(kind) if isinstance(field.type, type) and issubclass(field.type, IntEnum)
        }
        kind.row = _row_maker(kind.code, kind.columns, enums)
        kind.enums = enums
        if enums:
            WORDS[kind.code] = tuple(
                (COLUMNS.index(kind.columns[name]), frozenset(map(int, enum))) for name, enum in enums.items()
            )
        KINDS[kind.code] = BY_NAME[kind.name] = kind
        return kind

    return register


def _row_maker(code: int, columns: dict[str, str], enums: dict[str, Any]) -> Callable[[Event], EventRow]:
    """A function from an event to its row. Built as text: it runs once for every event that is recorded."""
    field_of = {column: name for name, column in columns.items()}
    parts = []
    for column in COLUMNS:
        field = field_of.get(column)
        if column == "seq":
            parts.append("0")
        elif column == "kind":
            parts.append(str(code))
        elif field is None:
            parts.append("None")
        elif isinstance(enums.get(field), type):
            parts.append(f"int(e.{field})")
        elif column in ("value", "start"):
            parts.append(f"(e.{field} if e.{field} is None or e.{field} < {1 << 63} else signed(e.{field}))")
        else:
            parts.append(f"e.{field}")
    made: Callable[[Event], EventRow] = eval(f"lambda e: ({', '.join(parts)})", {"signed": signed})
    return made


def foreign(row: EventRow) -> bool:
    """Whether an event of a known kind holds a word that its enumeration does not have: a newer version wrote it, or nobody."""
    return any(row[column] not in words for column, words in WORDS.get(row[KIND], ()))


def event_of(row: EventRow) -> Event:
    """The typed event behind a row. Raises BadEvent for an unknown kind, and for a word that its enumeration does not have."""
    kind = KINDS.get(row[KIND])
    if kind is None:
        raise BadEvent(f"event kind {row[KIND]} is unknown to this version; it was written by a newer one", kind=row[KIND])
    values: dict[str, Any] = {}
    for field, column in kind.columns.items():
        value: Any = row[COLUMNS.index(column)]
        if value is not None and column in ("value", "start"):
            value = unsigned(value)
        values[field] = value
    try:
        values.update({field: enum(values[field]) for field, enum in kind.enums.items()})
    except ValueError as error:
        raise BadEvent(f"{kind.name}: {error} in this version; it was written by a newer one", kind=row[KIND]) from None
    return kind(**values)


def kinds() -> Iterator[type[Event]]:
    """All kinds, by number."""
    return iter(KINDS[code] for code in sorted(KINDS))


# --- sources ----------------------------------------------------------------------------------------------------


@_kind(1, "the header of a trace, the first line of a log")
class SourceOpened(Event):
    """A source is read for the first time; ``detail`` names it (name, format, head, head_size, clock)."""


@_kind(2, "clock_gettime of two clocks at one moment", {"other": "value", "clock": "actor"}, reference="clock")
class ClockPair(Event):
    """At ``t`` of the source's clock that of the source ``clock`` showed ``other`` ns; or, without ``clock``, CLOCK_REALTIME did.

    The first is found by comparing sources: ``detail`` says by how many calls and how many ns it may be wrong. The second is what
    a source itself says.
    """

    other: int
    clock: int | None = None


@_kind(3, "LOST n EVENTS, callbacks suppressed, an overwritten buffer", {"gap": "actor", "count": "value"})
class Gap(Event):
    """Evidence is missing here; ``owner`` None means that any guest of the source may be concerned."""

    gap: GapKind
    count: int | None = None
    owner: int | None = None


@_kind(4, "the first line of a kind", {"capability": "value"})
class SourceShows(Event):
    """The source proves that it shows something of a guest (or, ``owner`` None, of nobody in particular).

    From here on its silence about it is evidence.
    """

    capability: Capability
    owner: int | None = None


@_kind(5, "the end of the input", {"offset": "value", "whole": "result"})
class SourceRead(Event):
    """A source was read up to a byte ``offset``; ``whole`` is 0 if it ended where it should; ``detail`` is the line account."""

    offset: int
    whole: int = 0


# --- hosts and guests -------------------------------------------------------------------------------------------


@_kind(10, "boot id")
class HostBooted(Event):
    """The host was started anew: messed-up pages that a reboot clears are clear."""


@_kind(11, "kvm=0x... in a line", {"pointer": "value", "thread": "actor", "made": "result"})
class VmSeen(Event):
    """A guest is met for the first time; ``owner`` is its identity from here on.

    ``made`` is 1 if that line belongs to making its first memslot or guest_memfd, 0 if the record begins later than it.
    """

    owner: int
    made: int | None = None
    pointer: int | None = None
    thread: int | None = None


@_kind(12, "KVM_CREATE_VM", {"dialect": "value"})
class VmCreated(Event):
    """The birth of a guest is on record: nothing can have been converted before."""

    owner: int
    dialect: Dialect = Dialect.UNKNOWN


@_kind(13, "kvm_destroy_vm")
class VmDestroyed(Event):
    """A guest is gone, and its attributes with it."""

    owner: int


@_kind(14, "kvm_vm_bugged, TDX_BUG_ON", {"cause": "value"})
class VmBugged(Event):
    """KVM has marked the guest as bugged: all its ioctls answer EIO."""

    owner: int | None = None
    cause: int | None = None


@_kind(15, "kvm_vm_dead", {"cause": "value"})
class VmDead(Event):
    """The guest is dead by its own or the VMM's fault."""

    owner: int | None = None
    cause: int | None = None


@_kind(16, "kvm_userspace_exit", {"reason": "value", "thread": "actor"})
class VcpuExited(Event):
    """KVM_RUN returned to the VMM with an exit ``reason``; recorded where it explains what the thread does next."""

    thread: int
    owner: int | None = None
    reason: int | None = None
    result: int | None = None


@_kind(17, "kvm_range_has_memory_attributes, kvm_gmem_bind", {"dialect": "value"})
class DialectSeen(Event):
    """The kernel has functions that only one dialect has: it is known where the attributes of the guest live."""

    owner: int
    dialect: Dialect


@_kind(20, "KVM_SET_USER_MEMORY_REGION2", {"flags": "value", "slot": "actor"})
class SlotSet(Event):
    """A memslot was set; ``npages`` 0 deletes it; ``slot`` is ``as_id << 16 | id``; ``detail`` has the hva."""

    slot: int
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    result: int | None = None


@_kind(21, "kvm_gmem_create", {"flags": "value", "vm": "actor"}, reference="vm")
class GmemCreated(Event):
    """A guest_memfd was created with ``npages`` pages; ``owner`` is its identity from here on (None if it failed)."""

    vm: int | None
    npages: int
    flags: int
    result: int
    owner: int | None = None


@_kind(22, "inode=0x... in a line", {"pointer": "value", "vm": "actor"}, reference="vm")
class GmemSeen(Event):
    """A guest_memfd whose creation is not on record is met for the first time, or again and its guest is known now."""

    owner: int
    pointer: int | None = None
    vm: int | None = None


@_kind(23, "kvm_gmem_bind", {"index": "value", "gmem": "actor"}, reference="gmem")
class GmemBound(Event):
    """Gfns ``start, npages`` of the guest ``owner`` are backed by a guest_memfd from page ``index`` on."""

    owner: int | None
    start: int
    npages: int
    index: int | None = None
    gmem: int | None = None
    result: int = 0


@_kind(24, "kvm_gmem_unbind", {"index": "value"})
class GmemUnbound(Event):
    """Gfns ``start, npages`` of the guest lose their guest_memfd."""

    owner: int | None
    start: int
    npages: int
    index: int | None = None


@_kind(25, "kvm_gmem_release")
class GmemReleased(Event):
    """The last file of a guest_memfd was closed; slots that were bound to it have no memory."""

    owner: int | None
    npages: int | None = None


# --- requests of guests -------------------------------------------------------------------------------------------


@_kind(
    30,
    "kvm_hypercall KVM_HC_MAP_GPA_RANGE, TDVMCALL MapGPA, SNP PSC",
    {"request": "conversion", "flags": "value", "thread": "actor", "path": "result"},
)
class GuestAsked(Event):
    """A guest asks for a conversion; ``flags`` as it passed them. ``detail`` has the bytes if they are unaligned."""

    request: int
    thread: int
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    path: RequestPath = RequestPath.VMCALL


@_kind(
    31,
    "complete_hypercall_exit, tdx_complete_vmcall_map_gpa, snp_complete_psc",
    {"request": "conversion", "next_gpa": "value", "thread": "actor"},
)
class GuestAnswered(Event):
    """The guest gets its answer: ``result`` is the value it sees (0, or as KVM defines it for the path, may be negative)."""

    request: int
    result: int
    owner: int | None = None
    thread: int | None = None
    next_gpa: int | None = None


@_kind(32, "kvm_mmu_prepare_memory_fault_exit", {"flags": "value", "thread": "actor", "raced": "conversion"})
class MemoryFaultExit(Event):
    """KVM_RUN returned KVM_EXIT_MEMORY_FAULT: no request by itself. ``flags`` 0x8 is a private access.

    ``raced`` names a conversion of the page that was going on, or had just ended, while this vCPU ran.
    """

    thread: int
    result: int
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    raced: int | None = None


# --- conversions --------------------------------------------------------------------------------------------------


@_kind(40, "kvm_vm_ioctl, kvm_gmem_ioctl", {"attributes": "value", "thread": "actor", "through": "result"})
class ConvertAsked(Event):
    """A thread asks for a conversion. Without ``start`` the arguments are unaligned (``detail`` has them) or unknown."""

    conversion: int
    through: Through
    owner: int | None = None
    thread: int | None = None
    start: int | None = None
    npages: int | None = None
    attributes: int | None = None


@_kind(
    39, "a step or a return of kvm_vm_ioctl, kvm_gmem_ioctl", {"attributes": "value", "thread": "actor", "through": "result"}
)
class ConvertMet(Event):
    """A thread is met inside of a conversion whose entry is not on record; some of its steps may not be either."""

    conversion: int
    through: Through
    owner: int | None = None
    thread: int | None = None
    start: int | None = None
    npages: int | None = None
    attributes: int | None = None


@_kind(41, "tracepoint kvm_vm_set_mem_attributes", {"attributes": "value", "thread": "actor"})
class ConvertAttempted(Event):
    """The arguments of a VM ioctl passed validation; nothing is said of its result."""

    conversion: int
    start: int
    npages: int
    attributes: int
    owner: int | None = None
    thread: int | None = None


@_kind(42, "return of kvm_vm_ioctl, kvm_gmem_ioctl", {"error_offset": "value", "thread": "actor"})
class ConvertReturned(Event):
    """The ioctl returned; ``error_offset`` in bytes is set where the kernel wrote it (EAGAIN, ENOMEM).

    ``start, npages`` are the arguments as a return probe has read them again; what differs from the entry was unreadable.
    """

    conversion: int
    result: int
    start: int | None = None
    npages: int | None = None
    owner: int | None = None
    error_offset: int | None = None
    thread: int | None = None


@_kind(43, "kvm_range_has_memory_attributes", {"attributes": "value", "thread": "actor", "equal": "result"})
class AttrsCompared(Event):
    """The kernel compared a whole range with ``attributes``: ``equal`` is 1 if every page has them."""

    start: int
    npages: int
    attributes: int
    equal: int
    owner: int | None = None
    conversion: int | None = None
    thread: int | None = None


@_kind(44, "compute_work (RFC v2)")
class WorkItem(Event):
    """One range of the request differs from its target."""

    conversion: int
    owner: int | None
    start: int
    npages: int


@_kind(45, "xa_reserve, mas_preallocate")
class Reserved(Event):
    """Memory for the new attributes is reserved, or not (``result``)."""

    conversion: int
    result: int
    owner: int | None = None


@_kind(
    46,
    "kvm_arch_pre_set_memory_attributes, unmap_mapping_pages, __kvm_gmem_invalidate_start",
    {"attributes": "value", "slot": "actor"},
)
class ZapStarted(Event):
    """Users of a range begin to lose their mappings for a conversion to ``attributes``."""

    conversion: int
    start: int
    npages: int
    owner: int | None = None
    attributes: int | None = None
    slot: int | None = None


@_kind(47, "kvm_mmu_invalidate_range_add")
class InvalidateAdded(Event):
    """Faults in a range are retried until the invalidation ends: the hull of a conversion, wider than what is zapped."""

    start: int
    npages: int
    owner: int | None = None
    conversion: int | None = None


@_kind(48, "kvm_mmu_invalidate_end")
class InvalidateEnded(Event):
    """The invalidation of a conversion ends."""

    conversion: int
    owner: int | None = None


@_kind(49, "kvm_unmap_gfn_range, unmap_mapping_pages, a notifier's response", {"entries": "value", "user": "actor"})
class UserAnswered(Event):
    """A user unmapped a range (``result`` 0), refused (errno) or its answer is unknown (None); ``entries`` it lost."""

    user: User
    start: int
    npages: int
    owner: int | None = None
    conversion: int | None = None
    result: int | None = None
    entries: int | None = None


@_kind(
    50,
    "the in-use test: kvm_gmem_is_safe_for_conversion, __folio_has_outstanding_references",
    {"references": "value", "expected": "actor"},
)
class UsersChecked(Event):
    """Pages were tested for other users: ``result`` 0 if there are none, else the errno and the ``references`` found."""

    conversion: int
    start: int
    npages: int
    result: int
    owner: int | None = None
    references: int | None = None
    expected: int | None = None


@_kind(51, "xa_store, mas_store_prealloc", {"attributes": "value"})
class AttrsStored(Event):
    """The attribute of a range is written; in-place the range is merged with equal neighbours."""

    start: int
    npages: int
    attributes: int
    owner: int | None = None
    conversion: int | None = None
    result: int = 0


@_kind(52, "kvm_gmem_split_folio", {"order": "value"})
class FolioSplit(Event):
    """A large folio was split, or not (``result``)."""

    conversion: int
    owner: int | None
    start: int
    npages: int
    result: int
    order: int | None = None


@_kind(53, "kvm_gmem_merge_folios", {"order": "value"})
class FolioMerged(Event):
    """Small folios were merged, or not (``result``)."""

    conversion: int
    owner: int | None
    start: int
    npages: int
    result: int
    order: int | None = None


@_kind(54, "rollback of kvm_gmem_convert_range", {"attributes": "value"})
class Undone(Event):
    """One item of a rollback; a ``result`` other than 0 is a WARN and leaves the range torn.

    ``attributes`` is what the range has behind it, where that is known.
    """

    conversion: int
    owner: int | None
    start: int
    npages: int
    result: int
    attributes: int | None = None


@_kind(55, "kvm_unmap_hva_range")
class HvaUnmapped(Event):
    """Host virtual pages ``start, npages`` lose their mapping (mmu notifier); ``owner`` is the guest of the thread."""

    start: int
    npages: int
    owner: int | None = None
    conversion: int | None = None


# --- pages ----------------------------------------------------------------------------------------------------------


@_kind(60, "kvm_gmem_get_pfn, kvm_tdp_mmu_spte_changed, kvm_gmem_fault_user_mapping", {"pfn": "value", "access": "actor"})
class FaultServed(Event):
    """A run of pages was touched and got its memory (``result`` 0) or not; ``pfn`` is that of the first page."""

    access: Access
    start: int
    npages: int
    owner: int | None = None
    result: int = 0
    pfn: int | None = None


@_kind(61, "tdh_mem_page_aug, rmp_make_private", {"pfn": "value"})
class PrivateMapped(Event):
    """A host page was given to a guest as private."""

    pfn: int
    owner: int | None = None
    start: int | None = None
    npages: int = 1


@_kind(62, "tdh_mem_page_aug, rmp_make_private", {"pfn": "value", "status": "result"})
class PrivateMapFailed(Event):
    """A host page could not be given to a guest; ``status`` is the low form of the error, ``detail`` the words."""

    pfn: int | None = None
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    status: int | None = None


@_kind(63, "tdx_sept_remove_leaf_spte, sev_gmem_invalidate", {"pfn": "value", "step": "actor", "status": "result"})
class PrivateUnmapFailed(Event):
    """A private page could not be taken back from a guest: its host page is messed up. ``detail`` has entry and level."""

    step: UnmapStep
    pfn: int | None = None
    owner: int | None = None
    conversion: int | None = None
    start: int | None = None
    npages: int | None = None
    status: int | None = None


@_kind(64, "snp_leak_pages", {"pfn": "start"})
class PageLeaked(Event):
    """The kernel gives up host pages ``pfn, npages`` for good: lost, but safe."""

    pfn: int
    npages: int
    owner: int | None = None


@_kind(65, "HKID n is leaked", {"hkid": "value"})
class HkidLeaked(Event):
    """A TDX key id is lost until the next boot."""

    hkid: int | None = None


@_kind(66, "tdx_reclaim_page, snp_page_reclaim", {"pfn": "value", "status": "result"})
class ReclaimFailed(Event):
    """A page of a guest's own structures could not be taken back."""

    pfn: int | None = None
    owner: int | None = None
    status: int | None = None


@_kind(67, "mm_filemap_add_to_page_cache", {"pfn": "value", "order": "actor"})
class PageAdded(Event):
    """A host page became the memory behind a page of a guest_memfd."""

    owner: int | None
    start: int
    npages: int
    pfn: int
    order: int = 0


@_kind(68, "mm_filemap_delete_from_page_cache", {"pfn": "value", "order": "actor"})
class PageFreed(Event):
    """A host page left a guest_memfd."""

    owner: int | None
    start: int
    npages: int
    pfn: int | None = None
    order: int = 0


@_kind(69, "kvm_gmem_fallocate", {"mode": "value", "thread": "actor"})
class Punched(Event):
    """A range of a guest_memfd was punched out (mode 3) or allocated (mode 1); attributes stay as they are."""

    mode: int
    result: int
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    thread: int | None = None


@_kind(70, "kvm_gmem_error_folio, memory_failure", {"pfn": "value"})
class Poisoned(Event):
    """A page has a memory error: of a guest_memfd (``owner``, ``start``), of the host (``pfn``) or both.

    ``detail`` has the words of the kernel; "Failed" is its normal way with guest_memfd pages.
    """

    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    pfn: int | None = None


@_kind(71, "kvm_rmp_fault, #PF with the RMP bit", {"pfn": "value"})
class RmpViolation(Event):
    """The host touched a page that the RMP gives to somebody else."""

    pfn: int | None = None
    owner: int | None = None


@_kind(72, "exc_general_protection", {"address": "value"})
class GeneralProtection(Event):
    """The kernel took a general protection fault."""

    address: int | None = None


@_kind(73, "do_machine_check", {"pfn": "value"})
class MachineCheck(Event):
    """The machine reported a memory error."""

    pfn: int | None = None


# --- devices and tasks ------------------------------------------------------------------------------------------------


@_kind(80, "vfio, iommufd map", {"holder": "actor", "iova": "value"})
class DmaMapped(Event):
    """Pages were mapped for a device."""

    owner: int | None
    start: int
    npages: int
    holder: int | None = None
    iova: int | None = None
    result: int = 0


@_kind(81, "vfio, iommufd unmap", {"holder": "actor", "iova": "value"})
class DmaUnmapped(Event):
    """Pages were unmapped from a device."""

    owner: int | None
    start: int
    npages: int
    holder: int | None = None
    iova: int | None = None
    result: int = 0


@_kind(82, "pin_user_pages", {"holder": "actor"})
class Pinned(Event):
    """Pages were pinned, or a reference to them taken."""

    owner: int | None
    start: int
    npages: int
    holder: int | None = None


@_kind(83, "unpin_user_pages", {"holder": "actor"})
class Unpinned(Event):
    """Pages were let go."""

    owner: int | None
    start: int
    npages: int
    holder: int | None = None


@_kind(89, "DMAR fault", {"holder": "actor"})
class DmaFaulted(Event):
    """A device touched pages that its IOMMU no longer maps: unlike a processor it cannot fault them in."""

    owner: int | None
    start: int
    npages: int
    holder: int | None = None


@_kind(84, "Spinning on folio", {"references": "value"})
class Spinning(Event):
    """A conversion waits for a reference that may never go away."""

    conversion: int | None = None
    owner: int | None = None
    references: int | None = None


@_kind(85, "hung_task", {"thread": "actor"})
class TaskStuck(Event):
    """A task makes no progress."""

    thread: int
    conversion: int | None = None
    owner: int | None = None


@_kind(86, "signal_generate, mark_victim", {"signal": "value", "thread": "actor", "reason": "result"})
class TaskSignalled(Event):
    """A thread was sent a signal (``reason`` is si_code; 128 from the kernel); ``conversion`` is what it was inside of."""

    thread: int
    signal: int
    reason: int | None = None
    owner: int | None = None
    conversion: int | None = None


@_kind(87, "WARN, oops", {"thread": "actor"})
class KernelWarned(Event):
    """The kernel printed a warning; ``detail`` has the site, the function and the entry path."""

    thread: int | None = None
    owner: int | None = None


@_kind(88, "a line of a VMM")
class VmmSaid(Event):
    """A VMM reported something; ``detail`` has its code, text and numbers."""

    owner: int | None = None
    result: int | None = None


@_kind(90, "an operator", {"how": "result"})
class Declared(Event):
    """Somebody states what became of a conversion that has no result: 0 all new, 1 all old, 2 unknown."""

    conversion: int
    how: int
    owner: int | None = None


@_kind(91, "the process that carried out the conversion died")
class Interrupted(Event):
    """Whoever carried out a conversion is gone and left it in the middle; what it had touched is torn."""

    conversion: int
    owner: int | None = None
