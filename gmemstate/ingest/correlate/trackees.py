"""Who a log is about, as far as it has shown them: guests, their memslots and guest_memfds, and threads inside of calls."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gmemstate.ingest.fact import Fact
from gmemstate.model.events import Capability, Dialect, Event, Through, detail

RECENT = 64
"""How many conversions of a guest are remembered after their end, to recognise lost races."""


@dataclass(slots=True)
class Call:
    """A conversion ioctl that a thread is inside of. Its pages are gfns or, through a guest_memfd, page indices."""

    handle: int
    through: Through
    line: int
    vm: int | None = None
    gmem: int | None = None
    start: int | None = None
    npages: int | None = None
    attributes: int | None = None
    entered: bool = False
    """its entry was seen, not only a step or its return"""
    known: bool = False
    """its arguments are on record"""
    mainline: bool = False
    """its tracepoint has the name that only mainline gives it"""
    fd: int | None = None
    file: int | None = None
    given: Mapping[str, int] = field(default_factory=dict)
    """the numbers of its entry, as they were shown"""
    pointer: int | None = None
    """the kvm that one of its lines has named"""
    least: tuple[int, int] | None = None
    """the first page and the one after the last of all that its steps have shown"""
    attempted: bool = False
    compared: bool = False
    zapped: bool = False
    checked: bool = False
    stored: tuple[int, int, int] | None = None
    tested: list[int] = field(default_factory=list)
    """of the in-use test: first line, last line, last index, references there, number of pages"""

    @property
    def owner(self) -> int | None:
        """The reference of what holds its attributes: the VM, or the guest_memfd."""
        return self.vm if self.through is Through.VM_IOCTL else self.gmem

    @property
    def end(self) -> int | None:
        """The page after the range."""
        return None if self.start is None or self.npages is None else self.start + self.npages

    def covers(self, page: int) -> bool:
        """Whether a page (gfn or index) is in its range."""
        return self.start is not None and self.end is not None and self.start <= page < self.end


@dataclass(slots=True)
class SlotState:
    """A memslot as the trace has shown it."""

    start: int
    npages: int
    hva: int | None
    flags: int
    gmem: int | None = None
    index: int | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Its first gfn and its pages."""
        return self.start, self.npages


@dataclass(slots=True)
class VmState:
    """A guest as the trace has shown it; ``handle`` is its reference in events."""

    handle: int
    pointer: int
    born_here: bool
    """its first line makes its first memslot or guest_memfd"""
    dialect: Dialect = Dialect.UNKNOWN
    shown: set[Capability] = field(default_factory=set)
    """the capabilities proven by lines about it"""
    returned: dict[int, int] = field(default_factory=dict)
    """what ioctls had returned to its thread when it was first seen"""
    birth_recorded: bool = False
    fd: int | None = None
    file: int | None = None
    """what its ioctls were called on: the fd of one thread, the file of them all"""
    torn_down: bool = False
    gmems: int = 0
    mmap: bool = False
    """one of its guest_memfds can be mapped by the host"""
    slots: dict[int, SlotState] = field(default_factory=dict)
    recent: deque[tuple[int, int, int, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    """ended conversions: handle, start, end (gfns), line of the end"""


@dataclass(slots=True)
class GmemState:
    """A guest_memfd as the trace has shown it."""

    handle: int
    vm: int | None
    fd: int | None = None
    pages: int | None = None
    pointer: int | None = None
    released: bool = False
    doubtful: bool = False
    """events were lost since it was seen: another file may be at its address"""


@dataclass(slots=True)
class Region:
    """A KVM_SET_USER_MEMORY_REGION2 that a thread is inside of."""

    line: int
    args: dict[str, int]
    vm: VmState | None = None
    gmem: int | None = None
    inode: int | None = None
    bound: tuple[int, int, int] | None = None
    """base gfn, pages and index as the binding names them"""


@dataclass(slots=True)
class PageRun:
    """Consecutive pages that lines one by one say the same of; becomes one event."""

    make: Callable[["PageRun"], Event]
    t: int | None
    first_line: int
    start: int
    end: int
    last_line: int = 0
    lines: int = 1
    pfn: int | None = None
    """the host page of the first one"""
    count: int = 0
    """entries of page tables that were removed"""

    @property
    def npages(self) -> int:
        """How many pages it has."""
        return self.end - self.start

    def detail(self, **facts: Any) -> str | None:
        """Which lines the run is made of, and what else there is to say of it."""
        lines = {"last": self.last_line, "lines": self.lines} if self.lines > 1 else {}
        return detail(**lines, **facts)


@dataclass(slots=True)
class Overlay:
    """A large SPTE that a thread has put over a table of small ones, and the gfns below that had another host page."""

    start: int
    end: int
    pfn: int
    lost: list[list[int]] = field(default_factory=list)
    """runs ``[first, end)`` of gfns, until they are recorded"""

    def take(self, start: int, end: int) -> list[list[int]]:
        """The gfns whose host page was replaced by a large entry over ``[start, end)``; once."""
        if (start, end) != (self.start, self.end):
            return []
        lost, self.lost = self.lost, []
        return lost


@dataclass(slots=True)
class Thread:
    """What a thread is in the middle of."""

    tid: int
    comm: str
    vms: list[int] = field(default_factory=list)
    call: Call | None = None
    syscall: Fact | None = None
    """the entry of the system call that it is inside of"""
    region: Region | None = None
    zap: tuple[int, int, int] | None = None
    """entries of the guest's page tables removed since the last notifier line: number, first line, last line"""
    over: Overlay | None = None
    bracket: tuple[int, int, list[tuple[int, int, int, int]]] | None = None
    """an invalidation of indices (start, end) and the gfns unmapped in it: (vm, slot, gfn, index)"""
    exit: Fact | None = None
    """the last return of KVM_RUN, if it asks for nothing and is not on record yet"""
    exit_recorded: bool = False
    failed: bool = False
    """its last exit was KVM_EXIT_INTERNAL_ERROR"""
    fault_recorded: bool = False
    entered: int | None = None
    """the line since which its vCPU runs the guest"""
    request: int | None = None
    other_hypercall: bool = False
    fault: int | None = None
    """the gfn of the last guest page fault"""
    file: GmemState | None = None
    """the guest_memfd that it closes or poisons"""
    error: int | None = None
    """the page index of the last kvm_gmem_error_folio"""
    runs: dict[str, PageRun] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)
    """small values that ioctls returned, with their last line: one of them was the fd of a VM"""
    open: set[str] = field(default_factory=set)
    """kinds of facts that begin what it has not ended"""
    paired: set[str] = field(default_factory=set)
    """kinds of facts that begin something, of which it has shown the end as well"""
