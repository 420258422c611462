"""Reports of the kernel: of each kind, over random stacks, after any prefix and with cuts, each is one event and right."""

import random
from pathlib import Path

import pytest

from gmemstate.messages.functions import culprit, is_helper
from gmemstate.messages.report_kinds import Effect, effect_of, report_kind, report_kinds
from gmemstate.model.events import Gap, KernelWarned, PrivateMapFailed, PrivateUnmapFailed, ReclaimFailed
from gmemstate.model.reports import KernelReportCode
from tests.ingest.report_texts import MAKERS, Scene, printed
from tests.ingest.witness import details, said, shows

FAILURES = (PrivateMapFailed, PrivateUnmapFailed, ReclaimFailed)
NOT_REPORTS = {"memory map", "kernel of a guest", "whose log", "platform"}


def check(kind: str, seed: int, folder: Path) -> None:
    rng = random.Random(f"{kind} {seed}")
    report = MAKERS[kind](Scene(rng))
    lines = printed(report, rng)
    text = f"{kind} {seed}\n" + "\n".join(lines)
    log = said(lines, folder)
    events = [event for event in log.events if not isinstance(event, Gap)]
    assert len(events) == 1, (text, events)
    (event,) = events
    words = details(event)
    assert not isinstance(event, FAILURES), text
    assert (event.name, words.get("what")) == (report.name, report.what), (text, words)
    assert words.get("function") == report.function, (text, words)
    assert report.thread is None or shows(event, thread=report.thread), (text, words)
    assert shows(event, **report.also), (text, words, report.also)
    assert report_kind(words) is not None, text
    assert log.account.unparsed <= 3, (text, log.account.first_unparsed)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_report_is_one_event_with_its_kind_task_and_function(kind: str, tmp_path: Path) -> None:
    for seed in range(4):
        check(kind, seed, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", MAKERS)
def test_many_reports_are_one_event_each(kind: str, tmp_path: Path) -> None:
    for seed in range(4, 200):
        check(kind, seed, tmp_path)


def test_two_reports_in_a_row_are_two(tmp_path: Path) -> None:
    for seed in range(30):
        rng = random.Random(seed)
        kinds = [rng.choice([name for name in MAKERS if name not in ("panic", "bare")]) for _ in range(2)]
        reports = [MAKERS[kind](Scene(rng)) for kind in kinds]
        lines = [line for report in reports for line in report.lines]
        events = said(lines, tmp_path).events
        assert [(event.name, details(event).get("what")) for event in events] == [(one.name, one.what) for one in reports], (
            kinds,
            lines,
        )


def test_every_kind_of_report_has_a_row_with_its_reason() -> None:
    known = {row.what for row in report_kinds()}
    assert known <= {code.value for code in KernelReportCode}
    assert all(row.reason for row in report_kinds())
    assert effect_of({"what": "KASAN", "access": "write"}) == (
        Effect.MEMORY_OVERWRITTEN,
        "the write went where another object may be",
    )
    assert effect_of({"what": "soft lockup", "panic": "softlockup: hung tasks"}) == (
        Effect.KERNEL_DEAD,
        "a panic followed: the kernel stops",
    )
    assert effect_of({"what": "platform"}) is None


def test_helpers_are_never_the_culprit() -> None:
    assert culprit(["dump_stack_lvl", "__mutex_lock.constprop.0", "_raw_spin_lock", "asm_exc_page_fault"]) is None
    assert culprit(["memcpy", "kvm_gmem_get_pfn.isra.0"]) == "kvm_gmem_get_pfn"
    assert is_helper("entry_SYSCALL_64_after_hwframe")


def test_a_conversion_function_on_a_stack_without_a_failure_is_but_where_the_task_was(tmp_path: Path) -> None:
    lines = [
        "CPU: 1 PID: 77 Comm: qemu Not tainted 6.16.0 #1",
        "Call Trace:",
        " <TASK>",
        " __schedule+0x1/0x2",
        " schedule+0x1/0x2",
    ]
    (event,) = said(
        [*lines, " set_memory_p+0x1/0x2", " rmpupdate+0x1/0x2", " rmp_make_shared+0x1/0x2", " </TASK>"], tmp_path
    ).events
    assert isinstance(event, KernelWarned)
    assert shows(event, what="stack", inside=["set_memory_p", "rmpupdate", "rmp_make_shared"], about=None)


def test_without_a_stack_the_task_is_where_it_became_atomic_and_where_it_took_its_locks(tmp_path: Path) -> None:
    lines = ["BUG: sleeping function called from invalid context at ./include/linux/sched/mm.h:325"]
    lines += ["in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 33, name: x", "2 locks held by x/33:"]
    lines += [" #0: ff16f8ec217e4438 (sb_writers#14){.+.+}-{0:0}, at: __x64_sys_fallocate+0x46/0x80"]
    lines += [" #1: ff16f8fbd85c8310 (mapping.invalidate_lock#4){++++}-{4:4}, at: kvm_gmem_fallocate+0x9e/0x310 [kvm]"]
    (event,) = said([*lines, "Preemption disabled at:", "[<ffffffffc0850c6f>] kvm_gmem_zap+0x17f/0x260 [kvm]"], tmp_path).events
    assert shows(event, function="kvm_gmem_zap", atomic_in="kvm_gmem_zap", path="fallocate", inside=["kvm_gmem_fallocate"])
