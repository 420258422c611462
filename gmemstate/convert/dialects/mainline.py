"""KVM_SET_MEMORY_ATTRIBUTES of Linux 7.2.13 (virt/kvm/kvm_main.c): the attribute lives in the VM, keyed by gfn.

Private and shared memory of a gfn are different host pages, so nobody's references are looked at; everything that can
fail is done first, so there is nothing to roll back.
"""

from errno import EFAULT, EINVAL, EIO

from gmemstate.convert.engine import THIS, Call, Kernel, Steps, Told, misaligned, range_of, wraps
from gmemstate.model.events import (
    AttrsCompared,
    AttrsStored,
    ConvertAttempted,
    Dialect,
    InvalidateAdded,
    InvalidateEnded,
    Reserved,
    ZapStarted,
)
from gmemstate.model.machines import PRIVATE, SHARED
from gmemstate.model.units import PRIVATE as PRIVATE_ATTRIBUTE

HUGE = (512, 512 * 512)


def set_memory_attributes(kernel: Kernel, call: Call) -> Steps:
    """kvm_vm_ioctl(), kvm_vm_ioctl_set_mem_attributes(), kvm_vm_set_mem_attributes()."""
    vm = kernel.vm(call.space)
    # kvm_vm_ioctl
    if vm.gone is not None or not call.same_mm:
        return Told(EIO)
    if not call.readable:
        return Told(EFAULT)
    # kvm_vm_ioctl_set_mem_attributes
    # Where the attributes live in the guest_memfd the VM has none to offer, but the ioctl is still there.
    in_vm = vm.dialect is Dialect.MAINLINE or not kernel.setting.in_place
    supported = PRIVATE_ATTRIBUTE if kernel.setting.private_mem and in_vm else 0
    if call.flags or call.attributes & ~supported:
        return Told(EINVAL)
    if call.size == 0 or wraps(call) or misaligned(call):
        return Told(EINVAL)
    start, end = range_of(call)
    npages = end - start
    # 1. the tracepoint: an attempt, before the lock and before everything that can fail
    yield ConvertAttempted(
        conversion=THIS, space=vm.id, start=start, npages=npages, attributes=call.attributes, thread=call.thread
    )
    # 2., 3. slots_lock; nothing to do?
    equal = kernel.all_are(vm.id, start, end, call.target)
    yield AttrsCompared(
        conversion=THIS,
        space=vm.id,
        start=start,
        npages=npages,
        attributes=call.attributes,
        equal=int(equal),
        thread=call.thread,
    )
    if equal:
        return Told()
    # 4. xa_reserve() for every gfn
    error = kernel.fails("reserve", start, end)
    yield Reserved(conversion=THIS, space=vm.id, result=error)
    if error:
        return Told(error)
    # 5. kvm_arch_pre_set_memory_attributes(): the *old* kind is zapped, slot by slot
    overlaps = list(kernel.slots(vm.id, start, end))
    for _, slot, first, last in overlaps:
        low, high = hull(slot.start, slot.end, first, last)
        yield InvalidateAdded(conversion=THIS, space=vm.id, start=low, npages=high - low)
        yield ZapStarted(
            conversion=THIS, space=vm.id, start=first, npages=last - first, attributes=call.attributes, slot=slot.id
        )
        if (yield from kernel.zap(vm.id, first, last, SHARED if call.target == PRIVATE else PRIVATE)) is None:
            return None
    yield from kernel.learn(vm.id, start, end)
    # 6. xa_store() cannot fail: the entries are reserved
    yield AttrsStored(conversion=THIS, space=vm.id, start=start, npages=npages, attributes=call.attributes)
    # 7. kvm_arch_post_set_memory_attributes(): the first overlapping slot ends the invalidation
    if overlaps:
        yield InvalidateEnded(conversion=THIS, space=vm.id)
    return Told()


def hull(slot_start: int, slot_end: int, first: int, last: int) -> tuple[int, int]:
    """What is invalidated, not zapped: also the 2M and 1G ranges that head and tail lie in, where they lie in the slot."""
    low, high = first, last
    for size in HUGE:
        head, tail = first // size * size, -(-last // size) * size
        if head >= slot_start and head + size <= slot_end:
            low = min(low, head)
        if tail <= slot_end and tail - size >= slot_start:
            high = max(high, tail)
    return low, high
