"""A kernel's tracefs, imitated in a folder: it makes events of definitions, and refuses as kernels do.

Run as a program it is tools/capture on such a kernel: kernel.py FOLDER ARGUMENT... .
"""

import errno
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from capturing import tracing
from capturing.tracing import Tracefs

TOP = Path(__file__).parents[2]
STATIC = (
    "kvm/kvm_vm_set_mem_attributes",
    "kvm/kvm_userspace_exit",
    "kvm/kvm_hypercall",
    "maple_tree/ma_write",
    "signal/signal_generate",
    "syscalls/sys_exit_ioctl",
)


def by_name(definition: str) -> bool:
    """Whether a definition names an argument of its function, which takes BTF."""
    return definition[0] != "e" and re.search(r"=(?:\+u?\d+\()*[a-z]", definition) is not None


def anything(_definition: str) -> bool:
    return False


class Kernel(Tracefs):
    """Takes definitions but those that it ``refuses``; without its function, none."""

    refuses: Callable[[str], bool] = staticmethod(anything)

    @classmethod
    def make(cls, root: Path, functions: list[str]) -> "Kernel":
        """A kernel with some functions and with a few static events."""
        (root / "instances").mkdir(parents=True)
        for name in ("trace_pipe", "dynamic_events", "error_log"):
            (root / name).touch()
        (root / "available_filter_functions").write_text("".join(f"{name} [kvm]\n" for name in functions))
        for event in STATIC:
            (root / "events" / event).mkdir(parents=True)
        return cls(root)

    def write(self, name: str, text: str, *, add: bool = False) -> None:
        """What the kernel does when a control file is written."""
        path = self.root / name
        if name == "dynamic_events":
            assert add, "without appending, all probes of others would be gone"
            self._undefine(text) if text.startswith("-:") else self._define(text)
            return
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        if name.endswith("/filter"):
            self._filter(path, text)
        path.write_text(text)

    def _define(self, definition: str) -> None:
        kind, place = definition.split()[:2]
        event = kind.partition(":")[2]
        functions = (self.root / "available_filter_functions").read_text().split()
        known = place in functions or (kind[0] == "e" and (self.root / "events" / place.replace(".", "/")).is_dir())
        if not known or self.refuses(definition):
            with (self.root / "error_log").open("a") as log:
                log.write(f"[ 1.0] trace_kprobe: error: no such argument\n  Command: {definition}\n         ^\n")
            raise OSError(errno.EINVAL, "Invalid argument")
        if (self.root / "events" / event).is_dir():
            raise OSError(errno.EEXIST, "File exists")
        for top in (self.root, *(self.root / "instances").iterdir()):
            (top / "events" / event).mkdir(parents=True)
        with (self.root / "dynamic_events").open("a") as file:
            file.write(f"{definition}\n")

    def _undefine(self, text: str) -> None:
        event = text.removeprefix("-:")
        for top in (self.root, *(self.root / "instances").iterdir()):
            if (top / "events" / event / "enable").exists():
                raise OSError(errno.EBUSY, "Device or resource busy")
        shutil.rmtree(self.root / "events" / event)
        lines = (self.root / "dynamic_events").read_text().splitlines(keepends=True)
        (self.root / "dynamic_events").write_text("".join(line for line in lines if f":{event} " not in line))

    def _filter(self, path: Path, text: str) -> None:
        """A filter may name only what the event has."""
        assert not (path.parent / "enable").exists(), "switched on before it is filtered: a flood"
        event = f"{path.parent.parent.name}/{path.parent.name}"
        definition = next((line for line in self.defined() if f":{event} " in line), None)
        if definition is not None and not set(re.findall(r"(\w+)[=<>!]=?", text)) <= set(re.findall(r" (\w+)=", definition)):
            raise OSError(errno.EINVAL, "Invalid argument")

    def defined(self) -> list[str]:
        """The probes that there are."""
        return (self.root / "dynamic_events").read_text().splitlines()

    def make_instance(self) -> None:
        super().make_instance()
        shutil.copytree(self.root / "events", self._instance / "events")
        shutil.copy(self.root / "trace_pipe", self._instance)
        (self._instance / "options").mkdir()

    def remove_instance(self) -> None:
        shutil.rmtree(self._instance)

    @property
    def _instance(self) -> Path:
        return self.root / "instances" / tracing.INSTANCE


if __name__ == "__main__":
    tracing.Tracefs = Kernel  # type: ignore[misc]
    folder, *arguments = sys.argv[1:]
    sys.argv = ["capture", arguments[0], "--tracefs", folder, *arguments[1:]]
    runpy.run_path(str(TOP / "tools" / "capture"), run_name="__main__")
