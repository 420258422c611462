"""Post-mortems without a conversion: what kernels and VMMs print of private pages, and what is known of it."""

from pathlib import Path

import pytest

from gmemstate.audit.history.history import History
from gmemstate.conclusions.guests import Guests
from gmemstate.conclusions.host import MayStart, host
from gmemstate.ledger.ledger import Ledger
from gmemstate.postmortem.incident import Incident
from gmemstate.postmortem.known.signatures import catalogue
from gmemstate.postmortem.report import post_mortem

REMOVE = (
    "[ 8123.440118] WARNING: arch/x86/kvm/vmx/tdx.c:1817 at tdx_sept_set_private_spte+0x2f1/0x4d0 [kvm_intel], "
    "CPU#37: CPU 3/KVM/40213",
    "[ 8123.440200] Call Trace:",
    "[ 8123.440201]  <TASK>",
    "[ 8123.440202]  kvm_tdp_mmu_unmap_gfn_range+0x10/0x20 [kvm]",
    "[ 8123.440203]  kvm_arch_pre_set_memory_attributes+0x10/0x20 [kvm]",
    "[ 8123.440204]  kvm_vm_ioctl+0x10/0x20 [kvm]",
    "[ 8123.440205]  </TASK>",
    "[ 8123.440395] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x1a2b3c4077, level_state 0x400",
)
RMPUPDATE = (
    "[255267.410514] SEV-SNP: RMPUPDATE failed for PFN 56700, pg_level: 1, ret: 2",
    "[255267.410520] SEV-SNP: PFN 0x56700 unassigned, dumping non-zero entries in 2M PFN region: [0x56600 - 0x56800]",
    "[255267.410530] SEV-SNP: PFN: 0x56600, [0x80000000000007fd - 0x0000000000000000]",
)


def read(folder: Path, *lines: str) -> tuple[History, list[Incident]]:
    path = folder / "log.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    with Ledger.open(folder / "vm.db") as ledger:
        ledger.ingest(path)
        history = ledger.history()
        return history, list(post_mortem(ledger.record_, history).incidents)


def text(incident: Incident) -> str:
    return " ".join(
        [
            incident.blame,
            incident.title,
            incident.who,
            incident.summary,
            *(section.text for section in incident.margin()),
            *incident.missing,
        ]
    )


def advice(history: History) -> dict[Guests, MayStart]:
    return {answer.guests: answer.verdict for answer in host(history).answers}


def test_a_page_that_could_not_be_removed_makes_the_host_suspect(tmp_path: Path) -> None:
    """The step, the status, the page, what nobody was shown, and that only a reboot clears it; in one incident."""
    history, incidents = read(tmp_path, *REMOVE)
    (incident,) = incidents
    shown = text(incident)
    assert incident.blame == "kernel or module"
    for fact in (
        "thread 40213",
        "3 of 4",
        "REMOVE failed, WBINVD not reached",
        "TDX_EPT_ENTRY_STATE_INCORRECT",
        "level 4K, state PRESENT",
        "0x1a2b3c4",
        "attributes ioctl",
        "at least 1",
        "returned 0",
        "EIO",
        "TDX_PAGE_METADATA_INCORRECT",
        "reboot",
        "the gfn",
    ):
        assert fact in shown, fact
    assert not incident.complete
    assert advice(history) == {Guests.PLAIN: MayStart.UNKNOWN, Guests.TDX: MayStart.NO, Guests.SNP: MayStart.UNKNOWN}
    assert host(history).at_least


def test_a_page_that_the_rmp_refuses_is_no_danger_and_a_known_problem(tmp_path: Path) -> None:
    history, incidents = read(tmp_path, *RMPUPDATE)
    (incident,) = incidents
    shown = text(incident)
    assert incident.blame == "host platform"
    for fact in (
        "0x56700",
        "FAIL_PERMISSION",
        "to private",
        "unassigned",
        "0x56600",
        "No memory is lost",
        "A reboot does not help",
        "88a921aa3c6b",
        "Missing",
    ):
        assert fact in shown, fact
    assert advice(history)[Guests.PLAIN] is MayStart.UNKNOWN
    assert advice(history)[Guests.SNP] is MayStart.UNKNOWN


@pytest.mark.parametrize(
    ("line", "blame", "facts"),
    [
        (
            "kvm_intel: Guest access before accepting 0x807000 on vCPU 1",
            "guest",
            ("gfn 0x807", "EIO", "the host's whole kernel log does"),
        ),
        ("SEV-SNP: Leaking PFN range 0x146800-0x146a00", "host platform", ("512 host pages", "2048 KiB", "reboot")),
        (
            "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0",
            "kernel or module",
            ("TDX_PAGE_METADATA_INCORRECT", "rate limit", "canonical/tdx#153"),
        ),
        ("error: kvm run failed Input/output error", "unknown", ("Bugged", "or dead", "dmesg")),
        (
            "qemu-system-x86_64: Convert non guest_memfd backed memory region (0x7f000000 ,+ 0x10000) to private",
            "VMM",
            ("gfn 0x7f000", "Nothing was converted", "likely:", "info mtree"),
        ),
    ],
)
def test_a_line_of_a_kernel_or_vmm_has_a_story(tmp_path: Path, line: str, blame: str, facts: tuple[str, ...]) -> None:
    _, incidents = read(tmp_path, line)
    (incident,) = incidents
    assert incident.blame == blame
    for fact in facts:
        assert fact in text(incident), (fact, text(incident))


def test_a_reboot_clears_what_it_clears(tmp_path: Path) -> None:
    from gmemstate.model.events import HostBooted

    with Ledger.open(tmp_path / "vm.db") as ledger:
        path = tmp_path / "log.txt"
        path.write_text("".join(f"{line}\n" for line in REMOVE))
        ledger.ingest(path)
        ledger.record(HostBooted())
        assert advice(ledger.history())[Guests.TDX] is MayStart.UNKNOWN


def test_without_a_kernel_log_nothing_is_said_to_be_well(tmp_path: Path) -> None:
    history, _ = read(tmp_path, "error: kvm run failed Input/output error")
    assert set(advice(history).values()) == {MayStart.UNKNOWN}


def test_each_known_problem_says_what_fits_and_where_it_was_seen() -> None:
    known = catalogue()
    assert len(known) >= 10
    for problem in known:
        assert problem.match
        assert problem.fits
        assert problem.seen_in
        assert problem.remedy
