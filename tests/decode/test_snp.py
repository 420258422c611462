"""RMP entries and codes, page state changes, terminations and fault bits of SEV-SNP, from real logs."""

import pytest

from gmemstate.decode import psmash, pvalidate, rmp_entry, rmpupdate
from gmemstate.decode.snp import ghcb_msr, page_fault, psc_result, sev_termination


def test_a_page_of_the_firmware():
    entry = rmp_entry(0, 0x8000000000000005)
    assert (entry.assigned, entry.immutable, entry.asid, entry.gpa, entry.huge) == (True, True, 0, 0, False)
    assert entry.owner == "held by firmware or the platform (assigned, ASID 0)"


def test_reserved_bits_are_kept_and_shown():
    entry = rmp_entry(0, 0x80000000000007FD)
    assert (entry.assigned, entry.immutable, entry.reserved) == (True, True, 0x80000000000007F8)
    assert dict(entry.meaning().details)["reserved"] == "0x80000000000007f8"


def test_the_register_page_of_a_guest():
    entry = rmp_entry(0x1F, 0x6010FFFFFFFFF001)
    assert (entry.assigned, entry.huge, entry.asid, entry.vmsa, entry.validated) == (True, False, 2, True, True)
    assert (entry.gpa, entry.immutable, entry.hi) == (0xFFFFFFFFF000, False, 0x1F)
    assert entry.owner == "guest-owned, ASID 2"


def test_an_entry_of_zeros_is_the_host_s():
    assert rmp_entry(0, 0).owner == "the host's (unassigned)"


@pytest.mark.parametrize(
    ("read", "code", "name", "transient"),
    [
        (rmpupdate, 0, "SUCCESS", False),
        (rmpupdate, 1, "FAIL_INPUT", False),
        (rmpupdate, 2, "FAIL_PERMISSION", False),
        (rmpupdate, 3, "FAIL_INUSE", True),
        (rmpupdate, 4, "FAIL_OVERLAP", True),
        (psmash, 3, "FAIL_INUSE", True),
        (pvalidate, 1, "FAIL_INPUT", False),
        (pvalidate, 6, "FAIL_SIZEMISMATCH", False),
        (pvalidate, 255, "FAIL_NOUPDATE", False),
        (rmpupdate, -14, "EFAULT", False),
        (psmash, -19, "ENODEV", False),
        (rmpupdate, 77, None, False),
    ],
)
def test_codes_of_instructions(read, code, name, transient):
    found = read(code)
    assert (found.name, found.transient) == (name, transient)


def test_the_msr_protocol_asks_for_one_page():
    to_private = ghcb_msr(1 << 52 | 0x4000 << 12 | 0x014)
    assert (to_private.what, to_private.gfn) == ("page state change to private", 0x4000)
    assert ghcb_msr(2 << 52 | 0xFFFFFFFFFF << 12 | 0x014).what == "page state change to shared"
    assert ghcb_msr(0x015).what == "page state change done"
    assert ghcb_msr(1 << 63 | 0x015).what == "page state change failed"
    assert ghcb_msr(0x7654000) is None


@pytest.mark.parametrize(
    ("word", "words"), [(0, "done"), (0x100 << 32, "generic"), (1 << 32 | 1, "header"), (1 << 32 | 2, "entry"), (5, None)]
)
def test_the_result_of_a_page_state_change(word, words):
    found = psc_result(word)
    assert found is None if words is None else words in found


def test_the_guest_tells_why_it_ended_itself():
    assert "PVALIDATE" in sev_termination(1, 2)
    assert "not in Linux' table" in sev_termination(0xF, 1)


def test_fault_bits_name_the_rmp():
    assert page_fault(0x80000003).text == "present, write, RMP violation"
    assert (
        page_fault(1 << 34 | 1 << 49 | 1 << 31).text
        == "RMP violation, encrypted (private access), private access (KVM's own bit)"
    )
    assert page_fault(1 << 50).text == "none, other bits 0x4000000000000"
