"""What QEMU says of a conversion, beside the kernel's own trace of it: a witness, a contradiction, or nobody knows of which."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.postmortem.incident import IncidentKind
from gmemstate.postmortem.report import post_mortem
from tests import views
from tests.cli.running import say
from tests.ingest.compare import changed
from tests.postmortem.telling import post_mortem_of
from tests.together import TRACE, clocks, marked, put, read_together, result_from
from tests.traces import Read, header_length, later, lines_of, read_case, renamed, without
from tests.views import Json

QEMU = "qemu.log"
NO_MEMORY, GOOD = (0x100080000, 0x80000), (0x100000000, 0x80000)
"""The second conversion of half_done, which returned ENOMEM, and the first one, which returned 0."""
AGAIN = (0x100000000, 0x400000)
"""What is converted to private twice in enomem: ENOMEM at 21.8456 s, 0 at 21.9507 s."""
Pages = tuple[int, int]


def failed(pages: Pages, attributes: int = 8, error: str = "Cannot allocate memory") -> str:
    return f"qemu-kvm: failed to set memory ({pages[0]:#x}+{pages[1]:#x}) with attr {attributes:#x} error '{error}'"


def wish(pages: Pages, to: str = "shared_to_private") -> str:
    return f"kvm_convert_memory start {pages[0]:#x} size {pages[1]:#x} {to}"


def notes(pages: Pages) -> str:
    """QEMU changes its own notes of what is private: only behind a conversion that has succeeded."""
    return f"ram_block_attributes_state_change offset 0x80000 size {pages[1]:#x} from 'populated' to 'discarded'"


def listener(pages: Pages) -> str:
    return f"qemu-kvm: Failed to notify the listener the state change of ({pages[0]:#x} + {pages[1]:#x}) to private"


def realtime(case: str, time: float) -> int:
    """CLOCK_REALTIME (ns) at a time (s) of the trace of a case."""
    (monotonic, real), _ = clocks()[case]
    return round(time * 1e6) * 1000 + (real - monotonic) // 1000 * 1000


def at(case: str, time: float, said: str, thread: int | None = None) -> str:
    """A line with the time that QEMU gives it, in its newer or its older form."""
    whole, part = divmod(realtime(case, time) // 1000, 1_000_000)
    if thread is not None:
        return f"{thread}@{whole}.{part:06}:{said}"
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:06}Z {said}"


def beside(trace: Sequence[bytes], folder: Path, *said: str) -> Read:
    return read_together({TRACE: trace, QEMU: [line.encode() for line in said]}, folder)


def heard(read: Read) -> list[tuple[str | None, int | None, list[tuple[int, int | None, str]]]]:
    """Of each conversion: where, its errno, and the lines of the VMM's log with what they say and by what they are joined."""
    return [
        (
            one["start"],
            one["errno"],
            [(w["line"], w["errno"], w["join"]) for w in one["corroborations"] if w["file"].endswith(QEMU)],
        )
        for one in views.conversions(read.history)
    ]


def unheard(one: Json) -> Json:
    return {name: value for name, value in one.items() if name not in ("evidence", "corroborations", "id", "request")}


def says_nothing(read: Read) -> bool:
    """Whether no conversion of the trace has a witness, and nothing is contradicted."""
    return not any(witnesses for _, _, witnesses in heard(read)) and not read.history.findings


# --- agreement -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [[failed(NO_MEMORY)], [wish(NO_MEMORY), failed(NO_MEMORY)]], ids=["error", "wish and error"])
def test_an_error_that_the_trace_confirms_is_a_witness_and_no_second_incident(said: list[str], tmp_path: Path) -> None:
    alone, read = read_case("half_done"), beside(lines_of("half_done"), tmp_path, *said)
    assert heard(read) == [("0x100000", 0, []), ("0x100080", 12, [(len(said), 12, "gfn")])]
    assert [unheard(one) for one in views.conversions(read.history)] == [unheard(one) for one in alone.conversions]
    assert [one.kind for one in post_mortem_of(read).incidents] == [one.kind for one in post_mortem_of(alone).incidents]
    assert [request["notes"] for request in views.requests(read.history)] == [
        request["notes"] for request in views.requests(alone.history)
    ]
    assert not read.history.findings


def test_a_wish_is_a_witness_that_says_nothing_of_the_result(tmp_path: Path) -> None:
    read = beside(lines_of("half_done"), tmp_path, wish(GOOD), wish(NO_MEMORY))
    assert heard(read) == [("0x100000", 0, [(1, None, "gfn")]), ("0x100080", 12, [(2, None, "gfn")])]


