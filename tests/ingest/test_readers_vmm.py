"""What VMMs, paravisors and guest firmware print: wishes stay wishes, refusals keep their errno, and addresses their unit."""

from pathlib import Path
from typing import Any

import pytest

from gmemstate.model.events import (
    ConvertMet,
    ConvertReturned,
    DmaMapped,
    DmaUnmapped,
    Event,
    GuestAsked,
    MemoryFaultExit,
    SlotSet,
    Through,
    VmDead,
    VmmSaid,
)
from tests.ingest.witness import details, said, shows

LINES: dict[str, tuple[str, type[Event], dict[str, Any]]] = {
    # QEMU's trace events
    "a wish to make private": (
        "kvm_convert_memory start 0x7f000000 size 0x200000 shared_to_private",
        VmmSaid,
        {"code": "convert wish", "gfn": "0x7f000", "pages": 512, "to": "private", "result": None},
    ),
    "a wish to make shared": (
        "kvm_convert_memory start 0x7f000000 size 0x1000 private_to_shared",
        VmmSaid,
        {"code": "convert wish", "gfn": "0x7f000", "pages": 1, "to": "shared"},
    ),
    "a memory fault": (
        "kvm_memory_fault start 0x7f000000 size 0x1000 flags 0x8",
        MemoryFaultExit,
        {"start": 0x7F000, "npages": 1, "flags": 8, "result": 14, "basis": "implied", "thread": 0},
    ),
    "a memory fault of a fork": (
        "qemu-system-x86_64: warning: memory fault: GPA 0x7f000000 size 0x1000 flags 0x0",
        MemoryFaultExit,
        {"start": 0x7F000, "flags": 0},
    ),
    "a guest asks, of an unknown thread": (
        "kvm_hc_map_gpa_range gpa 0x7f000000 size 0x200000 attributes 0x10 flags 0x0",
        VmmSaid,
        {"code": "KVM_HC_MAP_GPA_RANGE", "gfn": "0x7f000", "pages": 512, "attributes": "0x10"},
    ),
    "a guest asks": (
        "22402@1795363732.700444:kvm_hc_map_gpa_range gpa 0x7f000000 size 0x200000 attributes 0x10 flags 0x0",
        GuestAsked,
        {"thread": 22402, "start": 0x7F000, "npages": 512, "flags": 0x10, "t": 1795363732_700444000},
    ),
    "a memslot": (
        "kvm_set_user_memory AddrSpace#1 Slot#3 flags=0x4 gpa=0x100000 size=0x7f000000 ua=0x7f0000000000 guest_memfd=17 "
        "guest_memfd_offset=0x2000 ret=0",
        SlotSet,
        {
            "slot": 1 << 16 | 3,
            "start": 0x100,
            "npages": 0x7F000,
            "flags": 4,
            "result": 0,
            "gmem_fd": 17,
            "gmem_offset": "0x2000",
            "hva": "0x7f0000000000",
        },
    ),
    "a memslot of QEMU 8": (
        "kvm_set_user_memory Slot#3 flags=0x0 gpa=0x100000 size=0x0 ua=0x7f0000000000 ret=-22",
        SlotSet,
        {"slot": 3, "npages": 0, "result": 22, "gmem_fd": None},
    ),
    "a mapping for a device": (
        " iommufd_backend_map_dma  iommufd=10 ioas=2 iova=0x7f000000 size=0x200000 addr=0x7f0000000000 readonly=0 (0)",
        DmaMapped,
        {"start": 0x7F000, "npages": 512, "iova": 0x7F000000, "result": 0, "ioas": 2},
    ),
    "a mapping of a file for a device": (
        "iommufd_backend_map_file_dma  iommufd=10 ioas=2 iova=0x7f000000 size=0x200000 fd=17 start=4096 readonly=0 (-14)",
        DmaMapped,
        {"start": 0x7F000, "result": 14},
    ),
    "an unmapping for a device": (
        "iommufd_backend_unmap_dma  iommufd=10 ioas=2 iova=0x7f000000 size=0x1000 (0)",
        DmaUnmapped,
        {"start": 0x7F000, "npages": 1, "result": 0},
    ),
    "a region for a device, its end inclusive": (
        "vfio_listener_region_add_ram  region_add [ram] 0x0 - 0x7fffffff [0x7f0000000000]",
        DmaMapped,
        {"start": 0, "npages": 0x80000, "basis": "implied"},
    ),
    "a region that a device loses": (
        "vfio_listener_region_del  region_del 0x0 - 0xfff",
        DmaUnmapped,
        {"start": 0, "npages": 1, "basis": "implied"},
    ),
    "a state of a RAM block": (
        "ram_block_attributes_state_change offset 0x7f000000 size 0x1000 from 'mixture' to 'discarded'",
        VmmSaid,
        {"code": "ram block state change", "from": "mixture", "to": "discarded", "offset": "0x7f000000"},
    ),
    "a twin that is not freed": (
        "ram_block_discard_range pc.ram@0x7f0000000000 + 0x1000: madvise: 0 fallocate: 1 ret: -22",
        VmmSaid,
        {"code": "discard", "block": "pc.ram", "result": 22},
    ),
    "initial memory": (
        "kvm_sev_snp_launch_update src 0x7b8e38400000 gpa 0x7f0000 len 0x3000 (Zero page)",
        VmmSaid,
        {"code": "launch update", "gfn": "0x7f0", "pages": 3, "type": "Zero"},
    ),
    "a guest that ends itself": (
        "kvm_run_exit_system_event cpu_index 2, system_even_type 6",
        VmDead,
        {"vcpu": 2, "owner": None},
    ),
    "a TD that gives up": ("kvm_run_exit_system_event cpu_index 2, system_event_type 7", VmDead, {"vcpu": 2}),
    "a new VM": ("tdx_handle_reset", VmmSaid, {"code": "new VM"}),
    "a stop": (
        "runstate_set current_run_state 9 (running) new_state 2 (internal-error)",
        VmmSaid,
        {"code": "run state", "state": "internal-error"},
    ),
    # QEMU's errors
    "a refusal": (
        "qemu-system-x86_64: Convert non guest_memfd backed memory region (0x7f000000 ,+ 0x1000) to private",
        VmmSaid,
        {"code": "convert refused", "gfn": "0x7f000", "pages": 1, "to": "private", "result": None},
    ),
    "a refusal, newer": (
        "Convert non guest_memfd backed memory region (0x7f000000+0x2000) to shared",
        VmmSaid,
        {"code": "convert refused", "pages": 2, "to": "shared"},
    ),
    "a memslot that is refused": (
        "qemu-kvm: kvm_set_user_memory_region: KVM_SET_USER_MEMORY_REGION2 failed, slot=2, start=0x7f000000, size=0x1000, "
        "flags=0x4, "
        "guest_memfd=17, guest_memfd_offset=0x0: File exists",
        SlotSet,
        {"slot": 2, "start": 0x7F000, "npages": 1, "flags": 4, "result": 17, "gmem_fd": 17},
    ),
    "a mapping that fails": (
        "vfio_container_dma_map(0x3ea4e990, 0x7f000000, 0x1000, 0xfffaa3fff000) = -12 (Cannot allocate memory)",
        DmaMapped,
        {"start": 0x7F000, "npages": 1, "result": 12},
    ),
    "an unmapping that fails behind a discard": (
        "qemu-system-x86_64: vfio_ram_discard_notify_discard: vfio_container_dma_unmap() failed: Invalid argument",
        VmmSaid,
        {"code": "DMA still mapped", "result": 22},
    ),
    "a listener that refuses": (
        "qemu-system-x86_64: ram_block_attributes_for_each_populated_section: Failed to notify RAM discard listener: Cannot "
        "allocate memory",
        VmmSaid,
        {"code": "listener refused", "result": 12},
    ),
    "a listener of an earlier series": (
        "Failed to notify the listener the state change of (0x7f000000 + 0x1000) to private",
        VmmSaid,
        {"code": "listener refused", "gfn": "0x7f000", "to": "private"},
    ),
    "a flag that is not known": (
        "qemu-kvm: KVM_EXIT_MEMORY_FAULT: Unknown flag 0x10",
        VmmSaid,
        {"code": "unknown fault flag", "flags": "0x10"},
    ),
    "a vCPU that cannot run": ("error: kvm run failed Bad address", VmmSaid, {"code": "kvm run failed", "result": 14}),
    "a vCPU with its registers": (
        "error: kvm run failed Invalid argument EAX=00000000 EBX=00000000",
        VmmSaid,
        {"result": 22, "error": "Invalid argument"},
    ),
    "a vCPU whose page is poisoned": ("error: kvm run failed Memory page has hardware error", VmmSaid, {"result": 133}),
    "an exit that is not known": (
        "KVM: unknown exit reason 39",
        VmmSaid,
        {"code": "unknown exit", "exit": 39, "exit_name": "KVM_EXIT_MEMORY_FAULT"},
    ),
    "an internal error": ("KVM internal error. Suberror: 4", VmmSaid, {"code": "KVM internal error", "suberror": 4}),
    "a start of a TD": (
        "qemu-kvm: KVM_TDX_INIT_MEM_REGION failed Resource temporarily unavailable",
        VmmSaid,
        {"code": "KVM_TDX_INIT_MEM_REGION", "result": 11},
    ),
    "a start of an SNP guest": (
        "qemu-kvm: SNP_LAUNCH_UPDATE ret=-5 fw_error=0 ''",
        VmmSaid,
        {"code": "SNP_LAUNCH_UPDATE", "result": 5, "fw_error": 0},
    ),
    "any other error": (
        "qemu-kvm: -object memory-backend-ram: this cannot be: Device or resource busy",
        VmmSaid,
        {"code": "error", "result": 16},
    ),
    "an error without an errno": ("qemu-kvm: terminating on signal 15 from pid 1", VmmSaid, {"code": "error", "result": None}),
    # others
    "libkrun's fault": (
        "vcpu run: MemoryFault { gpa: 8192, size: 4096, flags: 0 }",
        MemoryFaultExit,
        {"start": 2, "npages": 1, "flags": 0, "basis": "implied"},
    ),
    "a TD's own end": (
        "qemu-kvm: TDX guest reports fatal error. Error code: 0x12, Error message: no memory",
        VmmSaid,
        {"code": "guest ended itself", "error_code": "0x12", "message": "no memory"},
    ),
    "a step of a TD's launch": (
        "qemu-kvm: KVM_TDX_FINALIZE_VM failed Input/output error",
        VmmSaid,
        {"code": "launch call failed", "what": "KVM_TDX_FINALIZE_VM", "result": 5},
    ),
    "a TDX call that the kernel does not know": (
        "qemu-kvm: -accel kvm: get_tdx_capabilities: KVM_TDX_CAPABILITIES failed: Inappropriate ioctl for device",
        VmmSaid,
        {"code": "launch call failed", "what": "KVM_TDX_CAPABILITIES", "result": 25},
    ),
    "the end of an SNP launch": (
        "qemu-kvm: sev_snp_launch_finish: SNP_LAUNCH_FINISH ret=-5 fw_error=8 'Invalid address'",
        VmmSaid,
        {"code": "launch call failed", "what": "SNP_LAUNCH_FINISH", "result": 5, "fw_error": 8},
    ),
    "a guest_memfd that is refused": (
        "qemu-kvm: kvm_create_guest_memfd: error creating kvm guest memfd: Permission denied",
        VmmSaid,
        {"code": "guest_memfd refused", "result": 13},
    ),
    "cloud-hypervisor's DMA in kata's log": (
        'time="2026-01-02T03:04:05.000000006Z" level=error msg="failed to add" error="reason: '
        'VfioMapRegion(DmaMap(IommuDmaMap(Error(28))))" name=shim',
        VmmSaid,
        {"code": "DMA", "what": "MAP", "result": 28},
    ),
    "libkrun's refusal": (
        "Unable to convert memory with properties: gpa: 0x7f000000 size: 0x1000 to_private: true",
        VmmSaid,
        {"code": "convert refused", "gfn": "0x7f000", "pages": 1, "to": "private"},
    ),
    "libkrun's flag": ("KVM_EXIT_MEMORY_FAULT: Unknown flag 16", VmmSaid, {"code": "unknown fault flag", "flags": "0x10"}),
    "libkrun's call": (
        "Building the microVM failed: Internal(Vm(CreateGuestMemfd(Error(22))))",
        VmmSaid,
        {"code": "call failed", "result": 22},
    ),
    "OpenVMM's wish": (
        "KVM_HC_MAP_GPA_RANGE set memory attributes gpa=0x7f000000 size=0x200000 page_count=512 map_attributes=0x10 "
        "private=true",
        VmmSaid,
        {"code": "KVM_HC_MAP_GPA_RANGE", "gfn": "0x7f000", "pages": 512, "private": "true"},
    ),
    "OpenHCL's part": (
        "failed to modify gpa visibility, elements successfully processed 17: Operation denied.",
        VmmSaid,
        {"code": "visibility change failed", "processed": 17, "error": "Operation denied"},
    ),
    "OpenHCL's guest": (
        "WARN  guest accessed inaccessible gpa, injecting MC gpa=0x7f000000 is_shared=true",
        VmmSaid,
        {"code": "inaccessible gpa", "gfn": "0x7f000", "is_shared": "true"},
    ),
    "edk2's wish": (
        "SetMemorySharedOrPrivate: Cr3Base=0x0 Physical=0x7f000000 Length=0x1000 Mode=Shared",
        VmmSaid,
        {"by": "edk2", "gfn": "0x7f000", "pages": 1, "to": "Shared"},
    ),
    "edk2's retry": (
        "SetOrClearSharedBit: TdVmcall(MAPGPA) Retry PhysicalAddress is 80007f000000, MapGpaRetryaddr is 80007f200000",
        VmmSaid,
        {"code": "MapGPA retry", "next": "0x7f200000", "gfn": "0x7f000", "pages": 512, "to": "shared"},
    ),
    "SVSM's pages": (
        "[SVSM] Validating 0x8000000000-0x8000001000",
        VmmSaid,
        {"by": "SVSM", "gpa": "0x8000000000", "end": "0x8000001000"},
    ),
    "what a VMM has pinned": ("VmPin:\t 2097152 kB", VmmSaid, {"code": "pinned memory", "kilobytes": 2097152}),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_one_event_with_its_numbers(name: str, tmp_path: Path) -> None:
    line, kind, expected = LINES[name]
    log = said(line, tmp_path)
    (event,) = log.events
    assert type(event) is kind
    assert shows(event, **expected), (event, expected)
    assert (log.account.used, log.account.unparsed) == (1, 0)
    assert getattr(event, "space", None) is None, "a log of a VMM names no VM"


@pytest.mark.parametrize(("flags", "to"), [(8, "private"), (0, "shared")])
def test_an_exit_that_a_vmm_does_not_handle_is_the_fault_and_its_giving_up(flags: int, to: str, tmp_path: Path) -> None:
    log = said(f"Unexpected exit reason on vcpu run: MemoryFault {{ size: 4096, flags: {flags}, gpa: 8192 }}", tmp_path)
    fault, gave_up = log.events
    assert isinstance(fault, MemoryFaultExit)
    assert shows(fault, start=2, npages=1, flags=flags)
    assert shows(gave_up, code="unhandled exit", gfn="0x2", to=to)
    assert (log.account.used, log.account.unparsed) == (1, 0)


def test_a_failed_ioctl_is_a_conversion_with_its_arguments_and_its_errno(tmp_path: Path) -> None:
    log = said("qemu-kvm: failed to set memory (0x7f000000+0x2000) with attr 0x8 error 'Cannot allocate memory'", tmp_path)
    met, returned = log.events
    assert isinstance(met, ConvertMet)
    assert shows(met, through=Through.VM_IOCTL, start=0x7F000, npages=2, attributes=8)
    assert isinstance(returned, ConvertReturned)
    assert returned.result == 12
    (conversion,) = log.whole.conversions
    assert (conversion["to"], conversion["errno"], conversion["start"], conversion["end"]) == (
        "private",
        12,
        "0x7f000",
        "0x7f002",
    )
    assert conversion["guest"] == "?"


def test_an_errno_that_nobody_knows_leaves_the_words(tmp_path: Path) -> None:
    (event,) = said("failed to set memory (0x7f000000+0x2000) with attr 0x8 error 'Etwas ging schief'", tmp_path).events
    assert isinstance(event, VmmSaid)
    assert shows(event, code="failed to set memory", result=None, error="Etwas ging schief")


def test_two_messages_in_one_line_are_two_events(tmp_path: Path) -> None:
    """As the trees print it that use warn_report() without a line end for the fault."""
    log = said(
        "qemu-kvm: warning: memory fault: GPA 0x7f000000 size 0x1000 flags 0x8 kvm_convert_memory start 0x7f000000 size "
        "0x1000 shared_to_private",
        tmp_path,
    )
    fault, wish = log.events
    assert isinstance(fault, MemoryFaultExit)
    assert isinstance(wish, VmmSaid)
    assert fault.start == int(details(wish)["gfn"], 16) == 0x7F000
    assert log.account.used == 1


def test_wishes_and_refusals_are_no_conversions(tmp_path: Path) -> None:
    log = said(
        [LINES[name][0] for name in ("a wish to make private", "a refusal", "a guest asks", "a memory fault", "edk2's wish")],
        tmp_path,
    )
    assert log.whole.conversions == []


@pytest.mark.parametrize(
    "line",
    [
        "kvm_run_exit cpu_index 0, reason 2",
        "runstate_set current_run_state 6 (prelaunch) new_state 9 (running)",
        "kvm_sev_change_state uninit -> launch-update",
        "2026-11-22T10:00:00.000000Z qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.01H:ECX.pni "
        "[bit 0]",
        "EAX=00000000 EBX=00000000 ECX=00000000 EDX=00000000",
        "GDT=     0000000000000000 00000000",
        "kvm_run_exit_system_event cpu_index 2, system_even_type 1",
        "[SVSM] Launching Firmware",
        "vfio_legacy_dma_unmap_overflow_workaround",
    ],
)
def test_the_ordinary_life_of_a_vmm_is_context(line: str, tmp_path: Path) -> None:
    log = said(line, tmp_path)
    assert log.events == []
    assert log.account.unparsed == 0


def test_deleting_a_memslot_is_told_by_its_size(tmp_path: Path) -> None:
    made, gone = said(
        "kvm_set_user_memory Slot#3 flags=0x0 gpa=0x100000 size=0x1000 ua=0x7f0000000000 ret=0\n"
        "kvm_set_user_memory Slot#3 flags=0x0 gpa=0x100000 size=0x0 ua=0x7f0000000000 ret=0",
        tmp_path,
    ).events
    assert (made.npages, gone.npages) == (1, 0)
