"""Each conversion that reached the kernel is found, with what was asked and what was answered."""

from itertools import groupby

import pytest

from tests.ingest.truth import ATTEMPTS, FAILURES_ONLY, GMEM, UNSEEN, Call, attempts, reported, returned
from tests.traces import ALL_CASES, meta, read_case

EFAULT, ENOTTY = 14, 25
WITH_RESULTS = [case for case in ALL_CASES if case not in (*ATTEMPTS, *UNSEEN)]
REPORTED = [case for case in WITH_RESULTS if meta(case)["ground_truth"] and case != FAILURES_ONLY]
SHOWN = [case for case in WITH_RESULTS if case not in REPORTED]


def found(case: str) -> list[Call]:
    """The conversions of a case, as the reader has understood them."""
    return [
        Call(
            conversion["thread"],
            conversion["through"],
            *(
                None if (value := conversion[name]) is None else int(value, 16)
                for name in ("offset" if conversion["through"] == GMEM else "gpa", "size", "attributes")
            ),
            conversion["errno"],
        )
        for conversion in read_case(case).conversions
    ]


def by_thread(calls: list[Call]) -> dict[int, list[Call]]:
    """The calls of each thread, in the order of that thread."""
    ordered = sorted(calls, key=lambda call: call.thread)
    return {thread: list(group) for thread, group in groupby(ordered, key=lambda call: call.thread)}


@pytest.mark.parametrize("case", REPORTED)
def test_every_call_that_the_program_made_is_found_with_its_arguments_and_its_result(case: str) -> None:
    assert by_thread(found(case)) == by_thread([one.call for one in reported(case)])


@pytest.mark.parametrize("case", SHOWN)
def test_where_the_program_reported_nothing_every_return_that_the_kernel_shows_is_found(case: str) -> None:
    assert by_thread(found(case)) == by_thread([one.call for one in returned(case)])


def test_of_a_program_that_reported_failures_only_the_failures_are_the_same() -> None:
    failed = [call for call in found(FAILURES_ONLY) if call.errno]
    assert failed == [one.call for one in reported(FAILURES_ONLY)]
    assert len(failed) == 95


def test_arguments_that_the_kernel_could_not_read_are_unknown() -> None:
    """A probe at an unreadable pointer reads rubbish, which must not look like arguments."""
    unread = {case: [call.errno for call in found(case) if call.address is None] for case in REPORTED}
    expected = {"capture_tool": [EFAULT], "einval": [EFAULT], "ip_einval": [EFAULT, ENOTTY], "ip_off": [ENOTTY]}
    assert unread == {case: expected.get(case, []) for case in REPORTED}


@pytest.mark.parametrize("case", ATTEMPTS)
def test_static_tracepoints_show_range_and_direction_and_no_result(case: str) -> None:
    assert found(case) == attempts(case)
    for conversion in read_case(case).conversions:
        assert conversion["label"] == "attempted"
        assert conversion["applied"]["extent"] == "unknown"
        assert conversion["to"] == ("private" if conversion["attributes"] == "0x8" else "shared")
        assert conversion["guest"] == "?"


def test_static_tracepoints_agree_with_the_program() -> None:
    told = [one.call._replace(errno=None) for one in reported("simple_tp")]
    assert found("simple_tp") == told


@pytest.mark.parametrize("case", UNSEEN)
def test_static_tracepoints_show_nothing_of_an_in_place_conversion(case: str) -> None:
    assert reported(case)
    assert found(case) == []


@pytest.mark.parametrize("case", ALL_CASES)
def test_every_line_of_a_capture_is_understood(case: str) -> None:
    assert read_case(case).account.unparsed == 0


@pytest.mark.parametrize("case", ALL_CASES)
def test_what_a_kernel_did_fits_the_state_machines(case: str) -> None:
    """The one finding there is tells of what the program did wrong: private memory replaced under the guest."""
    expected = ["SLOT-SWAP-FLIP"] if case == "ip_swap" else []
    assert [finding.code for finding in read_case(case).history.findings] == expected
