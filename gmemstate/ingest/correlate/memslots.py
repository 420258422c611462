"""Facts about memslots and guest_memfds: what backs which gfns, and when a pointer is that of another guest."""

from gmemstate.ingest.correlate.trackees import GmemState, Region, SlotState, Thread, VmState
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import GUEST_MEMFD_FLAG_MMAP, KVM_MEM_GUEST_MEMFD, PAGE_SHIFT
from gmemstate.model.units import pages
from gmemstate.text import printable


@handles("set_region")
def set_region(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_vm_ioctl() with KVM_SET_USER_MEMORY_REGION2."""
    thread.region = Region(fact.line, dict(fact.args))
    return True


@handles("set_region_ret")
def set_region_ret(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Its return (kvm_set_memory_region()): the memslot as the kernel took it, with the binding made inside of the call."""
    region, thread.region = thread.region, None
    args = {**(region.args if region else {}), **fact.args}
    if not {"slot", "gpa", "size", "ret"} <= args.keys():
        return False
    vm = region.vm if region is not None and region.vm is not None else tracker.vm_of(thread)
    start, npages = pages(args["gpa"], args["size"]) or (args["gpa"] >> PAGE_SHIFT, 0)
    wanted = SlotState(start, npages, args.get("hva"), args.get("flags", 0))
    if vm is not None and args["ret"] == 0:
        before, vm = vm, _settle(tracker, thread, vm, args["slot"], wanted)
        if vm is not before and region is not None and region.inode is not None:
            region.gmem = tracker.gmem_at(region.inode, vm.handle).handle  # it is not of the guest that was there before
    first = region.line if region is not None else fact.line
    tracker.emit(
        e.SlotSet(
            slot=args["slot"],
            owner=vm.handle if vm else None,
            start=start,
            npages=npages,
            flags=args.get("flags"),
            result=-args["ret"],
            t=fact.t,
            line=first,
            detail=detail(hva=None if wanted.hva is None else hex(wanted.hva), last=fact.line if first != fact.line else None),
        )
    )
    if vm is not None and not args["ret"] and region is not None and npages and wanted.flags & KVM_MEM_GUEST_MEMFD:
        base, count, index = region.bound or (start, npages, args.get("gmem_offset", 0) >> PAGE_SHIFT)
        wanted.gmem, wanted.index = region.gmem, index
        tracker.emit(e.GmemBound(owner=vm.handle, start=base, npages=count, index=index, gmem=region.gmem))
    return True


def _settle(tracker: Tracker, thread: Thread, vm: VmState, slot: int, wanted: SlotState) -> VmState:
    """Take a slot into the picture of its guest; what the kernel would have refused proves that it is another guest.

    kvm_set_memory_region() refuses to change the size or the address of an existing slot, and any overlap.
    """
    old = vm.slots.get(slot)
    if not wanted.npages:
        vm.slots.pop(slot, None)
        return vm
    changed = old is not None and (old.npages != wanted.npages or (None not in (old.hva, wanted.hva) and old.hva != wanted.hva))
    owner = slot >> 16
    overlaps = any(
        other != slot
        and other >> 16 == owner
        and have.start < wanted.start + wanted.npages
        and wanted.start < have.start + have.npages
        for other, have in vm.slots.items()
    )
    if changed or overlaps:
        vm = tracker.new_vm(vm.pointer, thread, makes=True)
        thread.vms.append(vm.handle)
    vm.slots[slot] = wanted
    return vm


@handles("gmem_create")
def gmem_create(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_gmem_create(): the fd, or a negative errno."""
    args = fact.args
    vm = tracker.vm(args["kvm"], thread, makes=True)
    flags, npages = args.get("flags", 0), args["size"] >> PAGE_SHIFT
    if args["fd"] < 0:
        tracker.emit(e.GmemCreated(vm=vm.handle, npages=npages, flags=flags, result=-args["fd"]))
        return True
    gmem = GmemState(tracker.handle(), vm.handle, args["fd"], npages)
    tracker.gmems.append(gmem)
    vm.gmems += 1
    vm.mmap = vm.mmap or bool(flags & GUEST_MEMFD_FLAG_MMAP)
    tracker.emit(
        e.GmemCreated(owner=gmem.handle, vm=vm.handle, npages=npages, flags=flags, result=0, detail=detail(fd=args["fd"]))
    )
    return True


@handles("gmem_bind", "gmem_prepare")
def gmem_bind(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_gmem_bind() of mainline, kvm_gmem_prepare_memory_region() of in-place kernels; the latter names the inode."""
    args = fact.args
    vm = tracker.vm(args["kvm"], thread, makes=True)
    if "<- kvm_gmem_bind" in fact.text:
        tracker.mainline(vm)
    region = thread.region
    if region is None:
        region = thread.region = Region(fact.line, {})
    region.vm = vm
    if args.get("ret", 0) < 0:
        return True
    if "base_gfn" in args and "npages" in args:
        region.bound = (args["base_gfn"], args["npages"], args.get("offset", 0) >> PAGE_SHIFT)
    if "inode" in args:
        region.gmem, region.inode = _bound_gmem(tracker, fact, vm).handle, args["inode"]
    return True


def _bound_gmem(tracker: Tracker, fact: Fact, vm: VmState) -> GmemState:
    """The guest_memfd that is bound: the inode if it was seen, else what was created with the fd in this guest."""
    pointer, fd = fact.args["inode"], fact.args.get("fd")
    known = tracker.gmem_known(pointer, vm.handle)
    created = tracker.gmem_of_fd(fd, vm.handle)
    if created is not None and created.pointer is None and (known is None or created.handle < known.handle):
        created.pointer = pointer
        return created
    return known or tracker.gmem_at(pointer, vm.handle)


@handles("gmem_commit")
def gmem_commit(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_gmem_commit_memory_region() of in-place kernels: the binding holds."""
    args = fact.args
    vm = tracker.vm(args["kvm"], thread, makes=True)
    if thread.region is not None:
        thread.region.vm = vm
        if args.get("ret", 0) == 0 and {"base_gfn", "npages", "pgoff"} <= args.keys():
            thread.region.bound = (args["base_gfn"], args["npages"], args["pgoff"])
            if "inode" in args and thread.region.gmem is None:
                thread.region.gmem, thread.region.inode = _bound_gmem(tracker, fact, vm).handle, args["inode"]
    return True


@handles("gmem_unbind")
def gmem_unbind(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_gmem_unbind(): outside of a change of memslots it is the end of its guest (kvm_destroy_vm)."""
    args = fact.args
    range_, number = (args["base_gfn"], args["npages"]), args.get("slot", -1)
    found = [vm for vm in tracker.vms.values() if number in vm.slots and vm.slots[number].range == range_]
    vm = found[0] if len(found) == 1 else tracker.vm_of(thread)
    if thread.region is not None:
        thread.region.vm = thread.region.vm or vm
        return True
    if vm is not None and e.Capability.SLOTS in vm.shown:
        if not vm.torn_down:
            vm.torn_down = True
            tracker.emit(e.VmDestroyed(owner=vm.handle, detail=detail(basis="implied", join="thread")))
        return True
    tracker.emit(
        e.GmemUnbound(owner=vm.handle if vm else None, start=args["base_gfn"], npages=args["npages"], index=args.get("pgoff"))
    )
    return True


@handles("gmem_release")
def gmem_release(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_gmem_release(): the last user of a file is gone; ``size`` is in bytes."""
    gmem = tracker.gmem_of_syscall(thread, tracker.owner_of(thread))
    gmem.released = True
    thread.file, thread.bracket = gmem, None
    npages = fact.args["size"] >> PAGE_SHIFT if "size" in fact.args else None
    tracker.emit(e.GmemReleased(owner=gmem.handle, npages=npages))
    return True


@handles("gmem_fallocate")
def gmem_fallocate(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_gmem_fallocate(), a punch or an allocation: the gfns unmapped inside tell which memslot holds the file."""
    args = fact.args
    gmem = tracker.gmem_of_syscall(thread, tracker.owner_of(thread)) if "inode" in args else None
    run = pages(args["offset"], args["len"])
    if gmem is not None:
        link(tracker, thread, gmem)
    thread.bracket = None
    tracker.emit(
        e.Punched(
            owner=gmem.handle if gmem else None,
            mode=args["mode"],
            result=-args["ret"],
            start=run[0] if run else None,
            npages=run[1] if run else None,
            thread=thread.tid,
            detail=None if run else detail(offset=hex(args["offset"]), len=hex(args["len"])),
        )
    )
    return True


def link(tracker: Tracker, thread: Thread, gmem: GmemState) -> None:
    """Bind memslots to a guest_memfd by the unmaps that an invalidation of its indices has made."""
    _, _, unmaps = thread.bracket or (0, 0, [])
    for vm_handle, slot_id, gfn, index in unmaps:
        vm = tracker.by_handle.get(vm_handle)
        slot = vm.slots.get(slot_id) if vm is not None else None
        if vm is None or slot is None or slot.gmem is not None or not slot.flags & KVM_MEM_GUEST_MEMFD:
            continue
        first = index - (gfn - slot.start)
        if first < 0 or (slot.index is not None and slot.index != first):
            continue
        slot.gmem, slot.index = gmem.handle, first
        tracker.emit(
            e.GmemBound(
                owner=vm.handle,
                start=slot.start,
                npages=slot.npages,
                index=first,
                gmem=gmem.handle,
                detail=detail(join="thread"),
            )
        )
    unmaps.clear()


@handles("gmem_error")
def gmem_error(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_gmem_error_folio(): a page of a file is poisoned."""
    thread.file = tracker.gmem_of_syscall(thread, tracker.owner_of(thread))
    thread.error, thread.bracket = fact.args["index"], None
    tracker.emit(e.Poisoned(owner=thread.file.handle, start=fact.args["index"], npages=1))
    return True


@handles("memory_failure")
def memory_failure(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """action_result(), what came of a poisoned page; after kvm_gmem_error_folio() on the same thread it is that page."""
    gmem, index = (thread.file, thread.error) if thread.error is not None else (None, None)
    thread.file = thread.error = thread.bracket = None
    words = printable(fact.text.partition("recovery action for ")[2])
    tracker.emit(
        e.Poisoned(
            owner=gmem.handle if gmem else None,
            start=index,
            npages=1,
            pfn=fact.args["pfn"],
            detail=detail(action=words, join="thread" if gmem is not None else None),
        )
    )
    return True


@handles("memslots_updated")
def memslots_updated(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_arch_memslots_updated() with generation 1: the first memslot of a guest, created on record or just before."""
    vm = tracker.vm(fact.args["kvm"], thread, makes=True)
    if fact.args.get("gen") == 1 and not vm.birth_recorded and tracker.whole:
        vm.birth_recorded = True
        tracker.emit(e.VmCreated(owner=vm.handle, dialect=vm.dialect, detail=detail(basis="implied")))
        return True
    return False


@handles("vm_created")
def vm_created(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_arch_init_vm(): whoever had this address before is gone, and nothing of the new guest can have been converted."""
    vm = tracker.new_vm(fact.args["kvm"], thread, makes=True)
    thread.vms.append(vm.handle)
    vm.birth_recorded = True
    tracker.emit(e.VmCreated(owner=vm.handle, dialect=vm.dialect))
    return True


@handles("vm_destroyed")
def vm_destroyed(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """kvm_destroy_vm(): another guest may get the address."""
    vm = tracker.vm(fact.args["kvm"], thread)
    vm.torn_down = True
    tracker.emit(e.VmDestroyed(owner=vm.handle))
    return True
