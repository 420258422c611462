"""What a stack of the kernel tells: by which way it was entered, and what the function at its top is about.

Names: virt/kvm/guest_memfd.c, virt/kvm/kvm_main.c, arch/x86/kvm (vmx/tdx.c, svm/sev.c, mmu) of Linux 6.8 to 7.2; of a guest
arch/x86/mm/pat/set_memory.c, arch/x86/mm/mem_encrypt_amd.c, arch/x86/coco.
"""

from collections.abc import Sequence

PATHS = {
    "attributes ioctl": (
        "kvm_vm_ioctl_set_mem_attributes", "kvm_vm_set_mem_attributes", "kvm_vm_set_memory_attributes",
            "kvm_pre_set_memory_attributes",
        "kvm_arch_pre_set_memory_attributes", "kvm_arch_post_set_memory_attributes", "kvm_arch_pre_set_vm_memory_attributes",
        "kvm_arch_post_set_vm_memory_attributes", "kvm_gmem_set_attributes", "__kvm_gmem_set_attributes", "kvm_gmem_ioctl",
        "kvm_gmem_convert_range",
    ),
    "fallocate": ("kvm_gmem_fallocate", "kvm_gmem_punch_hole", "kvm_gmem_allocate", "vfs_fallocate"),
    "release": ("kvm_gmem_release",),
    "error_folio": ("kvm_gmem_error_folio", "memory_failure"),
    "memslot": (
        "kvm_set_memory_region", "__kvm_set_memory_region", "kvm_vm_ioctl_set_memory_region",
            "kvm_set_memslot", "kvm_arch_flush_shadow_memslot",
        "kvm_gmem_bind",
    ),
    "destroy": (
        "kvm_destroy_vm", "kvm_arch_destroy_vm", "kvm_arch_pre_destroy_vm", "kvm_put_kvm", "kvm_vm_release",
            "tdx_vm_destroy", "sev_vm_destroy",
        "kvm_mmu_notifier_release", "kvm_flush_shadow_all",
    ),
    "launch": (
        "snp_launch_update", "snp_launch_finish", "snp_launch_update_vmsa", "sev_gmem_post_populate",
            "kvm_gmem_populate", "tdx_gmem_post_populate",
        "tdx_vcpu_init_mem_region", "tdx_td_init", "tdx_vcpu_init", "sev_mem_enc_ioctl", "vt_mem_enc_ioctl",
    ),
    "host fault": ("kvm_gmem_fault_user_mapping",),
    "free": ("kvm_gmem_free_folio", "sev_gmem_invalidate", "kvm_arch_gmem_invalidate"),
    "vcpu run": (
        "kvm_arch_vcpu_ioctl_run", "vcpu_run", "vcpu_enter_guest", "kvm_vcpu_ioctl", "kvm_mmu_page_fault",
            "kvm_mmu_do_page_fault",
        "kvm_tdp_page_fault", "kvm_mmu_faultin_pfn", "kvm_faultin_pfn", "__kvm_faultin_pfn",
    ),
    "vm ioctl": ("kvm_vm_ioctl", "kvm_arch_vm_ioctl"),
}  # fmt: skip
"""By which way the kernel was entered: the functions that only lie on this way. The innermost one counts."""
_PATH_OF = {function: path for path, functions in PATHS.items() for function in functions}
_LESS = frozenset(("free", "vm ioctl"))
"""Ways that are only part of others, which tell more."""

ABOUT = {
    "private map": (
        "tdx_mem_page_aug", "tdx_mem_page_add", "tdx_mem_page_record_premap_cnt",
            "tdx_sept_link_private_spt", "tdx_sept_link_private_sp",
        "sev_gmem_prepare", "rmp_make_private", "tdh_mem_page_aug", "tdh_mem_page_add", "tdh_mem_sept_add",
    ),
    "private unmap": (
        "tdx_sept_drop_private_spte", "tdx_sept_remove_private_spte", "tdx_sept_zap_private_spte",
            "tdx_sept_remove_leaf_spte", "tdx_track",
        "sev_gmem_invalidate", "rmp_make_shared", "kvm_rmp_make_shared", "host_rmp_make_shared", "tdh_mem_page_remove",
        "tdh_mem_range_block", "tdh_mem_track",
    ),
    "teardown": ("tdx_reclaim_page", "__tdx_reclaim_page", "tdx_reclaim_control_page",
        "tdx_sept_free_private_spt", "snp_page_reclaim",
                 "snp_reclaim_pages", "snp_set_rmp_state", "snp_leak_pages", "__snp_leak_pages"),
    "guest's conversion": (
        "__set_memory_enc_pgtable", "__set_memory_enc_dec", "set_memory_encrypted", "set_memory_decrypted",
            "tdx_enc_status_changed",
        "tdx_map_gpa", "enc_dec_hypercall", "amd_enc_status_change_finish", "amd_enc_status_change_prepare",
            "early_set_memory_enc_dec",
        "pvalidate_pages", "set_pages_state", "__set_pages_state", "vmgexit_psc", "snp_set_memory_shared",
            "snp_set_memory_private",
    ),
}  # fmt: skip
_ABOUT_OF = {function: what for what, functions in ABOUT.items() for function in functions}

MACHINERY = frozenset(
    (
        "show_stack", "show_regs", "dump_stack", "dump_stack_lvl", "__dump_stack", "report_bug", "handle_bug", "exc_invalid_op",
        "asm_exc_invalid_op", "__warn", "warn_slowpath_fmt", "__warn_printk", "die_addr", "die",
            "exc_page_fault", "asm_exc_page_fault", "page_fault_oops",
        "bad_area_nosemaphore", "do_user_addr_fault", "should_fail_ex", "should_failslab", "should_fail",
            "__ubsan_handle_out_of_bounds",
        "ubsan_epilogue", "kasan_report", "print_report", "dump_page",
    )
)  # fmt: skip
"""Functions that only report; what they report is below them."""


def plain(function: str) -> str:
    """The name of a function without what the compiler appended."""
    return function.partition(".")[0]


def entry_path(frames: Sequence[str], top: str | None = None) -> str | None:
    """By which way the kernel was entered; None where no frame tells."""
    found = [path for frame in ((top, *frames) if top else frames) if (path := _PATH_OF.get(plain(frame))) is not None]
    return next((path for path in found if path not in _LESS), found[0] if found else None)


def place(function: str | None, frames: Sequence[str]) -> str | None:
    """The function that something happened in: the one that a header names, else the first below those that only report."""
    if function is not None:
        return plain(function)
    return next((name for frame in frames if (name := plain(frame)) not in MACHINERY), None)


def about(function: str | None, frames: Sequence[str]) -> str | None:
    """Which step of the life of a private page the place belongs to; None where it is something else."""
    top = [*([function] if function else []), *frames[:4]]
    return next((what for frame in top if (what := _ABOUT_OF.get(plain(frame))) is not None), None)
