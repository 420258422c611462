"""Entries of secure EPT and SPTEs: what may be concluded from them, and when nothing may."""

import pytest

from gmemstate.decode import level_state, sept_entry, spte, tdx_status

NOT_BLOCKED = tdx_status(0xC0000B0600000001)
WALK_FAILED = tdx_status(0xC0000B0000000001)
STATE_INCORRECT = tdx_status(0xC0000B0D00000001)
BUSY_ENTRY = tdx_status(0x8000020000000001)
BUSY_TREE = tdx_status(0x8000020000000092)
METADATA = tdx_status(0xC000030000000001)

STATES = {0: "FREE", 1: "BLOCKED", 2: "PENDING", 3: "PENDING_BLOCKED", 4: "PRESENT"}
LEVELS = {0: "4K", 1: "2M", 2: "1G"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("state", STATES)
def test_level_state_is_level_in_bits_2_to_0_and_state_in_bits_15_to_8(level, state):
    found = level_state(state << 8 | level)
    assert (found.level_name, found.state_name) == (LEVELS[level], STATES[state])


def test_a_state_of_no_table_keeps_its_number():
    assert level_state(0x7700).state_name == "state 0x77"


def test_the_entry_of_a_refused_removal_names_the_host_page():
    found = sept_entry(0x1A2B3C4077, 0x400, STATE_INCORRECT)
    assert (found.reported, found.leaf, found.pfn) == (True, True, 0x1A2B3C4)
    assert found.meaning().text == "PRESENT at 4K, host page pfn 0x1a2b3c4"


@pytest.mark.parametrize("status", [None, STATE_INCORRECT, METADATA, BUSY_ENTRY])
def test_zero_and_zero_is_not_reported_and_never_page_0(status):
    found = sept_entry(0, 0, status)
    assert (found.reported, found.pfn) == (False, None)
    assert "not reported" in found.meaning().text


@pytest.mark.parametrize("status", [WALK_FAILED, NOT_BLOCKED, STATE_INCORRECT, BUSY_ENTRY])
def test_these_statuses_come_with_an_entry(status):
    assert sept_entry(0x1A2B3C4077, 0x400, status).reported


@pytest.mark.parametrize("status", [METADATA, BUSY_TREE, tdx_status(0xC0000B0800000001), tdx_status(0x80000201000000A9)])
def test_words_that_come_with_any_other_status_are_no_entry(status):
    found = sept_entry(0x1A2B3C4077, 0x400, status)
    assert (found.reported, found.pfn) == (False, None)


@pytest.mark.parametrize("state", [0, 5])
def test_a_free_or_removed_entry_maps_nothing(state):
    found = sept_entry(1 << 63, state << 8, WALK_FAILED)
    assert (found.reported, found.leaf, found.pfn) == (True, False, None)
    assert "maps nothing" in found.meaning().text


def test_above_4k_bit_7_tells_a_page_from_a_table():
    assert sept_entry(0x1A2B200007, 0x401, WALK_FAILED).pfn is None
    assert sept_entry(0x1A2B2000F7, 0x401, STATE_INCORRECT).pfn == 0x1A2B200


@pytest.mark.parametrize(
    ("word", "level", "state", "pfn", "leaf"),
    [
        (0x86000080A5669B37, 1, "present", 0x80A5669, True),
        (0x100B4A00EA7, 2, "present", 0x100B4A00, True),
        (0x100B1B16827, 2, "present", 0x100B1B16, False),
        (0x1003EB27E67, None, "present", 0x1003EB27, None),
        (0x5A0, 1, "frozen", None, None),
        (0x80000000000005A0, 2, "frozen", None, None),
        (0x80000000000001A0, 1, "frozen", None, None),
        (0x8000000000000000, 1, "none", None, None),
        (0, 1, "none", None, None),
        (0xFFF80000000FE007, 1, "other", None, None),
    ],
)
def test_sptes_of_real_traces(word, level, state, pfn, leaf):
    found = spte(word, level)
    assert (found.state, found.pfn, found.leaf) == (state, pfn, leaf)
