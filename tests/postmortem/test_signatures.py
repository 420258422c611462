"""Known problems: each is claimed where its evidence is, with the lines that show it, and not where a part of it is missing."""

from pathlib import Path

import pytest

from gmemstate.model.events import Cause
from gmemstate.postmortem.incident import Blame
from gmemstate.postmortem.known import signatures
from gmemstate.postmortem.known.meanings import meaning, meanings
from gmemstate.postmortem.known.signatures import catalogue
from tests.postmortem.telling import post_mortem_of
from tests.traces import read_lines

UPDATE = "[ 7000.100000] SEV-SNP: RMPUPDATE failed for PFN 4b3f4, pg_level: 1, ret: {ret}"
UNASSIGNED = "[ 7000.100010] SEV-SNP: PFN 0x4b3f4 unassigned, dumping non-zero entries in 2M PFN region: [0x4b200 - 0x4b400]"
FIRMWARE = "[ 7000.100020] SEV-SNP: PFN: 0x4b200, [0x8000000000000005 - 0x0000000000000000]"
OF_A_GUEST = "[ 7000.100020] SEV-SNP: PFN: 0x4b200, [0x0018000000f00001 - 0x0000000000000000]"
TABLE = "[    0.400000] SEV-SNP: RMP table physical range [0x000000003ae00000 - 0x{end}]"
RESERVED = "[    0.428514] e820: update [mem 0x4b200000-0x4b3fffff] usable ==> reserved"
NODE = "[    5.754525]  memory[0xc]     [0x000000004b300000-0x000000004b3fffff], 0x0000000000100000 bytes on node 0 flags: 0x0"

HOST_FAULT = """\
BUG: unable to handle page fault for address: ff1276cbfdf36000
#PF: supervisor write access in kernel mode
#PF: error_code(0x80000003) - RMP violation
PGD 5a31801067 P4D 5a31802067 PUD 40ccfb5063 PMD 40e5954063 PTE 800000002a3b4163
{entry}
CPU: 33 UID: 0 PID: 4711 Comm: qemu-kvm Tainted: G           OE
RIP: 0010:{function}+0x2f/0x80 [kvm_amd]
Call Trace:
 {caller}+0x2f/0x80 [kvm_amd]"""
VMSA = "SEV-SNP: PFN 0x2a3b4, RMP entry: [0x6018fffffffff001 - 0x000000000000001f]"
NO_VMSA = "SEV-SNP: PFN 0x2a3b4, RMP entry: [0x4018000000f00001 - 0x000000000000001f]"
NOBODYS = "SEV-SNP: PFN 0x2a3b4 unassigned, dumping non-zero entries in 2M PFN region: [0x2a200 - 0x2a400]"
WARNING = "[   99.500000] WARNING: CPU: 5 PID: 4712 at arch/x86/kvm/vmx/{file}:700 {function}+0x4e/0x80 [kvm_intel]"
FATAL = "[  500.100000] kvm_intel: TD exit 0xe000060400000000, 0 hkid 0x41 hkid pa 0x82000000000000"
POISON = "[  500.300000] Memory failure: 0x{pfn:x}: recovery action for {what}: {result}"
SHAREABILITY = """\
[  845.259236] ------------[ cut here ]------------
[  845.259236] {text}
[  845.259240] WARNING: CPU: 3 PID: 3775 at virt/kvm/guest_memfd.c:175 {function}+0x4e/0x80 [kvm]"""

