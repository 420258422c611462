"""Whose log a source is: decided by what only one kind of kernel prints, and left open where that does not decide.

Evidence is a ``vmm_said`` that names who speaks (``by``), a ``kernel_warned`` with ``what`` "whose log" (``of`` is the
evidence) or "kernel of a guest", and what a report shows by its stack.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from gmemstate.model.reports import KernelReportCode, PlatformPart


class LogEvidence(StrEnum):
    """What a line proves of the machine that printed it."""

    PROTECTED_GUEST = "protected guest"
    VIRTUAL_MACHINE = "virtual machine"
    """it may be a host of nested guests"""
    BARE_MACHINE = "bare machine"
    HYPERVISOR = "hypervisor"
    """KVM, the TDX module or the RMP of this machine were spoken to"""
    CRASH_KERNEL = "crash kernel"
    PARAVISOR = "paravisor"
    SVSM = "SVSM"
    FIRMWARE = "firmware"


class LogOwner(StrEnum):
    """Whose log it is."""

    HOST = "host"
    GUEST = "guest"
    NESTED = "guest that is a host itself"
    CRASH_KERNEL = "crash kernel"
    PARAVISOR = "paravisor"
    SVSM = "SVSM"
    FIRMWARE = "firmware"
    UNKNOWN = "not known"


_ALONE = {
    LogEvidence.CRASH_KERNEL: LogOwner.CRASH_KERNEL,
    LogEvidence.PARAVISOR: LogOwner.PARAVISOR,
    LogEvidence.SVSM: LogOwner.SVSM,
    LogEvidence.FIRMWARE: LogOwner.FIRMWARE,
}
_SPEAKERS = {"SVSM": LogEvidence.SVSM, "OpenHCL": LogEvidence.PARAVISOR, "edk2": LogEvidence.FIRMWARE}
"""``by`` of a vmm_said."""
_OF_ANY_KERNEL = (PlatformPart.KERNEL, PlatformPart.CPU, PlatformPart.SECURITY_PROCESSOR, PlatformPart.KVM)
_GUEST = frozenset((LogEvidence.PROTECTED_GUEST, LogEvidence.VIRTUAL_MACHINE))
_HOST = frozenset((LogEvidence.BARE_MACHINE, LogEvidence.HYPERVISOR))


def evidence_of(words: Mapping[str, object]) -> LogEvidence | None:
    """What the detail of a report of a kernel or VMM proves of whose log it is; None where it proves nothing."""
    if words.get("what") == KernelReportCode.GUEST_KERNEL:
        return LogEvidence.PROTECTED_GUEST
    if words.get("what") == KernelReportCode.PLATFORM:
        return None if words.get("part") in _OF_ANY_KERNEL else LogEvidence.HYPERVISOR
    if words.get("by") in _SPEAKERS:
        return _SPEAKERS[str(words["by"])]
    if words.get("what") == KernelReportCode.MEMORY_MAP and words.get("of") == "RMP table":
        return LogEvidence.HYPERVISOR
    of = words.get("of") if words.get("what") == KernelReportCode.LOG_OWNER else words.get("log_of")
    return LogEvidence(of) if isinstance(of, str) and of in set(LogEvidence) else None


def owner_of(evidence: Iterable[LogEvidence]) -> LogOwner:
    """Whose log it is by all evidence of one source and one boot; evidence of two machines decides nothing."""
    shown = frozenset(evidence)
    alone = {_ALONE[one] for one in shown if one in _ALONE}
    if LogEvidence.CRASH_KERNEL in shown:
        return LogOwner.CRASH_KERNEL if len(alone) == 1 else LogOwner.UNKNOWN
    if alone:
        # A guest's console shows its firmware, SVSM and kernel in turn.
        return alone.pop() if len(alone) == 1 and not shown & (_GUEST | _HOST) else LogOwner.UNKNOWN
    if LogEvidence.BARE_MACHINE in shown:
        return LogOwner.UNKNOWN if shown & _GUEST else LogOwner.HOST
    if shown & _GUEST:
        return LogOwner.NESTED if LogEvidence.HYPERVISOR in shown else LogOwner.GUEST
    return LogOwner.HOST if LogEvidence.HYPERVISOR in shown else LogOwner.UNKNOWN
