"""What happens on a simulated host besides conversions: pages are accessed, released, punched out, poisoned, measured."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from gmemstate.convert.engine.ioctl import VmType
from gmemstate.convert.engine.kernel import runs_of, shift
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.steps import drive
from gmemstate.convert.engine.users import Holder
from gmemstate.convert.simulation.host import SimulatedHost, SimulatedUser
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EFAULT, EHWPOISON, EINVAL, EIO, FALLOC_FL_KEEP_SIZE, KVM_EXIT_MMIO, PRIVATE_ATTRIBUTE, PUNCH
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import HOLE, POISONED_PAGE, Slot
from gmemstate.model.units import Gfn

VCPU = 2


class Simulation(SimulatedHost):
    """A host on which things happen; each method is one of them, and says what came of it."""

    # --- somebody accesses a page

    def access(self, user: SimulatedUser, page: int, *, private: bool | None = None, accept: bool = True) -> bool:
        """A user accesses a page: it has it or faults it in, or cannot.

        A guest accesses it as ``private`` or not (None: as what it is); ``accept``: a TD accepts what it has not mapped.
        """
        if user.kind is e.User.GUEST:
            return self._guest_access(user, page, private, accept=accept)
        if user.kind is e.User.HOST and not self.in_vm:
            return self._host_access(user, page)
        if not user.access(page):
            self.record(e.DmaFaulted(owner=self.owner_of(user), start=page, npages=1, detail=detail(user=user.name)))
            return False
        self.record_use(user, page, page + 1)
        return True

    def _host_access(self, user: SimulatedUser, page: int) -> bool:
        """kvm_gmem_fault_user_mapping(): SIGBUS for what is private; for what is poisoned by the generic code."""
        owner = self.owner_of(user)
        if not self.setting.mmap:
            return False
        kind = next(self.kernel().kinds(owner, page, page + 1))[2]
        what = self.memory.gmems[owner].backing.get(page)
        if kind == PRIVATE or what == POISONED_PAGE:
            result = EHWPOISON if kind == SHARED else EFAULT
            facts = detail(user=user.name, signal="SIGBUS")
            self.record(e.FaultServed(owner=owner, access=e.Access.HOST, start=page, npages=1, result=result, detail=facts))
            return False
        if what == HOLE:
            self.allocate(page, page + 1, owner)
        if self._is_assigned(owner, page):
            self.record(e.RmpViolation(pfn=self.pfn(owner, page), owner=self.vm, detail=detail(user=user.name, page=page)))
            return False
        user.access(page)
        self.record_use(user, page, page + 1)
        return True

    def _is_assigned(self, owner: int, page: int) -> bool:
        """Whether the RMP still gives the host page of a shared page to the guest."""
        entries = self.memory.messed_up.values()
        return any(entry.cause is e.Cause.RMP_STILL_GUEST and entry.pfn == self.pfn(owner, page) for entry in entries)

    def _guest_access(self, user: SimulatedUser, page: int, private: bool | None, *, accept: bool) -> bool:
        """KVM_RUN and kvm_mmu_faultin_pfn(), up to the mapping."""
        if self.memory.vms[self.vm].gone is not None:
            self.record(e.VcpuExited(thread=VCPU, owner=self.vm, result=EIO, detail=detail(user=user.name)))
            return False
        gfn, slot = self._slot_of(user, page)
        gmem = None if slot is None else self.memory.gmems.get(slot.gmem or 0)
        index = 0 if slot is None else gfn - shift(slot)
        kind = SHARED
        if self.in_vm or (gmem is not None and not gmem.released):  # no slot, no guest_memfd, a closed one: shared
            kind = next(self.kernel().kinds(self.owner_of(user), page, page + 1))[2]
        if private is None:
            private = kind == PRIVATE
        if (kind == PRIVATE) != private:
            return self._memory_fault(user, gfn, EFAULT, private=private)
        if slot is None and not private:
            self.record(e.VcpuExited(thread=VCPU, owner=self.vm, reason=KVM_EXIT_MMIO, detail=detail(user=user.name)))
            return False
        if private or (not self.in_vm and slot is not None and slot.has_gmem):
            if error := self._no_memory(slot, index, private=private):
                return self._memory_fault(user, gfn, error, private=private)
            if private and self.setting.type is VmType.TDX and not accept and page not in user.pages:
                self.record(e.VmDead(owner=self.vm, detail=detail(user=user.name, page=page, why="access before accept")))
                return False
        user.access(page)
        access = e.Access.GUEST_PRIVATE if private else e.Access.GUEST_SHARED
        self.record(e.FaultServed(owner=self.vm, access=access, start=gfn, npages=1, detail=detail(user=user.name)))
        return True

    def _slot_of(self, user: SimulatedUser, page: int) -> tuple[int, Slot | None]:
        """The gfn of a page, and its slot. A page that no slot maps keeps its number: another slot may lie there now."""
        vm = self.memory.vms[self.vm]
        if not self.in_vm:
            for guest_id, slot, gfn, _ in self.gfns(self.owner_of(user), page, page + 1):
                if guest_id == vm.id:
                    return gfn, slot
        return page, vm.slot_of(Gfn(page))

    def _no_memory(self, slot: Slot | None, index: int, *, private: bool) -> int:
        """kvm_gmem_get_pfn(): gets the page, and what keeps the guest from it; the errno, or 0."""
        gmem = None if slot is None else self.memory.gmems.get(slot.gmem or 0)
        if slot is None or gmem is None or gmem.released:
            return EFAULT
        if gmem.backing.get(index) == POISONED_PAGE:
            return EHWPOISON
        self.allocate(index, index + 1, gmem.id)
        error = self.kernel().fails("make_private", index, index + 1) if private and self.setting.type is VmType.SNP else 0
        if error:
            gfn = index + shift(slot)
            self.record(e.PrivateMapFailed(pfn=self.pfn(gmem.id, index), owner=self.vm, start=gfn, npages=1, status=error))
        return error

    def _memory_fault(self, user: SimulatedUser, gfn: int, error: int, *, private: bool) -> bool:
        flags = PRIVATE_ATTRIBUTE if private else 0
        where = e.MemoryFaultExit(thread=VCPU, owner=self.vm, start=gfn, npages=1, flags=flags, result=error)
        self.record(replace(where, detail=detail(user=user.name)))
        return False

    def hold(self, user: Holder, start: int, end: int) -> None:
        """A user takes references to pages ``[start, end)``."""
        user.pages |= set(range(start, end))
        self.record_use(user, start, end)

    def release(self, user: Holder) -> None:
        """A user lets go of what it holds."""
        for start, end in runs_of(user.pages):
            self.record(e.Unpinned(owner=self.owner_of(user), start=start, npages=end - start, detail=detail(user=user.name)))
        user.release()

    # --- something is done to the guest_memfd

    def punch(self, start: int, end: int, gmem: int | None = None) -> None:
        """fallocate(PUNCH_HOLE) of pages ``[start, end)``: zap, truncate; attributes stay, whoever holds them (INV-26)."""
        owner = self.gmem if gmem is None else gmem
        self.record(e.InvalidateAdded(owner=owner, start=start, npages=end - start))
        if not self._zap(owner, start, end, e.User.HOST, e.User.IOMMU):
            return
        if self.setting.type is VmType.SNP:
            self._back_to_the_host(owner, start, end)
        held = {page for user in self._users(owner) if isinstance(user, Holder) for page in user.pages if start <= page < end}
        for first, last, kept in list(self._truncated(owner, start, end, held)):
            why = None if not kept else "somebody holds it" if first in held else "it can no longer be trusted"
            pfn = self.pfn(owner, first)
            self.record(e.PageFreed(owner=owner, start=first, npages=last - first, pfn=pfn, detail=detail(kept=why)))
            self.emptied |= {(self.owner if self.in_vm else owner, page) for page in range(first, last)}
        for user in self._users(owner):
            if user.kind is not e.User.GUEST and not self.in_vm:
                user.pages -= set(range(start, end))  # what it has is an orphan now, not this page
        self.record(e.Punched(mode=PUNCH, result=0, owner=owner, start=start, npages=end - start))

    def _truncated(self, owner: int, start: int, end: int, held: set[int]) -> Iterator[tuple[int, int, bool]]:
        """The pages that leave the file as runs, and whether their host pages stay out of the allocator."""
        backing = self.memory.gmems[owner].backing
        leaked = {entry.pfn for entry in self.memory.messed_up.values() if entry.cause is e.Cause.LEAKED_BY_KERNEL}
        kept = held | {page for page in range(start, end) if leaked and self.pfn(owner, page) in leaked}
        kept |= {page for a, b, what in backing.runs(start, end) if what == POISONED_PAGE for page in range(a, b)}
        if self.policy in (Policy.UNINFORMED, Policy.TRACK):  # a reference of TDX, or of guest_memfd, is never put
            kept |= set(self.kernel().messed_up(owner, start, end))
        for first, last, what in backing.runs(start, end):
            cuts = sorted({first, last, *(cut for page in kept if first <= page < last for cut in (page, page + 1))})
            if what != HOLE:
                yield from ((a, b, a in kept) for a, b in pairwise(cuts))

    def _zap(self, owner: int, start: int, end: int, *others: e.User) -> bool:
        """Guests, and others, lose what they map of a guest_memfd; a private page of a TD may stay mapped.

        On mainline a guest_memfd holds private memory only, and other memory is shared. False if somebody never answers.
        """
        kernel = self.kernel(self.vm if self.in_vm else owner)
        for where, first, last in self._attributes(owner, start, end):
            if drive(kernel.zap(where, first, last, PRIVATE if self.in_vm else None), self._outside) is None:
                return False
        if kernel.failed and self.policy is Policy.BUG_VM and self.memory.vms[self.vm].gone is None:
            self.bug_vm()
        return self.in_vm or drive(kernel.unmap(owner, start, end, *others), self._outside) is not None

    def _outside(self, event: e.Event) -> None:
        """Record what belongs to no conversion."""
        self.record(replace(event, conversion=None))  # type: ignore[call-arg]

    def _attributes(self, owner: int, start: int, end: int) -> list[tuple[int, int, int]]:
        """Where the attributes of pages of a guest_memfd are: on mainline at the gfns of its slots."""
        if not self.in_vm:
            return [(owner, start, end)]
        return [(vm.id, a + shift(slot), b + shift(slot)) for vm, slot, a, b in self.kernel().slots(owner, start, end)]

    def _back_to_the_host(self, owner: int, start: int, end: int) -> None:
        """sev_gmem_invalidate(), kvm_arch_gmem_reclaim(): RMPUPDATE of each assigned page that leaves; a failure is a WARN."""
        kernel = self.kernel()
        for page in range(start, end) if self.faults else ():
            assigned = self.in_vm or kernel.all_are(owner, page, page + 1, PRIVATE)
            if assigned and self.memory.gmems[owner].backing.get(page) != HOLE and kernel.fault("rmp_update", page, page + 1):
                pfn = self.pfn(owner, page)
                self.record(e.PrivateUnmapFailed(step=e.UnmapStep.RMPUPDATE, owner=owner, start=page, npages=1, pfn=pfn))

    def _users(self, owner: int) -> list[SimulatedUser]:
        return [user for user in self.users if self.in_vm or self.owner_of(user) == owner]

    def fallocate(self, start: int, end: int, gmem: int | None = None) -> None:
        """Holes in pages ``[start, end)`` get memory, as fallocate does without PUNCH_HOLE."""
        owner = self.gmem if gmem is None else gmem
        self.allocate(start, end, owner)
        self.record(e.Punched(mode=FALLOC_FL_KEEP_SIZE, result=0, owner=owner, start=start, npages=end - start))

    def poison(self, page: int, gmem: int | None = None) -> None:
        """memory_failure(), kvm_gmem_error_folio() of a page index: zapped, not truncated; the attribute stays."""
        owner = self.gmem if gmem is None else gmem
        head, order = next(iter(self.kernel().folios(owner, page, page + 1)), (page, 0))
        if not self._zap(owner, head, head + (1 << order), e.User.HOST, e.User.IOMMU):
            return
        self.record(e.Poisoned(owner=owner, start=page, npages=1, pfn=self.pfn(owner, page)))

    def close_gmem(self, gmem: int | None = None) -> None:
        """kvm_gmem_release(): everything is zapped, the slots are detached; pages live as long as the inode."""
        owner = self.gmem if gmem is None else gmem
        if self._zap(owner, 0, self.memory.gmems[owner].npages or 0):
            self.record(e.GmemReleased(owner=owner))

    def delete_slot(self, vm: int, slot: int) -> None:
        """kvm_arch_flush_shadow_memslot(): the guest loses what it maps there; attributes and memory stay."""
        old = self.memory.vms[vm].slots[slot]
        owner, start = (vm, old.start) if self.in_vm or old.gmem is None else (old.gmem, old.index or 0)
        drive(self.kernel(owner).unmap(owner, start, start + old.npages, e.User.GUEST, slot=old), self._outside)
        self.set_slot(vm, slot, old.start, 0)

    def populate(self, start: int, end: int, gmem: int | None = None) -> int:
        """SNP_LAUNCH_UPDATE, KVM_TDX_INIT_MEM_REGION: what private pages hold is measured; the errno.

        No source is given, so that the pages keep what was written to them while they were shared (__kvm_gmem_populate()).
        """
        owner = self.gmem if gmem is None else gmem
        if not self.kernel().all_are(self.vm if self.in_vm else owner, start, end, PRIVATE):
            self.record(e.VmmSaid(owner=self.vm, result=EINVAL, detail=detail(text="populate: a page is not private")))
            return EINVAL
        self.allocate(start, end, owner)
        kernel, error = self.kernel(), 0
        if self.setting.type is VmType.SNP:
            refused = ((page, fault) for page in range(start, end) if (fault := kernel.fault("launch_update", page, page + 1)))
            end, error = next(((page, fault.errno) for page, fault in refused), (end, 0))
        for vm, slot, first, last in self.gfns(self.vm if self.in_vm else owner, start, end):
            pfn = self.pfn(owner, first - shift(slot))
            self.record(e.PrivateMapped(pfn=pfn, owner=vm, start=first, npages=last - first))
        if error:
            self._reclaim(owner, end)
            self.record(
                e.VmmSaid(owner=self.vm, result=error, detail=detail(text=f"populate: the firmware refuses page {end}"))
            )
        return error

    def _reclaim(self, owner: int, page: int) -> None:
        """snp_page_reclaim() of a page that the firmware was handed: one that it keeps is leaked, and the VM is bugged."""
        if self.kernel().fault("reclaim", page, page + 1):
            self.bug_vm()
            self.record(e.PageLeaked(pfn=self.pfn(owner, page), npages=1, owner=self.vm))

    # --- a guest ends

    def bug_vm(self) -> None:
        """kvm_vm_bugged()."""
        self.record(e.VmBugged(owner=self.vm))
