"""What the kernel prints when something is wrong, one function for each kind of report, by the text of the kernel's sources.

Each gives the lines and the truth: which function its first line names, and what is proven about guest memory. Mostly nothing:
a stack shows that a task was there.
"""

from collections.abc import Callable
from random import Random

from tests.adversary.stacks import CONVERTING, Stack, about, registers, stack, symbol, trace
from tests.adversary.truth import KERNEL, MEMORY, NOBODY, PLATFORM, UNKNOWN, Log, Truth

Report = Callable[[Random], Log]
REPORTS: dict[str, Report] = {}
CUT = "---[ end trace 0000000000000000 ]---"
RULER = "=" * 66


def report(make: Report) -> Report:
    """Register a kind of report by its name."""
    REPORTS[make.__name__.replace("_", "-")] = make
    return make


def log(lines: list[str], where: Stack, *words: str, named: tuple[str, ...] = (), **more: object) -> Log:
    """A report with one stack."""
    facts: dict[str, object] = {"blame": frozenset((KERNEL,)), "named": frozenset(named), "stacks": where.names, "words": words}
    return Log(tuple(lines), Truth(**{**facts, **more}))  # type: ignore[arg-type]


def oops(rng: Random, head: list[str], where: Stack, number: str = "Oops: 0000 [#1] SMP NOPTI") -> list[str]:
    """``__die``: header, CPU, registers, trace, end."""
    return [
        *head,
        number,
        *about(rng, where),
        *registers(rng, where.functions[0]),
        *trace(rng, where),
        "Modules linked in: kvm_amd kvm",
        CUT,
    ]


def address(rng: Random) -> str:
    return f"ffff{rng.getrandbits(48):012x}"


@report
def oops_null(rng: Random) -> Log:
    """``show_fault_oops`` of arch/x86/mm/fault.c."""
    where = stack(rng)
    head = [
        f"BUG: kernel NULL pointer dereference, address: {rng.randrange(0x400):016x}",
        "#PF: supervisor read access in kernel mode",
        "#PF: error_code(0x0000) - not-present page",
        "PGD 0 P4D 0",
    ]
    return log(oops(rng, head, where), where, "null pointer", where.inner.lower(), named=(where.inner,))


@report
def oops_paging(rng: Random) -> Log:
    """``show_fault_oops``: an address that is mapped nowhere."""
    where = stack(rng)
    head = [
        f"BUG: unable to handle page fault for address: {address(rng)}",
        "#PF: supervisor write access in kernel mode",
        "#PF: error_code(0x0002) - not-present page",
        "PGD 100000067 P4D 100000067 PUD 0",
    ]
    return log(
        oops(rng, head, where, "Oops: Oops: 0002 [#1] SMP NOPTI"),
        where,
        "page fault|unable to handle",
        where.inner.lower(),
        named=(where.inner,),
    )


@report
def general_protection(rng: Random) -> Log:
    """``exc_general_protection`` of arch/x86/kernel/traps.c."""
    where = stack(rng)
    head = [
        f"general protection fault, probably for non-canonical address 0x{rng.getrandbits(64) | 1 << 62:016x}: "
        "0000 [#1] PREEMPT SMP NOPTI"
    ]
    lines = [*head, *about(rng, where), *registers(rng, where.functions[0]), *trace(rng, where), CUT]
    return log(lines, where, "general protection", where.inner.lower(), named=(where.inner,))


@report
def bug(rng: Random) -> Log:
    """``handle_bug`` / BUG(): file and line, then an invalid opcode."""
    where = stack(rng)
    head = [
        "------------[ cut here ]------------",
        f"kernel BUG at {rng.choice(('mm/page_alloc.c', 'virt/kvm/guest_memfd.c'))}:{rng.randrange(2000)}!",
    ]
    return log(
        oops(rng, head, where, "Oops: invalid opcode: 0000 [#1] SMP NOPTI"),
        where,
        "bug",
        where.inner.lower(),
        named=(where.inner,),
    )


