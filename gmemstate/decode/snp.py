"""Words of AMD SEV-SNP: RMP entries, codes of RMP instructions, page state changes, terminations, page fault bits.

RMP entries: struct rmpentry_raw in arch/x86/virt/svm/sev.c (the format of Zen 3 and 4; not architectural). Codes: AMD APM
volume 3 and AMD's posting of the SNP host series (PSMASH, RMPUPDATE), arch/x86/include/asm/sev.h (3, 4, 6, 255). GHCB:
asm/sev-common.h.
"""

from dataclasses import dataclass

from gmemstate.decode.errnos import RMP, errno
from gmemstate.decode.meaning import Meaning, bits, listed

RMP_SOURCE = "Linux virt/svm/sev.c (struct rmpentry_raw; other CPU models may differ)"
CODE_SOURCE = "AMD APM volume 3, Linux asm/sev.h"
GHCB_SOURCE = "Linux asm/sev-common.h"

_CODES: dict[str, dict[int, tuple[str, str]]] = {
    "RMPUPDATE": {
        0: ("SUCCESS", "done"),
        1: ("FAIL_INPUT", "an operand is not valid"),
        2: ("FAIL_PERMISSION", "the page may not be changed so, e.g. firmware or the platform holds it"),
        3: ("FAIL_INUSE", "another processor is using the entry; transient"),
        4: ("FAIL_OVERLAP", "a 4K and a 2M entry overlap; the kernel tries until it succeeds"),
    },
    "PSMASH": {
        0: ("SUCCESS", "done"),
        1: ("FAIL_INPUT", "an operand is not valid"),
        2: ("FAIL_PERMISSION", "the entry may not be split"),
        3: ("FAIL_INUSE", "another processor is using the entry; transient, the kernel tries until it succeeds"),
        4: ("FAIL_BADADDR", "the address is refused"),
    },
    "PVALIDATE": {
        0: ("SUCCESS", "done"),
        1: ("FAIL_INPUT", "an operand is not valid"),
        6: ("FAIL_SIZEMISMATCH", "2M asked where the RMP has 4K entries; the guest validates page by page"),
        255: ("FAIL_NOUPDATE", "the page was in that state already; Linux makes this of the carry flag"),
    },
}


@dataclass(frozen=True, slots=True)
class RmpCode:
    """What an RMP instruction returned; ``name`` is None where no table has the code."""

    instruction: str
    code: int
    name: str | None
    means: str

    @property
    def transient(self) -> bool:
        """Whether trying again may help."""
        return self.name in ("FAIL_INUSE", "FAIL_OVERLAP")

    def meaning(self) -> Meaning:
        """The code in words."""
        said = f"{self.instruction} {self.code}" + (f" = {self.name}" if self.name else "")
        return Meaning("RMP instruction", f"{said}: {self.means}", (), CODE_SOURCE)


def _code(instruction: str, code: int) -> RmpCode:
    name, means = _CODES[instruction].get(code, (None, "not in the tables"))
    said = errno(code) if code < 0 else None
    if said is not None:
        return RmpCode(instruction, code, said.name, said.for_call(RMP) or "the kernel gave up before the instruction")
    return RmpCode(instruction, code, name, means)


def rmpupdate(code: int) -> RmpCode:
    """What RMPUPDATE returned (``ret:`` in the kernel log); negative for an errno of the kernel function."""
    return _code("RMPUPDATE", code)


def psmash(code: int) -> RmpCode:
    """What PSMASH returned, the split of a 2M entry; negative for an errno of the kernel function."""
    return _code("PSMASH", code)


def pvalidate(code: int) -> RmpCode:
    """What PVALIDATE returned to the guest."""
    return _code("PVALIDATE", code)


def rmp_code_of(name: str) -> Meaning | None:
    """The codes of a name such as ``FAIL_OVERLAP``: the instructions that return it."""
    wanted = name.upper()
    found = [(instruction, code, means) for instruction, table in _CODES.items() for code, (known, means) in table.items()
             if wanted in (known, f"{instruction}_{known}") and code]  # fmt: skip
    if not found:
        return None
    details = tuple((instruction, f"{code}: {means}") for instruction, code, means in found)
    return Meaning("RMP instruction", wanted, details, CODE_SOURCE)


@dataclass(frozen=True, slots=True)
class RmpEntry:
    """An entry of the reverse map table, from the two words that the kernel prints as ``[lo - hi]``.

    ``gpa`` is in bytes and means something only where the page is assigned; ``asid`` 0 with ``assigned`` is firmware or the
    platform;
    ``reserved`` are the bits of ``lo`` without a meaning, at their place.
    """

    hi: int
    lo: int
    assigned: bool
    huge: bool
    immutable: bool
    gpa: int
    asid: int
    vmsa: bool
    validated: bool
    reserved: int

    @property
    def owner(self) -> str:
        """Whose page it is."""
        if not self.assigned:
            return "the host's (unassigned)"
        if self.asid:
            return f"guest-owned, ASID {self.asid}"
        return "held by firmware or the platform (assigned, ASID 0)"

    def meaning(self) -> Meaning:
        """The entry in words."""
        flags = [name for name in ("assigned", "immutable", "validated", "vmsa") if getattr(self, name)]
        what = ", a VMSA (a vCPU's register page)" if self.vmsa else ""
        at = f", gpa {self.gpa:#x}" if self.assigned and self.asid else ""
        details = [
            ("flags", listed(flags)),
            ("size", "2M" if self.huge else "4K"),
            ("gpa", f"{self.gpa:#x}"),
            ("asid", str(self.asid)),
        ]
        if self.reserved:
            details.append(("reserved", f"{self.reserved:#x}"))
        return Meaning("RMP entry", f"{self.owner}{at}{what}", tuple(details), RMP_SOURCE)


