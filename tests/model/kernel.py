"""A toy kernel that converts pages, and a trace of it that may show less than everything.

The kernel knows of each page what it is, one page at a time. Its conversions go step by step as those of KVM do, several
threads at once, behind one lock. The trace tells a Memory what the tracer shows of that.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gmemstate.model import events as e
from gmemstate.model.fold.apply import apply
from gmemstate.model.linux import GUEST_MEMFD_FLAG_INIT_SHARED, KVM_MEM_GUEST_MEMFD
from gmemstate.model.memory import Memory

PAGES = 12
FIRST_GFN = 0x100
SLOTS = ((2, 5), (5, 9))
"""The pages that memslots cover on the VM whose attributes are the VM's own; on the other one slot covers all."""
EAGAIN, ENOMEM = 11, 12
LOCK, UNLOCK = "the lock is taken behind this step", "it was let go"
SHOWN = {
    e.ConvertAsked: e.Capability.ASKED,
    e.ConvertAttempted: e.Capability.ATTEMPTED,
    e.AttrsCompared: e.Capability.COMPARED,
    e.ZapStarted: e.Capability.ZAP,
    e.UserAnswered: e.Capability.HOST_UNMAP,
    e.UsersChecked: e.Capability.REFERENCES,
    e.AttrsStored: e.Capability.STORED,
    e.InvalidateEnded: None,
    e.ConvertReturned: e.Capability.RETURNED,
    e.FaultServed: e.Capability.PRIVATE_FAULTS,
}
"""What a tracer can show or not."""
NEEDED: dict[type[e.Event], tuple[type[e.Event], ...]] = {e.UsersChecked: (e.ZapStarted,)}
"""What is never shown without something else."""


@dataclass
class Call:
    """One ioctl of a thread: pages ``start .. end - 1`` are to become ``to``."""

    thread: int
    start: int
    end: int
    to: str
    fails: bool
    steps: Iterator[str | None] = field(init=False)
    id: int | None = None
    """its seq on record"""
    known: bool = False
    """its arguments are on record"""
    locked: bool = False
    """it has held the lock, and that can be seen"""
    overtaken: set[int] = field(default_factory=set)
    """the pages of those that held the lock behind it"""
    zapped: bool = False
    """its zap is on record"""

    @property
    def attributes(self) -> int:
        return 8 if self.to == "private" else 0

    @property
    def pages(self) -> range:
        return range(self.start, self.end)