CASES: dict[str, tuple[list[str], list[str]]] = {
    "rmp-table-edge": ([UPDATE.format(ret=2), UNASSIGNED, FIRMWARE], [UPDATE.format(ret=2), UNASSIGNED, OF_A_GUEST]),
    "rmp-dump-vmsa": (
        HOST_FAULT.format(entry=VMSA, function="sev_es_sync_vmsa", caller="snp_launch_finish").split("\n"),
        HOST_FAULT.format(entry=NO_VMSA, function="sev_es_sync_vmsa", caller="snp_launch_finish").split("\n"),
    ),
    "avic-in-use": (
        HOST_FAULT.format(entry=NOBODYS, function="avic_vcpu_load", caller="kvm_arch_vcpu_load").split("\n"),
        HOST_FAULT.format(entry=NOBODYS, function="memcpy_orig", caller="ext4_write_begin").split("\n"),
    ),
    "tlb-tracking": (
        [
            "SEAMCALL (0x000000000000000f) failed: 0xc0000b0800000001 RCX 0x0000000123456000 RDX 0x0000000000000400 R8 "
            "0x0000000000000000"
        ],
        [
            "SEAMCALL (0x000000000000000f) failed: 0xc0000b0d00000001 RCX 0x0000000123456000 RDX 0x0000000000000400 R8 "
            "0x0000000000000000"
        ],
    ),
    "page-aug-warn": (
        [WARNING.format(file="tdx.c", function="tdx_mem_page_aug")],
        [WARNING.format(file="tdx.c", function="tdx_mem_page_add")],
    ),
    "dirty-logging": (
        [WARNING.format(file="main.c", function="vt_update_cpu_dirty_logging")],
        [WARNING.format(file="main.c", function="vt_vcpu_run")],
    ),
    "reclaim-metadata": (
        ["kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0"],
        ["kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0x8000020000000001, rcx 0x0, rdx, 0x0, r8 0x0"],
    ),
    "td-still-owns-pages": (
        [
            "[  100.000001] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, "
            "level_state 0x400",
            "[  200.000001] kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000040000000000, rcx 0x0, rdx, 0x0, r8 0x0",
        ],
        [
            "[  100.000001] kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_WBINVD failed: 0xc000010000000001",
            "[  200.000001] kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000040000000000, rcx 0x0, rdx, 0x0, r8 0x0",
        ],
    ),
    "machine-check-in-a-td": (
        [FATAL, "[  500.200000] mce: Uncorrected hardware memory error in user-access at 82000123456000"],
        [FATAL],
    ),
    "shareability-race": (
        SHAREABILITY.format(
            text="Shareability should always be defined for all indices in inode.", function="kvm_gmem_shareability_get"
        ).split("\n"),
        SHAREABILITY.format(text="Something else", function="kvm_gmem_shareability_get").split("\n"),
    ),
    "overlap-retried": (
        ["[ 10.100000] SEV-SNP: rmpupdate failed, ret: 4, pfn: 7d4fe8, npages: 1, level: 1, retrying (max: 96)..."],
        ["[ 10.100000] SEV-SNP: rmpupdate failed, ret: 3, pfn: 7d4fe8, npages: 1, level: 1, retrying (max: 96)..."],
    ),
    "snp-shutdown-leak": (
        ["ccp 0000:47:00.1: SEV: failed to SHUTDOWN error 0x0, rc -110", "SEV-SNP: Leaking PFN range 0x200000-0x200200"],
        ["SEV-SNP: Leaking PFN range 0x200000-0x200200"],
    ),
    "leak-taken-for-memory-failures": (
        [POISON.format(pfn=0x700000 + n, what="unknown page", result="Ignored") for n in range(12)],
        [POISON.format(pfn=0x700000 + 7 * n, what="unknown page", result="Ignored") for n in range(12)],
    ),
    "firmware-busy": (
        ["ccp 0000:01:00.5: SEV: too many firmware commands are in-progress, no command buffers available."],
        ["ccp 0000:01:00.5: sev command 0x2 timed out, disabling PSP"],
    ),
    "not-validated": (
        ["[   30.0] SEV: Unsupported exit-code 0x404 in #VC exception (IP: 0x7000)"],
        ["[   30.0] SEV: Unsupported exit-code 0x72 in #VC exception (IP: 0x7000)"],
    ),
    "array-bounds-tdparams": (
        [
            "[ 5.0] UBSAN: array-index-out-of-bounds in arch/x86/kvm/vmx/tdx.c:2600:4",
            "[ 5.1]  __ubsan_handle_out_of_bounds+0x1/0x2",
            "[ 5.2]  setup_tdparams+0x1/0x2 [kvm_intel]",
        ],
        [
            "[ 5.0] UBSAN: array-index-out-of-bounds in drivers/net/a.c:2600:4",
            "[ 5.1]  __ubsan_handle_out_of_bounds+0x1/0x2",
            "[ 5.2]  a_probe+0x1/0x2 [a]",
        ],
    ),
    "tdx-module-init": (
        ["virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000090000000000"],
        ["virt/tdx: SEAMCALL (0x0000000000000023) failed: 0xc000090000000000"],
    ),
    "page-size-mismatch": (
        ["SEAMCALL (0x0000000000000006) failed: 0xc0000b0b00000001 RCX 0x0 RDX 0x0 R8 0x0"],
        ["SEAMCALL (0x0000000000000006) failed: 0xc0000b0000000001 RCX 0x0 RDX 0x0 R8 0x0"],
    ),
    "pages-not-accepted": (
        ["kvm_intel: Guest access before accepting 0x80d000 on vCPU 0"],
        ["kvm_intel: Guest access before accepting 0x1080d000 on vCPU 0"],
    ),
    "swiotlb-full": (
        ["[ 9.0] nvme 0000:00:03.0: swiotlb buffer is full (sz: 262144 bytes), total 32768 (slots), used 312 (slots)"],
        ["[ 9.0] software IO TLB: Memory encryption is active and system is using DMA bounce buffers"],
    ),
    "no-guest-memfd": (
        ["qemu-system-x86_64: Convert non guest_memfd backed memory region (0xfeb00000 ,+ 0x1000) to private"],
        ["qemu-system-x86_64: Convert non guest_memfd backed memory region (0xfeb00000 ,+ 0x1000) to shared"],
    ),
    "fault-taken-for-a-request": (
        ["qemu-system-x86_64: Convert non guest_memfd backed memory region (0xe0000 ,+ 0x1000) to shared"],
        ["qemu-system-x86_64: Convert non guest_memfd backed memory region (0xe0000 ,+ 0x1000) to private"],
    ),
    "map-gpa-retry": (
        ["SetOrClearSharedBit: TdVmcall(MAPGPA) Retry PhysicalAddress is 800000040000000, MapGpaRetryaddr is 800000042000000"],
        ["SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x40000000 Length=0x4000000 Mode=Shared"],
    ),
    "dma-mappings": (
        ["qemu-kvm: VFIO_MAP_DMA failed: No space left on device"],
        ["qemu-kvm: VFIO_MAP_DMA failed: Cannot allocate memory"],
    ),
    "dma-still-mapped": (
        ["qemu-kvm: vfio_ram_discard_notify_discard: vfio_container_dma_unmap() failed: Invalid argument"],
        ["qemu-kvm: VFIO_MAP_DMA failed: Invalid argument"],
    ),
    "double-pin": (["VmPin:\t33554432 kB"], ["VmPin:\t       0 kB"]),
    "discard-broken": (
        [
            "qemu-kvm: vfio 0000:41:00.0: failed to setup container for group 7: Cannot set discarding of RAM broken: "
            "Device or resource busy"
        ],
        ["qemu-kvm: vfio 0000:41:00.0: failed to setup container for group 7: Device or resource busy"],
    ),
    "guest-memfd-denied": (
        ["qemu-system-x86_64: kvm_create_guest_memfd: error creating kvm guest memfd: Permission denied"],
        ["qemu-system-x86_64: kvm_create_guest_memfd: error creating kvm guest memfd: Invalid argument"],
    ),
    "guest-memfd-no-memory": (
        ["qemu-system-x86_64: kvm_create_guest_memfd: error creating kvm guest memfd: Cannot allocate memory"],
        ["qemu-system-x86_64: kvm_create_guest_memfd: error creating kvm guest memfd: Permission denied"],
    ),
    "readonly-memslot": (
        [
            "qemu-kvm: kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=3, start=0xffd00000, "
            "size=0x300000, flags=0x2, "
            "guest_memfd=-1, guest_memfd_offset=0x0: Invalid argument"
        ],
        [
            "qemu-kvm: kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=3, start=0xffd00000, "
            "size=0x300000, flags=0x4, "
            "guest_memfd=9, guest_memfd_offset=0x0: Invalid argument"
        ],
    ),
    "launch-contention": (
        ["qemu-kvm: KVM_TDX_INIT_MEM_REGION failed Resource temporarily unavailable"],
        ["qemu-kvm: KVM_TDX_INIT_MEM_REGION failed Input/output error"],
    ),
    "launch-update-without-address": (
        ["qemu-kvm: SNP_LAUNCH_UPDATE ret=-5 fw_error=0 ''"],
        ["qemu-kvm: SEV-SNP: failed to configure initialprivate guest memory"],
    ),
    "large-page-over-mixed-range": (
        [
            "vcpu-77   [003] ..... 5.000001: kvm_tdp_mmu_spte_changed: as id 0 gfn 200 level 2 old_spte 7700b16827 "
            "new_spte 5555600ea7",
            "vcpu-77   [003] ..... 5.000002: kvm_tdp_mmu_spte_changed: as id 0 gfn 205 level 1 old_spte 123456e67 new_spte 5a0",
        ],
        [
            "vcpu-77   [003] ..... 5.000001: kvm_tdp_mmu_spte_changed: as id 0 gfn 200 level 2 old_spte 7700b16827 "
            "new_spte 5555600ea7",
            "vcpu-77   [003] ..... 5.000002: kvm_tdp_mmu_spte_changed: as id 0 gfn 205 level 1 old_spte 5555605e67 "
            "new_spte 5a0",
        ],
    ),
    "visibility-half-changed": (
        ["failed to modify gpa visibility, elements successfully processed 17: Operation denied."],
        ["failed to modify gpa visibility, elements successfully processed 0: Operation denied."],
    ),
    "sev-term-unknown": (["KVM: unknown exit reason 24"], ["KVM: unknown exit reason 39"]),
}
"""Known problem to a log that fits, and one that nearly does: the same kind of line, without what makes it that problem."""


