"""What holds for the post-mortem of every capture: it has all that failed and nothing else, and says what is missing."""

import json
from collections import Counter

import pytest

from gmemstate.model.document import SCHEMA
from gmemstate.model.objects import FaultClass
from gmemstate.model.units import END, Gfn
from gmemstate.postmortem.grouping import IncidentEvents, grouped
from gmemstate.postmortem.incident import Blame, GfnRange, IncidentKind, merged
from gmemstate.postmortem.render import html, text
from gmemstate.postmortem.reports import Reports
from tests.ingest.truth import FAILURES_ONLY, UNSEEN, reported
from tests.postmortem.page import Page
from tests.postmortem.telling import of_case
from tests.traces import CASES, ground_truth, meta, read_case

MISSING = {
    "einval": "vm2: the record begins after its beginning",
    "guest_ask_nocap": "no line shows a conversion, and none proves that one would have been seen",
    "ip_basic_graph": "the record begins after its beginning",
    "ip_basic_tp": "no line shows a conversion, and none proves that one would have been seen",
    "ip_eagain_graph": "the record begins after its beginning",
    "ip_eagain_tp": "no line shows a conversion, and none proves that one would have been seen",
    "ip_lost_overrun": "3139 events lost",
    "kill_mid": "the record begins after its beginning",
    "kvm_exits": "the guest of this vCPU thread",
    "late_attach": "the record begins after its beginning",
    "lost_overrun": "42971 events lost",
    "simple_graph": "the record begins after its beginning",
    "simple_tp": "the results: a tracepoint fires before the lock",
    "st_conv_tp": "the results: a tracepoint fires before the lock",
    "st_guest_memfd": "no line shows a conversion, and none proves that one would have been seen",
    "st_set_region": "no line shows a conversion, and none proves that one would have been seen",
}
"""The captures whose evidence has holes that concern the answer, and what is said of them. All others are whole."""

ABOUT_FAILURES = (
    IncidentKind.REFUSED_THEN_APPLIED,
    IncidentKind.NOT_APPLIED,
    IncidentKind.PARTLY_APPLIED,
    IncidentKind.SUCCESS_NOT_APPLIED,
)


def found(case: str) -> list[IncidentEvents]:
    history = read_case(case).history
    return grouped(history, Reports.of(history))


def failures(incident: IncidentEvents) -> list[int]:
    """The errnos of the conversions that an incident is about."""
    own = [c for episode in incident.episodes for c in episode.failed] if incident.kind in ABOUT_FAILURES else []
    return [c.result or 0 for c in (*own, *(incident.conversions if incident.kind is IncidentKind.REJECTED else ()))]


@pytest.mark.parametrize("case", [case for case in CASES if case not in UNSEEN and meta(case)["ground_truth"]])
def test_every_call_that_failed_is_in_one_incident_and_no_other_call_is(case: str) -> None:
    expected = Counter(one.call.errno for one in reported(case) if one.call.errno)
    if case in ("simple_tp", "st_conv_tp", "lost_overrun"):
        assert not expected
    assert Counter(errno for incident in found(case) for errno in failures(incident)) == expected


@pytest.mark.parametrize("case", CASES)
def test_nothing_that_went_wrong_is_left_out(case: str) -> None:
    history = read_case(case).history
    incidents = found(case)
    faults = {fault.seq for incident in incidents for fault in incident.faults}
    assert faults == {fault.seq for fault in history.faults if fault.kind is not FaultClass.MISMATCH}
    entries = {entry.id for incident in incidents for entry in incident.entries}
    assert entries == {entry.id for entry in history.memory.messed_up.values() if entry.state != "cleared"}
    assert sum(len(incident.findings) for incident in incidents) == len(history.findings)


