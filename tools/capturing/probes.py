"""Which probes show what of a conversion, and how to place each one on kernels that differ.

Several definitions of one event are tried from the first to the last; the first that the kernel takes is used. The first one
names arguments by BTF (CONFIG_PROBE_EVENTS_BTF_ARGS; in return probes Linux 6.9 or newer). The next ones do without BTF, by
number (``$arg2``) or by register (x86-64). What the events are called is what `gmemstate ingest` knows.
"""

from typing import NamedTuple

GROUP = "conv"
RETURN = "r4096"
"""A probe on a return follows as many calls at once (KRETPROBE_MAXACTIVE_MAX): every vCPU sits inside of kvm_vcpu_ioctl()."""
IN_PLACE = "kvm_gmem_ioctl"
"""The function that kernels with in-place conversion have."""

CONVERT, CONVERT_IN_PLACE = 0x4020AED2, 0xC080AED2
SET_REGION, RUN = 0x40A0AE49, 0xAE80
"""KVM_SET_MEMORY_ATTRIBUTES, KVM_SET_MEMORY_ATTRIBUTES2, KVM_SET_USER_MEMORY_REGION2, KVM_RUN: as the kernel sees them."""

_CONVERTING = f"cmd=={CONVERT:#x}||cmd=={CONVERT_IN_PLACE:#x}"


class Probe(NamedTuple):
    """An event, the definitions that may make it, and the filter without which it would show too much."""

    name: str
    shows: str
    definitions: tuple[str, ...]
    filter: str | None = None
    per_page: bool = False
    """it fires for every page: much of it, and slow"""
    needs: str | None = None
    """the kernel function without which it shows nothing of conversions, and much of everything else"""

    @property
    def symbols(self) -> tuple[str, ...]:
        """The kernel function (or, of an event probe, the event) that each definition is placed on."""
        return tuple(definition.split()[1] for definition in self.definitions)


def _probe(
    name: str, shows: str, *places: str, by: str | None = None, per_page: bool = False, needs: str | None = None
) -> Probe:
    """A probe; each place is written ``p FUNCTION ARGUMENTS`` (``r`` for its return), the event's name is put in."""
    parts = (place.partition(" ") for place in places)
    definitions = (f"{RETURN if kind == 'r' else kind}:{GROUP}/{name} {rest}" for kind, _, rest in parts)
    return Probe(name, shows, tuple(definitions), by, per_page, needs)


_RANGE = "kvm=kvm:x64 start=range->start:x64 end=range->end:x64 slot=range->slot->id:s16"
_RANGE_BY_REGISTER = "kvm=%di:x64 start=+8(%si):x64 end=+16(%si):x64"
_SLOT = "base_gfn=slot->base_gfn:x64 npages=slot->npages:u64 slot=slot->id:s16"
_INODE = "inode=slot->gmem.file->f_inode:x64"
_COMPARED = "kvm=kvm:x64 start=start:x64 end=end:x64 mask=mask:x64 attrs=attrs:x64 ret=$retval:u8"
_COMPARED_BY_NUMBER = "kvm=$arg1:x64 start=$arg2:x64 end=$arg3:x64 mask=$arg4:x64 attrs=$arg5:x64 ret=$retval:u8"
_PRE = f"{_RANGE} attrs=range->arg.attributes:x64 flush=$retval:u8"
_POST = f"{_RANGE} attrs=range->arg.attributes:x64"
_ARG = "addr=+u0(%dx):x64 size=+u8(%dx):x64 attrs=+u16(%dx):x64 flags=+u24(%dx):x64"
_FILE_ARG = "offset=+u0({0}):x64 size=+u8({0}):x64 attrs=+u16({0}):x64 flags=+u24({0}):x64"
_REMOVED = "entry=+0({0}):x64 level_state=+0({1}):x64 status=$retval:x64"

