"""Public logs of others: each line is read without an exception, and what is known of a file is found in it."""

import pytest

from gmemstate.messages.reading import read
from tests.traces import SHARED

SAMPLES = SHARED / "samples"
FILES = sorted(SAMPLES.glob("*/*.log"))

pytestmark = pytest.mark.skipif(not FILES, reason="the public sample logs are not at hand")

FOUND = {
    "teardown-reclaim-metadata-incorrect-canonical153": ["TDH.PHYMEM.PAGE.RECLAIM", "TDX_PAGE_METADATA_INCORRECT, operand RCX"],
    "seamcall-format-6.5-canonical25": ["TDH.SYS.INIT", "TDX_INCORRECT_MSR_VALUE"],
    "guest-access-before-accept": ["gpa 0x807000 = gfn 0x807"],
    "td-fatal-mce-tdh-mem-rd": ["TDX_TD_FATAL", "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE", "TDH.MEM.RD", "pfn 0x80a5669 = "],
    "rmpupdate-ret2-hvfixed-dump-amdsev245": ["FAIL_PERMISSION", "pfn 0x56700 = ", "held by firmware or the platform"],
    "rmpupdate-ret4-overlap-amdsev143": ["FAIL_OVERLAP", "pfn 0x37d4fe8 = "],
    "rmp-table-fixup-not-reserved": ["FAIL_PERMISSION", "pfn 0x28357f7c = "],
    "rmp-violation-vmsa-launch-finish-twice": [
        "guest-owned, ASID 2, gpa 0xfffffffff000, a VMSA",
        "present, write, RMP violation",
    ],
    "leaking-pfn-range-shutdown": ["pfns [0x146800,0x146a00), 512 pages (2 MiB)", "ETIMEDOUT (110)"],
    "guest-requested-termination-svsm13": ["set 0xf code 0x1"],
    "guest-vc-unsupported-exit-0x404-amdsev255": ["had not validated"],
    "syzbot-gmem-get-folio-oops": ["ENOMEM (12)"],
    "snp-kexec-implicit-psc": [
        "gpa 0x4000000 = gfn 0x4000",
        "access was private",
        "shared to private",
        "KVM_EXIT_SYSTEM_EVENT (24)",
    ],
    "snp-launch-update-sevutils17": ["gpa 0xffc00000 = ", "1024 pages (4 MiB)", "gpa 0x811000 = "],
    "qemu-convert-non-gmem-tpm-ppi": ["gpa 0xfed45000 = gfn 0xfed45", "to private"],
    "qemu-convert-non-gmem-rom-to-shared": ["gpa 0xf0000 = gfn 0xf0", "to shared"],
    "qemu-set-user-memory-region2-einval-amdsev242": ["KVM_MEM_READONLY", "EINVAL (22)", "gpa 0xffc84000 = "],
    "qemu-vfio-dma-map-efault-kata10354": ["EFAULT (14), Bad address: the backing cannot be pinned"],
    "qemu-tdx-init-mem-region-eagain-canonical21": ["transient"],
    "qemu-kvm-run-eio-tdx-canonical348": ["the VM is dead or bugged"],
    "qemu-unknown-exit-24-svsm512": ["KVM_EXIT_SYSTEM_EVENT (24)"],
    "libkrun-memoryfault-243": ["access was private", "gpa 0x1000 = gfn 0x1"],
    "libkrun-create-guest-memfd-519": ["SELinux"],
    "openhcl-tdx-inaccessible-gpa-1340": ["gpa 0x666d9000 = gfn 0x666d9"],
    "tdx-mmu-set-spte-private": ["gfn 0x1151b = ", "maps host page pfn 0x80a5669"],
    "tdp-zap-root-with-stacktrace": ["frozen"],
    "thp-coalesce-unmaps-private-rejoined": ["gpa 0x84d000 = ", "frozen", "maps host page pfn 0x100b4a00"],
    "local-guest-memfd-strace61-plain": [
        "KVM_CREATE_GUEST_MEMFD",
        "KVM_SET_MEMORY_ATTRIBUTES",
        "page indices [0x100,0x101)",
        "EOPNOTSUPP",
    ],
    "local-guest-memfd-strace61-tt-T-yy-Xverbose": ["KVM_CREATE_GUEST_MEMFD", "punch a hole"],
    "local-perf-trace": ["KVM_CREATE_GUEST_MEMFD", "KVM_EXIT_INTERNAL_ERROR (17)"],
}
"""Sample to what the index of the samples says a tool should conclude, as far as single words show it."""


def texts(path):
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [meaning.text for line in lines for word in read(line).words for meaning in word.meanings]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_line_of_a_sample_is_read(path):
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        reading = read(line)
        assert reading.text == line.strip()
        for word in reading.words:
            assert reading.text[word.column - 1 :].startswith(word.text)


@pytest.mark.parametrize(("name", "expected"), FOUND.items(), ids=list(FOUND))
def test_what_a_sample_shows_is_found_in_it(name, expected):
    (path,) = [path for path in FILES if path.stem == name]
    found = texts(path)
    for text in expected:
        assert any(text in one for one in found), text
