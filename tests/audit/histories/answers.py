"""What conversions answer and leave: INV-01, 02, 15, 16, 17, 18, 35, 40, 41."""

from errno import EAGAIN, EINVAL, ENOMEM

from gmemstate.model import events as e
from gmemstate.model.events import User
from gmemstate.model.machines.range import PRIVATE, SHARED
from tests.audit.histories.telling import INPLACE, MAINLINE, PIN, RFC_V2, breaks, holds
from tests.audit.story import Story


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
    s.add(e.FolioMerged(conversion=c, owner=s.gmem, start=0, npages=16, result=ENOMEM, order=4))
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
    s.add(e.FolioSplit(conversion=c, owner=s.gmem, start=0, npages=8, result=0, order=3))
    return s.returned(c, EAGAIN, 0)


@holds("INV-18", INPLACE)
def eagain_costs_the_host_its_mappings(s: Story) -> None:
    c = s.ask(0, 8, PRIVATE)
    s.zapped(c, 0, 8)
    s.answered(c, User.HOST, 0, 8)
    s.returned(c, EAGAIN, 0)


def _pinned(s: Story) -> None:
    """A conversion is refused for the pin of page 5."""
    s.add(e.Pinned(owner=s.gmem, start=5, npages=1))
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
    s.add(e.Unpinned(owner=s.gmem, start=4, npages=2))
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
