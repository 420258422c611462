"""What the ioctls check before they do anything, in the order of the kernel: of two mistakes the first one is answered."""

from errno import EAGAIN, EFAULT, EINVAL, EIO, ENOMEM, ENOTTY
from itertools import combinations
from typing import Any

import pytest

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import ConversionCall, Fault, Returned, Setting
from gmemstate.convert.engine.policies import DIALECT_NAMES
from gmemstate.convert.simulation import guest_requests as requests
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model.events import (
    CONVERSION,
    KIND,
    SOURCE,
    ConvertAsked,
    ConvertReturned,
    RequestPath,
    T,
    UsersChecked,
    event_of,
)

PAGES = 16
Mistake = tuple[int, dict[str, Any]]
"""The errno, and what is passed (or is so) that makes it."""
SIZES: list[Mistake] = [
    (EINVAL, {"size": 0}), (EINVAL, {"address": (1 << 64) - 4096, "size": 4096}), (EINVAL, {"size": 0x1010}),
    (EINVAL, {"address": 0x200}),
]  # fmt: skip
MISTAKES: dict[str, list[Mistake]] = {
    # kvm_vm_ioctl(), kvm_vm_ioctl_set_mem_attributes(); a VM has no end
    "mainline": [
        (EIO, {"bugged": True}), (EIO, {"same_mm": False}), (EFAULT, {"readable": False}), (EINVAL, {"flags": 1}),
        (EINVAL, {"attributes": 9}), (EINVAL, {"private_mem": False}), *SIZES,
    ],
    # the table "Validation order" of in-place v13
    "inplace": [
        (ENOTTY, {"in_place": False}), (EFAULT, {"readable": False}), (EINVAL, {"flags": 1}), (EINVAL, {"reserved": 1}),
        (EINVAL, {"private_mem": False}), (EINVAL, {"attributes": 9}), *SIZES, (EINVAL, {"address": PAGES << 12}),
        (EINVAL, {"size": (PAGES + 1) << 12}),
    ],
    # RFC v2 04/51; a size of 0 is success, and comes before the other sizes
    "rfc-v2": [
        (ENOTTY, {"in_place": False}), (EFAULT, {"readable": False}), (EINVAL, {"error_offset": 0x1000}), (0, {"size": 0}),
        *SIZES[1:], (EINVAL, {"address": PAGES << 12}), (EINVAL, {"size": (PAGES + 1) << 12}),
    ],
}  # fmt: skip
MISTAKES["check-first"] = MISTAKES["rfc-v2"]
SETTINGS = ("in_place", "private_mem")


def host(dialect: str, **how: Any) -> Simulation:
    """A host whose guest has 16 shared pages."""
    s = Simulation(DIALECT_NAMES[dialect], setting=Setting(**how))
    s.open("arguments")
    s.vm = s.make_vm()
    s.gmem = s.make_gmem(s.vm, PAGES, shared=True)
    s.set_slot(s.vm, 0, 0, PAGES, s.gmem)
    s.allocate(0, PAGES)
    return s


def returned(dialect: str, how: dict[str, Any]) -> tuple[int, bool]:
    """The errno of a request with some mistakes, and whether nothing at all was done."""
    how = {"address": 0, "size": 4096, **how}
    s = host(dialect, **{key: how.pop(key) for key in SETTINGS if key in how})
    if how.pop("bugged", False):
        s.bug_vm()
    rows = len(s.rows)
    answer = s.convert(ConversionCall(s.owner, **how))
    assert answer is not None
    done = [row[KIND] for row in s.rows[rows:]]
    return answer.errno, done == [ConvertAsked.code, ConvertReturned.code]


@pytest.mark.parametrize("dialect", MISTAKES)
def test_each_mistake_has_its_errno_and_nothing_is_done(dialect: str) -> None:
    for errno, how in MISTAKES[dialect]:
        assert returned(dialect, how) == (errno, True), how


@pytest.mark.parametrize("dialect", MISTAKES)
def test_of_two_mistakes_the_first_is_answered(dialect: str) -> None:
    pairs = [(a, b) for a, b in combinations(MISTAKES[dialect], 2) if not set(a[1]) & set(b[1])]
    assert len(pairs) > 25
    for (errno, how), (_, later) in pairs:
        assert returned(dialect, later | how) == (errno, True), (how, later)


# --- the answer


@pytest.mark.parametrize("dialect", ["rfc-v2", "inplace", "check-first"])
def test_an_answer_that_cannot_be_written_hides_errors_only(dialect: str) -> None:
    """Success writes nothing back; an errno that would is EFAULT, and what was done is done."""
    s = host(dialect)
    assert s.convert_pages(0, 4, "private", writable=False) == Returned()
    s.add_user(users.pin("nic", [5]))
    assert s.convert_pages(4, 8, "private", writable=False) == Returned(EFAULT)
    assert s.convert_pages(4, 8, "private") == Returned(EAGAIN, 5 << 12)


def test_only_where_error_index_was_never_written_is_it_rubbish() -> None:
    s = host("rfc-v2", defects=frozenset({"error-offset"}))
    s.add_user(users.pin("nic", [5]))
    assert s.convert_pages(0, 8, "private") == Returned(EAGAIN, 5 << 12)
    s.faults = [Fault("store")]
    answer = s.convert_pages(8, 12, "private")
    assert answer is not None
    assert answer.errno == ENOMEM
    assert answer.error_offset not in (None, *range(8 << 12, 12 << 12))


# --- references


@pytest.mark.parametrize("dialect", ["rfc-v2", "inplace", "check-first"])
def test_too_few_references_are_as_bad_as_too_many(dialect: str) -> None:
    """The counts are compared with !=: what is too low was put once too often, and is freed under its next user."""
    s = host(dialect)
    s.add_user(users.Holder("puts once too often", users.User.REFERENCE, {3}, weight=-1))
    assert s.convert_pages(0, 8, "private") == Returned(EAGAIN, 3 << 12)
    assert s.convert_pages(4, 8, "private") == Returned()


def test_what_is_pinned_is_in_use_at_once() -> None:
    """In place nobody drains LRU batches for a pinned folio: the reference of a batch is counted with it."""
    s = host("inplace")
    s.add_user(users.lru_batch("lru", [5]))
    s.add_user(nic := users.pin("nic", [5]))
    assert s.convert_pages(0, 8, "private") == Returned(EAGAIN, 5 << 12)
    (found,) = (row for row in s.rows if row[KIND] == UsersChecked.code)
    assert event_of(found) == UsersChecked(
        conversion=found[CONVERSION], owner=s.gmem, start=5, npages=1, result=EAGAIN, references=2 + 1 + 1024, expected=2,
        source=found[SOURCE], t=found[T],
    )  # fmt: skip
    s.release(nic)
    assert s.convert_pages(0, 8, "private") == Returned()


def test_a_vmm_answers_a_guest_with_what_kvm_takes() -> None:
    """0, EAGAIN, or EINVAL for everything else (kvm_is_valid_map_gpa_range_ret())."""
    s = host("inplace")
    s.faults = [Fault("reserve")]
    assert [requests.ask(s, [(0, 4)], "private", RequestPath.VMCALL, (), None) for _ in range(2)] == [[-EINVAL], [0]]
    s.add_user(users.pin("nic", [5]))
    assert requests.ask(s, [(4, 8)], "private", RequestPath.VMCALL, (), None) == [-EAGAIN]
