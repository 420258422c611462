"""Sources, guests, their slots and their guest_memfds."""

from gmemstate.model import events as e
from gmemstate.model.events import ACTOR, DETAIL, NPAGES, OWNER, RESULT, SOURCE, START, VALUE, T
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import HOLE, Gmem, GuestEnd, Slot, Source, Vm
from gmemstate.model.units import END, Gfn, PageIndex, unsigned


def source_opened(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A file, stream or simulation that events come from; its detail says of which format."""
    memory.sources[seq] = Source(seq)


def clock_pair(memory: Memory, seq: int, row: e.EventRow) -> None:
    """The clocks of two sources are compared: how many ns the one is ahead of the other."""
    source, other = memory.sources.get(row[SOURCE] or 0), memory.sources.get(row[ACTOR] or 0)
    if source is not None and other is not None and row[T] is not None and row[VALUE] is not None:
        source.reference, source.ahead = other.id, row[T] - row[VALUE]
        source.shared = other.shared = True


def source_shows(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A source has proven that it shows a kind of step: where one is missing there, it did not happen."""
    shower = memory.vms.get(row[OWNER] or 0) or memory.sources.get(row[SOURCE] or 0)
    if shower is not None and row[VALUE] is not None:
        shower.shows |= {row[VALUE]}


def source_read(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A source was read to its end; what its open conversions showed until then is kept."""
    if source := memory.sources.get(row[SOURCE] or 0):
        source.read, source.last_read = True, seq
        for conversion in memory.open_conversions():
            if conversion.source == source.id:
                conversion.last, conversion.shown = seq, memory.shows(conversion)


def gap(memory: Memory, seq: int, row: e.EventRow) -> None:
    """Whatever was settled may have changed unseen, and what was going on is torn (R10, C22).

    Memslots may be others, guests may have been given any answer, and the flags of a guest_memfd no longer say its state.
    """
    source = memory.sources.get(row[SOURCE] or 0)
    if row[ACTOR] == e.GapKind.LATE:
        if source is not None and row[T] is not None:
            source.late.append(seq)
            source.until = row[T]
            memory.late.add(source.id)
        return
    if source is not None:
        source.gaps.append(seq)
    for conversion in memory.open_conversions():
        if conversion.source == row[SOURCE] and row[OWNER] in (None, memory.vm_of(conversion), conversion.owner):
            conversion.gapped, conversion.last = True, seq
            memory.move(conversion, "cut", seq)
    for owner in list(memory.ranges):
        if memory.source_of(owner) in (None, row[SOURCE]) and row[OWNER] in (None, owner, memory.guest_id(owner)):
            memory.step_everything(owner, "gap")
    for gmem in memory.gmems.values():
        if memory.source_of(gmem.id) in (None, row[SOURCE]):
            gmem.flags = None
    for vm in memory.vms.values():
        if vm.source == row[SOURCE]:
            vm.born, vm.slots, vm.ghosts = False, {}, []
    memory.exits = {key: exit for key, exit in memory.exits.items() if key[0] != row[SOURCE]}
    memory.open_request = {key: request for key, request in memory.open_request.items() if key[0] != row[SOURCE]}


def host_booted(memory: Memory, seq: int, row: e.EventRow) -> None:
    """What a reboot clears is clear. A log that has a reboot in it does not say when other logs were written."""
    for entry in list(memory.messed_up.values()):
        if entry.cleared_by == "reboot" and row[SOURCE] in (None, entry.source):
            memory.mark(entry, "rebooted", seq)


def vm_seen(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A guest is first observed, at the address of its struct kvm (kvm_create_vm)."""
    pointer = None if row[VALUE] is None else unsigned(row[VALUE])
    memory.vms[seq] = Vm(seq, len(memory.vms) + 1, row[SOURCE], pointer, row[ACTOR], row[DETAIL], bool(row[RESULT]))


def vm_created(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R1. The attributes of a new VM are an empty xarray: everything is shared, where the VM's attributes count."""
    vm = memory.vms.get(row[OWNER] or 0)
    if vm is None:
        return
    vm.born = True
    vm.dialect = e.Dialect(row[VALUE] or vm.dialect)
    memory.step(vm.id, "born_shared", 0, END, seq)


def dialect_seen(memory: Memory, seq: int, row: e.EventRow) -> None:
    """The kernel has shown a function that one dialect alone has: the guest's attributes live where that one keeps them."""
    if vm := memory.vms.get(row[OWNER] or 0):
        vm.dialect = e.Dialect(row[VALUE] or 0)


def vm_destroyed(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R22: kvm_destroy_vm() frees the attributes with the VM."""
    if vm := memory.vms.get(row[OWNER] or 0):
        memory.destroy(vm, seq)


def vm_bugged(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R21: kvm_vm_bugged() is final; attributes are as they were, and every ioctl returns EIO from here on."""
    if vm := memory.vms.get(row[OWNER] or 0):
        memory.keep(vm.id, "vm_bugged", 0, END, seq)
        vm.gone = GuestEnd.BUGGED


def vm_dead(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R21: kvm_vm_dead() is final, like kvm_vm_bugged(); the first of the two is kept."""
    if vm := memory.vms.get(row[OWNER] or 0):
        memory.keep(vm.id, "vm_bugged", 0, END, seq)
        vm.gone = vm.gone or GuestEnd.DEAD


def slot_set(memory: Memory, seq: int, row: e.EventRow) -> None:
    """R19. A slot never changes an attribute; on in-place kernels it may change which attribute counts."""
    vm = memory.vms.get(row[OWNER] or 0)
    if row[RESULT] or row[ACTOR] is None:
        return
    if vm is None:
        if source := memory.sources.get(row[SOURCE] or 0):
            source.blind = True
        return
    for start, npages in {
        (row[START], row[NPAGES]),
        *((slot.start, slot.npages) for slot in [vm.slots.get(row[ACTOR])] if slot),
    }:
        if start is not None and npages:
            memory.keep(vm.id, "slot_changed", start, start + npages, seq)
    old = vm.slots.pop(row[ACTOR], None)
    if old is not None and old.has_gmem:
        vm.ghosts.append(old)
    if not row[NPAGES] or row[START] is None:
        return
    slot = Slot(row[ACTOR], Gfn(row[START]), row[NPAGES], row[VALUE])
    if old is not None and (old.start, old.npages) == (slot.start, slot.npages):
        slot.gmem, slot.index = old.gmem, old.index
    vm.slots[slot.id] = slot
    if slot.has_gmem is False:
        _look_for_a_swap(memory, seq, vm, slot)
    vm.ghosts = [ghost for ghost in vm.ghosts if ghost.end <= slot.start or slot.end <= ghost.start]


def _look_for_a_swap(memory: Memory, seq: int, vm: Vm, slot: Slot) -> None:
    """Find private gfns that a plain slot takes over from a deleted slot with a guest_memfd (SC-44, IP-33)."""
    for ghost in vm.ghosts:
        start, end = max(ghost.start, slot.start), min(ghost.end, slot.end)
        if start >= end:
            continue
        gmem = memory.gmems.get(ghost.gmem or 0)
        owner, shift = vm.id, 0
        if gmem is not None and gmem.inplace and ghost.index is not None:
            owner, shift = gmem.id, ghost.start - ghost.index
        for run in memory.runs(owner, start - shift, end - shift):
            if run.state == PRIVATE:
                memory.find(
                    "SLOT-SWAP-FLIP", seq, "private memory replaced by a plain slot", vm.id, run.start + shift, run.end + shift
                )


def gmem_created(memory: Memory, seq: int, row: e.EventRow) -> None:
    """kvm_gmem_create(): a file of holes; a guest of an in-place kernel has its attributes in the inode from here on."""
    if row[OWNER] is None or row[RESULT]:
        return
    gmem = Gmem(row[OWNER], row[ACTOR], row[NPAGES], row[VALUE])
    gmem.backing.set(0, row[NPAGES] or END, HOLE)
    memory.gmems[gmem.id] = gmem
    guest_id = memory.vms.get(row[ACTOR] or 0)
    if guest_id is not None and guest_id.dialect not in (e.Dialect.UNKNOWN, e.Dialect.MAINLINE):
        memory.activate(gmem.id, seq)


def gmem_seen(memory: Memory, seq: int, row: e.EventRow) -> None:
    """A guest_memfd is first observed, by the address of its struct file or inode."""
    if known := memory.gmems.get(row[OWNER] or 0):
        known.vm = known.vm if known.vm is not None else row[ACTOR]
        return
    pointer = None if row[VALUE] is None else unsigned(row[VALUE])
    memory.gmems[seq] = Gmem(seq, row[ACTOR], pointer=pointer)


def gmem_bound(memory: Memory, seq: int, row: e.EventRow) -> None:
    """kvm_gmem_bind(): the pages of a memslot are those of the file from its index on."""
    vm = memory.vms.get(row[OWNER] or 0)
    if vm is None or row[RESULT] or row[START] is None:
        return
    for slot in vm.slots.values():
        if slot.start == row[START] and slot.npages == row[NPAGES]:
            slot.gmem = row[ACTOR] if row[ACTOR] is not None else slot.gmem
            slot.index = None if row[VALUE] is None else PageIndex(row[VALUE])
    if gmem := memory.gmems.get(row[ACTOR] or 0):
        gmem.bound = True
        gmem.vm = vm.id if gmem.vm is None else gmem.vm


def gmem_unbound(memory: Memory, seq: int, row: e.EventRow) -> None:
    """kvm_gmem_unbind(): the memslot has no file any more."""
    vm = memory.vms.get(row[OWNER] or 0)
    for slot in vm.slots.values() if vm else ():
        if slot.start == row[START] and slot.npages == row[NPAGES]:
            slot.gmem = slot.index = None


def gmem_released(memory: Memory, seq: int, row: e.EventRow) -> None:
    """kvm_gmem_release(): the file is closed, its pages are freed; the attributes go with the inode."""
    if gmem := memory.gmems.get(row[OWNER] or 0):
        memory.keep(gmem.id, "backing_changed", 0, END, seq)
        gmem.released = True


HANDLERS = {
    e.SourceOpened.code: source_opened,
    e.ClockPair.code: clock_pair,
    e.SourceShows.code: source_shows,
    e.SourceRead.code: source_read,
    e.Gap.code: gap,
    e.HostBooted.code: host_booted,
    e.VmSeen.code: vm_seen,
    e.VmCreated.code: vm_created,
    e.DialectSeen.code: dialect_seen,
    e.VmDestroyed.code: vm_destroyed,
    e.VmBugged.code: vm_bugged,
    e.VmDead.code: vm_dead,
    e.SlotSet.code: slot_set,
    e.GmemCreated.code: gmem_created,
    e.GmemSeen.code: gmem_seen,
    e.GmemBound.code: gmem_bound,
    e.GmemUnbound.code: gmem_unbound,
    e.GmemReleased.code: gmem_released,
}
