"""KVM_GMEM_CONVERT_SHARED and _PRIVATE of RFC v2 (patches 04 and 38): a list of work items, explicit rollback.

All-or-nothing at the return of the ioctl for shareability and folio sizes; presence in page tables is not restored.
The defects of the posting are facts that can be switched on (:data:`DEFECTS`).
"""

from collections.abc import Sequence

from gmemstate.convert.engine.ioctl import ConversionCall, Returned, misaligned, range_of, wraps
from gmemstate.convert.engine.kernel import THIS, Doing, Kernel, Step, Steps, in_use
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EAGAIN, EFAULT, EINVAL, ENOTTY, PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import HOLE

DEFECTS = {
    "shadowed-ret": "compute_work: an inner `ret` hides -ENOMEM; a truncated list is converted and success is returned",
    "error-offset": "error_index has no initial value: with every errno but EAGAIN error_offset is rubbish",
    "underflow": "the rollback inside of one restructure call never ends where the range begins at index 0",
    "no-zap": "invalidate_begin zaps nothing (patch 38): to private the mmu notifier zaps guests "
    "whose memslots name the mmap, and no others",
}
"""Those of the posting that show in results or in what is left. Of a stash in the wrong order, of memory that is allocated
under a spinlock, and of a rollback in the rollback the postings do not say what would come."""
RUBBISH = 0xDEAD_BEEF_F000
"""What stands for an uninitialised error_index."""

Item = tuple[int, int]
Errno = Doing[int | None]
"""Steps that end with an errno (0: none), or with None if they never end."""


def convert(kernel: Kernel, call: ConversionCall) -> Steps:
    """kvm_gmem_ioctl_convert_range()."""
    returned = refusal(kernel, call)
    if returned is not None:
        return returned
    returned = yield from _convert_range(kernel, call, *range_of(call))
    if returned is None or not returned.errno:
        return returned
    if returned.error_offset is None and "error-offset" in kernel.setting.defects:
        returned = Returned(returned.errno, RUBBISH)
    return returned if call.writable else Returned(EFAULT)


def refusal(kernel: Kernel, call: ConversionCall) -> Returned | None:
    """What the ioctl answers before it takes a lock: a wrong argument, or success with nothing to do; None: it goes on."""
    if not kernel.setting.in_place:
        return Returned(ENOTTY)
    if not call.readable:
        return Returned(EFAULT)
    back = Returned(EINVAL, call.error_offset) if call.writable else Returned(EFAULT)  # the struct is written back as it is
    if call.error_offset:
        return back
    if call.size == 0:
        return Returned()
    size = kernel.gmem(call.owner).npages
    if wraps(call) or (size is not None and call.address + call.size > size << PAGE_SHIFT) or misaligned(call):
        return back
    return None


def _convert_range(kernel: Kernel, call: ConversionCall, start: int, end: int) -> Steps:
    """kvm_gmem_convert_range(), under filemap_invalidate_lock (step 1)."""
    owner = call.owner
    if kernel.tracked(owner, start, end):
        return Returned(EFAULT)
    # 2. what differs from the target
    items, error = yield from work_items(kernel, call, start, end)
    if error:
        return Returned(error)
    if not items:
        return Returned()
    # 3. kvm_gmem_invalidate_begin(), rounded out to the allocator's page size
    for first, last in items:
        yield from invalidate_begin(kernel, owner, first, last)
    # 4. kvm_gmem_convert_should_proceed(): the first failure needs no rollback
    for item in items:
        returned = yield from _should_proceed(kernel, call, item)
        if returned is None or returned.errno:
            break
    # 5., 6. carry out; on an error undo through the failing item
    else:
        returned = yield from _execute_all(kernel, owner, items, call.attributes)
    # 8. kvm_gmem_invalidate_end()
    for first, last in items if returned is not None else ():
        yield from invalidate_end(kernel, owner, first, last)
    return returned


