"""The probe on tdh_mem_page_remove shows what no line of the kernel log does: the gfn beside the host page."""

from pathlib import Path

import pytest

from gmemstate.model.events import PrivateUnmapFailed, UnmapStep, VmCreated, VmDestroyed
from tests.ingest.witness import details, events_of
from tests.traces import Read, read_lines

FRAME = "qemu-7 [000] ..... 5.000000: "
SLOT = (
    "pre_set: (kvm_vm_ioctl+0x1/0x2 [kvm] <- kvm_arch_pre_set_memory_attributes) kvm=0xffff888100000000 start=0x100 end=0x200 "
    "slot=1 attrs=0x0 flush=1"
)
REMOVED = "page_remove: (tdx_sept_remove_private_spte+0x1/0x2 [kvm_intel] <- tdh_mem_page_remove) gpa=0x{gpa:x} "
ENTRY = "entry=0x7654321077 level_state=0x400 status=0x{status:x}"
STATE_INCORRECT, BUSY = 0xC0000B0D00000001, 0x8000020000000092


def line(status: int, gpa: int = 0x104000) -> str:
    return (FRAME + REMOVED + ENTRY).format(gpa=gpa, status=status)


def failures(read: Read) -> list[PrivateUnmapFailed]:
    return [event for event in events_of(read) if isinstance(event, PrivateUnmapFailed)]


def test_a_failed_removal_names_gfn_host_page_and_guest(tmp_path: Path) -> None:
    read = read_lines([(FRAME + SLOT).encode(), line(STATE_INCORRECT).encode()], tmp_path)
    (failed,) = failures(read)
    (vm,) = read.history.memory.vms
    assert (failed.step, failed.pfn, failed.start, failed.npages, failed.owner, failed.status) == (
        UnmapStep.REMOVE, 0x7654321, 0x104, 1, vm, 0xC0000B0D,
    )  # fmt: skip
    assert details(failed)["leaf"] == "TDH.MEM.PAGE.REMOVE"
    (entry,) = read.history.memory.messed_up.values()
    assert (entry.gfn, entry.pfn) == (0x104, 0x7654321)


@pytest.mark.parametrize("status", [0, BUSY])
def test_success_and_what_the_kernel_tries_again_are_no_failure(status: int, tmp_path: Path) -> None:
    read = read_lines([(FRAME + SLOT).encode(), line(status).encode()], tmp_path)
    assert failures(read) == []
    assert read.account.unparsed == 0


def test_of_a_thread_that_no_guest_is_known_of_the_page_is_told_all_the_same(tmp_path: Path) -> None:
    (failed,) = failures(read_lines([line(STATE_INCORRECT).encode()], tmp_path))
    assert (failed.pfn, failed.start, failed.owner) == (0x7654321, 0x104, None)


def test_the_end_of_a_guest_is_seen_and_its_pointer_is_somebody_else_from_then_on(tmp_path: Path) -> None:
    gone = f"{FRAME}vm_destroyed: (kvm_destroy_vm+0x0/0x10 [kvm]) kvm=0xffff888100000000"
    created = (
        f"{FRAME}gmem_create: (kvm_dev_ioctl+0x1/0x2 [kvm] <- kvm_gmem_create) kvm=0xffff888100000000 size=0x1000 "
        f"flags=0x0 fd=9"
    )
    read = read_lines([(FRAME + SLOT).encode(), gone.encode(), created.encode()], tmp_path)
    assert sum(isinstance(event, VmDestroyed) for event in events_of(read)) == 1
    assert len(read.history.memory.vms) == 2


# --- the birth of a guest

CREATED = f"{FRAME}vm_created: (kvm_arch_init_vm+0x0/0x10 [kvm]) kvm=0xffff888100000000 type=0x0"


def test_the_birth_of_a_guest_makes_its_pages_shared_and_a_second_one_at_its_address_is_another_guest(tmp_path: Path) -> None:
    read = read_lines([CREATED.encode(), (FRAME + SLOT).encode(), CREATED.encode()], tmp_path)
    memory = read.history.memory
    assert [type(event) for event in events_of(read) if isinstance(event, VmCreated)] == [VmCreated, VmCreated]
    first, second = memory.vms.values()
    assert (first.made, second.made) == (True, True)
    assert {run.state for run in memory.runs(second.id)} == {"shared"}
