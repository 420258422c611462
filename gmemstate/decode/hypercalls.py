"""How a guest asks for a conversion: KVM hypercalls and TDVMCALLs, their arguments and their answers.

Numbers and attributes: include/uapi/linux/kvm_para.h, arch/x86/include/uapi/asm/kvm_para.h. TDVMCALL:
arch/x86/include/asm/shared/tdx.h. What an answer of the VMM becomes: arch/x86/kvm/vmx/tdx.c, arch/x86/kvm/svm/sev.c,
arch/x86/kvm/x86.h of Linux 7.2.
"""

from dataclasses import dataclass

from gmemstate.decode import errnos
from gmemstate.decode.errnos import MEANINGS, errno
from gmemstate.decode.kvm import VMX_EXITS
from gmemstate.decode.meaning import Meaning

SOURCE = "Linux uapi/linux/kvm_para.h"
TDX_SOURCE = "Linux asm/shared/tdx.h"

HYPERCALLS = {
    1: "KVM_HC_VAPIC_POLL_IRQ",
    2: "KVM_HC_MMU_OP",
    3: "KVM_HC_FEATURES",
    4: "KVM_HC_PPC_MAP_MAGIC_PAGE",
    5: "KVM_HC_KICK_CPU",
    6: "KVM_HC_MIPS_GET_CLOCK_FREQ",
    7: "KVM_HC_MIPS_EXIT_VM",
    8: "KVM_HC_MIPS_CONSOLE_OUTPUT",
    9: "KVM_HC_CLOCK_PAIRING",
    10: "KVM_HC_SEND_IPI",
    11: "KVM_HC_SCHED_YIELD",
    12: "KVM_HC_MAP_GPA_RANGE",
}
MAP_GPA_RANGE = 12
_HYPERCALL_NUMBERS = {name: number for number, name in HYPERCALLS.items()}


def hypercall(number: int) -> Meaning | None:
    """A KVM hypercall by its number."""
    if number not in HYPERCALLS:
        return None
    more = ": a guest's request for a conversion; gpa, number of 4K pages, attributes" if number == MAP_GPA_RANGE else ""
    return Meaning("KVM hypercall", f"{HYPERCALLS[number]} ({number:#x}){more}", (), SOURCE)


def hypercall_of(name: str) -> Meaning | None:
    """A KVM hypercall by its name."""
    number = _HYPERCALL_NUMBERS.get("KVM_HC_" + name.upper().removeprefix("KVM_HC_"))
    return None if number is None else hypercall(number)


@dataclass(frozen=True, slots=True)
class MapGpaAttributes:
    """The third argument of KVM_HC_MAP_GPA_RANGE: which kind is wanted, and the page size that would be liked."""

    word: int
    private: bool
    size: str
    unknown: int

    def meaning(self) -> Meaning:
        """The attributes in words."""
        text = f"to {'private (encrypted)' if self.private else 'shared (decrypted)'}, page size {self.size}"
        if self.unknown:
            text += f"; unknown bits {self.unknown:#x}"
        # The selftests of KVM pass bits of their own: 0 set attributes, 1 shared, 2 fallocate.
        caution = (
            (("caution", "KVM's selftests use bits 0 to 2 in their own way"),) if self.word & 7 and not self.private else ()
        )
        return Meaning("MAP_GPA_RANGE attributes", f"{self.word:#x} = {text}", caution, "Linux uapi/asm/kvm_para.h")


ENCRYPTED = 0x10
"""KVM_MAP_GPA_RANGE_ENCRYPTED"""


def map_gpa_attributes(word: int) -> MapGpaAttributes:
    """Take the attributes of KVM_HC_MAP_GPA_RANGE apart: bit 4 private, bits 1:0 preferred page size."""
    size = {0: "4K", 1: "2M", 2: "1G"}.get(word & 3, "not valid")
    return MapGpaAttributes(word, bool(word & ENCRYPTED), size, word & ~(ENCRYPTED | 3))


_ANSWERS = {0: "done; a TD goes on with the next 2M of its request"} | MEANINGS[errnos.MAP_GPA_RANGE]


@dataclass(frozen=True, slots=True)
class HypercallResult:
    """What a VMM (``hypercall.ret``) answers to KVM_HC_MAP_GPA_RANGE, or what a guest reads; ``legal`` for what KVM accepts."""

    value: int
    name: str
    means: str
    legal: bool

    def meaning(self) -> Meaning:
        """The answer in words."""
        return Meaning(
            "MAP_GPA_RANGE result", f"{self.name}: {self.means}", (), "Linux kvm/x86.h, kvm/vmx/tdx.c, kvm/svm/sev.c"
        )


