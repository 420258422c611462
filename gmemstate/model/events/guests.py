"""Hosts and guests: their births and deaths, memslots and guest_memfds."""

from gmemstate.model.events.fields import Errno, Flag, GmemRef, GuestRef
from gmemstate.model.events.registry import Event, kind
from gmemstate.model.events.words import Dialect


@kind(10, "boot id")
class HostBooted(Event):
    """The host was started again: messed-up pages that a reboot clears are clear."""


@kind(11, "kvm=0x... in a line", {"pointer": "value", "thread": "actor", "made": "result"})
class VmSeen(Event):
    """A guest is first observed; ``owner`` is its identity from here on.

    ``made`` is 1 if that line belongs to making its first memslot or guest_memfd, 0 if the record begins later than it.
    """

    owner: GuestRef
    made: Flag | None = None
    pointer: int | None = None
    thread: int | None = None


@kind(12, "KVM_CREATE_VM", {"dialect": "value"})
class VmCreated(Event):
    """The birth of a guest is on record: nothing can have been converted before."""

    owner: GuestRef
    dialect: Dialect = Dialect.UNKNOWN


@kind(13, "kvm_destroy_vm")
class VmDestroyed(Event):
    """A guest is gone, and its attributes with it."""

    owner: GuestRef


@kind(14, "kvm_vm_bugged, TDX_BUG_ON", {"cause": "value"})
class VmBugged(Event):
    """KVM has marked the guest as bugged: all its ioctls answer EIO."""

    owner: GuestRef | None = None
    cause: int | None = None


@kind(15, "kvm_vm_dead", {"cause": "value"})
class VmDead(Event):
    """The guest is dead by its own or the VMM's fault."""

    owner: GuestRef | None = None
    cause: int | None = None


@kind(16, "kvm_userspace_exit", {"reason": "value", "thread": "actor"})
class VcpuExited(Event):
    """KVM_RUN returned to the VMM with an exit ``reason``; recorded where it explains what the thread does next."""

    thread: int
    owner: GuestRef | None = None
    reason: int | None = None
    result: Errno | None = None


@kind(17, "kvm_range_has_memory_attributes, kvm_gmem_bind", {"dialect": "value"})
class DialectSeen(Event):
    """The kernel has functions that only one dialect has: it is known where the attributes of the guest live."""

    owner: GuestRef
    dialect: Dialect


@kind(20, "KVM_SET_USER_MEMORY_REGION2", {"flags": "value", "slot": "actor"})
class SlotSet(Event):
    """A memslot was set; ``npages`` 0 deletes it; ``slot`` is ``as_id << 16 | id``; ``detail`` has the hva."""

    slot: int
    owner: GuestRef | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    result: Errno | None = None


@kind(21, "kvm_gmem_create", {"flags": "value", "vm": "actor"})
class GmemCreated(Event):
    """A guest_memfd was created with ``npages`` pages; ``owner`` is its identity from here on (None if it failed)."""

    vm: GuestRef | None
    npages: int
    flags: int
    result: Errno
    owner: GmemRef | None = None


@kind(22, "inode=0x... in a line", {"pointer": "value", "vm": "actor"})
class GmemSeen(Event):
    """A guest_memfd whose creation is not on record is first observed, or again and its guest is known now."""

    owner: GmemRef
    pointer: int | None = None
    vm: GuestRef | None = None


@kind(23, "kvm_gmem_bind", {"index": "value", "gmem": "actor"})
class GmemBound(Event):
    """Gfns ``start, npages`` of the guest ``owner`` are backed by a guest_memfd from page ``index`` on."""

    owner: GuestRef | None
    start: int
    npages: int
    index: int | None = None
    gmem: GmemRef | None = None
    result: Errno = 0


@kind(24, "kvm_gmem_unbind", {"index": "value"})
class GmemUnbound(Event):
    """Gfns ``start, npages`` of the guest lose their guest_memfd."""

    owner: GuestRef | None
    start: int
    npages: int
    index: int | None = None


@kind(25, "kvm_gmem_release")
class GmemReleased(Event):
    """The last file of a guest_memfd was closed; slots that were bound to it have no memory."""

    owner: GmemRef | None
    npages: int | None = None
