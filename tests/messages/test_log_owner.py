"""Whose log it is: decided by lines that only one kind of kernel prints, left open where that does not decide."""

import itertools
from pathlib import Path

import pytest

from gmemstate.messages.catalogue import facts
from gmemstate.model.log_owner import LogEvidence, LogOwner, evidence_of, owner_of
from gmemstate.model.reports import PlatformPart, PlatformState
from tests.ingest.witness import details, said

LINES = {
    "tdx: Guest detected": LogOwner.GUEST,
    "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP": LogOwner.GUEST,
    "SEV: SNP running at VMPL0.": LogOwner.GUEST,
    "Hypervisor detected: KVM": LogOwner.GUEST,
    "Booting paravirtualized kernel on bare hardware": LogOwner.HOST,
    "virt/tdx: module initialized": LogOwner.HOST,
    "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)": LogOwner.HOST,
    "ccp 0000:01:00.5: SEV-SNP API:1.55 build:21": LogOwner.HOST,
    "SEV-SNP: RMP table physical range [0x0000000035600000 - 0x0000000075bfffff]": LogOwner.HOST,
    "kvm_amd: Nested Paging enabled": LogOwner.HOST,
    "Command line: ro elfcorehdr=0x6f000000 nr_cpus=1": LogOwner.CRASH_KERNEL,
    "Linux version 6.16.0 (user@host) #1 SMP": LogOwner.UNKNOWN,
    "Command line: BOOT_IMAGE=/vmlinuz ro crashkernel=512M": LogOwner.UNKNOWN,
}


@pytest.mark.parametrize("line", LINES)
def test_one_line_decides_as_much_as_it_can(line: str, tmp_path: Path) -> None:
    shown = [evidence_of(details(event)) for event in said(f"[    0.000000] {line}", tmp_path).events]
    assert owner_of(one for one in shown if one is not None) is LINES[line]


def test_more_evidence_never_turns_one_owner_into_another() -> None:
    for count in range(len(LogEvidence) + 1):
        for shown in itertools.combinations(LogEvidence, count):
            owner = owner_of(shown)
            for more in LogEvidence:
                further = owner_of((*shown, more))
                nested = {owner, further} <= {LogOwner.GUEST, LogOwner.HOST, LogOwner.NESTED}
                allowed = {owner, LogOwner.UNKNOWN, LogOwner.CRASH_KERNEL}
                assert owner is LogOwner.UNKNOWN or further in allowed or (nested and further is LogOwner.NESTED)


def test_a_virtual_machine_with_a_hypervisor_is_both() -> None:
    assert owner_of((LogEvidence.VIRTUAL_MACHINE, LogEvidence.HYPERVISOR)) is LogOwner.NESTED


def test_the_words_of_the_catalogue_are_those_of_the_model() -> None:
    platform = [message for message in facts("platform") if message.fact == "platform"]
    assert {message.words["part"] for message in platform} == set(PlatformPart)
    assert {message.words["state"] for message in platform} == set(PlatformState)
    assert {message.words["of"] for message in facts("owner") if "of" in message.words} <= set(LogEvidence)
