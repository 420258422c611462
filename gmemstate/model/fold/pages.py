"""Faults, backing pages, poison, and what makes a host page messed up."""

from collections.abc import Container
from typing import cast

from gmemstate.model import events as e
from gmemstate.model.events import ACTOR, CONVERSION, DETAIL, LINE, NPAGES, OWNER, RESULT, SOURCE, START, VALUE, T
from gmemstate.model.linux import EFAULT, EHWPOISON, FALLOC_FL_PUNCH_HOLE, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.memory import Memory
from gmemstate.model.objects import HOLE, MAPPED, POISONED_PAGE, PRESENT, UNMAPPED, FaultClass, FaultExit, MessedUp
from gmemstate.model.units import END, Gfn, PageIndex, Pfn


def fault_served(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R2: the kind of an access that was served is the kind of the page; and the toucher maps it now."""
    owner, start, access = row[OWNER], row[START], row[ACTOR]
    if owner is None or start is None or row[RESULT]:
        return
    end = start + (row[NPAGES] or 1)
    user = e.User.HOST if access == e.Access.HOST else e.User.GUEST
    memory.map_pages(owner, user, start, end, MAPPED)
    if access == e.Access.HOST:
        _look_for_reuse(memory, seq, row, tuple(set(_LEFT_BY.values())))
        if (gmem := memory.gmems.get(owner)) and gmem.inplace:
            memory.step(owner, "seen_shared", start, end, seq)
        memory.back(owner, start, end, PRESENT)
        return
    if access == e.Access.GUEST_PRIVATE:
        memory.step(owner, "seen_private", start, end, seq)
    elif access == e.Access.GUEST_SHARED:
        memory.step(owner, "seen_shared", start, end, seq)
    for gmem_id, first, last, _ in memory.indices(owner, start, end):
        gmem = memory.gmems[gmem_id]
        if gmem.inplace or access == e.Access.GUEST_PRIVATE:
            memory.back(gmem_id, first, last, PRESENT)


def memory_fault_exit(memory: Memory, seq: int, row: e.EventRow) -> None:
    """KVM_RUN returned KVM_EXIT_MEMORY_FAULT (kvm_mmu_prepare_memory_fault_exit); it is kept with its class."""
    fault = FaultExit(
        seq, row[SOURCE], row[OWNER], row[ACTOR] or 0, row[START], row[NPAGES],
        None if row[VALUE] is None else bool(row[VALUE] & PRIVATE_ATTRIBUTE),
        row[RESULT] or 0, FaultClass.UNKNOWN, row[T], row[LINE], row[CONVERSION],
    )  # fmt: skip
    fault.kind = _classify(memory, fault)
    memory.faults.append(fault)
    memory.exits[(row[SOURCE], fault.thread)] = fault


def _classify(memory: Memory, fault: FaultExit) -> FaultClass:
    """What the exit was about (kvm_mmu_faultin_pfn and its callers); unknown where the record does not decide."""
    if fault.result == EHWPOISON:
        return FaultClass.POISONED
    if fault.result != EFAULT:
        return FaultClass.MAP_FAILED
    if fault.raced is not None:
        return FaultClass.LOST_RACE
    vm = memory.vms.get(fault.owner or 0)
    if vm is None or fault.start is None:
        return FaultClass.UNKNOWN
    slot = vm.slot_of(Gfn(fault.start))
    if slot is None:
        known = memory.slots_known(vm) or _saw_deletion(vm.ghosts, fault.start)
        return FaultClass.UNBACKED if known else FaultClass.UNKNOWN
    gmem = memory.gmems.get(slot.gmem or 0)
    if (fault.private and slot.has_gmem is False) or (gmem is not None and gmem.released):
        return FaultClass.UNBACKED
    if gmem is not None and gmem.inplace and not fault.private:
        return FaultClass.UNKNOWN  # a closed file counts as shared, and nobody may have seen it closed
    state = memory.attribute(vm.id, Gfn(fault.start))
    if fault.private is not None and state in (SHARED, PRIVATE) and (state == PRIVATE) != fault.private:
        return FaultClass.MISMATCH
    return FaultClass.UNKNOWN


def _saw_deletion(ghosts: list, gfn: int) -> bool:  # type: ignore[type-arg]
    return any(ghost.start <= gfn < ghost.end for ghost in ghosts)


def punched(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R20: a punch frees pages and changes no attribute (INV-26)."""
    owner, start = row[OWNER], row[START]
    if owner is None or start is None or row[RESULT]:
        return
    end = END if row[NPAGES] is None else start + row[NPAGES]
    if (row[VALUE] or 0) & FALLOC_FL_PUNCH_HOLE:
        memory.back(owner, start, end, HOLE)
    else:
        memory.back(owner, start, end, PRESENT)
    memory.keep(owner, "backing_changed", start, end, seq)


def pfn_in(row: e.EventRow) -> Pfn | None:
    """The host page that an event names as its value."""
    return cast("Pfn | None", row[VALUE])


def gfn_in(row: e.EventRow) -> Gfn | None:
    """The page that an event of a guest is about."""
    return cast("Gfn | None", row[START])


def index_in(row: e.EventRow) -> PageIndex | None:
    """The page that an event of a guest_memfd is about."""
    return cast("PageIndex | None", row[START])


def poisoned(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A page has a hardware memory error (memory_failure, kvm_gmem_error_folio)."""
    owner, start = row[OWNER], row[START]
    if owner is not None and start is not None:
        memory.back(owner, start, start + (row[NPAGES] or 1), POISONED_PAGE)
        memory.keep(owner, "backing_changed", start, start + (row[NPAGES] or 1), seq)
    place = memory.place(owner, index_in(row))
    key = next(
        (
            entry.id
            for entry in memory.messed_up.values()
            if entry.cause is e.Cause.POISONED and _same_page(entry, owner, start, row[VALUE])
        ),
        None,
    )
    if key is not None:
        entry = memory.messed_up[key]
        entry.pfn = entry.pfn if entry.pfn is not None else pfn_in(row)
        entry.index = entry.index if entry.index is not None else index_in(row)
        entry.gmem = entry.gmem if entry.gmem is not None else owner
        entry.vm, entry.gfn = (entry.vm, entry.gfn) if entry.gfn is not None else place
        memory.mark(entry, "marked", seq)
        _join(memory, entry, seq)
        return
    count = 1 if owner is not None else row[NPAGES] or 1  # a run of host pages that no file is known of
    entry = MessedUp(
        seq,
        e.Cause.POISONED,
        "trusted",
        pfn_in(row),
        count,
        place[0],
        owner,
        index_in(row),
        place[1],
        row[T],
        detail=row[DETAIL],
        source=row[SOURCE],
    )
    memory.mark(entry, "marked", seq)


def _join(memory: Memory, entry: MessedUp, seq: int) -> None:
    """One page has one entry: a log names it by its pfn, a trace by its index, and a line that has both tells that."""
    for other in memory.messed_up.values():
        alike = (other.cause, other.gmem, other.index) == (entry.cause, entry.gmem, entry.index)
        if other is not entry and alike and other.pfn is None and entry.index is not None and other.state != "cleared":
            memory.mark(other, "joined", seq)


def _same_page(entry: MessedUp, gmem: int | None, index: int | None, pfn: int | None) -> bool:
    if pfn is not None and entry.pfn is not None:
        return pfn == entry.pfn
    return index is not None and (entry.gmem, entry.index) == (gmem, index)


def private_mapped(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A page is mapped as private: RMPUPDATE on SNP, TDH.MEM.PAGE.ADD or AUG on TDX."""
    _look_for_reuse(memory, seq, row, tuple(e.Cause))


def _look_for_reuse(memory: Memory, seq: int, row: e.EventRow, causes: Container[e.Cause]) -> None:
    """INV-22: a messed-up page must not back another user. The pfn of a run is that of its first page."""
    first = row[VALUE]
    if not memory.messed_up or first is None:
        return
    for entry in list(memory.messed_up.values()):
        if entry.pfn is None or entry.cause not in causes or entry.state not in ("messed_up", "reused"):
            continue
        if first <= entry.pfn < first + (row[NPAGES] or 1):
            memory.mark(entry, "seen_reused", seq)
            memory.find("PFN-REUSED", seq, f"host page {entry.pfn:#x} was given away", row[OWNER], row[START])


def private_map_failed(memory: Memory, seq: int, row: e.EventRow) -> None:
    """rmp_make_private() or TDH.MEM.PAGE.AUG failed: nobody can say whose the host page is."""
    entry = MessedUp(
        seq,
        e.Cause.UNUSABLE_PRIVATE,
        "trusted",
        pfn_in(row),
        1,
        row[OWNER],
        since=row[T],
        gfn=gfn_in(row),
        detail=row[DETAIL],
        source=row[SOURCE],
    )
    memory.mark(entry, "marked", seq)


_LEFT_BY = {
    e.UnmapStep.BLOCK: e.Cause.SEPT_STILL_MAPS,
    e.UnmapStep.TRACK: e.Cause.UNTRACKED,
    e.UnmapStep.REMOVE: e.Cause.SEPT_STILL_MAPS,
    e.UnmapStep.WBINVD: e.Cause.UNFLUSHED,
    e.UnmapStep.RMPUPDATE: e.Cause.RMP_STILL_GUEST,
    e.UnmapStep.PSMASH: e.Cause.UNSPLIT,
}
"""What each step of a private unmap leaves when it fails (tdx_sept_remove_leaf_spte(), sev_gmem_invalidate()).

tdx_track() returns nothing: the removal goes on, and what becomes of it is silent, as the VM is bugged by then.
"""


def private_unmap_failed(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R5, C11: the conversion goes on, the page is messed up, and the kernel keeps no record of it."""
    step = e.UnmapStep(row[ACTOR] or 0)
    cause = _LEFT_BY[step]
    count = 1 if row[VALUE] is not None or row[NPAGES] else None
    entry = MessedUp(
        seq,
        cause,
        "trusted",
        pfn_in(row),
        count,
        row[OWNER],
        gfn=gfn_in(row),
        since=row[T],
        detail=row[DETAIL],
        source=row[SOURCE],
    )
    if row[OWNER] in memory.gmems:
        entry.gmem, entry.index = row[OWNER], index_in(row)
        entry.vm, entry.gfn = memory.place(entry.gmem, entry.index)
    memory.mark(entry, "marked", seq)
    if row[OWNER] is not None and row[START] is not None:
        memory.keep(row[OWNER], "private_unmap_failed", row[START], row[START] + (row[NPAGES] or 1), seq)
    if conversion := memory.conversions.get(row[CONVERSION] or 0):
        conversion.suspects += row[NPAGES] or 1
        memory.move(conversion, "suspect", seq)


def page_leaked(memory: Memory, seq: int, row: e.EventRow) -> None:
    """snp_leak_pages(), or a TDX page that was not given back: the host never uses it again."""
    entry = MessedUp(
        seq,
        e.Cause.LEAKED_BY_KERNEL,
        "trusted",
        Pfn(row[START] or 0),
        row[NPAGES],
        row[OWNER],
        since=row[T],
        detail=row[DETAIL],
        source=row[SOURCE],
    )
    memory.mark(entry, "marked", seq)


def reclaim_failed(memory: Memory, seq: int, row: e.EventRow) -> None:
    """TDH.PHYMEM.PAGE.RECLAIM failed: the page still belongs to the module (tdx_reclaim_page)."""
    count = 1 if row[VALUE] is not None else None
    entry = MessedUp(
        seq,
        e.Cause.RECLAIM_REFUSED,
        "trusted",
        pfn_in(row),
        count,
        row[OWNER],
        since=row[T],
        detail=row[DETAIL],
        source=row[SOURCE],
    )
    memory.mark(entry, "marked", seq)


def page_added(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A page is in the file (kvm_gmem_get_folio, fallocate)."""
    owner, start = row[OWNER], row[START]
    if owner is not None and start is not None:
        end = start + (row[NPAGES] or 1)
        memory.back(owner, start, end, PRESENT)
        if owner in memory.gmems:
            memory.gmems[owner].orders.set(start, end, (row[ACTOR] or 0) & 63)
    private_mapped(memory, seq, row)


def dma_mapped(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A device maps pages (VFIO_IOMMU_MAP_DMA, IOMMU_IOAS_MAP)."""
    _hold(memory, row, e.User.IOMMU, MAPPED)


def dma_unmapped(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A device maps pages no longer."""
    _hold(memory, row, e.User.IOMMU, UNMAPPED)


def pinned(memory: Memory, seq: int, row: e.EventRow) -> None:
    """Somebody holds a reference on pages (pin_user_pages)."""
    _hold(memory, row, e.User.PIN, MAPPED)


def unpinned(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A reference on pages is dropped."""
    _hold(memory, row, e.User.PIN, UNMAPPED)


def _hold(memory: Memory, row: e.EventRow, user: e.User, mapped: int) -> None:
    if row[OWNER] is not None and row[START] is not None and not row[RESULT]:
        memory.map_pages(row[OWNER], user, row[START], row[START] + (row[NPAGES] or 1), mapped)


def page_freed(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A page has left the file (kvm_gmem_free_folio)."""
    if row[OWNER] is not None and row[START] is not None:
        memory.back(row[OWNER], row[START], row[START] + (row[NPAGES] or 1), HOLE)
        memory.keep(row[OWNER], "backing_changed", row[START], row[START] + (row[NPAGES] or 1), seq)


HANDLERS = {
    e.FaultServed.code: fault_served,
    e.MemoryFaultExit.code: memory_fault_exit,
    e.Punched.code: punched,
    e.Poisoned.code: poisoned,
    e.PrivateMapped.code: private_mapped,
    e.PrivateMapFailed.code: private_map_failed,
    e.PrivateUnmapFailed.code: private_unmap_failed,
    e.PageLeaked.code: page_leaked,
    e.ReclaimFailed.code: reclaim_failed,
    e.PageAdded.code: page_added,
    e.PageFreed.code: page_freed,
    e.DmaMapped.code: dma_mapped,
    e.DmaUnmapped.code: dma_unmapped,
    e.Pinned.code: pinned,
    e.Unpinned.code: unpinned,
}
