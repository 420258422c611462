"""Codes of reports of kernels and VMMs, and formats of sources: words that stores hold and several packages compare.

The values stand in the stored ``detail`` of events (``code`` of a vmm_said, ``what`` of kernel_warned, rmp_violation and
vm_dead) and in
``source_opened``; they never change. Pages and signatures name them in TOML files, which a test compares with these.
"""

from enum import StrEnum


class VmmReportCode(StrEnum):
    """What a VMM, a paravisor or a guest's firmware says: ``code`` of a vmm_said.

    A failed ioctl of a system call trace has the name of the ioctl there instead, such as KVM_CREATE_GUEST_MEMFD.
    """

    CALL_FAILED = "call failed"
    CONVERT_REFUSED = "convert refused"
    """no ioctl was made: the range has no guest_memfd"""
    CONVERT_REQUEST = "convert wish"
    """printed before any check; no result"""
    DISCARD = "discard"
    DISCARDING = "discarding of RAM"
    """RAM cannot be discarded any more, as a device needs it"""
    DMA = "DMA"
    DMA_MAPPINGS = "DMA mappings run out"
    DMA_STILL_MAPPED = "DMA still mapped"
    ERROR = "error"
    """any other error of QEMU"""
    FIRMWARE_REQUEST = "firmware asks"
    GUEST_CRASH = "guest crash"
    GUEST_ENDED_ITSELF = "guest ended itself"
    GUEST_MEMFD_REFUSED = "guest_memfd refused"
    INACCESSIBLE_GPA = "inaccessible gpa"
    INIT_MEM_REGION = "KVM_TDX_INIT_MEM_REGION"
    INTERNAL_ERROR = "KVM internal error"
    INVALID_RANGE = "invalid range"
    LAUNCH_CALL = "launch call failed"
    LAUNCH_FAILED = "launch failed"
    LAUNCH_UPDATE = "launch update"
    LISTENER_REFUSED = "listener refused"
    """of a RAM discard listener, after the kernel has converted"""
    MAP_GPA_RANGE = "KVM_HC_MAP_GPA_RANGE"
    MAP_GPA_RETRY = "MapGPA retry"
    NEW_VM = "new VM"
    PINNED_MEMORY = "pinned memory"
    RAM_BLOCK = "ram block state change"
    REGISTERS = "registers"
    RUN_FAILED = "kvm run failed"
    RUN_STATE = "run state"
    SET_MEMORY_FAILED = "failed to set memory"
    SNP_LAUNCH_UPDATE = "SNP_LAUNCH_UPDATE"
    UNHANDLED_EXIT = "unhandled exit"
    UNKNOWN_EXIT = "unknown exit"
    UNKNOWN_FAULT_FLAG = "unknown fault flag"
    VALIDATES = "validates"
    VISIBILITY = "visibility change failed"


