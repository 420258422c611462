"""One word on its own: everything that it may mean, the most plausible first.

A number has no kind. What decides is how it is written (hexadecimal, signed, 64 bits wide) and whether a table has it; where
several tables have it, all are given.
"""

import re
from collections.abc import Callable, Iterator
from enum import IntEnum

from gmemstate.decode import addresses, ept, errnos, hypercalls, kvm, snp, tdx
from gmemstate.decode.ioctls import ioctls, is_kvm
from gmemstate.decode.meaning import Meaning, number_of, said


class Rank(IntEnum):
    """How plausible a reading is."""

    SURE = 0
    """nothing else is written like this"""
    LIKELY = 1
    POSSIBLE = 2
    FAR_FETCHED = 3


Ranked = tuple[Rank, Meaning]

_HEX = re.compile(r"-?0[xX]").match
_BARE_HEX = re.compile(r"(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]+|[0-9a-fA-F]{16}").fullmatch
_U64 = 1 << 64


def ranked(word: str) -> tuple[Ranked, ...]:
    """Everything that a word may mean, the most plausible first, with how plausible it is; empty where nothing is known."""
    best: dict[Meaning, Rank] = {}
    for rank, meaning in sorted(_read(word.strip()), key=lambda one: one[0]):
        best.setdefault(meaning, rank)
    return tuple((rank, meaning) for meaning, rank in best.items())


def meanings(word: str) -> tuple[Meaning, ...]:
    """Everything that a word may mean, the most plausible first; empty where nothing is known."""
    return tuple(meaning for _, meaning in ranked(word))


def sure(word: str) -> tuple[Meaning, ...]:
    """What a word means wherever it stands; empty where its surroundings have to tell."""
    return tuple(meaning for rank, meaning in ranked(word) if rank is Rank.SURE)


def word_number(word: str) -> int | None:
    """The number that a word is, also in hexadecimal digits without 0x; None for a name.

    16 digits are those of a register, even if no letter is among them.
    """
    return int(word, 16) if _BARE_HEX(word) else number_of(word)


def _read(word: str) -> Iterator[Ranked]:
    place = addresses.address_of(word)
    if place is not None:
        yield Rank.SURE, place
        return
    named = list(_names(word))
    yield from named
    number = word_number(word)
    if named or number is None or not -_U64 < number < _U64:
        return
    if number < 0:
        yield from _negative(number)
    elif _BARE_HEX(word) and len(word) < 16:
        yield from _wide(number)
    else:
        yield from _wide(number)
        yield from _small(number, hexadecimal=bool(_HEX(word)))


# --- names ------------------------------------------------------------------------------------------------------------

_NAMED: tuple[Callable[[str], Meaning | None], ...] = (
    lambda word: said(tdx.tdx_status_of(word)),
    lambda word: said(tdx.seamcall_leaf_of(word)),
    lambda word: said(kvm.exit_reason_of(word)),
    hypercalls.hypercall_of,
    hypercalls.tdvmcall_of,
    hypercalls.tdvmcall_status_of,
    kvm.hardware_exit_of,
    snp.rmp_code_of,
)
_PREFIXED = re.compile(r"(?:TDX|TDH|KVM|VHOST|TDVMCALL|EXIT_REASON|SVM|FAIL|_IOC)[_.(]|MapGPA$", re.IGNORECASE).match


def _names(word: str) -> Iterator[Ranked]:
    if word_number(word) is not None:
        return
    for index, found in enumerate(ioctls(word)):
        yield Rank.LIKELY if index else Rank.SURE, found.meaning()
    error = errnos.errno_of(word)
    if error is not None:
        yield Rank.SURE, error.meaning()
    # Without its prefix a name may be a common word: BUSY, IO, HLT.
    rank = Rank.SURE if _PREFIXED(word) else Rank.POSSIBLE
    for read in _NAMED:
        meaning = read(word)
        if meaning is not None:
            yield rank, meaning


# --- numbers ----------------------------------------------------------------------------------------------------------


def _negative(number: int) -> Iterator[Ranked]:
    error = errnos.errno(number)
    if error is not None:
        yield Rank.SURE, error.meaning()
    elif number == -1000:
        yield Rank.SURE, hypercalls.hypercall_result(number).meaning()