_RESERVED = 0x8000_0000_0000_0FF8


def rmp_entry(hi: int, lo: int) -> RmpEntry:
    """Take an RMP entry apart; the kernel prints ``lo`` first."""
    return RmpEntry(
        hi, lo, bool(lo & 1), bool(lo & 2), bool(lo & 4), (lo >> 12 & (1 << 39) - 1) << 12, lo >> 51 & 0x3FF,
        bool(lo >> 61 & 1), bool(lo >> 62 & 1), lo & _RESERVED,
    )  # fmt: skip


_OPERATIONS = {1: "to private", 2: "to shared"}


@dataclass(frozen=True, slots=True)
class GhcbMsr:
    """A request or response of the GHCB MSR protocol: ``what``, with the gfn of a page state change."""

    word: int
    what: str
    gfn: int | None

    def meaning(self) -> Meaning:
        """The value in words."""
        return Meaning("GHCB MSR", self.what + (f", gfn {self.gfn:#x}" if self.gfn is not None else ""), (), GHCB_SOURCE)


_GHCB = {0x001: "SEV information", 0x002: "asks for SEV information", 0x004: "asks for CPUID", 0x005:
    "CPUID", 0x006: "asks to wait "
    "for reset", 0x007: "reset", 0x012: "asks to register a GHCB", 0x013: "GHCB registered", 0x080:
        "asks for hypervisor features",
    0x081: "hypervisor features", 0x100: "asks for termination"}  # fmt: skip


def ghcb_msr(word: int) -> GhcbMsr | None:
    """Read ``ghcb_gpa`` of kvm_vmgexit_msr_protocol_*; None where bits 11:0 are in no table (0 is the address of a GHCB)."""
    info = word & 0xFFF
    if info == 0x014:
        operation = _OPERATIONS.get(word >> 52 & 0xF, f"operation {word >> 52 & 0xF}")
        return GhcbMsr(word, f"page state change {operation}", word >> 12 & (1 << 40) - 1)
    if info == 0x015:
        return GhcbMsr(word, "page state change " + ("failed" if word >> 32 else "done"), None)
    if info == 0x100:
        return GhcbMsr(word, sev_termination(word >> 12 & 0xF, word >> 16 & 0xFF), None)
    return GhcbMsr(word, _GHCB[info], None) if info in _GHCB else None


_TERMINATIONS = {
    (0, 0): "a general request",
    (0, 1): "the GHCB protocol version is not supported",
    (0, 2): "SNP features are not supported",
    (1, 0): "Linux could not register its GHCB",
    (1, 1): "Linux failed at a page state change",
    (1, 2): "Linux failed at PVALIDATE: a page was not in the state that it should be in",
    (1, 3): "Linux does not run at VMPL 0",
}


def sev_termination(reason_set: int, code: int) -> str:
    """Why a guest asked to be ended, as ``SEV-ES guest requested termination: set:code`` prints it."""
    why = _TERMINATIONS.get((reason_set, code), "a reason of the guest's own, not in Linux' table")
    return f"the guest ended itself, set {reason_set:#x} code {code:#x}: {why}"


def psc_result(word: int) -> str | None:
    """SW_EXITINFO2 after a page state change (VMGEXIT 0x80000010); None where no table has it."""
    known = {
        0: "page state change done",
        1 << 32 | 1: "page state change refused: its header is not valid",
        1 << 32 | 2: "page state change refused: an entry is not valid; those before it stay changed",
        0x100 << 32: "page state change failed (generic error); entries before it stay changed",
    }
    return known.get(word)


_FAULT_BITS = {
    0: "present",
    1: "write",
    2: "user",
    3: "reserved bit",
    4: "fetch",
    31: "RMP violation",
    32: "final translation",
    33: "page walk",
    34: "encrypted (private access)",
    35: "size mismatch",
    36: "VMPL",
    49: "private access (KVM's own bit)",
}


def page_fault(word: int) -> Meaning:
    """The error code of a page fault (``#PF: error_code``, kvm_page_fault on AMD); on TDX it is an exit qualification."""
    names, rest = bits(word, _FAULT_BITS)
    text = listed(names) + (f", other bits {rest:#x}" if rest else "")
    return Meaning("page fault error code", text, (), "Linux asm/trap_pf.h, asm/kvm_host.h (PFERR_*)")
