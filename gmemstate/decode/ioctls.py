"""Numbers of ioctls in every spelling: hexadecimal, ``_IOC(...)`` of strace, ``(type, nr, dir)`` of perf trace, names.

Numbers: include/uapi/linux/kvm.h; KVM_GMEM_CONVERT_*: RFC v2 of May 2025; KVM_SET_MEMORY_ATTRIBUTES2: the in-place conversion
series of September 2026; vhost names: include/uapi/linux/vhost.h. The layout of a number is that of asm-generic/ioctl.h.
"""

import re
from dataclasses import dataclass, replace

from gmemstate.decode.meaning import Meaning, number_of

SOURCE = "Linux uapi/linux/kvm.h, asm-generic/ioctl.h"

_KVM, _GMEM = 0xAE, 0xAF
_DIRECTIONS = {0: "none", 1: "write", 2: "read", 3: "read|write"}

_NUMBERS = {
    "KVM_GET_API_VERSION": (0xAE00, "/dev/kvm", ""),
    "KVM_CREATE_VM": (0xAE01, "/dev/kvm", ""),
    "KVM_CHECK_EXTENSION": (0xAE03, "/dev/kvm or VM", ""),
    "KVM_GET_VCPU_MMAP_SIZE": (0xAE04, "/dev/kvm", ""),
    "KVM_GET_SUPPORTED_CPUID": (0xC008AE05, "/dev/kvm", ""),
    "KVM_CREATE_VCPU": (0xAE41, "VM", ""),
    "KVM_GET_DIRTY_LOG": (0x4010AE42, "VM", ""),
    "KVM_SET_USER_MEMORY_REGION": (0x4020AE46, "VM", "makes, changes or (size 0) deletes a memslot"),
    "KVM_SET_USER_MEMORY_REGION2": (0x40A0AE49, "VM", "makes, changes or (size 0) deletes a memslot, with a guest_memfd"),
    "KVM_CREATE_IRQCHIP": (0xAE60, "VM", ""),
    "KVM_RUN": (0xAE80, "vCPU", "runs the vCPU until it exits; EFAULT may be a memory fault exit"),
    "KVM_GET_REGS": (0x8090AE81, "vCPU", ""),
    "KVM_SET_REGS": (0x4090AE82, "vCPU", ""),
    "KVM_GET_SREGS": (0x8138AE83, "vCPU", ""),
    "KVM_SET_SREGS": (0x4138AE84, "vCPU", ""),
    "KVM_SET_CPUID2": (0x4008AE90, "vCPU", ""),
    "KVM_GET_TSC_KHZ": (0xAEA3, "VM or vCPU", ""),
    "KVM_ENABLE_CAP": (0x4068AEA3, "VM or vCPU", ""),
    "KVM_MEMORY_ENCRYPT_OP": (0xC008AEBA, "VM or vCPU", "commands of SEV and TDX, e.g. the initial memory"),
    "KVM_MEMORY_ENCRYPT_REG_REGION": (0x8010AEBB, "VM", ""),
    "KVM_MEMORY_ENCRYPT_UNREG_REGION": (0x8010AEBC, "VM", ""),
    "KVM_CLEAR_DIRTY_LOG": (0xC018AEC0, "VM", ""),
    "KVM_GET_STATS_FD": (0xAECE, "VM or vCPU", ""),
    "KVM_SET_MEMORY_ATTRIBUTES": (0x4020AED2, "VM", "makes a range of gpas private or shared"),
    "KVM_SET_MEMORY_ATTRIBUTES2": (0xC080AED2, "guest_memfd", "makes a range of a guest_memfd private or shared, in place"),
    "KVM_CREATE_GUEST_MEMFD": (0xC040AED4, "VM", "makes a guest_memfd; the result is its file descriptor"),
    "KVM_PRE_FAULT_MEMORY": (0xC040AED5, "vCPU", "maps a range before the guest accesses it"),
    "KVM_GMEM_CONVERT_SHARED": (0xC040AF41, "guest_memfd", "makes a range shared (RFC v2, never merged)"),
    "KVM_GMEM_CONVERT_PRIVATE": (0xC040AF42, "guest_memfd", "makes a range private (RFC v2, never merged)"),
    "VHOST_SCSI_CLEAR_ENDPOINT": (0x40E8AF41, "vhost", ""),
    "VHOST_SCSI_GET_ABI_VERSION": (0x4004AF42, "vhost", ""),
}
_BY_NUMBER = {number: name for name, (number, _, _) in _NUMBERS.items()}

_BY_NR = {
    "KVM_SET_MEMORY_ATTRIBUTES": "KVM_SET_MEMORY_ATTRIBUTES2",
    "VHOST_SCSI_CLEAR_ENDPOINT": "KVM_GMEM_CONVERT_SHARED",
    "VHOST_SCSI_GET_ABI_VERSION": "KVM_GMEM_CONVERT_PRIVATE",
}
"""A tool that names an ioctl by type and number alone, as perf trace does, gives another ioctl's name to these on a
guest_memfd."""


