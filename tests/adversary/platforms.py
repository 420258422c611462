"""What a kernel prints while it starts: hosts of TDX, of SEV-SNP and plain ones, with and without a failure; guests; two hosts.

Texts: arch/x86/virt/vmx/tdx/tdx.c, arch/x86/virt/svm/sev.c, drivers/crypto/ccp/sev-dev.c, arch/x86/kvm/svm/svm.c and sev.c,
drivers/iommu/amd/init.c, arch/x86/coco.
"""

from collections.abc import Callable, Iterable
from random import Random

from tests.adversary.reports import REPORTS
from tests.adversary.truth import CLOSED, GUEST, KERNEL, NO, NOT_HERE, NOT_KNOWN, OPEN, PLATFORM, UNKNOWN, YES, Log, Truth

Start = Callable[[Random], Log]
STARTS: dict[str, Start] = {}
LATER = frozenset((YES,))
ANYONE = frozenset((KERNEL, PLATFORM, UNKNOWN))
INTEL = ("smpboot: CPU0: Intel(R) Xeon(R) Platinum 8480+ (family: 0x6, model: 0x8f, stepping: 0x8)", "x86/tme: enabled by BIOS")
AMD = (
    "smpboot: CPU0: AMD EPYC 9534 64-Core Processor (family: 0x19, model: 0x11, stepping: 0x1)",
    "AMD-Vi: Interrupt remapping enabled",
)
ABSENT = frozenset((OPEN, NOT_HERE))


def start(make: Start) -> Start:
    """Register a kind of start by its name."""
    STARTS[make.__name__.replace("_", "-")] = make
    return make


def boot(cpu: Iterable[str], *lines: str, release: str = "6.16.0", end: bool = True) -> tuple[str, ...]:
    """A boot log of a host from its first line to its login."""
    return (
        f"Linux version {release} (user@host) (gcc (Debian 14.2.0) 14.2.0, GNU ld 2.44) "
        "#1 SMP PREEMPT_DYNAMIC Tue Jun  9 12:00:00 UTC 2026",
        f"Command line: BOOT_IMAGE=/boot/vmlinuz-{release} root=/dev/nvme0n1p2 ro kvm_intel.tdx=1 nohibernate",
        "BIOS-provided physical RAM map:",
        "BIOS-e820: [mem 0x0000000000000000-0x000000000009ffff] usable",
        "DMI: Supermicro Super Server/H12SSL-NT, BIOS 2.4 04/14/2022",
        *cpu,
        "smp: Brought up 2 nodes, 224 CPUs",
        *lines,
        *(("systemd[1]: Startup finished in 9.1s (kernel) + 20.4s (userspace) = 29.5s.",) if end else ()),
    )


def tdx_lines(rng: Random) -> tuple[str, ...]:
    """``tdx_init``, ``init_tdx_module`` and ``__tdx_enable`` on success, in the wordings of several kernels."""
    version = rng.choice(
        (
            (
                "virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, "
                "major_version 1, minor_version 5, build_date 20240129, build_num 698",
            ),
            ("virt/tdx: TDX module version: 1.5.24",),
            ("virt/tdx: module verson: 1.5.1.0",),
            (),
        )
    )
    return (
        "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
        "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",
        *version,
        "virt/tdx: 4202516 KB allocated for PAMT",
        "virt/tdx: module initialized",
    )


def snp_lines(rng: Random) -> tuple[str, ...]:
    """``snp_probe_rmptable_info``, the IOMMU, ccp and kvm_amd on success."""
    low, high = rng.randrange(1, 99) << 21, rng.randrange(100, 999) << 21
    return (
        f"SEV-SNP: RMP table physical range [0x{low:016x} - 0x{high - 1:016x}]",
        "AMD-Vi: IOMMU SNP support enabled.",
        "ccp 0000:42:00.1: sev enabled",
        "ccp 0000:42:00.1: psp enabled",
        "ccp 0000:42:00.1: SEV firmware update successful",
        "ccp 0000:42:00.1: SEV API:1.55 build:29",
        "ccp 0000:42:00.1: SEV-SNP API:1.55 build:29",
        *kvm_amd(),
        "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)",
    )


