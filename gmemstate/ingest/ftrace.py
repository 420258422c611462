"""The text of ftrace: tracefs ``trace``, ``trace_pipe`` and ``trace-cmd report``.

Formats: Documentation/trace/ftrace.rst; kernel/trace/trace_output.c (lines), trace_functions_graph.c (graph), trace.c
("LOST n EVENTS", header); trace-cmd prints "n EVENTS DROPPED". Probes are those of the capture script, by name; the numbers
of a probe are read by name, in any order.
"""

import re
from collections.abc import Callable, Mapping

from gmemstate.ingest.facts import Context, Fact, Marker
from gmemstate.ingest.graph import Graph

Parsed = Fact | Marker | Context | None

_LINE = re.compile(
    r" *(?P<comm>.+?)-(?P<thread>\d+) +(?:\( *[-\d]+\) +)?\[\d+\] +(?:[^ \d][^ ]* +)?(?P<s>\d+)(?:\.(?P<f>\d+))?: +(?P<rest>.*)"
).fullmatch
_EVENT = re.compile(r"([A-Za-z_]\w*): *(.*)").fullmatch
_FIELDS = re.compile(r"(\w+)=(-?(?:0x[0-9a-f]+|\d+))(?![\w.])").findall
_SYSCALL = re.compile(r"sys_(\w+)(?:\((.*)\)| -> (-?\w+))").fullmatch
_SYSCALL_FIELDS = re.compile(r"(\w+): (-?(?:0x[0-9a-fA-F]+|\d+))").findall
_ATTRIBUTES = re.compile(r"(0x[0-9a-f]+) -- (0x[0-9a-f]+) \[(0x[0-9a-f]+)\]").fullmatch
_HVA = re.compile(r"mmu notifier unmap range: (0x[0-9a-f]+) -- (0x[0-9a-f]+)").fullmatch
_SPTE = re.compile(r"as id (\d+) gfn ([0-9a-f]+) level (\d+) old_spte ([0-9a-f]+) new_spte ([0-9a-f]+)").fullmatch
_HYPERCALL = re.compile(r"nr (0x[0-9a-f]+) a0 (0x[0-9a-f]+) a1 (0x[0-9a-f]+) a2 (0x[0-9a-f]+) a3 (0x[0-9a-f]+)").fullmatch
_EXIT = re.compile(r"reason (\S+) \((\d+)\)").fullmatch
_PAGE_FAULT = re.compile(r"vcpu (\d+) .*?address (0x[0-9a-f]+) error_code (0x[0-9a-f]+)").match
_FAILURE = re.compile(r"pfn (0x[0-9a-f]+): (recovery action for .*)").fullmatch
_LOST = re.compile(r"CPU:(\d+) \[(?:LOST(?: (\d+))? EVENTS|(?:(\d+) )?EVENTS DROPPED)\]").fullmatch
_BUFFER = re.compile(r"#+ CPU (\d+) buffer started #+").fullmatch
_ENTRIES = re.compile(r"# entries-in-buffer/entries-written: (\d+)/(\d+).*").fullmatch
_TRACE_CMD = re.compile(r"(?:cpus ?= ?\d+|version = \d+|CPU \d+ is empty|trace-cmd version .*)").fullmatch

PROBES = frozenset(
    [
        "vm_ioctl",
        "vm_ioctl_ret",
        "gmem_ioctl",
        "gmem_ioctl_ret",
        "vcpu_ioctl_ret",
        "uexit",
        "run_ret",
        "hc_done",
        "range_has_attrs",
        "pre_set",
        "post_set",
        "unmap_gfn",
        "inv_start",
        "inv_add",
        "inv_end",
        "tlb_flush",
        "gmem_create",
        "gmem_bind",
        "gmem_prepare",
        "gmem_commit",
        "gmem_unbind",
        "gmem_fallocate",
        "gmem_release",
        "gmem_error",
        "gmem_get_pfn",
        "gmem_ufault",
        "gmem_inv",
        "set_region",
        "set_region_ret",
        "host_unmap",
        "lru_folio",
        "lru_drain_all",
        "gmem_store",
    ]
)
"""The probes whose numbers are printed as ``name=value``."""

_CONTEXT = frozenset(
    [
        "kvm_exit",
        "kvm_entry",
        "kvm_age_hva",
        "kvm_test_age_hva",
        "kvm_mmu_set_spte",
        "kvm_mmu_spte_requested",
        "fast_page_fault",
        "ma_write",
    ]
)
"""Tracepoints that are recognised and need no reading."""


def _attributes(text: str) -> Mapping[str, int] | None:
    match = _ATTRIBUTES(text)
    return match and {"start": int(match[1], 16), "end": int(match[2], 16), "attrs": int(match[3], 16)}


def _hva(text: str) -> Mapping[str, int] | None:
    match = _HVA(text)
    return match and {"start": int(match[1], 16), "end": int(match[2], 16)}


