"""Several witnesses of one run: their clocks are compared, their calls are one, their results complete each other."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gmemstate.ledger import ingest as intake
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import KIND, SOURCE, ClockPair, T
from gmemstate.store.recorder import Recorder
from tests import views
from tests.cli.running import say
from tests.postmortem.telling import of_case, post_mortem_of
from tests.together import KERNEL_LOG, STRACE, TRACE, WITH_STRACE, clocks, files_of, log_of, put, read_together, source_of
from tests.traces import Read, lines_of, read_case, read_file
from tests.views import Json

OWN = ("id", "request", "evidence", "corroborations")
"""What differs between two records of the same."""
WITHOUT_RESULTS = ("simple_tp", "st_conv_tp")
"""Cases whose trace has the static tracepoints only."""
FEW = ("half_done", "simple", "simple_tp", "race", "hwpoison_private", "kill_mid", "ip_eagain_pin", "ip_eagain_tp")
SLEW = 3_000_000
"""How far (ns) a compared clock may be off: what a busy emulated machine showed."""


def shown(read: Read, source: int | None) -> list[Json]:
    """What is said of the conversions that one source has shown (or, None, any)."""
    return [
        {name: value for name, value in views.conversion(read.history, one).items() if name not in OWN}
        for one in read.history.ordered()
        if source in (None, one.source)
    ]


def compared(read: Read) -> int | None:
    """How far (ns) the clock of strace was found to be ahead."""
    pairs = [row for row in read.rows if row[KIND] == ClockPair.code and row[SOURCE] == source_of(read, STRACE)]
    return (pairs[0][T] or 0) - (pairs[0][9] or 0) if pairs else None


def says_the_same(case: str, folder: Path, order: int) -> None:
    read = read_together(dict(list(files_of(case).items())[::order]), folder)
    alone = shown(read_case(case), None)
    together = shown(read, source_of(read, TRACE))
    if case in WITHOUT_RESULTS:
        assert len(together) == len(alone)
        for one, other in zip(together, alone, strict=True):
            assert {name: one[name] for name in ("start", "end", "to", "thread", "started_ns")} == {
                name: other[name] for name in ("start", "end", "to", "thread", "started_ns")
            }
            assert (one["errno"], other["errno"]) == (0, None)
    else:
        assert together == alone
    assert [str(finding) for finding in read.history.findings if finding.code != "SLOT-SWAP-FLIP"] == []
    # Each call that strace saw is one conversion, whether or not the trace saw it.
    (strace,) = put({STRACE: log_of(case, STRACE)}, folder)
    assert len(read.history.conversions) == len(read_file(strace).conversions)


@pytest.mark.parametrize("case", FEW)
@pytest.mark.parametrize("order", [1, -1], ids=["trace first", "trace last"])
def test_a_call_that_two_sources_have_seen_is_one_conversion_as_the_trace_tells_it(
    case: str, order: int, tmp_path: Path
) -> None:
    says_the_same(case, tmp_path, order)


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", WITH_STRACE)
def test_in_every_capture_a_call_that_two_sources_have_seen_is_one_conversion(case: str, tmp_path: Path) -> None:
    says_the_same(case, tmp_path, 1)


def offset(case: str) -> int:
    """How far the clock of strace was ahead of that of the trace, as the two showed it before the run."""
    (monotonic, realtime), _ = clocks()[case]
    return realtime - monotonic


@pytest.mark.parametrize("case", [case for case in FEW if case in clocks()])
def test_the_distance_of_two_clocks_is_what_the_clocks_themselves_showed(case: str, tmp_path: Path) -> None:
    found = compared(read_together({TRACE: lines_of(case), STRACE: log_of(case, STRACE)}, tmp_path))
    assert found is not None
    assert abs(found - offset(case)) < SLEW


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", WITH_STRACE)
def test_a_log_of_another_run_is_never_taken_for_one_of_the_same(case: str, tmp_path: Path) -> None:
    """Programs, threads and even their numbers are alike in many captures."""
    for other in WITH_STRACE:
        read = read_together({TRACE: lines_of(case), STRACE: log_of(other, STRACE)}, tmp_path)
        assert (compared(read) is None) or other == case, other


def test_a_log_of_another_run_of_the_same_program_stands_for_itself(tmp_path: Path) -> None:
    read = read_together({TRACE: lines_of("simple"), STRACE: log_of("simple_stack", STRACE)}, tmp_path)
    assert compared(read) is None
    assert shown(read, source_of(read, TRACE)) == shown(read_case("simple"), None)
    assert len(read.history.conversions) == 6


def test_what_a_tracepoint_leaves_open_strace_answers_and_the_pages_are_known(tmp_path: Path) -> None:
    """simple: four pages to private, once more, and back to shared."""
    read = read_together({TRACE: lines_of("simple_tp"), STRACE: log_of("simple_tp", STRACE)}, tmp_path)
    one = shown(read, None)[0]
    assert (one["to"], one["errno"], one["label"], one["applied"]["extent"]) == ("private", 0, "committed", "all")
    assert {one["label"] for one in shown(read_case("simple_tp"), None)} == {"attempted"}
    told = views.conversion(read.history, read.history.ordered()[0])["corroborations"]
    assert [(witness["file"].rpartition("/")[2], witness["errno"]) for witness in told] == [(STRACE, 0)]


@pytest.mark.parametrize("case", ["half_done", "enomem"])
def test_what_the_trace_lost_of_results_strace_answers(case: str, tmp_path: Path) -> None:
    lines = [b"" if b"vm_ioctl_ret: " in line or b"sys_ioctl -> " in line else line for line in lines_of(case)]
    read = read_together({TRACE: lines, STRACE: log_of(case, STRACE)}, tmp_path)
    known = shown(read_case(case), None)
    assert [one["errno"] for one in shown(read, source_of(read, TRACE))] == [one["errno"] for one in known]
    assert [one["label"] for one in shown(read, source_of(read, TRACE))] == [one["label"] for one in known]


@pytest.mark.parametrize("case", ["race", "nogmem", "ip_fd_closed"])
def test_a_fault_that_two_sources_have_seen_is_told_once_as_the_trace_tells_it(case: str, tmp_path: Path) -> None:
    """strace shows that KVM_RUN returned EFAULT, the trace also where and why."""
    read = read_together({TRACE: lines_of(case), STRACE: log_of(case, STRACE)}, tmp_path)
    assert any(b"= -1 EFAULT" in line for line in log_of(case, STRACE))
    assert [(fault.thread, fault.start, fault.kind) for fault in read.history.faults] == [
        (fault.thread, fault.start, fault.kind) for fault in read_case(case).history.faults
    ]
    assert [incident.kind for incident in post_mortem_of(read).incidents] == [
        incident.kind for incident in of_case(case).incidents
    ]


# --- contradictions ------------------------------------------------------------------------------------------------------


def lied(lines: Sequence[bytes], said: bytes, instead: bytes) -> list[bytes]:
    """The lines with one result changed, once."""
    place = next(n for n, line in enumerate(lines) if b"KVM_SET_MEMORY_ATTRIBUTES" in line and said in line)
    return [*lines[:place], lines[place].replace(said, instead), *lines[place + 1 :]]


@pytest.mark.parametrize(
    ("said", "instead", "text"),
    [
        (b"= -1 ENOMEM (Cannot allocate memory)", b"= 0", "returned ENOMEM in ftrace.txt:783, 0 in strace.txt:127"),
        (b"= 0 ", b"= -1 ENOMEM (Cannot allocate memory) ", "returned 0 in ftrace.txt:"),
    ],
    ids=["strace says success", "strace says failure"],
)
def test_two_results_of_one_call_are_a_finding_that_names_both_lines(
    said: bytes, instead: bytes, text: str, tmp_path: Path
) -> None:
    strace = lied(log_of("half_done", STRACE), said, instead)
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(*put({TRACE: lines_of("half_done"), STRACE: strace}, tmp_path / "logs"))
        history = ledger.history()
        assert [finding.code for finding in ledger.check().findings] == ["SOURCES-DISAGREE"]
    (finding,) = history.findings
    assert (finding.code, finding.severity) == ("SOURCES-DISAGREE", "error")
    assert text in finding.text
    # What the trace says is what counts.
    assert [one["errno"] for one in views.conversions(history)] == [0, 12]


def test_a_guest_that_was_told_success_is_found_out_by_the_errno_of_another_source(tmp_path: Path) -> None:
    """The trace of half_done without results, in which the VMM answers 0: only strace knows that the second ioctl failed."""
    lines = [b"" if b"vm_ioctl_ret: " in line or b"sys_ioctl -> " in line else line for line in lines_of("half_done")]
    lines = [line.replace(b"ret=-12", b"ret=0") if b"hc_done" in line else line for line in lines]
    lines = [b"" if b"entries-in-buffer" in line else line for line in lines]  # it would say that lines are lost
    files = {TRACE: lines, STRACE: log_of("half_done", STRACE)}
    (told,) = views.requests(read_together(files, tmp_path).history)
    assert "returned_ok_not_applied" in told["notes"]
    (alone,) = views.requests(read_together({TRACE: lines}, tmp_path).history)
    assert "returned_ok_not_applied" not in alone["notes"]


# --- again, and late -----------------------------------------------------------------------------------------------------


def test_reading_the_same_files_again_adds_nothing_in_any_order_or_alone(tmp_path: Path) -> None:
    paths = put(files_of("half_done"), tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(*paths)
        head = ledger.head()
        for names in (paths, paths[::-1], paths[:1], paths[1:], paths[2:], [paths[1]]):
            assert all(result.known for result in ledger.ingest(*names))
        assert ledger.head() == head


@pytest.mark.parametrize("part", [0.3, 0.6, 0.8])
def test_files_that_have_grown_go_on_as_one_history(part: float, tmp_path: Path) -> None:
    """Both are read up to some time of the run, and once more at its end."""
    case = "enomem"
    at = clocks()[case][0][0] + int(part * (clocks()[case][1][0] - clocks()[case][0][0]))
    whole = {TRACE: lines_of(case), STRACE: log_of(case, STRACE)}
    begun = {
        TRACE: [line for line in whole[TRACE] if line.startswith(b"#") or _seconds(line) <= at],
        STRACE: [line for line in whole[STRACE] if float(line.split()[1]) * 1e9 - offset(case) <= at],
    }
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(*put(begun, tmp_path / "logs"))
        results = ledger.ingest(*put(whole, tmp_path / "logs"))
        assert [result.late for result in results] == [0, 0]
        grown = ledger.history()
        assert not grown.findings
    once = read_together(whole, tmp_path)
    assert [unnamed(one) for one in views.conversions(grown)] == [unnamed(one) for one in views.conversions(once.history)]


def _seconds(line: bytes) -> int:
    """The time (ns) of a line of a trace."""
    word = next(word for word in line.split()[1:] if word.endswith(b":") and b"." in word)
    return int(word[:-1].replace(b".", b"")) * 1000


def unnamed(one: Json) -> Json:
    return {name: value for name, value in one.items() if name not in OWN}


def test_evidence_that_comes_late_bears_witness_and_moves_no_page(tmp_path: Path) -> None:
    trace, strace = put({TRACE: lines_of("half_done"), STRACE: log_of("half_done", STRACE)}, tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(trace)
        states, last = ledger.state().rows, ledger.head().seq
        (result,) = ledger.ingest(strace)
        assert result.late
        assert not result.complete
        assert ledger.state().rows == states
        assert [one.errno for one in ledger.conversions()] == [0, 12], "no call has become two conversions"
        assert [len(one.corroborations) for one in ledger.conversions()] == [1, 1]
        before = last - sum(1 for _ in _behind(ledger, last, 5.29))
        assert ledger.state(at="5.29").rows == ledger.state(at=before).rows
        assert any("came later" in reason and "--db NEW.db ingest" in reason for reason in ledger.history().missing())
        assert not ledger.stale_projections(ledger.history())


def _behind(ledger: Ledger, last: int, time: float) -> list[int]:
    """The events of the trace from the first that is later than a time on."""
    rows = list(ledger.record_.events(1, last))
    first = next(n for n, row in enumerate(rows) if row[T] is not None and (row[T] or 0) > time * 1e9)
    return [row[0] for row in rows[first:]]


def test_a_trace_that_comes_behind_strace_is_late_and_leaves_every_page_unknown(tmp_path: Path) -> None:
    """Its conversions are told as it tells them; but nobody knows what its pages became of them in the order of things."""
    trace, strace = put({TRACE: lines_of("enomem"), STRACE: log_of("enomem", STRACE)}, tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(strace)
        (result,) = ledger.ingest(trace)
        assert result.late
        assert {row.state for row in ledger.state()} == {"unknown"}
        told = [one for one in ledger.conversions() if one.size is not None]
        assert [one.errno for one in told] == [one["errno"] for one in read_case("enomem").conversions]


def test_a_result_that_another_source_told_later_stands_in_the_table_as_well(tmp_path: Path) -> None:
    trace, strace = put({TRACE: lines_of("simple_tp"), STRACE: log_of("simple_tp", STRACE)}, tmp_path / "logs")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(trace)
        ledger.ingest(strace)
        assert [one.errno for one in ledger.conversions()] == [0, 0, 0]
    said = say("--db", tmp_path / "a.db", "conversions").out.splitlines()
    assert ["  0  " in line and "not seen" not in line for line in said[1:]] == [True] * 3


def test_a_kernel_log_has_a_clock_of_its_own_and_keeps_the_order_of_the_files(tmp_path: Path) -> None:
    files = files_of("hwpoison_private")
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        results = dict(zip(files, ledger.ingest(*put(files, tmp_path / "logs")), strict=True))
        rows = list(ledger.record_.events())
    assert results[KERNEL_LOG].apart
    assert not results[STRACE].apart
    assert not results[TRACE].apart
    assert results[STRACE].clock is not None
    said = say("--db", tmp_path / "a.db", "status").out
    assert f"{STRACE} (strace): 136 lines; its clock is compared with that of {TRACE}\n" in said
    assert f"{KERNEL_LOG} (kernel log)" in said
    assert said.count("its clock cannot be compared with that of the others") == 1
    log = [row[0] for row in rows if row[SOURCE] == next(row[0] for row in rows[::-1] if row[KIND] == 1)]
    assert log == list(range(log[0], rows[-1][0] + 1)), "it stands behind the others as a whole"


class Broken(Exception):
    """Stands for a kill: nothing is put in order behind it."""


@pytest.mark.parametrize("batches", [1, 2, 4, 7])
def test_reading_together_that_was_broken_off_goes_on_as_if_it_had_not_been(
    batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {TRACE: lines_of("race"), STRACE: log_of("race", STRACE)}
    once = read_together(files, tmp_path)
    monkeypatch.setattr(intake, "EVENTS_AT_ONCE", 20)
    paths, append, left = put(files, tmp_path / "logs"), Recorder.append, [batches]

    def breaks(recorder: Recorder, *args: object, **more: object) -> object:
        if not left[0]:
            raise Broken
        left[0] -= 1
        return append(recorder, *args, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched, Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        patched.setattr(Recorder, "append", breaks)
        with pytest.raises(Broken):
            ledger.ingest(*paths)
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        results = ledger.ingest(*paths)
        assert [result.late for result in results] == [0, 0]
        assert [unnamed(one.to_json()) for one in ledger.conversions()] == [
            unnamed(one) for one in views.conversions(once.history)
        ]
        assert [row[1:4] for row in ledger.record_.events()] == [row[1:4] for row in once.rows]
