"""The parts of what the kernel prints when it warns, oopses or dumps a stack: headers, frames, registers, and noise.

Formats: kernel/panic.c (warnings, before and since 6.19), lib/bug.c, arch/x86/mm/fault.c, arch/x86/kernel/traps.c and dumpstack.c,
arch/arm64/kernel/traps.c, lib/ubsan.c, mm/kasan/report.c, lib/fault-inject.c, kernel/hung_task.c, kernel/watchdog.c.
"""

import re

from gmemstate.ingest.fact import Context
from gmemstate.messages.form import ParsedMessage, first, form
from gmemstate.model.reports import KernelReportCode

_FUNCTION = r"(?P<function>[A-Za-z_][\w.]{0,127})"
_SITE = r"(?P<site>\S{1,200}:\d{1,7})"

HEADERS = (
    form("warning", rf"WARNING: CPU: <cpu:d> PID: <pid:d> at {_SITE} {_FUNCTION}\+0x"),
    form("warning", rf"WARNING: {_SITE} at {_FUNCTION}\+0x[^#]{{0,300}}, CPU#<cpu:d>: (?P<comm>.{{1,64}})/<pid:d>$"),
    form("warning", rf"kernel BUG at {_SITE}!", what=KernelReportCode.BUG),
    form("warning", rf"UBSAN: (?P<text>[\w -]{{1,80}}) in {_SITE}", what=KernelReportCode.UBSAN),
    form("warning", rf"BUG: (?P<what>K[A-Z]{{2,4}}SAN|KFENCE): (?P<text>.{{1,120}}?) in {_FUNCTION}(?:\+0x|\s|$)"),
    form("warning", r"Kernel panic - not syncing: (?P<text>.{1,200})", what=KernelReportCode.PANIC),
    form("warning", r"FAULT_INJECTION: forcing a failure", what=KernelReportCode.FAULT_INJECTION),
    form("fault", r"BUG: unable to handle (?:page fault for address:|kernel paging request at) <address:h>"),
    form("fault", r"BUG: kernel NULL pointer dereference, address: <address:h>"),
    form("protection", r"general protection fault, (?:probably |maybe )?for (?:non-canonical )?address <address:h>"),
    form("protection", r"general protection fault: [0-9a-f]{4} \[#\d+\]"),
    form("abort", r"Internal error: (?P<text>[A-Za-z][^:]{1,80}): [0-9a-f]{8,16} \[#\d+\]"),
    form("stuck", r"INFO: task (?P<comm>.{1,64}):<pid:d> blocked .{0,40}for more than <seconds:d> seconds"),
    form("stuck", r"BUG: soft lockup - CPU#\d{1,5} stuck for <seconds:d>s! \[(?P<comm>.{1,64}):<pid:d>\]"),
)
"""What begins a report of the kernel."""

PARTS = (
    form("fault_code", r"#PF: error_code\(<error_code:h>\)"),
    form("fault_entry", r"^PGD .* PTE <pte:h>$"),
    form("injected", r"^name (?P<cache>[\w-]{1,64}), interval \d+"),
    form("task", r"\bCPU: <cpu:d> (?:UID: \d+ )?PID: <pid:d> Comm: (?P<comm>.{1,64}?) (?:Kdump: \w+ )?(?:Not tainted|Tainted)"),
    form("frame", rf"\bRIP: 0010:{_FUNCTION} \S{{1,200}} \[inline\]$"),
    form("place", rf"\bRIP: 0010:{_FUNCTION}\+0x"),
    form("place", rf"^pc : {_FUNCTION}\+0x"),
    form("frame", rf"^lr : {_FUNCTION}\+0x"),
    form("frame", rf"^(?P<unsure>\? )?{_FUNCTION}\+0x[0-9a-f]{{1,8}}/0x[0-9a-f]{{1,8}}(?: \[[^\]]{{1,100}}\])?(?: \S+:\d+)?$"),
    form("frame", rf"^{_FUNCTION} [\w./-]{{1,200}}:\d{{1,7}} \[inline\]$"),
    form("frames", r"^\(?[Cc]all trace: (?P<text>[^|]{1,1000})$"),
    form("end", r"---\[ end (?:trace|Kernel panic)"),
)
"""What belongs to the report before it."""

_HEADER_HINT = re.compile(r"WARNING:|BUG|SAN: |KFENCE|panic|FAULT_INJECTION|fault|Internal error|INFO: task").search
_PART_HINT = re.compile(r"#PF|^PGD|^name |CPU: |RIP|^pc :|\+0x|\[inline\]|all trace|---\[").search
"""Words of which every header and every part has one."""

_REGISTERS = re.compile(r"\b(R(?:[A-D]X|[SD]I|BP|[0-9]{1,2})): (f{13}[0-9a-f]{3})\b").findall
# `CPU 0/KVM` is no line about a CPU, but QEMU's name of a vCPU thread in a trace buffer that is dumped.
_NOISE = re.compile(
    r"Modules linked in:|Hardware name:|Code: |Call [Tt]race:|</?(?:TASK|IRQ|NMI|#\w+)>$|Tainted: \[|Oops: |#PF: |PGD |"
    r"(?:0010:|0033:)?(?:R[A-D]X|R[SD]I|RBP|R10|R13|RSP|RIP|EAX|FS|CS|CR2|CR0|DR[0-7]|PKRU|ORIG_RAX)\b ?[:=]|"
    r"irq event stamp:|(?:hard|soft)irqs last|pstate: |sp : |x\d{1,2} ?: |-{3,}\[ cut here \]|={60,}$|task:\S+ +state:|"
    r"(?:RIP|RSP|RDX|RBP): |(?:CPU(?! \d+/)|Workqueue|Stack|Disabling lock debugging|Kernel Offset|Rebooting in|unwind stack type)\b|"
    r"\? 0x[0-9a-f]{8,16}$|ret_from_fork_asm|This usually indicates|index \S+ is out of range for type|"
    r"(?:tdx: )?additional output: |virt/tdx: R(?:CX|09) 0x|Kernel version mismatch"
).match


def header(text: str) -> ParsedMessage | None:
    """The beginning of a report."""
    return first(HEADERS, text) if _HEADER_HINT(text) else None


def part(text: str) -> ParsedMessage | Context | None:
    """A line inside of a report: something that it tells, or mere noise."""
    found = first(PARTS, text) if _PART_HINT(text) else None
    if found is not None:
        return found
    errors = {name: int(value, 16) - (1 << 64) for name, value in _REGISTERS(text)}
    if errors:
        return ParsedMessage("registers", errors, text)
    return Context("kernel dump", proof=True) if _NOISE(text) else None