class Trace:
    """What a tracer shows of one guest, folded into a memory."""

    def __init__(self, kernel: "Kernel", visible: set[type[e.Event]], *, born: bool, rereads: bool = True) -> None:
        self.memory = Memory()
        self.rows: list[e.EventRow] = []
        self.visible = visible | {needed for kind in visible for needed in NEEDED.get(kind, ())}
        self.rereads = rereads
        """the return of an ioctl shows its arguments once more"""
        self.lost = False
        self.through = e.Through.GMEM_IOCTL if kernel.inplace else e.Through.VM_IOCTL
        self.record(e.SourceOpened())
        self.vm = self.record(e.VmSeen(owner=self.memory.seq + 1, made=int(born), source=1))
        if born:
            self.record(e.VmCreated(owner=self.vm, source=1))
        self.record(e.DialectSeen(owner=self.vm, dialect=kernel.dialect, source=1))
        self.owner = self.vm
        for slot, (first, last) in enumerate(kernel.slots):
            self.record(e.SlotSet(slot=slot, owner=self.vm, start=FIRST_GFN + first, npages=last - first,
                                    flags=KVM_MEM_GUEST_MEMFD,
                                  result=0, source=1))  # fmt: skip
        if kernel.inplace:
            self.owner = self.memory.seq + 1
            flags = GUEST_MEMFD_FLAG_INIT_SHARED if kernel.attribute[0] == "shared" else 0
            seen: dict[str, Any] = {"owner": self.owner, "vm": self.vm, "source": 1}
            self.record(e.GmemCreated(npages=PAGES, flags=flags, result=0, **seen) if born else e.GmemSeen(**seen))
            self.record(e.GmemBound(owner=self.vm, start=FIRST_GFN, npages=PAGES, index=0, gmem=self.owner, source=1))
        for kind, capability in SHOWN.items():
            if kind in visible and capability is not None:
                self.record(e.SourceShows(capability=capability, owner=self.vm, source=1))

    def record(self, event: e.Event) -> int:
        self.rows.append((self.memory.seq + 1, *event.row()[1:]))
        apply(self.memory, self.rows[-1])
        return self.memory.seq

    def number(self, page: int) -> int:
        """The number of a page in the space that holds the attributes."""
        return page if self.owner != self.vm else FIRST_GFN + page

    def tell(self, call: Call, kind: type[e.Event], first: int | None = None, last: int | None = None, **facts: Any) -> None:
        """A step of a conversion, if it is shown; the first one that is shown proves that there is a conversion."""
        if self.lost or kind not in self.visible:
            return
        arguments = {"start": self.number(call.start), "npages": call.end - call.start, "attributes": call.attributes}
        has_arguments = kind in (e.ConvertAsked, e.ConvertAttempted) or (kind is e.ConvertReturned and self.rereads)
        met = {"thread": call.thread, "through": self.through, "owner": self.owner, "source": 1}
        if call.id is None:
            call.id = self.memory.seq + 1
            if kind not in (e.ConvertAsked, e.ConvertAttempted):
                self.record(e.ConvertMet(conversion=call.id, **met, **(arguments if has_arguments else {})))
        elif has_arguments and not call.known:
            self.record(e.ConvertMet(conversion=call.id, **met, **arguments))
        call.known |= has_arguments
        if kind is e.UsersChecked and not call.zapped:  # the line that tells it tells of the zap, too
            self.tell(call, e.ZapStarted, call.start, call.end, attributes=call.attributes)
        call.zapped |= kind is e.ZapStarted
        if kind in (e.ConvertAsked, e.ConvertAttempted):
            facts |= arguments | {"thread": call.thread}
        if kind is e.ConvertAsked:
            facts["through"] = self.through
        if first is not None and last is not None and (has_arguments or kind is not e.ConvertReturned):
            facts |= {"start": self.number(first), "npages": last - first}
        self.record(kind(conversion=call.id, owner=self.owner, source=1, **facts))

    def state(self, page: int) -> str:
        """What the memory says of a page."""
        return self.memory.attribute(self.vm, FIRST_GFN + page)


