"""What a kernel log says of private pages: which step failed, at which page, by which lines, and nothing beyond them."""

from pathlib import Path
from typing import Any

import pytest

from gmemstate.model.events import (
    DmaFaulted,
    Event,
    Gap,
    GapKind,
    GeneralProtection,
    HkidLeaked,
    KernelWarned,
    MachineCheck,
    PageLeaked,
    Poisoned,
    PrivateMapFailed,
    PrivateUnmapFailed,
    ReclaimFailed,
    RmpViolation,
    TaskSignalled,
    TaskStuck,
    UnmapStep,
    VmDead,
)
from tests.ingest.witness import details, said, shows

STATE = 0xC0000B0D
"""TDX_EPT_ENTRY_STATE_INCORRECT, with which the module reports the entry."""
WALK = 0xC0000B00
BUSY = 0x80000200

LINES: dict[str, tuple[str, type[Event], dict[str, Any]]] = {
    "REMOVE of Linux 7.2 with its entry": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400",
        PrivateUnmapFailed,
        {
            "step": UnmapStep.REMOVE,
            "pfn": 0x7654321,
            "status": STATE,
            "leaf": "TDH.MEM.PAGE.REMOVE",
            "state": "PRESENT",
            "level": "4K",
        },
    ),
    "BLOCK that was busy to the last": (
        "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x0, level_state 0x0",
        PrivateUnmapFailed,
        {"step": UnmapStep.BLOCK, "pfn": None, "status": BUSY, "outcome": "transient", "operand": "SEPT", "reported": "no"},
    ),
    "entry and level_state of 0 are no page": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc000010000000001, entry 0x0, level_state 0x0",
        PrivateUnmapFailed,
        {"step": UnmapStep.REMOVE, "pfn": None, "reported": "no"},
    ),
    "a status with which no entry is reported": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0800000001, entry 0x7654321077, level_state 0x400",
        PrivateUnmapFailed,
        {"pfn": None, "name": "TDX_TLB_TRACKING_NOT_DONE"},
    ),
    "an entry that leads to a lower table": (
        "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0xc0000b0000000001, entry 0x7654321007, level_state 0x401",
        PrivateUnmapFailed,
        {"pfn": None, "status": WALK, "level": "2M"},
    ),
    "TRACK": (
        "kvm_intel: SEAMCALL TDH_MEM_TRACK failed: 0x8000020100000000",
        PrivateUnmapFailed,
        {"step": UnmapStep.TRACK, "name": "TDX_PREVIOUS_TLB_EPOCH_BUSY", "pfn": None},
    ),
    "WBINVD": (
        "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_WBINVD failed: 0xc000010000000001",
        PrivateUnmapFailed,
        {"step": UnmapStep.WBINVD, "name": "TDX_OPERAND_INVALID"},
    ),
    "REMOVE of Linux 6.16, with registers": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, rcx 0x7654321077, rdx 0x400",
        PrivateUnmapFailed,
        {"pfn": 0x7654321, "status": STATE},
    ),
    "REMOVE by its number in hexadecimal": (
        "SEAMCALL (0x000000000000001d) failed: 0xc0000b0d00000001 RCX 0x0000007654321077 RDX 0x0000000000000400 R8 "
        "0x0000000000000000",
        PrivateUnmapFailed,
        {"step": UnmapStep.REMOVE, "pfn": 0x7654321},
    ),
    "REMOVE by its number in decimal": (
        "tdx: SEAMCALL failed: CPU 7: leaf 29, error 0xc0000b0d00000001.",
        PrivateUnmapFailed,
        {"step": UnmapStep.REMOVE, "pfn": None, "status": STATE},
    ),
    "BLOCK of a fork with its status in words": (
        "SEAMCALL[TDH_MEM_RANGE_BLOCK(7)] failed: TDX_EPT_WALK_FAILED(0xc0000b0000000001)",
        PrivateUnmapFailed,
        {"step": UnmapStep.BLOCK, "status": WALK},
    ),
    "AUG names what is mapped there, not what was to be": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400",
        PrivateMapFailed,
        {"pfn": None, "entry_pfn": "0x7654321", "status": STATE},
    ),
    "ADD": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_ADD failed: 0xc000030000000001, entry 0x0, level_state 0x0",
        PrivateMapFailed,
        {"status": 0xC0000300},
    ),
    "SEPT.ADD": (
        "kvm_intel: SEAMCALL TDH_MEM_SEPT_ADD failed: 0xc000030000000002, entry 0x0, level_state 0x0",
        PrivateMapFailed,
        {"leaf": "TDH.MEM.SEPT.ADD"},
    ),
    "RECLAIM with the comma of its source": (
        "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x1, rdx, 0x2, r8 0x3",
        ReclaimFailed,
        {"pfn": None, "status": 0xC0000300, "name": "TDX_PAGE_METADATA_INCORRECT"},
    ),
    "a leaf that is about no mapping": (
        "tdx: SEAMCALL failed: CPU 7: leaf 33, error 0xc000092100000122.",
        KernelWarned,
        {"what": "SEAMCALL", "leaf": "TDH.SYS.INIT", "status": "0xc000092100000122"},
    ),
    "a leaf that nobody knows": (
        "virt/tdx: SEAMCALL (0x00000000000000ff) failed: 0x8000020000000000",
        KernelWarned,
        {"leaf": "0xff", "outcome": "transient"},
    ),
    "memory that ran out": (
        "qemu-kvm: page allocation failure: order:9, mode:0x140dca(GFP_HIGHUSER_MOVABLE), nodemask=(null)",
        KernelWarned,
        {"what": "page allocation failure"},
    ),
    "an access that cannot be emulated": (
        "kvm: kvm: unexpected emulation request on private memory",
        KernelWarned,
        {"what": "emulation of private memory"},
    ),
    "bounce buffers": (
        "ahci 0000:00:04.0: swiotlb buffer is full (sz: 65536 bytes), total 32768 (slots), used 7 (slots)",
        KernelWarned,
        {"what": "swiotlb"},
    ),
    "the RMP table": (
        "SEV-SNP: RMP table physical range [0x0000000012300000 - 0x00000000455fffff]",
        KernelWarned,
        {"what": "memory map", "of": "RMP table", "first": "0x12300", "behind": "0x45600"},
    ),
    "the edge of the RMP table": (
        "SEV-SNP: Reserving start/end of RMP table on a 2MB boundary [0x0000000045400000]",
        KernelWarned,
        {"what": "memory map", "of": "reserved", "first": "0x45400", "behind": "0x45600"},
    ),
    "memory of a node": (
        "  node   1: [mem 0x0000000100000000-0x000000023fffffff]",
        KernelWarned,
        {"what": "memory map", "of": "memory of a node", "first": "0x100000", "behind": "0x240000"},
    ),
    "firmware that is busy": (
        "ccp 0000:02:00.5: SEV: too many firmware commands are in-progress, no command buffers available.",
        KernelWarned,
        {"what": "security processor"},
    ),
    "a page that was not accepted": (
        "kvm_intel: Guest access before accepting 0x123000 on vCPU 3",
        VmDead,
        {"gpa": "0x123000", "gfn": "0x123", "vcpu": 3, "space": None},
    ),
    "a key": (
        "kvm_intel: tdh_mng_vpflushdone() failed. HKID 35 is leaked.",
        HkidLeaked,
        {"hkid": 35, "call": "tdh_mng_vpflushdone"},
    ),
    "a fatal exit of a TD": (
        "kvm_intel: kvm [77]: TD exit 0xe000060400000000, 0 hkid 0x21 hkid pa 0x4200000000000",
        VmDead,
        {"pid": 77, "name": "TDX_TD_FATAL"},
    ),
    "another exit of a TD": (
        "kvm_intel: kvm [77]: TD vp_enter_ret 0x8000020000000000",
        KernelWarned,
        {"thread": 77, "what": "TD exit"},
    ),
    "gfn and pfn of SNP": (
        "kvm_amd: SEV: Failed to update RMP entry: GFN 1f00 PFN 2a3b4c level 1 error -14",
        PrivateMapFailed,
        {"pfn": 0x2A3B4C, "start": 0x1F00, "npages": 1, "status": 14, "to": "private"},
    ),
    "gfn and pfn of SNP at 2M": (
        "kvm_amd: SEV: Failed to update RMP entry: GFN 1e00 PFN 2a3a00 level 2 error -14",
        PrivateMapFailed,
        {"start": 0x1E00, "npages": 512},
    ),
    "a look into the RMP": (
        "kvm_amd: SEV: Failed to look up RMP entry: GFN 1f00 PFN 2a3b4c error -22",
        PrivateMapFailed,
        {"status": 22, "error": "EINVAL"},
    ),
    "guest_memfd behind it": (
        "gmem: Failed to prepare folio for index 1f00 GFN 101f00 PFN 2a3b4c error -22.",
        PrivateMapFailed,
        {"pfn": 0x2A3B4C, "start": 0x101F00, "index": "0x1f00"},
    ),
    "a page that stays the guest's": (
        "SEV: Failed to update RMP entry for PFN 0x2a3b4c error -14",
        PrivateUnmapFailed,
        {"step": UnmapStep.RMPUPDATE, "pfn": 0x2A3B4C, "status": 14},
    ),
    "a split that fails at the end": (
        "SEV: Failed to PSMASH RMP entry for PFN 0x2a3b4c error 3",
        PrivateUnmapFailed,
        {"step": UnmapStep.PSMASH, "status": 3},
    ),
    "RMPUPDATE alone does not tell its direction": (
        "SEV-SNP: RMPUPDATE failed for PFN 2a3b4c, pg_level: 1, ret: 2",
        KernelWarned,
        {"what": "RMPUPDATE", "pfn": "0x2a3b4c", "ret": 2, "code": "FAIL_PERMISSION", "to": None},
    ),
    "RMPUPDATE that is tried again has not failed": (
        "SEV-SNP: rmpupdate failed, ret: 4, pfn: 2a3b4c, npages: 1, level: 1, retrying (max: 96)...",
        KernelWarned,
        {"ret": 4, "outcome": "tried again"},
    ),
    "RMPUPDATE that succeeded in the end": (
        "SEV-SNP: RMPUPDATE for pfn 2a3b4c succeeded after 3 retries",
        KernelWarned,
        {"what": "RMPUPDATE succeeded", "retries": 3},
    ),
    "an RMP fault of the guest": (
        "kvm_amd: SEV: Unexpected RMP fault for non-private GPA 0x1f00000",
        RmpViolation,
        {"gpa": "0x1f00000", "gfn": "0x1f00", "pfn": None},
    ),
    "an RMP fault with its page": (
        "kvm_amd: SEV: Unexpected RMP fault, no assigned RMP entry found for GPA 0x1f00000 PFN 0x2a3b4c error 0",
        RmpViolation,
        {"pfn": 0x2A3B4C, "gfn": "0x1f00"},
    ),
    "a split that fails at a fault": (
        "kvm_amd: SEV: Unable to split RMP entry for GPA 0x1f00000 PFN 0x2a3b4c ret 3",
        RmpViolation,
        {"pfn": 0x2A3B4C, "ret": 3, "code": "FAIL_INUSE"},
    ),
    "a page of the firmware": (
        "Failed to reclaim PFN 2a3b4c, rc -5 fw_err 16",
        ReclaimFailed,
        {"pfn": 0x2A3B4C, "status": 5, "fw_error": "0x10"},
    ),
    "a guest that ends itself": (
        "SEV-ES guest requested termination: 0x0:0x2",
        VmDead,
        {"set": "0x0", "code": "0x2", "space": None},
    ),
    "a guest that asks what nobody knows": (
        "kvm_amd: kvm [77]: vcpu0, guest rIP: 0xfffffe00 vmgexit: unsupported event 0x123",
        KernelWarned,
        {"what": "vmgexit", "text": "vmgexit: unsupported event 0x123"},
    ),
    "a host page": (
        "Memory failure: 0x2a3b4c: recovery action for clean LRU page: Recovered",
        Poisoned,
        {"pfn": 0x2A3B4C, "npages": 1, "action": "clean LRU page: Recovered"},
    ),
    "a task that is out of luck": (
        "Out of memory: Killed process 4711 (qemu-kvm) total-vm:1kB, anon-rss:1kB",
        TaskSignalled,
        {"thread": 4711, "signal": 9, "reason": 128, "cause": "oom"},
    ),
    "a task of a cgroup": (
        "Memory cgroup out of memory: Killed process 4711 (qemu-kvm) total-vm:1kB",
        TaskSignalled,
        {"thread": 4711, "signal": 9},
    ),
    "a task at a bad page": (
        "MCE: Killing qemu-kvm:4711 due to hardware memory corruption fault at 7f0000001000",
        TaskSignalled,
        {"thread": 4711, "signal": 7, "comm": "qemu-kvm"},
    ),
    "an error of the memory": (
        "mce: Uncorrected hardware memory error in user-access at 2a3b4c600",
        MachineCheck,
        {"pfn": 0x2A3B4C, "address": "0x2a3b4c600"},
    ),
    "an address with a key in it": (
        "mce: Uncorrected hardware memory error in user-access at 420002a3b4c600",
        MachineCheck,
        {"pfn": None, "address": "0x420002a3b4c600"},
    ),
    "a device of Intel": (
        "DMAR: [DMA Write NO_PASID] Request device [3b:00.0] fault addr 0x1f00000 [fault reason 0x05] PTE Write access is "
        "not set",
        DmaFaulted,
        {"start": 0x1F00, "npages": 1, "device": "3b:00.0", "what": "Write"},
    ),
    "a device of AMD": (
        "vfio-pci 0000:3b:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0012 address=0x1f00000 flags=0x0020]",
        DmaFaulted,
        {"start": 0x1F00, "what": "IO_PAGE_FAULT"},
    ),
    "a general protection fault": (
        "general protection fault, probably for non-canonical address 0xdead000000000122: 0000 [#1] SMP",
        GeneralProtection,
        {"address": 0xDEAD000000000122},
    ),
    "a task that hangs": (
        "INFO: task CPU 3/KVM:4711 blocked for more than 120 seconds.",
        TaskStuck,
        {"thread": 4711, "comm": "CPU 3/KVM", "seconds": 120, "what": "hung task"},
    ),
    "a processor that hangs": (
        "watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [qemu-kvm:4711]",
        KernelWarned,
        {"thread": 4711, "seconds": 22, "what": "soft lockup", "cpu": 3},
    ),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("frame", ["", "[ 8123.440395] "], ids=["bare", "timed"])
