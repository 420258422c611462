"""What KVM tells userspace: exit reasons, memory faults, attributes, flags of slots and files; and exits of the hardware.

Exit reasons, flags, system events: include/uapi/linux/kvm.h of Linux 7.x. Hardware exits: arch/x86/include/uapi/asm/vmx.h and
svm.h, 0x404 AMD APM volume 2.
"""

from dataclasses import dataclass

from gmemstate.decode.meaning import Meaning, bits, listed, number_of
from gmemstate.model.linux import PRIVATE_ATTRIBUTE

SOURCE = "Linux include/uapi/linux/kvm.h"
VMX_SOURCE = "Linux uapi/asm/vmx.h"
SVM_SOURCE = "Linux uapi/asm/svm.h, AMD APM volume 2"

_EXITS = """
UNKNOWN EXCEPTION IO HYPERCALL DEBUG HLT MMIO IRQ_WINDOW_OPEN SHUTDOWN FAIL_ENTRY INTR SET_TPR TPR_ACCESS S390_SIEIC S390_RESET
DCR NMI INTERNAL_ERROR OSI PAPR_HCALL S390_UCONTROL WATCHDOG S390_TSCH EPR SYSTEM_EVENT S390_STSI IOAPIC_EOI HYPERV ARM_NISV
X86_RDMSR X86_WRMSR DIRTY_RING_FULL AP_RESET_HOLD X86_BUS_LOCK XEN RISCV_SBI RISCV_CSR NOTIFY LOONGARCH_IOCSR MEMORY_FAULT
TDX ARM_SEA
ARM_LDST64B SNP_REQ_CERTS
"""
EXITS = {number: f"KVM_EXIT_{name}" for number, name in enumerate(_EXITS.split())}
_EXIT_NUMBERS = {name: number for number, name in EXITS.items()}

