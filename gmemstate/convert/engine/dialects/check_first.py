"""The proposal of the review threads: ask, allocate and split before anybody is unmapped.

Every user is asked first whether it would let go; tree nodes, work items and split folios are made before the point of no
return. Behind it only a bug of KVM or of the TDX module can fail, and that calls back into guest_memfd.
"""

from errno import EAGAIN, EFAULT

from gmemstate.convert.engine.dialects import rfc_v2
from gmemstate.convert.engine.ioctl import Call, Told, range_of
from gmemstate.convert.engine.kernel import THIS, Ask, Doing, Kernel, Steps
from gmemstate.model.events import (
    AttrsStored,
    FolioMerged,
    FolioSplit,
    Reserved,
    User,
    UsersChecked,
    ZapStarted,
    detail,
)
from gmemstate.model.machines.machines import PRIVATE, SHARED
from gmemstate.model.units import PAGE_SHIFT


def convert(kernel: Kernel, call: Call) -> Steps:
    """The ioctl of RFC v2 with the flow of the proposal."""
    told = rfc_v2.refusal(kernel, call)
    if told is not None:
        return told
    told = yield from _convert_range(kernel, call, *range_of(call))
    return told if told is None or not told.errno or call.writable else Told(EFAULT)


def _convert_range(kernel: Kernel, call: Call, start: int, end: int) -> Steps:
    space = call.space
    if kernel.tracked(space, start, end):
        return Told(EFAULT)
    # 1. the work, and faults held off
    items, error = yield from rfc_v2.work_items(kernel, call, start, end)
    if error or not items:
        return Told(error)
    for first, last in items:
        yield from rfc_v2.invalidate_begin(kernel, space, first, last)
    # 2. what can fail: would the users let go; memory for the tree, for split folios, for split page tables
    told = yield from _check(kernel, call, items)
    if told.errno == 0:
        points = ("reserve", "split" if call.target == SHARED else "merge")[: 2 if kernel.setting.order else 1]
        error = next((error for point in points if (error := kernel.fails(point, start, end))), 0)
        yield Reserved(conversion=THIS, space=space, result=error)
        told = Told(error)
    # 3. abort, or go: from here on nothing may fail
    if told.errno == 0:
        gone: Told | None = yield from _go(kernel, call, items)
        if gone is None:
            return None
        told = gone
    for first, last in items:
        yield from rfc_v2.invalidate_end(kernel, space, first, last)
    return told


def _check(kernel: Kernel, call: Call, items: list[rfc_v2.Item]) -> Doing[Told]:
    """Nobody is unmapped yet: each user says whether it would let go, and references beyond their mappings are counted."""
    if call.target == SHARED:
        return Told()
    for first, last in items:
        for user in kernel.users:
            if user.kind not in (User.HOST, User.IOMMU):
                continue
            answer = yield Ask(user, first, last, ask=True)
            if answer is None or answer.result != 0:
                yield UsersChecked(conversion=THIS, space=call.space, start=first, npages=last - first, result=EAGAIN,
                                   detail=detail(user=user.name, would="refuse" if answer and answer.result else "not answer"))  # fmt: skip
                return Told(EAGAIN, first << PAGE_SHIFT)
        mapping = [user for user in kernel.users if user.kind in (User.HOST, User.IOMMU)]
        for head, order in kernel.folios(call.space, first, last):
            own = sum(user.references(head, head + (1 << order), drained=True) for user in mapping)
            kernel.drained = True
            found, expected = kernel.references(call.space, head, order) - own + 1, (1 << order) + 1
            if found != expected:
                yield UsersChecked(conversion=THIS, space=call.space, start=head, npages=1 << order, result=EAGAIN,
                                   references=found, expected=expected)  # fmt: skip
                return Told(EAGAIN, head << PAGE_SHIFT)
    return Told()


def _go(kernel: Kernel, call: Call, items: list[rfc_v2.Item]) -> Steps:
    """Unmap, store, restructure."""
    space = call.space
    for first, last in items:
        yield ZapStarted(conversion=THIS, space=space, start=first, npages=last - first, attributes=call.attributes)
        if call.target == PRIVATE and (yield from kernel.unmap(space, first, last, User.HOST, User.IOMMU)) is None:
            return None
        if (yield from kernel.zap(space, first, last, call.opposite)) is None:
            return None
    # a bug: the failing page is marked, the conversion is refused before the attribute changes
    for first, last in items if call.target == SHARED else ():
        if error := (yield from kernel.learn(space, first, last)):
            return Told(error)
        if error := (yield from _held(kernel, space, first, last)):
            return Told(error)
    for first, last in items:
        yield AttrsStored(conversion=THIS, space=space, start=first, npages=last - first, attributes=call.attributes)
        yield from _restructure(kernel, space, first, last, split=call.target == SHARED)
    return Told()


def _held(kernel: Kernel, space: int, first: int, last: int) -> Doing[int]:
    """The POC of 2025-06-16: what is still referenced behind the zap may still be in the S-EPT, and does not become shared."""
    kernel.drained = True
    for head, order in kernel.folios(space, first, last):
        if (found := kernel.references(space, head, order)) > 1 << order:
            yield UsersChecked(conversion=THIS, space=space, start=head, npages=1 << order, result=EFAULT,
                               references=found, expected=1 << order)  # fmt: skip
            return EFAULT
    return 0


def _restructure(kernel: Kernel, space: int, first: int, last: int, *, split: bool) -> Doing[None]:
    """Split or merge with what was allocated before. What somebody holds beside the range is not merged: nothing may fail here."""
    order = kernel.setting.order
    if not order:
        return
    low, high = rfc_v2.rounded(kernel, first, last)
    kernel.drained = True
    for head in range(low, high, 1 << order):
        if not rfc_v2.needs(kernel, space, head, split=split):
            continue
        if split:
            yield FolioSplit(conversion=THIS, space=space, start=head, npages=1 << order, result=0, order=order)
        elif kernel.references(space, head, order) == 1 << order:
            yield FolioMerged(conversion=THIS, space=space, start=head, npages=1 << order, result=0, order=order)
