"""How conversions go: INV-09, 10, 11, 12, 14, 19, 20, 36, 39, 42, 43."""

from errno import EAGAIN, ENOMEM

from gmemstate.model import events as e
from gmemstate.model.events import User
from gmemstate.model.machines.range import PRIVATE, SHARED
from tests.audit.histories.telling import CHECK_FIRST, INPLACE, MAINLINE, RFC_V2, breaks, holds
from tests.audit.story import Story


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
    s.add(e.PageAdded(owner=s.gmem, start=0, npages=16, pfn=0x1000, order=4))
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
        s.add(e.FolioSplit(conversion=c, owner=s.gmem, start=0, npages=16, result=0, order=4))
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
    s.add(e.FolioMerged(conversion=c, owner=s.gmem, start=0, npages=16, result=0, order=4))
    s.returned(c)


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
    return s.add(e.GmemBound(owner=s.vm, start=0x900, npages=4, index=0x900, gmem=s.gmem))


@holds("INV-14", RFC_V2, "simulation")
def a_zap_inside_of_its_invalidation(s: Story) -> None:
    c = s.ask(3, 1, PRIVATE)
    s.held_off(c, 0, 16)
    s.zapped(c, 3, 1)
    s.ended(c)
    s.add(e.GmemBound(owner=s.vm, start=0x900, npages=4, index=0x900, gmem=s.gmem))


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


@breaks("INV-36", RFC_V2)
def a_wait_of_a_minute(s: Story) -> int:
    c = s.ask(0, 8, SHARED)
    spins = s.add(e.Spinning(conversion=c, owner=s.gmem, references=513))
    for _ in range(20):
        s.add(e.KernelWarned())
    return spins


@breaks("INV-36", CHECK_FIRST)
def a_hung_task(s: Story) -> int:
    c = s.ask(0, 8, SHARED)
    spins = s.add(e.Spinning(conversion=c, owner=s.gmem, references=513))
    s.add(e.TaskStuck(thread=1, conversion=c, owner=s.gmem))
    return spins


@holds("INV-36", RFC_V2)
def a_wait_that_ends(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.work(c, 0, 8)
    s.add(e.Spinning(conversion=c, owner=s.gmem, references=513))
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