def test_a_line_is_one_event_with_its_numbers(name: str, frame: str, tmp_path: Path) -> None:
    line, kind, expected = LINES[name]
    log = said(frame + line, tmp_path)
    (event,) = log.events
    assert type(event) is kind
    assert shows(event, **expected), (event, expected)
    assert event.t == (8123440395000 if frame else None)
    assert (log.account.used, log.account.unparsed) == (1, 0)
    assert getattr(event, "space", None) is None, "a line of the kernel names no VM"


WARNING = """\
[ 8123.440118] ------------[ cut here ]------------
[ 8123.440118] WARNING: arch/x86/kvm/vmx/tdx.c:1817 at tdx_sept_remove_leaf_spte+0x2f1/0x4d0 [kvm_intel], CPU#3: CPU 3/KVM/40213
[ 8123.440119] Modules linked in: kvm_intel kvm
[ 8123.440120] RIP: 0010:tdx_sept_remove_leaf_spte+0x2f1/0x4d0 [kvm_intel]
[ 8123.440121] RAX: 0000000000000000 RBX: 0000000000000001 RCX: 0000000000000000
[ 8123.440122] Call Trace:
[ 8123.440123]  <TASK>
[ 8123.440124]  handle_changed_spte+0x12c/0x300 [kvm]
[ 8123.440125]  ? __lock_acquire+0x1/0x2
[ 8123.440126]  kvm_tdp_mmu_unmap_gfn_range+0x81/0xf0 [kvm]
[ 8123.440127]  {entry}+0x1a2/0x2b0 [kvm]
[ 8123.440128]  {outer}+0x4d2/0x1d40 [kvm]
[ 8123.440129]  </TASK>
[ 8123.440130] ---[ end trace 0000000000000000 ]---
[ 8123.440395] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400
"""