def _spte(text: str) -> Mapping[str, int] | None:
    match = _SPTE(text)
    return match and {
        "as_id": int(match[1]),
        "gfn": int(match[2], 16),
        "level": int(match[3]),
        "old": int(match[4], 16),
        "new": int(match[5], 16),
    }


def _hypercall(text: str) -> Mapping[str, int] | None:
    match = _HYPERCALL(text)
    return match and {"nr": int(match[1], 16), "a0": int(match[2], 16), "a1": int(match[3], 16), "a2": int(match[4], 16)}


def _exit(text: str) -> Mapping[str, int] | None:
    """``reason KVM_EXIT_IO (2)`` is an exit, ``reason error (14)`` and ``reason restart (4)`` are errnos."""
    match = _EXIT(text)
    return match and ({"err": -int(match[2])} if match[1] in ("error", "restart") else {"reason": int(match[2]), "err": 0})


def _page_fault(text: str) -> Mapping[str, int] | None:
    match = _PAGE_FAULT(text)
    return match and {"vcpu": int(match[1]), "address": int(match[2], 16), "error_code": int(match[3], 16)}


def _failure(text: str) -> Mapping[str, int] | None:
    match = _FAILURE(text)
    return match and {"pfn": int(match[1], 16)}


def numbers(text: str) -> dict[str, int]:
    """All ``name=value`` with a number as value."""
    return {name: int(value, 0) for name, value in _FIELDS(text)}


_TRACEPOINTS: dict[str, tuple[str, Callable[[str], Mapping[str, int] | None]]] = {
    "kvm_vm_set_mem_attributes": ("attempt", _attributes),
    "kvm_set_vm_mem_attributes": ("attempt", _attributes),
    "kvm_unmap_hva_range": ("unmap_hva", _hva),
    "kvm_tdp_mmu_spte_changed": ("spte", _spte),
    "kvm_hypercall": ("hypercall", _hypercall),
    "kvm_userspace_exit": ("exit", _exit),
    "kvm_page_fault": ("page_fault", _page_fault),
    "memory_failure_event": ("memory_failure", _failure),
    "signal_generate": ("signal", numbers),
    "mark_victim": ("oom", numbers),
}
"""Tracepoint to the name of its fact and the reader of its text."""


class FtraceReader:
    """Reads one trace line by line; keeps only the stacks of the function graph."""

    format = "ftrace"

    def __init__(self) -> None:
        self._graph = Graph()
        self.entries = 0
        """the entries of the ring buffer that were met; the header says how many there should be"""

    def parse(self, number: int, text: str) -> Parsed:
        """What a line says: a fact, something about the trace itself, context, or None where nobody understands it."""
        match = _LINE(text)
        if match is None:
            return self._other(number, text)
        self.entries += 1
        comm, thread, whole, part, rest = match.groups()
        t = None if part is None else int(whole) * 1_000_000_000 + int(part.ljust(9, "0")[:9])
        event = _EVENT(rest)
        if event is None:
            return self._syscall(number, t, int(thread), comm, rest)
        name, payload = event.groups()
        if name in PROBES:
            return Fact(number, t, int(thread), comm, name, numbers(payload), payload)
        known = _TRACEPOINTS.get(name)
        if known is not None:
            args = known[1](payload)
            return None if args is None else Fact(number, t, int(thread), comm, known[0], args, f"{name}: {payload}")
        if name in _CONTEXT:
            return Context(name)
        if name.startswith("sys_e"):
            return self._trace_cmd_syscall(number, t, int(thread), comm, name, payload)
        return Context("other events")

    def _syscall(self, number: int, t: int | None, thread: int, comm: str, rest: str) -> Parsed:
        match = _SYSCALL(rest)
        if match is None:
            return Context("stack trace") if rest in ("<stack trace>", "<user stack trace>") else None
        name, arguments, result = match.groups()
        if arguments is not None:
            args = {field: int(value, 0) for field, value in _SYSCALL_FIELDS(arguments)}
            return Fact(number, t, thread, comm, f"enter_{name}", args)
        return Fact(number, t, thread, comm, f"leave_{name}", {"ret": _s64(int(result, 0))})

    def _trace_cmd_syscall(self, number: int, t: int | None, thread: int, comm: str, name: str, payload: str) -> Parsed:
        if name.startswith("sys_enter_"):
            args = {field: int(value, 0) for field, value in _SYSCALL_FIELDS(payload)}
            return Fact(number, t, thread, comm, f"enter_{name[10:]}", args)
        try:
            return Fact(number, t, thread, comm, f"leave_{name[9:]}", {"ret": _s64(int(payload, 0))})
        except ValueError:
            return None

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
            return Marker(number, "entries", int(match[1]), int(match[2]) - int(match[1]))
        if text.startswith("# tracer:"):
            return Marker(number, "header")
        if text.startswith("#") or not text.strip():
            return Context("header and blank lines")
        return Context("trace-cmd header") if _TRACE_CMD(text.strip()) else None


def _s64(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
