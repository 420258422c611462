"""Each step of a private unmap that fails leaves what it leaves: BLOCK, TRACK, REMOVE, WBINVD, RECLAIM; RMPUPDATE, PSMASH,
leaks."""

from pathlib import Path

import pytest

from gmemstate.conclusions.host import host
from gmemstate.model.events import Cause
from tests.ingest.witness import said

STEPS: dict[str, tuple[str, Cause, int | None, str]] = {
    "BLOCK": (
        "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0xc0000b0d00000001, entry 0x80000001234567f7, level_state 0x400",
        Cause.SEPT_STILL_MAPS,
        0x123456,
        "host may use it, a new TD is refused",
    ),
    "BLOCK, busy: no entry is reported": (
        "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x80000001234567f7, level_state 0x400",
        Cause.SEPT_STILL_MAPS,
        None,
        "host may use it, a new TD is refused",
    ),
    "TRACK": ("kvm_intel: SEAMCALL TDH_MEM_TRACK failed: 0x8000020000000092", Cause.UNTRACKED, None, "not known"),
    "REMOVE": (
        "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x80000001234567f7, level_state 0x100",
        Cause.SEPT_STILL_MAPS,
        0x123456,
        "host may use it, a new TD is refused",
    ),
    "WBINVD": (
        "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_WBINVD failed: 0x8000020000000092",
        Cause.UNFLUSHED,
        None,
        "corrupts: old cache lines of the TD",
    ),
    "RECLAIM: its registers are no page": (
        "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0x8000020000000092, rcx 0x123456000, rdx, 0x0, r8 0x0",
        Cause.RECLAIM_REFUSED,
        None,
        "none: the kernel keeps it",
    ),
    "RMPUPDATE to shared": (
        "SEV: Failed to update RMP entry for PFN 0x2a3b4c error -14",
        Cause.RMP_STILL_GUEST,
        0x2A3B4C,
        "corrupts: the host's first write faults",
    ),
    "PSMASH": ("SEV: Failed to PSMASH RMP entry for PFN 0x2a3b4c error 3", Cause.UNSPLIT, 0x2A3B4C, "not known"),
    "RMPUPDATE to private": (
        "kvm_amd: SEV: Failed to update RMP entry: GFN 1f00 PFN 2a3b4c level 1 error -14",
        Cause.UNUSABLE_PRIVATE,
        0x2A3B4C,
        "host may use it, a guest cannot",
    ),
    "a page of the firmware": ("Failed to reclaim PFN 2a3b4c, rc -5 fw_err 16", Cause.RECLAIM_REFUSED, 0x2A3B4C, "none"),
}


@pytest.mark.parametrize("name", STEPS)
def test_each_step_has_its_own_residue_page_and_risk(name: str, tmp_path: Path) -> None:
    line, cause, pfn, risk = STEPS[name]
    log = said(f"[ 5000.100000] {line}", tmp_path)
    (entry,) = log.whole.history.memory.messed_up.values()
    assert (entry.cause, entry.pfn) == (cause, pfn)
    assert entry.reuse_risk.startswith(risk)
    assert entry.cleared_by == ("fix" if cause is Cause.UNUSABLE_PRIVATE else "reboot")


def test_a_split_that_failed_and_an_update_that_failed_after_it_are_one_page_that_stayed_the_guests(tmp_path: Path) -> None:
    lines = [
        "SEV: Failed to PSMASH RMP entry for PFN 0x2a3b4c error 3",
        "SEV: Failed to update RMP entry for PFN 0x2a3b4c error -14",
    ]
    (entry,) = said(lines, tmp_path).whole.history.memory.messed_up.values()
    assert (entry.cause, entry.pfn) == (Cause.RMP_STILL_GUEST, 0x2A3B4C)


def test_a_page_that_the_kernel_leaked_after_it_could_not_take_it_back_is_given_to_nobody(tmp_path: Path) -> None:
    failed = "SEV: Failed to update RMP entry for PFN 0x2a3b4c error -14"
    leaked = "SEV-SNP: Leaking PFN range 0x2a3b4c-0x2a3b4d"
    alone = host(said(f"[ 1.0] {failed}", tmp_path).whole.history)
    kept = host(said([f"[ 1.0] {failed}", f"[ 1.1] {leaked}"], tmp_path).whole.history)
    assert "no" in {str(answer.verdict) for answer in alone.answers}
    assert "no" not in {str(answer.verdict) for answer in kept.answers}
