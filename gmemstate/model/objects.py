"""The objects that a memory consists of. Each is known by the seq of the event that opened it."""

from dataclasses import dataclass, field
from enum import StrEnum

from gmemstate.model.events import Cause, Dialect, EventRow, RequestPath, Through
from gmemstate.model.linux import KVM_MEM_GUEST_MEMFD, PAGE_SHIFT
from gmemstate.model.machines.conversion import ENDED, NEW
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, Gfn, PageIndex, Pfn, unsigned

UNKNOWN_PAGES, HOLE, PRESENT, POISONED_PAGE = range(4)
"""What memory is in a page of a guest_memfd."""

NO_ANSWER, UNMAPPED, MAPPED = range(3)
"""Whether a user maps a page."""


class Trigger(StrEnum):
    """Why a conversion was asked."""

    GUEST_REQUEST = "guest_request"
    FAULT_MISMATCH = "fault_mismatch"
    """the guest accessed the page as the other kind: an implicit request"""
    VMM_AFTER_FAULT = "vmm_after_fault"
    VMM = "vmm"
    UNKNOWN = "unknown"


class FaultClass(StrEnum):
    """What a KVM_EXIT_MEMORY_FAULT was about. Only a mismatch is a conversion request."""

    MISMATCH = "mismatch"
    UNBACKED = "unbacked"
    """no slot, no guest_memfd, or a closed one"""
    POISONED = "poisoned"
    MAP_FAILED = "map_failed"
    LOST_RACE = "lost_race"
    """the attribute changed between the fault and its check"""
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Source:
    """A file that was read, or a live recording."""

    id: int
    shows: frozenset[int] = frozenset()
    """the capabilities it has proven in lines that name no guest"""
    gaps: list[int] = field(default_factory=list)
    """the seqs of its gaps"""
    read: bool = False
    """its end was reached"""
    last_read: int | None = None
    """the seq of the event that says so, the last one if it was read on"""
    blind: bool = False
    """it has shown memslots of guests that it did not name"""
    converts: bool = False
    """it has shown a conversion"""
    reference: int | None = None
    """the source that has shown from inside what this one has shown from outside"""
    ahead: int = 0
    """how far (ns) its clock is ahead of that of the reference"""
    shared: bool = False
    """another source has shown calls that it has shown too"""
    alone: int = 0
    """how many conversions have succeeded that it has shown from outside, and nobody from inside"""
    unfinished: int = 0
    """how many conversions it has shown whose threads went on, without their results"""
    unseen_requests: int = 0
    """how many exits for a hypercall it has shown without the request"""
    late: list[int] = field(default_factory=list)
    """the seqs of the events from which on it speaks of what is past"""
    until: int | None = None
    """until which time (ns of its clock) it does so still; None if it does no longer"""

    @property
    def about(self) -> list[int]:
        """The seqs of the events that tell what it is, where it was damaged and how far it was read."""
        return [self.id, *self.gaps, *self.late, *([] if self.last_read is None else [self.last_read])]


def slot_number(id: int) -> int:
    """The number of a memslot as a VMM counts it: an id has the address space in its high half (kvm_set_memory_region())."""
    return id & 0xFFFF


@dataclass(slots=True)
class Slot:
    """Gfns ``[start, start + npages)`` of a guest, backed by an hva and perhaps by a guest_memfd from ``index`` on."""

    id: int
    start: Gfn
    npages: int
    flags: int | None
    gmem: int | None = None
    index: PageIndex | None = None

    @property
    def end(self) -> Gfn:
        """The first gfn after the slot."""
        return Gfn(self.start + self.npages)

    def gfn_at(self, index: PageIndex) -> Gfn | None:
        """The gfn at which a page of its guest_memfd is bound; None where the slot does not hold that page."""
        if self.index is None or not 0 <= index - self.index < self.npages:
            return None
        return Gfn(self.start + index - self.index)

    @property
    def has_gmem(self) -> bool | None:
        """Whether it can have private memory; None if that is not known."""
        return None if self.flags is None else bool(self.flags & KVM_MEM_GUEST_MEMFD)


