"""Steps inside of a conversion: comparison, invalidation, zap, in-use test, store.

Which function takes which step: kvm_vm_set_mem_attributes() (virt/kvm/kvm_main.c) of mainline, __kvm_gmem_set_attributes()
(virt/kvm/guest_memfd.c) of in-place kernels.
"""

from gmemstate.ingest.correlate.conversions import fits, identify_vm, inside
from gmemstate.ingest.correlate.trackees import Call, Thread, VmState
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import FOREVER, STORED_ATTRIBUTES, Fact
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import LAST_PAGE, PRIVATE_ATTRIBUTE


@handles("range_has_attrs")
def range_has_attrs(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_range_has_memory_attributes(): the first one of a call, by the ioctl itself, shows a no-op.

    Others come from memslots (kvm_mmu_init_memslot_memory_attributes()) and from kvm_arch_post_set_memory_attributes().
    """
    args = fact.args
    by_name = "+0x" in fact.text.partition("<-")[0]
    making = thread.region is not None or "init_memslot" in fact.text
    vm = tracker.vm(args["kvm"], thread, makes=making)
    if "<- kvm_range_has_memory_attributes" in fact.text:
        tracker.mainline(vm)
    if thread.region is not None:
        thread.region.vm = vm
    if thread.region is None and making:
        tracker.leave(thread)  # kvm_arch_prepare_memory_region(): the thread sets a memslot
    call = thread.call
    start, npages = args["start"], args["end"] - args["start"]
    if call is not None and call.through is e.Through.VM_IOCTL and not call.compared and not call.zapped and not making:
        of_ioctl = not by_name or any(name in fact.text for name in ("kvm_vm_ioctl", "kvm_vm_set_mem", "kvm_set_vm_mem"))
        if of_ioctl and (not call.known or (call.start, call.npages, call.attributes) == (start, npages, args["attrs"])):
            identify_vm(tracker, call, vm)
            call.compared = True
            _emit_compared(tracker, fact, thread, vm, call.handle)
            return True
    if args["ret"] == 1 and args.get("mask", -1) in (-1, FOREVER):
        _emit_compared(tracker, fact, thread, vm)
        return True
    return False


def _emit_compared(tracker: Tracker, fact: Fact, thread: Thread, vm: VmState, conversion: int | None = None) -> None:
    args = fact.args
    tracker.emit(
        e.AttrsCompared(
            conversion=conversion,
            owner=vm.handle,
            start=args["start"],
            npages=args["end"] - args["start"],
            attributes=args["attrs"],
            equal=args["ret"],
            thread=thread.tid,
        )
    )


def _clip(fact: Fact, call: Call) -> tuple[int | None, int | None]:
    """The range of a line that names one, else that of the call; first page and number of pages."""
    if "start" in fact.args and "end" in fact.args:
        return fact.args["start"], fact.args["end"] - fact.args["start"]
    return call.start, call.npages


@handles("pre_set")
def pre_set(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Return of kvm_arch_pre_set_memory_attributes(), once for each memslot: what follows it are unmaps."""
    call = inside(tracker, fact, thread, e.Through.VM_IOCTL)
    vm = tracker.vm(fact.args["kvm"], thread)
    identify_vm(tracker, call, vm)
    start, npages = _clip(fact, call)
    if start is None or npages is None:
        return False
    attributes, slot = fact.args.get("attrs", call.attributes), fact.args.get("slot")
    _emit_zap(tracker, call, vm.handle, start, npages, attributes, slot)
    return True


def _emit_zap(
    tracker: Tracker, call: Call, owner: int | None, start: int, npages: int, attributes: int | None, slot: int | None = None
) -> None:
    call.zapped = True
    tracker.emit(
        e.ZapStarted(conversion=call.handle, owner=owner, start=start, npages=npages, attributes=attributes, slot=slot)
    )


@handles("post_set")
def post_set(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_arch_post_set_memory_attributes(): after the store loop of the whole range, once for each memslot."""
    call = inside(tracker, fact, thread, e.Through.VM_IOCTL)
    vm = tracker.vm(fact.args["kvm"], thread)
    identify_vm(tracker, call, vm)
    start, npages = _clip(fact, call)
    attributes = fact.args.get("attrs", call.attributes)
    if start is None or npages is None or attributes is None:
        return False
    tracker.emit(e.AttrsStored(conversion=call.handle, owner=vm.handle, start=start, npages=npages, attributes=attributes))
    return True


@handles("inv_add")
def inv_add(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_mmu_invalidate_range_add(): the invalidation range grows."""
    call = thread.call
    if call is None or (call.through is e.Through.VM_IOCTL and not fits(call, {"kvm": fact.args["kvm"]})):
        return False  # its range is wider than that of the call: whole huge pages
    vm, start, end = tracker.vm(fact.args["kvm"], thread), fact.args["start"], fact.args["end"]
    tracker.emit(e.InvalidateAdded(conversion=call.handle, owner=vm.handle, start=start, npages=end - start))
    return True


@handles("inv_end")
def inv_end(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of kvm_mmu_invalidate_end(): on mainline before the store is seen, in place after it."""
    call = thread.call
    if call is None or not call.zapped or (call.through is e.Through.GMEM_IOCTL and call.stored is None):
        return False
    tracker.emit(e.InvalidateEnded(conversion=call.handle))
    return True


@handles("host_unmap")
def host_unmap(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of unmap_mapping_pages(), step 4 to private: host page tables of the whole request, whatever the result will be."""
    call = thread.call
    if call is None or call.through is not e.Through.GMEM_IOCTL or call.gmem is None:
        return False
    pointer = next((gmem.pointer for gmem in tracker.gmems if gmem.handle == call.gmem), None)
    if fact.args.get("inode", pointer) != pointer:
        return False
    start, npages = fact.args["start"], fact.args["nr"]
    _emit_zap(tracker, call, call.gmem, start, npages, call.attributes)
    tracker.emit(
        e.UserAnswered(user=e.User.HOST, conversion=call.handle, owner=call.gmem, start=start, npages=npages, result=0)
    )
    return True


@handles("lru_folio")
def lru_folio(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """lru_cache_drain_for_folio(), once for each folio that is neither pinned nor mapped: its references are counted."""
    call = thread.call
    if call is None or call.through is not e.Through.GMEM_IOCTL:
        return False
    first = call.tested[0] if call.tested else fact.line
    count = call.tested[4] + 1 if call.tested else 1
    call.tested = [first, fact.line, fact.args.get("index", -1), fact.args.get("refs", -1), count]
    return True


@handles("gmem_inv")
def gmem_inv(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Entry of __kvm_gmem_invalidate_start(): a conversion is applied from here on; or a punch, poisoning or release begins."""
    start, end = fact.args["start"], fact.args["end"]
    call = thread.call
    if call is not None and (end == FOREVER or (call.known and (start, end) != (call.start, call.end))):
        tracker.leave(thread)
        call = None
    if call is None or call.through is not e.Through.GMEM_IOCTL:
        thread.bracket = (start, end, [])
        return False
    if not call.zapped or call.attributes != PRIVATE_ATTRIBUTE:
        _emit_zap(tracker, call, call.gmem, start, end - start, call.attributes)
    if call.attributes == PRIVATE_ATTRIBUTE and not call.checked:
        call.checked = True
        first, last, _, _, count = call.tested or [fact.line, fact.line, 0, 0, 0]
        tracker.emit(
            e.UsersChecked(
                conversion=call.handle,
                owner=call.gmem,
                start=start,
                npages=end - start,
                result=0,
                t=fact.t,
                line=first,
                detail=detail(last=last, pages=count) if count else None,
            )
        )
    return True


@handles("gmem_store")
def gmem_store(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """maple_tree:ma_write, once or twice for a store by __kvm_gmem_set_attributes(); the range includes equal neighbours."""
    call = thread.call
    attributes = STORED_ATTRIBUTES.get(fact.args["val"])
    start, last = fact.args["index"], fact.args["last"]
    if call is None or call.through is not e.Through.GMEM_IOCTL or attributes is None or not start <= last < LAST_PAGE:
        return False
    again = call.stored == (start, last, attributes)
    call.stored = (start, last, attributes)
    if not again:
        npages = last - start + 1
        tracker.emit(e.AttrsStored(conversion=call.handle, owner=call.gmem, start=start, npages=npages, attributes=attributes))
    return True
