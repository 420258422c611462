"""Public reports that the program did not know when it was written: the five answers to each, as the index has them.

An answer is right, or says honestly that it is not known; a statement that the log does not carry is neither.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.adversary.program import Answers

KERNEL, PLATFORM, VMM, GUEST, MEMORY, UNKNOWN, NOBODY = (
    "kernel or module",
    "host platform",
    "VMM",
    "guest",
    "memory shortage",
    "unknown",
    "nobody",
)
OPEN, NO, CLOSED, NOT_HERE = "not known", "no", frozenset(("not known", "no")), "not this platform"
NOT_KNOWN = dict.fromkeys(("plain", "tdx", "snp"), frozenset((OPEN,)))
"""No line speaks for the host, none against it."""
TAINTED = dict.fromkeys(("plain", "tdx", "snp"), CLOSED)
"""Until a reboot nobody can say what is well."""
AMD = frozenset((OPEN, NO, NOT_HERE))
"""TDX on a host of the other make."""
NO_TDX = {"plain": frozenset((OPEN,)), "tdx": frozenset((NO,)), "snp": AMD}
NO_SNP = {"plain": frozenset((OPEN,)), "tdx": AMD, "snp": frozenset((NO,))}

ALWAYS = (
    r"unrelated",
    r"nothing to do with",
    r"do not look for the cause",
    r"nothing is wrong with the host",
    r"no conversion failed",
    r"host not affected",
)
"""Claims of innocence, which none of these logs proves."""
RMP = (r"rmpupdate (failed|was refused|refused)", r"taken back", r"still the guest's", r"takes an rmp fault", r"pfn not known")
BUG_ON = (r"kvm_bug_on",)
PINS = (r"pins the pages", r"waits, and prints", r"somebody holds a page")


@dataclass(frozen=True)
class FieldCase:
    """The right answers: who may be blamed, what must be said of the failure and of the way out, and what must not be said."""

    blame: tuple[str, ...]
    failed: tuple[str, ...] = ()
    host: Mapping[str, frozenset[str]] = field(default_factory=lambda: NOT_KNOWN)
    do: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    silent: bool = False
    """nothing failed: there may be no incident"""
    one: bool = True
    """one failure, which is one incident"""


FIX = r"(update|fix|newer|mend|report)[^.;]*kernel|kernel[^.;]*(update|fix|newer|mend|report)"
CASES: dict[tuple[str, ...], FieldCase] = {
    ("01-syzbot-gmem-release-uaf",): FieldCase(
        (KERNEL,),
        ("use.after.free", "kvm_gmem_release", "writ"),
        TAINTED,
        ("reboot", FIX),
        (*BUG_ON, "print_address_description"),
    ),
    ("02-snp-teardown-scheduling-while-atomic",): FieldCase((KERNEL,), ("scheduling while atomic",), do=(FIX,), never=RMP),
    ("03-tdx-populate-lockdep",): FieldCase(
        (KERNEL,),
        ("lock order|order of locks|circular|deadlock|lockdep", "mmap_lock", "invalidate_lock", "possible|may |could "),
        do=(FIX,),
        never=(*BUG_ON, "(warned|failed|reports?) in __lock_acquire"),
    ),
    ("04-guest-early-vc-0x404",): FieldCase((GUEST,), ("0x404", "not.{0,9}validated", "guest")),
    ("05-snp-enable-wrmsr-gp",): FieldCase((KERNEL, PLATFORM), ("0xc0010010|snpen|syscfg", "snp"), NO_SNP),
    ("06-snp-ghcb-version-1.dmesg",): FieldCase((VMM, UNKNOWN), ("0x0:0x2|set 0x0", "snp.{0,30}not supported|ghcb")),
    ("06-snp-ghcb-version-1.qemu",): FieldCase((UNKNOWN, GUEST), ("24",)),
    ("06-snp-ghcb-version-1.dmesg", "06-snp-ghcb-version-1.qemu"): FieldCase(
        (VMM, UNKNOWN), ("0x0:0x2|set 0x0", "snp.{0,30}not supported|ghcb"), never=("missing its reason",)
    ),
    ("07-snp-cpuid-rejected",): FieldCase(
        (VMM,), ("cpuid", "0x8000001e", "ecx"), never=("not launched twice", "which page:", "names no page")
    ),
    ("08-td-unaccepted-bitmap-overread",): FieldCase(
        (GUEST,), ("accept_memory|unaccepted", "page fault|oops|read"), never=("the host the kernel",)
    ),
    ("09-guest-accept-soft-lockup",): FieldCase((GUEST, UNKNOWN), ("soft lockup", "accept_memory"), never=PINS, one=False),
    ("11-tdx-module-1.0-metadata",): FieldCase((PLATFORM,), ("tdx module", "tdh.sys.rd|metadata"), NO_TDX, ("module|bios",)),
    ("11b-tdx-module-metadata-83",): FieldCase((PLATFORM,), ("tdx module", "tdh.sys.rd|metadata"), NO_TDX, ("module|bios",)),
    ("12-esxi-mng-init-cpuid",): FieldCase((UNKNOWN,), ("tdh.mng.init", "operand_invalid")),
    ("13-tdx-dirty-logging-null",): FieldCase(
        (KERNEL,), ("null pointer", "vmx_update_cpu_dirty_logging"), TAINTED, ("reboot", FIX)
    ),
    ("15-snp-rmp-not-reserved",): FieldCase((PLATFORM,), ("rmp table", "bios|reserved"), NO_SNP, ("bios",)),
    ("18-kata-hugepages-enomem",): FieldCase((MEMORY,), ("backing|huge ?page", "enomem|memory"), do=("huge ?page|memory",)),
    ("19-td-virtio-version-1",): FieldCase((GUEST, VMM, UNKNOWN, NOBODY), ("virtio|not known",)),
    ("20-openhcl-shared-pool",): FieldCase(
        (UNKNOWN, VMM, PLATFORM), ("shared", "hypervisor|hypercall", "refused|invalid|denied")
    ),
    ("21-svsm-vmgexit-error",): FieldCase((UNKNOWN,), ("vmgexit|not known|no failure is on record",)),
    ("23-tdx-init-vm-einval",): FieldCase((UNKNOWN,), ("kvm_tdx_init_vm", "einval"), do=("cpuid|dmesg",)),
    ("24-gmem-punch-mmu-invalidate-warn",): FieldCase((KERNEL,), ("kvm_mmu_unmap_gfn_range", "fallocate"), do=(FIX,)),
    ("25-gmem-punch-sleep-in-atomic",): FieldCase(
        (KERNEL,), ("sleep", "kvm_gmem_fallocate|kvm_gmem_invalidate_begin_and_zap"), do=(FIX,)
    ),
    ("29-vfio-listener-efault",): FieldCase(
        (UNKNOWN,), ("0x100000000", "16252928 pages|0xf80000000", "efault"), never=("(?<!has )private", "already shared")
    ),
    ("31-qemu-vm-type-tdx",): FieldCase(
        (UNKNOWN, PLATFORM, VMM, KERNEL), ("tdx", "kernel|kvm", "support"), do=("kernel|module",)
    ),
    ("32-tdx-reserved-areas-exhausted",): FieldCase((PLATFORM,), ("reserved areas", "tdmr"), NO_TDX, ("bios|kernel",)),
    ("33-qemu-no-restricted-memory",): FieldCase(
        (UNKNOWN, PLATFORM, VMM, KERNEL), ("kernel", "guest_memfd|restricted", "support|no ")
    ),
    ("40-qemu-discard-private-mapping-warning",): FieldCase((NOBODY,), silent=True),
    ("41-qemu-upm-rom-exit24",): FieldCase((GUEST, UNKNOWN), ("24|ended", "reason|not known")),
    ("42-tdx-private-mce-kernel-bug",): FieldCase((KERNEL,), ("machine check", "private"), TAINTED, ("reboot", FIX)),
    ("42b-tdx-private-mce-timestamped",): FieldCase((KERNEL,), ("machine check", "private"), TAINTED, ("reboot", FIX)),
    ("v1-softlockup-in-rmpupdate",): FieldCase(
        (KERNEL, UNKNOWN), ("soft lockup",), never=(*RMP, *PINS, "where __schedule_bug")
    ),
    ("v2-guest-marked",): FieldCase((GUEST,), ("guest", "page fault|oops|read"), never=("the host the kernel",)),
    ("v3-lockdep",): FieldCase((KERNEL, UNKNOWN), ("lock order|order of locks|circular|deadlock|lockdep",), never=RMP),
    ("v3-noheader",): FieldCase((UNKNOWN, NOBODY), ("stack|trace|not known",), never=RMP),
    ("v3-rcu",): FieldCase((KERNEL, UNKNOWN), ("rcu",), never=(*RMP, *PINS)),
    ("v3-sysrq",): FieldCase((UNKNOWN, NOBODY), ("sysrq",), never=RMP),
    ("v4-reclaim",): FieldCase((KERNEL, UNKNOWN), ("rcu",), never=("reclaimed", "lost until", "took a guest's own")),
    ("v5-24-no-ellipsis",): FieldCase((KERNEL,), ("kvm_mmu_unmap_gfn_range", "fallocate"), do=(FIX,)),
}


def whose(case: FieldCase, said: Answers) -> Iterator[str]:
    """Whose fault it is."""
    if case.one and len(said.blames) > 1:
        yield f"one failure, and {len(said.blames)} incidents: {said.titles}"
    for blame in said.blames:
        if blame not in (*case.blame, UNKNOWN):
            yield f"blames {blame}, not {' or '.join(case.blame)}"
    if said.refused or (not said.blames and not case.silent and "not known" not in said.told):
        yield "silent about a failure"


def failed(case: FieldCase, said: Answers) -> Iterator[str]:
    """What failed: every word that decides is there."""
    for words in case.failed:
        if not re.search(words, said.told):
            yield f"does not say {words}"


def memory(_case: FieldCase, said: Answers) -> Iterator[str]:
    """None of these logs shows a page that was lost."""
    if said.pages:
        yield f"{said.pages} pages are said to be messed up"


def start(case: FieldCase, said: Answers) -> Iterator[str]:
    """Which VMs may be started."""
    for guests, right in case.host.items():
        if said.host[guests] not in right:
            yield f"{guests}: {said.host[guests]}, not {' or '.join(sorted(right))}"


def do(case: FieldCase, said: Answers) -> Iterator[str]:
    """What to do."""
    for words in case.do:
        if not re.search(words, said.told):
            yield f"does not say {words}"


def never(case: FieldCase, said: Answers) -> Iterator[str]:
    """No statement that the log does not carry."""
    for words in (*case.never, *(() if case.silent else ALWAYS)):
        if re.search(words, f"{said.told} {said.reasons}"):
            yield f"says {words}"


QUESTIONS = {"whose": whose, "failed": failed, "memory": memory, "start": start, "do": do, "never": never}