@pytest.mark.parametrize("thread", [None, 112], ids=["newer", "older"])
def test_of_two_conversions_of_one_range_the_time_says_which_is_meant(thread: int | None, tmp_path: Path) -> None:
    said = [at("enomem", 21.8280, wish(AGAIN), thread), at("enomem", 21.8457, failed(AGAIN))]
    said += [at("enomem", 21.9490, wish(AGAIN), thread), at("enomem", 21.9508, notes(AGAIN), thread)]
    read = beside(marked("enomem"), tmp_path, *said)
    assert [one[1:] for one in heard(read)] == [(0, []), (12, [(2, 12, "time")]), (12, []), (0, [(4, 0, "time")]), (0, [])]
    assert not read.history.findings


def test_what_a_trace_of_attempts_leaves_open_the_vmm_answers(tmp_path: Path) -> None:
    trace = [b"" if b"vm_ioctl_ret: " in line or b"sys_ioctl -> " in line else line for line in lines_of("half_done")]
    read = beside(trace, tmp_path, failed(NO_MEMORY), wish(GOOD), notes(GOOD))
    assert heard(read) == [("0x100000", 0, [(3, 0, "gfn")]), ("0x100080", 12, [(1, 12, "gfn")])]


# --- the faults behind them ------------------------------------------------------------------------------------------------


def fault(gfn: int) -> str:
    return f"kvm_memory_fault start {gfn << 12:#x} size 0x1000 flags 0x8"


@pytest.mark.parametrize(
    ("trace", "said"),
    [(lines_of("race"), fault(0x100062)), (marked("hwpoison_private"), at("hwpoison_private", 11.4494, fault(0x100007)))],
    ids=["by gfn", "by time"],
)
def test_a_fault_that_the_trace_has_shown_is_told_once_as_the_trace_tells_it(
    trace: Sequence[bytes], said: str, tmp_path: Path
) -> None:
    read, alone = beside(trace, tmp_path, said), beside(trace, tmp_path, "kvm_run_exit cpu_index 0, reason 39")
    assert [(one.source, one.start) for one in read.history.faults] == [(one.source, one.start) for one in alone.history.faults]
    assert [one.kind for one in post_mortem_of(read).incidents] == [one.kind for one in post_mortem_of(alone).incidents]


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (lines_of("kvm_exits"), [fault(0xC0000)]),
        (lines_of("hwpoison_private"), [fault(0x100007)]),
        (marked("hwpoison_private"), [at("hwpoison_private", 11.3, fault(0x100007))]),
        (lines_of("race"), [fault(0x100062), fault(0x100062)]),
    ],
    ids=["two guests", "two faults", "times reversed", "printed twice"],
)
def test_where_another_fault_may_be_meant_each_is_told(trace: Sequence[bytes], said: list[str], tmp_path: Path) -> None:
    alone = beside(trace, tmp_path, "kvm_run_exit cpu_index 0, reason 39")
    assert len(beside(trace, tmp_path, *said).history.faults) == len(alone.history.faults) + len(said)


# --- contradiction -------------------------------------------------------------------------------------------------------

CONTRADICTIONS = {
    "error, but converted": ([failed(GOOD)], "the VMM says ENOMEM in qemu.log:1, the kernel returned 0 in ftrace.txt:777"),
    "another errno": (
        [failed(NO_MEMORY, error="Invalid argument")],
        "the VMM says EINVAL in qemu.log:1, the kernel returned ENOMEM in ftrace.txt:783",
    ),
    "went on, but refused": (
        [wish(NO_MEMORY), notes(NO_MEMORY)],
        "the VMM says converted in qemu.log:2, the kernel returned ENOMEM in ftrace.txt:783",
    ),
    "told its devices, but refused": (
        [wish(NO_MEMORY), listener(NO_MEMORY)],
        "the VMM says converted in qemu.log:2, the kernel returned ENOMEM in ftrace.txt:783",
    ),
}