@report
def warning(rng: Random) -> Log:
    """``__warn`` of kernel/panic.c, before and since 6.18."""
    where = stack(rng)
    place = (
        f"{rng.choice(('arch/x86/kvm/../../../virt/kvm/kvm_main.c', 'fs/ext4/inode.c', 'mm/memory.c'))}:{rng.randrange(9000)}"
    )
    head = rng.choice(
        (
            f"WARNING: CPU: {where.cpu} PID: {where.pid} at {place} {symbol(rng, where.functions[0])}",
            f"WARNING: {place} at {symbol(rng, where.functions[0])}, CPU#{where.cpu}: {where.task}/{where.pid}",
        )
    )
    lines = [
        "------------[ cut here ]------------",
        head,
        "Modules linked in: kvm_amd kvm",
        *about(rng, where),
        *registers(rng, where.functions[0]),
        *trace(rng, where),
        CUT,
    ]
    return log(lines, where, "warn", where.inner.lower(), named=(where.inner,))


@report
def panic(rng: Random) -> Log:
    """``panic`` of kernel/panic.c."""
    where = stack(rng)
    why = rng.choice(
        (
            "Fatal exception in interrupt",
            "VFS: Unable to mount root fs on unknown-block(0,0)",
            "Timeout: Not all CPUs entered broadcast exception handler",
        )
    )
    lines = [
        f"Kernel panic - not syncing: {why}",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "panic"),
        f"---[ end Kernel panic - not syncing: {why} ]---",
    ]
    return log(lines, where, "panic", blame=frozenset((KERNEL, PLATFORM)))


@report
def kasan(rng: Random) -> Log:
    """``print_error_description`` of mm/kasan/report.c."""
    where = stack(rng)
    kind = rng.choice(
        ("slab-use-after-free", "slab-out-of-bounds", "stack-out-of-bounds", "use-after-free", "vmalloc-out-of-bounds")
    )
    access = rng.choice(("Read", "Write"))
    lines = [
        RULER,
        f"BUG: KASAN: {kind} in {symbol(rng, where.functions[0])}",
        f"{access} of size {rng.choice((1, 4, 8))} at addr {address(rng)} by task {where.task}/{where.pid}",
        "",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "print_report", "kasan_report"),
        "",
        f"Allocated by task {where.pid + 1}:",
        *(f" {symbol(rng, function)}" for function in ("kasan_save_stack", "kmalloc_trace", *rng.choice(CONVERTING))),
        RULER,
    ]
    return log(lines, where, kind.replace("-", "."), where.inner.lower(), access.lower()[:4], named=(where.inner,))


@report
def kmsan(rng: Random) -> Log:
    """``kmsan_report`` of mm/kmsan/report.c."""
    where = stack(rng)
    lines = [
        "=" * 53,
        f"BUG: KMSAN: uninit-value in {symbol(rng, where.functions[0])}",
        *(f" {symbol(rng, one)}" for one in where.functions),
        "",
        "Uninit was created at:",
        f" {symbol(rng, '__alloc_pages_noprof')}",
        "",
        *about(rng, where),
        "=" * 53,
    ]
    return log(lines, where, "uninit|kmsan", named=(where.inner,))


@report
def kcsan(rng: Random) -> Log:
    """``print_report`` of kernel/kcsan/report.c."""
    where = stack(rng)
    lines = [
        RULER,
        f"BUG: KCSAN: data-race in {where.inner} / {where.functions[1].split()[0]}",
        "",
        f"write to 0x{address(rng)} of 8 bytes by task {where.pid} on cpu {where.cpu}:",
        *(f" {symbol(rng, one)}" for one in where.functions),
        "",
        f"read to 0x{address(rng)} of 8 bytes by task 77 on cpu 1:",
        f" {symbol(rng, where.functions[1])}",
        "",
        "Reported by Kernel Concurrency Sanitizer on:",
        *about(rng, where),
        RULER,
    ]
    return log(lines, where, "race|kcsan", named=(where.inner, where.functions[1].split()[0]))


@report
def kfence(rng: Random) -> Log:
    """``kfence_report_error`` of mm/kfence/report.c."""
    where = stack(rng)
    access = rng.choice(("read", "write"))
    lines = [
        RULER,
        f"BUG: KFENCE: use-after-free {access} in {symbol(rng, where.functions[0])}",
        "",
        f"Use-after-free {access} at 0x{address(rng)} (in kfence-#{rng.randrange(255)}):",
        *(f" {symbol(rng, one)}" for one in where.functions),
        "",
        *about(rng, where),
        RULER,
    ]
    return log(lines, where, "use.after.free", where.inner.lower(), named=(where.inner,))


