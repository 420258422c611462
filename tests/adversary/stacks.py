"""Random stacks as ``show_trace_log_lvl`` and ``lockdep_print_held_locks`` print them, with and without functions that convert.

``arch/x86/kernel/dumpstack.c``: a frame is `` %s%pBb``, "? " where the unwinder does not vouch for it; ``%pB`` adds the module.
"""

from dataclasses import dataclass
from random import Random

CONVERTING = (
    (
        "rmpupdate",
        "rmp_make_shared",
        "snp_make_page_shared [kvm_amd]",
        "sev_gmem_invalidate [kvm_amd]",
        "kvm_gmem_free_folio [kvm]",
    ),
    ("rmpupdate", "rmp_make_private", "sev_gmem_prepare [kvm_amd]", "kvm_gmem_get_pfn [kvm]", "kvm_mmu_faultin_pfn [kvm]"),
    ("tdx_reclaim_page [kvm_intel]", "tdx_reclaim_td_control_pages [kvm_intel]", "tdx_vm_destroy [kvm_intel]"),
    ("tdx_sept_remove_private_spte [kvm_intel]", "handle_changed_spte [kvm]", "tdp_mmu_zap_leafs [kvm]"),
    ("tdh_mem_page_remove", "tdx_sept_drop_private_spte [kvm_intel]", "tdp_mmu_set_spte_atomic [kvm]"),
    ("xas_store", "xa_store", "kvm_vm_set_mem_attributes [kvm]", "kvm_vm_ioctl_set_mem_attributes [kvm]"),
    ("kvm_gmem_invalidate_begin [kvm]", "kvm_gmem_punch_hole [kvm]", "kvm_gmem_fallocate [kvm]", "vfs_fallocate"),
    ("kvm_gmem_release [kvm]", "__fput", "task_work_run"),
    ("kvm_gmem_error_folio [kvm]", "truncate_error_folio", "me_pagecache_clean", "memory_failure"),
    ("psmash", "snp_rmptable_psmash [kvm_amd]", "sev_handle_rmp_fault [kvm_amd]", "kvm_mmu_page_fault [kvm]"),
)
"""Innermost frame first."""
OTHERS = (
    ("ext4_writepages", "do_writepages", "filemap_fdatawrite_wbc", "writeback_sb_inodes", "wb_workfn"),
    ("nvme_queue_rq", "blk_mq_dispatch_rq_list", "blk_mq_run_hw_queue", "blk_mq_submit_bio"),
    ("tcp_sendmsg_locked", "tcp_sendmsg", "sock_write_iter", "vfs_write", "ksys_write"),
    ("shrink_folio_list", "shrink_inactive_list", "shrink_lruvec", "balance_pgdat", "kswapd"),
    ("drm_atomic_helper_commit_tail", "commit_tail", "process_one_work", "worker_thread", "kthread"),
    ("i915_gem_object_get_pages [i915]", "i915_vma_pin_ww [i915]", "eb_validate_vmas [i915]"),
)
ENTRY = (("do_syscall_64", "entry_SYSCALL_64_after_hwframe"), ("ret_from_fork", "ret_from_fork_asm"))
BOARDS = ("Supermicro Super Server/H12SSL-NT, BIOS 2.4 04/14/2022", "Dell Inc. PowerEdge R760, BIOS 2.1.5 04/08/2023")
TASKS = (
    "qemu-system-x86",
    "CPU 3/KVM",
    "kworker/u256:4",
    "cloud-hyperviso",
    "enarx",
    "stress-ng",
    "swapper/12",
    "sh",
    "(udev-worker)",
)


@dataclass(frozen=True)
class Stack:
    """Functions from the innermost frame on, the task, and its CPU."""

    functions: tuple[str, ...]
    task: str
    pid: int
    cpu: int
    converting: bool

    @property
    def inner(self) -> str:
        """The innermost function, without its module."""
        return self.functions[0].split()[0]

    @property
    def names(self) -> frozenset[str]:
        """All functions, without their modules."""
        return frozenset(function.split()[0] for function in self.functions)


def stack(rng: Random) -> Stack:
    """A task somewhere in the kernel."""
    converting = rng.random() < 0.6
    inner = rng.choice(CONVERTING if converting else OTHERS)
    return Stack((*inner, *rng.choice(ENTRY)), rng.choice(TASKS), rng.randrange(2, 70000), rng.randrange(128), converting)


def symbol(rng: Random, function: str) -> str:
    """A function as ``%pS`` prints it: ``rmpupdate+0xd5/0x110 [kvm_amd]``."""
    name, _, module = function.partition(" ")
    size = rng.randrange(0x20, 0x900)
    return f"{name}+{rng.randrange(4, size):#x}/{size:#x}{' ' + module if module else ''}"


def trace(rng: Random, where: Stack, *helpers: str) -> list[str]:
    """``Call Trace:`` with the frames, helpers on top, and some that the unwinder only found on the stack."""
    lines = ["Call Trace:", " <TASK>"]
    for function in (*helpers, *where.functions):
        if rng.random() < 0.15:
            lines.append(f" ? {symbol(rng, rng.choice(rng.choice(CONVERTING + OTHERS)))}")
        lines.append(f" {symbol(rng, function)}")
    return [*lines, " </TASK>"]


def about(rng: Random, where: Stack) -> list[str]:
    """``dump_stack_print_info``, in the wordings of several kernels."""
    taint = rng.choice(("Not tainted", "Tainted: G        W   E     ", "Tainted: G S", "Tainted: [W]=WARN"))
    release = rng.choice(("6.1.0-rc4+ #30", "6.8.0-31-generic #31-Ubuntu", "6.16.0 #1 PREEMPT(voluntary)", "7.2.13 #1 NONE"))
    uid = rng.choice(("", "UID: 0 "))
    return [
        f"CPU: {where.cpu} {uid}PID: {where.pid} Comm: {where.task} {taint} {release}",
        f"Hardware name: {rng.choice(BOARDS)}",
    ]


def registers(rng: Random, function: str) -> list[str]:
    """``show_regs``: RIP with the symbol, code bytes, some registers."""

    def word() -> str:
        return f"{rng.getrandbits(64):016x}"

    code = " ".join(f"{rng.getrandbits(8):02x}" for _ in range(8))
    return [
        f"RIP: 0010:{symbol(rng, function)}",
        f"Code: {code} <0f> 0b {code}",
        f"RSP: 0018:ffffc9000{rng.getrandbits(28):07x} EFLAGS: 00010246",
        f"RAX: {word()} RBX: {word()} RCX: {word()}",
        f"CR2: {word()} CR3: {word()} CR4: 0000000000770ef0",
    ]
