"""A simulated host: one guest, its memory, the users of its pages, and the record of everything that they do."""

import errno as errnos
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gmemstate.convert.dialects import CONVERT, SOURCES
from gmemstate.convert.engine import Call, Fault, Kernel, Setting, Told, VmType, carry_out, drive, runs_of
from gmemstate.convert.policies import DIALECT_NAMES, Policy
from gmemstate.convert.users import Holder, PageUser
from gmemstate.model.events import (
    Access,
    Capability,
    Dialect,
    DmaFaulted,
    DmaMapped,
    Event,
    EventRow,
    FaultServed,
    GmemBound,
    GmemCreated,
    GmemReleased,
    GmemUnbound,
    InvalidateAdded,
    MemoryFaultExit,
    PageAdded,
    PageFreed,
    Pinned,
    Poisoned,
    PrivateUnmapFailed,
    Punched,
    SlotSet,
    SourceOpened,
    SourceRead,
    SourceShows,
    UnmapStep,
    Unpinned,
    User,
    UserAnswered,
    VmBugged,
    VmCreated,
    VmDead,
    VmSeen,
    detail,
)
from gmemstate.model.fold.pages import EHWPOISON
from gmemstate.model.machines import PRIVATE, SHARED
from gmemstate.model.memory import Memory
from gmemstate.model.objects import GUEST_MEMFD_FLAG_INIT_SHARED, HOLE, KVM_MEM_GUEST_MEMFD, POISONED_PAGE
from gmemstate.model.record import resolve
from gmemstate.model.units import PAGE_SHIFT
from gmemstate.model.units import PRIVATE as PRIVATE_ATTRIBUTE

VMM = 1
"""The thread that converts, unless a guest has asked for it."""
TURN = 1_000
"""ns between two events of a simulation: it has no clock, only an order."""

SOURCE, FIRST_REFERENCE = -10, -100
FIRST_PFN = 0x100000
PUNCH_HOLE = 3


