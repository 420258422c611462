"""The incident that the project was made for: a page is held, a conversion refused, the page released, the retry succeeds."""

import pytest

from gmemstate.model.units import seconds
from gmemstate.postmortem.incident import Incident
from tests.ingest.truth import reported
from tests.postmortem.telling import about, of_case, only, rows, titled
from tests.traces import ground_truth

PINNED = ("ip_eagain_pin", "ip_pin_middle", "ip_eagain_otherhva", "ip_punch", "ip_two_slots", "ip_guest_ask")
"""The program took a long-term pin (FOLL_PIN), as VFIO does."""

IN_A_PIPE = ("ip_eagain_vmsplice", "ip_transient")
"""The program put the page into a pipe: a plain reference."""

NOT_TRACED = ("ip_eagain_base", "ip_eagain_lean", "ip_eagain_graph", "ip_lost_overrun", "ip_race_host2")
"""The kernel's test of references was not traced, or is not left in the record."""


def first_refusal(case: str) -> tuple[int, int]:
    """The page in use that the program was shown first, and the number of pages that it had asked for."""
    refused = next(truth for truth in ground_truth(case) if truth.errno == 11)
    return (refused.number("error_offset") or 0) >> 12, (refused.number("size") or 0) >> 12


def story_of(case: str) -> Incident:
    return titled(case, "not applied, then applied") if case != "ip_race_host2" else only(case)


@pytest.mark.parametrize("case", [*PINNED, *IN_A_PIPE, *NOT_TRACED])
def test_the_held_page_is_the_one_that_was_returned_to_the_program(case: str) -> None:
    page, _ = first_refusal(case)
    assert about(story_of(case), "Where").split()[:2] == ["idx", f"{page:#x}"] or case == "ip_eagain_graph"
    if case == "ip_eagain_graph":  # the function graph has the pointer to the structure only, not error_offset
        assert not about(story_of(case), "Where")


@pytest.mark.parametrize(
    ("case", "gfn"),
    [("ip_eagain_pin", 0x100005), ("ip_pin_middle", 0x1002BC), ("ip_punch", 0x10000A), ("ip_two_slots", 0x100024)],
)
def test_the_held_page_is_named_as_gfn_and_as_the_host_address_that_was_pinned(case: str, gfn: int) -> None:
    """In ip_two_slots the first half of the file is mapped by the slot with the higher gfns."""
    pinned = next(truth for truth in ground_truth(case) if truth.op == "pin")
    assert f"= gfn {gfn:#x} (slot 10, hva {pinned.fields['hva']})" in about(only(case), "Where")


@pytest.mark.parametrize("case", PINNED)
def test_a_pin_is_distinguished_from_a_plain_reference_by_what_the_kernel_did_not_count(case: str) -> None:
    why = about(story_of(case), "Why")
    assert why.startswith("pinned or still mapped: the kernel refused the page before it counted references")
    assert "[implied]" in why
    assert "Who pinned is not in here" in why


@pytest.mark.parametrize("case", IN_A_PIPE)
def test_a_plain_reference_is_distinguished_from_a_pin_by_the_count(case: str) -> None:
    why = about(story_of(case), "Why")
    assert why.startswith("a plain reference: the page had 3 references where 2 are expected")
    assert "[observed]" in why


@pytest.mark.parametrize("case", NOT_TRACED)
def test_without_the_test_of_references_it_is_left_open_what_held_the_page(case: str) -> None:
    why = about(story_of(case), "Why")
    assert (
        why == "a pin, a mapping or a plain reference: this record does not show which (the test of references was not traced)"
    )


@pytest.mark.parametrize("case", [*PINNED, *IN_A_PIPE, *NOT_TRACED])
def test_a_refusal_is_said_to_have_converted_nothing(case: str) -> None:
    incident = story_of(case)
    assert about(incident, "Each").startswith(
        "refusal changed no attribute. It did unmap the host's page tables of the whole request"
    )
    assert "no progress: nothing below it was converted" in about(incident, "Mind") or case == "ip_eagain_graph"
    assert about(incident, "Missing").startswith("who held the page")


@pytest.mark.parametrize("case", ["ip_eagain_pin", "ip_pin_middle"])
def test_all_host_mappings_of_the_request_are_said_to_be_gone_as_the_program_saw(case: str) -> None:
    after = next(truth for truth in ground_truth(case) if truth.op == "host_ptes" and "EAGAIN" in truth.fields["when"])
    assert after.number("present") == 0
    assert "the host's page tables of the whole request [observed]" in about(story_of(case), "Each")


def test_the_guests_mappings_are_said_to_be_gone_where_the_memslot_maps_the_file_and_only_there() -> None:
    with_it = about(only("ip_eagain_pin"), "Each")
    assert "and 16 entries of the guest's page tables [observed], because the memslot maps this file" in with_it
    without = about(only("ip_eagain_otherhva"), "Each")
    assert "the guest's page tables were left alone [observed" in without
    for text in (with_it, without):
        assert "Both sides map the pages again on their next access" in text
        assert "An IOMMU mapping is not changed" in text