def hypercall_result(value: int) -> HypercallResult:
    """What an answer to KVM_HC_MAP_GPA_RANGE means: 0, EAGAIN and EINVAL are legal, positive; a guest reads negative errnos."""
    if value >= 1 << 63:
        value -= 1 << 64
    said = errno(value)
    name = "0" if value == 0 else f"{said.name} ({value})" if said else str(value)
    if value in _ANSWERS:
        return HypercallResult(value, name, _ANSWERS[value], True)
    if value == -1000:
        means = (
            "the guest reads KVM_ENOSYS: KVM does not know the hypercall, or the VMM did not enable "
            "KVM_CAP_EXIT_HYPERCALL for it"
        )
        return HypercallResult(value, "-KVM_ENOSYS (-1000)", means, False)
    if value < 0:
        return HypercallResult(value, name, "the guest reads a failure", False)
    return HypercallResult(value, name, "not legal: KVM_RUN fails with EINVAL (0, EAGAIN and EINVAL are legal)", False)


TDVMCALLS = {
    0x10000: "TDVMCALL_GET_TD_VM_CALL_INFO",
    0x10001: "TDVMCALL_MAP_GPA",
    0x10002: "TDVMCALL_GET_QUOTE",
    0x10003: "TDVMCALL_REPORT_FATAL_ERROR",
    0x10004: "TDVMCALL_SETUP_EVENT_NOTIFY_INTERRUPT",
}
_TDVMCALL_NAMES = {name.removeprefix("TDVMCALL_").replace("_", ""): number for number, name in TDVMCALLS.items()}
_TDVMCALL_MEANS = {
    0x10001: ": a TD's request for a conversion; r12 gpa (its shared bit is the requested kind), r13 size",
    0x10003: ": the TD gives up; the VMM sees KVM_SYSTEM_EVENT_TDX_FATAL",
}


def tdvmcall(number: int) -> Meaning | None:
    """A TDVMCALL by its leaf (r11): 0x10000 and up, or a VMX exit reason that the guest wants handled."""
    if number in TDVMCALLS:
        return Meaning("TDVMCALL", f"{TDVMCALLS[number]} ({number:#x}){_TDVMCALL_MEANS.get(number, '')}", (), TDX_SOURCE)
    if number in (10, 12, 30, 31, 32, 48):
        return Meaning("TDVMCALL", f"{VMX_EXITS[number]} ({number})", (), TDX_SOURCE)
    return None


def tdvmcall_of(name: str) -> Meaning | None:
    """A TDVMCALL by its name: ``TDVMCALL_MAP_GPA``, ``MapGPA``."""
    plain = name.upper().removeprefix("TDVMCALL_").replace("_", "")
    number = _TDVMCALL_NAMES.get(plain)
    return None if number is None else tdvmcall(number)


_STATUSES = {
    0: ("SUCCESS", "done"),
    1: ("RETRY", "not all is done; the guest calls again from the address in r11. Normal, no failure"),
    0x8000_0000_0000_0000: ("INVALID_OPERAND", "refused; MapGPA: the VMM said EINVAL, or the range is not legal"),
    0x8000_0000_0000_0002: ("ALIGN_ERROR", "address or size is not a multiple of 4096"),
    0x8000_0000_0000_0003: (
        "SUBFUNC_UNSUPPORTED",
        "not supported; MapGPA: the VMM did not enable KVM_CAP_EXIT_HYPERCALL for it",
    ),
}
_STATUS_VALUES = {name: word for word, (name, _) in _STATUSES.items()}


def tdvmcall_status(word: int) -> Meaning | None:
    """The answer to a TDVMCALL (r10)."""
    if word not in _STATUSES:
        return None
    name, means = _STATUSES[word]
    return Meaning("TDVMCALL status", f"TDVMCALL_STATUS_{name}: {means}", (), TDX_SOURCE)


def tdvmcall_status_of(name: str) -> Meaning | None:
    """The answer to a TDVMCALL by its name."""
    word = _STATUS_VALUES.get(name.upper().removeprefix("TDVMCALL_STATUS_"))
    return None if word is None else tdvmcall_status(word)
