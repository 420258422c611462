"""Facts about single pages: faults and unmaps. Consecutive ones become one event (a run)."""

from gmemstate.ingest.correlate.memslots import link
from gmemstate.ingest.correlate.trackees import Overlay, PageRun, Thread, VmState
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import (
    EACCES,
    EHWPOISON,
    PAGE_SHIFT,
    PFN_ERROR,
    SPTE_HUGE,
    SPTE_MMU_PRESENT,
    SPTE_PFN,
    VM_FAULT_HWPOISON,
    VM_FAULT_SIGBUS,
)

RUNS = 32
"""How many runs of pages that a large entry has replaced are named."""


@handles("page_fault")
def page_fault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_page_fault of the fault handlers of VMX and SVM: at which gfn the guest faulted."""
    thread.fault = fact.args["address"] >> PAGE_SHIFT
    return False


@handles("gmem_get_pfn")
def gmem_get_pfn(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_gmem_get_pfn(): guest_memfd gives a page; on mainline for private faults alone, unless it can be mapped."""
    args = fact.args
    vm = tracker.vm(args["kvm"], thread)
    private = vm.dialect is e.Dialect.MAINLINE and vm.gmems > 0 and not vm.mmap and vm.born_here
    access = e.Access.GUEST_PRIVATE if private else e.Access.GUEST
    if args["ret"]:
        tracker.emit(e.FaultServed(access=access, owner=vm.handle, start=args["gfn"], npages=1, result=-args["ret"]))
        return True
    pfn = args.get("pfn")
    _served(tracker, thread, vm.handle, access, args["gfn"], 1, None if pfn is None or pfn >= PFN_ERROR else pfn)
    return True


def _served(
    tracker: Tracker, thread: Thread, owner: int | None, access: e.Access, gfn: int, npages: int, pfn: int | None
) -> None:
    for other in (e.Access.GUEST, e.Access.GUEST_PRIVATE):
        run = thread.runs.get(other.name)
        if other is not access and run is not None and run.start <= gfn < run.end:
            access = other  # the entry of a page that guest_memfd has just given

    def make(run: PageRun) -> e.Event:
        lost = thread.over.take(run.start, run.end) if thread.over is not None else []
        named = [[hex(first), hex(end)] for first, end in lost[:RUNS]]
        pages = sum(end - first for first, end in lost)
        return e.FaultServed(
            access=access,
            owner=owner,
            start=run.start,
            npages=run.npages,
            pfn=run.pfn,
            detail=run.detail(replaced=named or None, replaced_pages=pages or None),
        )

    tracker.extend(thread, "fault", access.name, gfn, make, npages, pfn)