@dataclass(frozen=True, slots=True)
class Ioctl:
    """An ioctl: its number taken apart, and its name where a table has it.

    ``number`` and ``size`` are None where the spelling does not tell the size of the argument. ``misnamed`` is the name of
    another ioctl under which a tool may have printed this one.
    """

    number: int | None
    type: int
    nr: int
    direction: int
    size: int | None
    name: str | None
    on: str | None
    does: str
    misnamed: str | None = None

    def spelled(self) -> str:
        """The spelling of strace for an ioctl that it does not know."""
        flags = "|".join(name for bit, name in ((2, "_IOC_READ"), (1, "_IOC_WRITE")) if self.direction & bit) or "_IOC_NONE"
        return f"_IOC({flags}, {self.type:#x}, {self.nr:#x}, {self.size or 0:#x})"

    def meaning(self) -> Meaning:
        """The ioctl in words."""
        name = self.name or f"an ioctl of {'KVM' if self.type == _KVM else f'type {self.type:#x}'} that is not in the tables"
        text = name + (f": {self.does}" if self.does else "")
        if self.misnamed:
            text = f"{text}; if the file is a guest_memfd and the tool names ioctls by type and number alone"
        details = [("on", self.on)] if self.on else []
        if self.number is not None:
            details.append(("number", f"{self.number:#x}"))
            details.append(("spelled", self.spelled()))
        else:
            details.append(("number", f"type {self.type:#x}, nr {self.nr:#x}, direction {_DIRECTIONS[self.direction]}"))
        return Meaning("ioctl", text, tuple(details), SOURCE)


def ioctl_number(direction: int, type_: int, nr: int, size: int) -> int:
    """_IOC(): the number of an ioctl; ``direction`` 1 is write, 2 read, ``size`` that of the argument in bytes."""
    return direction << 30 | size << 16 | type_ << 8 | nr


def _from_number(number: int) -> Ioctl:
    name = _BY_NUMBER.get(number)
    _, on, does = _NUMBERS[name] if name else (0, None, "")
    return Ioctl(number, number >> 8 & 0xFF, number & 0xFF, number >> 30, number >> 16 & 0x3FFF, name, on, does)


_IOC = re.compile(r"_IOC\(([A-Z_|0-9]+), *(0x[0-9a-fA-F]+|\d+), *(0x[0-9a-fA-F]+|\d+), *(0x[0-9a-fA-F]+|\d+)\)").fullmatch
_PERF = re.compile(r"\((0x[0-9a-fA-F]+), (0x[0-9a-fA-F]+), (0x[0-9a-fA-F]+|0)\)").fullmatch
_FLAGS = {"_IOC_NONE": 0, "_IOC_WRITE": 1, "_IOC_READ": 2}


def _from_ioc(flags: str, type_: int, nr: int, size: int) -> Ioctl | None:
    parts = flags.split("|")
    direction = int(flags) if flags.isdigit() else sum(_FLAGS[part] for part in parts) if set(parts) <= set(_FLAGS) else -1
    if not (0 <= direction <= 3 and type_ <= 0xFF and nr <= 0xFF and size <= 0x3FFF):
        return None
    return _from_number(ioctl_number(direction, type_, nr, size))


def _from_perf(type_: int, nr: int, direction: int) -> Ioctl | None:
    if type_ > 0xFF or nr > 0xFF or direction > 3:
        return None
    for known in _BY_NUMBER:
        if known & 0xFFFF == type_ << 8 | nr and known >> 30 == direction:
            return _from_number(known)
    return Ioctl(None, type_, nr, direction, None, None, None, "")


def ioctls(text: str | int) -> tuple[Ioctl, ...]:
    """All ioctls that a spelling may be, the likeliest first: a name that tools give by number alone may be two."""
    if isinstance(text, int):
        return (_from_number(text),) if 0 <= text < 1 << 32 else ()
    word = text.strip()
    if match := _IOC(word):
        found = _from_ioc(match[1], *(number_of(part) or 0 for part in match.groups()[1:]))
        return (found,) if found else ()
    if match := _PERF(word):
        found = _from_perf(*(number_of(part) or 0 for part in match.groups()))
        return (found,) if found else ()
    if word in _NUMBERS:
        named = _from_number(_NUMBERS[word][0])
        if word not in _BY_NR:
            return (named,)
        return named, replace(_from_number(_NUMBERS[_BY_NR[word]][0]), misnamed=word)
    if " or " in word:
        return tuple(one for part in word.split(" or ") for one in ioctls(part))
    number = number_of(word)
    return () if number is None else ioctls(number)


def ioctl(text: str | int) -> Ioctl | None:
    """The likeliest ioctl of a number or of any spelling; None for what is no spelling of an ioctl."""
    return next(iter(ioctls(text)), None)


def is_kvm(found: Ioctl) -> bool:
    """Whether the type byte is that of KVM or of guest_memfd, so that a bare number may be taken for an ioctl."""
    return found.type in (_KVM, _GMEM)
