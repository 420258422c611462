"""The same message says the same in whatever frame it stands; the frame gives its time and its host, or says that it has
none."""

import json
from pathlib import Path

import pytest

from gmemstate.ingest.fact import Context, Fact
from gmemstate.ingest.readers.detect import FormatDetector, formats
from gmemstate.ingest.readers.envelopes import iso_ns, strip_envelopes
from gmemstate.model.events import Event, HkidLeaked, KernelWarned, VmmSaid
from tests.ingest.witness import details, opened, said, shows
from tests.traces import lines_of

KERNEL = "kvm_intel: tdh_mng_key_freeid() failed. HKID 35 is leaked."
QEMU = "kvm_convert_memory start 0x4000000 size 0x1000 shared_to_private"
EPOCH = 1795341600_000000000
"""2026-11-22 10:00:00 UTC in ns."""

FRAMES: dict[str, tuple[str, int | None, str | None]] = {
    "none": ("{}", None, None),
    "dmesg": ("[   12.345678] {}", 12_345678000, None),
    "dmesg with the caller": ("[   12.345678] [   T4616] {}", 12_345678000, None),
    "dmesg with the processor": ("[   12.345678] [     C7] {}", 12_345678000, None),
    "dmesg -x": ("kern  :err   : [   12.345678] {}", 12_345678000, None),
    "a serial console with the level": ("<3>[   12.345678] {}", 12_345678000, None),
    "dmesg -T": ("[Sun Nov 22 10:00:00 2026] {}", None, "Sun Nov 22 10:00:00 2026"),
    "dmesg -e": ("[Nov22 10:00] {}", None, "Nov22 10:00"),
    "dmesg -d": ("[  +0.000123] {}", None, "  +0.000123"),
    "dmesg --time-format iso": ("2026-11-22T10:00:00,500000+00:00 {}", EPOCH + 500_000_000, None),
    "journald short": ("Nov 22 10:00:00 somehost kernel: {}", None, "Nov 22 10:00:00"),
    "journald short-precise": ("Nov 22 10:00:00.123456 somehost kernel: {}", None, "Nov 22 10:00:00.123456"),
    "journald short-iso": ("2026-11-22T10:00:00+0000 somehost kernel: {}", EPOCH, None),
    "journald short-monotonic": ("[   12.345678] somehost kernel: {}", 12_345678000, None),
    "journald with the kernel's own time": ("Nov 22 10:00:00 somehost kernel: [   12.345678] {}", 12_345678000, None),
    "syslog with a time zone": ("2026-11-22T12:00:00.250000+02:00 somehost kernel: {}", EPOCH + 250_000_000, None),
    "journald json": (
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": "1795341600000250",
                "_HOSTNAME": "somehost",
                "SYSLOG_IDENTIFIER": "kernel",
                "MESSAGE": "{}",
            }
        ),
        EPOCH + 250_000,
        None,
    ),
    "docker json": (
        json.dumps({"log": "{}\n", "stream": "stderr", "time": "2026-11-22T10:00:00.25Z"}),
        EPOCH + 250_000_000,
        None,
    ),
    "kubernetes": ("2026-11-22T10:00:00.25Z stderr F {}", EPOCH + 250_000_000, None),
    "kata": ('time="2026-11-22T10:00:00.25Z" level=error msg="{}" name=containerd-shim-v2 pid=77', EPOCH + 250_000_000, None),
    "libvirtd": ("2026-11-22 10:00:00.250+0000: 77: error : qemuProcessReport:1234 : {}", EPOCH + 250_000_000, None),
    "QEMU with a time": ("2026-11-22T10:00:00.250000Z {}", EPOCH + 250_000_000, None),
    "a thread and a time of QEMU": ("22400@1795341600.250000:{}", EPOCH + 250_000_000, None),
    "env_logger": ("[2026-11-22T10:00:00Z ERROR vmm::linux::vstate] {}", EPOCH, None),
    "tracing": ("2026-11-22T10:00:00.25Z ERROR vmm::vstate: {}", EPOCH + 250_000_000, None),
    "cloud-hypervisor": ("cloud-hypervisor:   12.345678s: <vcpu0> ERROR:vmm/src/cpu.rs:77 -- {}", 12_345678000, None),
    "rsyslog, repeated": ("Nov 22 10:00:00 somehost kernel: message repeated 3 times: [ {}]", None, "Nov 22 10:00:00"),
    "kmsg of a paravisor": ("[kmsg]: [12.345678] {}", 12_345678000, None),
    "printf of bpftrace": (json.dumps({"type": "printf", "data": "{}\n"}), None, None),
    "quoted in a mail": ("> {}", None, None),
    "quoted twice": ("> > [   12.345678] {}", 12_345678000, None),
    "set in": ("        {}  ", None, None),
}


