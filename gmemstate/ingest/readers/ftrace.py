"""The text of ftrace: tracefs ``trace``, ``trace_pipe`` and ``trace-cmd report``.

Formats: Documentation/trace/ftrace.rst; kernel/trace/trace_output.c (lines), trace_functions_graph.c (graph), trace.c
("LOST n EVENTS", header); trace-cmd prints "n EVENTS DROPPED". Probes are those of the capture script, by name; the numbers
of a probe are read by name, in any order.
"""

import re
from collections.abc import Callable, Mapping

from gmemstate.ingest.fact import PROBES, SECONDS, Context, Fact, Marker, Parsed, nanoseconds, sound
from gmemstate.ingest.readers.function_graph import Graph
from gmemstate.messages.catalogue import ParsedMessage
from gmemstate.model.reports import SourceFormat

# No number is longer than 64 bits; what is longer is none, and its line is damaged. Possessive quantifiers (``*+``) keep the
# time for a hostile line in proportion to its length.
_HEX = "0x[0-9a-f]{1,16}"
_DECIMAL = "[0-9]{1,20}"
_COUNT = "[0-9]{1,18}"

# The name of a task has 15 bytes at most (TASK_COMM_LEN); what is longer before it belongs to something else. The short form
# of the columns is that of the option latency-format, and of a buffer that is dumped in an oops: CPU and flags in one word,
# microseconds since the beginning of the trace. `--ts-diff` of trace-cmd adds a time in brackets.
_PLACE = r"(?:\( *[-\d]+\) +)?(?:\[\d+\] +(?:[^ \d][^ ]* +)?|\d{1,4}[.dDbX][.a-zA-Z][.hHsSzZ][.\da-f][.\da-f]?[^ ]? +)"
_COLUMNS = (
    rf"-(?P<thread>[0-9]{{1,9}}) +{_PLACE}"
    rf"(?:(?P<s>{SECONDS})\.(?P<f>\d+)|(?P<us>[0-9]{{1,16}})us[ +!#$*@]?|\d+): +"
    r"(?:\(\+\d+\) +)?(?:(?P<event>[A-Za-z_]\w*+): *+)?(?P<rest>.*)"
)
# Most names have no hyphen: theirs is found at once, without looking for the columns after each of its letters.
_LINE = re.compile(rf" *+(?!> )(?P<comm>[^-]{{0,15}}+|.{{0,15}}?){_COLUMNS}").fullmatch
_LINE_OF_BYTES = re.compile(rf" *+(?P<comm>(?:\\x[0-9a-f]{{2}}|.){{0,15}}?){_COLUMNS}").fullmatch
"""For a name with bytes that are no text, as they are shown."""
_FIELDS = re.compile(rf"\b(\w++)=(?:({_HEX})|(-?{_DECIMAL}))(?![\w.])").findall
_SYSCALL = re.compile(rf"sys_(\w+)(?:\((.*)\)| -> (-?(?:{_HEX}|{_DECIMAL})))").fullmatch
_SYSCALL_FIELDS = re.compile(rf"\b(\w++): (?:({_HEX})|(-?{_DECIMAL}))(?!\w)").findall
_RAW_IOCTL = re.compile(r"NR 16 \((?P<fd>[0-9a-f]{1,8}), (?P<cmd>[0-9a-f]{1,8}), (?P<arg>[0-9a-f]{1,16})[,)].*").fullmatch
_RAW_RESULT = re.compile(r"NR 16 = (-?\d{1,19})").fullmatch
_RESULT = re.compile(rf"-?(?:{_HEX}|{_DECIMAL})").fullmatch
_ATTRIBUTES = re.compile(rf"({_HEX}) -- ({_HEX}) \[({_HEX})\]").fullmatch
_HVA = re.compile(rf"mmu notifier unmap range: ({_HEX}) -- ({_HEX})").fullmatch
_SPTE = re.compile(
    r"as id (\d{1,9}) gfn ([0-9a-f]{1,13}) level ([1-5]) old_spte ([0-9a-f]{1,16}) new_spte ([0-9a-f]{1,16})"
).fullmatch
_HYPERCALL = re.compile(rf"nr ({_HEX}) a0 ({_HEX}) a1 ({_HEX}) a2 ({_HEX}) a3 ({_HEX})").fullmatch
_EXIT = re.compile(r"reason (\S+) \((\d{1,9})\)").fullmatch
_PAGE_FAULT = re.compile(
    r"(?:vcpu (\d{1,9}) (?:rip 0x[0-9a-f]++ |.*?))?address ((?:0x)?[0-9a-f]{1,16}) "
    r"error_code ((?:0x)?[0-9a-f]{1,16})(?![0-9a-f])"
).match
_SET_SPTE = re.compile(r"gfn ([0-9a-f]{1,13}) spte ([0-9a-f]{1,16}) \(\w*\) level ([1-5]) at [0-9a-f]{1,16}").fullmatch
_RMP_FAULT = re.compile(
    rf"vcpu (\d{{1,9}}) gpa ([0-9a-f]{{1,16}}) pfn ({_HEX}) error_code ({_HEX}) "
    r"rmp_level (-?\d{1,9}) psmash_ret (-?\d{1,9})"
).fullmatch
_VMGEXIT = re.compile(
    r"vcpu (\d{1,9}), exit_reason ([0-9a-f]{1,16}), exit_info1 ([0-9a-f]{1,16}), exit_info2 ([0-9a-f]{1,16})"
).fullmatch
_GHCB_MSR = re.compile(r"vcpu (\d{1,9}), ghcb_gpa ([0-9a-f]{1,16})(?:, result (-?\d{1,9}))?").fullmatch
_CLOCK_PAIR = re.compile(
    "clock_pair: " + " ".join(rf"{name}=(?P<{name}_s>{SECONDS})\.(?P<{name}_ns>\d{{9}})" for name in ("mono", "real", "boot"))
).fullmatch
"""One moment on three clocks, as tools/capture writes it into a trace."""
_FAILURE = re.compile(rf"pfn ({_HEX}): (recovery action for .*)").fullmatch
_LOST = re.compile(rf"CPU:(\d+) \[(?:LOST(?: ({_COUNT}))? EVENTS|(?:({_COUNT}) )?EVENTS DROPPED)\]").fullmatch
_COMMENT = re.compile(r"#(?:$|[\s#|_/])").match
"""A line of a header; `#PF:` and `#0:` begin lines of kernel logs."""
_BUFFER = re.compile(r"#+ CPU (\d+) buffer started #+").fullmatch
_BARE = re.compile(r" *+(?!> )(?P<comm>\S.{0,14}?)-(?P<thread>[0-9]{1,9}): (?P<name>[a-z]\w{1,60}): *(?P<rest>.*)").fullmatch
"""A line whose columns of CPU and time somebody has taken out."""
_ENTRIES = re.compile(rf"# entries-in-buffer/entries-written: ({_COUNT})/({_COUNT}).*").fullmatch
_DUMP = re.compile(r"Dumping ftrace buffer:|\(ftrace buffer empty\)|-{20,}").fullmatch
_TRACE_CMD = re.compile(r"(?:cpus ?= ?\d+|version = \d+|CPU \d+ is empty|trace-cmd version .*)").fullmatch