WAYS = {
    "attributes ioctl": ("kvm_arch_pre_set_memory_attributes", "kvm_vm_ioctl"),
    "fallocate": ("kvm_gmem_fallocate", "vfs_fallocate"),
    "release": ("kvm_gmem_release", "__fput"),
    "memslot": ("kvm_set_memslot", "kvm_vm_ioctl"),
    "error_folio": ("kvm_gmem_error_folio", "memory_failure"),
    "destroy": ("kvm_mmu_uninit_tdp_mmu", "kvm_destroy_vm"),
    "vcpu run": ("kvm_tdp_mmu_map", "kvm_arch_vcpu_ioctl_run"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_seamcall_has_the_thread_and_the_way_of_the_warning_before_it(way: str, tmp_path: Path) -> None:
    entry, outer = WAYS[way]
    log = said(WARNING.format(entry=entry, outer=outer), tmp_path)
    warned, failed = log.events
    assert isinstance(warned, KernelWarned)
    assert shows(
        warned,
        thread=40213,
        function="tdx_sept_remove_leaf_spte",
        site="arch/x86/kvm/vmx/tdx.c:1817",
        path=way,
        about="private unmap",
    )
    assert isinstance(failed, PrivateUnmapFailed)
    assert shows(failed, pfn=0x7654321, thread=40213, comm="CPU 3/KVM", path=way, join="time")
    assert log.account.unparsed == 0


def test_a_failed_seamcall_far_from_a_warning_has_no_thread(tmp_path: Path) -> None:
    lines = WARNING.format(entry="kvm_gmem_release", outer="__fput").splitlines()
    noise = [f"[ 8123.4402{n:02}] eth0: link is up" for n in range(10)]
    failed = said([*lines[:-1], *noise, lines[-1]], tmp_path).events[-1]
    assert isinstance(failed, PrivateUnmapFailed)
    assert not {"thread", "comm", "path"} & details(failed).keys()


def test_one_warning_explains_one_seamcall(tmp_path: Path) -> None:
    lines = WARNING.format(entry="kvm_gmem_release", outer="__fput").splitlines()
    first, second = said([*lines, lines[-1]], tmp_path).events[1:]
    assert "thread" in details(first)
    assert "thread" not in details(second)


def test_the_older_form_of_a_warning_says_the_same(tmp_path: Path) -> None:
    (warned,) = said("WARNING: CPU: 4 PID: 77 at virt/kvm/guest_memfd.c:175 kvm_gmem_get_pfn+0x39/0x50 [kvm]", tmp_path).events
    assert shows(warned, thread=77, function="kvm_gmem_get_pfn", site="virt/kvm/guest_memfd.c:175", what="WARN")


def test_the_words_of_a_warning_stand_before_its_header(tmp_path: Path) -> None:
    log = said(
        "------------[ cut here ]------------\nPage state is bad here\n"
        "WARNING: CPU: 4 PID: 77 at virt/kvm/guest_memfd.c:175 kvm_gmem_get_pfn+0x39/0x50 [kvm]\n---[ end trace 0 ]---",
        tmp_path,
    )
    (warned,) = log.events
    assert shows(warned, text="Page state is bad here", function="kvm_gmem_get_pfn", line=2)


UPDATE = "SEV-SNP: RMPUPDATE failed for PFN 2a3b4c, pg_level: 1, ret: {ret}"
STACK = """\
CPU: 22 PID: 4711 Comm: qemu-kvm Not tainted 6.11.0 #1
Call Trace:
 <TASK>
 dump_stack_lvl+0x5f/0x90
 rmpupdate.cold+0x37/0x3c
 {caller}+0x3f/0x70
 {entry}+0x11e/0x2b0 [kvm_amd]
"""
GFN = "kvm_amd: SEV: Failed to update RMP entry: GFN 1f00 PFN 2a3b4c level 1 error -14"
PREPARE = "gmem: Failed to prepare folio for index 1f00 GFN 1f00 PFN 2a3b4c error -22."


def test_the_stack_behind_rmpupdate_tells_the_direction(tmp_path: Path) -> None:
    (to_private,) = said(
        UPDATE.format(ret=2) + "\n" + STACK.format(caller="rmp_make_private", entry="sev_gmem_prepare"), tmp_path
    ).events
    assert isinstance(to_private, PrivateMapFailed)
    assert shows(to_private, pfn=0x2A3B4C, status=2, code="FAIL_PERMISSION", thread=4711, to="private", basis=None)
    (to_shared,) = said(
        UPDATE.format(ret=2) + "\n" + STACK.format(caller="rmp_make_shared", entry="sev_gmem_invalidate"), tmp_path
    ).events
    assert isinstance(to_shared, PrivateUnmapFailed)
    assert shows(to_shared, step=UnmapStep.RMPUPDATE, pfn=0x2A3B4C, status=2, path="free")


def test_three_lines_about_one_failed_page_are_one_event(tmp_path: Path) -> None:
    log = said(
        "\n".join(
            [UPDATE.format(ret=2), STACK.format(caller="rmp_make_private", entry="sev_gmem_prepare").strip(), GFN, PREPARE]
        ),
        tmp_path,
    )
    (failed,) = log.events
    assert isinstance(failed, PrivateMapFailed)
    assert shows(failed, pfn=0x2A3B4C, start=0x1F00, npages=1, status=2, error="EFAULT", index="0x1f00", line=1, last=10)


def test_lines_about_two_pages_are_two_events(tmp_path: Path) -> None:
    other = GFN.replace("2a3b4c", "2a3b4d").replace("1f00", "1f01")
    first, second = said("\n".join([UPDATE.format(ret=2), GFN, other]), tmp_path).events
    assert shows(first, pfn=0x2A3B4C, start=0x1F00)
    assert shows(second, pfn=0x2A3B4D, start=0x1F01)


def test_an_unassigned_page_was_to_become_private(tmp_path: Path) -> None:
    """guest_memfd gives back assigned pages only, so the direction follows."""
    dump = [
        "SEV-SNP: PFN 0x2a3b4c unassigned, dumping non-zero entries in 2M PFN region: [0x2a3a00 - 0x2a3c00]",
        *(f"SEV-SNP: PFN: {pfn:#x}, [0x8000000000000005 - 0x0000000000000000]" for pfn in range(0x2A3A00, 0x2A3A08)),
        "SEV-SNP: PFN: 0x2a3a09, [0x3008000001f00001 - 0x0000000000000000]",
    ]
    log = said([UPDATE.format(ret=2), *dump], tmp_path)
    (failed,) = log.events
    assert isinstance(failed, PrivateMapFailed)
    assert shows(failed, basis="implied", owner="the host's (unassigned)", region=["0x2a3a00", "0x2a3c00"])
    firmware, guest = details(failed)["near"]
    assert firmware[:2] == ["0x2a3a00", "0x2a3a08"]
    assert guest[:2] == ["0x2a3a09", "0x2a3a0a"]
    assert log.account.used == 11


def test_an_assigned_page_leaves_the_direction_open(tmp_path: Path) -> None:
    entry = "SEV-SNP: PFN 0x2a3b4c, RMP entry: [0x6008000001f00001 - 0x000000000000001f]"
    (warned,) = said([UPDATE.format(ret=2), entry], tmp_path).events
    assert isinstance(warned, KernelWarned)
    assert shows(warned, what="RMPUPDATE", owner="guest-owned, ASID 1, gpa 0x1f00000, a VMSA (a vCPU's register page)", to=None)


def test_a_stack_whose_header_is_cut_off_tells_what_it_can(tmp_path: Path) -> None:
    (failed,) = said(STACK.format(caller="rmp_make_private", entry="sev_gmem_prepare"), tmp_path).events
    assert isinstance(failed, PrivateMapFailed)
    assert shows(failed, pfn=None, status=None, to="private")
    (warned,) = said(" ? __warn+0x89/0x160\n ? some_driver_probe+0x4e/0x80 [driver]", tmp_path).events
    assert isinstance(warned, KernelWarned)
    assert shows(warned, function="some_driver_probe", about=None, path=None)


FAULT = """\
BUG: unable to handle page fault for address: ff1276cbfdf36000
#PF: supervisor write access in kernel mode
#PF: error_code({code}) - {why}
PGD 5a31801067 P4D 5a31802067 PUD 40ccfb5063 PMD 40e5954063 PTE 800000002a3b4c63
{entry}Oops: Oops: 0003 [#1] SMP NOPTI
CPU: 33 UID: 0 PID: 4711 Comm: qemu-kvm Tainted: G           OE
RIP: 0010:copy_page+0x54/0x4c0
RAX: 0000000000000000 RBX: fffffffffffffff4 RCX: 0000000000080000
Call Trace:
 <TASK>
 kvm_gmem_get_pfn+0x19d/0x290 [kvm]
"""


def test_a_host_that_touches_a_guests_page_is_told_with_the_page(tmp_path: Path) -> None:
    (bare,) = said(FAULT.format(code="0x80000003", why="RMP violation", entry=""), tmp_path).events
    assert isinstance(bare, RmpViolation)
    assert shows(
        bare,
        pfn=0x2A3B4,
        thread=4711,
        function="kvm_gmem_get_pfn",
        rip="copy_page",
        address="0xff1276cbfdf36000",
        error_code="0x80000003",
    )
    entry = "SEV-SNP: PFN 0x2a3b5, RMP entry: [0x6010000000f00001 - 0x000000000000001f]\n"
    (told,) = said(FAULT.format(code="0x80000003", why="RMP violation", entry=entry), tmp_path).events
    assert shows(told, pfn=0x2A3B5, owner="guest-owned, ASID 2, gpa 0xf00000, a VMSA (a vCPU's register page)")


def test_another_page_fault_is_a_warning_with_the_errors_in_its_registers(tmp_path: Path) -> None:
    (oops,) = said(FAULT.format(code="0x0000", why="not-present page", entry=""), tmp_path).events
    assert isinstance(oops, KernelWarned)
    assert shows(oops, what="page fault", thread=4711, function="kvm_gmem_get_pfn", errors={"RBX": "ENOMEM"})


def test_a_granule_protection_fault_is_what_an_rmp_violation_is(tmp_path: Path) -> None:
    log = said(
        "Internal error: Granule Protection Fault on table walk: 0000000096000068 [#1] SMP\npc : memset+0x18/0x50", tmp_path
    )
    (fault,) = log.events
    assert isinstance(fault, RmpViolation)
    assert shows(fault, function=None, rip="memset", pfn=None)


def test_leaked_pages_that_follow_one_another_are_one_leak(tmp_path: Path) -> None:
    """256 lines of one page each, with a dump behind every one, are one finding, not 256."""
    lines = []
    for pfn in range(0x30A00, 0x30B00):
        lines.append(f"SEV-SNP: Leaking PFN range {pfn:#x}-{pfn + 1:#x}")
        lines.append(f"SEV-SNP: PFN {pfn:#x}, RMP entry: [0x6008000001f00001 - 0x000000000000001f]")
    log = said([*lines, "SEV-SNP: Leaking PFN range 0x40000-0x40200"], tmp_path)
    one, other = log.events
    assert isinstance(one, PageLeaked)
    assert shows(one, pfn=0x30A00, npages=0x100, line=1, last=511, lines=256)
    assert shows(other, pfn=0x40000, npages=0x200)
    assert [(entry.pfn, entry.count) for entry in log.whole.history.memory.messed_up.values()] == [
        (0x30A00, 256),
        (0x40000, 512),
    ]


def test_poisoned_pages_that_follow_one_another_are_one(tmp_path: Path) -> None:
    """Kernels before 6.9 put leaked SNP pages away as if each had a hardware error."""
    lines = []
    for pfn in range(0x30A00, 0x30B00):
        lines.append(f"Memory failure: {pfn:#x}: unhandlable page.")
        lines.append(f"Memory failure: {pfn:#x}: recovery action for unknown page: Ignored")
        lines.append(
            f"SEV-SNP: RMPEntry paddr {pfn << 12:#x} [assigned=1 immutable=0 pagesize=0 gpa=0x0 asid=0 vmsa=0 validated=0]"
        )
    (poisoned,) = said(lines, tmp_path).events
    assert isinstance(poisoned, Poisoned)
    assert shows(poisoned, pfn=0x30A00, npages=0x100, action="unknown page: Ignored", lines=512)


def test_all_words_about_a_poisoned_page_are_one_event(tmp_path: Path) -> None:
    log = said(
        """\
Injecting memory failure at pfn 0x2a3b4c
Memory failure: 0x2a3b4c: Failed to punch page: 2
Memory failure: 0x2a3b4c: dirty unevictable LRU page still referenced by 1 users
Memory failure: 0x2a3b4c: Sending SIGBUS to qemu-kvm:4711 due to hardware memory corruption
Memory failure: 0x2a3b4c: recovery action for dirty unevictable LRU page: Failed
""",
        tmp_path,
    )
    signal, poisoned = log.events
    assert isinstance(signal, TaskSignalled)
    assert shows(signal, thread=4711, signal=7, pfn="0x2a3b4c")
    assert isinstance(poisoned, Poisoned)
    assert shows(poisoned, pfn=0x2A3B4C, injected="yes", punched=2, users=1, action="dirty unevictable LRU page: Failed")


def test_a_key_id_is_taken_off_an_address_once_the_log_has_told_where_it_stands(tmp_path: Path) -> None:
    events = said(
        "kvm_intel: kvm [77]: TD exit 0xe000060400000000, 0 hkid 0x21 hkid pa 0x4200000000000\n"
        "mce: Uncorrected hardware memory error in user-access at 42002a3b4c600",
        tmp_path,
    ).events
    assert shows(events[1], pfn=0x2A3B4C, address="0x42002a3b4c600")


GAPS = {
    "pr_tdx_error: 503 callbacks suppressed": (GapKind.SUPPRESSED, 503),
    "[ 12.345678] rmpupdate: 7 callbacks suppressed": (GapKind.SUPPRESSED, 7),
    "...": (GapKind.ELIDED, None),
    "  ....": (GapKind.ELIDED, None),
    "[...]": (GapKind.ELIDED, None),
    "[snip]": (GapKind.ELIDED, None),
    "<snip>": (GapKind.ELIDED, None),
    "[ 12.345678] ...": (GapKind.ELIDED, None),
}


@pytest.mark.parametrize("line", GAPS)
def test_what_is_missing_is_a_gap(line: str, tmp_path: Path) -> None:
    log = said(["[ 12.000000] kvm_intel: tdh_mng_key_freeid() failed. HKID 35 is leaked.", line], tmp_path)
    gap = log.events[1]
    assert isinstance(gap, Gap)
    assert (gap.gap, gap.count) == GAPS[line]
    assert log.account.used == 2


def test_lines_cut_out_of_a_report_do_not_end_it_and_nothing_is_joined_over_them(tmp_path: Path) -> None:
    lines = WARNING.format(entry="kvm_gmem_release", outer="__fput").splitlines()
    gap, warned, failed = said([*lines[:8], "...", lines[9], *lines[-1:]], tmp_path).events
    assert isinstance(gap, Gap)
    assert isinstance(warned, KernelWarned)
    assert shows(warned, line=2, last=10, thread=40213)
    assert "path" not in details(failed)


DAMAGED = [
    "kvm_amd: SEV: Failed to update RMP entry: GFN fffffffffffffff0 PFN 2a3b4c level 1 error -14",
    "SEV-SNP: Leaking PFN range 0x146a00-0x146800",
    "SEV-SNP: Leaking PFN range 0x146a00-",
]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_line_says_nothing(line: str, tmp_path: Path) -> None:
    log = said(["[ 1.000000] kvm: ok", line], tmp_path)
    assert log.events == []
    assert log.account.unparsed == 1


@pytest.mark.parametrize(
    "line",
    [
        "SEV-SNP: RMPUPDATE failed for PFN , pg_level: 1, ret: 2",
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d000000011111",
    ],
)
def test_a_damaged_line_of_a_failure_says_that_something_failed_and_no_page(line: str, tmp_path: Path) -> None:
    """The host cannot be called well, as the line may be that of a page which stayed with its guest."""
    (event,) = said(["[ 1.000000] kvm: ok", line], tmp_path).events
    assert isinstance(event, KernelWarned)
    assert details(event)["what"].endswith(" of another form")


NOT_ABOUT_CONVERSIONS = [
    "[ 12.345678] eth0: link becomes ready",
    "[    0.000000] Kernel command line: ro quiet",
    "[ 12.345678] kvm: exiting hardware virtualization",
    '[ 12.345678] audit: type=1400 audit(1716225051.602:121): apparmor="DENIED"',
    "[ 12.345678] SEV-ES and SEV-SNP supported: 99 ASIDs",
]


@pytest.mark.parametrize("line", NOT_ABOUT_CONVERSIONS)
def test_other_lines_of_a_kernel_are_context_and_no_event(line: str, tmp_path: Path) -> None:
    log = said(line, tmp_path)
    assert log.events == []
    assert log.account.context == {"kernel log": 1}
