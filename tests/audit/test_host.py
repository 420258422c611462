"""May VMs be started here: each cause of a messed-up page, doubts that name no page, and reboots; from lines of logs to the answer."""

from pathlib import Path

import pytest

from gmemstate.audit.history.history import History
from gmemstate.audit.host import Advice, Guests, Host, host
from gmemstate.model.events import HostBooted, PageLeaked
from gmemstate.model.objects import REUSE_RISK, Cause
from gmemstate.model.record import resolve
from tests.traces import read_lines

NO, RISK, YES, UNKNOWN = Advice.NO, Advice.RISK, Advice.YES, Advice.UNKNOWN
REMOVE = "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400"
UNNAMED = "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x0, level_state 0x0"
KEPT = "SEV: Failed to update RMP entry for PFN 0x4abc error 2"
LEAKED = "SEV-SNP: Leaking PFN range 0x200000-0x200200"
POISONED = "Memory failure: 0x5000: recovery action for clean unevictable LRU page: Failed"
REFUSED = "kvm_amd: SEV: Failed to update RMP entry: GFN 100 PFN 4abcd level 1 error -14"
UNRECLAIMED = "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0"


def asked(lines: list[str], folder: Path) -> Host:
    return host(read_lines([line.encode() for line in lines], folder).history)


def advice(found: Host) -> tuple[Advice, ...]:
    return tuple(answer.verdict for answer in found.answers)


@pytest.mark.parametrize(
    ("line", "cause", "expected", "until"),
    [
        (REMOVE, Cause.SEPT_STILL_MAPS, (RISK, NO, YES), "the next reboot"),
        (UNNAMED, Cause.SEPT_STILL_MAPS, (RISK, NO, YES), "the next reboot"),
        (KEPT, Cause.RMP_STILL_GUEST, (NO, YES, NO), "the next reboot"),
        (LEAKED, Cause.LEAKED_BY_KERNEL, (YES, YES, YES), ""),
        (POISONED, Cause.POISONED, (YES, YES, YES), ""),
        (REFUSED, Cause.UNUSABLE_PRIVATE, (YES, RISK, RISK), "the cause is mended; a reboot does not help"),
        (UNRECLAIMED, Cause.RECLAIM_REFUSED, (YES, YES, YES), ""),
    ],
    ids=["REMOVE", "BLOCK, page not named", "RMP", "leaked", "poisoned", "refused", "not reclaimed"],
)
def test_each_cause_speaks_against_its_own_kinds_of_guests(
    line: str, cause: Cause, expected: tuple[Advice, ...], until: str, tmp_path: Path
) -> None:
    """Plain VMs, TDs, SNP guests, in this order."""
    found = asked([line], tmp_path)
    assert advice(found) == expected
    (entry,) = found.entries
    assert entry.cause is cause
    assert {answer.until for answer in found.answers if answer.verdict is not YES} <= {until}


def test_every_cause_has_a_risk_of_reuse_and_something_that_clears_it() -> None:
    assert set(REUSE_RISK) == set(Cause)
    assert {clears for _, clears in REUSE_RISK.values()} == {"reboot", "fix", "never"}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([REMOVE], "first failure of a VM"),
        ([UNRECLAIMED], "name no page"),
        ([KEPT], "rate"),
        ([LEAKED, "kvm_amd: 12 callbacks suppressed"], "lines of the kernel log are missing"),
        ([LEAKED], None),
    ],
)
def test_there_may_be_more_where_the_kernel_does_not_print_all(lines: list[str], why: str | None, tmp_path: Path) -> None:
    found = asked(lines, tmp_path)
    assert found.at_least == why if why is None else why in str(found.at_least)


WARNING = "WARNING: CPU: 1 PID: 77 at arch/x86/kvm/vmx/tdx.c:1700 {function}+0x10/0x20 [kvm_intel]"
UPDATE = "SEV-SNP: RMPUPDATE failed for PFN 4abcd, pg_level: 1, ret: 3"
STILL_MAPPED = "qemu-kvm: vfio_ram_discard_notify_discard: vfio_container_dma_unmap() failed: Invalid argument"
LOG = "SEV: SEV-SNP requires a memory backend with guest_memfd"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([WARNING.format(function="tdx_sept_drop_private_spte")], (UNKNOWN, UNKNOWN, UNKNOWN)),
        ([WARNING.format(function="tdx_mem_page_aug")], (YES, YES, YES)),
        ([UPDATE], (UNKNOWN, YES, UNKNOWN)),
        ([LOG, STILL_MAPPED], (UNKNOWN, UNKNOWN, UNKNOWN)),
        ([LOG, STILL_MAPPED.replace("unmap", "map")], (YES, YES, YES)),
    ],
    ids=["unmap warned of", "map warned of", "RMPUPDATE without direction", "device not unmapped", "device not mapped"],
)
def test_a_line_that_names_no_page_makes_the_answer_unknown(
    lines: list[str], expected: tuple[Advice, ...], tmp_path: Path
) -> None:
    found = asked(lines, tmp_path)
    assert advice(found) == expected
    assert all("trace.txt:" in answer.reason for answer in found.answers if answer.verdict is UNKNOWN), "the line is named"


def test_a_journal_that_goes_on_with_the_next_boot_clears_what_a_reboot_clears(tmp_path: Path) -> None:
    boot = "-- Boot 0123456789abcdef0123456789abcdef --"
    assert advice(asked([REMOVE, UPDATE, boot, LOG], tmp_path)) == (YES, YES, YES)
    assert advice(asked([REFUSED, boot], tmp_path)) == (YES, RISK, RISK)
    assert advice(asked([boot, REMOVE], tmp_path)) == (RISK, NO, YES), "a boot before it clears nothing"


def test_the_boot_of_a_guest_clears_nothing(tmp_path: Path) -> None:
    """A guest's console may stand in the same log."""
    assert advice(asked([REMOVE, "[    0.000000] Linux version 7.2.13 (guest)"], tmp_path)) == (RISK, NO, YES)


def test_a_reboot_in_one_log_says_nothing_of_what_another_log_tells() -> None:
    """Nothing tells which was written first; only an operator, who names no log, clears all."""

    def entries(*booted: HostBooted) -> int:
        rows, _ = resolve([event.row() for event in (PageLeaked(pfn=0x100, npages=2, source=1), *booted)], 1, {})
        return sum(entry.state != "cleared" for entry in History().fold(rows).memory.messed_up.values())

    assert entries() == 1
    assert entries(HostBooted(source=2)) == 1
    assert entries(HostBooted(source=1)) == 0
    assert entries(HostBooted()) == 0


def test_without_a_kernel_log_nothing_is_known(tmp_path: Path) -> None:
    found = asked(["error: kvm run failed Input/output error"], tmp_path)
    assert advice(found) == (UNKNOWN,) * len(Guests)
    assert all("gmemstate ingest" in answer.reason for answer in found.answers)
