"""Public logs of others: what the index of the samples says that a tool should conclude, as far as lines alone state it."""

from pathlib import Path
from typing import Any

import pytest

from gmemstate.model.events import Event
from tests.ingest.witness import details, events_of, shows
from tests.traces import SHARED, Read, read_file

FILES = sorted(path for path in (SHARED / "samples").glob("*/*.log") if path.is_file())

pytestmark = pytest.mark.skipif(not FILES, reason="the public sample logs are not at hand")

Expected = list[tuple[str, dict[str, Any]]]

CONCLUSIONS: dict[str, Expected] = {
    # --- QEMU's traces
    "snp-launch-update-sevutils17": [
        ("vmm_said", {"code": "launch update", "gfn": hex(gfn), "pages": pages})
        for gfn, pages in (
            (0xFFC00, 0x400),
            (0x800, 9),
            (0x80A, 3),
            (0x80D, 1),
            (0x80E, 1),
            (0x80F, 1),
            (0x810, 1),
            (0x811, 15),
        )
    ],
    "snp-kexec-implicit-psc": [
        ("memory_fault_exit", {"start": 0x4000, "npages": 1, "flags": 8}),
        ("vmm_said", {"code": "convert wish", "gfn": "0x4000", "pages": 1, "to": "private"}),
        ("gap", {}),
        ("vmm_said", {"code": "unknown exit", "exit": 24, "exit_name": "KVM_EXIT_SYSTEM_EVENT"}),
    ],
    "local-qemu72-log-msg-timestamp": [("slot_set", {"slot": 2, "start": 0xFEDA0, "npages": 0, "result": 0, "thread": 22400})],
    "local-qemu72-log-plain": [("slot_set", {"slot": 4, "start": 0xF0, "npages": 0, "result": 0, "t": None})],
    # --- VMMs
    "qemu-convert-non-gmem-tpm-ppi": [
        ("vmm_said", {"code": "convert refused", "gfn": "0xfed45", "to": "private", "result": None})
    ],
    "qemu-convert-non-gmem-rom-to-shared": [("vmm_said", {"code": "convert refused", "gfn": "0xf0", "to": "shared"})],
    "qemu-set-user-memory-region2-einval-amdsev242": [
        ("slot_set", {"slot": 2, "start": 0xFFC84, "npages": 0x37C, "flags": 2, "result": 22, "gmem_fd": None})
    ],
    "qemu-vfio-discard-broken-ebusy-kubevirt16407": [("vmm_said", {"code": "discarding of RAM", "result": 16})],
    "qemu-vfio-dma-map-efault-kata10354": [("dma_mapped", {"iova": 0x40000000, "npages": 0x500000, "result": 14})],
    "libkrun-memoryfault-243": [("memory_fault_exit", {"start": 1, "npages": 1, "flags": 8})],
    "libkrun-create-guest-memfd-519": [("vmm_said", {"code": "call failed", "what": "CreateGuestMemfd", "result": 13})],
    "openhcl-tdx-inaccessible-gpa-1340": [
        ("vmm_said", {"code": "inaccessible gpa", "gfn": "0x666d9", "is_shared": "false"}),
        ("vmm_said", {"code": "guest crash"}),
    ],
    "openhcl-visibility-denied-1827": [
        ("vmm_said", {"code": "visibility change failed", "processed": 0, "error": "Operation denied"})
    ],
    "qemu-tdx-init-mem-region-eagain-canonical21": [("vmm_said", {"code": "KVM_TDX_INIT_MEM_REGION", "result": 11})],
    "qemu-tdx-init-mem-region-eio-canonical319": [("vmm_said", {"code": "KVM_TDX_INIT_MEM_REGION", "result": 5})],
    "qemu-kvm-run-einval-snp-amdsev245": [("vmm_said", {"code": "kvm run failed", "result": 22, "gfn": None})],
    "qemu-kvm-run-eio-tdx-canonical348": [("vmm_said", {"code": "kvm run failed", "result": 5})] * 2
    + [("vmm_said", {"code": "registers", "result": 5})] * 2,
    "qemu-unknown-exit-24-svsm512": [("vmm_said", {"code": "unknown exit", "exit": 24})],
    "cloudhv-vfio-snp-double-pin-8501": [("vmm_said", {"code": "pinned memory", "kilobytes": 16777216})],
    "local-qemu72-error-report-forms": [("vmm_said", {"code": "error", "result": 2})] * 2,
    # --- TDX
    "teardown-reclaim-metadata-incorrect-canonical153": [
        ("reclaim_failed", {"pfn": None, "status": 0xC0000300, "name": "TDX_PAGE_METADATA_INCORRECT", "operand": "RCX"})
    ]
    * 3,
    "mem-page-aug-warn-canonical100": [
        ("gap", {"count": 109, "what": "kauditd_printk_skb"}),
        ("kernel_warned", {"function": "tdx_mem_page_aug", "about": "private map", "thread": 24908}),
    ],
    "dirty-logging-splat-canonical348": [
        ("kernel_warned", {"function": "vt_update_cpu_dirty_logging", "about": None, "path": None})
    ],
    "ubsan-tdparams-canonical21": [("kernel_warned", {"what": "UBSAN", "function": "setup_tdparams", "about": None})],
    "seamcall-format-6.5-canonical25": [("kernel_warned", {"leaf": "TDH.SYS.INIT", "status": "0xc000092100000122"})],
    "guest-access-before-accept": [("vm_dead", {"gpa": "0x807000", "gfn": "0x807"})],
    "td-fatal-mce-tdh-mem-rd": [
        ("vm_dead", {"name": "TDX_TD_FATAL", "hkid": "0x41", "fatal": True}),
        ("vm_dead", {"name": "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE"}),
        ("machine_check", {"pfn": 0x80A5669, "address": "0x82080a5669600"}),
        ("kernel_warned", {"leaf": "TDH.MEM.RD", "name": "TDX_TD_FATAL"}),
        ("poisoned", {"pfn": 0x80A5669, "users": 1, "action": "clean unevictable LRU page: Failed"}),
    ],
    "gmem-shareability-warn-yan": [
        (
            "kernel_warned",
            {"function": "kvm_gmem_shareability_get", "site": "virt/kvm/guest_memfd.c:175", "path": "vcpu run", "thread": 3775},
        )
    ],
    # --- SNP
    "rmpupdate-ret2-hvfixed-dump-amdsev245": [
        (
            "private_map_failed",
            {"pfn": 0x56700, "status": 2, "code": "FAIL_PERMISSION", "level": 1, "to": "private", "basis": "implied"},
        )
    ],
    "rmp-make-private-trace-svsm668": [("private_map_failed", {"pfn": None, "to": "private", "path": "vcpu run"})],
    "rmp-make-private-trace-amdsev245": [("private_map_failed", {"to": "private", "path": "vcpu run"})],
    "rmpupdate-ret4-overlap-amdsev143": [
        (
            "kernel_warned",
            {"pfn": "0x37d4fe8", "ret": 4, "code": "FAIL_OVERLAP", "outcome": "tried again", "to": "shared", "path": "destroy"},
        )
    ],
    "rmp-table-fixup-not-reserved": [("kernel_warned", {"what": "RMPUPDATE", "pfn": "0x28357f7c", "ret": 2, "to": None})],
    "rmp-violation-vmsa-launch-finish-twice": [
        (
            "rmp_violation",
            {
                "pfn": 0x40FDF36,
                "owner": "guest-owned, ASID 2, gpa 0xfffffffff000, a VMSA (a vCPU's register page)",
                "function": "sev_es_sync_vmsa",
                "path": "launch",
                "thread": 996180,
            },
        )
    ],
    "rmp-violation-avic-unassigned": [("rmp_violation", {"pfn": 0x1149CC, "owner": "the host's (unassigned)"})],
    "leaking-pfn-range-shutdown": [
        ("kernel_warned", {"what": "security processor", "rc": -110}),
        ("page_leaked", {"pfn": 0x146800, "npages": 512}),
    ],
    "guest-requested-termination-svsm13": [("vm_dead", {"set": "0xf", "code": "0x1"})],
    "guest-vc-unsupported-exit-0x404-amdsev255": [("kernel_warned", {"what": "#VC", "exit_code": "0x404"})] * 2,
    "requires-restricted-memory-amdsev166": [("kernel_warned", {"what": "configuration"})],
    # --- memory
    "syzbot-gmem-fault-user-mapping-large-folio": [
        (
            "kernel_warned",
            {
                "text": "folio_test_large(folio)",
                "function": "kvm_gmem_fault_user_mapping",
                "path": "host fault",
                "thread": 6406,
            },
        )
    ],
    "syzbot-gmem-get-folio-oops": [
        ("kernel_warned", {"what": "page fault", "function": "kvm_gmem_get_folio", "errors": {"RBX": "ENOMEM"}})
    ],
    "cca-gpf-gmem-get-pfn": [
        (
            "rmp_violation",
            {"what": "granule protection fault of the host", "function": "kvm_gmem_get_pfn", "rip": "clear_page", "pfn": None},
        )
    ],
    # --- traces
    "thp-coalesce-unmaps-private-rejoined": [("fault_served", {"start": 0x800, "npages": 512, "pfn": 0x100B4A00}), ("gap", {})],
    "thp-coalesce-unmaps-private-mailwrapped": [
        ("fault_served", {"start": 0x800, "npages": 512, "pfn": 0x100B4A00}),
        ("gap", {}),
    ],
    "tdx-mmu-set-spte-private": [("fault_served", {"start": 0x1151B, "npages": 1, "pfn": 0x80A5669})],
    "tdp-zap-root-with-stacktrace": [],
    "kvm-hypercall-format": [],
    "kvm-page-fault-vcpu-form": [],
    "local-ftrace-gmem-closed": [("hva_unmapped", {"npages": 512})],
    "local-perf-script": [("hva_unmapped", {"npages": 512})],
    "local-perf-trace": [("convert_asked", {"fd": 4, "start": None}), ("convert_returned", {"result": 25})] * 2,
    # --- system calls
    "local-guest-memfd-strace61-plain": [("convert_asked", {"fd": 4, "start": None}), ("convert_returned", {"result": 25})] * 2
    + [
        ("punched", {"start": 0x100, "npages": 1, "result": 0}),
        ("punched", {"result": 22}),
        ("punched", {"mode": 2, "result": 95}),
    ],
    "local-guest-memfd-strace61-tt-T-yy-Xverbose": [("convert_asked", {"file": "kvm-vm"}), ("convert_returned", {"result": 25})]
    * 2
    + [("punched", {"start": 0x100, "file": "kvm-gmem"}), ("punched", {"result": 22}), ("punched", {"mode": 2, "result": 95})],
    "libkrun-519-kvm-ioctls": [],
}
"""Sample to events that it must give, in their order; others may stand between them. None at all where the list is empty."""

