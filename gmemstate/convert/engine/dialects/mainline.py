"""KVM_SET_MEMORY_ATTRIBUTES of Linux 7.2.13 (virt/kvm/kvm_main.c): the attribute lives in the VM, keyed by gfn.

Private and shared memory of a gfn are different host pages, so nobody's references are looked at; everything that can
fail is done first, so there is nothing to roll back.
"""

from collections.abc import Iterator

from gmemstate.convert.engine.ioctl import ConversionCall, Returned, misaligned, range_of, wraps
from gmemstate.convert.engine.kernel import THIS, Kernel, Steps
from gmemstate.model import events as e
from gmemstate.model.linux import EFAULT, EINVAL, EIO, PAGES_1G, PAGES_2M, PRIVATE_ATTRIBUTE
from gmemstate.model.objects import Slot

HUGE = (PAGES_2M, PAGES_1G)


def set_memory_attributes(kernel: Kernel, call: ConversionCall) -> Steps:
    """kvm_vm_ioctl(), kvm_vm_ioctl_set_mem_attributes(), kvm_vm_set_mem_attributes()."""
    vm = kernel.vm(call.owner)
    # kvm_vm_ioctl
    if vm.gone is not None or not call.same_mm:
        return Returned(EIO)
    if not call.readable:
        return Returned(EFAULT)
    # kvm_vm_ioctl_set_mem_attributes
    # Where the attributes live in the guest_memfd the VM has none to offer, but the ioctl is still there.
    in_vm = vm.dialect is e.Dialect.MAINLINE or not kernel.setting.in_place
    supported = PRIVATE_ATTRIBUTE if kernel.setting.private_mem and in_vm else 0
    if call.flags or call.attributes & ~supported:
        return Returned(EINVAL)
    if call.size == 0 or wraps(call) or misaligned(call):
        return Returned(EINVAL)
    start, end = range_of(call)
    npages = end - start
    # 1. the tracepoint: an attempt, before the lock and before everything that can fail
    yield e.ConvertAttempted(
        conversion=THIS, owner=vm.id, start=start, npages=npages, attributes=call.attributes, thread=call.thread
    )
    # 2., 3. slots_lock; nothing to do?
    equal = kernel.all_are(vm.id, start, end, call.target)
    yield e.AttrsCompared(
        conversion=THIS,
        owner=vm.id,
        start=start,
        npages=npages,
        attributes=call.attributes,
        equal=int(equal),
        thread=call.thread,
    )
    if equal:
        return Returned()
    # 4. xa_reserve() for every gfn. Not simulated: a failure leaves entries without a value, which read as shared, but which
    # 7.2 takes for a difference when it next asks whether a run of them is shared already (later kernels do not)
    error = kernel.fails("reserve", start, end)
    yield e.Reserved(conversion=THIS, owner=vm.id, result=error)
    if error:
        return Returned(error)
    # 5. kvm_arch_pre_set_memory_attributes(): the *old* kind is zapped, slot by slot
    overlaps = list(kernel.slots(vm.id, start, end))
    for _, slot, first, last in overlaps:
        yield e.InvalidateAdded(conversion=THIS, owner=vm.id, start=first, npages=last - first)
        for head, size in straddled(kernel, vm.id, slot, first, last):
            yield e.InvalidateAdded(conversion=THIS, owner=vm.id, start=head, npages=size)
        yield e.ZapStarted(
            conversion=THIS, owner=vm.id, start=first, npages=last - first, attributes=call.attributes, slot=slot.id
        )
        if (yield from kernel.zap(vm.id, first, last, call.opposite)) is None:
            return None
    yield from kernel.learn(vm.id, start, end)
    # 6. xa_store() cannot fail: the entries are reserved
    yield e.AttrsStored(conversion=THIS, owner=vm.id, start=start, npages=npages, attributes=call.attributes)
    # 7. kvm_arch_post_set_memory_attributes(): the first overlapping slot ends the invalidation
    if overlaps:
        yield e.InvalidateEnded(conversion=THIS, owner=vm.id)
    return Returned()


def straddled(kernel: Kernel, owner: int, slot: Slot, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The huge ranges that head and tail lie in, where KVM could map them as huge now: no fault may do so meanwhile.

    They must lie in the slot, and not be flagged as mixed (hugepage_test_mixed()). They are invalidated, not zapped.
    """
    for size in HUGE:
        head, tail = first // size * size, (last - 1) // size * size
        ends = [head] if head != first or head + size > last else []
        ends += [tail] if tail != head and tail + size > last else []
        for start in ends:
            inside = slot.start <= start and start + size <= slot.end
            if inside and len({kind for *_, kind in kernel.kinds(owner, start, start + size)}) == 1:
                yield start, size