def claims(lines: list[str], folder: Path) -> str:
    shown = post_mortem_of(read_lines([line.encode() for line in lines], folder))
    return "\n".join(str(problem) for incident in shown.incidents for problem in incident.known_problems)


def test_each_known_problem_has_a_case() -> None:
    assert set(CASES) == {known.name for known in catalogue()}


@pytest.mark.parametrize("name", CASES)
def test_a_problem_is_claimed_with_its_lines_and_what_is_missing(name: str, tmp_path: Path) -> None:
    (known,) = (known for known in catalogue() if known.name == name)
    claim = claims(CASES[name][0], tmp_path)
    assert known.title in claim
    own = next(part for part in claim.split("\n") if known.title in part)
    assert f"Fits: {known.fits} (trace.txt:" in own, "the lines that show it"
    assert own.startswith("likely: " if known.missing or (known.confirm and "Missing:" in own) else "known: ")
    assert not known.missing or f"Missing: {known.missing}." in own
    assert known.remedy in own
    assert known.seen_in in own


@pytest.mark.parametrize("name", CASES)
def test_a_problem_is_not_claimed_of_a_log_that_nearly_fits(name: str, tmp_path: Path) -> None:
    (known,) = (known for known in catalogue() if known.name == name)
    read = read_lines([line.encode() for line in CASES[name][1]], tmp_path)
    assert read.account.unparsed == 0 or name == "discard-broken"
    assert known.title not in claims(CASES[name][1], tmp_path)