@handles("spte")
def spte(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """__handle_changed_spte(): an entry of the guest's page tables comes or goes; one table holds private and shared alike."""
    level, old, new = fact.args["level"], fact.args["old"], fact.args["new"]
    npages = 1 << 9 * (level - 1)
    was, now = _leaf(old, level), _leaf(new, level)
    if was and not now:
        if thread.over is not None:
            _lost_below(thread.over, fact.args["gfn"], npages, (old & SPTE_PFN) >> PAGE_SHIFT)
        count, first, _ = thread.zap or (0, fact.line, fact.line)
        thread.zap = (count + npages, first, fact.line)
        return True
    if not now:
        return False
    gfn, pfn = fact.args["gfn"], (new & SPTE_PFN) >> PAGE_SHIFT
    if level > 1 and old & SPTE_MMU_PRESENT and not was:
        thread.over = Overlay(gfn, gfn + npages, pfn)
    _served(tracker, thread, tracker.owner_of(thread), e.Access.GUEST, gfn, npages, pfn)
    return True


def _lost_below(over: Overlay, gfn: int, npages: int, pfn: int) -> None:
    """A small entry goes as a large one was put over it: if that leads to another host page, the guest finds other contents."""
    if not over.start <= gfn < over.end or pfn == over.pfn + gfn - over.start:
        return
    if over.lost and over.lost[-1][1] == gfn:
        over.lost[-1][1] = gfn + npages
    else:
        over.lost.append([gfn, gfn + npages])


@handles("set_spte")
def set_spte(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """mmu_set_spte(), the same entry as the fault path shows it; where both are traced, one run holds it once."""
    level, new = fact.args["level"], fact.args["new"]
    if not _leaf(new, level):
        return False
    npages, pfn = 1 << 9 * (level - 1), (new & SPTE_PFN) >> PAGE_SHIFT
    _served(tracker, thread, tracker.owner_of(thread), e.Access.GUEST, fact.args["gfn"] & -npages, npages, pfn)
    return True


def _leaf(entry: int, level: int) -> bool:
    return bool(entry & SPTE_MMU_PRESENT) and (level == 1 or bool(entry & SPTE_HUGE))


@handles("unmap_gfn")
def unmap_gfn(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_unmap_gfn_range(): the guest's page tables lose a range, by a conversion, a punch, or the mmu notifier."""
    args = fact.args
    vm = tracker.vm(args["kvm"], thread)
    zap, thread.zap = thread.zap, None
    entries = zap[0] if zap else (0 if tracker.whole and e.Capability.GUEST_ENTRIES in vm.shown else None)
    first = zap[1] if zap else fact.line
    call = thread.call
    start, end = args.get("start"), args.get("end")
    if start is None or end is None:
        if call is None or call.start is None or call.npages is None or call.gmem is not None:
            return False
        start, end = call.start, call.start + call.npages
    if thread.bracket is not None and "slot" in args and "mmu_notifier" not in fact.text:
        index = _first_index(vm, args["slot"], start, thread.bracket[0])
        thread.bracket[2].append((vm.handle, args["slot"], start, index))
        if thread.file is not None:
            link(tracker, thread, thread.file)
    if call is not None:
        tracker.emit(
            e.UserAnswered(
                user=e.User.GUEST,
                conversion=call.handle,
                owner=vm.handle,
                start=start,
                npages=end - start,
                result=0,
                entries=entries,
                t=fact.t,
                line=first,
                detail=detail(flush=args.get("flush"), last=fact.line if first != fact.line else None),
            )
        )
        return True
    _unmapped(tracker, fact, thread, vm, start, end, entries)
    return True


def _first_index(vm: VmState, slot: int, gfn: int, index: int) -> int:
    """The page index of the first gfn that was unmapped: the invalidation is clipped to the slot."""
    known = vm.slots.get(slot)
    if known is None or known.index is None:
        return index
    return max(index, known.index) if gfn == known.start else index


def _unmapped(tracker: Tracker, fact: Fact, thread: Thread, vm: VmState, start: int, end: int, entries: int | None) -> None:
    owner = vm.handle

    def make(run: PageRun) -> e.Event:
        return e.UserAnswered(
            user=e.User.GUEST,
            owner=owner,
            start=run.start,
            npages=run.npages,
            result=0,
            entries=None if entries is None else run.count,
            detail=run.detail(),
        )

    if end - start > 1:
        tracker.emit(make(PageRun(make, fact.t, fact.line, start, end, fact.line, count=entries or 0)))
        return
    tracker.extend(thread, "unmap", "unmap", start, make).count += entries or 0


@handles("unmap_hva")
def unmap_hva(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_mmu_notifier_invalidate_range_start(): host page tables lose a range, maybe as part of an in-place conversion."""
    start, end = fact.args["hva"] >> PAGE_SHIFT, -(-fact.args["end"] >> PAGE_SHIFT)
    if thread.call is not None and thread.call.through is e.Through.VM_IOCTL:
        tracker.leave(thread)  # that ioctl changes no host page tables: the thread has gone on
    owner = tracker.owner_of(thread)
    conversion = thread.call.handle if thread.call is not None else None

    def make(run: PageRun) -> e.Event:
        return e.HvaUnmapped(start=run.start, npages=run.npages, owner=owner, conversion=conversion, detail=run.detail())

    if end - start != 1 or conversion is not None:
        tracker.emit(make(PageRun(make, fact.t, fact.line, start, end, fact.line)))
    else:
        tracker.extend(thread, "unmap", "hva", start, make)
    return True


@handles("gmem_ufault")
def gmem_ufault(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_gmem_fault_user_mapping(): the host accesses the mmap of a guest_memfd.

    The file is that of the memslot whose hva and offset both fit.
    """
    args = fact.args
    owner = _file_at(tracker, thread, args["addr"], args["pgoff"])
    ret = args["ret"]
    result = EHWPOISON if ret & VM_FAULT_HWPOISON else EACCES if ret & VM_FAULT_SIGBUS else 0

    def make(run: PageRun) -> e.Event:
        return e.FaultServed(
            access=e.Access.HOST, owner=owner, start=run.start, npages=run.npages, result=result, detail=run.detail()
        )

    tracker.extend(thread, "host", f"host {owner} {result}", args["pgoff"], make)
    return True


def _file_at(tracker: Tracker, thread: Thread, address: int, index: int) -> int | None:
    vm = tracker.vm_of(thread)
    candidates = [vm] if vm is not None else ([] if thread.vms else list(tracker.vms.values()))
    found = {
        slot.gmem
        for vm in candidates
        for slot in vm.slots.values()
        if slot.gmem is not None
        and slot.hva is not None
        and slot.index is not None
        and slot.hva <= address < slot.hva + (slot.npages << PAGE_SHIFT)
        and slot.index + ((address - slot.hva) >> PAGE_SHIFT) == index
    }
    return found.pop() if len(found) == 1 else None
