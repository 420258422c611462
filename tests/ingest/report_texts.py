"""Reports as kernels print them, of every kind, over random stacks: written from the formats of the kernel.

The generator knows the task, the function and the kind; a reader has nothing but the lines.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HELPERS = [
    "dump_stack_lvl",
    "dump_stack",
    "__mutex_lock.constprop.0",
    "mutex_lock",
    "lock_acquire",
    "_raw_spin_lock",
    "memcpy",
    "schedule",
]
WORKERS = [
    ("kvm_gmem_get_pfn", "kvm"),
    ("tdx_sept_drop_private_spte", "kvm_intel"),
    ("rmpupdate", None),
    ("rmp_make_shared", None),
    ("sev_gmem_invalidate", "kvm_amd"),
    ("kvm_vm_ioctl_set_mem_attributes", "kvm"),
    ("tdx_reclaim_page", "kvm_intel"),
    ("ext4_writepages", "ext4"),
    ("nvme_queue_rq.part.0", "nvme"),
    ("shrink_node", None),
    ("accept_memory", None),
]
OUTER = ["kvm_vm_ioctl", "vfs_fallocate", "do_exit", "process_one_work"]
ENTRY = ["__x64_sys_ioctl", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]


@dataclass
class ReportText:
    """Lines, and what they say; ``function`` None where they name none."""

    lines: list[str]
    what: str
    thread: int | None
    function: str | None
    name: str = "kernel_warned"
    also: dict[str, Any] = field(default_factory=dict)


@dataclass
class Scene:
    """The random parts of one report."""

    rng: random.Random
    arm: bool = False

    def __post_init__(self) -> None:
        rng = self.rng
        self.pid = rng.randrange(2, 4_000_000)
        self.cpu = rng.randrange(256)
        self.comm = rng.choice(["qemu-kvm", "CPU 3/KVM", "syz.0.17", "kworker/3:1", "a b", "enarx"])
        self.culprit, self.module = rng.choice(WORKERS)
        self.frames = [
            *rng.sample(HELPERS, rng.randrange(4)),
            self.culprit,
            *rng.sample([name for name, _ in WORKERS], 3),
            *ENTRY,
        ]

    def spelled(self, name: str) -> str:
        """A frame in one of the forms of the kernel and of decode_stacktrace.sh."""
        module = dict(WORKERS).get(name)
        of = f" [{module}]" if module else ""
        match self.rng.randrange(4):
            case 0 if module:
                return f"{name}+0x1a0/0x200 [{module} 92b56a1aeace799385454e64f4d853f860f01956]"
            case 1:
                return f"{name}+0x1a0/0x200{of} virt/kvm/guest_memfd.c:353"
            case _:
                return f"{name}+0x1a0/0x200{of}"

    def stack(self, *, head: tuple[str, ...] = ()) -> list[str]:
        """A stack of the task."""
        hints = [f" ? {self.rng.choice(HELPERS)}+0x1/0x2" for _ in range(self.rng.randrange(3))]
        lines = [f" {self.spelled(name)}" for name in (*head, *self.frames)]
        for hint in hints:
            lines.insert(self.rng.randrange(len(lines)), hint)
        return ["Call Trace:", " <TASK>", *lines, " </TASK>"]

    @property
    def task(self) -> list[str]:
        """The lines about the task and the machine."""
        uid = self.rng.choice(["", "UID: 0 "])
        taint = self.rng.choice(["Not tainted", "Tainted: G        W   E     ", "Tainted: G S"])
        return [
            f"CPU: {self.cpu} {uid}PID: {self.pid} Comm: {self.comm} {taint} 6.16.0-rc1 #1 PREEMPT(full) ",
            "Hardware name: Dell Inc. PowerEdge R760/09XV41, BIOS 2.1.5 03/14/2024",
        ]

    def rip(self, name: str | None = None) -> list[str]:
        """The instruction pointer and the registers."""
        return [
            f"RIP: 0010:{self.spelled(name or self.culprit)}",
            "Code: c1 c3 c3 66 0f 1f 84 00 00 00 00 00 49 89 f8 48 89 f0 48 39 f2 73 5a <49> 23 3c",
            "RSP: 0018:ffffc900031a7cc8 EFLAGS: 00010246",
            "RAX: 1fffffffffffffff RBX: 0000000000000004 RCX: 0000000000080000",
        ]

    @property
    def user(self) -> list[str]:
        """The registers of the program, in an ioctl."""
        return [
            "RIP: 0033:0x7fbeeff8efc9",
            "RSP: 002b:00007ffffdf1e2c8 EFLAGS: 00000246 ORIG_RAX: 0000000000000010",
            "RDX: 00007ffffdf1e300 RSI: 000000004020aed2 RDI: 0000000000000004",
        ]


END = "---[ end trace 0000000000000000 ]---"
CUT = "------------[ cut here ]------------"
Maker = Callable[[Scene], ReportText]
MAKERS: dict[str, Maker] = {}


def maker(function: Maker) -> Maker:
    MAKERS[function.__name__] = function
    return function


def plain(name: str) -> str:
    return name.partition(".")[0]


def _said(
    at: Scene, lines: list[str], what: str, *, name: str = "kernel_warned", function: bool = True, **also: Any
) -> ReportText:
    return ReportText(lines, what, at.pid, plain(at.culprit) if function else None, name, also)


@maker
def warn_old(at: Scene) -> ReportText:
    where = f"WARNING: CPU: {at.cpu} PID: {at.pid} at arch/x86/kvm/vmx/tdx.c:1500 {at.culprit}+0x10/0x20"
    return _said(
        at,
        [CUT, where, "Modules linked in: kvm", *at.task, *at.rip(), *at.stack(), END],
        "WARN",
        site="arch/x86/kvm/vmx/tdx.c:1500",
    )


@maker
def warn_new(at: Scene) -> ReportText:
    where = f"WARNING: virt/kvm/guest_memfd.c:9 at {at.culprit}+0x10/0x20 [kvm], CPU#{at.cpu}: {at.comm}/{at.pid}"
    return _said(
        at, [CUT, "folio_test_large(folio)", where, *at.task, *at.rip(), *at.stack(), *at.user, END], "WARN", ioctl="0x4020aed2"
    )


@maker
def bug(at: Scene) -> ReportText:
    trap = at.rng.choice(["invalid opcode: 0000 [#1] PREEMPT SMP", "Oops: invalid opcode: 0000 [#1] SMP NOPTI"])
    lines = [CUT, "kernel BUG at arch/x86/virt/svm/sev.c:800!", trap, *at.task, *at.rip(), *at.stack(), END]
    return _said(at, lines, "BUG", site="arch/x86/virt/svm/sev.c:800", oops=1)


@maker
def fault(at: Scene) -> ReportText:
    lines = [
        "BUG: unable to handle page fault for address: ff1276cbfdf36000",
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0000) - not-present page",
        "PGD 40801067 P4D 40802067 PUD 10db7ff067 PMD 10db7fe067 PTE 0",
        at.rng.choice(["Oops: 0000 [#1] PREEMPT SMP NOPTI", "Oops: Oops: 0000 [#1] SMP NOPTI"]),
        *at.task,
        *at.rip(),
        *at.stack(),
        "Modules linked in: kvm",
        "CR2: ff1276cbfdf36000",
        END,
        *at.rip(),
        "Kernel panic - not syncing: Fatal exception",
        "Kernel Offset: disabled",
        "---[ end Kernel panic - not syncing: Fatal exception ]---",
    ]
    return _said(at, lines, "page fault", panic="Fatal exception", access="read")


@maker
def null(at: Scene) -> ReportText:
    lines = ["BUG: kernel NULL pointer dereference, address: 0000000000000090", "#PF: error_code(0x0002) - not-present page"]
    return _said(at, [*lines, "Oops: 0002 [#3] PREEMPT SMP NOPTI", *at.task, *at.rip(), *at.stack(), END], "page fault", oops=3)


@maker
def fault_in_a_helper(at: Scene) -> ReportText:
    lines = [
        "BUG: unable to handle page fault for address: ff1276cbfdf36000",
        "Oops: 0000 [#1] SMP",
        *at.task,
        *at.rip("memcpy"),
    ]
    return _said(at, [*lines, *at.stack(), END], "page fault", rip="memcpy")


@maker
def rmp_violation(at: Scene) -> ReportText:
    lines = [
        "BUG: unable to handle page fault for address: ff1276cbfdf36000",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x80000003) - RMP violation",
        "PGD 5a31801067 P4D 5a31802067 PUD 40ccfb5063 PMD 40e5954063 PTE 80000040fdf36163",
        "SEV-SNP: PFN 0x40fdf36, RMP entry: [0x6010fffffffff001 - 0x000000000000001f]",
        "Oops: 0003 [#1] SMP NOPTI",
        *at.task,
        *at.rip(),
        *at.stack(),
        END,
    ]
    return _said(at, lines, "page fault of the host", name="rmp_violation", pfn=0x40FDF36, thread=at.pid)


@maker
def protection(at: Scene) -> ReportText:
    head = "Oops: general protection fault, probably for non-canonical address 0xdffffc0000000003: 0000 [#1] SMP KASAN NOPTI"
    head = at.rng.choice([head, head.removeprefix("Oops: ")])
    hint = "KASAN: null-ptr-deref in range [0x0000000000000018-0x000000000000001f]"
    return _said(
        at, [head, hint, *at.task, *at.rip(), *at.stack(), END], "general protection", name="general_protection", thread=at.pid
    )


@maker
def kasan(at: Scene) -> ReportText:
    access = at.rng.choice(["Write", "Read"])
    inlined = [
        "BUG: KASAN: slab-use-after-free in instrument_atomic_read include/linux/instrumented.h:68 [inline]"
    ] * at.rng.randrange(2)
    lines = [
        "=" * 66,
        *inlined,
        f"BUG: KASAN: slab-use-after-free in {at.spelled(at.culprit)}",
        f"{access} of size 8 at addr ffff88807befa508 by task {at.comm}/{at.pid}",
        "",
        *at.task,
        *at.stack(head=("print_report", "kasan_report")),
        "",
        f"Allocated by task {at.pid + 1}:",
        " kasan_save_stack+0x30/0x50",
        " kvm_set_memory_region+0x747/0xb90 [kvm]",
        "",
        f"Freed by task {at.pid + 2}:",
        " kasan_save_track+0x3e/0x80",
        " kfree+0x19a/0x6d0",
        " kvm_free_memslot+0x9c4/0xb90 [kvm]",
        "",
        "The buggy address belongs to the object at ffff88807befa400",
        " which belongs to the cache kmalloc-cg-512 of size 512",
        "The buggy address is located 264 bytes inside of",
        " freed 512-byte region [ffff88807befa400, ffff88807befa600)",
        "Memory state around the buggy address:",
        " ffff88807befa400: fa fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb",
        ">ffff88807befa500: fb fb fb fb fb fb fb fb",
        "           ^",
        "=" * 66,
    ]
    return _said(
        at,
        lines,
        "KASAN",
        access=access.lower(),
        size=8,
        rule="slab-use-after-free",
        allocated_in="kvm_set_memory_region",
        freed_in="kvm_free_memslot",
        freed_by=at.pid + 2,
    )


@maker
def kmsan(at: Scene) -> ReportText:
    lines = [
        "=" * 53,
        f"BUG: KMSAN: uninit-value in {at.spelled(at.culprit)}",
        *(f" {at.spelled(name)}" for name in at.frames),
        "",
    ]
    lines += [
        "Uninit was created at:",
        " __alloc_pages_noprof+0x9a/0xe0",
        " kvm_gmem_get_folio+0x1/0x2 [kvm]",
        "",
        *at.task,
        "=" * 53,
    ]
    return _said(at, lines, "KMSAN", allocated_in="kvm_gmem_get_folio")


@maker
def kcsan(at: Scene) -> ReportText:
    lines = ["=" * 66, f"BUG: KCSAN: data-race in {plain(at.culprit)} / kvm_gmem_fallocate", ""]
    lines += [
        f"write to 0xffff888100000000 of 8 bytes by task {at.pid} on cpu {at.cpu}:",
        *(f" {at.spelled(name)}" for name in at.frames),
        "",
    ]
    lines += ["read to 0xffff888100000000 of 8 bytes by task 5 on cpu 1:", " kvm_gmem_fallocate+0x1/0x2 [kvm]", "", "=" * 66]
    return _said(at, lines, "KCSAN", access="write", other="kvm_gmem_fallocate")


@maker
def kfence(at: Scene) -> ReportText:
    lines = [
        "=" * 66,
        f"BUG: KFENCE: use-after-free read in {at.spelled(at.culprit)}",
        "",
        "Use-after-free read at 0x00000000c5c2a1f2 (in kfence-#24):",
    ]
    lines += [*(f" {at.spelled(name)}" for name in at.frames), "", "kfence-#24: 0x01-0x02, size=32, cache=kmalloc-32", ""]
    lines += [
        "allocated by task 507 on cpu 0 at 18.7s:",
        " kvm_gmem_create+0x1/0x2 [kvm]",
        "",
        "freed by task 507 on cpu 0 at 18.8s:",
    ]
    return _said(
        at,
        [*lines, " kvm_gmem_release+0x1/0x2 [kvm]", "", *at.task, "=" * 66],
        "KFENCE",
        access="read",
        freed_in="kvm_gmem_release",
    )


@maker
def ubsan(at: Scene) -> ReportText:
    lines = [
        CUT,
        "UBSAN: array-index-out-of-bounds in arch/x86/kvm/vmx/tdx.c:99:13",
        "index 4 is out of range for type 'u64 [3]'",
    ]
    return _said(
        at,
        [*lines, *at.task, *at.stack(head=("__ubsan_handle_out_of_bounds.cold",)), END],
        "UBSAN",
        rule="array-index-out-of-bounds",
    )


@maker
def circular(at: Scene) -> ReportText:
    lines = [
        "=" * 54,
        "WARNING: possible circular locking dependency detected",
        "6.17.0-rc7 #109 Tainted: G S",
        "-" * 54,
        f"{at.comm}/{at.pid} is trying to acquire lock:",
        f"ff110004a0625c70 (mapping.invalidate_lock#4){{++++}}-{{4:4}}, at: {at.spelled(at.culprit)}",
        "",
        "but task is already holding lock:",
        ("ff110004db628d80 (&mm->mmap_lock){++++}-{4:4}, at: lock_mm_and_find_vma+0x2d/0x520"),
        "",
        "which lock already depends on the new lock.",
        "",
        "the existing dependency chain (in reverse order) is:",
        "",
        "-> #1 (&mm->mmap_lock){++++}-{4:4}:",
        "       __lock_acquire+0x5ba/0xa20",
        "       tdx_gmem_post_populate+0x163/0x640 [kvm_intel]",
        "",
        "-> #0 (mapping.invalidate_lock#4){++++}-{4:4}:",
        "       check_prev_add+0x8b/0x4c0",
        "       kvm_gmem_fault_user_mapping+0xfc/0x4c0 [kvm]",
        "",
        "other info that might help us debug this:",
        " Possible unsafe locking scenario:",
        "       CPU0                    CPU1",
        "       ----                    ----",
        "  rlock(&mm->mmap_lock);",
        "                               lock(mapping.invalidate_lock#4);",
        " *** DEADLOCK ***",
        f"1 lock held by {at.comm}/{at.pid}:",
        " #0: ff110004db628d80 (&mm->mmap_lock){++++}-{4:4}, at: lock_mm_and_find_vma+0x2d/0x520",
        "",
        "stack backtrace:",
        *at.task,
        *at.stack(head=("print_circular_bug",)),
    ]
    return _said(at, lines, "lockdep", rule="circular locking dependency")


LOCKDEP = {
    "possible recursive locking detected": "recursive locking",
    "inconsistent lock state": "inconsistent lock state",
    "possible irq lock inversion dependency detected": "irq lock inversion",
    "HARDIRQ-safe -> HARDIRQ-unsafe lock order detected": "irq-safe -> irq-unsafe lock order",
    "SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected": "irq-safe -> irq-unsafe lock order",
    "bad unlock balance detected!": "bad unlock balance",
    "held lock freed!": "held lock freed",
    "suspicious RCU usage": "suspicious RCU usage",
}


@maker
def lockdep(at: Scene) -> ReportText:
    header, rule = at.rng.choice(list(LOCKDEP.items()))
    lines = ["=" * 30, f"WARNING: {header}", "6.16.0 #1 Not tainted", "-" * 44, "stack backtrace:", *at.task, *at.stack()]
    return _said(at, lines, "lockdep", rule=rule)


@maker
def wait_context(at: Scene) -> ReportText:
    lines = [
        "=" * 30,
        "[ BUG: Invalid wait context ]",
        "6.16.0 #1 Not tainted",
        "-" * 29,
        f"{at.comm}/{at.pid} is trying to lock:",
    ]
    lines += [
        f"ffff888100000000 (&x->lock){{....}}-{{3:3}}, at: {at.spelled(at.culprit)}",
        "other info that might help us debug this:",
    ]
    return _said(
        at, [*lines, "context-{5:5}", "stack backtrace:", *at.task, *at.stack()], "lockdep", rule="invalid wait context"
    )


@maker
def atomic(at: Scene) -> ReportText:
    lines = [f"BUG: scheduling while atomic: {at.comm}/{at.pid}/0x00000002", "Preemption disabled at:"]
    lines += ["[<ffffffffc146a09a>] kvm_gmem_invalidate_start+0xba/0x1c0 [kvm]", *at.task]
    lines += at.stack(head=("dump_stack_lvl", "dump_stack", "__schedule_bug.cold", "__schedule"))
    return _said(at, lines, "scheduling while atomic", atomic_in="kvm_gmem_invalidate_start")


@maker
def sleeping(at: Scene) -> ReportText:
    lines = ["BUG: sleeping function called from invalid context at ./include/linux/sched/mm.h:325"]
    lines += [
        f"in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: {at.pid}, name: {at.comm}",
        "preempt_count: 1, expected: 0",
    ]
    lines += ["RCU nest depth: 0, expected: 0", f"1 lock held by {at.comm}/{at.pid}:"]
    lines += [
        " #0: ff16f8ec217e4438 (sb_writers#14){.+.+}-{0:0}, at: __x64_sys_fallocate+0x46/0x80",
        *at.task,
        *at.stack(head=("__might_resched",)),
    ]
    return _said(at, lines, "sleeping function called from invalid context", locks=["sb_writers#14 at __x64_sys_fallocate"])


@maker
def hung(at: Scene) -> ReportText:
    lines = [f"INFO: task {at.comm}:{at.pid} blocked for more than 122 seconds.", "      Not tainted 6.16.0 #1"]
    lines += ['"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.']
    lines += [
        f"task:{at.comm:15} state:D stack:0     pid:{at.pid} tgid:{at.pid} ppid:1      flags:0x00004006",
        *at.stack(head=("__schedule", "schedule")),
    ]
    return _said(at, lines, "hung task", name="task_stuck", seconds=122)


@maker
def soft_lockup(at: Scene) -> ReportText:
    lines = [
        f"watchdog: BUG: soft lockup - CPU#{at.cpu} stuck for 26s! [{at.comm}:{at.pid}]",
        "Modules linked in: kvm",
        "irq event stamp: 3922",
    ]
    lines += [
        *at.task,
        *at.rip("_raw_spin_unlock_irqrestore"),
        "Call Trace:",
        " <IRQ>",
        " ? watchdog_timer_fn+0x1dc/0x240",
        " </IRQ>",
        *at.stack()[1:],
    ]
    return _said(at, lines, "soft lockup", seconds=26, cpu=at.cpu)


@maker
def hard_lockup(at: Scene) -> ReportText:
    prefix = at.rng.choice(["watchdog: ", "NMI watchdog: ", "watchdog: CPU3: "])
    return _said(
        at,
        [f"{prefix}Watchdog detected hard LOCKUP on cpu {at.cpu}", "Modules linked in: kvm", *at.task, *at.rip(), *at.stack()],
        "hard lockup",
    )


@maker
def hung_on_a_lock(at: Scene) -> ReportText:
    lines = [f"INFO: task {at.comm}:{at.pid} blocked for more than 122 seconds.", "      Not tainted 6.16.0 #1"]
    lines += [f"task:{at.comm:15} state:D stack:0     pid:{at.pid} tgid:{at.pid} ppid:1      flags:0x00004006", *at.stack()]
    lines += [f"INFO: task {at.comm}:{at.pid} <reader> blocked on an rw-semaphore likely owned by task other:88 <writer>"]
    lines += [
        "task:other           state:R  running task     stack:0     pid:88",
        "Call Trace:",
        " <TASK>",
        " kvm_gmem_release+0x1/0x2",
    ]
    return _said(at, [*lines, " </TASK>"], "hung task", name="task_stuck", waits_for_task="other/88")


@maker
def rcu(at: Scene) -> ReportText:
    lines = [
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        f"rcu: \t{at.cpu}-....: (20999 ticks this GP) idle=0f4/1/0x4000000000000000 softirq=1/1 fqs=1",
    ]
    return _said(
        at, [*lines, "rcu: \t(t=21000 jiffies g=1 q=2 ncpus=8)", *at.task, *at.rip(), *at.stack()], "RCU stall", cpu=at.cpu
    )


@maker
def rcu_others(at: Scene) -> ReportText:
    lines = [
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
        f"rcu: \t{at.cpu}-...0: (1 GPs behind) idle=1 softirq=1/1 fqs=1",
    ]
    lines += [
        "rcu: \t(detected by 0, t=21002 jiffies, g=1, q=2 ncpus=8)",
        f"Sending NMI from CPU 0 to CPUs {at.cpu}:",
        f"NMI backtrace for cpu {at.cpu}",
    ]
    return _said(at, [*lines, *at.task, *at.rip(), *at.stack()], "RCU stall")


@maker
def list_corruption(at: Scene) -> ReportText:
    text = "list_del corruption. prev->next should be ffff888100000000, but was dead000000000122. (prev=ffff888100000001)"
    place = ["kernel BUG at lib/list_debug.c:62!", "Oops: invalid opcode: 0000 [#1] SMP NOPTI"]
    if at.rng.randrange(2):
        lines = [text, CUT, *place, *at.task, *at.rip("__list_del_entry_valid_or_report")]
    else:
        where = f"WARNING: CPU: {at.cpu} PID: {at.pid} at lib/list_debug.c:62 __list_del_entry_valid_or_report+0x1/0x2"
        lines = [CUT, text, where, *at.task, *at.rip("__list_del_entry_valid_or_report")]
    return _said(at, [*lines, *at.stack(), END], "list corruption", site="lib/list_debug.c:62")


@maker
def refcount(at: Scene) -> ReportText:
    where = f"WARNING: CPU: {at.cpu} PID: {at.pid} at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110"
    lines = [
        CUT,
        "refcount_t: underflow; use-after-free.",
        where,
        *at.task,
        *at.rip("refcount_warn_saturate"),
        *at.stack(),
        END,
    ]
    return _said(at, lines, "refcount", rule="underflow; use-after-free.")


@maker
def bad_page(at: Scene) -> ReportText:
    lines = [
        f"BUG: Bad page state in process {at.comm}  pfn:12345",
        "page: refcount:0 mapcount:-1 mapping:0000000000000000 index:0x0 pfn:0x12345",
    ]
    lines += [
        "flags: 0x17ffffc0000000(node=0|zone=2)",
        "raw: 0017ffffc0000000 dead000000000100",
        "page dumped because: nonzero mapcount",
        *at.task,
    ]
    return _said(at, [*lines, *at.stack(head=("bad_page.cold",))], "bad page", because="nonzero mapcount", pfn="0x12345")


@maker
def allocation(at: Scene) -> ReportText:
    lines = [
        (
            f"{at.comm}: page allocation failure: order:9, "
            "mode:0x140dca(GFP_HIGHUSER_MOVABLE), nodemask=(null),cpuset=/,mems_allowed=0"
        )
    ]
    return _said(
        at,
        [
            *lines,
            *at.task,
            *at.stack(head=("warn_alloc", "__alloc_pages_noprof")),
            "Mem-Info:",
            "active_anon:1 inactive_anon:2",
        ],
        "page allocation failure",
        order=9,
    )


@maker
def oom(at: Scene) -> ReportText:
    lines = ["other-task invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0"]
    lines += [
        *at.task,
        *at.stack(head=("dump_header", "oom_kill_process.cold")),
        "Mem-Info:",
        "Tasks state (memory values in pages):",
    ]
    lines += [
        "[  pid  ]   uid  tgid total_vm",
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null)",
        "Out of memory: Killed process 4711 (victim) total-vm:1kB",
    ]
    return ReportText(
        lines, "OOM kill", 4711, plain(at.culprit), "task_signalled", {"comm": "victim", "cause": "oom", "signal": 9}
    )


@maker
def msr(at: Scene) -> ReportText:
    head = (
        "unchecked MSR access error: WRMSR to 0xc0010010 (tried to write "
        "0x0000000003fc0000) at rIP: 0xffffffffaf5d5c28 (native_write_msr+0x8/0x30)"
    )
    report = _said(at, [head, *at.stack()], "unchecked MSR access", msr="0xc0010010", rip="native_write_msr")
    report.thread = None
    return report


@maker
def sysrq(at: Scene) -> ReportText:
    return _said(
        at, ["sysrq: Show backtrace of all active CPUs", f"NMI backtrace for cpu {at.cpu}", *at.task, *at.stack()], "sysrq"
    )


@maker
def bare(at: Scene) -> ReportText:
    return _said(at, [*at.task, *at.stack(head=("__schedule",))], "stack")


@maker
def panic(at: Scene) -> ReportText:
    lines = [
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
        *at.task,
        *at.stack(head=("dump_stack", "panic")),
    ]
    return _said(
        at, [*lines, "---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---"], "panic"
    )


@maker
def arm_fault(at: Scene) -> ReportText:
    lines = [
        "Unable to handle kernel paging request at virtual address ffff000012345000",
        "Mem abort info:",
        "  ESR = 0x0000000096000007",
        "  EC = 0x25: DABT (current EL), IL = 32 bits",
        "  SET = 0, FnV = 0",
        "  FSC = 0x07: level 3 translation fault",
        "Data abort info:",
        "  CM = 0, WnR = 0, TnD = 0",
        "swapper pgtable: 4k pages, 48-bit VAs, pgdp=0000000082a1b000",
        "[ffff000012345000] pgd=18000001fffff003, p4d=1",
        "Internal error: Oops: 0000000096000007 [#1] PREEMPT SMP",
        "Modules linked in: kvm",
        *at.task,
        "pstate: 60400009 (nZCv daif +PAN -UAO)",
        f"pc : {at.culprit}+0x24/0x100",
        "lr : kvm_handle_guest_abort+0x1/0x2",
        "sp : ffff80008b3b3a50",
        "x29: ffff80008b3b3a50 x28: ffff0000c1234567",
        "Call trace:",
        f" {at.culprit}+0x24/0x100 (P)",
        " el0t_64_sync+0x190/0x198",
        "Code: f9400001",
        END,
    ]
    return _said(at, lines, "page fault")


@maker
def arm_bug(at: Scene) -> ReportText:
    lines = [
        "kernel BUG at arch/arm64/kvm/mmu.c:800!",
        "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP",
        *at.task,
        f"pc : {at.culprit}+0x24/0x100",
    ]
    return _said(at, [*lines, "Call trace:", f" {at.culprit}+0x24/0x100", END], "BUG", site="arch/arm64/kvm/mmu.c:800")


PREFIXES: list[Callable[[int, str], str]] = [
    lambda n, text: text,
    lambda n, text: f"[{n:5}.{n:06}] {text}",
    lambda n, text: f"[{n:5}.{n:06}][ T3469] {text}",
    lambda n, text: f"<4>[{n:5}.{n:06}] {text}",
    lambda n, text: f"kern  :warn  : [{n:5}.{n:06}] {text}",
    lambda n, text: f"Nov 22 10:00:{n % 60:02} host1 kernel: {text}",
    lambda n, text: f"2025-05-15T00:08:39.{n:06}+08:00 host kernel: {text}",
    lambda n, text: f"[Tue Dec  2 10:00:{n % 60:02} 2025] {text}",
    lambda n, text: f"> [{n:5}.{n:06}] {text}",
    lambda n, text: f"> {text}",
]


def printed(report: ReportText, rng: random.Random) -> list[str]:
    """The lines after one of the prefixes, some left out or cut, and lines of others among them."""
    lines = list(report.lines)
    prefix = rng.choice(PREFIXES)
    if rng.randrange(3) == 0 and len(lines) > 12:
        noise = [
            n
            for n, line in enumerate(lines)
            if line.startswith(("Code:", "Modules", "RSP", "RAX", "Hardware", "irq event", "  CM", "raw:", "x29"))
        ]
        for n in (n for n in noise if "ORIG_RAX" not in lines[n]):
            lines[n] = "..."
    if rng.randrange(3) == 0:
        lines.insert(rng.randrange(len(lines)), "usb 1-1: new high-speed USB device number 2 using xhci_hcd")
    before = ["eth0: link is up"] * rng.randrange(2)
    after = ["usb 1-2: new high-speed USB device number 3 using xhci_hcd"] * rng.randrange(2)
    return [prefix(n, line) for n, line in enumerate([*before, *lines, *after], 1)]