def quoted(envelope: str, message: str) -> str:
    return envelope.replace("{}", message)


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(("message", "kind"), [(KERNEL, HkidLeaked), (QEMU, VmmSaid)], ids=["kernel", "qemu"])
def test_a_frame_changes_nothing_but_the_time(name: str, message: str, kind: type[Event], tmp_path: Path) -> None:
    envelope, t, at = FRAMES[name]
    log = said(quoted(envelope, message), tmp_path)
    (event,) = log.events
    assert type(event) is kind
    assert (event.t, details(event).get("at")) == (t, at)
    assert details(event).get("host") == ("somehost" if "somehost" in envelope else None)
    assert log.account.used == 1


TRACES = {
    "ftrace": next(line.decode() for line in lines_of("simple") if b"kvm_vm_set_mem_attributes" in line).strip(),
    "a graph": "25.346149 |   0)  gmem_ca-459   |               |  kvm_gmem_release [kvm](inode=0xffff88810088e9c0) {",
    "without columns": "vcpu-77: kvm_hypercall: nr 0xc a0 0x100000000 a1 0x4 a2 0x10 a3 0x0",
    "perf script": "qemu 77 [001] 12.345678: kvm:kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 [0x8]",
    "perf trace": "0.300 ( 0.010 ms): vmm/77 ioctl(fd: 4, cmd: (0xae, 0xd2, 0x1), arg: 0x7ffc)         = 0",
    "strace": "4711  ioctl(4, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc) = -1 ENOMEM (Cannot allocate memory)",
    "strace, unfinished": "4711  ioctl(4, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc <unfinished ...>",
    "strace, a signal": "4711  --- SIGBUS {si_signo=SIGBUS, si_code=BUS_ADRERR, si_addr=0x7f0000001000} ---",
}


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_is_read_out_of_a_frame_too(name: str, trace: str) -> None:
    """What was printed, mailed or logged somewhere is still a trace; it keeps its own time."""
    line, envelope = TRACES[trace], FRAMES[name][0]
    bare, framed = FormatDetector().parse(7, line), FormatDetector().parse(7, quoted(envelope, line))
    assert bare is not None
    assert framed is not None
    assert type(framed) is type(bare)
    assert isinstance(bare, Context) or told(framed) == told(bare)


def told(said: object) -> object:
    """What a fact says but for its own text, where a frame may stand in it."""
    return said._replace(text="") if isinstance(said, Fact) else said


def test_the_name_of_a_guest_before_the_program_is_no_host(tmp_path: Path) -> None:
    log = said(
        "2026-11-22T10:00:00.250000Z td0 qemu-system-x86_64: -device vfio-pci,host=00:00.0: no such group: No such file or "
        "directory",
        tmp_path,
    )
    (error,) = log.events
    assert isinstance(error, VmmSaid)
    assert shows(error, result=2, code="error", t=EPOCH + 250_000_000)


def test_a_message_may_begin_as_if_it_had_a_frame(tmp_path: Path) -> None:
    """Two words and a colon are host and program only behind a time, and only if the program is one that logs."""
    envelope = strip_envelopes("2026-11-22T10:00:00Z Failed to frobnicate: this page")
    assert (envelope.text, envelope.host) == ("Failed to frobnicate: this page", None)
    assert strip_envelopes("somehost kernel: text").text == "somehost kernel: text"


def test_a_source_has_one_clock_and_other_times_stand_beside(tmp_path: Path) -> None:
    log = said(
        [quoted(FRAMES["dmesg"][0], KERNEL), quoted(FRAMES["QEMU with a time"][0], QEMU), "[   13.000000] " + KERNEL], tmp_path
    )
    first, second, third = log.events
    assert (first.t, third.t) == (12_345678000, 13_000000000)
    assert second.t is None
    assert "realtime" in details(second)["at"]
    assert opened(log.whole)["clock"] == "boot"


