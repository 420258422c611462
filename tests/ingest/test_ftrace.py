"""Each line of ftrace means what its format says, by a decoder that only splits at blanks and by lines read by hand."""

from decimal import Decimal

import pytest

from gmemstate.ingest.fact import Context, Fact, Marker, sound
from gmemstate.ingest.readers.ftrace import PROBES, FtraceReader
from tests.traces import CASES, lines_of

TASK = "gmem_cases-132     [001] .....     8.766011: "
GRAPH = "   25.346149 |   0)  gmem_ca-459   |               |"


def number(text: str) -> int | None:
    """A number as the kernel prints it; None for anything else."""
    digits = text.removeprefix("-")
    return int(text, 16 if digits.startswith("0x") else 10) if digits[:1].isdigit() and digits.isalnum() else None


def split(line: str) -> tuple[int, int, str, dict[str, int]] | None:
    """Thread, time, name and numbers of a line of a probe, taken apart at blanks; None if it is none."""
    head, colon, rest = line.partition(": ")
    task, bracket, where = head.rpartition(" [")
    name, _, payload = rest.partition(": ")
    if not colon or not bracket or name not in PROBES:
        return None
    t = Decimal(where.split()[-1]) * 10**9
    pairs = (word.partition("=") for word in payload.split())
    numbers = {field: value for field, equal, text in pairs if equal and (value := number(text)) is not None}
    return int(task.rpartition("-")[2]), int(t), name, numbers


@pytest.mark.parametrize("case", [case for case in CASES if "graph" not in case])
def test_every_line_of_a_probe_is_read_as_it_is_written(case: str) -> None:
    reader = FtraceReader()
    seen = 0
    for n, raw in enumerate(lines_of(case)[:8000], 1):
        expected = split(raw.decode())
        if expected is not None:
            said = reader.parse(n, raw.decode())
            assert isinstance(said, Fact), raw
            assert (said.line, (said.thread, said.t, said.name, said.args)) == (n, expected)
            seen += 1
    assert seen or case.endswith("_tp")


@pytest.mark.parametrize(
    ("line", "name", "args"),
    [
        (TASK + "kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 [0x8]",
         "attempt", {"start": 0x100004, "end": 0x100008, "attrs": 8}),
        (TASK + "kvm_set_vm_mem_attributes: 0x00000000100000 -- 0x00000000100001 [0x0]",
         "attempt", {"start": 0x100000, "end": 0x100001, "attrs": 0}),
        (TASK + "kvm_unmap_hva_range: mmu notifier unmap range: 0x007f8201f84000 -- 0x007f8201f85000",
         "unmap_hva", {"hva": 0x7F8201F84000, "end": 0x7F8201F85000}),
        (TASK + "kvm_tdp_mmu_spte_changed: as id 0 gfn 100004 level 1 old_spte 101a92e67 new_spte 8000000000000000",
         "spte", {"as_id": 0, "gfn": 0x100004, "level": 1, "old": 0x101A92E67, "new": 1 << 63}),
        (TASK + "kvm_hypercall: nr 0xc a0 0x100000000 a1 0x200 a2 0x1 a3 0x0",
         "hypercall", {"number": 12, "a0": 1 << 32, "a1": 0x200, "a2": 1}),
        (TASK + "kvm_userspace_exit: reason KVM_EXIT_HYPERCALL (3)", "exit", {"reason": 3, "err": 0}),
        (TASK + "kvm_userspace_exit: reason error (14)", "exit", {"err": -14}),
        (TASK + "kvm_userspace_exit: reason restart (4)", "exit", {"err": -4}),
        (TASK + "kvm_page_fault: vcpu 0 rip 0x401aa0 address 0x0000000100000000 error_code 0x100000006",
         "page_fault", {"vcpu": 0, "address": 1 << 32, "error_code": 0x100000006}),
        (TASK + "memory_failure_event: pfn 0x1058fa: recovery action for dirty unevictable LRU page: Failed",
         "memory_failure", {"pfn": 0x1058FA}),
        (TASK + "signal_generate: sig=9 errno=0 code=-6 comm=strace pid=1195 grp=0 res=0",
         "signal", {"sig": 9, "errno": 0, "code": -6, "pid": 1195, "grp": 0, "res": 0}),
        (TASK + "sys_ioctl(fd: 4, cmd: 0x4020aed2, arg: 0x7ffca9365a70)",
         "enter_ioctl", {"fd": 4, "cmd": 0x4020AED2, "arg": 0x7FFCA9365A70}),
        (TASK + "sys_ioctl -> 0xfffffffffffffff4", "leave_ioctl", {"returned": -12}),
        (TASK + "sys_exit_ioctl:       0x8", "leave_ioctl", {"returned": 8}),
        (TASK + "sys_enter_madvise:    start: 0x7f8201e04000, len_in: 0x00291000, behavior: 0x0000000f",
         "enter_madvise", {"start": 0x7F8201E04000, "len_in": 0x291000, "behavior": 15}),
        (TASK + "gmem_get_pfn: (f+0x1/0x2) kvm=0x1 slot=10 gfn=0x5 pfn=0x7ff0000000000000 ret=-133",
         "gmem_get_pfn", {"kvm": 1, "slot": 10, "gfn": 5, "pfn": 0x7FF0000000000000, "ret": -133}),
        (TASK + "vm_ioctl: (f+0x4/0x9) file=0xff cmd=0x4020aed2 addr=(fault) size=(fault) attrs=(fault) flags=(fault)",
         "vm_ioctl", {"file": 0xFF, "cmd": 0x4020AED2}),
        (GRAPH + "  kvm_vm_ioctl [kvm](filp=0xffff88810088f300, ioctl=0x4020aed2, arg=0x7fffa96db770) {",
         "vm_ioctl", {"file": 0xFFFF88810088F300, "cmd": 0x4020AED2}),
        (GRAPH + "    kvm_range_has_memory_attributes [kvm](kvm=0xff, start=0x4, end=0x8, mask=0xffffffffffffffff, attrs=0x8);"
         " /* ret=0xffffff01 */", "range_has_attrs", {"kvm": 255, "start": 4, "end": 8, "attrs": 8, "ret": 1}),
        (GRAPH + "  /* kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 [0x8] */",
         "attempt", {"start": 0x100004, "end": 0x100008, "attrs": 8}),
        (GRAPH + "    kvm_arch_post_set_memory_attributes.part.0 [kvm](kvm=0xff, range=0xffffc90000563de0); /* ret=0x0 */",
         "post_set", {"kvm": 255}),
    ],
)  # fmt: skip
def test_a_line_read_by_hand(line: str, name: str, args: dict[str, int]) -> None:
    said = FtraceReader().parse(7, line)
    assert isinstance(said, Fact)
    assert (said.line, said.name, said.args) == (7, name, args)


