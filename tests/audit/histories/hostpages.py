"""What becomes of host pages: INV-22, 23, 26, 31, 33, 34, 45."""

from errno import EAGAIN, EINVAL

from gmemstate.model import events as e
from gmemstate.model.events import Access, UnmapStep
from gmemstate.model.machines.range import PRIVATE
from tests.audit.histories.telling import EHWPOISON, INPLACE, MAINLINE, breaks, holds
from tests.audit.story import GFN, Story


@breaks("INV-22", MAINLINE)
def a_page_that_did_not_come_off_is_given_away(s: Story) -> int:
    s.unmap_fails(3, pfn=0x77)
    return s.add(e.PageAdded(owner=s.gmem, start=20, npages=16, pfn=0x70))


@breaks("INV-22", INPLACE)
def the_host_maps_a_page_that_did_not_come_off(s: Story) -> int:
    s.unmap_fails(3)
    return s.touched(Access.HOST, 3)


@breaks("INV-22", MAINLINE)
def a_page_that_did_not_come_off_is_freed_and_given_away(s: Story) -> int:
    s.unmap_fails(3)
    s.add(e.PageFreed(owner=s.gmem, start=0, npages=8, pfn=0x70))
    return s.add(e.PrivateMapped(pfn=0x73))


@holds("INV-22", MAINLINE)
def other_pages_and_the_next_boot(s: Story) -> None:
    s.unmap_fails(3, pfn=0x77)
    s.add(e.PageAdded(owner=s.gmem, start=20, npages=7, pfn=0x70))
    s.add(e.HostBooted())
    s.add(e.PageAdded(owner=s.gmem, start=30, npages=1, pfn=0x77))


@holds("INV-22", MAINLINE)
def a_page_that_is_kept(s: Story) -> None:
    s.unmap_fails(3)
    s.unmap_fails(4, pfn=0x99)
    s.add(e.PageFreed(owner=s.gmem, start=0, npages=4, pfn=0x70, detail=e.detail(kept="its reference is never put")))
    s.add(e.PrivateMapped(pfn=0x73))


@breaks("INV-23", MAINLINE)
def a_leaked_page_is_seen_again(s: Story) -> int:
    s.add(e.PageLeaked(pfn=0x70, npages=16))
    return s.touched(Access.GUEST, 3, pfn=0x7F)


@holds("INV-23", MAINLINE)
def a_page_beside_the_leaked_ones(s: Story) -> None:
    s.add(e.PageLeaked(pfn=0x70, npages=16))
    s.touched(Access.GUEST, 3, pfn=0x80)


@breaks("INV-26", MAINLINE)
def a_punch_fails(s: Story) -> int:
    return s.punched(0, 64, EAGAIN)


@holds("INV-26", MAINLINE)
def a_punch_behind_the_end_fails(s: Story) -> None:
    s.punched(0, 64)
    s.punched(60, 8, EINVAL)


@breaks("INV-31", MAINLINE)
def busy_for_good(s: Story) -> int:
    return s.unmap_fails(3, status=0x8000_0200)


@holds("INV-31", MAINLINE)
def another_error(s: Story) -> None:
    s.unmap_fails(3, status=0xC000_0B0A)


@breaks("INV-33", INPLACE)
def the_rmp_is_not_updated(s: Story) -> int:
    return s.unmap_fails(3, UnmapStep.RMPUPDATE)


@breaks("INV-34", INPLACE)
def a_guest_is_given_poison(s: Story) -> int:
    s.punched(20, 1)
    s.add(e.Poisoned(owner=s.gmem, start=3, npages=1))
    return s.touched(Access.GUEST, 0, 8)


@holds("INV-34", INPLACE)
def poison_is_refused_until_it_is_punched(s: Story) -> None:
    s.add(e.Poisoned(owner=s.gmem, start=3, npages=1))
    s.touched(Access.GUEST, 3, result=EHWPOISON)
    s.add(e.MemoryFaultExit(thread=9, owner=s.vm, start=GFN + 3, npages=1, flags=8, result=EHWPOISON))
    s.punched(0, 8)
    s.touched(Access.GUEST, 3)


@breaks("INV-45", INPLACE)
def another_host_page_behind_a_conversion(s: Story) -> int:
    s.touched(Access.GUEST, 3, pfn=0x70)
    s.converted(0, 8, PRIVATE)
    return s.touched(Access.GUEST, 3, pfn=0x71)


@holds("INV-45", INPLACE)
def the_same_host_page_until_a_punch(s: Story) -> None:
    s.touched(Access.GUEST, 3, pfn=0x70)
    s.converted(0, 8, PRIVATE)
    s.touched(Access.GUEST, 3, pfn=0x70)
    s.punched(3, 1)
    s.touched(Access.GUEST, 3, pfn=0x71)
