"""For each invariant a story that breaks it, and one that nearly does.

A story that breaks something returns the seq of the event that shows it.
"""

from collections.abc import Callable
from errno import EAGAIN, EFAULT, EINVAL, EIO, ENOMEM
from typing import NamedTuple

from gmemstate.model import events as e
from gmemstate.model.events import Access, Dialect, RequestPath, UnmapStep, User
from gmemstate.model.machines import PRIVATE, SHARED
from tests.audit.story import GFN, Story

EACCES, EHWPOISON = 13, 133
PIN = 1024
MAINLINE, RFC_V2, INPLACE, CHECK_FIRST = Dialect.MAINLINE, Dialect.RFC_V2, Dialect.INPLACE, Dialect.CHECK_FIRST


class Tale(NamedTuple):
    """A story about one invariant."""

    invariant: str
    breaks: bool
    name: str
    dialect: Dialect
    format: str
    tell: Callable[[Story], int | None]
    also: tuple[str, ...] = ()
    """other invariants that it breaks as well"""

    def told(self) -> tuple[Story, int | None]:
        """The story, and the seq of the event that shows what is wrong."""
        story = Story(self.dialect, self.format)
        return story, self.tell(story)


TALES: list[Tale] = []
Teller = Callable[[Story], int | None]


def breaks(invariant: str, dialect: Dialect, format: str = "ftrace", also: tuple[str, ...] = ()) -> Callable[[Teller], Teller]:
    def register(tell: Teller) -> Teller:
        TALES.append(Tale(invariant, True, tell.__name__, dialect, format, tell, also))
        return tell

    return register


def holds(invariant: str, dialect: Dialect, format: str = "ftrace") -> Callable[[Teller], Teller]:
    def register(tell: Teller) -> Teller:
        TALES.append(Tale(invariant, False, tell.__name__, dialect, format, tell))
        return tell

    return register


# --- INV-01, 02: all or nothing -------------------------------------------------------------------------------------


@breaks("INV-01", RFC_V2)
def an_errno_leaves_the_second_item_new(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 16)
    s.zapped(c, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 16, PRIVATE)
    s.undone(c, 0, 8)
    return s.returned(c, ENOMEM)


