"""Tracepoints of SNP guests and of the fault path: what a guest asks without a hypercall, and which host page it is given."""

from pathlib import Path

from gmemstate.model.events import FaultServed, GuestAnswered, GuestAsked, RequestPath, RmpViolation
from tests.ingest.witness import said, shows

FRAME = " vcpu-78 [001] ..... 12.34567{}: "


def traced(folder: Path, *events: str) -> list[object]:
    return list(said([FRAME.format(number) + event for number, event in enumerate(events)], folder).events)


def test_a_page_state_change_by_msr_is_a_request_for_one_page(tmp_path: Path) -> None:
    """GHCB MSR 0x014: bits 51:12 are the gfn, 55:52 the kind; the answer 0x015 has its error above."""
    asked, answered, again, refused = traced(
        tmp_path,
        "kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0010000100004014",
        "kvm_vmgexit_msr_protocol_exit: vcpu 0, ghcb_gpa 0000000000000015, result 1",
        "kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0020000100005014",
        "kvm_vmgexit_msr_protocol_exit: vcpu 0, ghcb_gpa 0000000100000015, result 1",
    )
    assert isinstance(asked, GuestAsked)
    assert shows(asked, start=0x100004, npages=1, path=RequestPath.PSC_MSR, flags=1, asked="to private", thread=78)
    assert isinstance(answered, GuestAnswered)
    assert (answered.request, answered.result) == (asked.request, 0)
    assert isinstance(again, GuestAsked)
    assert shows(again, start=0x100005, asked="to shared")
    assert isinstance(refused, GuestAnswered)
    assert refused.result == 1


def test_page_state_changes_by_vmgexit_do_not_tell_their_pages(tmp_path: Path) -> None:
    asked, answered = traced(
        tmp_path,
        "kvm_vmgexit_enter: vcpu 0, exit_reason 80000010, exit_info1 0, exit_info2 0",
        "kvm_vmgexit_exit: vcpu 0, exit_reason 80000010, exit_info1 0, exit_info2 10000000000",
    )
    assert isinstance(asked, GuestAsked)
    assert shows(asked, start=None, npages=None, path=RequestPath.PSC_GHCB)
    assert isinstance(answered, GuestAnswered)
    assert answered.result == 0x100 << 32


def test_other_exits_of_an_snp_guest_ask_for_nothing(tmp_path: Path) -> None:
    assert not traced(
        tmp_path,
        "kvm_vmgexit_enter: vcpu 0, exit_reason 72, exit_info1 0, exit_info2 0",
        "kvm_vmgexit_exit: vcpu 0, exit_reason 72, exit_info1 0, exit_info2 0",
        "kvm_vmgexit_msr_protocol_enter: vcpu 0, ghcb_gpa 0000000000000002",
        "kvm_vmgexit_msr_protocol_exit: vcpu 0, ghcb_gpa 0000000000000001, result 1",
    )


def test_a_split_of_an_rmp_entry_is_told_only_if_it_fails(tmp_path: Path) -> None:
    (violation,) = traced(
        tmp_path,
        "kvm_rmp_fault: vcpu 0 gpa 0000000001f00000 pfn 0x2a3b4c error_code 0x900000006 rmp_level 2 psmash_ret 0",
        "kvm_rmp_fault: vcpu 0 gpa 0000000001f00000 pfn 0x2a3b4c error_code 0x900000006 rmp_level 2 psmash_ret 3",
    )
    assert isinstance(violation, RmpViolation)
    assert shows(violation, pfn=0x2A3B4C, gpa="0x1f00000", code="FAIL_INUSE")


def test_an_entry_that_is_traced_twice_is_one_run(tmp_path: Path) -> None:
    """kvm_tdp_mmu_spte_changed and kvm_mmu_set_spte tell the same entry."""
    (served,) = traced(
        tmp_path,
        "kvm_tdp_mmu_spte_changed: as id 0 gfn 1f00 level 1 old_spte 0 new_spte 86000002a3b4cb77",
        "kvm_mmu_set_spte: gfn 1f00 spte 86000002a3b4cb77 (rwxu) level 1 at 80b34fc8d8",
        "kvm_mmu_set_spte: gfn 1f01 spte 86000002a3b4db77 (rwxu) level 1 at 80b34fc8e0",
    )
    assert isinstance(served, FaultServed)
    assert shows(served, start=0x1F00, npages=2, pfn=0x2A3B4C, owner=None)


def test_the_older_form_of_a_page_fault_is_understood(tmp_path: Path) -> None:
    log = said(FRAME.format(0) + "kvm_page_fault: address 84d000 error_code 4", tmp_path)
    assert log.account.context == {"page_fault": 1}