ABOUT_PAGES = {"private_unmap_failed", "private_map_failed", "page_leaked", "poisoned", "reclaim_failed", "rmp_violation"}
ABOUT_CONVERSIONS = {"convert_asked", "convert_met", "convert_returned", "attrs_stored"}
NO_CONVERSION = {
    "dirty-logging-splat-canonical348",
    "ubsan-tdparams-canonical21",
    "seamcall-format-6.5-canonical25",
    "gmem-shareability-warn-yan",
    "rmpupdate-ret4-overlap-amdsev143",
    "rmp-table-fixup-not-reserved",
    "qemu-convert-non-gmem-rom-to-shared",
    "qemu-convert-non-gmem-tpm-ppi",
    "snp-kexec-implicit-psc",
    "openhcl-visibility-denied-1827",
    "local-ftrace-gmem-closed",
    "libkrun-519-kvm-ioctls",
    "qemu-unknown-exit-24-svsm512",
}
"""Samples that state neither a conversion nor that a page was messed up."""


def ids(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def read() -> dict[str, Read]:
    return {path.stem: read_file(path) for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_every_line_is_accounted_for_and_prose_alone_is_not_understood(path: Path, read: dict[str, Read]) -> None:
    account = read[path.stem].account
    assert account.lines == path.read_bytes().count(b"\n")
    assert account.used + sum(account.context.values()) + account.unparsed == account.lines
    assert account.unparsed <= max(3, account.lines // 10), account.first_unparsed


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in CONCLUSIONS], ids=ids)
def test_what_a_sample_states_is_on_record(path: Path, read: dict[str, Read]) -> None:
    events = events_of(read[path.stem])
    expected = CONCLUSIONS[path.stem]
    if not expected:
        assert not events
    rest = iter(events)
    for name, values in expected:
        assert any(event.name == name and shows(event, **values) for event in rest), (name, values, told(events))


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in NO_CONVERSION], ids=ids)
def test_what_is_no_conversion_and_no_bad_page_is_not_said_to_be_one(path: Path, read: dict[str, Read]) -> None:
    names = {event.name for event in events_of(read[path.stem])}
    assert not names & (ABOUT_PAGES | ABOUT_CONVERSIONS)


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_is_said_of_a_guest_that_is_not_named(path: Path, read: dict[str, Read]) -> None:
    assert not read[path.stem].history.findings
    assert all(getattr(event, "space", None) is None for event in events_of(read[path.stem]))


def told(events: list[Event]) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, details(event)) for event in events]