@pytest.mark.parametrize(
    "task",
    [
        "            qemu-7     [000] .....     1.5: ",
        "            qemu-7     [000]     1.5: ",
        "            qemu-7     [000] d..2.     1.500000: ",
        "            qemu-7       (      5) [000] .....     1.500000: ",
        "            qemu-7       (-------) [000] .....     1.500000: ",
        "CPU 0/KVM-x-7     [000] .....     1.500000000: ",
        "    weird: name-3-7     [000] .....     1.500000: ",
        "    qemu-7         1d..2. 1500000us : ",
        "    qemu-7        12..... 1500000us!: ",
        "CPU 0/KV-7         0...1. 1500000us+: ",
        "    qemu-7     1.....     1.500000: ",
        "            qemu-7     [000]     1.500000:          ",
        "            qemu-7     [000]     1.500000: (+274835) ",
    ],
)
def test_the_head_of_a_line_has_many_forms(task: str) -> None:
    """With the column of flags or without (trace-cmd), with thread groups, in micro- or nanoseconds, with any name, short
    (latency-format, a dumped buffer, `trace-cmd report -l`), with differences (--ts-diff).
    """
    said = FtraceReader().parse(1, task + "tlb_flush: (f) kvm=0x1")
    assert isinstance(said, Fact)
    assert (said.thread, said.t) == (7, 1_500_000_000)


@pytest.mark.parametrize(
    ("payload", "understood"),
    [
        (f"kvm_tdp_mmu_spte_changed: as id {'9' * 9} gfn {'f' * 13} level 5 old_spte {'f' * 16} new_spte {'f' * 16}", True),
        (f"kvm_mmu_set_spte: gfn {'f' * 13} spte {'f' * 16} (rwxu) level 5 at {'f' * 16}", True),
        (f"kvm_page_fault: vcpu {'9' * 9} rip 0x{'f' * 16} address 0x{'f' * 16} error_code 0x{'f' * 16}", True),
        (f"kvm_unmap_hva_range: mmu notifier unmap range: 0x{'0' * 16} -- 0x{'f' * 16}", True),
        (f"kvm_hypercall: nr 0x{'f' * 16} a0 0x{'f' * 16} a1 0x{'f' * 16} a2 0x{'f' * 16} a3 0x{'f' * 16}", True),
        (f"kvm_userspace_exit: reason KVM_EXIT_IO ({'9' * 9})", True),
        (f"kvm_userspace_exit: reason error ({'9' * 9})", True),
        (
            f"kvm_rmp_fault: vcpu {'9' * 9} gpa {'f' * 16} pfn 0x{'f' * 16} error_code 0x{'f' * 16} "
            f"rmp_level -{'9' * 9} psmash_ret -{'9' * 9}",
            True,
        ),
        (f"kvm_vmgexit_enter: vcpu {'9' * 9}, exit_reason ffffffff, exit_info1 {'f' * 16}, exit_info2 {'f' * 16}", True),
        (f"kvm_vmgexit_enter: vcpu 0, exit_reason 1{'0' * 8}, exit_info1 0, exit_info2 0", False),
        (f"kvm_vmgexit_exit: vcpu 0, exit_reason 1{'0' * 8}, exit_info1 0, exit_info2 0", False),
        (f"kvm_vmgexit_msr_protocol_enter: vcpu {'9' * 9}, ghcb_gpa {'f' * 16}", True),
        (f"memory_failure_event: pfn 0x{'f' * 16}: recovery action for free buddy page: Recovered", True),
        ("kvm_vm_set_mem_attributes: 0x00 -- 0x10000000000000 [0xffffffffffffffff]", True),
        ("kvm_vm_set_mem_attributes: 0x00 -- 0x10000000000001 [0x8]", False),
        ("kvm_vm_set_mem_attributes: 0x02 -- 0x02 [0x8]", False),
        ("signal_generate: sig=7 errno=0 code=4 comm=qemu pid=4294967295 grp=0 res=0", True),
        ("signal_generate: sig=4294967296 errno=0 code=4 comm=qemu pid=7 grp=0 res=0", False),
        ("mark_victim: pid=4294967296 comm=qemu", False),
    ],
)
def test_a_tracepoint_gives_no_number_that_the_kernel_cannot_have_meant(payload: str, understood: bool) -> None:
    fact = FtraceReader().parse(1, TASK + payload)
    if understood:
        assert isinstance(fact, Fact)
        assert sound(fact.name, fact.args)
    else:
        assert fact is None


