"""The catalogue of invariants: what a kernel promises of conversions, and what a record must show to evaluate it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from gmemstate.model import events as e
from gmemstate.model.findings import Severity
from gmemstate.model.reports import SourceFormat

NOT_LOGS = frozenset((SourceFormat.SIMULATION, SourceFormat.ENGINE))
"""Formats of sources that hold each step of a conversion: a whole simulated host, conversions on a ledger."""


@dataclass
class OnRecord:
    """What kinds of facts a record has, whatever they say."""

    kinds: set[int] = field(default_factory=set)
    capabilities: set[int] = field(default_factory=set)
    formats: set[str] = field(default_factory=set)
    hardware: set[str] = field(default_factory=set)
    dialects: set[e.Dialect] = field(default_factory=set)


Need = Callable[[OnRecord], str | None]
"""A fact that a look takes: None if the record has it, else what is missing."""

_WORDS = {
    e.Capability.RETURNED: "results of the conversion ioctls (vm_ioctl_ret, gmem_ioctl_ret)",
    e.Capability.COMPARED: "comparisons of attributes (kvm_range_has_memory_attributes)",
    e.Capability.STORED: "stores of attributes (maple_tree:ma_write)",
    e.Capability.GUEST_ENTRIES: "entries of the guest's page tables (kvm_tdp_mmu_spte_changed)",
    e.Capability.HOST_UNMAP: "unmaps from the host's page tables (unmap_mapping_pages)",
    e.Capability.PRIVATE_FAULTS: "faults that guest_memfd serves to a guest (kvm_gmem_get_pfn)",
    e.Capability.HOST_FAULTS: "faults of the host (kvm_gmem_fault_user_mapping)",
    e.Capability.SLOTS: "memslots (KVM_SET_USER_MEMORY_REGION2)",
    e.Capability.HYPERCALLS: "hypercalls (kvm_hypercall)",
}


def shows(capability: e.Capability) -> Need:
    """A source has proven that it shows something."""
    return lambda record: None if capability in record.capabilities else f"no source has shown {_WORDS[capability]}"


def events(what: str, *kinds: type[e.Event]) -> Need:
    """One of some kinds of events is on record."""
    names = " or ".join(kind.name for kind in kinds)
    codes = {kind.code for kind in kinds}
    return lambda record: None if codes & record.kinds else f"no event {names} is on record: {what}"


def hardware(*names: str) -> Need:
    """Something on record that only one kind of hardware has."""
    return lambda record: None if record.hardware & set(names) else f"nothing of {' or '.join(names)} hardware is on record"


def steps_complete(why: str) -> Need:
    """Each step of a conversion is on record, as it is in simulations and with conversions on a ledger."""
    return lambda record: None if record.formats & NOT_LOGS else f"no simulated conversion is on record: {why}"


def host_complete(why: str) -> Need:
    """Everything that happens on the host is on record, as it is in simulations."""
    return lambda record: None if SourceFormat.SIMULATION in record.formats else f"no simulation is on record: {why}"


def traced(why: str) -> Need:
    """A real kernel was traced."""
    return lambda record: None if record.formats - NOT_LOGS else f"no trace of a kernel is on record: {why}"


def never(why: str) -> Need:
    """No event of the registry has the fact."""
    return lambda _: why


class Invariant(NamedTuple):
    """One promise: where it holds, how bad it is if it is broken, the claim, its source, and what a look at it takes."""

    id: str
    dialects: tuple[e.Dialect, ...]
    severity: Severity
    claim: str
    source: str
    needs: tuple[Need, ...] = ()

    def missing(self, record: OnRecord) -> str | None:
        """Why a record without a single evaluation of it could not have one; None if it could."""
        if len(self.dialects) < len(ALL) and not record.dialects & set(self.dialects):
            return f"no guest of dialect {' or '.join(dialect.word for dialect in self.dialects)} is on record"
        return next((reason for need in self.needs if (reason := need(record)) is not None), None)


M, R, V, P = e.Dialect.MAINLINE, e.Dialect.RFC_V2, e.Dialect.INPLACE, e.Dialect.CHECK_FIRST
ALL = (M, R, V, P)
GMEM = (R, V)
F, E, W = Severity.FATAL, Severity.ERROR, Severity.WARNING

RESULTS, STORES, HOST_FAULTS = shows(e.Capability.RETURNED), shows(e.Capability.STORED), shows(e.Capability.HOST_FAULTS)
INLINED = steps_complete("KVM inlines the begin of an invalidation into its callers, no line of a trace shows it")
HOLDERS = events("a trace does not show who takes and drops references", e.Pinned, e.DmaMapped)
WHO_HOLDS = host_complete("a trace shows that a page is held, not by whom")

CATALOGUE = {
    entry.id: entry
    for entry in (
        Invariant("INV-01", (R, V, P), E,
                  "A conversion of a guest_memfd is all or nothing: after 0 all pages have the new attribute, after an "
                  "errno the old one; "
                  "only an undo that fails with a WARN excuses the rest.",
                  "mail of 2025-06-04; review of RFC v2 patch 38", (RESULTS, STORES)),
        Invariant("INV-02", (M,), E,
                  "A conversion of a VM is all or nothing, and what the kernel compares later agrees; ENOMEM comes before "
                  "any change.",
                  "kvm_vm_set_mem_attributes()", (RESULTS, shows(e.Capability.COMPARED))),
        Invariant("INV-03", GMEM, F, "No page becomes private while the host's page tables map it.",
                  "RFC v2 patch 04; v8 cover letter", (STORES, HOST_FAULTS, shows(e.Capability.HOST_UNMAP))),
        Invariant("INV-04", GMEM, F,
                  "No page becomes private while a device or a pin holds it; references that come later are allowed.",
                  "RFC v2 patch 04; v8 patch 14", (STORES, HOLDERS)),
        Invariant("INV-05", GMEM, F, "A fault of the host on a private page never succeeds.",
                  "kvm_gmem_fault_user_mapping()", (HOST_FAULTS,)),
        Invariant("INV-06", (M,), F, "A guest is given private or shared memory only where the attribute says so.",
                  "kvm_mmu_faultin_pfn(), is_page_fault_stale()", (shows(e.Capability.PRIVATE_FAULTS),)),
        Invariant("INV-07", GMEM, E, "A stored attribute is merged with its equal neighbours.",
                  "v8 patch 13, kvm_gmem_mas_preallocate()",
                  (STORES, traced("a simulated store names what was asked, not the range in a tree"))),
        Invariant("INV-08", GMEM, E, "Every page of a guest_memfd has an attribute at all times, allocated or not.",
                  "v8 patch 01; kvm_gmem_get_attributes()",
                  (never("no event reads the attributes of a guest_memfd: only a missing one shows, by a WARN"),)),
        Invariant("INV-09", (R, P), E, "No folio in the filemap has fewer references than the filemap itself holds.",
                  "RFC v2 patches 04 and 38", (events("no references were counted", e.UsersChecked),)),
        Invariant("INV-10", (R, P), E,
                  "A huge range with a shared page has small folios only; one that became private throughout has one huge "
                  "folio.",
                  "RFC v2 patch 38", (events("folios have one size only", e.FolioSplit, e.FolioMerged),)),
        Invariant("INV-11", ALL, E,
                  "Each invalidation that a conversion begins ends with it, and none ends that was not begun.",
                  "kvm_mmu_invalidate_end(), kvm_destroy_vm()", (INLINED,)),
        Invariant("INV-12", ALL, E, "An invalidation names a range before it ends.",
                  "kvm_mmu_invalidate_end()", (INLINED, events("no invalidation has named a range", e.InvalidateAdded))),
        Invariant("INV-13", ALL, E, "The sequence number of invalidations grows with each end.",
                  "kvm_mmu_invalidate_end()", (never("no event has mmu_invalidate_seq"),)),
        Invariant("INV-14", (R, P), E,
                  "What is zapped lies inside of the invalidation that was begun for it, and no memslot of the file changes "
                  "meanwhile.",
                  "RFC v2 patch 38", (INLINED,)),
        Invariant("INV-15", GMEM, E, "EAGAIN answers conversions to private only, and names a page of the request.",
                  "RFC v2 patch 04; v8 patch 14", (RESULTS,)),
        Invariant("INV-16", (R,), W, "Nobody resumes at the error_offset of an errno other than EAGAIN: it means nothing.",
                  "RFC v2 patch 04, error_index without a value", (RESULTS,)),
        Invariant("INV-17", (V,), E, "ENOMEM comes before anybody is unmapped, and names the beginning of the request.",
                  "v8 patch 14", (RESULTS,)),
        Invariant("INV-18", GMEM, E,
                  "EAGAIN leaves attributes, folios and IOMMU mappings as they were; only processors lose mappings.",
                  "mail of 2025-06-04; v8 patch 14", (RESULTS, STORES)),
        Invariant("INV-19", ALL, E, "A conversion of pages that have the attribute already changes nothing.",
                  "kvm_vm_set_mem_attributes(), __kvm_gmem_set_attributes()", (RESULTS,)),
        Invariant("INV-20", ALL, E, "Conversions of one VM, or of one guest_memfd, are serialised.",
                  "slots_lock; filemap_invalidate_lock()", (RESULTS,)),
        Invariant("INV-21", ALL, E,
                  "Nobody expects private contents to survive an unmap on TDX where the attribute has changed.",
                  "review of 2025-06-05", (never("no event has the contents of a page"),)),
        Invariant("INV-22", ALL, F,
                  "A host page whose private unmap failed is given to nobody before the next boot; no kernel enforces it.",
                  "patch of 2025-10-30, Drop superfluous page pinning in S-EPT management",
                  (hardware("TDX", "SNP"), events("nothing shows to whom host pages go", e.PageAdded))),
        Invariant("INV-23", ALL, F, "A host page that the kernel has leaked on purpose is never seen again.",
                  "__snp_leak_pages()", (hardware("SNP"),)),
        Invariant("INV-24", ALL, E, "After a bug every ioctl of the VM returns EIO; guest_memfd goes on to work.",
                  "kvm_vm_ioctl()", (events("no VM was marked", e.VmBugged, e.VmDead),)),
        Invariant("INV-25", (M,), E, "The host maps pages of a guest_memfd only if all of them are shared for life.",
                  "kvm_gmem_get_invalidate_filter()", (HOST_FAULTS,)),
        Invariant("INV-26", ALL, E, "A punch of whole pages inside of the file succeeds.",
                  "kvm_gmem_punch_hole()", (events("nothing was punched or allocated", e.Punched),)),
        Invariant("INV-27", (M,), E,
                  "A huge range is flagged as mixed if, and only if, it lies in one memslot and its pages differ.",
                  "kvm_arch_post_set_memory_attributes(), kvm_arch_pre_set_memory_attributes()",
                  (shows(e.Capability.SLOTS), events("only ranges held off outside of a conversion show what is flagged",
                  e.InvalidateAdded))),
        Invariant("INV-28", (M,), E, "No huge entry of the guest's page tables covers both private and shared pages.",
                  "kvm_arch_pre_set_memory_attributes()", (shows(e.Capability.GUEST_ENTRIES),)),
        Invariant("INV-29", ALL, E,
                  "A gfn is in one memslot of an address space, a page of a guest_memfd in one binding of a VM.",
                  "kvm_gmem_bind(), EEXIST", (shows(e.Capability.SLOTS),)),
        Invariant("INV-30", ALL, E, "REMOVE follows BLOCK, and a TRACK after it.",
                  "tdx_sept_remove_leaf_spte()", (never("only the SEAMCALL that failed is on record, not those before it"),)),
        Invariant("INV-31", ALL, E, "No private unmap fails for good because an operand is busy: the second attempt succeeds.",
                  "tdh_do_no_vcpus()", (hardware("TDX"),)),
        Invariant("INV-32", ALL, E, "A MapGPA that is to be asked again names a page of the request, whole chunks of 2 MiB on.",
                  "tdx_complete_vmcall_map_gpa()", (hardware("TDX"),)),
        Invariant("INV-33", ALL, E, "A page that guest_memfd frees, or that became shared, belongs to no guest in the RMP.",
                  "sev_gmem_invalidate(), sev_gmem_make_shared()",
                  (never("no event reads the RMP: only a failure to change it shows"),)),
        Invariant("INV-34", ALL, E, "Until it is punched a poisoned page is given to no guest.",
                  "kvm_gmem_error_folio(), __kvm_gmem_get_pfn()", (events("no page had a memory error", e.Poisoned),)),
        Invariant("INV-35", GMEM, W, "Asked again while the pin is still there, EAGAIN names the same page or a lower one.",
                  "the in-use test of RFC v2 and v13", (HOLDERS,)),
        Invariant("INV-36", (R, P), E, "A conversion that waits for a reference comes to its end.",
                  "mail of 2025-06-04; RFC v2 patch 38", (events("nothing was waited for", e.Spinning, e.TaskStuck),)),
        Invariant("INV-37", ALL, E,
                  "A VMM answers a request of a TDX or SNP guest with 0, EINVAL or EAGAIN: KVM takes nothing else.",
                  "kvm_is_valid_map_gpa_range_ret()", (hardware("TDX", "SNP"),)),
        Invariant("INV-38", ALL, W, "A guest to which success is returned has its pages converted.",
                  "the VMM's part of KVM_HC_MAP_GPA_RANGE", (shows(e.Capability.HYPERCALLS),)),
        Invariant("INV-39", (R, P), E,
                  "The items of work of a conversion are ordered, apart, inside of the request, and all differ from the "
                  "target.",
                  "RFC v2 patch 04, compute_work()", (events("nothing was to be done", e.WorkItem),)),
        Invariant("INV-40", (R, P), E, "Success means that all work was done, not only the items that were listed.",
                  "RFC v2 patch 04, compute_work() with its shadowed ret", (RESULTS,)),
        Invariant("INV-41", (V,), E, "error_offset is written with EAGAIN and ENOMEM, and only then.",
                  "kvm_gmem_set_attributes()", (RESULTS,)),
        Invariant("INV-42", (V,), E,
                  "A conversion stores once, with memory that it has reserved, and zaps the guest only if it will store.",
                  "__kvm_gmem_set_attributes()", (STORES,)),
        Invariant("INV-43", (V,), E, "A conversion zaps entries of the opposite kind only.",
                  "__kvm_gmem_invalidate_start()",
                  (hardware("TDX"), never("no event has the filter of a zap; only a failed private unmap shows what was "
                  "zapped"))),
        Invariant("INV-44", (V,), E,
                  "Nothing but a conversion changes an attribute: no punch, no poison, no memslot, no close, no end of the VM.",
                  "__kvm_gmem_set_attributes()", (HOST_FAULTS, STORES)),
        Invariant("INV-45", (V,), E,
                  "Until it is punched a page of a guest_memfd keeps its host page, as private and as shared.",
                  "__kvm_gmem_get_pfn()", (shows(e.Capability.PRIVATE_FAULTS),)),
        Invariant("INV-46", (V,), E,
                  "A host has the attributes of the VM or those of the guest_memfd: one capability of the two.",
                  "kvm_vm_ioctl_check_extension_generic()", (never("no event has a capability of the host"),)),
        Invariant("INV-47", (V,), W,
                  "A conversion drains the LRU batches of its own CPU once at most, and those of all CPUs once at most.",
                  "lru_cache_drain_for_folio()", (never("no event has a drain of the LRU batches"),)),
        Invariant("INV-48", (V,), E, "KVM holds no reference to an idle private page.",
                  "__kvm_gmem_get_pfn()", (WHO_HOLDS,)),
        Invariant("INV-49", (V,), W, "Faults of the guest alone make no conversion fail.",
                  "__kvm_gmem_get_pfn()", (WHO_HOLDS,)),
    )
}  # fmt: skip
"""All invariants, by id."""
