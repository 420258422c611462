"""Statuses and leaves of the TDX module, against tables copied by hand from the domain reference and the kernel's headers."""

import pytest

from gmemstate.decode import TdxOutcome, seamcall_leaf, seamcall_leaf_of, tdx_status
from gmemstate.decode.tdx import tdx_status_of

KERNEL = {
    0x0: "TDX_SUCCESS",
    0x4000000100000000: "TDX_NON_RECOVERABLE_VCPU",
    0x4000000200000000: "TDX_NON_RECOVERABLE_TD",
    0x6000000500000000: "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE",
    0x6000000700000000: "TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE",
    0x8000000300000000: "TDX_INTERRUPTED_RESUMABLE",
    0x8000000400000000: "TDX_INTERRUPTED_RESTARTABLE",
    0x8000020000000000: "TDX_OPERAND_BUSY",
    0x8000020100000000: "TDX_PREVIOUS_TLB_EPOCH_BUSY",
    0x8000020200000000: "TDX_SYS_BUSY",
    0x8000070200000000: "TDX_VCPU_NOT_ASSOCIATED",
    0x8000080000000000: "TDX_KEY_GENERATION_FAILED",
    0x8000082400000000: "TDX_FLUSHVP_NOT_DONE",
    0xC000010000000000: "TDX_OPERAND_INVALID",
    0xC000030000000000: "TDX_PAGE_METADATA_INCORRECT",
    0xC000081100000000: "TDX_KEY_STATE_INCORRECT",
    0x0000081500000000: "TDX_KEY_CONFIGURED",
    0x0000082100000000: "TDX_NO_HKID_READY_TO_WBCACHE",
    0xC0000B0000000000: "TDX_EPT_WALK_FAILED",
    0xC0000B0D00000000: "TDX_EPT_ENTRY_STATE_INCORRECT",
    0xC0000C0200000000: "TDX_METADATA_FIELD_NOT_READABLE",
}
"""Linux 7.2, asm/shared/tdx_errno.h; RESTARTABLE is of the module only."""

FIELD = {
    0x6000000200000000: "TDX_NON_RECOVERABLE_TD",
    0xC0000B0800000000: "TDX_TLB_TRACKING_NOT_DONE",
    0xC0000B0B00000000: "TDX_PAGE_SIZE_MISMATCH",
    0xC0000B0600000000: "TDX_GPA_RANGE_NOT_BLOCKED",
    0x8000081000000000: "TDX_TD_KEYS_NOT_CONFIGURED",
    0xE000060400000000: "TDX_TD_FATAL",
    0xC000040000000000: "TDX_TD_ASSOCIATED_PAGES_EXIST",
    0xC000092100000122: "TDX_INCORRECT_MSR_VALUE",
    0xC000030000000001: "TDX_PAGE_METADATA_INCORRECT",
    0x6000000500000006: "TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE",
}
"""Words that people met."""


@pytest.mark.parametrize(("word", "name"), [*KERNEL.items(), *FIELD.items()])
def test_a_status_has_the_name_that_the_headers_give_it(word, name):
    assert tdx_status(word).name == name


@pytest.mark.parametrize("name", sorted({*KERNEL.values(), *FIELD.values()}))
def test_a_name_leads_back_to_its_status_with_and_without_its_prefix(name):
    assert tdx_status_of(name) == tdx_status_of(name.removeprefix("TDX_"))
    assert tdx_status_of(name).name == name
    assert tdx_status_of(name).low == 0


@pytest.mark.parametrize(
    ("word", "operand"),
    [
        (0x8000020000000092, "SEPT"),
        (0x8000020000000080, "TDR"),
        (0x80000201000000A9, "TD_EPOCH"),
        (0xC000030000000001, "RCX"),
        (0xC000010000000000, "RAX"),
        (0x8000020000000000, None),
        (0x6000000500000006, None),
        (0xC000092100000122, None),
    ],
)
def test_the_low_bits_name_an_operand_only_where_they_are_one(word, operand):
    assert tdx_status(word).operand == operand


@pytest.mark.parametrize(
    ("word", "what"),
    [
        (0x6000000500000006, "VMX exit reason"),
        (0xC000092100000122, "MSR"),
        (0x8000020000000092, "operand"),
        (0xC0000B0000001234, "details"),
    ],
)
def test_the_low_bits_are_said_to_be_what_the_status_makes_of_them(word, what):
    assert tdx_status(word).low_is == what
    assert what in dict(tdx_status(word).meaning().details)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        (0x0, TdxOutcome.SUCCESS),
        (0x0000081500000000, TdxOutcome.SUCCESS),
        (0x8000020000000092, TdxOutcome.TRANSIENT),
        (0x80000201000000A9, TdxOutcome.TRANSIENT),
        (0xC000030000000001, TdxOutcome.FINAL),
        (0xC0000B0800000001, TdxOutcome.FINAL),
        (0x4000000200000000, TdxOutcome.FINAL),
        (0xE000060400000000, TdxOutcome.FINAL),
    ],
)
def test_bits_63_and_62_say_whether_trying_again_may_help(word, outcome):
    assert tdx_status(word).outcome is outcome


def test_bit_61_says_that_the_td_is_lost():
    assert tdx_status(0xE000060400000000).fatal
    assert not tdx_status(0xC0000B0D00000001).fatal
    assert "the TD is lost" in dict(tdx_status(0xE000060400000000).meaning().details)["outcome"]


def test_a_status_of_no_table_is_taken_apart_but_gets_no_name():
    status = tdx_status(0xC0000BFF00000001)
    assert (status.name, status.class_name, status.operand) == (None, "secure EPT", "RCX")
    assert "not in the tables" in status.meaning().text


LEAVES = {
    2: "TDH.MEM.PAGE.ADD",
    3: "TDH.MEM.SEPT.ADD",
    6: "TDH.MEM.PAGE.AUG",
    7: "TDH.MEM.RANGE.BLOCK",
    0xC: "TDH.MEM.RD",
    0xF: "TDH.MEM.PAGE.DEMOTE",
    19: "TDH.MNG.VPFLUSHDONE",
    20: "TDH.MNG.KEY.FREEID",
    23: "TDH.MEM.PAGE.PROMOTE",
    0x1C: "TDH.PHYMEM.PAGE.RECLAIM",
    0x1D: "TDH.MEM.PAGE.REMOVE",
    33: "TDH.SYS.INIT",
    0x26: "TDH.MEM.TRACK",
    40: "TDH.PHYMEM.CACHE.WB",
    0x29: "TDH.PHYMEM.PAGE.WBINVD",
}


@pytest.mark.parametrize(("number", "name"), LEAVES.items())
def test_a_leaf_has_its_name_and_every_spelling_of_it_leads_back(number, name):
    assert seamcall_leaf(number).name == name
    for spelling in (name, name.replace(".", "_"), name.lower(), name.removeprefix("TDH.")):
        assert seamcall_leaf_of(spelling).number == number


def test_a_leaf_carries_its_version_in_bits_23_to_16():
    leaf = seamcall_leaf(0x1_0006)
    assert (leaf.name, leaf.version) == ("TDH.MEM.PAGE.AUG", 1)


@pytest.mark.parametrize("number", [46, 0xFF, 0x1D | 1 << 24])
def test_a_number_that_is_no_leaf_is_none(number):
    assert seamcall_leaf(number) is None