_CONTEXT = frozenset(
    ["kvm_exit", "kvm_entry", "kvm_age_hva", "kvm_test_age_hva", "kvm_mmu_spte_requested", "fast_page_fault", "ma_write"]
)
"""Tracepoints that are recognised and need no reading."""


def numbers(text: str) -> dict[str, int]:
    """All ``name=value`` with a number as value."""
    return {name: int(value, 16) if value else int(decimal) for name, value, decimal in _FIELDS(text)}


def _arguments(text: str) -> dict[str, int]:
    """The arguments of a system call: all ``name: value`` with a number as value."""
    return {name: int(value, 16) if value else int(decimal) for name, value, decimal in _SYSCALL_FIELDS(text)}


def _attributes(text: str) -> Mapping[str, int] | None:
    match = _ATTRIBUTES(text)
    return match and _sound("attempt", {"start": int(match[1], 16), "end": int(match[2], 16), "attrs": int(match[3], 16)})


def _hva(text: str) -> Mapping[str, int] | None:
    match = _HVA(text)
    start, end = (int(match[1], 16), int(match[2], 16)) if match else (0, 0)
    return {"hva": start, "end": end} if start < end else None


def _spte(text: str) -> Mapping[str, int] | None:
    match = _SPTE(text)
    if match is None:
        return None
    as_id, gfn, level, old, new = match.groups()
    return {"as_id": int(as_id), "gfn": int(gfn, 16), "level": int(level), "old": int(old, 16), "new": int(new, 16)}