PROBES: tuple[Probe, ...] = (
    _probe(
        "gmem_ioctl", "in-place conversions: what was asked",
        f"p kvm_gmem_ioctl cmd=ioctl:x32 {_FILE_ARG.format('arg')} error_in=+u32(arg):x64 inode=file->f_inode:x64 "
        "kvm=+0(file->private_data):x64",
        f"p kvm_gmem_ioctl cmd=%si:x32 {_FILE_ARG.format('%dx')} error_in=+u32(%dx):x64",
        by=f"cmd=={CONVERT_IN_PLACE:#x}",
    ),
    _probe(
        "gmem_ioctl_ret", "in-place conversions: the result, and the page in use",
        f"r kvm_gmem_ioctl cmd=ioctl:x32 ret=$retval:s64 {_FILE_ARG.format('arg')} error_offset=+u32(arg):x64 "
        "inode=file->f_inode:x64",
        f"r kvm_gmem_ioctl cmd=$arg2:x32 ret=$retval:s64 {_FILE_ARG.format('$arg3')} error_offset=+u32($arg3):x64",
        by=f"cmd=={CONVERT_IN_PLACE:#x}",
    ),
    _probe("vm_ioctl", "conversions: what was asked", f"p kvm_vm_ioctl file=%di:x64 cmd=%si:x32 {_ARG}", by=_CONVERTING),
    _probe(
        "vm_ioctl_ret", "conversions: the result",
        "r kvm_vm_ioctl cmd=ioctl:x32 ret=$retval:s64 addr=+u0(arg):x64 size=+u8(arg):x64 attrs=+u16(arg):x64 "
        "kvm=filp->private_data:x64",
        "r kvm_vm_ioctl cmd=$arg2:x32 ret=$retval:s64 addr=+u0($arg3):x64 size=+u8($arg3):x64 attrs=+u16($arg3):x64",
        by=_CONVERTING,
    ),
    _probe(
        "vcpu_ioctl_ret", "KVM_RUN that failed",
        "r kvm_vcpu_ioctl cmd=ioctl:x32 ret=$retval:s64",
        "r kvm_vcpu_ioctl cmd=$arg2:x32 ret=$retval:s64",
        by=f"cmd=={RUN:#x}&&ret<0",
    ),
    _probe("uexit", "exits to the VMM, with the errno", "e kvm.kvm_userspace_exit reason=$reason:s32 err=$errno:s32"),
    _probe(
        "run_ret", "memory fault exits: address and kind of access",
        "r kvm_arch_vcpu_ioctl_run ret=$retval:s32 exit=vcpu->run->exit_reason:u32 flags=vcpu->run->memory_fault.flags:x64 "
        "gpa=vcpu->run->memory_fault.gpa:x64 size=vcpu->run->memory_fault.size:x64",
        by="exit==39||exit==3||(ret<0&&ret!=-4)",
    ),
    _probe("hc_done", "what the guest gets in return", "p complete_hypercall_exit ret=vcpu->run->hypercall.ret:s64"),
    _probe(
        "gmem_store", "in-place conversions: the point of commit",
            "e maple_tree.ma_write index=$index:u64 last=$last:u64 val=$val:x64",
        by="last<4194304&&(val==0x1||val==0x11)",
        needs=IN_PLACE,
    ),
    _probe(
        "host_unmap", "in-place conversions: the host's mappings are gone",
        "p unmap_mapping_pages inode=mapping->host:x64 start=start:x64 nr=nr:x64",
        "p unmap_mapping_pages start=%si:x64 nr=%dx:x64",
        needs=IN_PLACE,
    ),
    _probe(
        "lru_folio", "in-place conversions: the test for pages in use",
        "p lru_cache_drain_for_folio index=folio->index:x64 refs=folio->_refcount.counter:s32 extra=extra_refs:u32 "
        "drained=+0(drained):u32",
    ),
    _probe("lru_drain_all", "in-place conversions: batches are drained", "p lru_add_drain_all", needs=IN_PLACE),
    _probe(
        "range_has_attrs", "conversions: whether there was anything to do",
        f"r kvm_range_has_memory_attributes {_COMPARED}",
        f"r kvm_range_has_vm_memory_attributes {_COMPARED}",
        f"r kvm_range_has_memory_attributes {_COMPARED_BY_NUMBER}",
        f"r kvm_range_has_vm_memory_attributes {_COMPARED_BY_NUMBER}",
    ),
    _probe(
        "pre_set", "conversions: a memslot before",
        f"r kvm_arch_pre_set_memory_attributes {_PRE}", f"r kvm_arch_pre_set_vm_memory_attributes {_PRE}",
    ),
    _probe(
        "post_set", "conversions: a memslot after",
        f"p kvm_arch_post_set_memory_attributes {_POST}", f"p kvm_arch_post_set_vm_memory_attributes {_POST}",
        f"p kvm_arch_post_set_memory_attributes {_RANGE_BY_REGISTER}",
    ),
    _probe(
        "unmap_gfn", "the guest's mappings are gone",
        f"r kvm_unmap_gfn_range {_RANGE} filter=range->attr_filter:u32 flush=$retval:u8",
        f"p kvm_unmap_gfn_range {_RANGE_BY_REGISTER}",
    ),
    _probe("inv_start", "an invalidation begins", "p kvm_mmu_invalidate_start kvm=kvm:x64",
        "p kvm_mmu_invalidate_start kvm=%di:x64"),
    _probe(
        "inv_add", "an invalidation's range",
        "p kvm_mmu_invalidate_range_add kvm=kvm:x64 start=start:x64 end=end:x64",
        "p kvm_mmu_invalidate_range_add kvm=%di:x64 start=%si:x64 end=%dx:x64",
    ),
    _probe("inv_end", "an invalidation ends", "p kvm_mmu_invalidate_end kvm=kvm:x64", "p kvm_mmu_invalidate_end kvm=%di:x64"),
    _probe("tlb_flush", "a TLB flush", "p kvm_flush_remote_tlbs kvm=kvm:x64", "p kvm_flush_remote_tlbs kvm=%di:x64"),
    _probe(
        "gmem_create", "a guest_memfd is made",
        "r kvm_gmem_create kvm=kvm:x64 size=args->size:x64 flags=args->flags:x64 fd=$retval:s32",
        "r kvm_gmem_create kvm=$arg1:x64 size=+0($arg2):x64 flags=+8($arg2):x64 fd=$retval:s32",
    ),
    _probe(
        "gmem_bind", "a guest_memfd gets a memslot, and which inode it is",
        f"r kvm_gmem_bind kvm=kvm:x64 {_SLOT} fd=fd:u32 offset=offset:x64 {_INODE} ret=$retval:s32",
        f"r kvm_gmem_bind kvm=kvm:x64 {_SLOT} fd=fd:u32 offset=offset:x64 ret=$retval:s32",
        "r kvm_gmem_bind kvm=$arg1:x64 fd=$arg3:u32 offset=$arg4:x64 ret=$retval:s32",
    ),
    _probe(
        "gmem_prepare", "the same on kernels with in-place conversion",
        f"r kvm_gmem_prepare_memory_region kvm=kvm:x64 {_SLOT} fd=fd:u32 offset=offset:x64 {_INODE} ret=$retval:s32",
    ),
    _probe(
        "gmem_commit", "the same, when it is certain",
        f"r kvm_gmem_commit_memory_region kvm=kvm:x64 {_SLOT} pgoff=slot->gmem.pgoff:x64 {_INODE} ret=$retval:s32",
    ),
    _probe("gmem_unbind", "a memslot lets go of its guest_memfd", f"p kvm_gmem_unbind {_SLOT} pgoff=slot->gmem.pgoff:x64"),
    _probe(
        "gmem_fallocate", "pages are punched or allocated",
        "r kvm_gmem_fallocate inode=file->f_inode:x64 mode=mode:x32 offset=offset:x64 len=len:x64 ret=$retval:s64",
        "r kvm_gmem_fallocate mode=$arg2:x32 offset=$arg3:x64 len=$arg4:x64 ret=$retval:s64",
    ),
    _probe(
        "gmem_release", "a guest_memfd is closed",
        "p kvm_gmem_release inode=inode:x64 size=inode->i_size:s64", "p kvm_gmem_release inode=%di:x64",
    ),
    _probe("gmem_error", "a poisoned page", "p kvm_gmem_error_folio inode=mapping->host:x64 index=folio->index:x64"),
    _probe(
        "gmem_get_pfn", "which host page the guest is given",
        "r kvm_gmem_get_pfn kvm=kvm:x64 slot=slot->id:s16 gfn=gfn:x64 pfn=+0(pfn):x64 ret=$retval:s32",
        "r kvm_gmem_get_pfn kvm=$arg1:x64 gfn=$arg3:x64 pfn=+0($arg4):x64 ret=$retval:s32",
        per_page=True,
    ),
    _probe(
        "gmem_ufault", "the host accesses a page",
        "r kvm_gmem_fault_user_mapping pgoff=vmf->pgoff:x64 addr=vmf->address:x64 ret=$retval:x32",
    ),
    _probe(
        "gmem_inv", "pages of a guest_memfd are invalidated",
        "p __kvm_gmem_invalidate_start start=start:x64 end=end:x64 filter=attr_filter:u32",
        "p __kvm_gmem_invalidate_start start=%si:x64 end=%dx:x64 filter=%cx:u32",
    ),
    _probe(
        "set_region", "memslots: what was asked",
        "p kvm_vm_ioctl cmd=%si:x32 slot=+u0(%dx):u32 flags=+u4(%dx):x32 gpa=+u8(%dx):x64 size=+u16(%dx):x64 hva=+u24(%dx):x64 "
        "gmem_offset=+u32(%dx):x64 gmem_fd=+u40(%dx):s32",
        by=f"cmd=={SET_REGION:#x}",
    ),
    _probe(
        "set_region_ret", "memslots: the result",
        "r kvm_vm_ioctl cmd=ioctl:x32 ret=$retval:s64 slot=+u0(arg):u32 gpa=+u8(arg):x64 size=+u16(arg):x64",
        "r kvm_vm_ioctl cmd=$arg2:x32 ret=$retval:s64 slot=+u0($arg3):u32 gpa=+u8($arg3):x64 size=+u16($arg3):x64",
        by=f"cmd=={SET_REGION:#x}",
    ),
    _probe(
        "vm_created", "a VM is made: nothing of it was converted before", "p kvm_arch_init_vm kvm=kvm:x64 type=type:u64",
        "p kvm_arch_init_vm kvm=%di:x64 type=%si:u64",
    ),
    _probe("vm_destroyed", "a VM is gone: its pointer may be another one's next",
        "p kvm_destroy_vm kvm=kvm:x64", "p kvm_destroy_vm kvm=%di:x64"),
    _probe(
        "page_remove", "TDX: a page is taken out of the secure EPT",
        f"r tdh_mem_page_remove gpa=gpa:x64 {_REMOVED.format('ext_err1', 'ext_err2')}",
        f"r tdh_mem_page_remove gpa=$arg2:x64 {_REMOVED.format('$arg4', '$arg5')}",
        by="status!=0",
    ),
)  # fmt: skip


