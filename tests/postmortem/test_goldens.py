"""The post-mortem of two kernel logs has all facts that an expert wrote down; where the log differs, they differ."""

from pathlib import Path

import pytest

from gmemstate.conclusions.host import host
from gmemstate.postmortem.incident import Incident
from gmemstate.postmortem.render import text
from tests.postmortem.telling import about, post_mortem_of
from tests.traces import SHARED, Read, read_file, read_lines

WARNING = (
    "[ 7000.100000] WARNING: arch/x86/kvm/vmx/tdx.c:1700 at tdx_sept_set_private_spte+0x2f1/0x4d0 [kvm_intel], "
    "CPU#3: CPU 1/KVM/4711"
)
STACK = "[ 7000.100010]  (call trace: ... kvm_tdp_mmu_unmap_gfn_range, {frame}, kvm_vm_ioctl ...)"
FAILED = "[ 7000.100300] kvm_intel: SEAMCALL {leaf} failed: {status}{entry}"
ENTRY = ", entry 0x7654321077, level_state 0x400"


def failed(
    folder: Path,
    leaf: str = "TDH_MEM_PAGE_REMOVE",
    status: str = "0xc0000b0d00000001",
    entry: str = ENTRY,
    frame: str = "kvm_arch_pre_set_memory_attributes",
) -> tuple[Incident, str]:
    lines = [WARNING, STACK.format(frame=frame), FAILED.format(leaf=leaf, status=status, entry=entry)]
    return only(read_lines([line.encode() for line in lines], folder))


def only(read: Read) -> tuple[Incident, str]:
    (incident,) = post_mortem_of(read).incidents
    return incident, " ".join(text.render(incident, 1).split())


GOLDEN = SHARED / "golden" / "tdx-page-remove.dmesg"
SAMPLE = SHARED / "samples" / "dmesg-snp" / "rmpupdate-ret2-hvfixed-dump-amdsev245.log"


@pytest.mark.skipif(not GOLDEN.exists(), reason="the log is not at hand")
def test_a_page_that_could_not_be_removed_from_a_td_in_substance() -> None:
    read = read_file(GOLDEN)
    incident, shown = only(read)
    assert incident.blame == "kernel or module"
    assert not incident.complete
    for fact in (
        "HOST SUSPECT, VM DEAD",
        "not an error of the guest",
        "marked the VM as bugged",
        "At least 1 host page",
        "8123.440395",
        "thread 40213 (CPU 3/KVM)",
        "no VM name or id",
        "attributes ioctl",
        "a conversion; direction to shared [implied",
        "3 of 4",
        "BLOCK ok, TRACK ok [implied",
        "REMOVE failed, WBINVD not reached",
        "0xc0000b0d00000001 TDX_EPT_ENTRY_STATE_INCORRECT, operand RCX",
        "level 4K, state PRESENT",
        "not the blocked state that REMOVE requires",
        "pfn 0x1a2b3c4 [implied: entry bits 51:12",
        "Only the first failure of a VM is printed",
        "warning appears once in a boot",
        "returned 0 and the attribute says shared",
        "EIO",
        "not pinned, flagged or poisoned",
        "hole punch",
        "a new TD that gets it fails with TDX_PAGE_METADATA_INCORRECT",
        "lost; its private memory",
        "drain this host",
        "save dmesg",
        "reboot: that alone",
        "0xc000040000000000",
        "corroborates this incident",
        "Missing the gfn",
    ):
        assert fact in shown, fact
    assert [(answer.verdict, answer.mended_by) for answer in host(read.history).answers][1] == ("no", "reboot")


@pytest.mark.skipif(not SAMPLE.exists(), reason="the public sample logs are not at hand")
def test_a_page_that_the_rmp_refuses_in_substance() -> None:
    incident, shown = only(read_file(SAMPLE))
    assert incident.blame == "host platform"
    assert not incident.complete
    for fact in (
        "PAGE REFUSED BY THE RMP",
        "No memory is lost or exposed",
        "255267.410514",
        "pfn 0x56700",
        "level 4K",
        "returned 2 = FAIL_PERMISSION",
        "EFAULT",
        "to private [implied: the page was unassigned",
        "0x56600-0x5660e held by firmware or the platform (assigned, ASID 0)",
        "likely:",
        "88a921aa3c6b",
        "AMDESE/AMDSEV#245",
        "KVM_RUN = EINVAL",
        "The attribute stays private",
        "nothing is rolled back",
        "a retry hits the same page",
        "safe to keep running",
        "not leaked, not suspect",
        "A reboot does not help",
        "memmap=2M$0x56600000",
        "dmesg | grep -e 'RMP table'",
        '"Failed to update RMP entry: GFN"',
        "the stack after the dump",
    ):
        assert fact in shown, fact


def test_an_entry_that_is_not_reported_is_no_page(tmp_path: Path) -> None:
    incident, shown = failed(tmp_path, status="0xc000010000000001", entry=", entry 0x0, level_state 0x0")
    assert "the entry is not reported with this status" in shown
    assert "pfn 0x0" not in shown
    assert any("the pfn" in missing for missing in incident.missing)


@pytest.mark.parametrize(
    ("frame", "way"),
    [
        ("kvm_gmem_release", "the guest_memfd was closed, no conversion"),
        ("kvm_gmem_fallocate", "a hole punch, no conversion"),
        ("kvm_gmem_error_folio", "a memory error of the page, no conversion"),
        ("kvm_destroy_vm", "the VM was torn down, no conversion"),
    ],
)
def test_another_way_into_the_kernel_is_no_conversion(frame: str, way: str, tmp_path: Path) -> None:
    _, shown = failed(tmp_path, frame=frame)
    assert way in shown
    assert "the attribute says shared" not in shown
    assert "direction to shared" not in shown


