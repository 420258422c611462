"""Memslots, requests, and the end of a VM: INV-24, 29, 32, 37, 38."""

from errno import EFAULT, EINVAL, EIO

from gmemstate.model import events as e
from gmemstate.model.events import RequestPath
from gmemstate.model.machines.range import PRIVATE, SHARED
from tests.audit.histories.telling import INPLACE, MAINLINE, breaks, holds
from tests.audit.story import GFN, Story


@breaks("INV-24", MAINLINE)
def an_ioctl_of_a_bugged_vm(s: Story) -> int:
    s.add(e.VmBugged(owner=s.vm))
    return s.returned(s.ask(0, 8, PRIVATE), EINVAL)


@breaks("INV-24", INPLACE)
def fallocate_of_a_bugged_vm(s: Story) -> int:
    s.add(e.VmBugged(owner=s.vm))
    return s.add(e.Punched(mode=1, result=EIO, owner=s.gmem, start=0, npages=8))


@breaks("INV-24", INPLACE, "simulation")
def a_memslot_of_a_dead_vm(s: Story) -> int:
    s.add(e.VmDead(owner=s.vm))
    return s.add(e.SlotSet(slot=1, owner=s.vm, start=0x900, npages=4, flags=0, result=0))


@holds("INV-24", MAINLINE)
def eio_and_a_punch(s: Story) -> None:
    before = s.ask(0, 8, PRIVATE, thread=2)
    s.add(e.VmBugged(owner=s.vm))
    s.returned(s.ask(0, 8, PRIVATE), EIO)
    s.returned(before, EFAULT)
    s.punched(0, 8)


@holds("INV-24", INPLACE)
def a_guest_memfd_of_a_bugged_vm(s: Story) -> None:
    s.add(e.VmBugged(owner=s.vm))
    s.converted(0, 8, PRIVATE)


@breaks("INV-29", MAINLINE)
def two_memslots_over_one_gfn(s: Story) -> int:
    return s.add(e.SlotSet(slot=1, owner=s.vm, start=GFN + 60, npages=8, flags=0, result=0))


@breaks("INV-29", INPLACE)
def two_bindings_of_one_page(s: Story) -> int:
    s.add(e.SlotSet(slot=1, owner=s.vm, start=0x900, npages=4, flags=4, result=0))
    return s.add(e.GmemBound(owner=s.vm, start=0x900, npages=4, index=60, gmem=s.gmem))


@holds("INV-29", INPLACE)
def memslots_that_take_the_place_of_others(s: Story) -> None:
    s.add(e.SlotSet(slot=0x10000, owner=s.vm, start=GFN, npages=8, flags=0, result=0))
    s.add(e.SlotSet(slot=0, owner=s.vm, start=GFN, npages=0, flags=0, result=0))
    s.add(e.SlotSet(slot=1, owner=s.vm, start=GFN, npages=64, flags=4, result=0))
    s.add(e.GmemBound(owner=s.vm, start=GFN, npages=64, index=0, gmem=s.gmem))
    s.add(e.SlotSet(slot=0, owner=s.guest(), start=GFN, npages=8, flags=0, result=0))


@breaks("INV-32", MAINLINE)
def map_gpa_goes_on_behind_the_request(s: Story) -> int:
    request = s.guest_asks(0, 512, RequestPath.TDVMCALL)
    return s.guest_told(request, 1, next_gpa=(GFN + 513) << 12)


@breaks("INV-32", MAINLINE)
def map_gpa_goes_on_inside_of_a_chunk(s: Story) -> int:
    request = s.guest_asks(0, 1024, RequestPath.TDVMCALL)
    return s.guest_told(request, 1, next_gpa=(GFN + 100) << 12)


@holds("INV-32", MAINLINE)
def map_gpa_goes_on_behind_a_chunk(s: Story) -> None:
    s.guest_told(s.guest_asks(0, 1024, RequestPath.TDVMCALL), 1, next_gpa=(GFN + 512) << 12)


@breaks("INV-37", MAINLINE)
def kvm_does_not_take_the_answer(s: Story) -> int:
    s.guest_asks(0, 8, RequestPath.PSC_MSR)
    return s.add(e.VcpuExited(thread=9, owner=s.vm, reason=3, result=EINVAL))


@holds("INV-37", MAINLINE)
def kvm_takes_the_answer(s: Story) -> None:
    s.guest_told(s.guest_asks(0, 8, RequestPath.PSC_MSR), 0x100 << 32)


@breaks("INV-38", MAINLINE)
def told_of_success_half_converted(s: Story) -> int:
    request = s.guest_asks(0, 8, RequestPath.VMCALL)
    s.converted(0, 4, PRIVATE, thread=9)
    return s.guest_told(request, 0)


@breaks("INV-38", MAINLINE)
def told_of_success_and_nothing_was_done(s: Story) -> int:
    return s.guest_told(s.guest_asks(0, 8, RequestPath.TDVMCALL), 0)


@holds("INV-38", MAINLINE)
def told_of_success_with_two_conversions(s: Story) -> None:
    request = s.guest_asks(0, 8, RequestPath.VMCALL)
    s.converted(0, 4, PRIVATE, thread=9)
    s.converted(4, 4, PRIVATE, thread=9)
    s.guest_told(request, 0)


@holds("INV-38", MAINLINE)
def somebody_else_converts_it_back(s: Story) -> None:
    s.guest_told(s.guest_asks(32, 8, RequestPath.TDVMCALL, flags=0), 0)
    request = s.guest_asks(0, 8, RequestPath.VMCALL)
    s.converted(0, 8, PRIVATE, thread=9)
    s.converted(0, 8, SHARED, thread=2)
    s.guest_told(request, 0)
