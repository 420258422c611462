"""The function graph: calls and returns of named functions, as the same facts that probes give.

Needs the column TASK/PID (``funcgraph-proc``), arguments (``funcgraph-args``) and return values (``funcgraph-retval``); lines
without them are context, but a conversion is known by its tracepoint where arguments are missing. Pointers are not followed:
what a probe reads through one (``range->start``) is missing here.
"""

import re
from typing import NamedTuple

from gmemstate.ingest.fact import SECONDS, Context, Fact, nanoseconds, sound
from gmemstate.messages.catalogue import ParsedMessage

_LINE = re.compile(
    rf" *(?:(?P<s>{SECONDS})\.(?P<f>\d+) \| +)?(?:\d+\) +)?(?P<comm>\S.*?)-(?P<thread>[0-9]{{1,9}}) +\|"
    r"(?: +[^ |]{4,8} +\|)?(?: ++(?:[+!#*@$] ++)?(?:\d+\.\d+ us ++)?\|)?(?P<body> .*)"
).fullmatch
_OTHER_LINE = re.compile(r" *(?:\d+\.\d+ \| +)?\d+\) .*|(?=[- ]*-{10})[- ]*+").fullmatch
_CALL = re.compile(r" *+([\w.]++)(?: \[\w++\])?+\((.*)\)(?: (\{)|;)(?: */\*([^*]*+)\*/)?$").match
_END = re.compile(r" *+\}(?: */\*([^*]*+)\*/)?$").match
_NAME = re.compile(r" ([A-Za-z_][\w.]*+)(?!=)").match
_RETURN = re.compile(r" (?:ret=|= )(-?(?:0x[0-9a-f]{1,16}|[0-9]{1,20}))(?!\w)").search
_COMMENT = re.compile(r" */\* (\w+): (.*) \*/$").match
_ARGUMENTS = re.compile(r"\b(\w++)=(?:(0x[0-9a-f]{1,16})|(-?[0-9]{1,20}))(?![\w.])").findall
_SUFFIX = re.compile(r"\.(?:part|isra|constprop|cold)\.?\d*")
DEPTH = 64

ENTERED = {
    "kvm_vm_ioctl": ("vm_ioctl", {"ioctl": "cmd", "filp": "file"}),
    "kvm_gmem_ioctl": ("gmem_ioctl", {"ioctl": "cmd", "file": "file"}),
    "__kvm_gmem_set_attributes": ("gmem_arguments", {"inode": "inode", "start": "start", "nr_pages": "nr", "attrs": "attrs"}),
    "unmap_mapping_pages": ("host_unmap", {"start": "start", "nr": "nr"}),
    "lru_cache_drain_for_folio": ("lru_folio", {"extra_refs": "extra"}),
    "__kvm_gmem_invalidate_start": ("gmem_inv", {"start": "start", "end": "end", "attr_filter": "filter"}),
    "kvm_arch_post_set_memory_attributes": ("post_set", {"kvm": "kvm"}),
    "kvm_arch_post_set_vm_memory_attributes": ("post_set", {"kvm": "kvm"}),
    "kvm_mmu_invalidate_end": ("inv_end", {"kvm": "kvm"}),
    "kvm_arch_memslots_updated": ("memslots_updated", {"kvm": "kvm", "gen": "gen"}),
    "kvm_arch_init_vm": ("vm_created", {"kvm": "kvm"}),
    "kvm_destroy_vm": ("vm_destroyed", {"kvm": "kvm"}),
}
"""Functions whose entry says something: the name of the fact, and argument by argument its name there."""

