"""Types of fields: how a field of a message is written, how a reader converts it, and how ``decode`` explains it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from gmemstate.decode import addresses, ept, errnos, hypercalls, kvm, snp, tdx, words
from gmemstate.decode.ioctls import Ioctl, ioctls, is_kvm
from gmemstate.decode.meaning import Explained, Meaning, said
from gmemstate.model.linux import LAST_PAGE, PAGE_SHIFT, PAGE_SIZE
from gmemstate.model.units import size_in_words, span

HEX = r"(?:0x)?+[0-9a-fA-F]{1,16}+(?![0-9a-zA-Z])"
DECIMAL = r"-?[0-9]{1,19}+(?![0-9])"
WORD = r"[^\s,;()]{1,200}"


class Piece(NamedTuple):
    """The text of a field, its number, the other fields of the message, the whole line, and the call that it is about."""

    text: str
    number: int
    numbers: Mapping[str, int]
    words: Mapping[str, str]
    line: str
    call: str | None

    @property
    def status(self) -> tdx.TdxStatus | None:
        """The status that the same message prints."""
        word = self.numbers.get("status")
        return None if word is None else tdx.tdx_status(word)


Found = Meaning | tuple[Meaning, ...] | None
Explain = Callable[[Piece], Found]


class FieldType(NamedTuple):
    """A regular expression, the base of the number (None: a text), what it means, and the end of its range."""

    pattern: str
    base: int | None = None
    explain: Explain | None = None
    certain: bool = True
    """False where the text may be anything, so that a meaning is but a possibility"""
    end: int | None = None


def explained(kind: FieldType, piece: Piece) -> tuple[Meaning, ...]:
    """What the text of a field means; empty for nothing, and for fields that only help to read others."""
    found = None if kind.explain is None else kind.explain(piece)
    return found if isinstance(found, tuple) else () if found is None else (found,)


def _plain(read: Callable[[int], Meaning | None]) -> Explain:
    return lambda piece: read(piece.number)


def _typed(read: Callable[[int], Explained | None]) -> Explain:
    return lambda piece: said(read(piece.number))


def _place(read: Callable[[int], Meaning]) -> Explain:
    """An address, without its place in huge pages."""

    def explain(piece: Piece) -> Found:
        meaning = read(piece.number)
        return replace(meaning, details=tuple((name, text) for name, text in meaning.details if name == "shared bit"))

    return explain


# --- entries of tables ------------------------------------------------------------------------------------------------


def _leaf(piece: Piece) -> tdx.SeamcallLeaf | None:
    name, number = piece.words.get("leaf_name"), piece.numbers.get("leaf")
    return tdx.seamcall_leaf_of(name) if name is not None else None if number is None else tdx.seamcall_leaf(number)


def _entry(piece: Piece) -> Found:
    return ept.sept_entry(piece.number, piece.numbers.get("level_state", 0), piece.status).meaning()


def _level_state(piece: Piece) -> Found:
    found = ept.sept_entry(piece.numbers.get("entry", 0), piece.number, piece.status)
    return found.where.meaning() if found.reported else None


def _of_memory_leaf(explain: Explain) -> Explain:
    """RCX and RDX of a failed leaf about memory: the entry of the secure EPT, its level and state (TDH.MEM.*)."""

    def read(piece: Piece) -> Found:
        leaf, rcx, rdx = _leaf(piece), piece.numbers.get("rcx"), piece.numbers.get("rdx")
        if leaf is None or rcx is None or rdx is None or not leaf.name.startswith("TDH.MEM."):
            return None
        return explain(piece._replace(numbers={**piece.numbers, "entry": rcx, "level_state": rdx}))

    return read


def _guest_fault(piece: Piece) -> Found:
    """On AMD the error code of a nested page fault, which has bit 32 or 33; on Intel the qualification of an EPT violation."""
    error = snp.page_fault(piece.number)
    return error if piece.number >> 31 else (ept.ept_violation(piece.number), error)


def _leaked(piece: Piece) -> Found:
    start, end = piece.numbers.get("pfn", 0), piece.number
    text = f"pfns {span(start, end)}, {size_in_words(end - start)}"
    return Meaning("host pages", text, (), "Linux virt/svm/sev.c (snp_leak_pages)") if start < end else None


# --- results of calls -------------------------------------------------------------------------------------------------

_IOCTL = re.compile(r"\bioctl\([^,]{1,120}, (cmd: )?(0x[0-9a-f]+|_IOC\([^)]{1,80}\)|\([^)]{1,40}\)|[A-Z][A-Z0-9_]+)").search
_KVM_NAME = re.compile(r"\bKVM_[A-Z0-9_]{3,60}").search
_GMEM_FILE = "kvm-gmem"
"""How the kernel calls the file of a guest_memfd, and strace -yy with it."""


def _call(piece: Piece) -> str | None:
    """The call that an errno is the result of."""
    if piece.call is not None:
        return piece.call
    if "fallocate(" in piece.line:
        return errnos.FALLOCATE
    if match := _IOCTL(piece.line):
        found = _ioctls(match[2], piece.line, by_number=bool(match[1]))
        return found[0].name if found else match[2]
    match = _KVM_NAME(piece.line)
    return match[0] if match else None


def _error(number: int, call: str | None) -> Found:
    found = errnos.errno(number)
    return None if found is None else found.meaning(call)


def _errno_of(piece: Piece) -> Found:
    found = errnos.errno_of(piece.text)
    return None if found is None else found.meaning(_call(piece))


def _exit_number(piece: Piece) -> Found:
    """``reason error (14)`` and ``restart (4)`` are errnos of KVM_RUN, all else is an exit (trace kvm_userspace_exit)."""
    if piece.words.get("exit_name") in ("error", "restart"):
        return _error(piece.number, errnos.RUN)
    return said(kvm.exit_reason(piece.number))


def _ioctls(text: str, line: str, *, by_number: bool) -> tuple[Ioctl, ...]:
    """The ioctls that a spelling may be: one if the tool looks at all of the number, as strace does and perf trace does not."""
    found = ioctls(text)
    if _GMEM_FILE in line and by_number:
        found = found[::-1]
    return found if by_number or " or " in text else found[:1]


def _ioctl(text: str, line: str, *, by_number: bool = False) -> Found:
    found = _ioctls(text, line, by_number=by_number)
    return tuple(replace(one.meaning(), details=()) for one in found if one.name or text[0] in "_(" or is_kvm(one))


def _file_range(piece: Piece) -> Found:
    start, end = piece.number, piece.number + piece.numbers.get("length", 0)
    if (start | end) & (PAGE_SIZE - 1) or start == end:
        return Meaning("file range", "not whole pages: a guest_memfd refuses it (EINVAL)", (), "Linux virt/kvm/guest_memfd.c")
    first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    return Meaning("file range", f"page indices {span(first, last)}, {size_in_words(last - first)}", (), addresses.SOURCE)


def _psc_result(word: int) -> Meaning | None:
    text = snp.psc_result(word) if word else None
    return None if text is None else Meaning("page state change", text, (), snp.GHCB_SOURCE)


def _termination(piece: Piece) -> Found:
    reason_set, code = (int(part, 16) for part in piece.text.split(":"))
    return Meaning("SEV termination", snp.sev_termination(reason_set, code), (), snp.GHCB_SOURCE)


# --- requests ---------------------------------------------------------------------------------------------------------


def _of_map_gpa_range(read: Callable[[int], Meaning]) -> Explain:
    """An argument that means something for KVM_HC_MAP_GPA_RANGE only."""
    return lambda piece: read(piece.number) if piece.numbers.get("hypercall") == hypercalls.MAP_GPA_RANGE else None


def _pages(number: int) -> Meaning:
    return Meaning("number of pages", size_in_words(number), (), hypercalls.SOURCE)


def _slot_size(number: int) -> Meaning:
    return addresses.size(number) if number else Meaning("size", "0: the slot is deleted", (), kvm.SOURCE)


def _direction(piece: Piece) -> Found:
    text = piece.text.replace("_", " ").lower()
    return Meaning("direction", text if " to " in text else f"to {text}", (), "")


# --- the rest ---------------------------------------------------------------------------------------------------------

_RECOVERY = {
    "Recovered": "the page is out of use",
    "Delayed": "the page is dealt with at its next use",
    "Failed": "somebody still uses the page; for a page of a guest_memfd this is usual, it stays poisoned in the file",
    "Ignored": "nothing was done",
}


def _recovery(piece: Piece) -> Found:
    means = _RECOVERY.get(piece.text)
    return None if means is None else Meaning("memory failure", f"{piece.text}: {means}", (), "Linux mm/memory-failure.c")


def _punched(number: int) -> Meaning | None:
    text = "2 is MF_DELAYED, what a guest_memfd answers to a memory failure; no failure of its own"
    return Meaning("memory failure", text, (), "Linux virt/kvm/guest_memfd.c") if number == 2 else None


def _register(piece: Piece) -> Found:
    """A status of the TDX module, or an errno in a pointer; nothing else can be said from a register alone."""
    found = tdx.tdx_status(piece.number)
    if piece.number >> 62 and found.name and found.documented:
        return found.meaning()
    return _error(piece.number, "a register") if piece.number >> 63 else None


_TEXTS = "|".join(re.escape(text) for text in sorted(errnos.TEXTS.values(), key=len, reverse=True))
_ERROR = rf"(?:{_TEXTS}|[A-Z][a-z]{{1,20}}(?: [a-z]{{1,20}}){{0,6}})"
"""What strerror() says; a register dump may follow it in the same line."""


def _hexadecimal(explain: Explain | None = None, *, end: int | None = None) -> FieldType:
    return FieldType(HEX, 16, explain, end=end)


def _decimal(explain: Explain | None = None) -> FieldType:
    return FieldType(DECIMAL, 10, explain)


_gpa, _size, _fault_flags = _place(addresses.gpa), _plain(addresses.size), _plain(kvm.memory_fault_flags)

TYPES: dict[str, FieldType] = {
    "h": _hexadecimal(),
    "d": _decimal(),
    "w": FieldType(WORD),
    "text": FieldType(".{1,200}"),
    "function": FieldType(r"[A-Za-z_][\w.]{0,127}"),
    "site": FieldType(r"\S{1,200}:\d{1,7}"),
    # TDX
    "status": _hexadecimal(_typed(tdx.tdx_status)),
    "leaf": _hexadecimal(_typed(tdx.seamcall_leaf)),
    "leaf_decimal": _decimal(_typed(tdx.seamcall_leaf)),
    "leaf_name": FieldType(r"TDH[_.][A-Z0-9_.]{1,60}", explain=lambda piece: said(tdx.seamcall_leaf_of(piece.text))),
    "entry": _hexadecimal(_entry),
    "level_state": _hexadecimal(_level_state),
    "rcx": _hexadecimal(_of_memory_leaf(_entry)),
    "rdx": _hexadecimal(_of_memory_leaf(_level_state)),
    # SNP
    "rmpupdate": _decimal(_typed(snp.rmpupdate)),
    "psmash": _decimal(_typed(snp.psmash)),
    "pvalidate": _decimal(_typed(snp.pvalidate)),
    "rmp_lo": _hexadecimal(lambda piece: snp.rmp_entry(piece.numbers["hi"], piece.number).meaning()),
    "rmp_error": _decimal(lambda piece: _error(piece.number, errnos.RMP)),
    "termination": FieldType(r"(?:0x)?[0-9a-f]{1,8}:(?:0x)?[0-9a-f]{1,8}\b", explain=_termination),
    "svm_exit": _hexadecimal(_plain(kvm.svm_exit)),
    "psc_result": _hexadecimal(_plain(_psc_result)),
    "ghcb": _hexadecimal(_typed(snp.ghcb_msr)),
    "page_fault": _hexadecimal(_plain(snp.page_fault)),
    "guest_fault": _hexadecimal(_guest_fault),
    # memory
    "recovery": FieldType(r"\w{1,20}", explain=_recovery),
    "punched": _decimal(_plain(_punched)),
    "gpa": _hexadecimal(_gpa),
    "gpa_decimal": _decimal(_gpa),
    "gfn": _hexadecimal(_place(addresses.gfn), end=LAST_PAGE),
    "pfn": _hexadecimal(_plain(addresses.pfn), end=LAST_PAGE),
    "page": _hexadecimal(end=LAST_PAGE),
    "pfn_end": _hexadecimal(_leaked, end=LAST_PAGE),
    "page_level": _decimal(_plain(addresses.page_level)),
    "size": _hexadecimal(_size),
    "size_decimal": _decimal(_size),
    "slot_size": _hexadecimal(_plain(_slot_size)),
    "slot_flags": _hexadecimal(_plain(kvm.slot_flags)),
    "spte": _hexadecimal(lambda piece: ept.spte(piece.number, piece.numbers.get("level")).meaning()),
    "attributes": _hexadecimal(_typed(kvm.memory_attributes)),
    "map_attributes": _hexadecimal(_typed(hypercalls.map_gpa_attributes)),
    "fault_flags": _hexadecimal(_fault_flags),
    "fault_flags_decimal": _decimal(_fault_flags),
    # calls and exits
    "hypercall": _hexadecimal(_plain(hypercalls.hypercall)),
    "hypercall_gpa": _hexadecimal(_of_map_gpa_range(addresses.gpa)),
    "hypercall_pages": _hexadecimal(_of_map_gpa_range(_pages)),
    "hypercall_attributes": _hexadecimal(_of_map_gpa_range(lambda word: hypercalls.map_gpa_attributes(word).meaning())),
    "exit": _decimal(_typed(kvm.exit_reason)),
    "exit_number": _decimal(_exit_number),
    "hardware_exit": FieldType(r"\w+", explain=lambda piece: kvm.hardware_exit_of(piece.text)),
    "system_event": _decimal(_plain(kvm.system_event)),
    "suberror": _decimal(_plain(kvm.suberror)),
    "internal": FieldType(HEX, 16, lambda piece: words.sure(piece.text), certain=False),
    "ioctl": FieldType(
        r"0x[0-9a-f]{1,8}|_IOC\([^)]{1,80}\)|[A-Z][A-Z0-9_]+(?: or [A-Z0-9_]+)*",
        explain=lambda piece: _ioctl(piece.text, piece.line),
    ),
    "ioctl_by_number": FieldType(
        r"\(0x[0-9a-f]+, 0x[0-9a-f]+, 0x[0-9a-f]+\)|[A-Z][A-Z0-9_]+",
        explain=lambda piece: _ioctl(piece.text, piece.line, by_number=True),
    ),
    "ioctl_bare": _hexadecimal(lambda piece: _ioctl(f"0x{piece.number:x}", piece.line)),
    "fallocate": FieldType(r"0x[0-9a-f]{1,8}|[A-Z_|]+", explain=lambda piece: kvm.fallocate_mode(piece.text)),
    "file_offset": _decimal(_file_range),
    "errno": _decimal(lambda piece: _error(piece.number, _call(piece))),
    "error_name": FieldType(r"E[A-Z0-9]+", explain=_errno_of),
    "error": FieldType(_ERROR, explain=_errno_of),
    "error_text": FieldType(_TEXTS, explain=_errno_of),
    "to": FieldType(r"\w{1,20}", explain=_direction),
    "register": FieldType(r"(?:0x)?[0-9a-f]{8,16}", 16, _register, certain=False),
}
"""The types, by the name that the catalogue calls them. Numbers of kernels' logs are hexadecimal with or without 0x."""