_EXIT_MEANS = {
    3: "a hypercall for the VMM; KVM_HC_MAP_GPA_RANGE (12) is a guest's request for a conversion",
    8: "the guest shut down, e.g. by a triple fault",
    17: "KVM could not go on; suberror and data say why",
    24: 'the guest asks to be shut down, reset or ended; QEMU that does not know it says "unknown exit reason 24"',
    39: "the guest accessed a page the other way than its attribute says, or nothing backs it; KVM_RUN returns EFAULT or "
    "EHWPOISON "
    'with it, tracepoints show "error (14)"',
    40: "a TDVMCALL that the VMM has to answer (quotes and the like); MapGPA comes as KVM_EXIT_HYPERCALL",
}


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why KVM_RUN returned to the VMM."""

    number: int
    name: str
    means: str | None

    def meaning(self) -> Meaning:
        """The exit in words."""
        said = f"{self.name} ({self.number})"
        return Meaning("KVM exit", f"{said}: {self.means}" if self.means else said, (), SOURCE)


def exit_reason(number: int) -> ExitReason | None:
    """The exit of ``kvm_run.exit_reason``; None for a number that 7.x does not have."""
    name = EXITS.get(number)
    return None if name is None else ExitReason(number, name, _EXIT_MEANS.get(number))


def exit_reason_of(name: str) -> ExitReason | None:
    """The exit of a name, with or without ``KVM_EXIT_``."""
    number = _EXIT_NUMBERS.get("KVM_EXIT_" + name.upper().removeprefix("KVM_EXIT_"))
    return None if number is None else exit_reason(number)


@dataclass(frozen=True, slots=True)
class MemoryAttributes:
    """The attributes of KVM_SET_MEMORY_ATTRIBUTES(2): ``private`` or shared, and bits that no kernel accepts."""

    word: int
    private: bool
    unknown: int

    def meaning(self) -> Meaning:
        """The attributes in words."""
        text = "private" if self.private else "shared"
        if self.unknown:
            text += f", with bits {self.unknown:#x} that the ioctl refuses (EINVAL)"
        return Meaning("memory attributes", f"{self.word:#x} = {text}", (), SOURCE)


def memory_attributes(word: int) -> MemoryAttributes:
    """Take memory attributes apart: bit 3 is private, nothing else is defined."""
    return MemoryAttributes(word, bool(word & PRIVATE_ATTRIBUTE), word & ~PRIVATE_ATTRIBUTE)


def memory_fault_flags(word: int) -> Meaning:
    """``flags`` of KVM_EXIT_MEMORY_FAULT: bit 3 is a private access, 0 a shared one (or a write to read-only memory)."""
    names, rest = bits(word, {3: "private"})
    text = "the guest's access was private" if names else "the guest's access was shared, or a write to a read-only slot"
    return Meaning("memory fault flags", f"{word:#x}: {text}" + (f"; unknown bits {rest:#x}" if rest else ""), (), SOURCE)


def slot_flags(word: int) -> Meaning:
    """``flags`` of a memslot."""
    names, rest = bits(word, {0: "KVM_MEM_LOG_DIRTY_PAGES", 1: "KVM_MEM_READONLY", 2: "KVM_MEM_GUEST_MEMFD"})
    text = listed(names) + (f", unknown bits {rest:#x}" if rest else "")
    return Meaning("memslot flags", f"{word:#x}: {text}", (), SOURCE)


_EVENTS = {1: "SHUTDOWN", 2: "RESET", 3: "CRASH", 4: "WAKEUP", 5: "SUSPEND", 6: "SEV_TERM", 7: "TDX_FATAL"}
_EVENT_MEANS = {6: ": an SEV guest ended itself", 7: ": a TD reported a fatal error"}


def system_event(number: int) -> Meaning | None:
    """``type`` of KVM_EXIT_SYSTEM_EVENT."""
    if number not in _EVENTS:
        return None
    text = f"KVM_SYSTEM_EVENT_{_EVENTS[number]} ({number}){_EVENT_MEANS.get(number, '')}"
    return Meaning("KVM system event", text, (), SOURCE)


_SUBERRORS = {1: "EMULATION", 2: "SIMUL_EX", 3: "DELIVERY_EV", 4: "UNEXPECTED_EXIT_REASON"}


def suberror(number: int) -> Meaning | None:
    """``suberror`` of KVM_EXIT_INTERNAL_ERROR."""
    if number not in _SUBERRORS:
        return None
    more = ": data[0] is the hardware's exit reason, on TDX the module's status" if number == 4 else ""
    return Meaning("KVM internal error", f"KVM_INTERNAL_ERROR_{_SUBERRORS[number]} ({number}){more}", (), SOURCE)


def fallocate_mode(text: str) -> Meaning:
    """The mode of fallocate() on a guest_memfd, as strace prints it."""
    flags = {"FALLOC_FL_KEEP_SIZE": 1, "FALLOC_FL_PUNCH_HOLE": 2}
    parts = text.split("|")
    number = number_of(text)
    word = sum(flags.get(part, 1 << 31) for part in parts) if number is None else number
    said = {1: "allocate pages", 3: "punch a hole: pages are freed, attributes stay"}.get(
        word, "refused by a guest_memfd (EOPNOTSUPP): KEEP_SIZE alone, or with PUNCH_HOLE, is all it takes"
    )
    return Meaning("fallocate mode", said, (), "Linux virt/kvm/guest_memfd.c")


VMX_EXITS = {
    0: "EXCEPTION_NMI", 1: "EXTERNAL_INTERRUPT", 2: "TRIPLE_FAULT", 3: "INIT_SIGNAL", 4: "SIPI_SIGNAL", 6: "OTHER_SMI",
    7: "INTERRUPT_WINDOW", 8: "NMI_WINDOW", 9: "TASK_SWITCH", 10: "CPUID", 12: "HLT", 13: "INVD", 14: "INVLPG", 15: "RDPMC",
    16: "RDTSC", 18: "VMCALL", 19: "VMCLEAR", 20: "VMLAUNCH", 21: "VMPTRLD", 22: "VMPTRST", 23: "VMREAD", 24: "VMRESUME",
    25: "VMWRITE", 26: "VMOFF", 27: "VMON", 28: "CR_ACCESS", 29: "DR_ACCESS", 30: "IO_INSTRUCTION", 31: "MSR_READ",
    32: "MSR_WRITE", 33: "INVALID_STATE", 34: "MSR_LOAD_FAIL", 36: "MWAIT_INSTRUCTION", 37: "MONITOR_TRAP_FLAG",
    39: "MONITOR_INSTRUCTION", 40: "PAUSE_INSTRUCTION", 41: "MCE_DURING_VMENTRY", 43: "TPR_BELOW_THRESHOLD", 44: "APIC_ACCESS",
    45: "EOI_INDUCED", 46: "GDTR_IDTR", 47: "LDTR_TR", 48: "EPT_VIOLATION", 49: "EPT_MISCONFIG", 50: "INVEPT", 51: "RDTSCP",
    52: "PREEMPTION_TIMER", 53: "INVVPID", 54: "WBINVD", 55: "XSETBV", 56: "APIC_WRITE", 57: "RDRAND", 58: "INVPCID",
    59: "VMFUNC", 60: "ENCLS", 61: "RDSEED", 62: "PML_FULL", 63: "XSAVES", 64: "XRSTORS", 67: "UMWAIT", 68: "TPAUSE",
    74: "BUS_LOCK", 75: "NOTIFY", 76: "SEAMCALL", 77: "TDCALL",
}  # fmt: skip

SVM_EXITS = {
    0x060: "INTR", 0x061: "NMI", 0x072: "CPUID", 0x078: "HLT", 0x07B: "IOIO", 0x07C: "MSR", 0x07F: "SHUTDOWN", 0x081: "VMMCALL",
    0x089: "WBINVD", 0x400: "NPF", 0x403: "VMGEXIT", 0x404: "PAGE_NOT_VALIDATED", 0x8000_0001: "VMGEXIT_MMIO_READ",
    0x8000_0002: "VMGEXIT_MMIO_WRITE", 0x8000_0003: "VMGEXIT_NMI_COMPLETE", 0x8000_0004: "VMGEXIT_AP_HLT_LOOP",
    0x8000_0005: "VMGEXIT_AP_JUMP_TABLE", 0x8000_0010: "VMGEXIT_PSC", 0x8000_0011: "VMGEXIT_GUEST_REQUEST",
    0x8000_0012: "VMGEXIT_EXT_GUEST_REQUEST", 0x8000_0013: "VMGEXIT_AP_CREATION", 0x8000_FFFD: "VMGEXIT_HV_FEATURES",
    0x8000_FFFE: "VMGEXIT_TERM_REQUEST", 0x8000_FFFF: "VMGEXIT_UNSUPPORTED_EVENT",
}  # fmt: skip

_HARDWARE_MEANS = {
    "EPT_VIOLATION": "a second-level page fault",
    "NPF": "a second-level page fault",
    "TDCALL": "a TDVMCALL; a MapGPA is among them",
    "VMGEXIT": "a request of an SEV-ES guest; page state changes are among them",
    "PAGE_NOT_VALIDATED": "the guest accessed a private page that it had not validated",
    "VMGEXIT_PSC": "the guest asks for page state changes",
    "VMGEXIT_TERM_REQUEST": "the guest asks to be ended",
}


def _hardware(table: dict[int, str], kind: str, number: int, source: str) -> Meaning | None:
    if number not in table:
        return None
    name = table[number]
    means = _HARDWARE_MEANS.get(name)
    spelled = f"{number:#x}" if number > 0xFF else str(number)
    return Meaning(kind, f"{name} ({spelled})" + (f": {means}" if means else ""), (), source)


def vmx_exit(number: int) -> Meaning | None:
    """An exit of Intel's hardware; a TD's come with the module's status."""
    return _hardware(VMX_EXITS, "VMX exit", number, VMX_SOURCE)


def svm_exit(number: int) -> Meaning | None:
    """An exit of AMD's hardware, or a request of an SEV-ES guest (0x80000010 is a page state change)."""
    return _hardware(SVM_EXITS, "SVM exit", number, SVM_SOURCE)


def hardware_exit_of(name: str) -> Meaning | None:
    """A hardware exit by the name that kvm_exit prints: ``TDCALL``, ``EPT_VIOLATION``, ``npf``, ``vmgexit``."""
    wanted = name.upper().removeprefix("EXIT_REASON_").removeprefix("SVM_EXIT_").removeprefix("SVM_")
    for table, read in ((VMX_EXITS, vmx_exit), (SVM_EXITS, svm_exit)):
        for number, known in table.items():
            if known == wanted:
                return read(number)
    return None