def _wide(number: int) -> Iterator[Ranked]:
    """What more than a few bits make recognisable."""
    error = errnos.errno(number) if number >= 1 << 63 else None
    if error is not None:
        # The end of the address space is a place as well: a pointer may be an errno, and an address may be near one.
        yield Rank.LIKELY, error.meaning()
        return
    status = tdx.tdx_status(number)
    if number >> 61 and status.name and status.documented:
        yield Rank.SURE, status.meaning()
    elif number >> 32 and status.name and status.documented and (not status.low or status.operand):
        # Without a flag it may as well be an address.
        yield Rank.POSSIBLE, status.meaning()
    elif number >> 62 and status.class_name and not number >> 48 & 0xFFF and status.code & 0xFFFF << 32:
        yield Rank.POSSIBLE, status.meaning()
    for one in ioctls(number):
        if is_kvm(one) and number > 0xFFF:
            yield (Rank.POSSIBLE if one.name is None else Rank.SURE if number >> 16 else Rank.LIKELY), one.meaning()
    answer = hypercalls.tdvmcall_status(number) if number >> 63 else None
    if answer is not None:
        yield Rank.LIKELY, answer
    for read, least in ((kvm.svm_exit, 0x400), (hypercalls.tdvmcall, 0x10000)):
        meaning = read(number) if number >= least else None
        if meaning is not None:
            yield Rank.LIKELY, meaning
    if number & ~0x1F == 0x8000_0000:
        yield Rank.LIKELY, snp.page_fault(number)
    yield from _entries(number)


_LEVEL_STATES = {state << 8 | level for state in range(1, ept.PRESENT + 1) for level in range(3)}


def _entries(number: int) -> Iterator[Ranked]:
    """Entries of page tables and of the RMP."""
    entry = ept.spte(number)
    if entry.state == "frozen" or number == 1 << 63:
        yield Rank.LIKELY, entry.meaning()
    elif entry.state == "present" and entry.pfn and number & 7 and number & 0x3F8 and number > 0xFFFF_FFFF:
        yield Rank.POSSIBLE, entry.meaning()
    if number & 0x7F == 0x77 and number >> 12 and not number >> 52 & 0x7FF:
        # Readable, writable, executable, write-back: what the module reports of a page that the guest has.
        yield Rank.POSSIBLE, ept.sept_entry(number, ept.PRESENT << 8).meaning()
    if number in _LEVEL_STATES:
        yield Rank.POSSIBLE, ept.level_state(number).meaning()
    rmp = snp.rmp_entry(0, number)
    firmware = rmp.immutable and not rmp.asid and not rmp.gpa and number >> 63
    if rmp.assigned and (firmware or (number >> 32 and not rmp.reserved)):
        yield Rank.POSSIBLE, rmp.meaning()
    psc = snp.ghcb_msr(number) if number & 0xFFF in (0x014, 0x015) and number >> 32 else None
    if psc is not None:
        yield Rank.POSSIBLE, psc.meaning()


_MEMORY_LEAVES = (2, 3, 6, 7, 28, 29, 38, 41)
_CONVERSION_EXITS = (3, 17, 24, 39, 40)


def _small(number: int, *, hexadecimal: bool) -> Iterator[Ranked]:
    """What a number of a few bits may be: nearly everything, so each only as far as its table goes."""
    if number == 0:
        yield Rank.LIKELY, tdx.tdx_status(0).meaning()
    if number in (0, 8):
        yield Rank.LIKELY, kvm.memory_attributes(number).meaning()
    if number == 8:
        yield Rank.LIKELY, kvm.memory_fault_flags(number)
    if number in (0x10, 0x11, 0x12):
        yield (Rank.LIKELY if hexadecimal else Rank.FAR_FETCHED), hypercalls.map_gpa_attributes(number).meaning()
    error = errnos.errno(number)
    if error is not None:
        yield (Rank.LIKELY if error.calls and not hexadecimal else Rank.FAR_FETCHED), error.meaning()
    exit_ = kvm.exit_reason(number)
    if exit_ is not None:
        yield (Rank.LIKELY if number in _CONVERSION_EXITS else Rank.FAR_FETCHED), exit_.meaning()
    leaf = tdx.seamcall_leaf(number)
    if leaf is not None:
        yield (Rank.POSSIBLE if number in _MEMORY_LEAVES else Rank.FAR_FETCHED), leaf.meaning()
    call = hypercalls.hypercall(number)
    if call is not None:
        yield (Rank.LIKELY if number == hypercalls.MAP_GPA_RANGE else Rank.FAR_FETCHED), call
    yield from _small_of_hardware(number)


def _small_of_hardware(number: int) -> Iterator[Ranked]:
    """What AMD's instructions return, and hardware exits of Intel."""
    if 1 <= number <= 4:
        yield Rank.POSSIBLE, snp.rmpupdate(number).meaning()
        yield Rank.FAR_FETCHED, snp.psmash(number).meaning()
    if number == 6:
        yield Rank.FAR_FETCHED, snp.pvalidate(number).meaning()
    for read in (kvm.vmx_exit, kvm.system_event):
        meaning = read(number)
        if meaning is not None:
            yield (Rank.POSSIBLE if number == 77 else Rank.FAR_FETCHED), meaning