def _hypercall(text: str) -> Mapping[str, int] | None:
    match = _HYPERCALL(text)
    return match and {"number": int(match[1], 16), "a0": int(match[2], 16), "a1": int(match[3], 16), "a2": int(match[4], 16)}


def _exit(text: str) -> Mapping[str, int] | None:
    """``reason KVM_EXIT_IO (2)`` is an exit, ``reason error (14)`` and ``reason restart (4)`` are errnos."""
    match = _EXIT(text)
    return match and ({"err": -int(match[2])} if match[1] in ("error", "restart") else {"reason": int(match[2]), "err": 0})


def _page_fault(text: str) -> Mapping[str, int] | None:
    match = _PAGE_FAULT(text)
    if match is None:
        return None
    vcpu, address, error_code = match.groups()
    fault = {"address": int(address, 16), "error_code": int(error_code, 16)}
    return fault if vcpu is None else {"vcpu": int(vcpu), **fault}


def _set_spte(text: str) -> Mapping[str, int] | None:
    match = _SET_SPTE(text)
    return match and {"gfn": int(match[1], 16), "new": int(match[2], 16), "level": int(match[3])}


def _rmp_fault(text: str) -> Mapping[str, int] | None:
    match = _RMP_FAULT(text)
    return match and {
        "vcpu": int(match[1]),
        "gpa": int(match[2], 16),
        "pfn": int(match[3], 16),
        "error_code": int(match[4], 16),
        "level": int(match[5]),
        "ret": int(match[6]),
    }


def _vmgexit(text: str) -> Mapping[str, int] | None:
    match = _VMGEXIT(text)
    if match is None:
        return None
    vcpu, reason, info1, info2 = match.groups()
    return _sound("psc_ghcb", {"vcpu": int(vcpu), "reason": int(reason, 16), "info1": int(info1, 16), "info2": int(info2, 16)})


def _ghcb_msr(text: str) -> Mapping[str, int] | None:
    match = _GHCB_MSR(text)
    return match and {"vcpu": int(match[1]), "ghcb": int(match[2], 16)}


def _clock_pair(text: str) -> Mapping[str, int] | None:
    match = _CLOCK_PAIR(text)
    if match is None:
        return None
    return {name: int(match[f"{name}_s"]) * 1_000_000_000 + int(match[f"{name}_ns"]) for name in ("mono", "real", "boot")}


def _failure(text: str) -> Mapping[str, int] | None:
    match = _FAILURE(text)
    return match and {"pfn": int(match[1], 16)}


def _signal(text: str) -> Mapping[str, int] | None:
    return _sound("signal", numbers(text))


def _victim(text: str) -> Mapping[str, int] | None:
    return _sound("oom", numbers(text))


def _sound(fact: str, args: Mapping[str, int]) -> Mapping[str, int] | None:
    return args if sound(fact, args) else None


_TRACEPOINTS: dict[str, tuple[str, Callable[[str], Mapping[str, int] | None]]] = {
    "kvm_vm_set_mem_attributes": ("attempt", _attributes),
    "kvm_set_vm_mem_attributes": ("attempt", _attributes),
    "kvm_unmap_hva_range": ("unmap_hva", _hva),
    "kvm_tdp_mmu_spte_changed": ("spte", _spte),
    "kvm_hypercall": ("hypercall", _hypercall),
    "kvm_userspace_exit": ("exit", _exit),
    "kvm_page_fault": ("page_fault", _page_fault),
    "kvm_mmu_set_spte": ("set_spte", _set_spte),
    "kvm_rmp_fault": ("rmp_split", _rmp_fault),
    "kvm_vmgexit_enter": ("psc_ghcb", _vmgexit),
    "kvm_vmgexit_exit": ("psc_ghcb_done", _vmgexit),
    "kvm_vmgexit_msr_protocol_enter": ("psc_msr", _ghcb_msr),
    "kvm_vmgexit_msr_protocol_exit": ("psc_msr_done", _ghcb_msr),
    "memory_failure_event": ("memory_failure", _failure),
    "signal_generate": ("signal", _signal),
    "mark_victim": ("oom", _victim),
}
"""Tracepoint to its fact and the reader of its text, which gives sound numbers only: most patterns have none else."""


