"""What kinds of facts of traces promise: the numbers that their handlers need, a handler each, and one place that stamps
events."""

import pytest

from gmemstate.ingest.correlate.tracker import HANDLERS, Tracker, handles
from gmemstate.ingest.fact import KINDS, Fact
from gmemstate.model.events import LINE, SOURCE
from gmemstate.model.linux import KVM_SET_MEMORY_ATTRIBUTES, KVM_SET_MEMORY_ATTRIBUTES2
from tests.traces import read_case

CONTEXT = {"vcpu_ioctl_ret", "inv_start", "tlb_flush", "lru_drain_all"}
"""Kinds whose lines are counted and make no event."""
OF_STRACE = {"convert_call"}
"""Kinds that need words, not numbers."""
BEFORE = {
    "outside of a call": (),
    "in a conversion of a VM": (("vm_ioctl", {"cmd": KVM_SET_MEMORY_ATTRIBUTES}),),
    "in a conversion of a guest_memfd": (("gmem_ioctl", {"cmd": KVM_SET_MEMORY_ATTRIBUTES2, "inode": 1, "kvm": 2}),),
    "in a change of memslots": (("set_region", {}),),
}


def test_every_kind_of_a_trace_has_a_handler_or_is_context() -> None:
    assert KINDS.keys() - HANDLERS.keys() == CONTEXT


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - CONTEXT - OF_STRACE))
def test_a_handler_needs_no_number_that_its_kind_does_not_declare(kind: str, before: str) -> None:
    tracker = Tracker()
    for line, (name, args) in enumerate(BEFORE[before], 1):
        tracker.feed(Fact(line, 0, 7, "vmm", name, args))
    tracker.feed(Fact(9, 0, 7, "vmm", kind, {number: n for n, number in enumerate(KINDS[kind].needs, 1)}))


def test_a_kind_has_one_handler() -> None:
    with pytest.raises(ValueError, match="vm_ioctl is handled by vm_ioctl already"):
        handles("vm_ioctl")(lambda tracker, fact, thread: False)


def test_every_event_of_a_trace_has_its_source_and_its_line() -> None:
    rows = read_case("half_done").rows[1:]
    assert all(row[SOURCE] == 1 and (row[LINE] or 0) > 0 for row in rows)
