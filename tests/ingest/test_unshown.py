"""A conversion that strace saw succeed and a trace ought to have shown: a contradiction where the trace has proven what it
shows."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.postmortem.incident import IncidentKind
from gmemstate.postmortem.report import post_mortem
from tests import views
from tests.cli.running import say
from tests.ingest.test_joined_less_evidence import LOST
from tests.together import STRACE, TRACE, calls_of_others, log_of, put, read_together
from tests.traces import Read, header_length, lines_of

CALL, RETURN = b"cmd: 0x4020aed2", b"sys_ioctl -> "
"""The lines of a trace around a conversion of a VM."""


def without_call(case: str, *wanted: int) -> list[bytes]:
    """The trace of a case without all lines of some of its conversions, by their number."""
    trace, number, inside = list(lines_of(case)), -1, False
    for place, line in enumerate(trace):
        if CALL in line:
            number += 1
            inside = number in wanted
        if inside:
            trace[place] = b""
            inside = RETURN not in line
    return trace


def beside(trace: Sequence[bytes], folder: Path, case: str = "half_done", calls: Sequence[bytes] = ()) -> Read:
    return read_together({TRACE: trace, STRACE: calls or log_of(case, STRACE)}, folder)


def test_it_is_a_finding_of_replay_check_and_the_postmortem_and_every_answer_is_incomplete(tmp_path: Path) -> None:
    where = tmp_path / "a.db"
    trace, strace = put({TRACE: without_call("half_done", 0), STRACE: log_of("half_done", STRACE)}, tmp_path / "logs")
    with Ledger.open(where, durable=False) as ledger:
        ledger.ingest(trace, strace)
        (finding,) = ledger.history().findings
        assert [incident.kind for incident in post_mortem(ledger.record_, ledger.history()).incidents][:1] == [
            IncidentKind.SOURCES_DISAGREE
        ]
    assert (finding.code, finding.severity) == ("SOURCES-DISAGREE", "error")
    text = "a conversion returned 0 in strace.txt:104; ftrace.txt shows none there"
    assert text in finding.text
    for verb in ("replay", "check", "postmortem"):
        assert text in " ".join(say("--db", where, verb).out.split()), verb
    missing = "vm1: strace.txt:104 has a conversion that ftrace.txt does not show"
    for words in (["state"], ["conversions"], ["postmortem"], ["replay"]):
        ran = say("--db", where, *words)
        assert missing in " ".join((ran.out + ran.err).split()), words
        assert ran.code, words


def test_up_to_the_moment_before_it_nothing_is_missing(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        logs = {TRACE: without_call("enomem", 3), STRACE: log_of("enomem", STRACE)}
        ledger.ingest(*put(logs, tmp_path / "logs"))
        (finding,) = ledger.history().findings
        assert not ledger.moment(finding.seq - 1).missing_conversions
        assert ledger.moment().missing_conversions


def test_a_conversion_between_others_is_missed_by_what_they_prove(tmp_path: Path) -> None:
    assert [finding.code for finding in beside(without_call("simple", 1), tmp_path, "simple").history.findings] == [
        "SOURCES-DISAGREE"
    ]


UNKNOWN = {
    "the trace shows no conversion at all": without_call("half_done", 0, 1),
    "a failed call changes no page": without_call("half_done", 1),
    "the trace has lost events, wherever": [*without_call("half_done", 0), LOST],
    "the trace began behind it": [
        *lines_of("half_done")[: header_length(lines_of("half_done"))],
        *[b""] * 780,
        *lines_of("half_done")[780 + header_length(lines_of("half_done")) :],
    ],
    "the trace ended before it": without_call("half_done", 0)[:640],
}


@pytest.mark.parametrize("trace", UNKNOWN.values(), ids=UNKNOWN)
def test_where_the_trace_need_not_have_shown_it_silence_says_nothing(trace: list[bytes], tmp_path: Path) -> None:
    read = beside(trace, tmp_path)
    assert (read.history.findings, read.history.missing_conversions) == ([], [])


def test_the_threads_of_a_container_have_other_numbers_and_prove_nothing(tmp_path: Path) -> None:
    read = beside(without_call("half_done", 0), tmp_path, calls=calls_of_others(log_of("half_done", STRACE)))
    assert (read.history.findings, read.history.missing_conversions) == ([], [])


def test_a_call_that_may_be_one_of_the_trace_is_not_missing(tmp_path: Path) -> None:
    """Of two conversions in the trace one has no call, and of two calls one has no conversion: they may be the same."""
    calls = [line for line in log_of("half_done", STRACE) if b"KVM_SET_MEMORY_ATTRIBUTES" not in line or b"ENOMEM" not in line]
    read = beside(without_call("half_done", 0), tmp_path, calls=calls)
    assert len(views.conversions(read.history)) == 2
    assert (read.history.findings, read.history.missing_conversions) == ([], [])
