"""What KVM and guests say to VMMs: exits, faults, attributes, hypercalls, and what the answers become."""

import pytest

from gmemstate.decode import (
    exit_reason,
    hypercall,
    hypercall_result,
    map_gpa_attributes,
    memory_attributes,
    memory_fault_flags,
    tdvmcall,
    tdvmcall_status,
)
from gmemstate.decode.kvm import (
    exit_reason_of,
    fallocate_mode,
    hardware_exit_of,
    slot_flags,
    suberror,
    svm_exit,
    system_event,
    vmx_exit,
)

EXITS = {
    0: "KVM_EXIT_UNKNOWN",
    2: "KVM_EXIT_IO",
    3: "KVM_EXIT_HYPERCALL",
    8: "KVM_EXIT_SHUTDOWN",
    17: "KVM_EXIT_INTERNAL_ERROR",
    24: "KVM_EXIT_SYSTEM_EVENT",
    30: "KVM_EXIT_X86_WRMSR",
    37: "KVM_EXIT_NOTIFY",
    39: "KVM_EXIT_MEMORY_FAULT",
    40: "KVM_EXIT_TDX",
    43: "KVM_EXIT_SNP_REQ_CERTS",
}


@pytest.mark.parametrize(("number", "name"), EXITS.items())
def test_an_exit_reason_has_its_name_and_the_name_leads_back(number, name):
    assert exit_reason(number).name == name
    assert exit_reason_of(name) == exit_reason_of(name.removeprefix("KVM_EXIT_")) == exit_reason(number)


@pytest.mark.parametrize("number", [-1, 44, 1 << 40])
def test_a_number_beyond_the_table_is_no_exit(number):
    assert exit_reason(number) is None


def test_bit_3_is_private_and_everything_else_is_refused():
    assert (memory_attributes(8).private, memory_attributes(8).unknown) == (True, 0)
    assert (memory_attributes(0).private, memory_attributes(0).unknown) == (False, 0)
    assert memory_attributes(9).unknown == 1
    assert "EINVAL" in memory_attributes(9).meaning().text


def test_fault_flags_tell_the_kind_of_the_access_not_of_the_page():
    assert memory_fault_flags(8).text == "0x8: the guest's access was private"
    assert "shared, or a write to a read-only slot" in memory_fault_flags(0).text
    assert memory_fault_flags(0x18).text.endswith("unknown bits 0x10")


def test_flags_of_slots_and_modes_of_fallocate():
    assert slot_flags(0).text == "0x0: none"
    assert slot_flags(6).text == "0x6: KVM_MEM_READONLY, KVM_MEM_GUEST_MEMFD"
    assert "punch a hole" in fallocate_mode("FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE").text
    assert fallocate_mode("0x3") == fallocate_mode("FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE")
    assert "EOPNOTSUPP" in fallocate_mode("FALLOC_FL_PUNCH_HOLE").text
    assert "EOPNOTSUPP" in fallocate_mode("0x3zz").text


def test_events_and_internal_errors_have_names_or_none():
    assert "SEV_TERM" in system_event(6).text
    assert "UNEXPECTED_EXIT_REASON" in suberror(4).text
    assert system_event(99) is None
    assert suberror(99) is None


def test_hardware_exits_by_number_and_by_the_names_that_kvm_exit_prints():
    assert vmx_exit(77).text.startswith("TDCALL (77)")
    assert svm_exit(0x80000010).text.startswith("VMGEXIT_PSC (0x80000010)")
    assert "had not validated" in svm_exit(0x404).text
    assert hardware_exit_of("vmgexit") == svm_exit(0x403)
    assert hardware_exit_of("EPT_VIOLATION") == vmx_exit(48)
    assert vmx_exit(5) is None
    assert svm_exit(1 << 40) is None


def test_a_guest_asks_with_hypercall_12():
    assert "KVM_HC_MAP_GPA_RANGE (0xc)" in hypercall(12).text
    assert hypercall(13) is None


@pytest.mark.parametrize(
    ("word", "private", "size", "unknown"),
    [(0x10, True, "4K", 0), (0, False, "4K", 0), (0x11, True, "2M", 0), (0x12, True, "1G", 0), (0x30, True, "4K", 0x20)],
)
def test_attributes_of_map_gpa_range(word, private, size, unknown):
    found = map_gpa_attributes(word)
    assert (found.private, found.size, found.unknown) == (private, size, unknown)


@pytest.mark.parametrize(
    ("value", "legal", "words"),
    [
        (0, True, "next 2M"),
        (11, True, "RETRY"),
        (22, True, "INVALID_OPERAND"),
        (5, False, "KVM_RUN fails with EINVAL"),
        (-11, False, "the guest reads a failure"),
        (-1000, False, "KVM_ENOSYS"),
        ((1 << 64) - 1000, False, "KVM_ENOSYS"),
    ],
)
def test_an_answer_to_map_gpa_range_is_0_eagain_or_einval_and_positive(value, legal, words):
    found = hypercall_result(value)
    assert found.legal is legal
    assert words in found.means


@pytest.mark.parametrize(
    ("word", "name"),
    [
        (0, "SUCCESS"),
        (1, "RETRY"),
        (0x8000000000000000, "INVALID_OPERAND"),
        (0x8000000000000002, "ALIGN_ERROR"),
        (0x8000000000000003, "SUBFUNC_UNSUPPORTED"),
    ],
)
def test_answers_to_a_tdvmcall(word, name):
    assert tdvmcall_status(word).text.startswith(f"TDVMCALL_STATUS_{name}: ")


def test_tdvmcalls_by_leaf():
    assert tdvmcall(0x10001).text.startswith("TDVMCALL_MAP_GPA (0x10001)")
    assert tdvmcall(10).text == "CPUID (10)"
    assert tdvmcall(0x10099) is None
    assert tdvmcall_status(2) is None