@report
def ubsan(rng: Random) -> Log:
    """``ubsan_prologue`` of lib/ubsan.c; what follows runs on."""
    where = stack(rng)
    lines = [
        "------------[ cut here ]------------",
        f"UBSAN: array-index-out-of-bounds in drivers/net/ethernet/intel/ice/ice_main.c:{rng.randrange(999)}:14",
        "index 4 is out of range for type 'u8 [4]'",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "__ubsan_handle_out_of_bounds"),
        "---[ end trace ]---",
    ]
    return log(lines, where, "ubsan|out.of.bounds", named=(where.inner,), blame=frozenset((KERNEL, NOBODY)))


@report
def lockdep(rng: Random) -> Log:
    """``print_circular_bug`` and its kin of kernel/locking/lockdep.c: nothing has happened yet."""
    where = stack(rng)
    head = rng.choice(
        (
            "possible circular locking dependency detected",
            "possible recursive locking detected",
            "inconsistent lock state",
            "suspicious RCU usage",
            "bad unlock balance detected!",
        )
    )
    lines = [
        RULER[:54],
        f"WARNING: {head}",
        "6.17.0-rc7+ #109 Tainted: G S",
        "-" * 54,
        f"{where.task}/{where.pid} is trying to acquire lock:",
        f"{address(rng)} (mapping.invalidate_lock#4){{++++}}-{{4:4}}, at: {symbol(rng, where.functions[-3])}",
        "",
        "but task is already holding lock:",
        f"{address(rng)} (&mm->mmap_lock){{++++}}-{{4:4}}, at: {symbol(rng, 'lock_mm_and_find_vma')}",
        "",
        "stack backtrace:",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "print_circular_bug", "check_noncircular", "__lock_acquire", "lock_acquire"),
    ]
    return log(lines, where, "lock", named=(where.functions[-3].split()[0],))


@report
def scheduling_while_atomic(rng: Random) -> Log:
    """``__schedule_bug`` of kernel/sched/core.c."""
    where = stack(rng)
    lines = [
        f"BUG: scheduling while atomic: {where.task}/{where.pid}/0x00000002",
        "Preemption disabled at:",
        f"[<{address(rng)}>] {symbol(rng, where.functions[-3])}",
        *about(rng, where),
        *trace(
            rng,
            where,
            "dump_stack_lvl",
            "__schedule_bug.cold",
            "__schedule",
            "schedule",
            "__mutex_lock.constprop.0",
            "mutex_lock",
        ),
    ]
    return log(lines, where, "scheduling while atomic", named=(where.inner, where.functions[-3].split()[0]))


@report
def sleeping_function(rng: Random) -> Log:
    """``__might_resched`` of kernel/sched/core.c."""
    where = stack(rng)
    lines = [
        f"BUG: sleeping function called from invalid context at ./include/linux/sched/mm.h:{rng.randrange(400)}",
        f"in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: {where.pid}, name: {where.task}",
        "preempt_count: 1, expected: 0",
        f"1 lock held by {where.task}/{where.pid}:",
        f" #0: {address(rng)} (&(kvm)->mmu_lock){{++++}}-{{3:3}}, at: {symbol(rng, where.functions[-3])}",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "__might_resched"),
    ]
    return log(lines, where, "sleep", named=(where.inner, where.functions[-3].split()[0]))


@report
def hung_task(rng: Random) -> Log:
    """``check_hung_task`` of kernel/hung_task.c: it waits."""
    where = stack(rng)
    lines = [
        f"INFO: task {where.task}:{where.pid} blocked for more than 122 seconds.",
        "      Not tainted 6.8.0-31-generic #31-Ubuntu",
        '"echo 0 > /proc/sys/kernel/hung_task_timeout_secs" disables this message.',
        f"task:{where.task:<15} state:D stack:0     pid:{where.pid} tgid:{where.pid} ppid:1      flags:0x00004002",
        *trace(rng, where, "__schedule", "schedule", "io_schedule", "folio_wait_bit_common"),
    ]
    return log(lines, where, "blocked|makes no progress|waits|hung", "122")


def _lockup(rng: Random, head: str, *words: str) -> Log:
    where = stack(rng)
    first = head.format(cpu=where.cpu, task=where.task, pid=where.pid)
    lines = [
        first,
        "Modules linked in: kvm_amd kvm",
        *about(rng, where),
        *registers(rng, where.functions[0]),
        *trace(rng, where),
    ]
    return log(lines, where, *words, named=(where.inner,))


