"""Whole logs of clean boots, in the formats of the kernel's own printk() calls; hosts without names."""

LINUX = "Linux version 6.16.0 (build@host) (gcc (GCC) 14.2.0, GNU ld version 2.43) #1 SMP PREEMPT_DYNAMIC"
BARE = "Booting paravirtualized kernel on bare hardware"
INTEL = "smpboot: CPU0: Intel(R) Xeon(R) Platinum 8570 (family: 0x6, model: 0xcf, stepping: 0x2)"
AMD = "smpboot: CPU0: AMD EPYC 9354P 32-Core Processor (family: 0x19, model: 0x11, stepping: 0x1)"
LOGIN = "systemd[1]: Reached target multi-user.target - Multi-User System."

TDX_PARTS = {
    "TDX in the BIOS": "virt/tdx: BIOS enabled: private KeyID range [64, 128)",
    "TDX module": "virt/tdx: module initialized",
}
SNP_PARTS = {
    "RMP table": "SEV-SNP: RMP table physical range [0x0000000035600000 - 0x0000000075bfffff]",
    "SNP in the IOMMU": "AMD-Vi: IOMMU SNP support enabled.",
    "SEV firmware": "ccp 0000:01:00.5: SEV API:1.55 build:21",
    "SNP firmware": "ccp 0000:01:00.5: SEV-SNP API:1.55 build:21",
    "SEV-SNP in KVM": "kvm_amd: SEV-SNP enabled (ASIDs 1 - 99)",
}
TDX = (LINUX, BARE, INTEL, *TDX_PARTS.values(), "kvm_intel: VMX: Nested virtualization off", LOGIN)
SNP = (LINUX, BARE, AMD, *SNP_PARTS.values(), "kvm_amd: Nested Virtualization enabled", "kvm_amd: Nested Paging enabled", LOGIN)
PLAIN = (LINUX, BARE, AMD, "kvm_amd: Nested Virtualization enabled", "kvm_amd: Nested Paging enabled", LOGIN)


def stamped(*lines: str, since: float = 0.0) -> list[str]:
    """The lines with the times of printk, in order."""
    return [f"[{since + 0.25 * n:12.6f}] {line}" for n, line in enumerate(lines)]
