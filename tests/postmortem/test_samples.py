"""Public logs of others: the post-mortem concludes what the index of the samples says that a tool should conclude."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from gmemstate.conclusions.guests import Guests
from gmemstate.conclusions.host import MayStart, host
from gmemstate.model.errors import CannotRead
from gmemstate.postmortem.render import text
from tests.postmortem.telling import post_mortem_of
from tests.traces import SHARED, Read, read_file

UNREAD = "42-tdx-private-mce-kernel-bug"
"""Two lines of a machine check that name no page: no reader makes anything of them, so that the file is refused."""
FILES = sorted(path for path in (SHARED / "samples").glob("*/*.log") if path.is_file() and path.stem != UNREAD)

pytestmark = pytest.mark.skipif(not FILES, reason="the public sample logs are not at hand")


@dataclass(frozen=True)
class Conclusion:
    """What the first incident has to say, what any may, what none may; without blame: there is no incident."""

    blame: str | None
    says: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    host: dict[Guests, MayStart] = field(default_factory=dict)
    complete: bool | None = None


KERNEL, PLATFORM, VMM, GUEST, UNKNOWN, NOBODY = "kernel or module", "host platform", "VMM", "guest", "unknown", "nobody"
LOST = ("memory is lost", "HOST SUSPECT", "STILL THE GUEST'S")
NOTHING = Conclusion(None, never=LOST)

CONCLUSIONS = {
    # --- QEMU's traces
    "snp-launch-update-sevutils17": NOTHING,
    "snp-kexec-implicit-psc": Conclusion(
        NOBODY,
        ("gfn 0x4000, 1 page to private", "without a hypercall", "implicit conversion"),
        ("KVM_EXIT_SYSTEM_EVENT", "Why it asked, this line does not show"),
        complete=False,
    ),
    "local-qemu72-log-msg-timestamp": NOTHING,
    "local-qemu72-log-plain": NOTHING,
    # --- VMMs
    "qemu-convert-non-gmem-tpm-ppi": Conclusion(
        VMM, ("gfn 0xfed45", "private", "Nothing was converted", "ppi=off"), never=LOST
    ),
    "qemu-convert-non-gmem-rom-to-shared": Conclusion(
        NOBODY, ("NOT A CONVERSION", "gfn 0xf0", "shared already", "read-only memslot", "flags"), never=LOST
    ),
    "qemu-set-user-memory-region2-einval-amdsev242": Conclusion(
        VMM, ("Memslot 2", "gfn 0xffc84", "892 pages", "read-only", "EINVAL", "-bios", "6.11")
    ),
    "qemu-vfio-discard-broken-ebusy-kubevirt16407": Conclusion(VMM, ("EBUSY", "QEMU 9.2", "known:")),
    "qemu-vfio-dma-map-efault-kata10354": Conclusion(
        UNKNOWN, ("iova 0x40000000", "5242880 pages", "EFAULT", "cannot be pinned")
    ),
    "libkrun-memoryfault-243": Conclusion(
        VMM, ("gfn 0x1", "1 page", "private", "does not handle", "Nothing was converted", "the VM ends")
    ),
    "libkrun-create-guest-memfd-519": Conclusion(PLATFORM, ("EACCES", "security module", "SELinux", "follow-up")),
    "openhcl-tdx-inaccessible-gpa-1340": Conclusion(
        GUEST, ("gfn 0x666d9", "as private", "shared", "machine check", "the state is unchanged"), ("guest crashed",)
    ),
    "openhcl-visibility-denied-1827": Conclusion(
        VMM, ("0 pages were converted", "Operation denied", "everything is as before")
    ),
    "qemu-tdx-init-mem-region-eagain-canonical21": Conclusion(KERNEL, ("EAGAIN", "transient", "tried again")),
    "qemu-tdx-init-mem-region-eio-canonical319": Conclusion(UNKNOWN, ("EIO", "SEAMCALL", "dmesg"), complete=False),
    "qemu-kvm-run-einval-snp-amdsev245": Conclusion(
        UNKNOWN, ("EINVAL", "RMPUPDATE failed", "no use", "no address", "dmesg | grep"), complete=False
    ),
    "qemu-kvm-run-eio-tdx-canonical348": Conclusion(
        UNKNOWN,
        ("EIO", "Bugged", "or dead", "does not say which", "every later ioctl of the VM returns EIO", "dmesg"),
        complete=False,
        host=dict.fromkeys((Guests.PLAIN, Guests.TDX, Guests.SNP), MayStart.UNKNOWN),
    ),
    "qemu-unknown-exit-24-svsm512": Conclusion(
        GUEST, ("SEV_TERM", "validating 2M over 4K pages", "Why it asked, this line does not show")
    ),
    "cloudhv-vfio-snp-double-pin-8501": Conclusion(UNKNOWN, ("16777216 kB", "pinned", "shared twin", "cloud-hypervisor#8501")),
    "local-qemu72-error-report-forms": Conclusion(UNKNOWN, ("ENOENT",)),
    # --- TDX
    "teardown-reclaim-metadata-incorrect-canonical153": Conclusion(
        KERNEL,
        (
            "3 reclaims",
            "TDH.PHYMEM.PAGE.RECLAIM",
            "TDX_PAGE_METADATA_INCORRECT",
            "operand RCX",
            "at least 3",
            "rate limit",
            "no line names a pfn",
        ),
        host={Guests.PLAIN: MayStart.UNKNOWN, Guests.TDX: MayStart.UNKNOWN},
    ),
    "mem-page-aug-warn-canonical100": Conclusion(
        KERNEL,
        ("PRIVATE PAGE NOT MAPPED", "tdx_mem_page_aug", "No page is lost", "Failed to get registers", "SEAMCALL"),
        complete=False,
        never=("HOST SUSPECT",),
    ),
    "dirty-logging-splat-canonical348": Conclusion(
        VMM, ("dirty logging", "vt_update_cpu_dirty_logging", "marks the VM as bugged", "EIO", "about no page"), never=LOST
    ),
    "ubsan-tdparams-canonical21": Conclusion(
        NOBODY, ("setup_tdparams", "Known to be harmless", "canonical/tdx#21"), never=LOST
    ),
    "seamcall-format-6.5-canonical25": Conclusion(
        PLATFORM, ("TDH.SYS.INIT", "0xc000092100000122", "no guest's memory is involved"), never=LOST
    ),
    "guest-access-before-accept": Conclusion(
        GUEST,
        (
            "gfn 0x807",
            "before it had accepted it",
            "EIO",
            "dead, not bugged",
            "the host's whole kernel log does",
            "kata-qemu-snp",
        ),
        host={Guests.TDX: MayStart.UNKNOWN},
    ),
    "td-fatal-mce-tdh-mem-rd": Conclusion(
        PLATFORM,
        ("TDX_TD_FATAL", "0xe000060400000000", "machine check"),
        ("pfn 0x80a5669", "1 reference to the page too many", "for good", "TDH.MEM.RD"),
        host={Guests.PLAIN: MayStart.UNKNOWN},
    ),
    "gmem-shareability-warn-yan": Conclusion(
        KERNEL,
        ("kvm_gmem_shareability_get", "raced with a conversion".upper(), "unknown", "two fixes are in the mail"),
        never=LOST,
    ),
    # --- SNP
    "rmpupdate-ret2-hvfixed-dump-amdsev245": Conclusion(
        PLATFORM,
        (
            "pfn 0x56700",
            "FAIL_PERMISSION",
            "level 4K",
            "to private [implied",
            "0x56600-0x5660e held by firmware or the platform (assigned, ASID 0)",
            "likely:",
            "88a921aa3c6b",
            "A reboot does not help",
            "memmap=2M$0x56600000",
            "EFAULT",
            "The attribute stays private",
            "Failed to update RMP entry: GFN",
        ),
        host={Guests.PLAIN: MayStart.UNKNOWN, Guests.SNP: MayStart.UNKNOWN},
        complete=False,
    ),
    "rmp-make-private-trace-svsm668": Conclusion(
        PLATFORM, ("to private", "pfn not known", "No memory is lost"), complete=False
    ),
    "rmpupdate-ret4-overlap-amdsev143": Conclusion(
        KERNEL,
        (
            "pfn 0x37d4fe8",
            "to shared",
            "FAIL_OVERLAP",
            "tried again",
            "destroy",
            "whether it succeeded is not in this line",
            "try for ever",
        ),
        never=LOST,
    ),
    "rmp-table-fixup-not-reserved": Conclusion(
        PLATFORM,
        (
            "pfn 0x28357f7c",
            "FAIL_PERMISSION",
            "reserved in the memory map, yet ordinary memory of a node",
            "known:",
            "88a921aa3c6b",
        ),
    ),
    "rmp-violation-vmsa-launch-finish-twice": Conclusion(
        KERNEL, ("pfn 0x40fdf36", "ASID 2", "0xfffffffff000", "VMSA", "sev_es_sync_vmsa (launch)", "9b9f7962e3e8")
    ),
    "rmp-violation-avic-unassigned": Conclusion(
        KERNEL, ("pfn 0x1149cc", "no guest owns the page", "AVIC"), complete=False, never=("d81cadbe1642",)
    ),
    "leaking-pfn-range-shutdown": Conclusion(
        PLATFORM,
        ("security processor".upper(),),
        ("512 host pages", "2048 KiB", "0x146800..0x1469ff", "9770b428b1a2", "reboot"),
        host={Guests.PLAIN: MayStart.UNKNOWN, Guests.SNP: MayStart.UNKNOWN},
    ),
    "guest-requested-termination-svsm13": Conclusion(
        GUEST, ("set 0xf, code 0x1", "Whether a conversion failed before, this line does not show"), never=LOST
    ),
    "guest-vc-unsupported-exit-0x404-amdsev255": Conclusion(
        GUEST, ("0x404", "PAGE_NOT_VALIDATED", "not validated", "BIOS"), never=LOST
    ),
    "requires-restricted-memory-amdsev166": Conclusion(VMM, ("no guest_memfd", "Nothing was converted"), never=LOST),
    # --- memory
    "syzbot-gmem-fault-user-mapping-large-folio": Conclusion(
        KERNEL, ("huge page where only 4K pages may be".upper(), "kvm_gmem_fault_user_mapping", "thread 6406"), never=LOST
    ),
    "syzbot-gmem-get-folio-oops": Conclusion(
        KERNEL, ("RBX = ENOMEM", "kvm_gmem_get_folio", "took an error for a page"), never=LOST
    ),
    "cca-gpf-gmem-get-pfn": Conclusion(KERNEL, ("Granule Protection Fault", "realm", "kvm_gmem_get_pfn"), never=("RMP",)),
    # --- traces
    **dict.fromkeys(
        ("thp-coalesce-unmaps-private-rejoined", "thp-coalesce-unmaps-private-mailwrapped"),
        Conclusion(
            KERNEL,
            ("512 pages at gfn 0x800", "0x100b4a00", "[0x800,0x803)", "mixed", "No conversion was asked"),
            complete=False,
        ),
    ),
    "tdp-zap-root-with-stacktrace": NOTHING,
    "kvm-hypercall-format": NOTHING,
    "kvm-page-fault-vcpu-form": NOTHING,
    "tdx-mmu-set-spte-private": NOTHING,
    **dict.fromkeys(
        ("local-ftrace-gmem-closed", "local-perf-script"),
        Conclusion(UNKNOWN, ("KVM_EXIT_INTERNAL_ERROR, 17", "a guest_memfd that was closed under its memslot"), complete=False),
    ),
    "local-perf-trace": Conclusion(VMM, ("ENOTTY", "Nothing was changed"), ("KVM_EXIT_INTERNAL_ERROR, 17",)),
    # --- system calls
    "local-guest-memfd-strace61-plain": Conclusion(VMM, ("ENOTTY", "Nothing was changed")),
    "local-guest-memfd-strace61-tt-T-yy-Xverbose": Conclusion(VMM, ("ENOTTY", "Nothing was changed")),
    "libkrun-519-kvm-ioctls": NOTHING,
}


def plain(words: str) -> str:
    return " ".join(words.split())


@cache
def read(path: Path) -> Read:
    return read_file(path)


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in CONCLUSIONS], ids=lambda path: path.stem)
def test_the_conclusion_of_the_index_is_the_conclusion_of_the_post_mortem(path: Path) -> None:
    expected, found = CONCLUSIONS[path.stem], post_mortem_of(read(path))
    whole = plain(text.report(found))
    if expected.blame is None:
        assert found.incidents == (), whole
    else:
        first = found.incidents[0]
        shown = plain(text.render(first, len(found.incidents)))
        assert first.blame == expected.blame, shown
        assert [words for words in expected.says if words not in shown] == [], shown
        assert expected.complete in (None, first.complete)
    assert [words for words in expected.also if words not in whole] == [], whole
    assert [words for words in expected.never if words in whole] == [], whole
    answers = {answer.guests: answer.verdict for answer in host(read(path).history).answers}
    assert expected.host.items() <= answers.items(), answers


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_incomplete_incident_says_what_would_complete_it_and_how_to_get_it(path: Path) -> None:
    try:
        found = post_mortem_of(read(path))
    except CannotRead:
        pytest.skip("no reader knows a line of it")
    for incident in found.incidents:
        assert incident.complete or incident.missing, incident.title
        assert incident.summary
        assert "{" not in incident.summary.replace("{ flags", ""), "a fact that is not filled in"


def test_most_samples_have_a_conclusion() -> None:
    """Samples that are new have a post-mortem; only their conclusion is not in the table."""
    assert {path.stem for path in FILES} & set(CONCLUSIONS)