@report
def soft_lockup(rng: Random) -> Log:
    """``watchdog_timer_fn`` of kernel/watchdog.c: it runs."""
    return _lockup(
        rng, f"watchdog: BUG: soft lockup - CPU#{{cpu}} stuck for {rng.randrange(22, 99)}s! [{{task}}:{{pid}}]", "soft lockup"
    )


@report
def hard_lockup(rng: Random) -> Log:
    """``watchdog_hardlockup_check`` of kernel/watchdog.c, in its wordings."""
    return _lockup(
        rng,
        rng.choice(
            (
                "watchdog: CPU{cpu}: Watchdog detected hard LOCKUP on cpu {cpu}",
                "NMI watchdog: Watchdog detected hard LOCKUP on cpu {cpu}",
                "watchdog: Watchdog detected hard LOCKUP on cpu {cpu}",
            )
        ),
        "hard lockup",
    )


@report
def rcu_stall(rng: Random) -> Log:
    """``print_cpu_stall`` of kernel/rcu/tree_stall.h."""
    where = stack(rng)
    lines = [
        rng.choice(
            (
                "rcu: INFO: rcu_preempt self-detected stall on CPU",
                "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
                "INFO: rcu_sched self-detected stall on CPU",
            )
        ),
        f"rcu: \t{where.cpu}-....: (20999 ticks this GP) idle=3c4/1/0x4000000000000000 softirq=1/1 fqs=5250",
        "rcu: \t(t=21000 jiffies g=12345 q=678 ncpus=128)",
        *about(rng, where),
        *registers(rng, where.functions[0]),
        *trace(rng, where),
    ]
    return log(lines, where, "rcu", named=(where.inner,))


@report
def workqueue_lockup(rng: Random) -> Log:
    """``wq_watchdog_timer_fn`` of kernel/workqueue.c."""
    where = stack(rng)
    lines = [
        f"BUG: workqueue lockup - pool cpus={where.cpu} node=0 flags=0x0 nice=0 stuck for {rng.randrange(30, 90)}s!",
        "Showing busy workqueues and worker pools:",
        "workqueue events: flags=0x0",
        f"  pwq 2: cpus={where.cpu} node=0 flags=0x0 nice=0 active=1 refcnt=2",
        "    in-flight: 77:free_work",
    ]
    return log(lines, where, "workqueue")


@report
def list_corruption(rng: Random) -> Log:
    """``__list_del_entry_valid_or_report`` of lib/list_debug.c."""
    where = stack(rng)
    head = [
        f"list_del corruption. prev->next should be {address(rng)}, but was {address(rng)}. (prev={address(rng)})",
        "------------[ cut here ]------------",
        "kernel BUG at lib/list_debug.c:62!",
    ]
    lines = [
        *head,
        "Oops: invalid opcode: 0000 [#1] SMP NOPTI",
        *about(rng, where),
        *registers(rng, "__list_del_entry_valid_or_report"),
        *trace(rng, where),
        CUT,
    ]
    return log(lines, where, "list", named=(where.inner,))


@report
def refcount(rng: Random) -> Log:
    """``refcount_warn_saturate`` of lib/refcount.c."""
    where = stack(rng)
    lines = [
        "------------[ cut here ]------------",
        rng.choice(
            (
                "refcount_t: underflow; use-after-free.",
                "refcount_t: addition on 0; use-after-free.",
                "refcount_t: saturated; leaking memory.",
            )
        ),
        f"WARNING: CPU: {where.cpu} PID: {where.pid} at lib/refcount.c:28 refcount_warn_saturate+0xba/0x110",
        *about(rng, where),
        *registers(rng, "refcount_warn_saturate"),
        *trace(rng, where),
        CUT,
    ]
    return log(lines, where, "refcount|reference count", named=(where.inner,))


@report
def bad_page(rng: Random) -> Log:
    """``bad_page`` of mm/page_alloc.c: the page is taken out of use."""
    where = stack(rng)
    lines = [
        f"BUG: Bad page state in process {where.task}  pfn:{rng.getrandbits(28):05x}",
        "page: refcount:-1 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x1",
        "flags: 0x17ffffc0000000(node=0|zone=2|lastcpupid=0x1fffff)",
        "page dumped because: nonzero _refcount",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "bad_page", "free_page_is_bad_report"),
    ]
    return log(lines, where, "bad page", named=(where.inner,), pages=1, claims=frozenset(("lost",)))


