"""The gate: yes only for a whole log of a boot whose platform says that it works, and nothing that speaks against it."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gmemstate.conclusions.conclusion import Mended, Predicate, contradictions
from gmemstate.conclusions.guests import Guests
from gmemstate.conclusions.host import HostAnswer, MayStart, Outcome, host
from tests.conclusions.boot_logs import PLAIN, SNP, SNP_PARTS, TDX, TDX_PARTS, stamped
from tests.together import read_together
from tests.traces import read_lines

YES, NO, UNKNOWN, OTHER = MayStart.YES, MayStart.NO, MayStart.UNKNOWN, MayStart.OTHER
BOOTS = {"tdx": (TDX, (YES, YES, OTHER)), "snp": (SNP, (YES, OTHER, YES)), "plain": (PLAIN, (YES, OTHER, UNKNOWN))}


def answer(lines: Sequence[str], folder: Path) -> HostAnswer:
    found = host(read_lines([line.encode() for line in lines], folder).history)
    assert list(contradictions(found.conclusions)) == []
    return found


def verdicts(found: HostAnswer) -> tuple[MayStart, ...]:
    return tuple(one.verdict for one in found.answers)


@pytest.mark.parametrize("name", BOOTS)
def test_a_whole_clean_boot_is_a_yes_with_the_lines_that_prove_it(name: str, tmp_path: Path) -> None:
    lines, expected = BOOTS[name]
    found = answer(stamped(*lines), tmp_path)
    assert verdicts(found) == expected
    assert all(one.lines for one in found.answers if one.verdict is YES)
    assert all(check.outcome is Outcome.PASS or check.hint for check in found.checks)


@pytest.mark.parametrize("name", BOOTS)
def test_a_yes_without_times_needs_the_first_line_as_well(name: str, tmp_path: Path) -> None:
    lines, expected = BOOTS[name]
    assert verdicts(answer(lines, tmp_path)) == expected
    assert YES not in verdicts(answer(lines[1:], tmp_path))


@pytest.mark.parametrize("name", BOOTS)
def test_no_line_left_out_makes_a_yes_and_the_first_one_unmakes_all(name: str, tmp_path: Path) -> None:
    """Less evidence may weaken an answer; it never turns one into another that says more."""
    lines, expected = BOOTS[name]
    for n in range(len(lines)):
        left = verdicts(answer(stamped(*lines[:n], *lines[n + 1 :]), tmp_path))
        assert all(one in (was, UNKNOWN) for one, was in zip(left, expected, strict=True)), lines[n]
    assert YES not in verdicts(answer(stamped(*lines)[1:], tmp_path)), "the head is cut"


@pytest.mark.parametrize(
    ("lines", "guests", "part"),
    [(TDX, Guests.TDX, TDX_PARTS["TDX module"])]
    + [(SNP, Guests.SNP, SNP_PARTS[part]) for part in ("RMP table", "SNP firmware", "SEV-SNP in KVM")],
    ids=["module", "RMP", "firmware", "KVM"],
)
def test_each_success_that_a_kind_needs_must_have_been_seen(
    lines: tuple[str, ...], guests: Guests, part: str, tmp_path: Path
) -> None:
    found = answer(stamped(*(line for line in lines if line != part)), tmp_path)
    assert found.of(guests).verdict is UNKNOWN


SUPPRESSED = "kvm_amd: 12 callbacks suppressed"
OOPS = (
    "BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "#PF: supervisor read access in kernel mode",
    "#PF: error_code(0x0000) - not-present page",
    "Oops: Oops: 0000 [#1] SMP NOPTI",
    "CPU: 3 UID: 0 PID: 4242 Comm: qemu-kvm Not tainted 6.16.0 #1 PREEMPT(voluntary)",
    "RIP: 0010:ext4_lookup+0x10/0x200",
    "Call Trace:",
    " <TASK>",
    " lookup_slow+0x10/0x20",
    " </TASK>",
    "---[ end trace 0000000000000000 ]---",
)
KASAN = (
    "BUG: KASAN: slab-use-after-free in kvm_gmem_release+0x10/0x20",
    "Write of size 8 at addr ffff888000000000 by task qemu/77",
)


@pytest.mark.parametrize("lines", [(SUPPRESSED,), OOPS, KASAN, ("...",)], ids=["suppressed", "oops", "KASAN", "elided"])
@pytest.mark.parametrize("name", BOOTS)
def test_whatever_is_missing_or_damages_the_kernel_ends_every_yes(name: str, lines: tuple[str, ...], tmp_path: Path) -> None:
    assert YES not in verdicts(answer(stamped(*BOOTS[name][0], *lines), tmp_path))


FAILURES = [
    (TDX, "virt/tdx: module initialization failed (-5)", Guests.TDX, NO),
    (TDX, "virt/tdx: initialization failed: TDMR [0x40000000, 0x80000000): reserved areas exhausted.", Guests.TDX, NO),
    (SNP, "SEV-SNP: Memory for the RMP table has not been reserved by BIOS", Guests.SNP, NO),
    (SNP, "ccp 0000:22:00.1: SEV-SNP support requires firmware version >= 1:51", Guests.SNP, NO),
]


@pytest.mark.parametrize(("lines", "failure", "guests", "expected"), FAILURES)
def test_a_part_that_fails_is_a_no_for_who_needs_it_and_nothing_for_others(
    lines: tuple[str, ...], failure: str, guests: Guests, expected: MayStart, tmp_path: Path
) -> None:
    working = {*TDX_PARTS.values(), *SNP_PARTS.values()}
    first = answer(stamped(*(line for line in lines if line not in working), failure), tmp_path)
    assert first.of(guests).verdict is expected
    assert first.of(Guests.PLAIN).verdict is YES
    after = answer(stamped(*lines, failure), tmp_path)
    assert after.of(guests).verdict in (NO, UNKNOWN), "it said before that it works"


def test_what_mends_a_failure_is_said(tmp_path: Path) -> None:
    found = answer(stamped(*PLAIN, "SEV-SNP: Memory for the RMP table has not been reserved by BIOS"), tmp_path)
    assert found.of(Guests.SNP).mended_by is Mended.BIOS


def test_the_log_of_a_guest_is_never_its_hosts(tmp_path: Path) -> None:
    """However well its boot went."""
    for line in (
        "tdx: Guest detected",
        "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
        "Hypervisor detected: KVM",
    ):
        found = answer(stamped(PLAIN[0], line, *PLAIN[2:]), tmp_path)
        assert YES not in verdicts(found) or "guest that is a host itself" in str(found.conclusions)
    assert set(verdicts(answer(stamped(PLAIN[0], "tdx: Guest detected", PLAIN[-1]), tmp_path))) == {UNKNOWN}


def test_two_kernels_in_one_log_are_not_one_boot(tmp_path: Path) -> None:
    assert YES not in verdicts(answer([*stamped(*TDX), *stamped(*TDX)], tmp_path))


def test_a_journal_with_marks_has_the_last_boot(tmp_path: Path) -> None:
    mark = "-- Boot 0123456789abcdef0123456789abcdef --"
    assert verdicts(answer([*stamped(*TDX, *OOPS), mark, *stamped(*TDX)], tmp_path)) == (YES, YES, OTHER)
    assert YES not in verdicts(answer([*stamped(*TDX), mark, *stamped(*TDX, *OOPS)], tmp_path))


def test_two_logs_are_never_one_host(tmp_path: Path) -> None:
    """Whichever of them is read first."""
    logs = {"a.txt": [line.encode() for line in stamped(*TDX)], "b.txt": [line.encode() for line in stamped(*SNP)]}
    for n, names in enumerate((("a.txt", "b.txt"), ("b.txt", "a.txt"))):
        folder = tmp_path / str(n)
        folder.mkdir()
        found = host(read_together({name: logs[name] for name in names}, folder).history)
        assert YES not in verdicts(found)
        assert list(contradictions(found.conclusions)) == []


def test_every_yes_is_a_conclusion_with_its_rule(tmp_path: Path) -> None:
    found = answer(stamped(*TDX), tmp_path)
    said = [one for one in found.conclusions if one.predicate is Predicate.MAY_START]
    assert [one.value for one in said] == list(verdicts(found))
    assert all(one.rule and one.reason for one in said)