class Tracepoint(NamedTuple):
    """A static event, and the filter without which it would show too much."""

    name: str
    filter: str | None = None
    per_page: bool = False


TRACEPOINTS: tuple[Tracepoint, ...] = (
    Tracepoint("kvm/kvm_vm_set_mem_attributes"),
    Tracepoint("kvm/kvm_set_vm_mem_attributes"),
    Tracepoint("kvm/kvm_unmap_hva_range"),
    Tracepoint("kvm/kvm_hypercall"),
    Tracepoint("kvm/kvm_userspace_exit"),
    Tracepoint("kvm/kvm_rmp_fault"),
    Tracepoint("kvm/kvm_vmgexit_enter"),
    Tracepoint("kvm/kvm_vmgexit_exit"),
    Tracepoint("kvm/kvm_vmgexit_msr_protocol_enter"),
    Tracepoint("kvm/kvm_vmgexit_msr_protocol_exit"),
    Tracepoint("kvmmmu/kvm_mmu_split_huge_page"),
    Tracepoint("ras/memory_failure_event"),
    Tracepoint("oom/mark_victim"),
    Tracepoint("signal/signal_generate", "sig==7||sig==9"),
    Tracepoint("syscalls/sys_enter_ioctl", f"cmd=={CONVERT:#x}||cmd=={CONVERT_IN_PLACE:#x}||cmd=={RUN:#x}"),
    Tracepoint("syscalls/sys_exit_ioctl"),
    Tracepoint("syscalls/sys_enter_fallocate"),
    Tracepoint("syscalls/sys_exit_fallocate"),
    Tracepoint("syscalls/sys_enter_madvise"),
    Tracepoint("syscalls/sys_exit_madvise"),
    Tracepoint("kvm/kvm_page_fault", per_page=True),
    Tracepoint("kvmmmu/kvm_tdp_mmu_spte_changed", per_page=True),
)
