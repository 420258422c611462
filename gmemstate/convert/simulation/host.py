"""A simulated host at rest: guests, guest_memfds, memslots, the users of pages, and the record of everything that they do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Protocol

from gmemstate.convert.engine.dialects import CONVERT, SOURCES
from gmemstate.convert.engine.ioctl import ConversionCall, Fault, Returned, Setting, VmType
from gmemstate.convert.engine.kernel import Kernel, runs_of, shift
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.steps import carry_out, drive
from gmemstate.convert.engine.users import PageUser
from gmemstate.model import events as e
from gmemstate.model.events import detail, details
from gmemstate.model.fold.apply import apply
from gmemstate.model.linux import (
    GUEST_MEMFD_FLAG_INIT_SHARED,
    GUEST_MEMFD_FLAG_MMAP,
    KVM_MEM_GUEST_MEMFD,
    PAGE_SHIFT,
    PRIVATE_ATTRIBUTE,
)
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import HOLE, Slot
from gmemstate.model.record import resolve
from gmemstate.model.reports import SourceFormat
from gmemstate.model.units import END


class SimulatedUser(PageUser, Protocol):
    """A user that a simulation can also make access its pages."""

    pages: set[int]
    """what it maps or holds"""

    def access(self, page: int) -> bool:
        """Access a page; False if it does not map it and cannot fault it in."""


VMM = 1
"""The thread that converts, unless a guest has asked for it."""
TURN = 1_000
"""ns between two events of a simulation: it has no clock, only an order."""

SOURCE, FIRST_REFERENCE = -10, -100
FIRST_PFN, NEXT_PFN = 0x100000, 0x1000000
"""The pfn of page 0 of the first guest_memfd (and its distance to that of the next), and the first spare one."""


@dataclass
class SimulatedHost:
    """Guests under one dialect and one policy.

    ``rows`` is the record, ``memory`` its fold. Pages are those of the attribute owner: gfns of a VM in the dialect
    ``mainline``, else page indices of a guest_memfd. ``vm`` and ``gmem`` are the first of their kind.
    """

    dialect: e.Dialect
    policy: Policy = Policy.BUG_VM
    setting: Setting = field(default_factory=Setting)
    faults: Sequence[Fault] = ()
    users: list[SimulatedUser] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    rows: list[e.EventRow] = field(default_factory=list)
    returned: list[Returned | None] = field(default_factory=list)
    """what each conversion returned; None: it never did"""
    vm: int = 0
    gmem: int = 0
    emptied: set[tuple[int, int]] = field(default_factory=set)
    """attribute owners and pages whose contents are gone: taken out of the secure page tables of a TD, or punched out"""
    _gmem_of: dict[str, int] = field(default_factory=dict)
    _pfns: dict[tuple[int, int], int] = field(default_factory=dict)
    _spare: Iterator[int] = field(default_factory=lambda: count(NEXT_PFN))
    _known: dict[int, int] = field(default_factory=dict)
    _reference: int = FIRST_REFERENCE

    # --- recording

    def record(self, event: e.Event) -> int:
        """Append an event; its seq."""
        seq = len(self.rows) + 1
        (numbered,), new = resolve([replace(event, source=SOURCE, t=seq * TURN).row()], seq, self._known)
        self._known.update(new)
        self.rows.append(numbered)
        apply(self.memory, numbered)
        if isinstance(event, e.PageFreed) and event.owner is not None and "kept" in details(event.detail):
            self.give_up(event.owner, range(event.start, event.start + event.npages))
        return seq

    def _append(self, event: e.Event) -> None:
        self.record(event)

    def reference(self) -> int:
        """A fresh name for something that has no seq yet."""
        self._reference -= 1
        return self._reference

    @property
    def in_vm(self) -> bool:
        """Whether the attribute lives in the VM."""
        return self.dialect is e.Dialect.MAINLINE

    @property
    def owner(self) -> int:
        """Where the attribute of the first guest lives."""
        return self.vm if self.in_vm else self.gmem

    def owner_of(self, user: SimulatedUser) -> int:
        """The attribute owner whose pages a user maps or holds."""
        return self.vm if self.in_vm else self._gmem_of.get(user.name, self.gmem)

    # --- birth

    def open(self, name: str) -> None:
        """Begin the record: a source that shows everything."""
        facts = {"dialect": self.dialect.word, "follows": SOURCES[self.dialect], "policy": self.policy.value}
        self.record(e.SourceOpened(detail=detail(name=name, format=SourceFormat.SIMULATION, **facts)))
        for capability in e.Capability:
            self.record(e.SourceShows(capability=capability))

    def close_record(self) -> None:
        """End the record: nothing is missing from it."""
        self.record(e.SourceRead(offset=len(self.rows), detail=detail(lines=0, used=0, unparsed=0)))

    def make_vm(self) -> int:
        """KVM_CREATE_VM."""
        vm = self.record(e.VmSeen(owner=self.reference(), made=1))
        self.record(e.VmCreated(owner=vm, dialect=self.dialect))
        return vm

    def make_gmem(self, vm: int, npages: int, *, shared: bool) -> int:
        """KVM_CREATE_GUEST_MEMFD of ``npages`` pages (4 KiB). On mainline it can neither be mapped nor be shared."""
        flags = 0
        if not self.in_vm:
            flags = GUEST_MEMFD_FLAG_MMAP * self.setting.mmap | GUEST_MEMFD_FLAG_INIT_SHARED * shared
        return self.record(e.GmemCreated(owner=self.reference(), vm=vm, npages=npages, flags=flags, result=0))

    def set_slot(
        self, vm: int, slot: int, gfn: int, npages: int, gmem: int | None = None, index: int = 0, result: int = 0
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2 of ``npages`` gfns, backed by page indices from ``index`` on; ``npages`` 0 deletes."""
        flags = 0 if gmem is None else KVM_MEM_GUEST_MEMFD
        self.record(e.SlotSet(slot=slot, owner=vm, start=gfn, npages=npages, flags=flags, result=result))
        if gmem is not None and npages:
            self.record(e.GmemBound(owner=vm, start=gfn, npages=npages, index=index, gmem=gmem))

    # --- memory

    def pfn(self, gmem: int, index: int) -> int:
        """The pfn of a page of a guest_memfd, or the one that it will get."""
        number = sorted(self.memory.gmems).index(gmem) if gmem in self.memory.gmems else 0
        return self._pfns.get((gmem, index), FIRST_PFN * (number + 1) + index)

    def give_up(self, gmem: int, pages: Iterable[int]) -> None:
        """The host pages of pages never come back to the allocator: other ones take their place."""
        self._pfns.update({(gmem, page): next(self._spare) for page in pages})

    def allocate(self, start: int, end: int, gmem: int | None = None) -> None:
        """Fill holes with memory: an empty huge range gets a huge folio, split at once where a page of it is shared."""
        owner = self.gmem if gmem is None else gmem
        order = 0 if self.dialect in (e.Dialect.MAINLINE, e.Dialect.INPLACE, e.Dialect.NOTIFY) else self.setting.order
        backing, page = self.memory.gmems[owner].backing, start
        while page < end:
            head = page >> order << order
            stop = head + (1 << order) if order else end
            if order and all(what == HOLE for _, _, what in backing.runs(head, stop)):
                self._add(owner, head, stop, order if self.kernel().all_are(owner, head, stop, PRIVATE) else 0)
            else:
                for first, last, what in list(backing.runs(page, min(stop, end))):
                    if what == HOLE:
                        self._add(owner, first, last, 0)
            page = stop

    def _add(self, gmem: int, start: int, end: int, order: int) -> None:
        moved = {page for of, page in self._pfns if of == gmem and start <= page < end}
        if order and moved:
            self.give_up(gmem, range(start, end))  # what lacks a page is no huge page: another one takes its place
            moved = set()
        edges = {edge for page in moved for edge in (page, page + 1) if self.pfn(gmem, edge) != self.pfn(gmem, edge - 1) + 1}
        for first, last in pairwise(sorted({start, *(edge for edge in edges if start < edge < end), end})):
            self.record(e.PageAdded(owner=gmem, start=first, npages=last - first, pfn=self.pfn(gmem, first), order=order))

    # --- users

    def add_user(self, user: SimulatedUser, gmem: int | None = None) -> None:
        """A user begins to map or hold pages, of the first guest_memfd unless another is named."""
        self.users.append(user)
        if gmem is not None:
            self._gmem_of[user.name] = gmem
        for start, end in runs_of(user.pages):
            self.record_use(user, start, end)

    def record_use(self, user: SimulatedUser, start: int, end: int) -> None:
        """Record that a user maps or holds pages."""
        owner, facts = self.owner_of(user), detail(user=user.name)
        if user.kind is e.User.IOMMU:
            self.record(e.DmaMapped(owner=owner, start=start, npages=end - start, detail=facts))
        elif user.kind in (e.User.PIN, e.User.REFERENCE):
            self.record(e.Pinned(owner=owner, start=start, npages=end - start, detail=facts))
        elif user.kind is e.User.HOST and not self.in_vm:
            seen = e.FaultServed(owner=owner, access=e.Access.HOST, start=start, npages=end - start, detail=facts)
            self.record(replace(seen, pfn=self.pfn(owner, start)))
        elif user.kind is e.User.GUEST:
            for first, last, state in list(self.kernel().kinds(owner, start, end)):
                access = e.Access.GUEST_PRIVATE if state == PRIVATE else e.Access.GUEST_SHARED
                for vm, _, low, high in self.gfns(owner, first, last):
                    self.record(e.FaultServed(owner=vm, access=access, start=low, npages=high - low, detail=facts))

    def gfns(self, owner: int, start: int, end: int) -> list[tuple[int, Slot, int, int]]:
        """The guests and gfns of pages of an attribute owner, slot by slot."""
        found = self.kernel().slots(owner, start, end)
        return [
            (vm.id, slot, a, b) if vm.id == owner else (vm.id, slot, a + shift(slot), b + shift(slot))
            for vm, slot, a, b in found
        ]

    # --- conversions

    def kernel(self, owner: int | None = None) -> Kernel:
        """The host as the kernel sees it now; with ``owner`` only the users of its pages."""
        users = [user for user in self.users if owner in (None, self.vm) or self.owner_of(user) == owner]
        return Kernel(self.memory, users, self.setting, self.policy, self.faults, self.pfn)

    def convert(self, call: ConversionCall) -> Returned | None:
        """A conversion ioctl, to its end or until it is stuck; on a VM it is KVM_SET_MEMORY_ATTRIBUTES in every dialect."""
        self._known.pop(-1, None)
        function, through = CONVERT[e.Dialect.MAINLINE if call.owner in self.memory.vms else self.dialect]
        before = self._accepted(call.owner)
        returned = drive(carry_out(function, self.kernel(call.owner), call, through), self._append)
        self.emptied |= before - self._accepted(call.owner)
        self.returned.append(returned)
        return returned

    def convert_pages(
        self,
        start: int,
        end: int,
        kind: str,
        *,
        owner: int | None = None,
        thread: int = VMM,
        flags: int = 0,
        writable: bool = True,
    ) -> Returned | None:
        """A conversion of pages ``[start, end)``."""
        attributes = PRIVATE_ATTRIBUTE if kind == PRIVATE else 0
        where, address, size = self.owner if owner is None else owner, start << PAGE_SHIFT, (end - start) << PAGE_SHIFT
        return self.convert(ConversionCall(where, address, size, attributes, flags, thread=thread, writable=writable))

    def _accepted(self, owner: int) -> set[tuple[int, int]]:
        """The private pages of a TD that it has accepted; removed from the secure page tables they lose their contents."""
        if self.setting.type is not VmType.TDX:
            return set()
        runs = [(start, end) for start, end, kind in self.kernel().kinds(owner, 0, END) if kind == PRIVATE]
        guests = [user for user in self.users if user.kind is e.User.GUEST and self.owner_of(user) == owner]
        mapped = {page for user in guests for page in user.pages}
        return {(owner, page) for page in mapped if any(start <= page < end for start, end in runs)}
