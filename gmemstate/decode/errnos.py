"""Errnos of Linux: what each means for the calls that a conversion goes through; numbers and names are in `model.linux`.

Texts: what glibc prints, as QEMU and strace pass it on. Meanings: virt/kvm/kvm_main.c, virt/kvm/guest_memfd.c, arch/x86/kvm of
Linux 7.2, and for KVM_SET_MEMORY_ATTRIBUTES2 the in-place conversion series of September 2026.
"""

from dataclasses import dataclass
from functools import cache

from gmemstate.decode.meaning import Meaning, number_of
from gmemstate.model.linux import ERRNO_NAMES, ERRNO_NUMBERS

SOURCE = "Linux include/uapi/asm-generic/errno.h"

SET_ATTRIBUTES = "KVM_SET_MEMORY_ATTRIBUTES"
SET_ATTRIBUTES2 = "KVM_SET_MEMORY_ATTRIBUTES2"
CONVERT = "KVM_GMEM_CONVERT_PRIVATE"
RUN = "KVM_RUN"
FALLOCATE = "fallocate"
CREATE = "KVM_CREATE_GUEST_MEMFD"
REGION2 = "KVM_SET_USER_MEMORY_REGION2"
TDX_INIT = "KVM_TDX_INIT_MEM_REGION"
MAP_GPA_RANGE = "KVM_HC_MAP_GPA_RANGE"
RMP = "RMP update"
DMA_MAP = "VFIO_MAP_DMA"

_ALIASES = {"KVM_GMEM_CONVERT_SHARED": CONVERT}

TEXTS = {
    1: "Operation not permitted",
    2: "No such file or directory",
    4: "Interrupted system call",
    5: "Input/output error",
    6: "No such device or address",
    7: "Argument list too long",
    9: "Bad file descriptor",
    11: "Resource temporarily unavailable",
    12: "Cannot allocate memory",
    13: "Permission denied",
    14: "Bad address",
    16: "Device or resource busy",
    17: "File exists",
    19: "No such device",
    22: "Invalid argument",
    25: "Inappropriate ioctl for device",
    28: "No space left on device",
    95: "Operation not supported",
    110: "Connection timed out",
    133: "Memory page has hardware error",
}
"""What glibc's strerror() says, for the errnos that VMM logs show."""
_BY_TEXT = {text.lower(): number for number, text in TEXTS.items()}

_DEAD = "the VM is dead or bugged (look in the kernel log for the first failure), or the caller is not the process that made it"