RETURNED = {
    "kvm_vm_ioctl": ("vm_ioctl_ret", {"ioctl": "cmd", "filp": "file"}),
    "kvm_gmem_ioctl": ("gmem_ioctl_ret", {"ioctl": "cmd", "file": "file"}),
    "kvm_range_has_memory_attributes": ("range_has_attrs", {"kvm": "kvm", "start": "start", "end": "end", "attrs": "attrs"}),
    "kvm_range_has_vm_memory_attributes": ("range_has_attrs", {"kvm": "kvm", "start": "start", "end": "end", "attrs": "attrs"}),
    "kvm_arch_pre_set_memory_attributes": ("pre_set", {"kvm": "kvm"}),
    "kvm_arch_pre_set_vm_memory_attributes": ("pre_set", {"kvm": "kvm"}),
    "kvm_unmap_gfn_range": ("unmap_gfn", {"kvm": "kvm"}),
    "kvm_gmem_fallocate": ("gmem_fallocate", {"mode": "mode", "offset": "offset", "len": "len"}),
}
"""Functions whose return says something."""

BOOLEAN = frozenset(["range_has_attrs", "pre_set", "unmap_gfn"])
"""Facts whose result is a bool: one byte; the rest of the register is undefined."""


class Open(NamedTuple):
    """A function that a thread is inside of. Its return is indented like its call."""

    indent: int
    name: str
    args: dict[str, int]


class Graph:
    """Follows the calls of each thread."""

    def __init__(self) -> None:
        self._stacks: dict[int, list[Open]] = {}

    def forget(self) -> None:
        """Events were lost: nobody knows where any thread is now."""
        self._stacks.clear()

    def parse(self, number: int, text: str) -> Fact | Context | None:
        """The fact of a line of the graph, context if it says nothing here, None if it is no line of a graph."""
        match = _LINE(text)
        if match is None:
            return Context("function graph") if _OTHER_LINE(text) else None
        whole, part, comm, thread, body = match.groups()
        said = self._said(self._stacks.setdefault(int(thread), []), body.rstrip())
        if said is None or not sound(said.name, said.args):
            return Context("function graph")
        return Fact(number, nanoseconds(whole, part), int(thread), comm, *said)

    def _said(self, stack: list[Open], body: str) -> ParsedMessage | None:
        if comment := _COMMENT(body):
            return ParsedMessage("attempt_text", {}, f"{comment[1]}: {comment[2]}") if "mem_attributes" in comment[1] else None
        indent = len(body) - len(body.lstrip())
        if call := _CALL(body):
            while stack and stack[-1].indent >= indent:
                stack.pop()  # its return is missing
            name = _SUFFIX.sub("", call[1])
            args = {key: int(value, 16) if value else int(decimal) for key, value, decimal in _ARGUMENTS(call[2])}
            if call[3]:
                said = self._fact(ENTERED, stack, name, args, None)
                stack.append(Open(indent, name, args))
                del stack[:-DEPTH]
                return said
            table = RETURNED if name in RETURNED else ENTERED
            return self._fact(table, stack, name, args, call[4])
        if end := _END(body):
            while stack and stack[-1].indent > indent:
                stack.pop()
            name_at_end = _NAME(end[1] or "")
            named = _SUFFIX.sub("", name_at_end[1]) if name_at_end else None
            if stack and stack[-1].indent == indent:
                _, name, args = stack.pop()
                if named in (None, name):
                    return self._fact(RETURNED, stack, name, args, end[1])
        return None

    @staticmethod
    def _fact(
        table: dict[str, tuple[str, dict[str, str]]], callers: list[Open], name: str, args: dict[str, int], comment: str | None
    ) -> ParsedMessage | None:
        known = table.get(name)
        if known is None:
            return None
        fact, names = known
        renamed = {new: args[old] for old, new in names.items() if old in args}
        if table is RETURNED and (result := _RETURN(comment or "")):
            value = int(result[1], 16 if "x" in result[1] else 10)
            value &= 0xFF if fact in BOOLEAN else -1
            renamed["ret"] = value - (1 << 64) if value >= 1 << 63 else value
        caller = callers[-1].name if callers else "?"
        return ParsedMessage(fact, renamed, f"({caller}+0x0 <- {name})")