@breaks("INV-01", INPLACE)
def success_writes_half_of_the_pages(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    s.answered(c, User.HOST, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 8, PRIVATE)
    return s.returned(c)


@breaks("INV-01", INPLACE, "simulation")
def in_place_pages_compare_as_what_they_are_not(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(0, 16, SHARED)
    return s.compared(c, 0, 16, SHARED, equal=True)


@holds("INV-01", RFC_V2)
def a_warn_excuses_what_was_not_undone(s: Story) -> None:
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 16)
    s.zapped(c, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 16, PRIVATE)
    s.add(e.FolioMerged(conversion=c, space=s.gmem, start=0, npages=16, result=ENOMEM, order=4))
    s.undone(c, 0, 8)
    s.undone(c, 8, 8, result=ENOMEM)
    s.returned(c, ENOMEM)


@breaks("INV-02", MAINLINE)
def enomem_behind_an_unmap(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    return s.returned(c, ENOMEM)


@breaks("INV-02", MAINLINE)
def pages_compare_as_what_they_are_not(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(4, 8, PRIVATE)
    return s.compared(c, 4, 8, PRIVATE, equal=True)


@breaks("INV-02", MAINLINE)
def private_pages_compare_as_different(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(0, 8, PRIVATE)
    return s.compared(c, 0, 8, PRIVATE, equal=False)


@holds("INV-02", MAINLINE)
def what_is_compared_is_what_was_left(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    failed = s.ask(0, 16, PRIVATE)
    s.compared(failed, 0, 16, PRIVATE, equal=False)
    s.returned(failed, ENOMEM)
    s.compared(s.ask(0, 8, PRIVATE), 0, 8, PRIVATE, equal=True)


@holds("INV-02", MAINLINE)
def entries_without_a_value_compare_as_different(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    c = s.ask(8, 8, SHARED)
    s.compared(c, 8, 8, SHARED, equal=False)
    s.returned(c)
    s.compared(s.ask(0, 16, SHARED), 0, 16, SHARED, equal=False)


# --- INV-03 to 06: who may touch and hold a page --------------------------------------------------------------------


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
    s.add(e.DmaMapped(space=s.gmem, start=3, npages=1))
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.tested(c, 0, 8)
    return s.stored(c, 0, 8, PRIVATE)


@breaks("INV-04", INPLACE)
def a_pinned_page_becomes_private_untested(s: Story) -> int:
    s.add(e.Pinned(space=s.gmem, start=3, npages=1))
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.HOST, 0, 8)
    return s.stored(c, 0, 8, PRIVATE)


@holds("INV-04", INPLACE)
def the_pin_goes_or_is_not_there_any_more(s: Story) -> None:
    s.add(e.Pinned(space=s.gmem, start=3, npages=1))
    s.add(e.Pinned(space=s.gmem, start=5, npages=1))
    s.add(e.Unpinned(space=s.gmem, start=3, npages=1))
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


# --- INV-07, 09, 10: trees and folios -------------------------------------------------------------------------------


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


@breaks("INV-09", RFC_V2)
def too_few_references(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.work(c, 0, 8)
    s.zapped(c, 0, 8)
    return s.tested(c, 3, 1, EAGAIN, references=1, expected=2)


@holds("INV-09", RFC_V2)
def too_many_references(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.work(c, 0, 8)
    s.zapped(c, 0, 8)
    s.tested(c, 3, 1, EAGAIN, references=3, expected=2)


def _huge(s: Story, to: str) -> int:
    """16 pages in one folio, or 16 folios of one page; one page is converted, and the folios are not touched yet."""
    s.add(e.PageAdded(space=s.gmem, start=0, npages=16, pfn=0x1000, order=4))
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 16)
    s.zapped(c, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 16, PRIVATE)
    s.returned(c)
    c = s.ask(3, 1, SHARED)
    s.work(c, 3, 1)
    s.zapped(c, 3, 1)
    s.stored(c, 3, 1, SHARED)
    if to == PRIVATE:
        s.add(e.FolioSplit(conversion=c, space=s.gmem, start=0, npages=16, result=0, order=4))
        s.returned(c)
        c = s.ask(3, 1, PRIVATE)
        s.work(c, 3, 1)
        s.zapped(c, 3, 1)
        s.tested(c, 3, 1)
        s.stored(c, 3, 1, PRIVATE)
    return c


@breaks("INV-10", RFC_V2)
def a_shared_page_in_a_huge_folio(s: Story) -> int:
    return s.returned(_huge(s, SHARED))


@breaks("INV-10", RFC_V2)
def a_private_range_in_small_folios(s: Story) -> int:
    return s.returned(_huge(s, PRIVATE))


@holds("INV-10", RFC_V2)
def split_and_merged(s: Story) -> None:
    c = _huge(s, PRIVATE)
    s.add(e.FolioMerged(conversion=c, space=s.gmem, start=0, npages=16, result=0, order=4))
    s.returned(c)


# --- INV-11, 12, 14, 19, 20: invalidations and turns ----------------------------------------------------------------


@breaks("INV-11", RFC_V2, "simulation")
def two_begins_and_one_end(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.held_off(c, 0, 4)
    s.held_off(c, 4, 4)
    s.ended(c)
    return s.returned(c, ENOMEM)


@breaks("INV-11", RFC_V2, "simulation")
def an_end_of_nothing_more(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.held_off(c, 0, 8)
    s.ended(c)
    return s.ended(c)


@holds("INV-11", RFC_V2, "simulation")
def two_begins_and_two_ends(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.held_off(c, 0, 4)
    s.held_off(c, 4, 4)
    s.ended(c)
    s.ended(c)
    s.returned(c, EAGAIN)


@breaks("INV-12", MAINLINE, "simulation")
def an_end_without_a_range(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8, slot=0)
    return s.ended(c)


@holds("INV-12", MAINLINE, "simulation")
def a_range_and_its_end(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.held_off(c, 0, 8)
    s.zapped(c, 0, 8, slot=0)
    s.ended(c)


@breaks("INV-14", RFC_V2, "simulation")
def a_zap_wider_than_its_invalidation(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.held_off(c, 0, 8)
    return s.zapped(c, 4, 8)


@breaks("INV-14", RFC_V2, "simulation")
def a_binding_changes_inside(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.held_off(c, 0, 16)
    s.zapped(c, 0, 16)
    return s.add(e.GmemBound(space=s.vm, start=0x900, npages=4, index=0x900, gmem=s.gmem))


@holds("INV-14", RFC_V2, "simulation")
def a_zap_inside_of_its_invalidation(s: Story) -> None:
    c = s.ask(3, 1, PRIVATE)
    s.held_off(c, 0, 16)
    s.zapped(c, 3, 1)
    s.ended(c)
    s.add(e.GmemBound(space=s.vm, start=0x900, npages=4, index=0x900, gmem=s.gmem))


@breaks("INV-19", MAINLINE)
def a_noop_zaps(s: Story) -> int:
    c = s.ask(0, 8, SHARED)
    s.compared(c, 0, 8, SHARED, equal=True)
    return s.zapped(c, 0, 8)


@breaks("INV-19", INPLACE)
def a_noop_in_place_zaps(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    return s.zapped(s.ask(2, 4, PRIVATE), 2, 4)


@holds("INV-19", INPLACE)
def a_noop_does_nothing(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    s.returned(s.ask(2, 4, PRIVATE))


@breaks("INV-20", MAINLINE)
def two_conversions_at_once(s: Story) -> int:
    one, other = s.ask(0, 8, PRIVATE, thread=1), s.ask(16, 8, PRIVATE, thread=2)
    s.zapped(one, 0, 8)
    s.zapped(other, 16, 8)
    return s.stored(one, 0, 8, PRIVATE)


@holds("INV-20", MAINLINE)
def two_conversions_in_turn(s: Story) -> None:
    one, other = s.ask(0, 8, PRIVATE, thread=1), s.ask(16, 8, PRIVATE, thread=2)
    s.zapped(one, 0, 8)
    s.stored(one, 0, 8, PRIVATE)
    s.zapped(other, 16, 8)
    s.returned(one)
    s.stored(other, 16, 8, PRIVATE)
    s.returned(other)


# --- INV-15 to 18, 35, 40, 41: answers ------------------------------------------------------------------------------


@breaks("INV-15", INPLACE)
def eagain_names_a_page_behind_the_request(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    return s.returned(c, EAGAIN, 8 << 12)


@breaks("INV-15", INPLACE)
def eagain_names_no_page(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    return s.returned(c, EAGAIN, 0x3008)


@breaks("INV-15", RFC_V2)
def eagain_to_shared(s: Story) -> int:
    s.converted(0, 8, PRIVATE)
    c = s.ask(0, 8, SHARED)
    s.zapped(c, 0, 8)
    return s.returned(c, EAGAIN, 0)


@holds("INV-15", INPLACE)
def eagain_names_the_last_page(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.returned(c, EAGAIN, 7 << 12)


@breaks("INV-16", RFC_V2)
def a_retry_from_rubbish(s: Story) -> int:
    s.returned(s.ask(0, 16, PRIVATE), ENOMEM, 5 << 12)
    return s.ask(5, 11, PRIVATE)


@holds("INV-16", RFC_V2)
def a_retry_from_the_start(s: Story) -> None:
    s.returned(s.ask(0, 16, PRIVATE), ENOMEM, 5 << 12)
    s.ask(0, 16, PRIVATE)


@breaks("INV-17", INPLACE)
def enomem_behind_the_host(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    return s.returned(c, ENOMEM, 0)


@breaks("INV-17", INPLACE)
def enomem_names_another_page(s: Story) -> int:
    return s.returned(s.ask(4, 8, PRIVATE), ENOMEM, 5 << 12)


@holds("INV-17", INPLACE)
def enomem_names_the_first_page(s: Story) -> None:
    s.returned(s.ask(4, 8, PRIVATE), ENOMEM, 4 << 12)


@breaks("INV-18", INPLACE)
def eagain_costs_a_device_its_mapping(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.IOMMU, 0, 8)
    return s.returned(c, EAGAIN, 0)


@breaks("INV-18", RFC_V2)
def eagain_behind_a_split(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.work(c, 0, 8)
    s.zapped(c, 0, 8)
    s.add(e.FolioSplit(conversion=c, space=s.gmem, start=0, npages=8, result=0, order=3))
    return s.returned(c, EAGAIN, 0)


@holds("INV-18", INPLACE)
def eagain_costs_the_host_its_mappings(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.HOST, 0, 8)
    s.returned(c, EAGAIN, 0)


def _pinned(s: Story) -> None:
    """A conversion is refused for the pin of page 5."""
    s.add(e.Pinned(space=s.gmem, start=5, npages=1))
    _refused(s, 5)


def _refused(s: Story, page: int) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.tested(c, page, 1, EAGAIN, references=2 + PIN, expected=2)
    return s.returned(c, EAGAIN, page << 12)


@breaks("INV-35", RFC_V2)
def a_retry_succeeds_against_a_pin(s: Story) -> int:
    _pinned(s)
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.tested(c, 0, 8)
    s.stored(c, 0, 8, PRIVATE)
    return s.returned(c)


@breaks("INV-35", INPLACE)
def a_retry_names_a_higher_page(s: Story) -> int:
    _pinned(s)
    return _refused(s, 6)


@holds("INV-35", INPLACE)
def a_retry_is_refused_until_the_pin_goes(s: Story) -> None:
    _pinned(s)
    _refused(s, 4)
    s.add(e.Unpinned(space=s.gmem, start=4, npages=2))
    s.converted(0, 8, PRIVATE)


@breaks("INV-40", RFC_V2, also=("INV-01",))
def told_ok_half_listed(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 8)
    s.reserved(c, ENOMEM)
    s.zapped(c, 0, 8)
    s.tested(c, 0, 8)
    s.stored(c, 0, 8, PRIVATE)
    return s.returned(c)


@holds("INV-40", RFC_V2)
def all_that_differed_was_listed(s: Story) -> None:
    s.converted(0, 8, PRIVATE)
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 8, 8)
    s.zapped(c, 8, 8)
    s.tested(c, 8, 8)
    s.stored(c, 8, 8, PRIVATE)
    s.returned(c)


@breaks("INV-41", INPLACE)
def error_offset_with_success(s: Story) -> int:
    return s.returned(s.ask(0, 8, SHARED), 0, 0)


@breaks("INV-41", INPLACE, "simulation")
def eagain_without_error_offset(s: Story) -> int:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    return s.returned(c, EAGAIN)


@holds("INV-41", INPLACE, "simulation")
def no_error_offset_with_einval(s: Story) -> None:
    s.returned(s.ask(0, 8, PRIVATE), EINVAL)


# --- INV-22, 23, 26, 31, 33, 34, 45: host pages ---------------------------------------------------------------------


@breaks("INV-22", MAINLINE)
def a_page_that_did_not_come_off_is_given_away(s: Story) -> int:
    s.unmap_fails(3, pfn=0x77)
    return s.add(e.PageAdded(space=s.gmem, start=20, npages=16, pfn=0x70))


@breaks("INV-22", INPLACE)
def the_host_maps_a_page_that_did_not_come_off(s: Story) -> int:
    s.unmap_fails(3)
    return s.touched(Access.HOST, 3)


@breaks("INV-22", MAINLINE)
def a_page_that_did_not_come_off_is_freed_and_given_away(s: Story) -> int:
    s.unmap_fails(3)
    s.add(e.PageFreed(space=s.gmem, start=0, npages=8, pfn=0x70))
    return s.add(e.PrivateMapped(pfn=0x73))


@holds("INV-22", MAINLINE)
def other_pages_and_the_next_boot(s: Story) -> None:
    s.unmap_fails(3, pfn=0x77)
    s.add(e.PageAdded(space=s.gmem, start=20, npages=7, pfn=0x70))
    s.add(e.HostBooted())
    s.add(e.PageAdded(space=s.gmem, start=30, npages=1, pfn=0x77))


@holds("INV-22", MAINLINE)
def a_page_that_is_kept(s: Story) -> None:
    s.unmap_fails(3)
    s.unmap_fails(4, pfn=0x99)
    s.add(e.PageFreed(space=s.gmem, start=0, npages=4, pfn=0x70, detail=e.detail(kept="its reference is never put")))
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
    s.add(e.Poisoned(space=s.gmem, start=3, npages=1))
    return s.touched(Access.GUEST, 0, 8)


@holds("INV-34", INPLACE)
def poison_is_refused_until_it_is_punched(s: Story) -> None:
    s.add(e.Poisoned(space=s.gmem, start=3, npages=1))
    s.touched(Access.GUEST, 3, result=EHWPOISON)
    s.add(e.MemoryFaultExit(thread=9, space=s.vm, start=GFN + 3, npages=1, flags=8, result=EHWPOISON))
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


# --- INV-24, 25, 28, 29, 32, 37, 38: guests -------------------------------------------------------------------------


@breaks("INV-24", MAINLINE)
def an_ioctl_of_a_bugged_vm(s: Story) -> int:
    s.add(e.VmBugged(space=s.vm))
    return s.returned(s.ask(0, 8, PRIVATE), EINVAL)


@breaks("INV-24", INPLACE)
def fallocate_of_a_bugged_vm(s: Story) -> int:
    s.add(e.VmBugged(space=s.vm))
    return s.add(e.Punched(mode=1, result=EIO, space=s.gmem, start=0, npages=8))


@breaks("INV-24", INPLACE, "simulation")
def a_memslot_of_a_dead_vm(s: Story) -> int:
    s.add(e.VmDead(space=s.vm))
    return s.add(e.SlotSet(slot=1, space=s.vm, start=0x900, npages=4, flags=0, result=0))


@holds("INV-24", MAINLINE)
def eio_and_a_punch(s: Story) -> None:
    before = s.ask(0, 8, PRIVATE, thread=2)
    s.add(e.VmBugged(space=s.vm))
    s.returned(s.ask(0, 8, PRIVATE), EIO)
    s.returned(before, EFAULT)
    s.punched(0, 8)


@holds("INV-24", INPLACE)
def a_guest_memfd_of_a_bugged_vm(s: Story) -> None:
    s.add(e.VmBugged(space=s.vm))
    s.converted(0, 8, PRIVATE)


@breaks("INV-25", MAINLINE)
def the_host_maps_a_private_file(s: Story) -> int:
    return s.touched(Access.HOST, 3)


@holds("INV-25", MAINLINE)
def the_host_may_not_map_a_private_file(s: Story) -> None:
    s.touched(Access.HOST, 3, result=EACCES)


@breaks("INV-28", MAINLINE)
def a_huge_entry_of_two_kinds(s: Story) -> int:
    s.converted(0x102, 1, PRIVATE)
    return s.touched(Access.GUEST, 0x100, 512)


@holds("INV-28", MAINLINE)
def a_huge_entry_of_one_kind(s: Story) -> None:
    s.converted(0x102, 1, PRIVATE)
    s.touched(Access.GUEST, 0x300, 512)
    s.touched(Access.GUEST, 0x100, 512, detail=e.detail(last=900, lines=512))


@breaks("INV-29", MAINLINE)
def two_memslots_over_one_gfn(s: Story) -> int:
    return s.add(e.SlotSet(slot=1, space=s.vm, start=GFN + 60, npages=8, flags=0, result=0))


@breaks("INV-29", INPLACE)
def two_bindings_of_one_page(s: Story) -> int:
    s.add(e.SlotSet(slot=1, space=s.vm, start=0x900, npages=4, flags=4, result=0))
    return s.add(e.GmemBound(space=s.vm, start=0x900, npages=4, index=60, gmem=s.gmem))


@holds("INV-29", INPLACE)
def memslots_that_take_the_place_of_others(s: Story) -> None:
    s.add(e.SlotSet(slot=0x10000, space=s.vm, start=GFN, npages=8, flags=0, result=0))
    s.add(e.SlotSet(slot=0, space=s.vm, start=GFN, npages=0, flags=0, result=0))
    s.add(e.SlotSet(slot=1, space=s.vm, start=GFN, npages=64, flags=4, result=0))
    s.add(e.GmemBound(space=s.vm, start=GFN, npages=64, index=0, gmem=s.gmem))
    s.add(e.SlotSet(slot=0, space=s.guest(), start=GFN, npages=8, flags=0, result=0))


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
    return s.add(e.VcpuExited(thread=9, space=s.vm, reason=3, result=EINVAL))


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


# --- INV-36, 39: work and waiting -----------------------------------------------------------------------------------


@breaks("INV-36", RFC_V2)
def a_wait_of_a_minute(s: Story) -> int:
    c = s.ask(0, 8, SHARED)
    spins = s.add(e.Spinning(conversion=c, space=s.gmem, references=513))
    for _ in range(20):
        s.add(e.KernelWarned())
    return spins


@breaks("INV-36", CHECK_FIRST)
def a_hung_task(s: Story) -> int:
    c = s.ask(0, 8, SHARED)
    spins = s.add(e.Spinning(conversion=c, space=s.gmem, references=513))
    s.add(e.TaskStuck(thread=1, conversion=c, space=s.gmem))
    return spins


@holds("INV-36", RFC_V2)
def a_wait_that_ends(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.work(c, 0, 8)
    s.add(e.Spinning(conversion=c, space=s.gmem, references=513))
    s.zapped(c, 0, 8)
    s.tested(c, 0, 8)
    s.stored(c, 0, 8, PRIVATE)
    s.returned(c)


@breaks("INV-39", RFC_V2)
def work_twice(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 8)
    return s.work(c, 4, 8)


@breaks("INV-39", RFC_V2)
def work_outside_of_the_request(s: Story) -> int:
    return s.work(s.ask(0, 16, PRIVATE), 8, 16)


@breaks("INV-39", RFC_V2)
def work_that_is_done(s: Story) -> int:
    return s.work(s.ask(0, 16, SHARED), 0, 8)


@holds("INV-39", RFC_V2)
def work_in_order(s: Story) -> None:
    s.converted(4, 4, PRIVATE)
    c = s.ask(0, 16, PRIVATE)
    s.work(c, 0, 4)
    s.work(c, 8, 8)


# --- INV-42 to 44, 48, 49: in place ---------------------------------------------------------------------------------


@breaks("INV-42", INPLACE)
def two_stores(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    s.answered(c, User.HOST, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 8, PRIVATE)
    s.stored(c, 0, 16, PRIVATE)
    return s.returned(c)


@breaks("INV-42", INPLACE, "simulation")
def a_store_without_a_reservation(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    s.tested(c, 0, 16)
    s.stored(c, 0, 16, PRIVATE)
    return s.returned(c)


@breaks("INV-42", INPLACE, "simulation")
def the_guest_is_zapped_for_nothing(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.held_off(c, 0, 16)
    s.zapped(c, 0, 16, slot=0)
    s.ended(c)
    return s.returned(c, EAGAIN, 0)


@holds("INV-42", INPLACE)
def one_store(s: Story) -> None:
    s.converted(0, 16, PRIVATE)


@breaks("INV-43", INPLACE)
def a_private_page_goes_for_private(s: Story) -> int:
    c = s.ask(0, 16, PRIVATE)
    s.zapped(c, 0, 16)
    return s.unmap_fails(3, conversion=c)


@holds("INV-43", INPLACE)
def a_private_page_goes_for_shared(s: Story) -> None:
    s.converted(0, 16, PRIVATE)
    c = s.ask(0, 16, SHARED)
    s.zapped(c, 0, 16)
    s.unmap_fails(3, conversion=c)


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
    s.add(e.Pinned(space=s.gmem, start=3, npages=1))
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