@pytest.mark.parametrize("case", [case for case in CASES if "guest_ask" in case or "half_done" in case])
def test_every_error_that_a_guest_got_as_an_answer_is_reported(case: str) -> None:
    answers = Counter(truth.number("hypercall_ret") for truth in ground_truth(case) if truth.op == "guest_saw")
    whole = text.report(of_case(case))
    for answer, times in answers.items():
        if answer:
            assert len([1 for word in whole.split() if word.strip("().,") == str(answer)]) >= times


def test_calls_without_a_failure_make_no_story_of_one() -> None:
    for case in CASES:
        if case != FAILURES_ONLY and meta(case)["ground_truth"] and not any(truth.errno for truth in ground_truth(case)):
            allowed = {
                IncidentKind.RESULT_UNKNOWN,
                IncidentKind.KILLED,
                IncidentKind.LOST_RACE,
                IncidentKind.SLOT_SWAP,
                IncidentKind.REQUEST_REFUSED,
            }
            assert {incident.kind for incident in found(case)} <= allowed, case


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_said_and_whole_evidence_is_complete(case: str) -> None:
    report = of_case(case)
    said = [*report.missing, *(missing for incident in report.incidents for missing in incident.missing)]
    assert report.complete == (case not in MISSING)
    if case in MISSING:
        assert any(MISSING[case] in reason for reason in said), said


@pytest.mark.parametrize("case", CASES)
def test_the_text_begins_with_the_blame_and_ends_with_what_was_covered_and_what_is_missing(case: str) -> None:
    report = of_case(case)
    whole = text.report(report)
    first, *_ = whole.splitlines()
    blames = {incident.blame for incident in report.incidents}
    assert blames <= set(Blame)
    if report.incidents:
        assert first.startswith(f"{report.incidents[0].blame}: ")
        assert first.endswith(f"incident 1 of {report.count}")
    else:
        results = read_case(case).history.ordered()
        proven = "No conversion failed in what was recorded: " if results else "No failure is on record, and no conversion."
        assert first.startswith(proven)
    last = whole[whole.rindex("\n\nCovered") :].split()
    account = read_case(case).account
    assert f"{account.lines} lines" in " ".join(last)
    assert last.count("Covered") == 1
    assert last.count("Missing") == len(report.missing)


@pytest.mark.parametrize("case", CASES)
def test_no_line_of_the_text_is_wider_than_80_columns(case: str) -> None:
    assert [line for line in text.report(of_case(case)).splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("case", CASES)
def test_data_and_page_say_what_the_text_says(case: str) -> None:
    report = of_case(case)
    data = json.loads(json.dumps(report.to_json()))
    page = Page.of(html.page(report))
    assert len(data["incidents"]) == report.count == len(page.articles)
    assert data["complete"] == report.complete
    for incident, as_data in zip(report.incidents, data["incidents"], strict=True):
        assert as_data["blame"] == incident.blame
        for words in (incident.summary, *(section.text for section in incident.sections)):
            assert words in page.text
    assert all(reason in page.text for reason in report.missing)


def test_an_incident_has_the_pages_the_time_and_the_next_steps_of_what_it_is_about() -> None:
    (incident,) = of_case("half_done").incidents
    assert (incident.kind, incident.blame, incident.guest) == (IncidentKind.PARTLY_APPLIED, Blame.VMM, "vm1")
    assert incident.ranges == (GfnRange(Gfn(0x100000), Gfn(0x100100)),)
    assert incident.t == 5_267_216_000
    assert [step.split(" ")[0] for step in incident.next_steps] == ["convert", "VMM:"]
    data = of_case("half_done").to_json()
    assert (data["schema"], data["count"], data["complete"]) == (SCHEMA, 1, True)


def test_ranges_are_merged_in_order_and_one_without_an_end_says_so() -> None:
    assert merged([(8, 12), (0, 4), (4, 6), (10, 11), (20, END), (3, 3)]) == (
        GfnRange(Gfn(0), Gfn(6)),
        GfnRange(Gfn(8), Gfn(12)),
        GfnRange(Gfn(20), None),
    )
