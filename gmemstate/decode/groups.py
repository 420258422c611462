"""The groups of forms: how a word is read whose place in a line says what kind of word it is."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from gmemstate.decode import addresses, ept, errnos, hypercalls, kvm, snp, tdx, words
from gmemstate.decode.ioctls import Ioctl, ioctls, is_kvm
from gmemstate.decode.meaning import Explained, Meaning, number_of, said
from gmemstate.model.linux import PAGE_SHIFT, PAGE_SIZE
from gmemstate.model.units import size_in_words, span


class Piece(NamedTuple):
    """The text of a group, the other groups of the match, and the whole line."""

    text: str
    groups: Mapping[str, str | None]
    line: str

    def number(self, name: str) -> int | None:
        """Another group as a number, in decimal or with 0x."""
        return number_of(self.groups.get(name) or "")

    @property
    def status(self) -> tdx.TdxStatus | None:
        """The status that the same message prints."""
        word = self.number("status")
        return None if word is None else tdx.tdx_status(word)


Found = Meaning | tuple[Meaning, ...] | None
Reader = Callable[[Piece], Found]


def read_group(name: str, piece: Piece) -> tuple[Meaning, ...]:
    """What the text of a group means; empty for nothing, and for groups that only help to read others."""
    kind = name if name in _READERS or name in _HELPERS else name.rstrip("0123456789")
    found = None if kind in _HELPERS else _READERS[kind](piece)
    return found if isinstance(found, tuple) else () if found is None else (found,)


def _int(text: str, base: int = 0) -> int:
    """A number in the base of its form; base 0 is decimal or with 0x."""
    return int(text, base) if base else number_of(text) or 0


def _plain(read: Callable[[int], Meaning | None], base: int = 0) -> Reader:
    """A reader of a number that stands for itself."""
    return lambda piece: read(_int(piece.text, base))


def _typed(read: Callable[[int], Explained | None], base: int = 0) -> Reader:
    """A reader of a number by a function with a typed result."""
    return lambda piece: said(read(_int(piece.text, base)))


def _place(read: Callable[[int], Meaning], base: int = 0) -> Reader:
    """A reader of an address, without its place in huge pages."""

    def reader(piece: Piece) -> Found:
        meaning = read(_int(piece.text, base))
        return replace(meaning, details=tuple(row for row in meaning.details if row[0] == "shared bit"))

    return reader


# --- entries of tables ------------------------------------------------------------------------------------------------


def _entry(piece: Piece) -> Found:
    return ept.sept_entry(_int(piece.text), piece.number("levelstate") or 0, piece.status).meaning()


def _level_state(piece: Piece) -> Found:
    found = ept.sept_entry(piece.number("entry") or 0, _int(piece.text), piece.status)
    return found.where.meaning() if found.reported else None


def _spte(piece: Piece) -> Found:
    return ept.spte(int(piece.text, 16), piece.number("pglevel")).meaning()


def _guest_fault(piece: Piece) -> Found:
    """On AMD the error code of a nested page fault, which has bit 32 or 33; on Intel the qualification of an EPT violation."""
    word = int(piece.text, 16)
    error = snp.page_fault(word)
    return error if word >> 31 else (ept.ept_violation(word), error)


def _rmp_lo(piece: Piece) -> Found:
    return snp.rmp_entry(piece.number("rmphi") or 0, _int(piece.text)).meaning()


def _leaked(piece: Piece) -> Found:
    start, end = piece.number("pfn") or 0, _int(piece.text)
    text = f"pfns {span(start, end)}, {size_in_words(end - start)}"
    return Meaning("host pages", text, (), "Linux virt/svm/sev.c (snp_leak_pages)") if start < end else None


# --- what came of a call ----------------------------------------------------------------------------------------------

_CALLS = (
    (re.compile(r"\bfallocate\(").search, errnos.FALLOCATE),
    (re.compile(r"kvm run failed|registers: |run_ret").search, errnos.RUN),
    (re.compile(r"failed to set memory \(").search, errnos.SET_ATTRIBUTES),
    (re.compile(r"dma_map|DMA_MAP|MAP_DMA").search, errnos.DMA_MAP),
    (re.compile(r"kvm_set_user_memory").search, errnos.REGION2),
    (re.compile(r"CreateGuestMemfd").search, errnos.CREATE),
)
_IOCTL = re.compile(r"\bioctl\([^,]{1,120}, (cmd: )?(0x[0-9a-f]+|_IOC\([^)]{1,80}\)|\([^)]{1,40}\)|[A-Z][A-Z0-9_]+)").search
_KVM_NAME = re.compile(r"\bKVM_[A-Z0-9_]{3,60}").search
_GMEM_FILE = "kvm-gmem"
"""How the kernel calls the file of a guest_memfd, and strace -yy with it."""


def _call(line: str) -> str | None:
    """The call that an errno in a line is the result of."""
    for search, call in _CALLS:
        if search(line):
            return call
    if match := _IOCTL(line):
        found = _ioctls(match[2], line, by_number=bool(match[1]))
        return found[0].name if found else match[2]
    match = _KVM_NAME(line)
    return match[0] if match else None


def _error(number: int, call: str | None) -> Found:
    found = errnos.errno(number)
    return None if found is None else found.meaning(call)


def _errno_of(piece: Piece) -> Found:
    found = errnos.errno_of(piece.text)
    return None if found is None else found.meaning(_call(piece.line))


def _exit_number(piece: Piece) -> Found:
    """``reason error (14)`` and ``reason restart (4)`` are errnos of KVM_RUN, all else is an exit."""
    if piece.groups.get("exitname") in ("error", "restart"):
        return _error(int(piece.text), errnos.RUN)
    return said(kvm.exit_reason(int(piece.text)))


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
    start, end = int(piece.text), int(piece.text) + (piece.number("length") or 0)
    if (start | end) & (PAGE_SIZE - 1) or start == end:
        return Meaning("file range", "not whole pages: a guest_memfd refuses it (EINVAL)", (), "Linux virt/kvm/guest_memfd.c")
    first, last = start >> PAGE_SHIFT, end >> PAGE_SHIFT
    return Meaning("file range", f"page indices {span(first, last)}, {size_in_words(last - first)}", (), addresses.SOURCE)


def _psc_result(word: int) -> Meaning | None:
    text = snp.psc_result(word) if word else None
    return None if text is None else Meaning("page state change", text, (), snp.GHCB_SOURCE)


def _termination(piece: Piece) -> Found:
    reason_set, code = (int(part, 0) for part in piece.text.split(":"))
    return Meaning("SEV termination", snp.sev_termination(reason_set, code), (), snp.GHCB_SOURCE)


# --- what was asked ---------------------------------------------------------------------------------------------------


def _of_map_gpa_range(read: Callable[[int], Meaning]) -> Reader:
    """A reader of an argument that means something for KVM_HC_MAP_GPA_RANGE only."""
    return lambda piece: read(_int(piece.text)) if piece.number("hypercall") == hypercalls.MAP_GPA_RANGE else None


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


def _punch(number: int) -> Meaning | None:
    text = "2 is MF_DELAYED, what a guest_memfd answers to a memory failure; no failure of its own"
    return Meaning("memory failure", text, (), "Linux virt/kvm/guest_memfd.c") if number == 2 else None


def _register(piece: Piece) -> Found:
    """A status of the TDX module, or an errno behind a pointer; nothing else can be told from a register alone."""
    word = int(piece.text, 16)
    found = tdx.tdx_status(word)
    if word >> 62 and found.name and found.documented:
        return found.meaning()
    return _error(word, "a register") if word >> 63 else None


_HELPERS = ("rmphi", "exitname", "length")

GUESSED = ("register", "internal")
"""Groups whose text may be anything, so that a meaning is but a possibility."""

_READERS: dict[str, Reader] = {
    "status": _typed(tdx.tdx_status),
    "leaf": _typed(tdx.seamcall_leaf),
    "leafname": lambda piece: said(tdx.seamcall_leaf_of(piece.text)),
    "entry": _entry,
    "levelstate": _level_state,
    "rmplo": _rmp_lo,
    "rmpupdate": _typed(snp.rmpupdate),
    "psmash": _typed(snp.psmash),
    "pvalidate": _typed(snp.pvalidate),
    "rmperror": lambda piece: _error(int(piece.text), errnos.RMP),
    "termination": _termination,
    "svmexit": _plain(kvm.svm_exit),
    "svmexitbare": _plain(kvm.svm_exit, 16),
    "pscresult": _plain(_psc_result, 16),
    "ghcb": _typed(snp.ghcb_msr, 16),
    "pagefault": _plain(snp.page_fault, 16),
    "guestfault": _guest_fault,
    "recovery": _recovery,
    "punch": _plain(_punch),
    "gpa": _place(addresses.gpa, 16),
    "gpadec": _place(addresses.gpa),
    "gfn": _place(addresses.gfn, 16),
    "pfn": _plain(addresses.pfn, 16),
    "pfnend": _leaked,
    "pglevel": _plain(addresses.page_level),
    "size": _plain(addresses.size),
    "slotsize": _plain(_slot_size),
    "slotflags": _plain(kvm.slot_flags),
    "spte": _spte,
    "attributes": _typed(kvm.memory_attributes),
    "mapattributes": _typed(hypercalls.map_gpa_attributes),
    "faultflags": _plain(kvm.memory_fault_flags),
    "hypercall": _plain(hypercalls.hypercall),
    "hypercallgpa": _of_map_gpa_range(addresses.gpa),
    "hypercallpages": _of_map_gpa_range(_pages),
    "hypercallattributes": _of_map_gpa_range(lambda word: hypercalls.map_gpa_attributes(word).meaning()),
    "exit": _typed(kvm.exit_reason),
    "exitnumber": _exit_number,
    "hardware": lambda piece: kvm.hardware_exit_of(piece.text),
    "systemevent": _plain(kvm.system_event),
    "suberror": _plain(kvm.suberror),
    "internal": lambda piece: words.sure(piece.text),
    "ioctl": lambda piece: _ioctl(piece.text, piece.line),
    "ioctlbynumber": lambda piece: _ioctl(piece.text, piece.line, by_number=True),
    "ioctlbare": lambda piece: _ioctl(f"0x{piece.text}", piece.line),
    "fallocate": lambda piece: kvm.fallocate_mode(piece.text),
    "offset": _file_range,
    "errno": lambda piece: _error(int(piece.text), _call(piece.line)),
    "errname": _errno_of,
    "errtext": _errno_of,
    "direction": _direction,
    "register": _register,
}
"""Name of a group to its reader; digits at the end of a name only make it unique in its form."""