class GuestEnd(StrEnum):
    """What became of a guest that is no more, or no good any more."""

    BUGGED = "bugged"
    """KVM has marked it as bugged (kvm_vm_bugged()): its ioctls answer EIO"""
    DEAD = "dead"
    DESTROYED = "destroyed"


@dataclass(slots=True)
class Vm:
    """A guest: one kvm pointer in one recording, from one birth on."""

    id: int
    number: int
    source: int | None
    pointer: int | None = None
    thread: int | None = None
    detail: str | None = None
    made: bool = False
    """the record reaches back to its first memslot or guest_memfd"""
    born: bool = False
    dialect: Dialect = Dialect.UNKNOWN
    shows: frozenset[int] = frozenset()
    """the capabilities that its source has proven for it"""
    gone: GuestEnd | None = None
    slots: dict[int, Slot] = field(default_factory=dict)
    ghosts: list[Slot] = field(default_factory=list)
    """deleted slots that had a guest_memfd"""

    @property
    def name(self) -> str:
        """How people call it."""
        return f"vm{self.number}"

    def slot_of(self, gfn: Gfn) -> Slot | None:
        """The slot that holds a gfn (of address space 0 first)."""
        found = None
        for slot in self.slots.values():
            if slot.start <= gfn < slot.end and (found is None or slot.id < found.id):
                found = slot
        return found


@dataclass(slots=True)
class Gmem:
    """A guest_memfd inode; ``inplace`` once it is certain that the attribute lives in it."""

    id: int
    vm: int | None
    npages: int | None = None
    flags: int | None = None
    pointer: int | None = None
    inplace: bool = False
    released: bool = False
    bound: bool = False
    """a memslot was seen to bind it"""
    backing: RangeMap = field(default_factory=RangeMap)
    orders: RangeMap = field(default_factory=RangeMap)
    """the order of the folio of each page, where there is one"""


@dataclass(slots=True)
class Conversion:
    """One ioctl, as one thread issued it. What is not known of it (yet) has its default."""

    id: int
    source: int | None
    through: Through
    thread: int | None = None
    first_observed: int | None = None
    first_line: int | None = None
    state: str = NEW
    owner: int | None = None
    start: int | None = None
    npages: int | None = None
    end: int | None = None
    """the page after the range"""
    attributes: int | None = None
    target: str | None = None
    """the asked kind; None if it is not known or no kind at all"""
    detail: str | None = None
    returned: int | None = None
    result: int | None = None
    error_offset: int | None = None
    last_line: int | None = None
    last: int = 0
    """the seq of its youngest event, or of what else tells of it: a gap, the end of its source or more after that"""
    trigger: Trigger = Trigger.UNKNOWN
    request: int | None = None
    read_twice: bool = False
    """its arguments were read at its entry and at its return, and are the same"""
    entered: bool = False
    """its entry is on record, so that every step that its source shows would be"""
    covered: tuple[int, int] | None = None
    """the pages that have left their settled state for it, and perhaps some between them"""
    stored: bool = False
    """the new attribute was seen to be written"""
    locked: bool = False
    """a step was seen that only who holds the lock can make"""
    taken: tuple[tuple[int, int], ...] = ()
    """the pages of others that have held the lock after it"""
    doubtful: tuple[tuple[int, int], ...] = ()
    """the pages that others have changed meanwhile, before or after it"""
    items: tuple[tuple[int, int], ...] | None = None
    """its items of work (RFC v2), where they are on record"""
    answers: tuple[EventRow, ...] = ()
    """the users that unmapped for it, as they answered"""
    references: int | None = None
    expected: int | None = None
    suspects: int = 0
    stuck: bool = False
    dying: bool = False
    """its task was killed meanwhile"""
    struck: int | None = None
    """when it was killed (ns)"""
    gapped: bool = False
    superseded: bool = False
    """its thread went on; the result was not seen"""
    result_from: tuple[int | None, int | None] | None = None
    """the source and the line that the result is known from, if that is not its own source"""
    shown: frozenset[int] = frozenset()
    """what its source had proven to show of its guest when it, or the source, ended"""

    in_vm: bool = field(init=False)
    """whether its pages are gfns of a VM (else page indices of a guest_memfd)"""

    def __post_init__(self) -> None:
        self.in_vm = self.through is Through.VM_IOCTL

    def unplace(self, pages: RangeMap) -> None:
        """Set the pages that it is about to 1, if nobody knows which guest they are of."""
        if self.owner is None and self.start is not None:
            start = unsigned(self.start)
            pages.set(start, END if self.npages is None else min(start + self.npages, END), 1)

    @property
    def error_page(self) -> int | None:
        """The page that error_offset names, by its index in the guest_memfd."""
        return None if self.error_offset is None else self.error_offset >> PAGE_SHIFT

    @property
    def asked(self) -> int | None:
        """When the ioctl was entered (ns); None if that was not seen; it was seen at ``first_observed``."""
        return self.first_observed if self.entered else None

    @property
    def ended(self) -> bool:
        """Whether nothing more can be said of it."""
        return self.state in ENDED or self.superseded


