"""The proposal of the review threads: ask, allocate and split before anybody is unmapped.

Every user is asked first whether it would let go; tree nodes, work items and split folios are made before the point of no
return. After it only a bug of KVM or of the TDX module can fail, and that calls back into guest_memfd.
"""

from gmemstate.convert.engine.dialects import rfc_v2
from gmemstate.convert.engine.ioctl import ConversionCall, Returned, range_of
from gmemstate.convert.engine.kernel import THIS, Ask, Doing, Kernel, Steps, in_use
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EAGAIN, EFAULT, PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED


def convert(kernel: Kernel, call: ConversionCall) -> Steps:
    """The ioctl of RFC v2 with the flow of the proposal."""
    returned = rfc_v2.refusal(kernel, call)
    if returned is not None:
        return returned
    returned = yield from _convert_range(kernel, call, *range_of(call))
    return returned if returned is None or not returned.errno or call.writable else Returned(EFAULT)


def _convert_range(kernel: Kernel, call: ConversionCall, start: int, end: int) -> Steps:
    owner = call.owner
    if kernel.tracked(owner, start, end):
        return Returned(EFAULT)
    # 1. the work, and faults held off
    items, error = yield from rfc_v2.work_items(kernel, call, start, end)
    if error or not items:
        return Returned(error)
    for first, last in items:
        yield from rfc_v2.invalidate_begin(kernel, owner, first, last)
    # 2. what can fail: would the users let go; memory for the tree, for split folios, for split page tables
    returned = yield from _check(kernel, call, items)
    if returned.errno == 0:
        points = ("reserve", "split" if call.target == SHARED else "merge")[: 2 if kernel.setting.order else 1]
        error = next((error for point in points if (error := kernel.fails(point, start, end))), 0)
        yield e.Reserved(conversion=THIS, owner=owner, result=error)
        returned = Returned(error)
    # 3. abort, or go: from here on nothing may fail
    if returned.errno == 0:
        gone: Returned | None = yield from _go(kernel, call, items)
        if gone is None:
            return None
        returned = gone
    for first, last in items:
        yield from rfc_v2.invalidate_end(kernel, owner, first, last)
    return returned


def _check(kernel: Kernel, call: ConversionCall, items: list[rfc_v2.Item]) -> Doing[Returned]:
    """Nobody is unmapped yet: each user says whether it would let go, and references beyond their mappings are counted."""
    if call.target == SHARED:
        return Returned()
    for first, last in items:
        for user in kernel.users:
            if user.kind not in (e.User.HOST, e.User.IOMMU):
                continue
            answer = yield Ask(user, first, last, ask=True)
            if answer is None or answer.result != 0:
                facts = detail(user=user.name, would="refuse" if answer and answer.result else "not answer")
                npages = last - first
                yield e.UsersChecked(conversion=THIS, owner=call.owner, start=first, npages=npages, result=EAGAIN, detail=facts)
                return Returned(EAGAIN, first << PAGE_SHIFT)
        mapping = [user for user in kernel.users if user.kind in (e.User.HOST, e.User.IOMMU)]
        for head, order in kernel.folios(call.owner, first, last):
            own = sum(user.references(head, head + (1 << order), drained=True) for user in mapping)
            kernel.drained = True
            found, expected = kernel.references(call.owner, head, order) - own + 1, (1 << order) + 1
            if found != expected:
                yield in_use(call.owner, head, order, EAGAIN, found, expected)
                return Returned(EAGAIN, head << PAGE_SHIFT)
    return Returned()


def _go(kernel: Kernel, call: ConversionCall, items: list[rfc_v2.Item]) -> Steps:
    """Unmap, store, restructure."""
    owner = call.owner
    for first, last in items:
        yield e.ZapStarted(conversion=THIS, owner=owner, start=first, npages=last - first, attributes=call.attributes)
        if call.target == PRIVATE and (yield from kernel.unmap(owner, first, last, e.User.HOST, e.User.IOMMU)) is None:
            return None
        if (yield from kernel.zap(owner, first, last, call.opposite)) is None:
            return None
    # a bug: the failing page is marked, the conversion is refused before the attribute changes
    for first, last in items if call.target == SHARED else ():
        if error := (yield from kernel.learn(owner, first, last)):
            return Returned(error)
        if error := (yield from _held(kernel, owner, first, last)):
            return Returned(error)
    for first, last in items:
        yield e.AttrsStored(conversion=THIS, owner=owner, start=first, npages=last - first, attributes=call.attributes)
        yield from _restructure(kernel, owner, first, last, split=call.target == SHARED)
    return Returned()


def _held(kernel: Kernel, owner: int, first: int, last: int) -> Doing[int]:
    """The POC of 2025-06-16: what is still referenced after the zap may still be in the S-EPT, and does not become shared."""
    kernel.drained = True
    for head, order in kernel.folios(owner, first, last):
        if (found := kernel.references(owner, head, order)) > 1 << order:
            yield in_use(owner, head, order, EFAULT, found, 1 << order)
            return EFAULT
    return 0


def _restructure(kernel: Kernel, owner: int, first: int, last: int, *, split: bool) -> Doing[None]:
    """Split or merge with what was allocated before; nothing may fail. A folio held outside of the range is not merged."""
    order = kernel.setting.order
    if not order:
        return
    low, high = rfc_v2.rounded(kernel, first, last)
    kernel.drained = True
    for head in range(low, high, 1 << order):
        if not rfc_v2.needs(kernel, owner, head, split=split):
            continue
        if split:
            yield e.FolioSplit(conversion=THIS, owner=owner, start=head, npages=1 << order, result=0, order=order)
        elif kernel.references(owner, head, order) == 1 << order:
            yield e.FolioMerged(conversion=THIS, owner=owner, start=head, npages=1 << order, result=0, order=order)