def _execute_all(kernel: Kernel, owner: int, items: Sequence[Item], attributes: int) -> Steps:
    """The items one after the other; the first that fails, and those before it, are rolled back."""
    for n, item in enumerate(items, 1):
        failed = yield from execute(kernel, owner, item, attributes)
        if failed is None:
            return None
        if failed:
            undone = yield from _roll_back(kernel, owner, items[:n], attributes ^ PRIVATE_ATTRIBUTE)
            return Returned(failed) if undone else None
    return Returned()


def invalidate_begin(kernel: Kernel, owner: int, first: int, last: int) -> Doing[None]:
    """Each file of the inode that has a memslot in the range, rounded out to the allocator's page size."""
    low, high = rounded(kernel, first, last)
    for _ in _files(kernel, owner, low, high):
        yield e.InvalidateAdded(conversion=THIS, owner=owner, start=low, npages=high - low)


def invalidate_end(kernel: Kernel, owner: int, first: int, last: int) -> Doing[None]:
    """The same files: the lock keeps the bindings as they were."""
    for _ in _files(kernel, owner, *rounded(kernel, first, last)):
        yield e.InvalidateEnded(conversion=THIS, owner=owner)


def _files(kernel: Kernel, owner: int, low: int, high: int) -> set[int]:
    """The guests whose memslots overlap pages of an inode: each has a file of its own."""
    return {vm.id for vm, *_ in kernel.slots(owner, low, high)}


def work_items(kernel: Kernel, call: ConversionCall, start: int, end: int) -> Doing[tuple[list[Item], int]]:
    """compute_work(): the runs of pages ``[start, end)`` that differ from the target, each a kzalloc'ed item; and an errno."""
    items: list[Item] = []
    for first, last, kind in list(kernel.kinds(call.owner, start, end)):
        if kind == call.target:
            continue
        error = kernel.fails("work_item", first, last)
        if error:
            yield e.Reserved(conversion=THIS, owner=call.owner, result=error, detail=detail(what="an item of work"))
            return items, 0 if "shadowed-ret" in kernel.setting.defects else error
        items.append((first, last))
        yield e.WorkItem(conversion=THIS, owner=call.owner, start=first, npages=last - first)
    return items, 0


def _should_proceed(kernel: Kernel, call: ConversionCall, item: Item) -> Steps:
    first, last = item
    yield e.ZapStarted(conversion=THIS, owner=call.owner, start=first, npages=last - first, attributes=call.attributes)
    if call.target == SHARED:
        # kvm_gmem_unmap_private() returns void; only a policy lets guest_memfd learn of a failure
        if (yield from kernel.zap(call.owner, first, last, PRIVATE)) is None:
            return None
        return Returned((yield from kernel.learn(call.owner, first, last)))
    if (yield from kernel.unmap(call.owner, first, last, e.User.HOST, e.User.IOMMU)) is None:
        return None
    zaps = kernel.setting.mmap_is_hva or "no-zap" not in kernel.setting.defects
    if zaps and (yield from kernel.zap(call.owner, first, last, SHARED)) is None:
        return None
    page = yield from _in_use(kernel, call.owner, first, last)
    return Returned() if page is None else Returned(EAGAIN, page << PAGE_SHIFT)


def _in_use(kernel: Kernel, owner: int, start: int, end: int) -> Doing[int | None]:
    """kvm_gmem_has_safe_refcount(): the batch lookup holds one more reference; too few is as bad as too many."""
    for head, order in kernel.folios(owner, start, end):
        found, expected = kernel.references(owner, head, order) + 1, (1 << order) + 1
        if found != expected:
            yield in_use(owner, head, order, EAGAIN, found, expected)
            return head
    yield e.UsersChecked(conversion=THIS, owner=owner, start=start, npages=end - start, result=0)
    return None