def kvm_amd() -> tuple[str, ...]:
    return (
        "kvm_amd: TSC scaling supported",
        "kvm_amd: Nested Virtualization enabled",
        "kvm_amd: Nested Paging enabled",
        "kvm_amd: SEV enabled (ASIDs 100 - 509)",
        "kvm_amd: SEV-ES enabled (ASIDs 1 - 99)",
    )


def nothing(host: dict[str, frozenset[str]]) -> Truth:
    """Nothing failed."""
    return Truth(frozenset(), host=host, failures=0)


@start
def whole_tdx(rng: Random) -> Log:
    """A TDX host that is up: yes."""
    return Log(boot(INTEL, *tdx_lines(rng)), nothing({"plain": LATER, "tdx": LATER, "snp": ABSENT}))


@start
def whole_snp(rng: Random) -> Log:
    """An SNP host that is up: yes."""
    return Log(boot(AMD, *snp_lines(rng)), nothing({"plain": LATER, "tdx": ABSENT, "snp": LATER}))


@start
def whole_plain(rng: Random) -> Log:
    """A host without either that runs plain VMs."""
    lines = kvm_amd()[:3]
    return Log(boot(AMD, *lines), nothing({"plain": LATER, "tdx": ABSENT, "snp": ABSENT | {NO}}))


TDX_FAILURES = {
    "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000": "tdh.sys.rd|0xc000050500000000",
    "virt/tdx: SEAMCALL (0x000000000000002d) failed: 0xc000090000000000": "tdh.sys.config|0xc000090000000000",
    "virt/tdx: initialization failed: TDMRs exhausted.": "tdmr",
    "virt/tdx: initialization failed: TDMR [0x40000000, 0x80000000): reserved areas exhausted.": "reserved areas",
    "virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module": "rbp|frame pointer",
    "virt/tdx: module not loaded": "not loaded",
    "virt/tdx: too many CMRs": "not initiali[sz]ed|not started|could not be started|initiali[sz]ation",
}


@start
def tdx_failed(rng: Random) -> Log:
    """A step of ``init_tdx_module`` fails, and ``__tdx_enable`` says so."""
    line, words = rng.choice(list(TDX_FAILURES.items()))
    code = rng.choice((-5, -22, -28, -19))
    lines = (
        *tdx_lines(rng)[:2],
        line,
        f"virt/tdx: module initialization failed ({code})",
        *rng.choice(((), ("kvm_intel: Failed to initialize TDX module.",), ("kvm_intel: tdx: module initialization failed",))),
    )
    truth = Truth(
        frozenset((PLATFORM, KERNEL)),
        words=("tdx", words),
        host={"plain": CLOSED | {YES}, "tdx": frozenset((NO,)), "snp": ABSENT},
    )
    return Log(boot(INTEL, *lines), truth)


@start
def tdx_refused_early(rng: Random) -> Log:
    """``tdx_init`` gives up before there is a module."""
    why = rng.choice(
        ("too few private KeyIDs available.", "Hibernation support is enabled", "register_memory_notifier() failed (-12)")
    )
    lines = ("virt/tdx: BIOS enabled: private KeyID range [64, 65)", f"virt/tdx: initialization failed: {why}")
    truth = Truth(
        frozenset((PLATFORM, KERNEL)), words=("tdx",), host={"plain": CLOSED | {YES}, "tdx": frozenset((NO,)), "snp": ABSENT}
    )
    return Log(boot(INTEL, *lines), truth)


SNP_FAILURES = {
    "SEV-SNP: Memory for the RMP table has not been reserved by BIOS": "rmp table",
    "SEV-SNP: Memory reserved for the RMP table does not cover full system RAM "
    "(expected 0x101000000 got 0x41000000)": "rmp table",
    "SEV-SNP: Failed to map RMP table": "rmp table",
    "SEV-SNP: RMP configuration not valid: base=0x5600000, end=0x1600000": "rmp",
    "AMD-Vi: SNP: IOMMU disabled or configured in passthrough mode, SNP cannot be supported.": "iommu",
    "ccp 0000:42:00.1: SEV-SNP: failed to INIT rc -5, error 0x3": "init",
    "ccp 0000:42:00.1: SEV-SNP: failed to INIT, rc -5, error 0x1": "init",
}


