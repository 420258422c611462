"""Decisive lines: steps of TDX and SNP that failed, pages that were lost, a VM that ended. Each says what it says, and no more.

Texts: ``pr_tdx_error`` of arch/x86/kvm/vmx/tdx.c, ``rmpupdate``, ``snp_leak_pages`` of arch/x86/virt/svm/sev.c,
``sev_gmem_prepare`` of arch/x86/kvm/svm/sev.c, ``memory_failure`` of mm/memory-failure.c, ``kvm_vm_bugged``.
"""

from collections.abc import Callable
from random import Random

from tests.adversary.stacks import CONVERTING, about, stack, trace
from tests.adversary.truth import CLOSED, GUEST, KERNEL, MEMORY, NOBODY, NOT_KNOWN, PLATFORM, UNKNOWN, VMM, Log, Truth

Step = Callable[[Random], Log]
STEPS: dict[str, Step] = {}
SOMEBODY = frozenset((KERNEL, PLATFORM))


def step(make: Step) -> Step:
    """Register a kind of decisive line by its name."""
    STEPS[make.__name__.replace("_", "-")] = make
    return make


@step
def rmpupdate(rng: Random) -> Log:
    """The first line says that it failed; the stack says for whom."""
    where = stack(rng)
    pfn = rng.getrandbits(28)
    lines = (
        f"SEV-SNP: RMPUPDATE failed for PFN {pfn:x}, pg_level: 1, ret: {rng.choice((1, 2, 3))}",
        f"SEV-SNP: PFN 0x{pfn:x}, RMP entry: [0x{rng.getrandbits(64) | 1:016x} - 0x0000000000000000]",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "rmpupdate.cold", *CONVERTING[rng.randrange(2)][1:]),
    )
    claims = frozenset(("rmpupdate", "lost"))
    return Log(lines, Truth(SOMEBODY, claims=claims, words=("rmpupdate", f"{pfn:x}"), pages=1))


@step
def seamcall(rng: Random) -> Log:
    """A step of removing a private page failed, in the wording of 6.16 and the one before it."""
    name = rng.choice(("TDH_MEM_PAGE_REMOVE", "TDH_MEM_RANGE_BLOCK", "TDH_MEM_TRACK", "TDH_PHYMEM_PAGE_WBINVD"))
    status = rng.choice(("0xc000010000000008", "0x8000020000000008", "0xc0000b0a00000001"))
    prefix = rng.choice(("kvm_intel: ", "tdx: ", "virt/tdx: "))
    line = f"{prefix}SEAMCALL {name} failed: {status}. entry 0x0 level_state 0x0"
    claims = frozenset(("remove", "lost", "bugged"))
    return Log((line,), Truth(SOMEBODY, claims=claims, words=(name.split("_")[-1].lower(),), pages=1))


@step
def reclaim(rng: Random) -> Log:
    """``__tdx_reclaim_page``: the page stays the module's."""
    owner = rng.getrandbits(40) << 12
    line = f"kvm_intel: SEAMCALL TDH_PHYMEM_PAGE_RECLAIM failed: 0xc000010000000001. RCX 0x3, RDX 0x{owner:x}, R8 0x0"
    return Log((line,), Truth(SOMEBODY, claims=frozenset(("reclaim", "lost")), words=("reclaim",), pages=1))


@step
def leaked(rng: Random) -> Log:
    """``snp_leak_pages``: lost, and given to nobody."""
    first = rng.getrandbits(28)
    line = rng.choice(
        (
            f"SEV-SNP: Leaking PFN range 0x{first:x}-0x{first + 512:x}",
            f"SEV-SNP: Leaking {512} pages PFN range 0x{first:x}-0x{first + 512:x}",
        )
    )
    truth = Truth(SOMEBODY, claims=frozenset(("lost", "rmpupdate")), words=(f"{first:x}",), pages=1)
    return Log((line,), truth)