def execute(kernel: Kernel, owner: int, item: Item, attributes: int) -> Errno:
    """kvm_gmem_shareability_apply() and kvm_gmem_restructure_folios_in_range() of one item."""
    first, last = item
    error = kernel.fails("store", first, last)
    yield e.AttrsStored(conversion=THIS, owner=owner, start=first, npages=last - first, attributes=attributes, result=error)
    if error:
        return error
    return (yield from restructure(kernel, owner, item, split=attributes == 0))


def restructure(kernel: Kernel, owner: int, item: Item, *, split: bool, undoing: bool = False) -> Errno:
    """Split every huge folio that overlaps the item to 4K, or merge where a huge range has become private throughout."""
    if not kernel.setting.order:
        return 0
    size = 1 << kernel.setting.order
    low, high = rounded(kernel, *item)
    done: list[int] = []
    for head in range(low, high, size):
        if not needs(kernel, owner, head, split=split):
            continue
        if kernel.references(owner, head, kernel.setting.order) != size:  # else every folio freezes at once
            for folio, order in list(kernel.folios(owner, head, head + size)):
                if not (yield from kernel.freeze(owner, folio, order)):
                    return None
        error = kernel.fails("split" if split else "merge", head, head + size)
        if error and undoing:
            start, npages, attributes = item[0], item[1] - item[0], PRIVATE_ATTRIBUTE * (not split)
            yield e.Undone(
                conversion=THIS,
                owner=owner,
                start=start,
                npages=npages,
                result=error,
                attributes=attributes,
                detail=detail(folio=head),
            )
        else:
            yield _restructured(owner, head, kernel.setting.order, error, split=split)
        if error:
            return (yield from _walk_back(kernel, owner, done, low, split=split, error=error))
        done.append(head)
    return 0


def needs(kernel: Kernel, owner: int, head: int, *, split: bool) -> bool:
    """Whether a huge range is to be split or merged; not where there is no folio, or where it has the right size already."""
    gmem, end = kernel.gmem(owner), head + (1 << kernel.setting.order)
    if split:
        return gmem.backing.get(head) != HOLE and gmem.orders.get(head) != 0
    return kernel.is_small(owner, head, end) and kernel.all_are(owner, head, end, PRIVATE)


def _restructured(owner: int, head: int, order: int, error: int, *, split: bool) -> Step:
    kind = e.FolioSplit if split else e.FolioMerged
    return kind(conversion=THIS, owner=owner, start=head, npages=1 << order, result=error, order=order)


def _walk_back(kernel: Kernel, owner: int, done: Sequence[int], low: int, *, split: bool, error: int) -> Errno:
    """The rollback inside of one restructure call: what was split is merged again, and the other way round."""
    for head in reversed(done):
        yield _restructured(owner, head, kernel.setting.order, 0, split=not split)
    if low == 0 and "underflow" in kernel.setting.defects:
        yield e.TaskStuck(conversion=THIS, owner=owner, thread=0, detail=detail(loop="index -= H wraps below 0"))
        return None
    return error


def _roll_back(kernel: Kernel, owner: int, items: Sequence[Item], attributes: int) -> Doing[bool]:
    """Store the old shareability and restructure back, item by item; an error in here is a WARN, never returned.

    The failing item is rolled back too, though it may never have been stored. False if it never ends.
    """
    old = PRIVATE if attributes else SHARED
    for first, last in items:
        error = kernel.fails("undo", first, last)
        as_before = not error or kernel.all_are(owner, first, last, old)
        now = attributes if as_before else attributes ^ PRIVATE_ATTRIBUTE
        yield e.Undone(conversion=THIS, owner=owner, start=first, npages=last - first, result=error, attributes=now)
        if not error:
            stuck = (yield from restructure(kernel, owner, (first, last), split=attributes == 0, undoing=True)) is None
            if stuck:
                return False
    return True


def rounded(kernel: Kernel, first: int, last: int) -> Item:
    """A range rounded outward to the allocator's page size."""
    size = 1 << kernel.setting.order
    return first // size * size, -(-last // size) * size