@report
def allocation_failure(rng: Random) -> Log:
    """``warn_alloc`` of mm/page_alloc.c: an answer to the caller, no damage."""
    where = stack(rng)
    lines = [
        f"{where.task}: page allocation failure: order:{rng.randrange(11)}, "
        "mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0-1",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "warn_alloc", "__alloc_pages_slowpath.constprop.0"),
        "Mem-Info:",
        "Node 0 Normal: 100*4kB (UME) 0*8kB = 400kB",
    ]
    return log(lines, where, "allocation|memory", blame=frozenset((MEMORY,)), named=(where.inner,))


@report
def oom_kill(rng: Random) -> Log:
    """``oom_kill_process`` of mm/oom_kill.c."""
    where = stack(rng)
    lines = [
        f"{where.task} invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
        *about(rng, where),
        *trace(rng, where, "dump_stack_lvl", "dump_header", "oom_kill_process"),
        "Mem-Info:",
        f"Out of memory: Killed process {where.pid} ({where.task}) total-vm:9000000kB, "
        "anon-rss:8000000kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:16000kB oom_score_adj:0",
    ]
    return log(
        lines, where, "oom|out of memory|want of memory|memory shortage", blame=frozenset((MEMORY,)), named=(where.inner,)
    )


@report
def unchecked_msr(rng: Random) -> Log:
    """``ex_handler_msr`` of arch/x86/mm/extable.c."""
    where = stack(rng)
    msr = rng.choice(("0x1a4", "0x38d", "0xc0011029"))
    lines = [
        f"unchecked MSR access error: WRMSR to {msr} (tried to write 0x0000000003fc0000) "
        f"at rIP: 0x{address(rng)} (native_write_msr+0x8/0x30)",
        *trace(
            rng,
            where,
            "show_stack_regs",
            "ex_handler_msr.cold",
            "fixup_exception",
            "exc_general_protection",
            "native_write_msr",
        ),
    ]
    return log(lines, where, f"{msr}|msr", blame=frozenset((KERNEL, PLATFORM)), named=(where.inner,))


@report
def machine_check(rng: Random) -> Log:
    """``__print_mce`` of arch/x86/kernel/cpu/mce/core.c."""
    where = stack(rng)
    lines = [
        f"mce: [Hardware Error]: CPU {where.cpu}: Machine Check Exception: 5 Bank 7: be00000000010090",
        f"mce: [Hardware Error]: RIP !INEXACT! 10:<{address(rng)}> {{{symbol(rng, where.functions[0])}}}",
        f"mce: [Hardware Error]: TSC 0 ADDR {rng.getrandbits(36) << 12:x} MISC 86 PPIN 0",
        "mce: [Hardware Error]: PROCESSOR 0:806f8 TIME 1700000000 SOCKET 0 APIC 0 microcode 2b0004b1",
        "mce: [Hardware Error]: Machine check: Data load in unrecoverable area of kernel",
        "Kernel panic - not syncing: Fatal local machine check",
    ]
    return log(
        lines,
        where,
        "machine check",
        blame=frozenset((PLATFORM, KERNEL)),
        pages=1,
        claims=frozenset(("poison", "lost")),
        failures=2,
    )


@report
def sysrq(rng: Random) -> Log:
    """``sysrq_handle_showallcpus`` of drivers/tty/sysrq.c: somebody asked."""
    where = stack(rng)
    lines = [
        rng.choice(("sysrq: Show backtrace of all active CPUs", "sysrq: Show Blocked State", "sysrq: Show State")),
        *about(rng, where),
        *registers(rng, where.functions[0]),
        *trace(rng, where),
    ]
    return log(lines, where, blame=frozenset((NOBODY,)), quiet=True)


@report
def bare_trace(rng: Random) -> Log:
    """A trace whose header was not kept: nobody knows what it was."""
    where = stack(rng)
    lines = [*(about(rng, where) if rng.random() < 0.7 else []), *trace(rng, where)]
    return log(lines, where, blame=frozenset((UNKNOWN, NOBODY)), quiet=True)
