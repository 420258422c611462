"""What this host is: whether it can be traced, and what a capture says about it."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for: a capture runs as root, and the caller's PATH may name anybody's folders."""


class Refused(Exception):
    """It cannot work here; the text says why and what to do."""


def tracefs(given: str | None) -> Path:
    """Where tracefs is mounted. Raises Refused where there is none, or none that may be written."""
    places = [Path(given)] if given else [Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")]
    place = next((place for place in places if (place / "trace_pipe").exists()), None)
    if place is None:
        if not given and os.geteuid() != 0:
            raise Refused("only root may see the kernel's traces; run it as root")
        if not given and "[confidentiality]" in _read("/sys/kernel/security/lockdown"):
            raise Refused("this kernel is locked down (confidentiality): it lets nobody trace; boot it without to capture")
        raise Refused(f"there is no tracefs at {places[0]}; mount it: mount -t tracefs tracefs {places[0]}")
    if not os.access(place / "instances", os.W_OK):
        raise Refused(f"{place} cannot be written; run it as root (a locked-down kernel lets nobody)")
    return place


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def switched_off() -> None:
    """Whether the kernel fires probes at all. Raises Refused where somebody has switched them off."""
    if _read("/sys/kernel/debug/kprobes/enabled") == "0":
        raise Refused("kprobes are switched off: echo 1 > /sys/kernel/debug/kprobes/enabled")
    if _read("/proc/sys/kernel/ftrace_enabled") == "0":
        raise Refused("ftrace is switched off: sysctl kernel.ftrace_enabled=1")


def kvm_module() -> str:
    """How KVM is there: "module", "built in". Raises Refused where it is not."""
    if not Path("/sys/module/kvm").is_dir():
        raise Refused("KVM is not loaded, so that its functions have no addresses yet: modprobe kvm_intel (or kvm_amd)")
    return "module" if Path("/sys/module/kvm/initstate").exists() else "built in"


def has_btf() -> bool:
    """Whether probes may name the arguments of KVM's functions."""
    btf = Path("/sys/kernel/btf")
    return (btf / "vmlinux").exists() and ((btf / "kvm").exists() or not Path("/sys/module/kvm/initstate").exists())


def functions(tracing: Path) -> set[str] | None:
    """The kernel's functions that may be probed, as far as they can be known; None where the kernel does not tell."""
    for source, column in ((tracing / "available_filter_functions", 0), (Path("/proc/kallsyms"), 2)):
        try:
            with source.open() as lines:
                found = {words[column] for words in map(str.split, lines) if len(words) > column}
        except OSError:
            continue
        if found:
            return found
    return None


def threads(pid: int) -> list[str]:
    """The threads of a process: the kernel follows each one by its own number."""
    try:
        return sorted((task.name for task in Path(f"/proc/{pid}/task").iterdir()), key=int)
    except OSError:
        raise Refused(f"there is no process {pid}") from None


def clock_pair() -> dict[str, str]:
    """The same moment on three clocks (seconds), as good as a program can tell: the middle of the closest of some readings."""
    best = None
    for _ in range(20):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        real = time.clock_gettime_ns(time.CLOCK_REALTIME)
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, real, boot)
    assert best is not None
    return {name: f"{ns // 10**9}.{ns % 10**9:09d}" for name, ns in zip(("mono", "real", "boot"), best[1:], strict=True)}


def facts() -> dict[str, str]:
    """What identifies this host, this boot and these programs; what cannot be read is left out."""
    found = {"kernel": " ".join(platform.uname()), "captured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    for name, path in {
        "version": "/proc/version",
        "boot_id": "/proc/sys/kernel/random/boot_id",
        "command_line": "/proc/cmdline",
        "tainted": "/proc/sys/kernel/tainted",
        "microcode": "/sys/devices/system/cpu/cpu0/microcode/version",
        "tdx": "/sys/module/kvm_intel/parameters/tdx",
        "sev_snp": "/sys/module/kvm_amd/parameters/sev_snp",
        "gmem_in_place_conversion": "/sys/module/kvm/parameters/gmem_in_place_conversion",
    }.items():
        if text := _read(path):
            found[name] = text
    for program in ("qemu-system-x86_64", "libvirtd", "trace-cmd", "bpftrace", "gmemstate"):
        if (path := shutil.which(program, path=PATH)) is not None:
            said = run([path, "--version"])
            found[program] = said.decode(errors="replace").partition("\n")[0] if said else path
    return found


def lines(command: list[str]) -> Iterator[bytes]:
    """What a command prints, line by line, however much it is; nothing where it cannot be run."""
    try:
        with subprocess.Popen(
            _fixed(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            yield from process.stdout
    except OSError:
        return


def run(command: list[str]) -> bytes | None:
    """What a command prints; None where it cannot be run or fails."""
    try:
        done = subprocess.run(_fixed(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _fixed(command: list[str]) -> list[str]:
    """A command whose program is found in the system's own folders only. Raises FileNotFoundError where it is not there."""
    program = shutil.which(command[0], path=PATH)
    if program is None:
        raise FileNotFoundError(command[0])
    return [program, *command[1:]]