def test_messages_of_journald_that_are_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    record = {"MESSAGE": list(KERNEL.encode()), "SYSLOG_IDENTIFIER": "kernel"}
    assert isinstance(said(json.dumps(record), tmp_path).events[0], HkidLeaked)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-22T10:00:00Z", EPOCH),
        ("2026-11-22 10:00:00.000000001+00:00", EPOCH + 1),
        ("2026-11-22T10:00:00,25-0200", EPOCH + 7200_250000000),
        ("2026-11-22T10:00:00", None),
        ("2026-13-22T10:00:00Z", None),
        ("2026-11-22T25:00:00Z", None),
        ("0000-01-01T00:00:00Z", None),
        ("2026-11-22T10:00:00+99:00", None),
        ("yesterday", None),
    ],
)
def test_a_time_counts_only_with_its_zone_and_if_there_is_such_a_time(text: str, ns: int | None) -> None:
    assert iso_ns(text) == ns


# --- choosing ---------------------------------------------------------------------------------------------------------

STRACE = (
    "4711  1795341600.250000 ioctl(4<anon_inode:kvm-vm>, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc) = -1 ENOMEM (Cannot "
    "allocate memory) <0.000003>"
)
TRACE = " qemu-77 [001] ..... 12.345678: kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 [0x8]"
PERF = "qemu 77 [001] 12.345678: kvm:kvm_vm_set_mem_attributes: 0x00000000100004 -- 0x00000000100008 [0x8]"


def test_formats_may_stand_in_one_file_in_any_order(tmp_path: Path) -> None:
    lines = [KERNEL, TRACE, STRACE, QEMU, PERF]
    forth, back = said(lines, tmp_path), said(lines[::-1], tmp_path)
    assert forth.account.used == back.account.used == 5
    assert sorted(event.name for event in forth.events) == sorted(event.name for event in back.events)
    names, _ = formats(lines)
    assert sorted(names.split(", ")) == ["QEMU", "ftrace", "kernel log", "perf script", "strace"]


def test_a_log_of_a_kernel_that_tells_nothing_is_read_and_says_so(tmp_path: Path) -> None:
    log = said(["[    0.000000] NX (Execute Disable) protection: active", "[   12.345678] eth0: link is up"], tmp_path)
    assert log.events == []
    assert log.account.context == {"kernel log": 2}
    assert opened(log.whole)["format"] == "kernel log"


def test_lines_that_a_mail_program_has_broken_are_read_together(tmp_path: Path) -> None:
    words = TRACE.split(" ")
    broken = [" ".join(words[:-3]), " ".join(words[-3:])]
    whole, log = said(TRACE, tmp_path), said([*broken, "Dear kernel,"], tmp_path)
    assert [event.row()[4:] for event in log.events] == [event.row()[4:] for event in whole.events]
    assert (log.account.lines, log.account.used, log.account.unparsed) == (3, 2, 1)
    assert log.account.first_unparsed == [(3, "Dear kernel,")]


def test_a_line_that_is_cut_takes_nothing_of_the_next(tmp_path: Path) -> None:
    log = said([TRACE[:60], "kvm_intel: tdh_mng_key_freeid() failed. HKID 35 is leaked.", TRACE], tmp_path)
    assert [event.name for event in log.events] == ["hkid_leaked", "convert_attempted"]
    assert log.account.unparsed == 1


def test_stacks_of_two_processors_may_cross(tmp_path: Path) -> None:
    """A line of another CPU in the middle of a warning is an event of its own, and the warning is still one."""
    lines = [
        "[ 1.000001] WARNING: CPU: 4 PID: 77 at arch/x86/kvm/vmx/tdx.c:175 tdx_track+0x39/0x50 [kvm_intel]",
        "[ 1.000002] Call Trace:",
        "[ 1.000003] " + KERNEL,
        "[ 1.000004]  kvm_vm_ioctl+0x1/0x2 [kvm]",
        "[ 1.000005] ---[ end trace 0000000000000000 ]---",
    ]
    leaked, warned = said(lines, tmp_path).events
    assert isinstance(leaked, HkidLeaked)
    assert isinstance(warned, KernelWarned)
    assert shows(warned, line=1, last=5, path="vm ioctl")
