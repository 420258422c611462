"""The lines of reports of the kernel: headers, the parts that say something, registers, and what else is in a report.

Formats: kernel/panic.c (warnings, before and since 6.19), lib/bug.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c and
dumpstack.c, arch/arm64/kernel/traps.c and mm/fault.c, lib/ubsan.c, mm/kasan, mm/kfence, mm/kmsan, kernel/kcsan,
kernel/locking/lockdep.c, kernel/sched/core.c, kernel/hung_task.c, kernel/watchdog.c, kernel/rcu/tree_stall.h,
kernel/workqueue.c, mm/page_alloc.c, mm/oom_kill.c, lib/fault-inject.c.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.messages.catalogue import ParsedMessage, facts, first

_REGISTERS = re.compile(r"\b(ORIG_RAX|R(?:[A-D]X|[SD]I|BP|[0-9]{1,2})): ([0-9a-f]{16})\b").findall
_STACK = {"Call Trace:": "main", "Call trace:": "main", "</TASK>": "end"}
"""Lines around a stack."""
# `CPU 0/KVM` is no line about a CPU, but QEMU's name of a vCPU thread in a trace buffer that is dumped.
_NOISE = re.compile(
    r"Modules linked in:|Code: |</?(?:TASK|IRQ|NMI|SOFTIRQ|#\w+)>$|Tainted: \[|Oops: |#PF: |PGD |"
    r"(?:0010:|0033:)?(?:R[A-D]X|R[SD]I|RBP|R10|R13|RSP|RIP|EAX|FS|CS|CR2|CR0|DR[0-7]|PKRU|ORIG_RAX)\b ?[:=]|"
    r"irq event stamp:|(?:hard|soft)irqs last|pstate: |sp : |x\d{1,2} ?: |-{3,}\[ cut here \]|={20,}$|-{20,}$|"
    r"(?:RIP|RSP|RDX|RBP): |(?:CPU(?! \d+/)|Workqueue|Stack|Disabling lock debugging|Kernel Offset|Rebooting in|unwind stack "
    r"type)\b|"
    r"\? 0x[0-9a-f]{8,16}$|ret_from_fork_asm|This usually indicates|index \S+ is out of range for type|"
    r"(?:tdx: )?additional output: |virt/tdx: R(?:CX|09) 0x|Kernel version mismatch|"
    r"preempt_count: [0-9a-f]+, expected|RCU nest depth: \d|(?:\d+ locks?|no locks) held by |but task is already holding lock|"
    r"which lock already depends|other info that might help us|Possible unsafe locking scenario|Chain exists of:|"
    r"\*{3} (?:DEADLOCK|\w+) \*{3}|r?lock\(|CPU0 +CPU1|-{4} +-{4}|The buggy address |(?:freed|allocated|to the right) \d+-byte|"
    r"Memory state around the buggy|>?[0-9a-f]{16}: [0-9a-f]{2} |\^$|page: ?(?:refcount|[0-9a-f]{16})|raw: |head: |flags: 0x|"
    r"memcg:|page_type: |KASAN: \S+ in range|Mem abort info:|Data abort info:|ESR = |EC = |SET = |EA = |FSC = |ISV = |CM = |"
    r"user pgtable:|swapper pgtable:|\[[0-9a-f]{16}\] pgd=|INFO: lockdep is turned off|\"echo 0 > |Not tainted \d|Tainted: \w|"
    r"Sending NMI |Mem-Info:|Node \d+ |active_anon:|\[ +pid +\] |oom-kill:|Tasks state |Call [Tt]race|"
    r"rcu: (?:\t|\s*\(|blocking|\S+ kthread)|rcu_scheduler_active = |context-\{|Aborting journal|kfence-#"
).match


def header(text: str) -> ParsedMessage | None:
    """The beginning of a report."""
    found = first(facts("reports"), text)
    return None if found is None else found[0].parsed(found[1])


def part(text: str) -> ParsedMessage | Context | None:
    """A line inside of a report: something that it says, or mere noise."""
    if (section := _STACK.get(text)) is not None:
        return ParsedMessage("section", {}, text, {"section": section})
    found = first(facts("report_lines"), text)
    if found is not None:
        return found[0].parsed(found[1])
    registers = {name: int(value, 16) for name, value in _REGISTERS(text)}
    if registers and _says(registers):
        return ParsedMessage("registers", registers, text)
    return Context("kernel dump", proof=True) if _NOISE(text) else None


def _says(registers: dict[str, int]) -> bool:
    """Whether registers mean something by themselves: an error pointer, or the arguments of a system call."""
    return any(value >= (1 << 64) - 4096 for value in registers.values()) or bool({"RSI", "ORIG_RAX"} & registers.keys())


class OpenReport:
    """Whether a line that nobody knows stands inside of a report: it belongs to it then."""

    UNKNOWN = 8
    """How many unknown lines may follow one that is known."""
    OTHERS = re.compile(r"[a-z][\w.-]*(?: [\w:.-]+)?: |[A-Z][a-z]+d?: |-- ").match
    """How messages of drivers and programs begin, which another CPU prints into a report."""
    _CLOSES = re.compile(r"</TASK>|-{3,}\[ end |={40,}$").match

    def __init__(self) -> None:
        self._left = 0

    def note(self, said: ParsedMessage | Context | None, text: str, *, begins: bool = False) -> None:
        """Take a line into account that was understood."""
        if begins:
            self._left = self.UNKNOWN
        elif self._CLOSES(text):
            self._left = 0
        elif said is not None and self._left:
            self._left = self.UNKNOWN

    def claims(self, text: str) -> bool:
        """Whether a line that no reader knows belongs to the report that is open."""
        if not self._left or self.OTHERS(text):
            return False
        self._left -= 1
        return True