class KernelReportCode(StrEnum):
    """What a kernel says: ``what`` of a kernel_warned, an rmp_violation, a vm_dead and other events of a kernel log.

    For kinds of reports ``gmemstate/messages/report_kinds.toml`` has what they do to the host.
    """

    ABORT = "abort"
    BAD_PAGE = "bad page"
    BUG = "BUG"
    BUG_OTHER = "BUG: of another kind"
    CONFIGURATION = "configuration"
    CPA_NOT_CONVERTED = "VMM did not convert"
    DIRECT_MAP = "direct map"
    DMA_LEAKED = "DMA memory leaked by a guest"
    DOUBLE_FAULT = "double fault"
    EARLY_EXCEPTION = "early exception"
    EMULATION = "emulation of private memory"
    FAULT_INJECTION = "fault injection"
    GENERAL_PROTECTION = "general protection"
    GRANULE_FAULT = "granule protection fault of the host"
    GUEST_KERNEL = "kernel of a guest"
    GUEST_RMP_FAULT = "RMP fault of the guest"
    HARD_LOCKUP = "hard lockup"
    HOST_PAGE_FAULT = "page fault of the host"
    """one that the RMP caused"""
    HUNG_TASK = "hung task"
    INVALID_CONTEXT = "sleeping function called from invalid context"
    KASAN = "KASAN"
    KCSAN = "KCSAN"
    KFENCE = "KFENCE"
    KMSAN = "KMSAN"
    LIST_CORRUPTION = "list corruption"
    LOCKDEP = "lockdep"
    """``rule``: which of its rules"""
    LOG_OWNER = "whose log"
    """``of``: what the line proves of it (model/log_owner.py)"""
    MACHINE_CHECK = "machine check"
    MEMORY_MAP = "memory map"
    MSR_ACCESS = "unchecked MSR access"
    OOM = "OOM kill"
    PAGE_ALLOCATION = "page allocation failure"
    PAGE_FAULT = "page fault"
    PANIC = "panic"
    PLATFORM = "platform"
    """``part`` of the platform and its ``state``, as a line states it"""
    PREEMPTIBLE = "preemptible code"
    RCU_STALL = "RCU stall"
    REFCOUNT = "refcount"
    RMP_ENTRY = "RMP entry"
    RMPUPDATE = "RMPUPDATE"
    RMPUPDATE_OTHER = "RMPUPDATE of another form"
    RMPUPDATE_SUCCEEDED = "RMPUPDATE succeeded"
    SCHEDULING = "scheduling while atomic"
    SEAMCALL = "SEAMCALL"
    SEAMCALL_OTHER = "SEAMCALL of another form"
    SECURITY_PROCESSOR = "security processor"
    SLAB_CORRUPTION = "slab corruption"
    SOFT_LOCKUP = "soft lockup"
    SPINLOCK = "spinlock"
    STACK = "stack"
    """one whose header is not in the log"""
    SWIOTLB = "swiotlb"
    SYSRQ = "sysrq"
    TD_EXIT = "TD exit"
    TERMINATION = "guest requested termination"
    TRAP = "trap"
    UBSAN = "UBSAN"
    UNACCEPTED = "access before accept"
    VC_EXCEPTION = "#VC"
    VMGEXIT = "vmgexit"
    WARNING = "WARN"
    WORKQUEUE_LOCKUP = "workqueue lockup"


class PlatformPart(StrEnum):
    """What a line about the platform is about: ``part`` of a kernel_warned with ``what`` "platform"."""

    KERNEL = "kernel"
    """it starts here; ``version``"""
    CPU = "CPU"
    """its make, in ``version``"""
    TDX_BIOS = "TDX in the BIOS"
    TDX_MODULE = "TDX module"
    KVM_TDX = "TDX in KVM"
    RMP_TABLE = "RMP table"
    IOMMU_SNP = "SNP in the IOMMU"
    SNP_FIRMWARE = "SNP firmware"
    SEV_FIRMWARE = "SEV firmware"
    SECURITY_PROCESSOR = "security processor"
    KVM_SNP = "SEV-SNP in KVM"
    KVM_SEV = "SEV in KVM"
    KVM_REALM = "realms in KVM"
    KVM = "KVM"


class PlatformState(StrEnum):
    """What the line says of it: ``state``; with "failed" and "missing" ``cause`` and ``error``, where the line has them."""

    STARTS = "starts"
    FOUND = "found"
    """it is there, perhaps with its ``version``; that it works is not said"""
    UP = "up"
    FAILED = "failed"
    MISSING = "missing"
    """not there, or not enabled: by the platform, the BIOS or a parameter"""


class SourceFormat(StrEnum):
    """The format of a source; ``source_opened`` names each that understood one of its first lines, the most frequent first."""

    BPFTRACE = "bpftrace"
    ENGINE = "engine"
    """conversions that a program of ours made, recorded by itself"""
    FTRACE = "ftrace"
    KERNEL_LOG = "kernel log"
    PERF_SCRIPT = "perf script"
    PERF_TRACE = "perf trace"
    QEMU = "QEMU"
    SIMULATION = "simulation"
    STRACE = "strace"
    UNKNOWN = "unknown"
    VMM_LOG = "VMM log"


def formats_of(stored: str) -> frozenset[SourceFormat]:
    """The formats that ``source_opened`` names; one that this version does not know is left out."""
    return frozenset(known for known in SourceFormat if known in stored.split(", "))