@pytest.mark.parametrize(
    ("leaf", "left"),
    [
        ("TDH_MEM_RANGE_BLOCK", "is still mapped by the dead TD"),
        ("TDH_MEM_TRACK", "whether it was removed after that is not printed"),
        ("TDH_PHYMEM_PAGE_WBINVD", "the page is not mapped any more"),
    ],
)
def test_each_step_that_fails_leaves_something_else(leaf: str, left: str, tmp_path: Path) -> None:
    """BLOCK and REMOVE leave the page mapped, TRACK perhaps, WBINVD leaves cache lines only."""
    _, shown = failed(tmp_path, leaf=leaf, entry="")
    assert left in shown


def test_what_was_under_way_is_asked_for_where_the_warning_is_missing(tmp_path: Path) -> None:
    incident, shown = only(
        read_lines([FAILED.format(leaf="TDH_MEM_PAGE_REMOVE", status="0xc0000b0d00000001", entry=ENTRY).encode()], tmp_path)
    )
    assert "the attribute says shared" not in shown
    assert any("what was under way" in missing and "dmesg" in missing for missing in incident.missing)


def test_a_vm_that_died_of_its_guest_is_not_said_to_be_bugged(tmp_path: Path) -> None:
    """Bugged is an error of the kernel and makes the host suspect; dead is one of the guest; EIO alone does not tell."""
    lines = [b"kvm_intel: Guest access before accepting 0x12345000 on vCPU 1", b"error: kvm run failed Input/output error"]
    dead, unknown = (incident for incident in post_mortem_of(read_lines(lines, tmp_path)).incidents)
    assert (dead.blame, dead.title) == ("guest", "VM dead")
    assert about(dead, "State") == "private, and pending in the secure page table: the VM is dead, not bugged (kvm_vm_dead)"
    assert (unknown.blame, unknown.title) == ("unknown", "VM bugged or dead")
    perhaps = about(unknown, "Perhaps")
    assert "dead, by access before accept at trace.txt:1" in perhaps
    assert "no line ties it to this VM" in perhaps


def test_the_first_failures_of_two_vms_are_two_stories(tmp_path: Path) -> None:
    """Each VM prints its own first failure; the threads of the warnings tell them apart."""
    first = [WARNING, FAILED.format(leaf="TDH_MEM_PAGE_REMOVE", status="0xc0000b0d00000001", entry=ENTRY)]
    other = [line.replace("4711", "4800").replace("7000.1", "7100.1").replace("0x7654321077", "0x7654322077") for line in first]
    shown = post_mortem_of(read_lines([line.encode() for line in (*first, *other)], tmp_path))
    assert [("4711" in incident.who, "4800" in incident.who) for incident in shown.incidents] == [(True, False), (False, True)]


def test_a_page_that_a_new_td_is_refused_may_be_an_old_ones(tmp_path: Path) -> None:
    """Owners disagree (PAMT): the page was never taken from its last TD. Another status says nothing of the kind."""
    refused = "kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: {status}, entry 0x0, level_state 0x0"
    owned, shown = only(read_lines([refused.format(status="0xc000030000000001").encode()], tmp_path))
    assert owned.blame == "kernel or module"
    assert "most likely it still belongs to a TD" in shown
    assert "RMP" not in shown
    _, other = only(read_lines([refused.format(status="0xc000010000000001").encode()], tmp_path))
    assert "still belongs" not in other


@pytest.mark.parametrize(
    ("errno", "line", "because"),
    [
        ("Input/output error", WARNING.replace("tdx_sept_set_private_spte", "tdx_mem_page_aug"), 'bugged, by "'),
        (
            "Input/output error",
            FAILED.format(leaf="TDH_MEM_TRACK", status="0x8000020100000000", entry=""),
            "bugged, by the failed private unmap",
        ),
        (
            "Invalid argument",
            "kvm_amd: SEV: Failed to update RMP entry: GFN 100 PFN 4abcd level 1 error -14",
            "the page that could not be made private",
        ),
        ("Invalid argument", FAILED.format(leaf="TDH_MEM_TRACK", status="0x8000020100000000", entry=""), None),
        ("Input/output error", "kvm_amd: SEV: Failed to update RMP entry: GFN 100 PFN 4abcd level 1 error -14", None),
    ],
)
def test_the_kernels_report_is_named_next_to_the_vmms_and_not_tied_to_it(
    errno: str, line: str, because: str | None, tmp_path: Path
) -> None:
    shown = post_mortem_of(read_lines([line.encode(), f"error: kvm run failed {errno}".encode()], tmp_path))
    (perhaps,) = (
        {one.word: one.text for one in incident.sections}.get("Perhaps")
        for incident in shown.incidents
        if "KVM_RUN returned" in incident.summary
    )
    if because is None:
        assert perhaps is None
    else:
        assert perhaps is not None
        assert because in perhaps
        assert "trace.txt:1" in perhaps
        assert "no line ties it to this VM" in perhaps


def test_a_failure_without_a_range_names_the_request_right_before_it_as_a_guess(tmp_path: Path) -> None:
    request = "kvm_convert_memory start 0x7f000000 size 0x200000 private_to_shared"
    refused = (
        "qemu-kvm: ram_block_attributes_for_each_discarded_section: Failed to notify RAM discard listener: No space "
        "left on device"
    )
    _, shown = only(read_lines([request.encode(), refused.encode()], tmp_path))
    assert "gfn 0x7f000+512 to shared" in shown
    assert "[guess" in shown
    _, far = only(read_lines([request.encode(), *[b"kvm_run_exit cpu_index 0, reason 2"] * 30, refused.encode()], tmp_path))
    assert "0x7f000" not in far
