"""Devices, pins, tasks, and what kernels, VMMs and operators report."""

from gmemstate.model.events.fields import ConversionRef, Errno, OwnerRef
from gmemstate.model.events.registry import Event, kind


@kind(80, "vfio, iommufd map", {"holder": "actor", "iova": "value"})
class DmaMapped(Event):
    """Pages were mapped for a device."""

    owner: OwnerRef | None
    start: int
    npages: int
    holder: int | None = None
    iova: int | None = None
    result: Errno = 0


@kind(81, "vfio, iommufd unmap", {"holder": "actor", "iova": "value"})
class DmaUnmapped(Event):
    """Pages were unmapped from a device."""

    owner: OwnerRef | None
    start: int
    npages: int
    holder: int | None = None
    iova: int | None = None
    result: Errno = 0


@kind(82, "pin_user_pages", {"holder": "actor"})
class Pinned(Event):
    """Pages were pinned, or a reference to them taken."""

    owner: OwnerRef | None
    start: int
    npages: int
    holder: int | None = None


@kind(83, "unpin_user_pages", {"holder": "actor"})
class Unpinned(Event):
    """Pages were let go."""

    owner: OwnerRef | None
    start: int
    npages: int
    holder: int | None = None


@kind(89, "DMAR fault", {"holder": "actor"})
class DmaFaulted(Event):
    """A device accessed pages that its IOMMU no longer maps: unlike a processor it cannot fault them in."""

    owner: OwnerRef | None
    start: int
    npages: int
    holder: int | None = None


@kind(84, "Spinning on folio", {"references": "value"})
class Spinning(Event):
    """A conversion waits for a reference that may never go away."""

    conversion: ConversionRef | None = None
    owner: OwnerRef | None = None
    references: int | None = None


@kind(85, "hung_task", {"thread": "actor"})
class TaskStuck(Event):
    """A task makes no progress."""

    thread: int
    conversion: ConversionRef | None = None
    owner: OwnerRef | None = None


@kind(86, "signal_generate, mark_victim", {"signal": "value", "thread": "actor", "reason": "result"})
class TaskSignalled(Event):
    """A thread was sent a signal (``reason`` is si_code; 128 from the kernel); ``conversion`` is what it was inside of."""

    thread: int
    signal: int
    reason: int | None = None
    owner: OwnerRef | None = None
    conversion: ConversionRef | None = None


@kind(87, "WARN, oops", {"thread": "actor"})
class KernelWarned(Event):
    """The kernel printed a warning; ``detail`` has the site, the function and the entry path."""

    thread: int | None = None
    owner: OwnerRef | None = None


@kind(88, "a line of a VMM")
class VmmSaid(Event):
    """A VMM reported something; ``detail`` has its code, text and numbers."""

    owner: OwnerRef | None = None
    result: Errno | None = None


@kind(90, "an operator", {"how": "result"})
class Declared(Event):
    """Somebody states what became of a conversion that has no result: 0 all new, 1 all old, 2 unknown."""

    conversion: ConversionRef
    how: int
    owner: OwnerRef | None = None


@kind(91, "the process that carried out the conversion died")
class Interrupted(Event):
    """Whoever carried out a conversion is gone and left it in the middle; what it had changed is torn."""

    conversion: ConversionRef
    owner: OwnerRef | None = None
