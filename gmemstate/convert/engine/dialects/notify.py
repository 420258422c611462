"""A guest_memfd that owns ranges of pfns without struct page: users are notified and answer, nothing is counted.

The goal named in the thread of the mail of 2025-06-04 (diqzfrgfp95d.fsf@ackerleytng-ctop.c.googlers.com): the pages are no
memory of the kernel, userspace maps them with VM_PFNMAP, so that nobody can pin them. All that guest_memfd has is the word of
each user, and a user may refuse after others have unmapped. No series was posted; what the text leaves open is decided here:

- memory for the attribute is reserved before anybody is notified, so that storing it cannot fail;
- all users are notified in both directions, in the order in which they registered, and the first refusal ends the conversion;
- KVM is a user like the others: a private page that the TDX module keeps is a refusal (EIO), now and in every later request.
"""

from collections.abc import Iterable

from gmemstate.convert.engine.dialects import rfc_v2
from gmemstate.convert.engine.ioctl import ConversionCall, Returned, VmType, range_of
from gmemstate.convert.engine.kernel import THIS, Ask, Doing, Kernel, Steps
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.users import PageUser
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EFAULT, EIO, PAGE_SHIFT
from gmemstate.model.machines.range import SHARED

TOLD = (e.User.HOST, e.User.GUEST, e.User.IOMMU)
"""Who can use pages that have no struct page; a pin or another reference needs one."""

Unmapped = tuple[PageUser, int, int]
"""A user that has unmapped pages ``[start, end)``."""


def convert(kernel: Kernel, call: ConversionCall) -> Steps:
    """The ioctl of RFC v2, with users that are notified and answer."""
    returned = rfc_v2.refusal(kernel, call)
    if returned is not None:
        return returned
    returned = yield from _convert_range(kernel, call, *range_of(call))
    return returned if returned is None or not returned.errno or call.writable else Returned(EFAULT)


def _convert_range(kernel: Kernel, call: ConversionCall, start: int, end: int) -> Steps:
    owner = call.owner
    # 1. what differs from the target; faults are held off
    items, error = yield from rfc_v2.work_items(kernel, call, start, end)
    if error or not items:
        return Returned(error)
    for first, last in items:
        yield from rfc_v2.invalidate_begin(kernel, owner, first, last)
    # 2. memory for the new attribute
    error = kernel.fails("reserve", start, end)
    yield e.Reserved(conversion=THIS, owner=owner, result=error)
    # 3. each user is notified; a refusal is obeyed
    returned = Returned(error) if error else (yield from _tell(kernel, call, items))
    if returned is None:
        return None
    # 4. nothing can fail any more
    for first, last in items if not returned.errno else ():
        yield e.AttrsStored(conversion=THIS, owner=owner, start=first, npages=last - first, attributes=call.attributes)
    for first, last in items:
        yield from rfc_v2.invalidate_end(kernel, owner, first, last)
    return returned


def _tell(kernel: Kernel, call: ConversionCall, items: Iterable[rfc_v2.Item]) -> Steps:
    """Tell the users, item by item; on a refusal nothing is stored, whatever the earlier ones have done."""
    unmapped: list[Unmapped] = []
    for first, last in items:
        yield e.ZapStarted(conversion=THIS, owner=call.owner, start=first, npages=last - first, attributes=call.attributes)
        for user in kernel.users:
            if user.kind not in TOLD:
                continue
            refused = yield from _refusal(kernel, call, user, first, last)
            if refused is None:
                return None
            if refused:
                if kernel.policy is Policy.MAP_AGAIN:
                    yield from _map_again(kernel, call, unmapped)
                return Returned(refused, first << PAGE_SHIFT)
            unmapped.append((user, first, last))
    return Returned()


def _refusal(kernel: Kernel, call: ConversionCall, user: PageUser, first: int, last: int) -> rfc_v2.Errno:
    """Tell one user: 0 where it has unmapped pages ``[first, last)``, the errno with which it refuses, None if it is silent."""
    owner, of_td = call.owner, _is_td(kernel, call, user)
    if of_td:
        yield from kernel.remove_private(owner, first, last)
    answer = yield Ask(user, first, last)
    if answer is None or answer.result is None:
        yield from kernel.no_answer(owner, user, first, last)
        return None
    yield from kernel.answered(owner, user, first, last, answer)
    kept = kernel.messed_up(owner, first, last) if of_td else []
    if kept and not answer.result:
        yield e.UserAnswered(user=user.kind, start=kept[0], npages=1, owner=owner, conversion=THIS, result=EIO)
        return EIO
    return answer.result


def _is_td(kernel: Kernel, call: ConversionCall, user: PageUser) -> bool:
    """Whether a user is a TD about to lose private pages: the TDX module removes them, and can fail."""
    return user.kind is e.User.GUEST and call.target == SHARED and kernel.setting.type is VmType.TDX


def _map_again(kernel: Kernel, call: ConversionCall, unmapped: Iterable[Unmapped]) -> Doing[None]:
    """Ask those that have unmapped, in the same order, to map again; nothing follows from their answers.

    A TD is not asked: its page would come back empty (TDH.MEM.PAGE.AUG), to be accepted again.
    """
    for user, first, last in unmapped:
        if _is_td(kernel, call, user):
            continue
        answer = yield Ask(user, first, last, again=True)
        for where, start, end in kernel.places(call.owner, user, first, last):
            yield e.MapAnswered(
                user=user.kind,
                start=start,
                npages=end - start,
                owner=where,
                conversion=THIS,
                result=None if answer is None else answer.result,
                detail=detail(user=user.name),
            )
