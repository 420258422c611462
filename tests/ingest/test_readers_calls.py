"""System calls and tracepoints as strace, perf and bpftrace print them: the same facts in every spelling."""

import json
from pathlib import Path
from typing import Any

import pytest

from gmemstate.model.errors import CannotRead
from gmemstate.model.events import (
    ConvertAsked,
    ConvertReturned,
    Event,
    MemoryFaultExit,
    Punched,
    SlotSet,
    TaskSignalled,
    Through,
    VmmSaid,
)
from tests.ingest.witness import events_of, opened, said, shows
from tests.traces import Read, lines_of, read_case, read_file, read_lines

SPELLINGS = {
    "its name": "KVM_SET_MEMORY_ATTRIBUTES",
    "_IOC": "_IOC(_IOC_WRITE, 0xae, 0xd2, 0x20)",
    "a number": "0x4020aed2",
    "both": "0x4020aed2 /* _IOC(_IOC_WRITE, 0xae, 0xd2, 0x20) */",
    "both, by name": "0x4020aed2 /* KVM_SET_MEMORY_ATTRIBUTES */",
}
PREFIXES: dict[str, tuple[str, int | None, int | None]] = {
    "none": ("", None, None),
    "-f": ("4711  ", 4711, None),
    "-f on a terminal": ("[pid  4711] ", 4711, None),
    "-ttt": ("4711  1795341600.250000 ", 4711, 1795341600_250000000),
    "-tt": ("4711  10:00:01.250000 ", 4711, (10 * 3600 + 1) * 1_000_000_000 + 250_000_000),
    "-t": ("4711  10:00:01 ", 4711, (10 * 3600 + 1) * 1_000_000_000),
    "-r": ("4711       0.000123 ", 4711, None),
}
ENDS = {
    "success": ("= 0", 0),
    "an errno": ("= -1 ENOMEM (Cannot allocate memory)", 12),
    "an errno and a duration": ("= -1 EINVAL (Invalid argument) <0.000250>", 22),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("file", ["4", "4<anon_inode:kvm-vm>"])
def test_a_conversion_is_known_by_its_ioctl_in_every_spelling(
    spelling: str, prefix: str, end: str, file: str, tmp_path: Path
) -> None:
    """The address is in memory that strace does not read: it stays unknown, the errno is certain."""
    before, thread, t = PREFIXES[prefix]
    after, result = ENDS[end]
    log = said(f"{before}ioctl({file}, {SPELLINGS[spelling]}, 0x7ffc106c4ff0) {after}", tmp_path)
    asked, returned = log.events
    assert isinstance(asked, ConvertAsked)
    assert shows(asked, through=Through.VM_IOCTL, thread=thread, t=t, start=None, attributes=None, owner=None, fd=4)
    assert isinstance(returned, ConvertReturned)
    assert shows(returned, result=result, thread=thread, conversion=asked.conversion)
    assert returned.t == (None if t is None else t + 250_000 * ("duration" in end))
    (conversion,) = log.whole.conversions
    assert conversion["errno"] == result
    assert conversion["start"] is None
    assert conversion["guest"] == "?"


THROUGH = {
    "ioctl(8</[kvm-gmem]>(deleted), _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd2, 0x80), 0x7ffc) = 0": Through.GMEM_IOCTL,
    "ioctl(8, 0xc080aed2, 0x7ffc) = 0": Through.GMEM_IOCTL,
    "ioctl(4<anon_inode:kvm-vm>, KVM_SET_MEMORY_ATTRIBUTES2, 0x7ffc) = 0": Through.VM_IOCTL,
    "ioctl(8<anon_inode:[kvm-gmem]>, _IOC(_IOC_READ|_IOC_WRITE, 0xaf, 0x42, 0x40), 0x7ffc) = -1 EAGAIN (Resource temporarily "
    "unavailable)": Through.GMEM_CONVERT,
}


@pytest.mark.parametrize("line", THROUGH)
def test_the_call_tells_where_the_attribute_lives(line: str, tmp_path: Path) -> None:
    asked = said(line, tmp_path).events[0]
    assert isinstance(asked, ConvertAsked)
    assert asked.through is THROUGH[line]


def test_a_call_in_two_lines_is_one_conversion(tmp_path: Path) -> None:
    log = said(
        """\
77 1795341600.000001 ioctl(4, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc <unfinished ...>
78 1795341600.000002 ioctl(6, KVM_RUN, 0) = -1 EFAULT (Bad address)
78 1795341600.000003 ioctl(6, KVM_GET_REGS <unfinished ...>
77 1795341600.000004 <... ioctl resumed>) = -1 ENOMEM (Cannot allocate memory) <0.000003>
78 1795341600.000005 <... ioctl resumed>, {rax=0}) = 0
""",
        tmp_path,
    )
    asked, fault, returned = log.events
    assert shows(asked, thread=77, t=1795341600_000001000)
    assert isinstance(fault, MemoryFaultExit)
    assert shows(returned, result=12, thread=77, t=1795341600_000004000)
    assert log.account.unparsed == 0


def test_a_call_without_a_result_is_cut(tmp_path: Path) -> None:
    (conversion,) = said(
        "77 10:00:00 ioctl(4, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc <unfinished ...>\n77 10:00:01 +++ killed by SIGKILL +++",
        tmp_path,
    ).whole.conversions
    assert (conversion["errno"], conversion["label"], conversion["dying"]) == (None, "cut", True)


RESULTS: dict[str, tuple[type[Event], dict[str, Any]] | None] = {
    "ioctl(6<anon_inode:kvm-vcpu:0>, KVM_RUN, 0) = -1 EFAULT (Bad address)": (
        MemoryFaultExit,
        {"result": 14, "start": None, "basis": "implied"},
    ),
    "ioctl(6, 0xae80, 0) = -1 EHWPOISON (Memory page has hardware error)": (MemoryFaultExit, {"result": 133}),
    "ioctl(6, KVM_RUN, 0) = -1 EIO (Input/output error)": (VmmSaid, {"code": "KVM_RUN", "result": 5, "errno": "EIO"}),
    "ioctl(6, KVM_RUN, 0) = -1 EINTR (Interrupted system call)": None,
    "ioctl(6, KVM_RUN, 0) = 0": None,
    "ioctl(4, _IOC(_IOC_READ|_IOC_WRITE, 0xae, 0xd4, 0x40), 0x7ffc) = -1 EINVAL (Invalid argument)": (
        VmmSaid,
        {"code": "KVM_CREATE_GUEST_MEMFD", "result": 22},
    ),
    "ioctl(4, KVM_CREATE_GUEST_MEMFD, 0x7ffc) = 5": None,
    "ioctl(4, _IOC(_IOC_WRITE, 0xae, 0x49, 0xa0), 0x7ffc) = -1 EEXIST (File exists)": (
        VmmSaid,
        {"code": "KVM_SET_USER_MEMORY_REGION2", "result": 17},
    ),
    "ioctl(4, KVM_SET_USER_MEMORY_REGION2, 0x7ffc) = 0": None,
    "ioctl(4, KVM_SET_USER_MEMORY_REGION, {slot=3, flags=KVM_MEM_LOG_DIRTY_PAGES, guest_phys_addr=0x100000, "
    "memory_size=8192, userspace_addr=0x7f0000000000}) = 0": (
        SlotSet,
        {"slot": 3, "start": 0x100, "npages": 2, "flags": 1, "result": 0, "hva": "0x7f0000000000"},
    ),
    "fallocate(5<anon_inode:[kvm-gmem]>, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 8192, 4096) = 0": (
        Punched,
        {"mode": 3, "start": 2, "npages": 1, "result": 0},
    ),
    "fallocate(5</[kvm-gmem]>(deleted), 0x3 /* FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE */, 8192, 100) = -1 EINVAL (Invalid "
    "argument)": (Punched, {"mode": 3, "start": None, "result": 22, "offset": "0x2000", "len": "0x64"}),
    "fallocate(5</tmp/disk.img>, FALLOC_FL_KEEP_SIZE, 0, 4096) = 0": None,
    "fallocate(5, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 4096) = 0": None,
    "--- SIGBUS {si_signo=SIGBUS, si_code=BUS_MCEERR_AR, si_addr=0x7f0000001000} ---": (
        TaskSignalled,
        {"signal": 7, "reason": 4},
    ),
    "+++ killed by SIGKILL +++": (TaskSignalled, {"signal": 9}),
    "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=7} ---": None,
    "+++ exited with 0 +++": None,
    'openat(AT_FDCWD, "/dev/kvm", O_RDWR|O_CLOEXEC) = 3': None,
    "exit_group(0) = ?": None,
    "strace: Process 4712 attached": None,
}


@pytest.mark.parametrize("line", RESULTS)
def test_a_result_is_put_on_record_if_it_says_something_of_memory(line: str, tmp_path: Path) -> None:
    expected = RESULTS[line]
    log = said(line if line.startswith("strace") else f"4711 {line}", tmp_path)
    assert log.account.unparsed == 0
    if expected is None:
        assert log.events == []
        return
    (event,) = log.events
    assert type(event) is expected[0]
    assert shows(event, **expected[1]), event


def test_a_descriptor_is_a_guest_memfd_until_it_is_closed_or_another_file(tmp_path: Path) -> None:
    """Without -yy a file is known by the ioctl that has made it."""
    punch = "77 fallocate(5, FALLOC_FL_KEEP_SIZE|FALLOC_FL_PUNCH_HOLE, 0, 4096) = 0"
    create = "77 ioctl(4, KVM_CREATE_GUEST_MEMFD, 0x7ffc) = 5"
    log = said(
        [punch, create, punch, "77 close(5) = 0", punch, create, 'openat(AT_FDCWD, "/x", O_RDONLY) = 5', punch], tmp_path
    )
    assert [event.line for event in log.events] == [3]


# --- perf -------------------------------------------------------------------------------------------------------------


def test_perf_trace_calls_the_newer_ioctl_by_the_older_name(tmp_path: Path) -> None:
    """It looks at type and number alone: on a guest_memfd it is KVM_SET_MEMORY_ATTRIBUTES2."""
    log = said(
        """\
     0.100 ( 0.010 ms): vmm/77 ioctl(fd: 4, cmd: KVM_CREATE_GUEST_MEMFD, arg: 0x7ffc)                    = 8
     0.200 ( 0.010 ms): vmm/77 ioctl(fd: 4, cmd: (0xae, 0xd2, 0x1), arg: 0x7ffc)                          = 0
     0.300 (         ): vmm/77 ioctl(fd: 8, cmd: KVM_SET_MEMORY_ATTRIBUTES, arg: 0x7ffc)               ...
     0.310 ( 0.002 ms): vmm/78 ioctl(fd: 6, cmd: KVM_RUN)                           = -1 EFAULT (Bad address)
     0.300 ( 0.200 ms): vmm/77  ... [continued]: ioctl())                         = -1 EAGAIN (Resource temporarily unavailable)
     0.600 ( 0.010 ms): vmm/77 fallocate(fd: 8, mode: KEEP_SIZE|PUNCH_HOLE, offset: 8192, len: 4096)  = 0
""",
        tmp_path,
    )
    assert [event.name for event in log.events] == [
        "convert_asked",
        "convert_returned",
        "convert_asked",
        "memory_fault_exit",
        "convert_returned",
        "punched",
    ]
    first, second = (event for event in log.events if isinstance(event, ConvertAsked))
    assert (first.through, second.through) == (Through.VM_IOCTL, Through.GMEM_IOCTL)
    assert shows(log.events[4], result=11, t=300_000)
    assert shows(log.events[5], mode=3, start=2, npages=1)
    assert opened(log.whole)["format"] == "perf trace"


def test_perf_trace_names_the_fields_of_tracepoints(tmp_path: Path) -> None:
    log = said(
        """\
     0.100 (         ): vmm/77 kvm:kvm_vm_set_mem_attributes(start: 1048580, end: 1048584, attr: 8)
     0.200 (         ): vcpu/78 kvm:kvm_userspace_exit(reason: 39, errno: -14)
     0.300 (         ): vcpu/78 kvm:kvm_hypercall(nr: 12, a0: 4294967296, a1: 4, a2: 16)
""",
        tmp_path,
    )
    attempt, fault, asked = log.events
    assert shows(attempt, start=0x100004, npages=4, attributes=8, thread=77)
    assert shows(fault, result=14, thread=78)
    assert shows(asked, start=0x100000, npages=4, flags=16)


def as_perf(line: bytes) -> bytes:
    """A line of ftrace as ``perf script`` prints it: another frame, the group before the name."""
    text = line.decode()
    head, _, rest = text.partition("] ")
    comm, _, thread = head.rpartition("  [")[0].strip().rpartition("-")
    columns, _, event = rest.partition(": ")
    name, colon, payload = event.partition(": ")
    if not colon or not thread.isdigit() or name.startswith("sys_"):
        return b""
    time = columns.split()[-1]
    return f"{comm:>16} {thread} [000] {time}: {'kvm:' + name:>34}: {payload}".encode()


@pytest.mark.parametrize("case", ["simple", "half_done", "ip_basic"])
def test_perf_script_says_what_ftrace_says(case: str, tmp_path: Path) -> None:
    """The same tracepoints and probes in perf's frame give the same conversions."""
    lines = [line for line in lines_of(case) if b"sys_" not in line]
    traced, scripted = read_lines(lines, tmp_path), read_lines([as_perf(line) for line in lines], tmp_path)
    assert opened(scripted)["format"] == "perf script"
    assert _conversions(scripted) == _conversions(traced) != []


def _conversions(read: Read) -> list[dict[str, Any]]:
    beside = ("id", "evidence", "request")
    return [{name: value for name, value in one.items() if name not in beside} for one in read.conversions]


def test_events_that_perf_has_lost_are_a_gap(tmp_path: Path) -> None:
    log = said(
        "qemu 77 [001] 12.345678: kvm:kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 "
        "[0x8]\nPERF_RECORD_LOST: lost 55",
        tmp_path,
    )
    assert shows(log.events[-1], count=55)


# --- bpftrace, and the probe program ------------------------------------------------------------------------------------


def as_json(line: bytes) -> bytes:
    """A line of ftrace as the probe program prints it."""
    text = line.decode()
    head, _, rest = text.partition("] ")
    comm, _, thread = head.rpartition("  [")[0].strip().rpartition("-")
    columns, _, event = rest.partition(": ")
    name, colon, payload = event.partition(": ")
    if not colon or not thread.isdigit() or name.startswith("sys_"):
        return b""
    seconds, _, part = columns.split()[-1].partition(".")
    record: dict[str, object] = {
        "t": int(seconds) * 1_000_000_000 + int(part.ljust(9, "0")),
        "tid": int(thread),
        "comm": comm,
        "kind": name,
    }
    if payload.startswith("("):
        record["at"], _, payload = payload[1:].partition(") ")
        for field in payload.split():
            key, _, value = field.partition("=")
            record[key] = value if value.startswith("0x") else int(value)
    else:
        record["text"] = payload
    return json.dumps(record).encode()


@pytest.mark.parametrize("case", ["simple", "half_done", "ip_eagain_pin"])
def test_the_probe_program_says_what_ftrace_says(case: str, tmp_path: Path) -> None:
    lines = [line for line in lines_of(case) if b"sys_" not in line]
    traced, probed = read_lines(lines, tmp_path), read_lines([as_json(line) for line in lines], tmp_path)
    assert opened(probed)["format"] == "bpftrace"
    assert _conversions(probed) == _conversions(traced) != []
    assert [event.name for event in events_of(probed)] == [event.name for event in events_of(traced)]


def printf(text: str) -> str:
    return json.dumps({"type": "printf", "data": text + "\n"})


def test_what_a_script_prints_is_read_as_a_line(tmp_path: Path) -> None:
    """bpftrace puts each printf into an object; a probe's own object may stand in it."""
    own = json.dumps(
        {
            "t": 5,
            "tid": 77,
            "kind": "vm_ioctl",
            "cmd": "0x4020aed2",
            "addr": "0x100000000",
            "size": 4096,
            "attrs": 8,
            "flags": 0,
        }
    )
    log = said(['{"type": "attached_probes", "data": {"probes": 3}}', printf(own), printf("Dear kernel,")], tmp_path)
    (asked,) = log.events
    assert shows(asked, start=0x100000, npages=1, attributes=8, thread=77, t=5)
    assert (log.account.used, log.account.context, log.account.unparsed) == (1, {"bpftrace": 1}, 1)


def test_events_that_bpftrace_has_lost_are_a_gap(tmp_path: Path) -> None:
    log = said('{"type": "attached_probes", "data": {"probes": 3}}\n{"type": "lost_events", "data": {"events": 17}}', tmp_path)
    assert shows(log.events[0], count=17)


BAD = [
    {"t": 5, "tid": 77, "kind": "vm_ioctl", "cmd": "0x4020aed2", "addr": 1 << 64},
    {"t": -5, "tid": 77, "kind": "vm_ioctl", "cmd": "0x4020aed2"},
    {"t": 5, "tid": "77", "kind": "vm_ioctl", "cmd": "0x4020aed2"},
    {"t": 5, "tid": True, "kind": "vm_ioctl", "cmd": "0x4020aed2"},
    {"t": 5, "tid": 77, "kind": ["vm_ioctl"]},
    {"t": 5, "tid": 77, "kind": "vm_ioctl", "cmd": "ioctl"},
    {"t": 5, "tid": 77, "kind": "gmem_inv", "start": 5, "end": 4},
    {"t": 1e300, "tid": 77, "kind": "vm_ioctl"},
]


@pytest.mark.parametrize("record", BAD, ids=range(len(BAD)))
def test_a_damaged_object_says_nothing(record: dict[str, object], tmp_path: Path) -> None:
    log = said(["[ 1.000000] kvm: ok", json.dumps(record)], tmp_path)
    assert log.events == []
    assert log.account.unparsed == 1


# --- trace.dat ----------------------------------------------------------------------------------------------------------

RECORDING = b"\x17\x08\x44tracing6\0\0\0\0" + bytes(100)


def _recorder(folder: Path, script: str) -> None:
    program = folder / "trace-cmd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_recording_is_read_through_trace_cmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where trace-cmd is installed its report is read in place of the binary file."""
    text = tmp_path / "report.txt"
    text.write_bytes(b"\n".join(lines_of("simple")) + b"\n")
    _recorder(tmp_path, f'test "$1 $2 $3" = "report -N -i" && test -f "$4" && exec cat {text}')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    recording = tmp_path / "trace.dat"
    recording.write_bytes(RECORDING)
    read = read_file(recording)
    assert [row[2:] for row in read.rows[1:-1]] == [row[2:] for row in read_case("simple").rows[1:-1]]
    assert opened(read)["name"] == str(recording)


def test_a_recording_that_trace_cmd_cannot_read_to_its_end_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "report.txt"
    text.write_bytes(b"\n".join(lines_of("simple")) + b"\n")
    _recorder(tmp_path, f"cat {text}; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    recording = tmp_path / "trace.dat"
    recording.write_bytes(RECORDING)
    damage = json.loads(str(read_file(recording).rows[-1][-1]))["damage"]
    assert damage == "trace-cmd could not read it to its end"


def test_a_recording_of_which_trace_cmd_gives_nothing_is_refused_with_what_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with success as its exit code, as trace-cmd ends for a file that it does not know."""
    _recorder(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "trace.dat").write_bytes(RECORDING)
    with pytest.raises(CannotRead, match="gives no text: it is damaged, or newer than the trace-cmd here"):
        read_file(tmp_path / "trace.dat")