class Kernel:
    """What each page is, and what it would be called by somebody who sees everything."""

    def __init__(self, attribute: list[str], *, inplace: bool) -> None:
        self.attribute = attribute
        self.inplace = inplace
        self.dialect = e.Dialect.INPLACE if inplace else e.Dialect.MAINLINE
        self.slots = ((0, PAGES),) if inplace else SLOTS
        self.seen = attribute[:]
        self.calls: dict[int, Call] = {}
        self.holder: Call | None = None
        self.waiting: set[int] = set()

    def begin(self, call: Call, trace: Trace) -> None:
        call.steps = self.convert_inode(call, trace) if self.inplace else self.convert_vm(call, trace)
        self.calls[call.thread] = call
        self.go_on(call.thread)

    def go_on(self, thread: int) -> None:
        """One more step of a thread, unless it waits for the lock."""
        call = self.calls[thread]
        if thread in self.waiting:
            if self.holder is not None:
                return
            self.waiting.remove(thread)
            self.holder = call
        try:
            step = next(call.steps)
            if step is LOCK:
                self.waiting.add(thread)
            elif step is UNLOCK:
                self.holder = None
        except StopIteration:
            del self.calls[thread]
            self.holder = None if self.holder is call else self.holder

    def convert_vm(self, call: Call, trace: Trace) -> Iterator[str | None]:
        """kvm_vm_ioctl_set_mem_attributes(): compare, reserve, zap slot by slot, store, end the invalidation."""
        trace.tell(call, e.ConvertAsked)
        yield None
        trace.tell(call, e.ConvertAttempted)
        yield LOCK
        before = self.attribute[:]
        self.take(call)
        equal = all(before[page] == call.to for page in call.pages)
        trace.tell(
            call, e.AttrsCompared, call.start, call.end, attributes=call.attributes, equal=int(equal), thread=call.thread
        )
        yield None
        if equal or call.fails:
            yield UNLOCK
            trace.tell(call, e.ConvertReturned, call.start, call.end, result=0 if equal else ENOMEM)
            return
        parts = [(max(a, call.start), min(b, call.end)) for a, b in self.slots if a < call.end and call.start < b]
        for slot, (first, last) in enumerate(parts):
            self.see(before, call, "zapping", first, last)
            trace.tell(call, e.ZapStarted, first, last, attributes=call.attributes, slot=slot)
            yield None
        self.store(call)
        trace.tell(call, e.InvalidateEnded)
        yield None
        for first, last in parts:
            self.see(before, call, "stored", first, last)
            trace.tell(call, e.AttrsStored, first, last, attributes=call.attributes)
            yield None
        yield UNLOCK
        self.see_settled(call)
        trace.tell(call, e.ConvertReturned, call.start, call.end, result=0)

    def convert_inode(self, call: Call, trace: Trace) -> Iterator[str | None]:
        """kvm_gmem_set_attributes(): unmap the host and test for users if to private, zap, store with equal neighbours."""
        trace.tell(call, e.ConvertAsked)
        yield LOCK
        before = self.attribute[:]
        pages = (call.start, call.end)
        if all(before[page] == call.to for page in call.pages) and not call.fails:
            yield UNLOCK
            trace.tell(call, e.ConvertReturned, *pages, result=0)
            return
        self.take(call)
        self.see(before, call, "zapping", *pages)
        trace.tell(call, e.ZapStarted, *pages, attributes=call.attributes)
        yield None
        if call.to == "private":
            trace.tell(call, e.UserAnswered, *pages, user=e.User.HOST, result=0)
            yield None
            if call.fails:
                trace.tell(call, e.UsersChecked, call.start, call.start + 1, result=EAGAIN)
                yield UNLOCK
                self.see_settled(call, old=before)
                trace.tell(call, e.ConvertReturned, *pages, result=EAGAIN)
                return
            self.see(before, call, "checked", *pages)
            trace.tell(call, e.UsersChecked, *pages, result=0)
            yield None
        self.store(call)
        self.see(before, call, "stored", *pages)
        first, last = pages
        while first > 0 and self.attribute[first - 1] == call.to:
            first -= 1
        while last < PAGES and self.attribute[last] == call.to:
            last += 1
        trace.tell(call, e.AttrsStored, first, last, attributes=call.attributes)
        yield None
        self.see_settled(call)
        trace.tell(call, e.InvalidateEnded)
        yield UNLOCK
        self.see_settled(call)
        trace.tell(call, e.ConvertReturned, *pages, result=0)

    def take(self, call: Call) -> None:
        """The first step under the lock: what others did under it is done, though they may not have returned yet."""
        for other in self.calls.values():
            if other is not call and other.locked:
                for page in range(PAGES):
                    if "(" in self.seen[page]:
                        self.seen[page] = self.attribute[page]
                other.overtaken |= set(call.pages)
        call.locked = True

    def store(self, call: Call) -> None:
        for page in call.pages:
            self.attribute[page] = call.to

    def see(self, before: list[str], call: Call, phase: str, first: int, last: int) -> None:
        for page in range(first, last):
            self.seen[page] = f"{phase}({before[page]}>{call.to})"

    def see_settled(self, call: Call, old: list[str] | None = None) -> None:
        for page in set(call.pages) - call.overtaken:
            self.seen[page] = call.to if old is None else old[page]