@pytest.mark.parametrize("case", ["ip_eagain_pin", "ip_pin_middle"])
def test_later_accesses_are_said_to_have_mapped_the_pages_again(case: str) -> None:
    after = about(only(case), "After")
    assert "host faults from" in after
    assert "guest faults from" in after
    assert "[observed]" in after


@pytest.mark.parametrize("case", ["ip_eagain_pin", "ip_pin_middle", "ip_eagain_vmsplice", "ip_two_slots"])
def test_the_retry_that_followed_the_release_is_said_to_have_converted_all(case: str) -> None:
    _, size = first_refusal(case)
    calls = [
        (truth.number("offset"), truth.number("size"), truth.errno) for truth in ground_truth(case) if "started" in truth.fields
    ]
    assert (0, size << 12, 0) in calls
    incident = only(case)
    assert incident.blame == "VMM"
    assert "No fault of kernel, host or guest. Nothing is left over." in incident.summary
    assert f"after it was released the next request converted all {size} pages" in incident.summary
    *_, last = rows(incident)
    assert about(incident, "Then").startswith(f"the retry at {last[0]} succeeded: {last[1].split(' to ')[0]} is private")
    assert about(incident, "Do").startswith("nothing now")


def test_the_timeline_has_every_call_of_the_program_with_its_result() -> None:
    calls = [one for one in reported("ip_eagain_pin") if one.call.attributes == 8]
    expected = [
        (
            f"idx [{(call.address or 0) >> 12:#x},{(call.address or 0) + (call.size or 0) >> 12:#x}) to private",
            {11: "EAGAIN"}.get(call.errno or 0, "0"),
        )
        for call, _, _ in calls
    ]
    shown = rows(only("ip_eagain_pin"))
    assert [row[1:3] for row in shown] == expected
    assert [row[3] for row in shown][-1] == "5 done before, 11 now"
    for (when, *_), one in zip(shown, calls, strict=True):
        assert float(when) <= float(seconds(one.t))


def test_what_was_done_before_counts_only_pages_of_the_same_range() -> None:
    """The kernel's selftest converts single pages one after the other before it repeats the whole range."""
    incident, *_ = of_case("st_gmem_conversions").incidents
    notes = [row[3] for row in rows(incident)]
    assert notes[-1] == "3 done before, 1 now"
    assert not any("done before" in note for note in notes[:-1])


def test_a_page_that_was_punched_out_is_not_said_to_have_been_released() -> None:
    incident = only("ip_punch")
    punch = next(
        truth for truth in ground_truth("ip_punch") if truth.fields.get("offset") == "0xa000" and truth.op == "fallocate"
    )
    assert punch.errno == 0
    assert "after it was punched out of the file the next request converted all 8 pages" in incident.summary
    assert "let go" not in incident.summary
    assert "its holder may hold it still" in about(incident, "Punch")


def test_short_lived_references_are_one_incident_with_the_programs_figures() -> None:
    refused = [truth for truth in ground_truth("ip_transient") if truth.errno == 11]
    incident = only("ip_transient")
    assert f"{len(refused)} requests for private were refused" in incident.summary
    assert "11 times" in incident.summary
    assert "at most 6 refusals" in incident.summary
    assert "short-lived" in incident.summary


def test_refusals_that_nobody_repeated_are_not_said_to_have_been_repaired() -> None:
    incident = only("ip_race_host2")
    refused = [truth for truth in ground_truth("ip_race_host2") if truth.errno == 11]
    assert incident.title == "not applied"
    assert f"{len(refused)} requests for private were refused" in incident.summary
    assert "none was repeated" in incident.summary
    assert not about(incident, "Then")


def test_what_was_returned_to_the_guest_that_asked_is_reported() -> None:
    """The VMM answers -11 twice, and the third request succeeds."""
    saw = [truth.number("hypercall_ret") for truth in ground_truth("ip_guest_ask") if truth.op == "guest_saw"]
    assert saw.count(-11) == 2
    assert about(only("ip_guest_ask"), "Answer").count("-11 at ") == 2


@pytest.mark.parametrize("case", ["ip_hwpoison_shared", "ip_hwpoison_private"])
def test_a_poisoned_page_counts_as_in_use_until_it_is_punched(case: str) -> None:
    incident = titled(case, "not applied, then applied")
    assert incident.blame == "host platform"
    assert "poisoned" in about(incident, "Why")
    assert "After it was punched out of the file the next request converted" in incident.summary
    assert about(incident, "Do").startswith("nothing now")


def test_an_answer_that_could_not_be_written_back_is_distinguished_from_arguments_that_could_not_be_read() -> None:
    """The program passes the structure in read-only memory: EFAULT stands for EAGAIN, and the host's mappings are gone."""
    incident = titled("ip_einval", "not applied, then applied")
    assert incident.blame == "VMM"
    assert "read-only" in about(incident, "Why")
    assert "It hides the errno proper, EAGAIN" in about(incident, "Why")
    assert "unmap the host's page tables of the whole request [observed]" in about(incident, "Each")
