"""A bpftrace program that shows what the probes show, as JSON lines that `gmemstate ingest` reads.

It uses kprobes and arguments by number (x86-64), which every bpftrace since 0.16 has, and types of vmlinux only: those of
a module are not known to most. What needs the insides of a vCPU or of a memslot (where a memory
fault was, which slot) is therefore missing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from capturing.probes import CONVERT, CONVERT_IN_PLACE, RUN, SET_REGION

HEX, SIGNED = '"0x%llx"', "%lld"
CONVERTS = f"arg1 == {CONVERT:#x} || arg1 == {CONVERT_IN_PLACE:#x}"


class Shown(NamedTuple):
    """One kind of line. Fields are taken when the function is entered; with ``ret`` they are printed when it returns."""

    kind: str
    function: str
    fields: dict[str, str]
    ret: tuple[str, str] | None = None
    """the name of the result, and its type in C"""
    only: str | None = None


def _user(offset: int, size: int = 64, pointer: str = "arg2") -> str:
    return f"*(uint{size} *)uptr({pointer} + {offset})" if offset else f"*(uint{size} *)uptr({pointer})"


_ARGUMENT = {"addr": _user(0), "size": _user(8), "attrs": _user(16), "flags": _user(24)}
_FILE_ARGUMENT = {"offset": _user(0), "size": _user(8), "attrs": _user(16), "flags": _user(24)}
_INODE = {"inode": "(uint64)((struct file *)arg0)->f_inode"}
_KVM_OF_FILE = {"kvm": "(uint64)((struct file *)arg0)->private_data"}
_KVM = {"kvm": "arg0"}
_RANGE = {"kvm": "arg0", "start": "*(uint64 *)(arg1 + 8)", "end": "*(uint64 *)(arg1 + 16)"}
_SLOT = {"slot": _user(0, 32), "gpa": _user(8), "size": _user(16)}
_COMPARED = {"kvm": "arg0", "start": "arg1", "end": "arg2", "mask": "arg3", "attrs": "arg4"}

FUNCTIONS: tuple[Shown, ...] = (
    Shown("vm_ioctl", "kvm_vm_ioctl", {"file": "arg0", "cmd": "arg1", **_ARGUMENT}, only=CONVERTS),
    Shown(
        "vm_ioctl_ret", "kvm_vm_ioctl", {"cmd": "arg1", "addr": _user(0), "size": _user(8), "attrs": _user(16), **_KVM_OF_FILE},
        ("ret", "int64"), CONVERTS,
    ),
    Shown(
        "gmem_ioctl", "kvm_gmem_ioctl",
        {"cmd": "arg1", **_FILE_ARGUMENT, "error_in": _user(32), **_INODE,
            "kvm": "*(uint64 *)((struct file *)arg0)->private_data"},
        only=f"arg1 == {CONVERT_IN_PLACE:#x}",
    ),
    Shown(
        "gmem_ioctl_ret", "kvm_gmem_ioctl", {"cmd": "arg1", **_FILE_ARGUMENT, "error_offset": "", **_INODE}, ("ret", "int64"),
        f"arg1 == {CONVERT_IN_PLACE:#x}",
    ),
    Shown("vcpu_ioctl_ret", "kvm_vcpu_ioctl", {"cmd": "arg1"}, ("ret", "int64"), f"arg1 == {RUN:#x}"),
    Shown("host_unmap", "unmap_mapping_pages", {"inode": "(uint64)((struct address_space *)arg0)->host",
        "start": "arg1", "nr": "arg2"}),
    Shown("range_has_attrs", "kvm_range_has_memory_attributes", _COMPARED, ("ret", "uint8")),
    Shown("range_has_attrs", "kvm_range_has_vm_memory_attributes", _COMPARED, ("ret", "uint8")),
    Shown("pre_set", "kvm_arch_pre_set_memory_attributes", _RANGE, ("flush", "uint8")),
    Shown("pre_set", "kvm_arch_pre_set_vm_memory_attributes", _RANGE, ("flush", "uint8")),
    Shown("post_set", "kvm_arch_post_set_memory_attributes", _RANGE),
    Shown("post_set", "kvm_arch_post_set_vm_memory_attributes", _RANGE),
    Shown("unmap_gfn", "kvm_unmap_gfn_range", _RANGE, ("flush", "uint8")),
    Shown("inv_start", "kvm_mmu_invalidate_start", _KVM),
    Shown("inv_add", "kvm_mmu_invalidate_range_add", {"kvm": "arg0", "start": "arg1", "end": "arg2"}),
    Shown("inv_end", "kvm_mmu_invalidate_end", _KVM),
    Shown("tlb_flush", "kvm_flush_remote_tlbs", _KVM),
    Shown(
        "gmem_create", "kvm_gmem_create", {"kvm": "arg0", "size": "*(uint64 *)arg1", "flags": "*(uint64 *)(arg1 + 8)"},
        ("fd", "int32"),
    ),
    Shown("gmem_bind", "kvm_gmem_bind", {"kvm": "arg0", "fd": "arg2", "offset": "arg3"}, ("ret", "int32")),
    Shown("gmem_prepare", "kvm_gmem_prepare_memory_region", {"kvm": "arg0", "fd": "arg2", "offset": "arg3"}, ("ret", "int32")),
    Shown("gmem_fallocate", "kvm_gmem_fallocate", {**_INODE, "mode": "arg1", "offset": "arg2", "len": "arg3"}, (
        "ret", "int64")),
    Shown("gmem_release", "kvm_gmem_release", {"inode": "arg0"}),
    Shown(
        "gmem_error", "kvm_gmem_error_folio",
        {"inode": "(uint64)((struct address_space *)arg0)->host", "index": "((struct folio *)arg1)->index"},
    ),
    Shown(
        "gmem_ufault", "kvm_gmem_fault_user_mapping",
        {"pgoff": "((struct vm_fault *)arg0)->pgoff", "addr": "((struct vm_fault *)arg0)->address"}, ("ret", "uint32"),
    ),
    Shown("gmem_inv", "__kvm_gmem_invalidate_start", {"start": "arg1", "end": "arg2", "filter": "arg3 & 0xffffffff"}),
    Shown(
        "set_region", "kvm_vm_ioctl",
        {"cmd": "arg1", **_SLOT, "flags": _user(4, 32), "hva": _user(24), "gmem_offset": _user(32), "gmem_fd": _user(40, 32)},
        only=f"arg1 == {SET_REGION:#x}",
    ),
    Shown("set_region_ret", "kvm_vm_ioctl", {"cmd": "arg1", **_SLOT}, ("ret", "int64"), f"arg1 == {SET_REGION:#x}"),
    Shown("vm_created", "kvm_arch_init_vm", _KVM),
    Shown("vm_destroyed", "kvm_destroy_vm", _KVM),
    Shown("page_remove", "tdh_mem_page_remove", {"gpa": "arg1", "entry": "", "level_state": ""}, ("status", "uint64")),
)  # fmt: skip

AT_RETURN = {
    ("gmem_ioctl_ret", "error_offset"): ("arg2", _user(32, pointer="{}")),
    ("page_remove", "entry"): ("arg3", "*(uint64 *){}"),
    ("page_remove", "level_state"): ("arg4", "*(uint64 *){}"),
}
"""What the function writes: the argument that points to it, and how it is read through that."""

UNSIGNED = frozenset(("uint64", "uint32"))

EVENTS = {
    "kvm:kvm_vm_set_mem_attributes": ('"0x%014llx -- 0x%014llx [0x%llx]"', "args->start, args->end, args->attr", ""),
    "kvm:kvm_set_vm_mem_attributes": ('"0x%014llx -- 0x%014llx [0x%llx]"', "args->start, args->end, args->attr", ""),
    "kvm:kvm_hypercall": (
        '"nr 0x%llx a0 0x%llx a1 0x%llx a2 0x%llx a3 0x%llx"', "args->nr, args->a0, args->a1, args->a2, args->a3", "",
    ),
    "signal:signal_generate": (
        '"sig=%lld code=%lld pid=%lld"', "(int64)args->sig, (int64)args->code, (int64)args->pid",
            "args->sig == 7 || args->sig == 9",
    ),
}  # fmt: skip
"""Tracepoints that are read by their text: its form, its numbers, and a condition."""

NUMBERED = {
    "kvm:kvm_userspace_exit": ("uexit", {"reason": "(int64)args->reason", "err": "(int64)args->errno"}, ""),
    "maple_tree:ma_write": (
        "gmem_store", {"index": "args->index", "last": "args->last", "val": "(uint64)args->val"},
        "args->last < 4194304 && ((uint64)args->val == 0x1 || (uint64)args->val == 0x11)",
    ),
}  # fmt: skip
"""Tracepoints that are read by their numbers, under the name of a probe."""

TOP = """\
#!/usr/bin/env bpftrace
// What KVM does to guest_memfd, as JSON lines: bpftrace -B line THIS > facts.json, or | gmemstate ingest -
// Times are CLOCK_MONOTONIC in ns. x86-64.
"""


def program(functions: set[str] | None, tracing: Path | None = None) -> str:
    """The program for a kernel that has some functions (all if None) and, if its tracefs is given, its tracepoints."""

    def has(event: str) -> bool:
        return tracing is None or (tracing / "events" / event.replace(":", "/")).exists()

    parts = [TOP]
    parts += [_function(one) for one in FUNCTIONS if functions is None or one.function in functions]
    parts += [_text_event(event) for event in EVENTS if has(event)]
    parts += [_numbered_event(event) for event in NUMBERED if has(event)]
    return "\n".join(parts)


def _print(kind: str, fields: dict[str, str], form: Callable[[str], str], more: str = "") -> str:
    names = "".join(f', "{name}": {form(name)}' for name in fields)
    line = f'{{"t": %llu, "tid": %d, "kind": "{kind}"{names}{more}}}\\n'.replace('"', '\\"').replace("\\\\n", "\\n")
    values = "".join(f",\n    {value}" for value in fields.values())
    return f'  printf("{line}", nsecs, tid{values});\n'


def _condition(text: str | None) -> str:
    return f"/{text}/\n" if text else ""


def _function(one: Shown) -> str:
    where = f', "at": "<- {one.function}"'
    if one.ret is None:
        return f"kprobe:{one.function}\n{_condition(one.only)}{{\n{_print(one.kind, one.fields, lambda _: HEX, where)}}}\n"
    name, kind = one.ret
    maps = {field: f"@{one.kind}_{field}" for field in one.fields}
    saved, shown = {}, {}
    for field, value in one.fields.items():
        pointer, value_of = AT_RETURN.get((one.kind, field), (value, "{}"))
        saved[maps[field]] = pointer
        shown[field] = value_of.format(f"{maps[field]}[tid]")
    shown[name] = f"({kind})retval"
    began = f"@{one.kind}"
    entry = "".join(f"  {map_}[tid] = {value};\n" for map_, value in saved.items())
    gone = "".join(f"  delete({map_}[tid]);\n" for map_ in (began, *saved))
    form = {field: HEX for field in one.fields} | {name: HEX if kind in UNSIGNED else SIGNED}
    return (
        f"kprobe:{one.function}\n{_condition(one.only)}{{\n  {began}[tid] = (uint64)1;\n{entry}}}\n\n"
        f"kretprobe:{one.function}\n/{began}[tid]/\n{{\n{_print(one.kind, shown, form.__getitem__, where)}{gone}}}\n"
    )


def _text_event(event: str) -> str:
    form, values, only = EVENTS[event]
    text = {"text": values}
    return f"tracepoint:{event}\n{_condition(only)}{{\n{_print(event.partition(':')[2], text, lambda _: form)}}}\n"


def _numbered_event(event: str) -> str:
    kind, fields, only = NUMBERED[event]
    form = SIGNED if kind == "uexit" else HEX
    return f"tracepoint:{event}\n{_condition(only)}{{\n{_print(kind, fields, lambda _: form)}}}\n"
