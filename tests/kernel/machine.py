"""A machine with Debian's stock kernel, in QEMU without KVM: its root is a folder that is kept from one run to the next.

The folder is a chroot of Debian sid with QEMU and the kernel in it (debootstrap, some minutes the first time, 1.4 GB); the
machine has it as its root over 9p. It lies in ``$GMEMSTATE_KERNEL``, or in the user's cache.
"""

import os
import re
import shutil
import subprocess
import textwrap
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[2]
PACKAGES = "python3,kmod,procps,qemu-system-x86,seabios,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
MODULES = ("netfs", "9pnet", "9pnet_virtio", "9p")
NEEDED = ("debootstrap", "cpio", "busybox", "gcc", "xz", "depmod")
INIT = """\
    #!/bin/sh
    busybox mount -t devtmpfs dev /dev
    for module in {modules}; do busybox insmod /m/$module.ko; done
    busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose root /new || busybox poweroff -f
    exec busybox switch_root /new /test/start
"""
START = """\
    #!/bin/bash
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
    mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; ln -sfn /proc/self/fd /dev/fd
    mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; mount -t securityfs security /sys/kernel/security
    mount -t debugfs debug /sys/kernel/debug; mount -t tracefs trace /sys/kernel/tracing
    dmesg -n 4; cd /tmp
    bash /test/script > /test/out/log 2>&1; echo $? > /test/out/status
    sync; sleep 1; echo o > /proc/sysrq-trigger; sleep 9
"""


class CannotBoot(Exception):
    """What is needed to boot a kernel is not here."""


@dataclass(frozen=True)
class Ran:
    """What a script in the machine has left: its output, its exit status, and the folder ``out``."""

    log: str
    status: int
    out: Path


class Machine:
    """The kept folder, and the kernel in it. Raises CannotBoot where it cannot be made."""

    def __init__(self) -> None:
        missing = [program for program in NEEDED if shutil.which(program) is None]
        if os.geteuid() != 0 or missing:
            raise CannotBoot(f"only root can make a chroot, and these are needed: {' '.join(missing or NEEDED)}")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self._folder = Path(os.environ.get("GMEMSTATE_KERNEL") or cache / "gmemstate-kernel")
        self._root = self._folder / "root"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_root()
        self.version = self._make_kernel()
        self._make_initrd()

    def _make_root(self) -> None:
        if (self._root / "usr/bin/qemu-system-x86_64").exists():
            return
        shutil.rmtree(self._root, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "sid", self._root, MIRROR)

    def _modules(self) -> list[str]:
        return sorted(path.name for path in (self._root / "usr/lib/modules").glob("*-amd64"))

    def _make_kernel(self) -> str:
        """The newest kernel that is there; unpacked from Debian's packages if there is none."""
        if not self._modules():
            fetch = (
                "set -e; cd /tmp; apt-get update -qq -o Acquire::Check-Valid-Until=false; "
                "names=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: //p' | grep '^linux-image'); "
                "all=$(apt-cache depends $names | sed -n 's/.*Depends: //p' | grep -E '^linux-(binary|modules|image)' || "
                "true); "
                "apt-get download -qq $names $all; for one in linux-*.deb; do dpkg-deb -x $one /; rm $one; done"
            )
            run("chroot", self._root, "sh", "-c", fetch)
            run("depmod", "-b", self._root, self._modules()[-1])
        return self._modules()[-1]

    def _make_initrd(self) -> None:
        """The initial root: what mounts the folder as root, and goes on there."""
        place = self._folder / "initrd"
        shutil.rmtree(place, ignore_errors=True)
        for folder in ("bin", "m", "proc", "sys", "dev", "new"):
            (place / folder).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "busybox", place / "bin/busybox")
        (place / "bin/sh").symlink_to("busybox")
        for module in MODULES:
            found = next((self._root / "usr/lib/modules" / self.version).rglob(f"{module}.ko*"))
            plain = run("xz", "-dc", found) if found.suffix == ".xz" else found.read_bytes()
            (place / "m" / f"{module}.ko").write_bytes(plain)
        _program(place / "init", INIT.format(modules=" ".join(MODULES)))
        packed = subprocess.run(
            "find . | cpio -o -H newc --quiet", shell=True, cwd=place, check=True, capture_output=True
        ).stdout
        (self._folder / "initrd.cpio").write_bytes(packed)

    def run(self, script: str, keep: Path, *, append: str = "", limit: int = 400) -> Ran:
        """Boot the kernel, run a script as root in it, and switch it off; what it leaves in /test/out is copied to ``keep``.

        ``append`` is added to the kernel's command line.
        """
        test = self._root / "test"
        shutil.rmtree(test, ignore_errors=True)
        (test / "out").mkdir(parents=True)
        shutil.copytree(TOP / "tools", test / "tools", ignore=shutil.ignore_patterns("__pycache__"))
        run("gcc", "-O2", "-static", "-Wall", "-o", test / "caller", Path(__file__).parent / "caller.c")
        _program(test / "start", START)
        _program(test / "script", script)
        shutil.copy(self._folder / "initrd.cpio", test / "initrd")
        kernel = next(
            path
            for path in (self._root / f"usr/lib/modules/{self.version}/vmlinuz", self._root / f"boot/vmlinuz-{self.version}")
            if path.exists()
        )
        shutil.copy(kernel, test / "vmlinuz")
        if not (self._root / "proc/self").exists():  # QEMU's 9p server opens files by /proc/self/fd
            run("mount", "-t", "proc", "proc", self._root / "proc")
        try:
            run(
                "timeout",
                str(limit),
                "chroot",
                self._root,
                "qemu-system-x86_64",
                "-accel",
                "tcg,thread=multi,tb-size=256",
                "-cpu",
                "max,la57=off",
                "-m",
                "2G",
                "-smp",
                "2",
                "-machine",
                "q35",
                "-nographic",
                "-nodefaults",
                "-no-reboot",
                "-kernel",
                "/test/vmlinuz",
                "-initrd",
                "/test/initrd",
                "-append",
                f"console=ttyS0 panic=-1 mitigations=off {append}".strip(),
                "-virtfs",
                "local,path=/,mount_tag=root,security_model=none",
                "-serial",
                "file:/test/out/console",
            )
        finally:
            run("umount", self._root / "proc")
        try:
            shutil.copytree(test / "out", keep)
            return Ran((keep / "log").read_text(), int((keep / "status").read_text()), keep)
        except OSError:
            console = (test / "out/console").read_text(errors="replace")
            raise AssertionError(f"the machine did not get to the end of the script:\n{console[-3000:]}") from None


def run(*command: str | Path) -> bytes:
    """What a program prints. Raises AssertionError, with its words, where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')[-2000:]}"
    return done.stdout


def _program(path: Path, text: str) -> None:
    path.write_text(re.sub(r"\n +$", "\n", textwrap.dedent(text)))
    path.chmod(0o755)