@step
def rmp_fault(rng: Random) -> Log:
    """The host touched a page that the RMP gives to somebody: page fault with the RMP bit."""
    where = stack(rng)
    lines = (
        f"BUG: unable to handle page fault for address: ff{rng.getrandbits(56):014x}",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x80000003) - RMP violation",
        f"SEV-SNP: PFN 0x{rng.getrandbits(28):x}, RMP entry: [0x{rng.getrandbits(64) | 1:016x} - 0x0000000000000000]",
        "Oops: Oops: 80000003 [#1] SMP NOPTI",
        *about(rng, where),
        *trace(rng, where),
    )
    truth = Truth(
        SOMEBODY, named=frozenset((where.inner,)), stacks=where.names, words=("rmp",), pages=1, claims=frozenset(("rmpupdate",))
    )
    return Log(lines, truth)


@step
def poisoned(rng: Random) -> Log:
    """``action_result``: the hardware lost a page."""
    pfn = rng.getrandbits(28)
    action = rng.choice(
        (
            "recovery action for dirty LRU page: Recovered",
            "recovery action for reserved kernel page: Ignored",
            "recovery action for free buddy page: Delayed",
        )
    )
    truth = Truth(
        frozenset((PLATFORM, NOBODY)),
        words=(f"{pfn:x}",),
        pages=1,
        claims=frozenset(("poison", "lost")),
        host=dict.fromkeys(("plain", "tdx", "snp"), CLOSED),
    )
    return Log((f"Memory failure: 0x{pfn:x}: {action}",), truth)


@step
def termination(rng: Random) -> Log:
    """``kvm_amd``: the guest asked for its end; why is in the codes alone."""
    group, code = rng.choice(((0, 0), (0, 1), (0, 2), (1, 0), (1, 3)))
    return Log(
        (f"kvm_amd: SEV-ES guest requested termination: {group:#x}:{code:#x}",),
        Truth(frozenset((GUEST, VMM)), words=(f"{code:#x}",)),
    )


@step
def guest_before_accept(rng: Random) -> Log:
    """``tdx_handle_ept_violation``: a TD touched what it had not accepted."""
    gpa = rng.getrandbits(24) << 12
    line = f"kvm_intel: Guest access before accepting 0x{gpa:x} on vCPU {rng.randrange(64)}"
    return Log((line,), Truth(frozenset((GUEST,)), words=(f"{gpa >> 12:x}",), claims=frozenset(("host well", "innocent"))))


VMM_LINES = {
    "qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory": ((MEMORY,), ("enomem|memory",)),
    "qemu-system-x86_64: KVM_TDX_INIT_VM failed: Invalid argument": ((UNKNOWN,), ("einval",)),
    "qemu-system-x86_64: vm-type TDX not supported by KVM": ((PLATFORM, VMM, KERNEL), ("tdx",)),
    "qemu-system-x86_64: sev_kvm_init: kernel does not support restricted guest memory": (
        (PLATFORM, VMM, KERNEL),
        ("restricted|guest_memfd",),
    ),
    "error: kvm run failed Invalid argument": ((UNKNOWN,), ("einval",)),
    "error: kvm run failed Input/output error": ((UNKNOWN,), ("eio",)),
    "error: kvm run failed Bad address": ((UNKNOWN,), ("efault",)),
    "qemu-system-x86_64: KVM_SET_MEMORY_ATTRIBUTES failed: Cannot allocate memory": ((MEMORY,), ("enomem|memory",)),
}


@step
def vmm(rng: Random) -> Log:
    """A line of QEMU: an errno is no cause."""
    line, (blames, words) = rng.choice(list(VMM_LINES.items()))
    return Log((line,), Truth(frozenset(blames), words=words, host=NOT_KNOWN), envelope="bare")


@step
def repeated(rng: Random) -> Log:
    """The same failure many times, then a line of the rate limit."""
    pfn = rng.getrandbits(28)
    lines = [f"SEV-SNP: RMPUPDATE failed for PFN {pfn:x}, pg_level: 1, ret: 2"] * rng.randrange(2, 9)
    lines.append("rmpupdate: 112 callbacks suppressed")
    return Log(tuple(lines), Truth(SOMEBODY, claims=frozenset(("rmpupdate", "lost")), words=("rmpupdate",), pages=1))
