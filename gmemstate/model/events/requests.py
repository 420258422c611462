"""Requests of guests, and the answers that they get."""

from gmemstate.model.events.fields import Answer, ConversionRef, Errno, GuestRef, RequestRef
from gmemstate.model.events.registry import Event, kind
from gmemstate.model.events.words import RequestPath


@kind(
    30,
    "kvm_hypercall KVM_HC_MAP_GPA_RANGE, TDVMCALL MapGPA, SNP PSC",
    {"request": "conversion", "flags": "value", "thread": "actor", "path": "result"},
)
class GuestAsked(Event):
    """A guest asks for a conversion; ``flags`` as it passed them. ``detail`` has the bytes if they are unaligned."""

    request: RequestRef
    thread: int
    owner: GuestRef | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    path: RequestPath = RequestPath.VMCALL


@kind(
    31,
    "complete_hypercall_exit, tdx_complete_vmcall_map_gpa, snp_complete_psc",
    {"request": "conversion", "next_gpa": "value", "thread": "actor"},
)
class GuestAnswered(Event):
    """The guest gets its answer: ``result`` is the value it sees (0, or as KVM defines it for the path, may be negative)."""

    request: RequestRef
    result: Answer
    owner: GuestRef | None = None
    thread: int | None = None
    next_gpa: int | None = None


@kind(32, "kvm_mmu_prepare_memory_fault_exit", {"flags": "value", "thread": "actor", "raced": "conversion"})
class MemoryFaultExit(Event):
    """KVM_RUN returned KVM_EXIT_MEMORY_FAULT: no request by itself. ``flags`` 0x8 is a private access.

    ``raced`` names a conversion of the page that was going on, or had just ended, while this vCPU ran.
    """

    thread: int
    result: Errno
    owner: GuestRef | None = None
    start: int | None = None
    npages: int | None = None
    flags: int | None = None
    raced: ConversionRef | None = None