@pytest.mark.parametrize(("said", "text"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_vmm_that_contradicts_the_kernel_is_a_finding_of_replay_check_and_the_postmortem(
    said: list[str], text: str, tmp_path: Path
) -> None:
    where = tmp_path / "a.db"
    logs = put({TRACE: lines_of("half_done"), QEMU: [line.encode() for line in said]}, tmp_path / "logs")
    with Ledger.open(where, durable=False) as ledger:
        ledger.ingest(*logs)
        history = ledger.history()
        incidents = post_mortem(ledger.record_, history).incidents
    (finding,) = history.findings
    assert (finding.code, finding.severity) == ("SOURCES-DISAGREE", "error")
    assert text in finding.text
    # What the trace says is what counts.
    assert [one["errno"] for one in views.conversions(history)] == [0, 12]
    assert [one.kind for one in incidents if one.kind is not IncidentKind.VMM_REPORT] == [
        IncidentKind.PARTLY_APPLIED,
        IncidentKind.SOURCES_DISAGREE,
    ]
    assert text in say("--db", where, "replay").out
    assert text in say("--db", where, "check").out
    assert text in " ".join(say("--db", where, "postmortem").out.split())


def test_an_error_right_behind_a_success_contradicts_it_by_the_time(tmp_path: Path) -> None:
    read = beside(marked("enomem"), tmp_path, at("enomem", 21.9508, failed(AGAIN)))
    assert [finding.code for finding in read.history.findings] == ["SOURCES-DISAGREE"]
    assert heard(read)[3] == ("0x100000", 0, [(1, 12, "time")])


# --- nobody knows --------------------------------------------------------------------------------------------------------


def two_guests() -> list[bytes]:
    """half_done twice: two guests with the same gfns, the second one ten seconds later."""
    trace = lines_of("half_done")
    return [*trace, *(later(renamed(line), 10) for line in trace[header_length(trace) :])]


UNKNOWN = {
    "two guests with the same gfns": (two_guests(), [failed(NO_MEMORY)]),
    "two conversions of one range": (lines_of("enomem"), [failed(AGAIN)]),
    "two conversions of one range, clocks that cannot be compared": (
        lines_of("enomem"),
        [at("enomem", 21.8457, failed(AGAIN))],
    ),
    "an error before it was asked": (marked("enomem"), [at("enomem", 21.80, failed(AGAIN))]),
    "an error long behind": (marked("enomem"), [at("enomem", 25.0, failed(AGAIN))]),
    "two errors of one conversion": (lines_of("half_done"), [failed(GOOD), failed(GOOD)]),
    "another range": (lines_of("half_done"), [failed((0x100080000, 0x1000))]),
    "the other direction": (lines_of("half_done"), [failed(NO_MEMORY, attributes=0)]),
    "the end of the guest is not on record": (lines_of("half_done")[:900], [failed(GOOD)]),
    "the beginning of the guest is not on record": (
        [*lines_of("half_done")[:10], *lines_of("half_done")[400:]],
        [failed(GOOD)],
    ),
    "lines were lost": ([*lines_of("half_done")[:900], b"CPU:0 [LOST 1 EVENTS]", *lines_of("half_done")[900:]], [failed(GOOD)]),
}


@pytest.mark.parametrize(("trace", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_where_another_conversion_may_be_meant_nothing_is_joined(trace: list[bytes], said: list[str], tmp_path: Path) -> None:
    assert says_nothing(beside(trace, tmp_path, *said))


def test_of_two_wishes_nobody_knows_which_one_went_on(tmp_path: Path) -> None:
    read = beside(lines_of("half_done"), tmp_path, wish(GOOD), wish(NO_MEMORY), notes(NO_MEMORY))
    assert says_nothing(read)


def test_the_thread_says_which_of_two_wishes_went_on(tmp_path: Path) -> None:
    said = [f"{thread}@1795365669.000000:{line}" for thread, line in ((1, wish(GOOD)), (2, wish(NO_MEMORY)), (1, notes(GOOD)))]
    assert heard(beside(lines_of("half_done"), tmp_path, *said)) == [
        ("0x100000", 0, [(3, 0, "gfn")]),
        ("0x100080", 12, [(2, None, "gfn")]),
    ]


# --- less evidence -------------------------------------------------------------------------------------------------------


def test_less_of_the_trace_makes_no_contradiction_and_changes_nothing_that_it_says(tmp_path: Path) -> None:
    said = [at("enomem", 21.8280, wish(AGAIN)), at("enomem", 21.8457, failed(AGAIN))]
    said += [at("enomem", 21.9490, wish(AGAIN)), at("enomem", 21.9508, notes(AGAIN))]
    plain = [line.partition(" ")[2] for line in said]
    for trace, lines in ((marked("enomem"), said), (list(lines_of("enomem")), plain)):
        whole, first = beside(trace, tmp_path, *lines), header_length(lines_of("enomem")) + 1
        kinds = ("vm_ioctl", "vm_ioctl_ret", "kvm_vm_set_mem_attributes", "gmem_release")
        less = [without(trace, kind) for kind in kinds]
        for place in range(first + 100, len(trace), 150):
            less += [list(trace[:place]), [*trace[:first], *[b""] * (place - first), *trace[place:]]]
        for one in less:
            read = beside(one, tmp_path, *lines)
            assert not read.history.findings
            found = changed(result_from(whole, TRACE), result_from(read, TRACE))
            assert [change for change in found if len(one) == len(trace) or "StateRun" not in change] == []
