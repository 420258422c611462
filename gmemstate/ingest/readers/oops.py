"""The parts of what the kernel prints when it warns, oopses or dumps a stack: headers, frames, registers, and noise.

Formats: kernel/panic.c (warnings, before and since 6.19), lib/bug.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c and
dumpstack.c, arch/arm64/kernel/traps.c, lib/ubsan.c, mm/kasan/report.c, lib/fault-inject.c, kernel/hung_task.c,
kernel/watchdog.c.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.messages.catalogue import ParsedMessage, facts, first

_REGISTERS = re.compile(r"\b(R(?:[A-D]X|[SD]I|BP|[0-9]{1,2})): (f{13}[0-9a-f]{3})\b").findall
# `CPU 0/KVM` is no line about a CPU, but QEMU's name of a vCPU thread in a trace buffer that is dumped.
_NOISE = re.compile(
    r"Modules linked in:|Hardware name:|Code: |Call [Tt]race:|</?(?:TASK|IRQ|NMI|#\w+)>$|Tainted: \[|Oops: |#PF: |PGD |"
    r"(?:0010:|0033:)?(?:R[A-D]X|R[SD]I|RBP|R10|R13|RSP|RIP|EAX|FS|CS|CR2|CR0|DR[0-7]|PKRU|ORIG_RAX)\b ?[:=]|"
    r"irq event stamp:|(?:hard|soft)irqs last|pstate: |sp : |x\d{1,2} ?: |-{3,}\[ cut here \]|={60,}$|task:\S+ +state:|"
    r"(?:RIP|RSP|RDX|RBP): |(?:CPU(?! \d+/)|Workqueue|Stack|Disabling lock debugging|Kernel Offset|Rebooting in|unwind stack "
    r"type)\b|"
    r"\? 0x[0-9a-f]{8,16}$|ret_from_fork_asm|This usually indicates|index \S+ is out of range for type|"
    r"(?:tdx: )?additional output: |virt/tdx: R(?:CX|09) 0x|Kernel version mismatch"
).match


def header(text: str) -> ParsedMessage | None:
    """The beginning of a report."""
    found = first(facts("reports"), text)
    return None if found is None else found[0].parsed(found[1])


def part(text: str) -> ParsedMessage | Context | None:
    """A line inside of a report: something that it says, or mere noise."""
    found = first(facts("report_lines"), text)
    if found is not None:
        return found[0].parsed(found[1])
    errors = {name: int(value, 16) - (1 << 64) for name, value in _REGISTERS(text)}
    if errors:
        return ParsedMessage("registers", errors, text)
    return Context("kernel dump", proof=True) if _NOISE(text) else None