@start
def snp_failed(rng: Random) -> Log:
    """A step of setting up SNP fails; SEV itself is up."""
    line, words = rng.choice(list(SNP_FAILURES.items()))
    lines = (line, "ccp 0000:42:00.1: sev enabled", "ccp 0000:42:00.1: psp enabled", *kvm_amd())
    truth = Truth(
        frozenset((PLATFORM, KERNEL)),
        words=("snp", words),
        host={"plain": CLOSED | {YES}, "tdx": ABSENT, "snp": frozenset((NO,))},
    )
    return Log(boot(AMD, *lines), truth)


@start
def cut_at_the_head(rng: Random) -> Log:
    """The ring buffer has lost its beginning: what it does not show is not known."""
    whole = rng.choice((whole_tdx, whole_snp, whole_plain))(rng).lines
    return Log(whole[rng.randrange(1, len(whole) - 1) :], nothing(NOT_KNOWN))


@start
def lines_dropped(rng: Random) -> Log:
    """A gap that printk or the journal admits: ``printk`` of kernel/printk/printk.c, journald's own line, ___ratelimit."""
    whole = list(rng.choice((whole_tdx, whole_snp, whole_plain))(rng).lines)
    gap = rng.choice(
        ("** 17 printk messages dropped **", "systemd-journald[512]: Missed 31 kernel messages", "audit: rate limit exceeded")
    )
    if gap.startswith("audit"):
        gap = "print_req_error: 5 callbacks suppressed"
    whole.insert(rng.randrange(1, len(whole)), gap)
    return Log(tuple(whole), nothing(NOT_KNOWN))


@start
def report_after_a_clean_start(rng: Random) -> Log:
    """Something went wrong later: no yes any more for what it may have touched."""
    whole = rng.choice((whole_tdx, whole_snp))(rng).lines
    kind = rng.choice(
        (
            "oops-null",
            "oops-paging",
            "general-protection",
            "bug",
            "kasan",
            "kfence",
            "list-corruption",
            "refcount",
            "machine-check",
        )
    )
    report = REPORTS[kind](rng)
    return Log((*whole, *report.lines), report.truth)


@start
def guest_detected(rng: Random) -> Log:
    """The log of a protected guest with a failure of its own: it says nothing of its host."""
    mark = rng.choice(
        (
            "tdx: Guest detected",
            "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
            "Memory Encryption Features active: Intel TDX",
        )
    )
    report = REPORTS[
        rng.choice(("oops-null", "oops-paging", "general-protection", "bug", "kasan", "soft-lockup", "rcu-stall"))
    ](rng)
    told = report.truth
    start = boot(rng.choice((INTEL, AMD)), mark, "Hypervisor detected: KVM", end=False)
    return Log((*start, *report.lines), Truth(frozenset((GUEST,)), told.named, told.stacks, words=(*told.words, "guest")))


@start
def guest_fine(rng: Random) -> Log:
    """The whole clean log of a protected guest is no evidence for any host."""
    mark = rng.choice(("tdx: Guest detected", "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP"))
    return Log(boot(rng.choice((INTEL, AMD)), mark, "Hypervisor detected: KVM"), nothing(NOT_KNOWN))


@start
def plain_guest_fine(rng: Random) -> Log:
    """The clean log of an ordinary VM that has kvm of its own: hypervisor below, yet it starts VMs."""
    return Log(
        boot(AMD, "Hypervisor detected: KVM", "kvm_amd: Nested Paging enabled"),
        nothing({"plain": CLOSED | {YES}, "tdx": CLOSED, "snp": CLOSED}),
    )


@start
def crash_kernel(rng: Random) -> Log:
    """The kernel that saves the dump of another one has a small part of the memory, and starts no VMs."""
    lines = list(boot(AMD, *snp_lines(rng)))
    lines[1] = "Command line: elfcorehdr=0x2f000000 root=/dev/nvme0n1p2 ro irqpoll nr_cpus=1 reset_devices"
    return Log(tuple(lines), nothing(NOT_KNOWN))


@start
def two_boots(rng: Random) -> Log:
    """A clean boot, then another one that failed: only the last one counts."""
    first, second = rng.choice(((whole_tdx, tdx_failed), (whole_snp, snp_failed)))
    after = second(rng)
    return Log((*first(rng).lines, *after.lines), after.truth)