def test_a_clock_that_counts_no_seconds_gives_no_time() -> None:
    said = FtraceReader().parse(1, "qemu-7 [000] ..... 18446744073709551615: tlb_flush: (f) kvm=0x1")
    assert isinstance(said, Fact)
    assert said.t is None


def test_a_return_of_the_graph_has_the_arguments_of_its_call() -> None:
    reader = FtraceReader()
    for line in (
        "  kvm_gmem_fallocate [kvm](file=0xffff88810088e9c0, mode=3, offset=16384, len=16384) {",
        "    kvm_gmem_punch_hole [kvm](inode=0x1) {",
        "      lost_in_between [kvm]() {",
        "    } /* kvm_gmem_punch_hole [kvm] ret=0x0 */",
    ):
        assert not isinstance(reader.parse(1, GRAPH + line), Fact)
    said = reader.parse(2, GRAPH + "  } /* kvm_gmem_fallocate [kvm] ret=-22 */")
    assert isinstance(said, Fact)
    assert (said.name, said.args) == ("gmem_fallocate", {"mode": 3, "offset": 16384, "len": 16384, "ret": -22})


def test_a_return_of_the_graph_behind_lost_events_belongs_to_no_call() -> None:
    reader = FtraceReader()
    reader.parse(1, GRAPH + "  kvm_vm_ioctl [kvm](filp=0xff, ioctl=0x4020aed2, arg=0x0) {")
    assert isinstance(reader.parse(2, "CPU:0 [LOST 4 EVENTS]"), Marker)
    assert reader.parse(3, GRAPH + "  } /* kvm_vm_ioctl [kvm] ret=0x0 */") == Context("function graph")


@pytest.mark.parametrize(
    ("line", "marker"),
    [
        ("CPU:1 [LOST 4 EVENTS]", Marker(1, "lost", lost=4)),
        ("CPU:1 [LOST EVENTS]", Marker(1, "lost")),
        ("CPU:0 [12 EVENTS DROPPED]", Marker(1, "lost", lost=12)),
        ("CPU:0 [EVENTS DROPPED]", Marker(1, "lost")),
        ("##### CPU 1 buffer started ####", Marker(1, "overwritten")),
        ("# entries-in-buffer/entries-written: 2785/45756   #P:2", Marker(1, "entries", 2785, 42971)),
        ("# tracer: nop", Marker(1, "header")),
    ],
)
def test_a_trace_says_what_is_missing_from_it(line: str, marker: Marker) -> None:
    assert FtraceReader().parse(1, line) == marker


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (TASK + "kvm_exit: vcpu 0 reason hypercall rip 0x416875", "kvm_exit"),
        (TASK + "sched_switch: prev_comm=a", "other events"),
        (TASK + "<stack trace>", "stack trace"),
        (" => kvm_vm_ioctl", "stack trace"),
        ("#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION", "header and blank lines"),
        ("", "header and blank lines"),
        ("cpus=2", "trace-cmd header"),
        (" ------------------------------------------", "function graph"),
    ],
)
def test_what_says_nothing_of_a_conversion_is_context(line: str, kind: str) -> None:
    said = FtraceReader().parse(1, line)
    assert isinstance(said, Context)
    assert said.kind == kind


@pytest.mark.parametrize(
    "line", ["hello", TASK + "no event", TASK + "kvm_hypercall: nr 12", TASK + "sys_ioctl -> fine", "=>", "CPU:x [LOST]"]
)
def test_what_nobody_knows_is_not_understood(line: str) -> None:
    assert FtraceReader().parse(1, line) is None
