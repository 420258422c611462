"""What pages say against guests: each cause of a messed-up page, reports that name no page, reboots; from lines of logs to the
answer."""

from pathlib import Path

import pytest

from gmemstate.audit.history.history import History
from gmemstate.conclusions.host import HostAnswer, MayStart, host
from gmemstate.model.events import HostBooted, PageLeaked
from gmemstate.model.objects import REUSE_RISK, Cause
from gmemstate.model.record import resolve
from tests.conclusions.boot_logs import SNP, TDX, stamped
from tests.traces import read_lines

YES, NO, UNKNOWN, OTHER = MayStart.YES, MayStart.NO, MayStart.UNKNOWN, MayStart.OTHER
REMOVE = "kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400"
UNNAMED = "kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000092, entry 0x0, level_state 0x0"
KEPT = "SEV: Failed to update RMP entry for PFN 0x4abc error 2"
LEAKED = "SEV-SNP: Leaking PFN range 0x200000-0x200200"
POISONED = "Memory failure: 0x5000: recovery action for clean unevictable LRU page: Failed"
REFUSED = "kvm_amd: SEV: Failed to update RMP entry: GFN 100 PFN 4abcd level 1 error -14"
UNRECLAIMED = "kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000030000000001, rcx 0x0, rdx, 0x0, r8 0x0"


def asked(lines: list[str], folder: Path, boot: tuple[str, ...] = ()) -> HostAnswer:
    """The answer for lines that follow a whole, clean boot (or stand alone)."""
    text = [*stamped(*boot), *(stamped(*lines, since=100.0) if boot else lines)]
    return host(read_lines([line.encode() for line in text], folder).history)


def advice(found: HostAnswer) -> tuple[MayStart, ...]:
    return tuple(answer.verdict for answer in found.answers)


@pytest.mark.parametrize(
    ("boot", "line", "cause", "expected", "mended"),
    [
        (TDX, REMOVE, Cause.SEPT_STILL_MAPS, (UNKNOWN, NO, OTHER), "reboot"),
        (TDX, UNNAMED, Cause.SEPT_STILL_MAPS, (UNKNOWN, NO, OTHER), "reboot"),
        (SNP, KEPT, Cause.RMP_STILL_GUEST, (NO, OTHER, NO), "reboot"),
        (SNP, LEAKED, Cause.LEAKED_BY_KERNEL, (YES, OTHER, YES), None),
        (SNP, POISONED, Cause.POISONED, (YES, OTHER, YES), None),
        (SNP, REFUSED, Cause.UNUSABLE_PRIVATE, (YES, OTHER, UNKNOWN), None),
        (TDX, UNRECLAIMED, Cause.RECLAIM_REFUSED, (YES, YES, OTHER), None),
    ],
    ids=["REMOVE", "BLOCK, page not named", "RMP", "leaked", "poisoned", "refused", "not reclaimed"],
)
def test_each_cause_speaks_against_its_own_kinds_of_guests(
    boot: tuple[str, ...], line: str, cause: Cause, expected: tuple[MayStart, ...], mended: str | None, tmp_path: Path
) -> None:
    """Plain VMs, TDs, SNP guests, in this order."""
    found = asked([line], tmp_path, boot)
    assert advice(found) == expected
    (entry,) = found.messed_up
    assert entry.cause is cause
    assert {answer.mended_by for answer in found.answers if answer.verdict is NO} <= {mended}


def test_every_cause_has_a_risk_of_reuse_and_something_that_clears_it() -> None:
    assert set(REUSE_RISK) == set(Cause)
    assert {clears for _, clears in REUSE_RISK.values()} == {"reboot", "fix", "never"}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([REMOVE], "first failure of a VM"),
        ([UNRECLAIMED], "name no page"),
        ([KEPT], "rate"),
        ([LEAKED, "kvm_amd: 12 callbacks suppressed"], "lines of a log are missing"),
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
    ("boot", "lines", "expected"),
    [
        (TDX, [WARNING.format(function="tdx_sept_drop_private_spte")], (UNKNOWN, UNKNOWN, OTHER)),
        (SNP, [UPDATE], (UNKNOWN, OTHER, UNKNOWN)),
        (SNP, [STILL_MAPPED], (UNKNOWN, OTHER, UNKNOWN)),
        (SNP, [STILL_MAPPED.replace("unmap", "map")], (YES, OTHER, YES)),
    ],
    ids=["unmap warned of", "RMPUPDATE without direction", "device not unmapped", "device not mapped"],
)
def test_a_line_that_names_no_page_makes_the_answer_unknown(
    boot: tuple[str, ...], lines: list[str], expected: tuple[MayStart, ...], tmp_path: Path
) -> None:
    found = asked(lines, tmp_path, boot)
    assert advice(found) == expected
    line = f"trace.txt:{len(boot) + 1}"
    assert all(line in answer.lines for answer in found.answers if answer.verdict is UNKNOWN), "the line is named"


def test_a_journal_that_goes_on_with_the_next_boot_clears_what_a_reboot_clears(tmp_path: Path) -> None:
    mark = "-- Boot 0123456789abcdef0123456789abcdef --"

    def after(*lines: str) -> tuple[MayStart, ...]:
        return advice(asked([*stamped(*SNP), *lines, mark, *stamped(*SNP)], tmp_path))

    assert after(KEPT, UPDATE) == (YES, OTHER, YES)
    assert after(REFUSED) == (YES, OTHER, UNKNOWN), "a reboot does not help"
    assert advice(asked([mark, *stamped(*SNP), KEPT], tmp_path)) == (NO, OTHER, NO), "a boot before it clears nothing"


def test_the_boot_of_a_guest_clears_nothing(tmp_path: Path) -> None:
    """A guest's console may stand in the same log."""
    assert advice(asked([REMOVE, "[    0.000000] Linux version 7.2.13 (guest)"], tmp_path))[1] is NO


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
    assert set(advice(found)) == {UNKNOWN}
    assert all("ingest" in check.hint for check in found.checks)