MEANINGS: dict[str, dict[int, str]] = {
    SET_ATTRIBUTES: {
        5: f"{_DEAD}; nothing was looked at",
        12: "no memory to reserve tree entries; nothing was unmapped, the attributes are as before",
        14: "the arguments could not be read; nothing was done",
        22: "flags not 0, an attribute other than 0x8 or one that this VM type does not have, size 0, a wrap or a misalignment",
        25: "this kernel has no memory attributes on VMs, or the file is no VM",
        11: "never given by this ioctl",
        16: "never given by this ioctl",
    },
    SET_ATTRIBUTES2: {
        11: "to private only: a page is in use (pin, mapping or another reference); error_offset names the lowest one in "
        "bytes, the "
        "attributes are as before, host mappings of the whole request are gone; drop the user of the page and retry",
        12: "no memory for tree nodes; nothing was changed, error_offset is the start of the request",
        14: "the arguments could not be read and nothing was done; or the result could not be written back, which hides "
        "EAGAIN or "
        "ENOMEM",
        22: "flags or reserved fields not 0, an attribute other than 0x8, a VM without private memory, size 0, a wrap, a "
        "misalignment, "
        "beyond the end of the file; on a vCPU: no such ioctl",
        25: "in-place conversion is off, or the file is no guest_memfd",
    },
    CONVERT: {
        11: "to private only: a page is in use; error_offset names it in bytes; host mappings are gone, nothing else changed",
        12: "the work list, the tree or a split of a folio found no memory; what was done is undone; error_offset is rubbish",
        14: "the arguments could not be read, or the result could not be written back",
        22: "error_offset was not 0 on input (clear it before a retry), a wrap, beyond the end of the file, or a misalignment",
        25: "this kernel does not have the RFC v2 conversion ioctls",
    },
    RUN: {
        2: "the guest's fault found no RMP entry for the page (SNP)",
        4: "a signal or immediate_exit; no failure",
        5: _DEAD,
        12: "no page could be had for a private fault (with KVM_EXIT_MEMORY_FAULT)",
        14: "KVM_EXIT_MEMORY_FAULT: the guest accessed a page the other way than its attribute says, or nothing backs it",
        22: "the guest's fault could not be served, e.g. an RMP update failed (SNP; look in the kernel log); or "
        "hypercall.ret was "
        "neither 0, EINVAL nor EAGAIN",
        133: "KVM_EXIT_MEMORY_FAULT on a page with a hardware memory error",
    },
    FALLOCATE: {
        4: "a signal came while pages were allocated",
        12: "no memory for pages; a hole punch never gives this",
        22: "offset or length not a multiple of 4096, or beyond the end of the guest_memfd; nothing was done",
        95: "without FALLOC_FL_KEEP_SIZE, or another mode than allocate and punch; nothing was done",
    },
    CREATE: {
        13: "refused by a security module (SELinux)",
        22: "unknown flag, a flag this VM type may not have, size 0 or not a multiple of 4096",
        25: "this kernel does not know the ioctl",
    },
    REGION2: {
        9: "guest_memfd is no open file",
        17: "the part of the guest_memfd is bound to another slot already, or the slot overlaps another",
        22: "not a guest_memfd of this VM, an offset unaligned or beyond its end, or flags that this VM refuses, e.g. "
        "KVM_MEM_READONLY "
        "on a protected VM",
    },
    TDX_INIT: {
        5: "a SEAMCALL failed; its status stands in the kernel log",
        11: "contention in the secure EPT; transient, retry",
        22: "the range is not private, or not in a slot with a guest_memfd",
    },
    MAP_GPA_RANGE: {
        11: 'the VMM\'s answer is "try again": a TD gets RETRY with the address to go on from; an SNP guest, which knows no '
        "retry, a "
        "generic error",
        22: "the VMM refuses: a TD gets INVALID_OPERAND, an SNP guest a generic error",
    },
    RMP: {
        14: "the instruction failed (its code stands in an earlier line), the direct map could not be split, or the page "
        "lies beyond "
        "the RMP",
        19: "this host has no SNP",
        22: "there is no such host page",
    },
    DMA_MAP: {
        12: "no memory, or the limit of locked memory was reached",
        14: "the backing cannot be pinned, e.g. it is private",
        17: "the range is mapped already",
        28: "no DMA mapping is left (one entry for each shared page exhausts them)",
    },
}
"""Call to errno to what it says about a conversion."""


@dataclass(frozen=True, slots=True)
class Errno:
    """An errno of Linux (positive ``number``), what libc says of it, and what it means for each call, in table order."""

    number: int
    name: str
    text: str | None
    calls: tuple[tuple[str, str], ...]

    def for_call(self, call: str | None) -> str | None:
        """What it means as the result of one call; None if that is not known."""
        return dict(self.calls).get(_ALIASES.get(call or "", call or ""))

    def meaning(self, call: str | None = None) -> Meaning:
        """Its meaning, of one ``call`` only if that call is known to give it."""
        own = self.for_call(call)
        said = f"{self.name} ({self.number})" + (f", {self.text}" if self.text else "")
        if call is not None and own is not None:
            return Meaning("errno", f"{said}: {own}", (("of", call),), SOURCE)
        return Meaning("errno", said, self.calls if call is None else (), SOURCE)


def errno_name(number: int) -> str:
    """``ENOMEM`` for 12, ``0`` for success; what is no errno stays a number."""
    return ERRNO_NAMES.get(number, str(number))


@cache
def errno(number: int) -> Errno | None:
    """The errno of a number, positive, negative or a u64 in two's complement; None for 0 and what is no errno."""
    if number >= 1 << 63:
        number -= 1 << 64
    number = abs(number)
    if number not in ERRNO_NAMES:
        return None
    calls = tuple((call, table[number]) for call, table in MEANINGS.items() if number in table)
    return Errno(number, ERRNO_NAMES[number], TEXTS.get(number), calls)


def errno_of(text: str) -> Errno | None:
    """Read ``EAGAIN``, ``-EAGAIN``, ``11``, ``-11``, ``0xfffffffffffffff5`` or ``Resource temporarily unavailable``."""
    word = text.strip()
    name = word.removeprefix("-").upper()
    if name in ERRNO_NUMBERS:
        return errno(ERRNO_NUMBERS[name])
    if word.lower() in _BY_TEXT:
        return errno(_BY_TEXT[word.lower()])
    number = number_of(word)
    return None if number is None else errno(number)