class FtraceReader:
    """Reads one trace line by line; keeps only the stacks of the function graph."""

    format = SourceFormat.FTRACE

    def __init__(self) -> None:
        self._graph = Graph()
        self.entries = 0
        """the entries of the ring buffer that were read; the header says how many there should be"""

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: a fact, something about the trace itself, context, or None where nobody understands it."""
        match = _LINE(text)
        if match is None and "\\x" in text:
            match = _LINE_OF_BYTES(text)
        if match is None:
            return self._other(number, text)
        self.entries += 1
        comm, thread, whole, part, micro, event, rest = match.groups()
        said = _syscall(rest) if event is None else read_event(event, rest)
        if said is None or isinstance(said, Context):
            return said
        t = nanoseconds(whole, part) if micro is None else int(micro) * 1000
        return Fact(number, t, int(thread), comm, *said)

    def _other(self, number: int, text: str) -> Parsed:
        if text.startswith((" => ", "=> ")):
            return Context("stack trace")
        said = self._graph.parse(number, text)
        if isinstance(said, Fact) and said.name == "attempt_text":
            args = _attributes(said.text.partition(": ")[2])
            return None if args is None else said._replace(name="attempt", args=args)
        if said is not None:
            return said
        if match := _LOST(text.strip()):
            lost = match[2] or match[3]
            self._graph.forget()
            return Marker(number, "lost", lost=None if lost is None else int(lost))
        if _BUFFER(text):
            return Marker(number, "overwritten")
        if match := _ENTRIES(text):
            return Marker(number, "entries", int(match[1]), max(0, int(match[2]) - int(match[1])))
        if (match := _BARE(text)) and (match["name"] in _TRACEPOINTS or match["name"] in PROBES):
            bare = read_event(match["name"], match["rest"])
            return Fact(number, None, int(match["thread"]), match["comm"], *bare) if isinstance(bare, ParsedMessage) else None
        if text.startswith("# tracer:"):
            return Marker(number, "header")
        if _COMMENT(text) or not text.strip() or _DUMP(text):
            return Context("header and blank lines")
        return Context("trace-cmd header") if _TRACE_CMD(text.strip()) else None


def read_event(name: str, payload: str) -> ParsedMessage | Context | None:
    """What the text of a probe or tracepoint says; None if it is damaged."""
    known = _TRACEPOINTS.get(name)
    if known is not None:
        fact, read = known
        found = read(payload)
        return ParsedMessage(fact, found, f"{name}: {payload}") if found is not None else None
    if name in PROBES:
        args = numbers(payload)
        return ParsedMessage(name, args, payload) if sound(name, args) else None
    if name == "tracing_mark_write":
        pair = _clock_pair(payload)
        return ParsedMessage("clock_pair", pair, payload) if pair is not None else Context("other events", proof=True)
    if name in ("sys_enter", "sys_exit"):
        return _raw(payload)
    if name.startswith("sys_enter_"):
        return ParsedMessage(f"enter_{name[10:]}", _arguments(payload))
    if name.startswith("sys_exit_"):
        return ParsedMessage(f"leave_{name[9:]}", {"returned": _s64(payload)}) if _RESULT(payload) else None
    return Context(name if name in _CONTEXT else "other events", proof=True)


def _raw(payload: str) -> ParsedMessage | Context:
    """A system call by its number alone (include/trace/events/syscalls.h); 16 is ioctl on x86, where TDX and SNP are."""
    if match := _RAW_IOCTL(payload):
        return ParsedMessage("enter_ioctl", {name: int(value, 16) for name, value in match.groupdict().items()})
    match = _RAW_RESULT(payload)
    return Context("other events", proof=True) if match is None else ParsedMessage("leave_ioctl", {"returned": int(match[1])})


def _syscall(text: str) -> ParsedMessage | Context | None:
    match = _SYSCALL(text)
    if match is None:
        return Context("stack trace") if text in ("<stack trace>", "<user stack trace>") else None
    name, arguments, result = match.groups()
    if arguments is not None:
        return ParsedMessage(f"enter_{name}", _arguments(arguments))
    return ParsedMessage(f"leave_{name}", {"returned": _s64(result)})


def _s64(text: str) -> int:
    value = int(text, 16 if "x" in text else 10)
    return value - (1 << 64) if value >= 1 << 63 else value
