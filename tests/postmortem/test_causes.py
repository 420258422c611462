"""One failure is one incident: what one cause explains is part of it; what nothing ties stays apart."""

from pathlib import Path

import pytest

from gmemstate.postmortem.incident import Incident, IncidentKind, PostMortem
from tests.postmortem.telling import about, post_mortem_of
from tests.together import files_of, read_together
from tests.traces import read_lines

CHECK = "[  100.000001] mce: Uncorrected hardware memory error in user-access at {address}"
FAILED = "[  100.100001] Memory failure: {pfn}: recovery action for unevictable LRU page: Failed"
FATAL = "[  100.200001] kvm_intel: kvm [13696]: TD exit 0xe000060400000000, 0 hkid 0x41 hkid pa 0x8200000000000"
READ = "[  100.300001] SEAMCALL[TDH_MEM_RD(12)] failed: Unknown SEAMCALL status code(0xe000060400000000)"
REQUESTED = "[  100.000001] kvm_amd: SEV-ES guest requested termination: 0x0:0x2"
EXIT = "KVM: unknown exit reason 24"
STUCK = (
    "[  200.000001] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x1a2b3c4077, level_state 0x400"
)
EIO = "error: kvm run failed Input/output error"
LEAKS = "[  300.000002] SEV-SNP: Leaking PFN range 0x146800-0x146a00"
PSP = "[  300.000001] ccp 0000:01:00.5: sev command 0x2 timed out, disabling PSP"
NO_RMP = "[    0.642786] SEV-SNP: Memory for the RMP table has not been reserved by BIOS"
NO_SNP = "qemu-system-x86_64: sev_kvm_init: kernel does not support restricted guest memory"
LAUNCH = "qemu-system-x86_64: KVM_TDX_INIT_VM failed: Invalid argument"
NO_KVM = "qemu-system-x86_64: failed to initialize kvm: Operation not permitted"
REBOOT = "-- Reboot --"


def told(folder: Path, *lines: str) -> PostMortem:
    return post_mortem_of(read_lines([line.encode() for line in lines], folder))


def parts(incident: Incident) -> set[str]:
    return {part.title for part in incident.parts}


def test_a_machine_check_its_memory_failure_and_the_td_that_it_ends_are_one_incident(tmp_path: Path) -> None:
    (one,) = told(tmp_path, CHECK.format(address="80a5669600"), FAILED.format(pfn="0x80a5669"), FATAL, READ).incidents
    assert one.kind is IncidentKind.POISON
    assert one.blame == "host platform"
    assert parts(one) == {"machine check", "VM dead", "TD's memory not readable"}
    assert [(part.relation, part.basis) for part in one.parts if part.title == "machine check"] == [("cause", "observed")]


def test_two_machine_checks_of_two_pages_end_a_td_by_nobody_knows_which(tmp_path: Path) -> None:
    pages = [FAILED.format(pfn="0x80a5669"), CHECK.format(address="90a5669600")]
    found = told(tmp_path, *pages, FATAL)
    assert {incident.kind for incident in found.incidents} >= {IncidentKind.VM_DEAD, IncidentKind.POISON}
    assert not any("VM dead" in parts(incident) for incident in found.incidents)


def test_errors_of_two_pages_are_two_incidents(tmp_path: Path) -> None:
    found = told(tmp_path, CHECK.format(address="80a5669600"), FAILED.format(pfn="0x80a5670"))
    assert found.count == 2


def test_the_same_page_in_two_boots_is_two_incidents(tmp_path: Path) -> None:
    found = told(tmp_path, CHECK.format(address="80a5669600"), REBOOT, FAILED.format(pfn="0x80a5669"))
    assert found.count == 2


def test_a_guest_that_asked_to_be_ended_and_the_exit_of_its_vmm_are_one_and_no_reason_is_missing(tmp_path: Path) -> None:
    (one,) = told(tmp_path, REQUESTED, EXIT).incidents
    assert (one.blame, one.missing) == ("unknown", ())
    assert [part.basis for part in one.parts] == ["assumed"]
    assert "guest requested termination'" not in about(one, "Match")


def test_of_two_guests_that_asked_to_be_ended_none_is_taken_for_the_one_of_the_vmm(tmp_path: Path) -> None:
    found = told(tmp_path, REQUESTED, REQUESTED.replace("0x0:0x2", "0xf:0x1"), EXIT)
    assert all(not incident.parts for incident in found.incidents)


def test_pages_that_are_given_up_when_the_firmware_does_not_answer_are_its_consequence(tmp_path: Path) -> None:
    (one,) = told(tmp_path, PSP, LEAKS).incidents
    assert one.title == "security processor failed"
    assert parts(one) == {"memory leaked by the kernel"}
    assert "0x146800" in str([row.text for row in one.timeline])


def test_a_vmm_that_finds_no_snp_is_a_consequence_of_what_the_kernel_could_not_set_up(tmp_path: Path) -> None:
    (one,) = told(tmp_path, NO_RMP, NO_SNP, NO_KVM).incidents
    assert (one.blame, one.title) == ("host platform", "SEV-SNP not usable")
    assert parts(one) == {"kernel and VMM do not fit"}


def test_two_errors_of_a_vmm_next_to_each_other_are_one_incident(tmp_path: Path) -> None:
    (one,) = told(tmp_path, LAUNCH, NO_KVM).incidents
    assert parts(one) == {"KVM not started"}
    assert told(tmp_path, LAUNCH, *["qemu-system-x86_64: warning: something else"] * 5, NO_KVM).count == 2


def test_an_errno_alone_ties_no_vm_to_a_failure_of_the_kernel(tmp_path: Path) -> None:
    found = told(tmp_path, STUCK, EIO)
    assert found.count == 2
    assert "no line ties it to this VM" in about(found.incidents[1], "Perhaps")


@pytest.mark.parametrize("case", ["enomem", "ip_enomem"])
def test_an_allocation_that_a_test_made_fail_is_the_cause_of_the_enomem_and_no_incident_of_its_own(
    case: str, tmp_path: Path
) -> None:
    found = post_mortem_of(read_together(files_of(case), tmp_path))
    assert {incident.blame for incident in found.incidents if "ENOMEM" in incident.summary} == {"nobody"}
    assert all(part.relation == "cause" and part.basis == "observed" for one in found.incidents for part in one.parts)
    assert IncidentKind.KERNEL_REPORT not in {incident.kind for incident in found.incidents}


def test_an_enomem_without_a_report_names_candidates_and_no_cause(tmp_path: Path) -> None:
    (one,) = post_mortem_of(read_lines(files_of("enomem")["ftrace.txt"], tmp_path)).incidents
    assert "fault injection" in about(one, "Maybe")
    assert one.blame == "memory shortage"
