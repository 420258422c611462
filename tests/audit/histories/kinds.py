"""Who may touch and hold which pages: INV-03, 04, 05, 06, 07, 08, 25, 27, 28, 44, 48, 49."""

from errno import EAGAIN, EFAULT

from gmemstate.model import events as e
from gmemstate.model.events import Access, User
from gmemstate.model.machines.range import PRIVATE, SHARED
from tests.audit.histories.telling import EACCES, INPLACE, MAINLINE, PIN, RFC_V2, breaks, holds
from tests.audit.story import Story


@breaks("INV-03", INPLACE)
def a_page_of_the_host_becomes_private(s: Story) -> int:
    s.touched(Access.HOST, 3)
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.HOST, 0, 3)
    s.tested(c, 0, 8)
    return s.stored(c, 0, 8, PRIVATE)


@holds("INV-03", INPLACE)
def the_host_loses_it_first(s: Story) -> None:
    s.touched(Access.HOST, 3)
    s.converted(0, 8, PRIVATE)


@breaks("INV-04", RFC_V2)
def a_page_of_a_device_becomes_private(s: Story) -> int:
    s.add(e.DmaMapped(owner=s.gmem, start=3, npages=1))
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.tested(c, 0, 8)
    return s.stored(c, 0, 8, PRIVATE)


@breaks("INV-04", INPLACE)
def a_pinned_page_becomes_private_untested(s: Story) -> int:
    s.add(e.Pinned(owner=s.gmem, start=3, npages=1))
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.HOST, 0, 8)
    return s.stored(c, 0, 8, PRIVATE)


@holds("INV-04", INPLACE)
def the_pin_goes_or_is_not_there_any_more(s: Story) -> None:
    s.add(e.Pinned(owner=s.gmem, start=3, npages=1))
    s.add(e.Pinned(owner=s.gmem, start=5, npages=1))
    s.add(e.Unpinned(owner=s.gmem, start=3, npages=1))
    s.converted(0, 8, PRIVATE)