@dataclass
class Simulation:
    """One guest under one dialect and one policy; each method is something that happens to it.

    ``rows`` is the record, ``memory`` its fold. Pages are indices of the guest_memfd ``gmem``; the guest ``vm`` sees them
    through its memslots.
    """

    dialect: Dialect
    policy: Policy = Policy.BUG_VM
    setting: Setting = field(default_factory=Setting)
    faults: Sequence[Fault] = ()
    users: list[PageUser] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    rows: list[EventRow] = field(default_factory=list)
    told: list[Told | None] = field(default_factory=list)
    """what each conversion returned; None: it never did"""
    vm: int = 0
    gmem: int = 0
    _known: dict[int, int] = field(default_factory=dict)
    _reference: int = FIRST_REFERENCE

    # --- recording

    def record(self, event: Event) -> int:
        """Append an event; its seq."""
        seq = len(self.rows) + 1
        (numbered,), new = resolve([replace(event, source=SOURCE, t=seq * TURN).row()], seq, self._known)
        self._known.update(new)
        self.rows.append(numbered)
        self.memory.apply(numbered)
        return seq

    def _append(self, event: Event) -> None:
        self.record(event)

    def reference(self) -> int:
        """A fresh name for something that has no seq yet."""
        self._reference -= 1
        return self._reference

    @property
    def in_vm(self) -> bool:
        """Whether the attribute lives in the VM."""
        return self.dialect is Dialect.MAINLINE

    @property
    def space(self) -> int:
        """Where the attribute lives."""
        return self.vm if self.in_vm else self.gmem

    # --- birth

    def open(self, name: str) -> None:
        """Begin the record: a source that shows everything."""
        names = {dialect: text for text, dialect in DIALECT_NAMES.items()}
        self.record(SourceOpened(detail=detail(
            name=name, format="simulation", dialect=names[self.dialect], follows=SOURCES[self.dialect], policy=self.policy.value,
        )))  # fmt: skip
        for capability in Capability:
            self.record(SourceShows(capability=capability))

    def close_record(self) -> None:
        """End the record: nothing is missing from it."""
        self.record(SourceRead(offset=len(self.rows), detail=detail(lines=0, used=0, unparsed=0)))

    def make_vm(self) -> int:
        """KVM_CREATE_VM."""
        vm = self.record(VmSeen(space=self.reference(), made=1))
        self.record(VmCreated(space=vm, dialect=self.dialect))
        return vm

    def make_gmem(self, vm: int, npages: int, *, shared: bool) -> int:
        """KVM_CREATE_GUEST_MEMFD."""
        flags = GUEST_MEMFD_FLAG_INIT_SHARED if shared and not self.in_vm else 0
        return self.record(GmemCreated(space=self.reference(), vm=vm, npages=npages, flags=flags, result=0))

    def set_slot(
        self, vm: int, slot: int, gfn: int, npages: int, gmem: int | None = None, index: int = 0, result: int = 0
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2; ``npages`` 0 deletes."""
        old = self.memory.vms[vm].slots.get(slot)
        if old is not None and old.gmem is not None and not npages:
            self.record(GmemUnbound(space=vm, start=old.start, npages=old.npages, index=old.index))
        flags = 0 if gmem is None else KVM_MEM_GUEST_MEMFD
        self.record(SlotSet(slot=slot, space=vm, start=gfn, npages=npages, flags=flags, result=result))
        if gmem is not None and npages:
            self.record(GmemBound(space=vm, start=gfn, npages=npages, index=index, gmem=gmem))

    def allocate(self, start: int, end: int) -> None:
        """Fault memory in: a huge folio where its whole range is private, small ones elsewhere."""
        order = 0 if self.dialect in (Dialect.MAINLINE, Dialect.INPLACE) else self.setting.order
        page = start
        while page < end:
            size = 1 << order
            whole = page % size == 0 and page + size <= end
            if order and whole and self.kernel().all_are(self.gmem, page, page + size, PRIVATE):
                self.record(PageAdded(space=self.gmem, start=page, npages=size, pfn=FIRST_PFN + page, order=order))
                page += size
                continue
            stop = end if not order else min(end, (page // size + 1) * size)
            self.record(PageAdded(space=self.gmem, start=page, npages=stop - page, pfn=FIRST_PFN + page))
            page = stop

    def add_user(self, user: PageUser) -> None:
        """A user begins to map or hold pages."""
        self.users.append(user)
        for start, end in runs_of(getattr(user, "pages", ())):
            self._record_use(user, start, end)

    def _record_use(self, user: PageUser, start: int, end: int) -> None:
        facts = {"start": start, "npages": end - start, "detail": detail(user=user.name)}
        if user.kind is User.IOMMU:
            self.record(DmaMapped(space=self.space, **facts))  # type: ignore[arg-type]
        elif user.kind in (User.PIN, User.REFERENCE):
            self.record(Pinned(space=self.space, **facts))  # type: ignore[arg-type]
        elif user.kind is User.HOST and not self.in_vm:
            self.record(FaultServed(space=self.gmem, access=Access.HOST, **facts))  # type: ignore[arg-type]
        elif user.kind is User.GUEST:
            for first, last, state in list(self.kernel().kinds(self.space, start, end)):
                access = Access.GUEST_PRIVATE if state == PRIVATE else Access.GUEST_SHARED
                for _, slot, low, high in list(self.kernel().slots(self.gmem, first, last)):
                    gfn = low - (slot.index or 0) + slot.start
                    self.record(FaultServed(space=self.vm, access=access, start=gfn, npages=high - low, detail=facts["detail"]))  # type: ignore[arg-type]

    # --- what happens

    def kernel(self) -> Kernel:
        """The host as the kernel sees it now."""
        return Kernel(self.memory, self.users, self.setting, self.policy, self.faults)

    def convert(self, call: Call) -> Told | None:
        """A conversion ioctl, to its end or until it is stuck."""
        self._known.pop(-1, None)
        function, through = CONVERT[self.dialect]
        told = drive(carry_out(function, self.kernel(), call, through), self._append)
        self.told.append(told)
        return told

    def convert_pages(self, start: int, end: int, kind: str, **how: object) -> Told | None:
        """A conversion of pages ``[start, end)``."""
        attributes = PRIVATE_ATTRIBUTE if kind == PRIVATE else 0
        return self.convert(
            Call(self.space, start << PAGE_SHIFT, (end - start) << PAGE_SHIFT, attributes, **{"thread": VMM, **how})  # type: ignore[arg-type]
        )

    def touch(self, user: PageUser, page: int, *, private: bool = False) -> bool:
        """A user accesses a page: it faults it in, or cannot."""
        kind = next(self.kernel().kinds(self.space, page, page + 1))[2]
        poisoned = self.memory.gmems[self.gmem].backing.get(page) == POISONED_PAGE
        if user.kind is User.GUEST:
            return self._guest_touches(user, page, kind, private=private, poisoned=poisoned)
        if user.kind is User.HOST and not self.in_vm and (kind == PRIVATE or poisoned):
            result = EHWPOISON if poisoned and kind == SHARED else errnos.EFAULT
            self.record(FaultServed(space=self.gmem, access=Access.HOST, start=page, npages=1, result=result,
                                    detail=detail(user=user.name, signal="SIGBUS")))  # fmt: skip
            return False
        if not user.touch(page):
            self.record(DmaFaulted(space=self.space, start=page, npages=1, detail=detail(user=user.name)))
            return False
        self._record_use(user, page, page + 1)
        return True

    def _guest_touches(self, user: PageUser, page: int, kind: str, *, private: bool, poisoned: bool) -> bool:
        """kvm_mmu_faultin_pfn(): a KVM_EXIT_MEMORY_FAULT where the kind is another, the page poisoned or not there."""
        slot = next((found for found in self.kernel().slots(self.gmem, page, page + 1)), None)
        closed = self.memory.gmems[self.gmem].released
        gfn = page if slot is None else page - (slot[1].index or 0) + slot[1].start
        if slot is None or closed or poisoned or (kind == PRIVATE) != private:
            self.record(MemoryFaultExit(
                thread=0, space=self.vm, start=gfn, npages=1, flags=PRIVATE_ATTRIBUTE if private else 0,
                result=EHWPOISON if poisoned and not closed else errnos.EFAULT, detail=detail(user=user.name),
            ))  # fmt: skip
            return False
        if self.memory.gmems[self.gmem].backing.get(page) == HOLE and (private or not self.in_vm):
            self.allocate(page, page + 1)
        user.touch(page)
        access = Access.GUEST_PRIVATE if private else Access.GUEST_SHARED
        self.record(FaultServed(space=self.vm, access=access, start=gfn, npages=1, detail=detail(user=user.name)))
        return True

    def release(self, user: Holder) -> None:
        """A user lets go of what it holds."""
        for start, end in runs_of(user.pages):
            self.record(Unpinned(space=self.space, start=start, npages=end - start, detail=detail(user=user.name)))
        user.release()

    def punch(self, start: int, end: int) -> None:
        """fallocate(PUNCH_HOLE): zap, truncate; no attribute changes, references are not looked at (INV-26)."""
        self.record(InvalidateAdded(space=self.gmem, start=start, npages=end - start))
        for user in self.users:
            if user.kind in (User.GUEST, User.HOST) and not (self.in_vm and user.kind is User.HOST):
                self._unmapped(user, start, end)
            if isinstance(user, Holder):
                user.pages -= set(range(start, end))  # what it holds is an orphan page now, not this one
        if self.setting.type is VmType.SNP:
            for fault in self.faults:
                while fault.strikes("rmp_update", start, end):
                    page = start if fault.page is None else fault.page
                    self.record(PrivateUnmapFailed(step=UnmapStep.RMPUPDATE, space=self.gmem, start=page, npages=1))
        if self.setting.type is VmType.TDX:
            for fault in self.faults:
                while fault.strikes("private_unmap", start, end):
                    page = start if fault.page is None else fault.page
                    self.record(PrivateUnmapFailed(step=fault.step, space=self.gmem, start=page, npages=1))
        self.record(Punched(mode=PUNCH_HOLE, result=0, space=self.gmem, start=start, npages=end - start))
        kept = {entry.index for entry in self.memory.messed_up.values()} if self.policy is Policy.TRACK else set()
        for head, last, backing in list(self.memory.gmems[self.gmem].backing.runs(start, end)):
            if backing != HOLE:
                leaked = sorted(page for page in kept if page is not None and head <= page < last)
                self.record(PageFreed(space=self.gmem, start=head, npages=last - head, pfn=FIRST_PFN + head,
                                      detail=detail(kept=leaked or None)))  # fmt: skip

    def _unmapped(self, user: PageUser, start: int, end: int) -> None:
        answer = user.unmap(start, end, ask=False)
        if user.kind is User.GUEST:
            for vm, slot, first, last in list(self.kernel().slots(self.gmem, start, end)):
                gfn = first - (slot.index or 0) + slot.start
                self.record(UserAnswered(user=user.kind, space=vm.id, start=gfn, npages=last - first, result=answer.result,
                                         entries=answer.entries, detail=detail(user=user.name)))  # fmt: skip
            return
        self.record(UserAnswered(user=user.kind, space=self.gmem, start=start, npages=end - start, result=answer.result,
                                 entries=answer.entries, detail=detail(user=user.name)))  # fmt: skip

    def poison(self, page: int) -> None:
        """memory_failure(), kvm_gmem_error_folio(): zapped, not truncated; the attribute stays."""
        for user in self.users:
            if user.kind in (User.GUEST, User.HOST):
                self._unmapped(user, page, page + 1)
        self.record(Poisoned(space=self.gmem, start=page, npages=1, pfn=FIRST_PFN + page))

    def close_gmem(self) -> None:
        """kvm_gmem_release(): everything is zapped, the slots are detached; pages live as long as the inode."""
        for user in self.users:
            if user.kind is User.GUEST:
                self._unmapped(user, 0, self.memory.gmems[self.gmem].npages or 0)
        self.record(GmemReleased(space=self.gmem))

    def bug_vm(self) -> None:
        """kvm_vm_bugged()."""
        self.record(VmBugged(space=self.vm))

    def kill_vm(self) -> None:
        """kvm_vm_dead(): the guest's own fault, like an access before it accepted a page."""
        self.record(VmDead(space=self.vm))