@pytest.mark.parametrize(
    ("boot", "certain"),
    [
        ([TABLE.format(end="000000004b2fffff")], True),
        ([RESERVED, NODE], True),
        ([TABLE.format(end="000000007b2fffff")], False),
        ([RESERVED], False),
        ([NODE], False),
        ([], False),
    ],
    ids=["next to the table", "reserved and in use", "a table elsewhere", "reserved only", "in use only", "no boot lines"],
)
def test_boot_lines_that_place_the_page_make_the_edge_of_the_rmp_table_certain(
    boot: list[str], certain: bool, tmp_path: Path
) -> None:
    """Without a dump they alone can tell it; a page that they place elsewhere is not that problem."""
    claim = claims([*boot, UPDATE.format(ret=2)], tmp_path)
    assert claim.startswith("known: pages at the edge of the RMP table") is certain
    assert ("edge of the RMP table" in claim) is certain
    with_dump = claims([*boot, UPDATE.format(ret=2), UNASSIGNED, FIRMWARE], tmp_path)
    assert with_dump.startswith("known: " if certain else "likely: ")


def test_a_page_inside_of_the_rmp_table_is_not_next_to_it(tmp_path: Path) -> None:
    inside = claims([TABLE.format(end="000000004b3fffff"), UPDATE.format(ret=2)], tmp_path)
    assert "edge of the RMP table" not in inside


def test_the_reports_that_are_known_are_whole() -> None:
    for known in meanings():
        assert known.blame in Blame
        assert {"kind"} <= set(known.when)
        assert known.title
        assert known.says.endswith((".", "}"))


def test_each_cause_of_a_messed_up_page_has_a_meaning_or_a_story_of_its_own() -> None:
    for cause in set(Cause) - {Cause.POISONED}:
        known = meaning({"kind": "messed_up", "cause": cause.name.lower()})
        assert known is not None, cause


def test_each_known_problem_is_whole() -> None:
    for known in catalogue():
        assert known.match
        assert known.means
        assert not known.title.endswith(".")
        assert not (known.means + known.remedy + known.fits).endswith("."), "the claim sets the full stops"


def test_the_page_lists_every_known_problem_and_every_cause() -> None:
    page = (Path(signatures.__file__).parents[2] / "docs" / "postmortem.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| ")]
    for known in catalogue():
        assert f"| {known.name} | {known.title} | {known.seen_in} | {known.fixed_in} |" in listed
    for cause in Cause:
        assert any(line.startswith(f"| {cause.name.lower().replace('_', ' ')} | ") for line in listed)
    for blame in Blame:
        assert any(line.startswith(f"| {blame} | ") for line in listed)
