"""Less evidence of joined sources costs facts and changes none: kinds of lines left out, clocks shifted, names changed,
sources cut.

The quick tests take a few captures and places; the exhaustive ones take all captures that were traced from outside as well.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests import views
from tests.ingest.compare import changed
from tests.together import (
    STRACE,
    TRACE,
    WITH_STRACE,
    Files,
    calls_later,
    calls_of_others,
    clocks,
    kind_of_call,
    log_of,
    read_together,
    result_from,
)  # fmt: skip
from tests.traces import Read, header_length, kind_of, kinds_of, later, lines_of, read_case, renamed, without
from tests.views import Json

FEW = ("half_done", "simple_tp", "ip_eagain_pin")
TELLING = {
    "vm_ioctl", "vm_ioctl_ret", "gmem_ioctl_ret", "kvm_vm_set_mem_attributes", "range_has_attrs", "pre_set",
        "sys_ioctl ->", "gmem_store",
}  # fmt: skip
"""The kinds of lines of a trace that the quick tests leave out."""
LONG = 4000
LOST = b"CPU:0 [LOST 1 EVENTS]"
Lines = Sequence[bytes]


def both(case: str) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    return lines_of(case), log_of(case, STRACE)


def says_new(whole: Read, files: Files, folder: Path) -> list[str]:
    """What the trace is said to show with other files, and not with the whole ones; and findings that were none.

    Where the trace ends early its last states are those of that time; they are not compared.
    """
    less = read_together(files, folder)
    ends = len(files[TRACE]) < whole.account.lines
    new = {finding.code for finding in less.history.findings} - {finding.code for finding in whole.history.findings}
    found = changed(result_from(whole, TRACE), result_from(less, TRACE))
    return [*sorted(new), *(change for change in found if not (ends and "StateRun" in change))]


def lessened(case: str, places: int, *, every: bool) -> Iterator[tuple[str, Lines, Lines]]:
    """The two logs of a case with less in them, and what is missing."""
    trace, strace = both(case)
    for kind in kinds_of(case):
        if every or kind in TELLING:
            yield f"the trace has no {kind}", without(trace, kind), strace
    for kind in sorted({kind for line in strace if (kind := kind_of_call(line)) is not None}):
        if every or kind.startswith("KVM_SET"):
            yield f"strace has no {kind}", trace, [b"" if kind_of_call(line) == kind else line for line in strace]
    dice, first = random.Random(case), header_length(trace)
    for at in sorted(dice.sample(range(first, len(trace)), places)):
        yield f"the trace begins at line {at}", [*trace[:first], *[b""] * (at - first), *trace[at:]], strace
        yield (
            f"the trace has lost lines from {at} on",
            [*trace[:at], LOST, *[b""] * 29, *trace[at + 30 :]][: len(trace)],
            strace,
        )
        yield f"the trace ends at line {at}", trace[:at], strace
    for at in sorted(dice.sample(range(1, len(strace)), places)):
        yield f"strace begins at line {at}", trace, [*[b""] * at, *strace[at:]]
        yield f"strace lacks lines from {at} on", trace, [*strace[:at], *[b""] * 10, *strace[at + 10 :]]
        yield f"strace ends at line {at}", trace, strace[:at]


@pytest.mark.parametrize("case", FEW)
def test_less_of_one_source_changes_nothing_that_both_together_say(case: str, tmp_path: Path) -> None:
    whole = read_together(dict(zip((TRACE, STRACE), both(case), strict=True)), tmp_path)
    for what, trace, strace in lessened(case, 1, every=False):
        assert says_new(whole, {TRACE: trace, STRACE: strace}, tmp_path) == [], what


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", [case for case in WITH_STRACE if len(lines_of(case)) < LONG])
def test_less_of_one_source_changes_nothing_in_any_capture(case: str, tmp_path: Path) -> None:
    whole = read_together(dict(zip((TRACE, STRACE), both(case), strict=True)), tmp_path)
    if case == "kvm_exits":
        # Both touches of private memory are of memory without a guest_memfd; that two guests share a thread hides it.
        for fault in whole.history.faults:
            fault.kind = fault.kind.UNBACKED
    for what, trace, strace in lessened(case, 12, every=True):
        assert says_new(whole, {TRACE: trace, STRACE: strace}, tmp_path) == [], what


def test_a_trace_that_has_ended_says_nothing_by_its_silence(tmp_path: Path) -> None:
    """It ends behind the entry of a conversion of which strace has seen the return: that nothing was done is not known."""
    trace, strace = both("ip_punch")
    first = [
        one["evidence"]["first"] for one in views.conversions(read_case("ip_punch").history) if one["label"] == "committed"
    ][-1]
    cut = read_together({TRACE: trace[:first], STRACE: strace}, tmp_path)
    (one,) = [one for one in views.conversions(cut.history) if one["evidence"]["first"] == first and one["size"] is not None]
    assert (one["errno"], one["label"]) == (0, "committed")
    assert all("(" not in row.state for row in views.state(cut.history)), "nothing is in flight"


# --- other clocks, other names -------------------------------------------------------------------------------------------


def unnamed(read: Read, *, times: bool = True) -> list[Json]:
    hidden = {"corroborations", "evidence", *(() if times else ("thread", "started_ns", "observed_ns", "ended_ns"))}
    return [{name: value for name, value in one.items() if name not in hidden} for one in views.conversions(read.history)]


@pytest.mark.parametrize("case", FEW)
@pytest.mark.parametrize("microseconds", [1, 86_400_000_000, -12_345_678])
def test_the_clock_of_strace_may_show_anything(case: str, microseconds: int, tmp_path: Path) -> None:
    trace, strace = both(case)
    whole = read_together({TRACE: trace, STRACE: strace}, tmp_path)
    shifted = read_together({TRACE: trace, STRACE: calls_later(strace, microseconds)}, tmp_path)
    assert unnamed(shifted) == unnamed(whole)


@pytest.mark.parametrize("case", FEW)
def test_the_clock_of_the_trace_may_show_anything(case: str, tmp_path: Path) -> None:
    trace, strace = both(case)
    whole = read_together({TRACE: trace, STRACE: strace}, tmp_path)
    shifted = read_together({TRACE: [later(line, 1000) for line in trace], STRACE: strace}, tmp_path)
    assert unnamed(shifted, times=False) == unnamed(whole, times=False)


@pytest.mark.parametrize("case", FEW)
def test_threads_and_pointers_may_have_any_names_if_both_sources_know_the_same(case: str, tmp_path: Path) -> None:
    trace, strace = both(case)
    whole = read_together({TRACE: trace, STRACE: strace}, tmp_path)
    other = read_together({TRACE: [renamed(line) for line in trace], STRACE: calls_of_others(strace)}, tmp_path)
    assert unnamed(other, times=False) == unnamed(whole, times=False)


@pytest.mark.parametrize("case", FEW)
def test_threads_that_only_one_source_knows_by_these_names_join_nothing(case: str, tmp_path: Path) -> None:
    """A container has its own process ids: nobody can say which thread is which."""
    trace, strace = both(case)
    apart = read_together({TRACE: trace, STRACE: calls_of_others(strace)}, tmp_path)
    told = [one for one in unnamed(apart) if one["thread"] < 70_000]
    alone = unnamed(read_case(case))
    assert [{**one, "id": 0, "request": 0} for one in told] == [{**one, "id": 0, "request": 0} for one in alone]
    assert all(not one["corroborations"] for one in views.conversions(apart.history))


# --- two runs at once ----------------------------------------------------------------------------------------------------


def at_once(first: str, second: str) -> dict[str, list[bytes]]:
    """Two runs on one host at the same time: the second one's threads, guests and times are moved beside the first one's."""
    begin = [clocks()[case][0] for case in (first, second)]
    seconds = round((begin[0][0] - begin[1][0]) / 1e9)
    # The distance of the two clocks is that of the first host; the second one's is another.
    strace = seconds * 1_000_000 + ((begin[0][1] - begin[0][0]) - (begin[1][1] - begin[1][0])) // 1000
    trace = [*lines_of(first), *(later(renamed(line), seconds) for line in lines_of(second))]
    calls = [*log_of(first, STRACE), *calls_later(calls_of_others(log_of(second, STRACE)), strace)]
    events = [line for line in trace if kind_of(line) is not None]
    return {
        TRACE: [*lines_of(first)[: header_length(lines_of(first))], *sorted(events, key=_time_of_event)],
        STRACE: sorted(calls, key=lambda line: line.split()[1]),
    }


def _time_of_event(line: bytes) -> float:
    return next(float(word[:-1]) for word in line.split()[1:] if word.endswith(b":") and word[:1].isdigit())


def by_thread(read: Read) -> dict[int, list[tuple[str, ...]]]:
    found: dict[int, list[tuple[str, ...]]] = {}
    for one in views.conversions(read.history):
        found.setdefault(one["thread"] % 70_000, []).append(
            tuple(str(one[name]) for name in ("start", "end", "to", "errno", "label"))
        )
    return found


@pytest.mark.parametrize(
    ("first", "second"), [("half_done", "enomem"), ("simple_tp", "race"), ("ip_eagain_pin", "ip_half_done")]
)
def test_two_runs_at_once_are_told_as_each_alone(first: str, second: str, tmp_path: Path) -> None:
    alone = {}
    for case in (first, second):
        alone |= by_thread(read_together(dict(zip((TRACE, STRACE), both(case), strict=True)), tmp_path))
    together = read_together(at_once(first, second), tmp_path)
    assert by_thread(together) == alone
    assert not together.history.findings
    assert sum(len(one["corroborations"]) for one in views.conversions(together.history)) == sum(map(len, alone.values()))
