"""KVM_SET_MEMORY_ATTRIBUTES2 of v13 (virt/kvm/guest_memfd.c): the attribute lives in the inode, conversion is in place.

One work unit, no rollback: what can fail is done before the point of no return. A refused request has already cost the
host its page table entries, and more where the memslot names the mmap of the same guest_memfd.
"""

from gmemstate.convert.engine.ioctl import ConversionCall, Returned, misaligned, range_of, wraps
from gmemstate.convert.engine.ioctl import VmType as Type
from gmemstate.convert.engine.kernel import THIS, Doing, Kernel, Steps, in_use, shift
from gmemstate.model import events as e
from gmemstate.model.linux import EAGAIN, EFAULT, EINVAL, ENOTTY, PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED


def set_memory_attributes2(kernel: Kernel, call: ConversionCall) -> Steps:
    """kvm_gmem_ioctl(), kvm_gmem_set_attributes()."""
    if not kernel.setting.in_place:
        return Returned(ENOTTY)
    if not call.readable:
        return Returned(EFAULT)
    if call.flags or call.reserved or not kernel.setting.private_mem:
        return Returned(EINVAL)
    if call.attributes & ~PRIVATE_ATTRIBUTE:
        return Returned(EINVAL)
    if call.size == 0 or wraps(call) or misaligned(call):
        return Returned(EINVAL)
    start, end = range_of(call)
    size = kernel.gmem(call.owner).npages
    if size is not None and (start >= size or end > size):
        return Returned(EINVAL)
    returned = yield from _set_attributes(kernel, call, start, end)
    if returned is not None and returned.error_offset is not None and not call.writable:
        return Returned(EFAULT)  # the answer could not be written back; what was done is done
    return returned


def _set_attributes(kernel: Kernel, call: ConversionCall, start: int, end: int) -> Steps:
    """__kvm_gmem_set_attributes(), under filemap_invalidate_lock."""
    owner, npages, to_private = call.owner, end - start, call.target == PRIVATE
    # 2. nothing to do?
    equal = kernel.all_are(owner, start, end, call.target)
    yield e.AttrsCompared(
        conversion=THIS, owner=owner, start=start, npages=npages, attributes=call.attributes, equal=int(equal)
    )
    if equal:
        return Returned()
    # 3. mas_preallocate()
    error = kernel.fails("reserve", start, end)
    yield e.Reserved(conversion=THIS, owner=owner, result=error)
    if error:
        return Returned(error, start << PAGE_SHIFT)
    if to_private:
        # 4. unmap_mapping_pages() over the whole range, already private pages included
        yield e.ZapStarted(conversion=THIS, owner=owner, start=start, npages=npages, attributes=call.attributes)
        if (yield from kernel.unmap(owner, start, end, e.User.HOST, e.User.IOMMU)) is None:
            return None
        if kernel.setting.mmap_is_hva and (yield from _through_the_mmu_notifier(kernel, owner, start, end)) is None:
            return None
        # 5. is anybody else holding a page?
        page = yield from _in_use(kernel, owner, start, end)
        if page is not None:
            return Returned(EAGAIN, max(start, page) << PAGE_SHIFT)
    # 6. the point of no return: users of the opposite kind lose their mappings
    overlaps = list(kernel.slots(owner, start, end))
    for vm, slot, first, last in overlaps:
        yield e.InvalidateAdded(conversion=THIS, owner=vm.id, start=first + shift(slot), npages=last - first)
        yield e.ZapStarted(
            conversion=THIS, owner=owner, start=first, npages=last - first, attributes=call.attributes, slot=slot.id
        )
        if (yield from kernel.zap(owner, first, last, call.opposite, slot)) is None:
            return None
    yield from kernel.learn(owner, start, end)
    # 7. kvm_arch_gmem_make_shared(): a failure is a WARN_ONCE, the page counts as shared all the same
    if not to_private and kernel.setting.type is Type.SNP:
        yield from _make_shared(kernel, owner, start, end)
    # 8. mas_store_prealloc() cannot fail
    yield e.AttrsStored(conversion=THIS, owner=owner, start=start, npages=npages, attributes=call.attributes)
    # 9. kvm_mmu_invalidate_end(), once for each file with a binding in the range
    for _ in {vm.id for vm, *_ in overlaps}:
        yield e.InvalidateEnded(conversion=THIS, owner=owner)
    return Returned()


def _make_shared(kernel: Kernel, owner: int, start: int, end: int) -> Doing[None]:
    """RMPUPDATE of each private page that has memory."""
    for page, *_ in kernel.assigned(owner, start, end, "rmp_update"):
        if kernel.fault("rmp_update", page, page + 1):
            pfn = kernel.pfn(owner, page)
            yield e.PrivateUnmapFailed(step=e.UnmapStep.RMPUPDATE, owner=owner, conversion=THIS, start=page, npages=1, pfn=pfn)


def _through_the_mmu_notifier(kernel: Kernel, owner: int, start: int, end: int) -> Steps:
    """kvm_unmap_gfn_range(): where a slot names the mmap of its guest_memfd, the guest's *shared* entries go here already."""
    for _, slot, first, last in list(kernel.slots(owner, start, end)):
        if (yield from kernel.zap(owner, first, last, SHARED, slot)) is None:
            return None
    return Returned()


def _in_use(kernel: Kernel, owner: int, start: int, end: int) -> Doing[int | None]:
    """kvm_gmem_is_safe_for_conversion(): the first folio in index order that somebody else holds, if any."""
    for head, order in kernel.folios(owner, start, end):
        # __folio_has_outstanding_references(); the lookup itself holds one more
        found, expected = kernel.references(owner, head, order) + 1, (1 << order) + 1
        if found != expected and not kernel.pinned_or_mapped(head, order, found):
            kernel.drained = True  # lru_cache_drain_for_folio(), at most once per request
            found = kernel.references(owner, head, order) + 1
        if found != expected:
            yield in_use(owner, head, order, EAGAIN, found, expected)
            return head
    yield e.UsersChecked(conversion=THIS, owner=owner, start=start, npages=end - start, result=0)
    return None