@dataclass(slots=True)
class Request:
    """What a guest asked for; it may take several conversions, or none."""

    id: int
    source: int | None
    owner: int | None
    thread: int
    start: int | None
    npages: int | None
    flags: int | None
    path: RequestPath
    detail: str | None
    asked: int | None
    was_exit: bool = False
    answered: int | None = None
    result: int | None = None
    conversions: list[int] = field(default_factory=list)
    first_line: int | None = None
    last_line: int | None = None
    last: int = 0
    unanswered: bool = False
    """the guest went on without an answer in the record"""

    @property
    def ended(self) -> bool:
        """Whether nothing more can be said of it."""
        return self.result is not None or self.unanswered


REUSE_RISK = {
    Cause.SEPT_STILL_MAPS: ("host may use it, a new TD is refused", "reboot"),
    Cause.RMP_STILL_GUEST: ("corrupts: the host's first write faults", "reboot"),
    Cause.LEAKED_BY_KERNEL: ("none: the kernel keeps it", "reboot"),
    Cause.POISONED: ("none: the kernel gives it to nobody", "never"),
    Cause.UNUSABLE_PRIVATE: ("host may use it, a guest cannot", "fix"),
    Cause.RECLAIM_REFUSED: ("none: the kernel keeps it", "reboot"),
    Cause.STALE_DMA: ("corrupts: a device still writes it", "fix"),
    Cause.UNTRACKED: ("not known: it may still be in the S-EPT", "reboot"),
    Cause.UNFLUSHED: ("corrupts: old cache lines of the TD may be written over it", "reboot"),
    Cause.UNSPLIT: ("not known: the host's first write may fault", "reboot"),
}
"""For each cause: who may be given the page, and what clears the entry."""
OF_A_TD = (Cause.SEPT_STILL_MAPS, Cause.UNTRACKED, Cause.UNFLUSHED)
"""What a private unmap leaves that failed in a TD, by its step."""


@dataclass(slots=True)
class MessedUp:
    """A host page, or a page whose host page is not known, that can no longer be trusted."""

    id: int
    cause: Cause
    state: str
    pfn: Pfn | None = None
    count: int | None = 1
    """how many pages; None for at least one"""
    vm: int | None = None
    gmem: int | None = None
    index: PageIndex | None = None
    gfn: Gfn | None = None
    since: int | None = None
    last: int = 0
    detail: str | None = None
    source: int | None = None

    @property
    def reuse_risk(self) -> str:
        """What happens to the next one who is given the page."""
        return REUSE_RISK[self.cause][0]

    @property
    def cleared_by(self) -> str:
        """What makes the page good again."""
        return REUSE_RISK[self.cause][1]


@dataclass(slots=True)
class FaultExit:
    """A KVM_EXIT_MEMORY_FAULT, with its class."""

    seq: int
    source: int | None
    owner: int | None
    thread: int
    start: int | None
    npages: int | None
    private: bool | None
    result: int
    kind: FaultClass
    t: int | None
    line: int | None
    raced: int | None = None