@breaks("INV-05", INPLACE)
def the_host_touches_a_private_page(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    return s.touched(Access.HOST, 3)


@holds("INV-05", INPLACE)
def the_host_is_sent_away(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.touched(Access.HOST, 3, result=EACCES)
    s.touched(Access.HOST, 9)


@holds("INV-05", INPLACE)
def a_touch_beside_an_open_conversion_says_nothing(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.touched(Access.HOST, 3, result=EACCES)
    s.ask(0, 8, SHARED)
    s.touched(Access.HOST, 3)


@breaks("INV-06", MAINLINE)
def private_memory_for_a_shared_page(s: Story) -> int:
    return s.touched(Access.GUEST_PRIVATE, 3)


@holds("INV-06", MAINLINE)
def private_memory_for_a_private_page(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.touched(Access.GUEST_PRIVATE, 3)
    s.touched(Access.GUEST_SHARED, 9)


@breaks("INV-07", INPLACE)
def two_equal_runs_side_by_side(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(8, 8, PRIVATE)
    s.zapped(c, 8, 8)
    s.tested(c, 8, 8)
    return s.stored(c, 8, 8, PRIVATE)


@holds("INV-07", INPLACE)
def two_equal_runs_are_one(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    c = s.ask(8, 8, PRIVATE)
    s.zapped(c, 8, 8)
    s.tested(c, 8, 8)
    s.stored(c, 0, 16, PRIVATE)


@breaks("INV-08", INPLACE)
def a_page_has_no_attribute(s: Story) -> int:
    s.add(e.KernelWarned(thread=1, owner=s.vm, detail=e.detail(what="WARNING", function="kvm_gmem_get_pfn")))
    return s.add(e.KernelWarned(thread=1, detail=e.detail(what="WARNING", function="kvm_gmem_get_attributes")))


@breaks("INV-25", MAINLINE)
def the_host_maps_a_private_file(s: Story) -> int:
    return s.touched(Access.HOST, 3)


@holds("INV-25", MAINLINE)
def the_host_may_not_map_a_private_file(s: Story) -> None:
    s.touched(Access.HOST, 3, result=EACCES)


def a_slot_of_huge_ranges(s: Story) -> None:
    """Gfns 0x200 to 0x600: two huge ranges, pages 0x100 and 0x300 of the story."""
    s.add(e.SlotSet(slot=1, owner=s.vm, start=0x200, npages=0x400, flags=0, result=0))


@breaks("INV-27", MAINLINE)
def a_mixed_range_is_held_off(s: Story) -> int:
    a_slot_of_huge_ranges(s)
    s.converted(0x102, 1, PRIVATE)
    c = s.ask(0x105, 1, PRIVATE)
    return s.held_off(c, 0x100, 512)


@breaks("INV-27", MAINLINE)
def a_range_beyond_its_slot_is_held_off(s: Story) -> int:
    a_slot_of_huge_ranges(s)
    return s.held_off(s.ask(0x4FF, 1, PRIVATE), 0x500, 512)


@holds("INV-27", MAINLINE)
def a_range_of_one_kind_is_held_off(s: Story) -> None:
    a_slot_of_huge_ranges(s)
    s.held_off(s.ask(0x102, 1, PRIVATE), 0x100, 512)


@holds("INV-27", MAINLINE)
def the_other_range_is_held_off(s: Story) -> None:
    a_slot_of_huge_ranges(s)
    s.converted(0x102, 1, PRIVATE)
    s.held_off(s.ask(0x305, 1, PRIVATE), 0x300, 512)


@breaks("INV-28", MAINLINE)
def a_huge_entry_of_two_kinds(s: Story) -> int:
    s.converted(0x102, 1, PRIVATE)
    return s.touched(Access.GUEST, 0x100, 512)


@holds("INV-28", MAINLINE)
def a_huge_entry_of_one_kind(s: Story) -> None:
    s.converted(0x102, 1, PRIVATE)
    s.touched(Access.GUEST, 0x300, 512)
    s.touched(Access.GUEST, 0x100, 512, detail=e.detail(last=900, lines=512))


@breaks("INV-44", INPLACE)
def a_punch_makes_pages_private(s: Story) -> int:
    s.punched(0, 8)
    return s.touched(Access.HOST, 3, result=EACCES)


@breaks("INV-44", INPLACE)
def a_neighbour_has_changed(s: Story) -> int:
    c = s.ask(8, 8, PRIVATE)
    s.zapped(c, 8, 8)
    s.answered(c, User.HOST, 8, 8)
    s.tested(c, 8, 8)
    return s.stored(c, 4, 12, PRIVATE)


@breaks("INV-44", INPLACE)
def a_store_by_nobody(s: Story) -> int:
    return s.stored(None, 4, 4, PRIVATE)


@holds("INV-44", INPLACE)
def a_punch_changes_nothing(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.punched(0, 16)
    s.touched(Access.HOST, 3, result=EACCES)
    s.touched(Access.HOST, 12)


@breaks("INV-48", INPLACE, "simulation")
def kvm_holds_a_private_page(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    return s.tested(c, 3, 1, EAGAIN, references=3, expected=2)


@holds("INV-48", INPLACE, "simulation")
def somebody_holds_a_private_page(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.add(e.Pinned(owner=s.gmem, start=3, npages=1))
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    s.tested(c, 3, 1, EAGAIN, references=2 + PIN, expected=2)


@breaks("INV-49", INPLACE, "simulation")
def the_guest_is_in_the_way(s: Story) -> int:
    s.touched(Access.GUEST_SHARED, 3)
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    return s.tested(c, 3, 1, EAGAIN, references=3, expected=2)


@holds("INV-49", INPLACE, "simulation")
def a_user_that_refuses_is_in_the_way(s: Story) -> None:
    s.touched(Access.GUEST_SHARED, 3)
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    s.answered(c, User.HOST, 0, 16, result=EFAULT)
    s.tested(c, 3, 1, EAGAIN, references=3, expected=2)
