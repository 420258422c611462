"""Kinds of guests, and what of a platform each needs."""

from enum import StrEnum

from gmemstate.model.reports import PlatformPart


class Guests(StrEnum):
    """What may be started."""

    PLAIN = "plain VMs"
    TDX = "TDX guests"
    SNP = "SEV-SNP guests"
    CCA = "Arm CCA realms"


class Vendor(StrEnum):
    """Who made the CPU, as far as that decides which guests there can be."""

    INTEL = "Intel"
    AMD = "AMD"
    ARM = "Arm"


VENDOR_OF = {Guests.TDX: Vendor.INTEL, Guests.SNP: Vendor.AMD, Guests.CCA: Vendor.ARM}
PARTS_OF = {
    Vendor.INTEL: (PlatformPart.TDX_BIOS, PlatformPart.TDX_MODULE, PlatformPart.KVM_TDX),
    Vendor.AMD: (
        PlatformPart.RMP_TABLE,
        PlatformPart.IOMMU_SNP,
        PlatformPart.SNP_FIRMWARE,
        PlatformPart.SEV_FIRMWARE,
        PlatformPart.SECURITY_PROCESSOR,
        PlatformPart.KVM_SNP,
        PlatformPart.KVM_SEV,
    ),
    Vendor.ARM: (PlatformPart.KVM_REALM,),
}
"""Parts that only the platforms of one vendor have."""
NEEDS: dict[Guests, tuple[PlatformPart, ...]] = {
    Guests.PLAIN: (PlatformPart.KVM,),
    Guests.TDX: (PlatformPart.KVM, *PARTS_OF[Vendor.INTEL]),
    Guests.SNP: (PlatformPart.KVM, *(part for part in PARTS_OF[Vendor.AMD] if part is not PlatformPart.KVM_SEV)),
    Guests.CCA: (PlatformPart.KVM, *PARTS_OF[Vendor.ARM]),
}
"""The parts that must not have failed, nor be missing."""
PROVEN_BY: dict[Guests, tuple[PlatformPart, ...]] = {
    Guests.PLAIN: (PlatformPart.KVM,),
    Guests.TDX: (PlatformPart.TDX_MODULE,),
    Guests.SNP: (PlatformPart.RMP_TABLE, PlatformPart.SNP_FIRMWARE, PlatformPart.KVM_SNP),
    Guests.CCA: (PlatformPart.KVM_REALM,),
}
"""The parts of which a line of success must have been seen: Linux 7.2 __tdx_enable(), __sev_snp_init_locked(),
sev_hardware_setup()."""
