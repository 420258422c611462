"""Probes are placed as far as a kernel lets, and taken away whatever happens; what cannot work is refused in one line."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from capturing import host, tracing
from capturing.host import Refused
from capturing.probes import PROBES

from gmemstate.ingest.fact import Fact
from gmemstate.ingest.readers.ftrace import FtraceReader
from gmemstate.ledger.ledger import Ledger
from tests.capture import kernel as imitated
from tests.capture.kernel import Kernel, by_name
from tests.capture.test_probes import listed
from tests.cli.running import PLAIN
from tests.traces import lines_of

PROGRAM = Path(imitated.__file__)
PATIENCE = 30


def functions(version: str) -> list[str]:
    return [line.split()[1] for line in listed(version) if line[0] != "e"]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """One like 7.2, that takes every definition."""
    return Kernel.make(tmp_path / "tracing", functions("7.2"))


def recording(kernel: Kernel) -> tracing.Recording:
    return tracing.Recording(kernel, host.functions(kernel.root), lambda _text: None)


def instance(kernel: Kernel, name: str) -> str:
    return (kernel.root / "instances" / tracing.INSTANCE / name).read_text()


def assert_clean(kernel: Kernel) -> None:
    assert kernel.defined() == []
    assert list((kernel.root / "instances").iterdir()) == []
    assert not any((kernel.root / "events" / "conv").glob("*"))


# --- what is placed


def test_a_kernel_that_takes_all_has_the_probes_of_the_captures(kernel: Kernel) -> None:
    with recording(kernel) as one:
        one.begin(per_page=True, pid=None)
        bound = next(line for line in kernel.defined() if "gmem_bind" in line)
        assert "inode=" in bound
        without = [
            line.replace(" inode=slot->gmem.file->f_inode:x64", "") if line == bound else line for line in kernel.defined()
        ]
        noise = ("host_unmap", "lru_drain_all", "gmem_store")
        assert set(without) == {line for line in listed("7.2") if not any(f"conv/{name} " in line for name in noise)}
        assert instance(kernel, "events/conv/vm_ioctl_ret/filter") == "cmd==0x4020aed2||cmd==0xc080aed2"
        assert instance(kernel, "events/conv/vm_ioctl_ret/enable") == "1"
        assert instance(kernel, "events/kvm/kvm_userspace_exit/enable") == "1"
        assert instance(kernel, "trace_clock") == "mono"
        assert one.missing["conv/gmem_ioctl"] == "its function is not in this kernel, or was inlined"
        assert one.missing["kvm/kvm_set_vm_mem_attributes"] == "not in this kernel"
    assert_clean(kernel)


def test_without_BTF_probes_name_arguments_by_number_or_register(kernel: Kernel) -> None:  # noqa: N802
    kernel.refuses = by_name  # type: ignore[method-assign]
    with recording(kernel) as one:
        one.begin(per_page=False, pid=None)
        assert one.used["conv/vm_ioctl_ret"].startswith("r4096:conv/vm_ioctl_ret kvm_vm_ioctl cmd=$arg2:x32 ret=$retval:s64")
        assert one.used["conv/inv_end"] == "p:conv/inv_end kvm_mmu_invalidate_end kvm=%di:x64"
        assert one.missing["conv/hc_done"] == "refused (no such argument)"
        assert not any(by_name(definition) for definition in kernel.defined())
    assert_clean(kernel)


def test_a_kernel_that_does_not_know_the_inode_at_the_binding_gets_the_binding_without_it(kernel: Kernel) -> None:
    kernel.refuses = lambda definition: "slot->gmem.file" in definition  # type: ignore[method-assign]
    with recording(kernel) as one:
        one.begin(per_page=False, pid=None)
        assert "inode" not in one.used["conv/gmem_bind"]
        assert "fd=fd:u32" in one.used["conv/gmem_bind"]


def test_a_kernel_with_in_place_conversion_has_its_own_names(tmp_path: Path) -> None:
    kernel = Kernel.make(tmp_path / "tracing", functions("7.3"))
    with recording(kernel) as one:
        one.begin(per_page=True, pid=None)
        assert set(kernel.defined()) == set(listed("7.3"))


def test_without_probes_the_static_events_are_recorded(kernel: Kernel) -> None:
    kernel.refuses = lambda _definition: True  # type: ignore[method-assign]
    with recording(kernel) as one:
        one.begin(per_page=False, pid=os.getpid())
        assert "syscalls/sys_exit_ioctl" in one.used
        assert not any(event.startswith("conv/") for event in one.used)
        assert set(instance(kernel, "set_event_pid").split()) == {task.name for task in Path("/proc/self/task").iterdir()}
    assert_clean(kernel)


def test_what_fires_for_each_page_is_only_recorded_if_it_is_asked_for(kernel: Kernel) -> None:
    with recording(kernel) as one:
        one.begin(per_page=False, pid=None)
        assert "conv/gmem_get_pfn" not in one.used
        assert not any("gmem_get_pfn" in line for line in kernel.defined())


# --- what is left alone, and taken away


def test_everything_is_taken_away_when_it_fails_in_the_middle(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = Kernel.write, iter(range(1000))

    def fail(self: Kernel, *arguments: Any, **how: Any) -> None:
        if next(calls) == 25:
            raise KeyboardInterrupt
        write(self, *arguments, **how)

    monkeypatch.setattr(Kernel, "write", fail)
    with pytest.raises(KeyboardInterrupt), recording(kernel) as one:
        one.begin(per_page=True, pid=None)
    assert_clean(kernel)


def test_probes_of_others_are_neither_used_nor_taken_away(kernel: Kernel) -> None:
    kernel.write("dynamic_events", listed("7.2")[0], add=True)
    kernel.write("dynamic_events", "p:mine/other kvm_vm_ioctl cmd=%si:x32", add=True)
    with pytest.raises(Refused, match="there are probes conv/vm_ioctl already; `tools/capture clean`"), recording(kernel):
        pass
    assert len(kernel.defined()) == 2
    assert tracing.clean(kernel) == []
    assert kernel.defined() == ["p:mine/other kvm_vm_ioctl cmd=%si:x32"]


@contextmanager
def capturing(kernel: Kernel, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """tools/capture as a process on an imitated kernel, when it has begun to record."""
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(kernel.root), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**PLAIN,
            "PYTHONPATH": f"{imitated.TOP}:{imitated.TOP}/tools"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def begun(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "Ctrl-C ends" in line:
            return
    pytest.fail("it did not begin")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_the_kernel_as_it_was(by: signal.Signals, kernel: Kernel, tmp_path: Path) -> None:
    """What was recorded is in a file that the readers read, beside what was placed and the pair of clocks."""
    trace = b"".join(line + b"\n" for line in lines_of("simple") if not line.startswith(b"#"))
    (kernel.root / "trace_pipe").write_bytes(trace)
    out = tmp_path / "out"
    with capturing(kernel, "trace", "--out", out) as process:
        begun(process)
        assert len(kernel.defined()) > 20
        process.send_signal(by)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert_clean(kernel)
    assert (out / "trace.txt").read_bytes() == trace
    pairs = json.loads((out / "clocks.json").read_text())
    assert float(pairs["before"]["mono"]) <= float(pairs["after"]["mono"]) <= time.monotonic()
    assert abs(float(pairs["after"]["real"]) - time.time()) < 3600
    assert "conv/vm_ioctl_ret: r4096:conv/vm_ioctl_ret kvm_vm_ioctl cmd=ioctl:x32" in (out / "probes.txt").read_text()
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        ledger.ingest(out / "trace.txt")
        assert [one.label for one in ledger.conversions()] == ["committed", "noop", "committed"]


def test_it_records_while_a_command_runs_and_ends_with_it(kernel: Kernel, tmp_path: Path) -> None:
    (kernel.root / "trace_pipe").write_bytes(b"x\n")
    with capturing(kernel, "trace", "--out", tmp_path / "out", "--", "sleep", "0.5") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert said.splitlines()[-1] == f"{tmp_path}/out/trace.txt: 2 bytes"
    assert_clean(kernel)


def test_a_command_is_started_when_everything_is_placed_and_its_exit_status_is_passed_on(
    kernel: Kernel, tmp_path: Path
) -> None:
    look = f"grep -c conv/vm_ioctl_ret {kernel.root}/dynamic_events > {tmp_path}/seen; exit 3"
    with capturing(kernel, "trace", "--out", tmp_path / "out", "--", "sh", "-c", look) as process:
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 3
    assert (tmp_path / "seen").read_text() == "1\n"
    assert_clean(kernel)


def test_a_command_that_cannot_be_run_is_one_line_and_leaves_nothing(kernel: Kernel, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program")
    with capturing(kernel, "trace", "--out", tmp_path / "out", "--", program) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.splitlines()[-1]) == (4, f"capture: {program}: cannot be run: Permission denied")
    assert_clean(kernel)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_and_the_kernel_is_left_as_it_was(kernel: Kernel, tmp_path: Path) -> None:
    (kernel.root / "trace_pipe").write_bytes(b"x\n")
    command = ("sh", "-c", f"ln -s /dev/full {tmp_path}/out/clocks.json")
    with capturing(kernel, "trace", "--out", tmp_path / "out", "--", *command) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "No space left on device; what was recorded until then is kept" in said) == (4, True)
    assert (tmp_path / "out" / "trace.txt").read_bytes() == b"x\n"
    assert_clean(kernel)


def test_calls_that_a_probe_has_missed_and_events_that_the_buffers_have_lost_are_told(kernel: Kernel, tmp_path: Path) -> None:
    (kernel.root / "kprobe_profile").write_text("  vm_ioctl_ret    20    7\n  inv_end   9   0\n  not_ours   1   1\n")
    stats = f"mkdir -p {kernel.root}/instances/gmemstate/per_cpu/cpu0; printf 'overrun: 40\\ndropped events: 2\\n' > "
    command = ("sh", "-c", stats + f"{kernel.root}/instances/gmemstate/per_cpu/cpu0/stats")
    with capturing(kernel, "trace", "--out", tmp_path / "out", "--", *command) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert "conv/vm_ioctl_ret has missed 7 calls: the trace is incomplete where it is silent" in said
    assert "the buffers have lost 42 events: record again with a larger --buffer, or with --pid" in said
    assert "not_ours" not in said


def test_what_an_instance_inherits_and_readers_cannot_read_is_set_back(kernel: Kernel) -> None:
    with recording(kernel) as one:
        one.begin(per_page=False, pid=None)
        assert {name: instance(kernel, f"options/{name}") for name in tracing.READABLE} == tracing.READABLE


def test_the_buffers_of_a_large_host_stay_within_a_gibibyte() -> None:
    assert tracing.buffer_kb(2) == 16384
    assert tracing.buffer_kb(384) * 384 <= 1 << 20


def test_what_shows_only_noise_without_in_place_conversion_is_not_placed_there(kernel: Kernel) -> None:
    with recording(kernel) as one:
        one.begin(per_page=True, pid=None)
        assert one.missing["conv/gmem_store"] == "not needed: this kernel has no kvm_gmem_ioctl()"
        assert "conv/host_unmap" not in one.used


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("/sys/kernel/debug/kprobes/enabled", "0", "kprobes are switched off"),
        ("/proc/sys/kernel/ftrace_enabled", "0", "ftrace is switched off"),
    ],
)
def test_probes_that_would_never_fire_are_refused(file: str, text: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda path: text if path == file else "1")
    with pytest.raises(Refused, match=what):
        host.switched_off()


def test_what_a_killed_capture_has_left_is_said_and_can_be_taken_away(kernel: Kernel, tmp_path: Path) -> None:
    with capturing(kernel, "trace", "--out", tmp_path / "out") as process:
        begun(process)
    assert kernel.defined() != []
    with capturing(kernel, "trace", "--out", tmp_path / "again") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "another capture runs, or one was killed: `tools/capture clean`" in said) == (4, True)
    assert not (tmp_path / "again").exists()
    with capturing(kernel, "clean") as process:
        assert process.communicate(timeout=PATIENCE)[1] == "nothing of a capture is left\n"
    assert_clean(kernel)


# --- where it cannot work


def test_without_a_tracefs_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"there is no tracefs at .*; mount it: mount -t tracefs"):
        host.tracefs(str(tmp_path))


def test_a_tracefs_that_may_not_be_written_is_refused(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(Refused, match="cannot be written; run it as root"):
        host.tracefs(str(kernel.root))


def test_without_KVM_it_says_what_to_load(monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: N802
    monkeypatch.setattr(Path, "is_dir", lambda _: False)
    with pytest.raises(Refused, match=r"KVM is not loaded.*modprobe kvm_intel"):
        host.kvm_module()


def test_a_process_that_is_not_there_cannot_be_watched(kernel: Kernel) -> None:
    with pytest.raises(Refused, match="there is no process 99999999"), recording(kernel) as one:
        one.begin(per_page=False, pid=99999999)
    assert_clean(kernel)


def test_a_kernel_that_shows_nothing_of_conversions_is_refused(tmp_path: Path) -> None:
    kernel = Kernel.make(tmp_path / "tracing", ["schedule"])
    for event in ("kvm_vm_set_mem_attributes", "kvm_userspace_exit", "kvm_hypercall"):
        (kernel.root / "events" / "kvm" / event).rmdir()
    (kernel.root / "events" / "maple_tree" / "ma_write").rmdir()
    with pytest.raises(Refused, match="this kernel shows nothing of conversions"), recording(kernel) as one:
        one.begin(per_page=True, pid=None)
    assert_clean(kernel)


def test_a_folder_that_exists_is_not_written_over(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with capturing(kernel, "trace", "--out", tmp_path / "out") as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said.splitlines()[-1]) == (
        4,
        f"capture: {tmp_path}/out exists already; name another folder with --out",
    )
    assert_clean(kernel)


def test_the_definitions_can_be_printed_to_place_them_by_hand() -> None:
    said = subprocess.run(
        [sys.executable, imitated.TOP / "tools" / "capture", "probes"], capture_output=True, text=True, check=True, env=PLAIN
    ).stdout
    for probe in PROBES:
        assert re.search(
            rf"^{re.escape(probe.definitions[0])}(?:   filter: {re.escape(probe.filter or '')})?$", said, re.MULTILINE
        )


def test_the_pair_of_clocks_that_is_written_into_a_trace_is_read_from_it(kernel: Kernel) -> None:
    with recording(kernel) as one:
        one.begin(per_page=False, pid=None)
        pair = host.clock_pair()
        one.mark(pair)
        written = instance(kernel, "trace_marker").strip()
    fact = FtraceReader().parse(1, f"python3-13616   [001] ...1.  2803.253219: tracing_mark_write: {written}")
    assert isinstance(fact, Fact)
    assert fact.name == "clock_pair"
    assert fact.args == {name: int(pair[name].replace(".", "")) for name in ("mono", "real", "boot")}
