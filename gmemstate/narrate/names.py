"""How a sentence names guests, pages, calls and threads, on a recorded or on a simulated host."""

from collections.abc import Mapping
from typing import Any

from gmemstate.model import events as e
from gmemstate.model.memory import Memory
from gmemstate.model.units import END, span


def decimal_pages(start: int | None, npages: int | None, unit: str = "page") -> str:
    """Pages in decimal, for small hosts: ``page 5``, ``gfns 0 to 15``."""
    if start is None or npages == 0:
        return f"no {unit}s"
    if npages == 1:
        return f"{unit} {start}"
    return f"{unit}s {start} to {'the end' if npages is None else start + npages - 1}"


class Names:
    """Names from a ``memory``, which knows the guests, and ``sources``, which are names by the id of a source."""

    def __init__(self, memory: Memory, sources: Mapping[int, str] | None = None, *, simulated: bool = False) -> None:
        self.memory = memory
        self.sources = sources or {}
        self.simulated = simulated
        self._gmems = sorted(memory.gmems)
        self._paths: dict[int, e.RequestPath] = {}
        """how the requests were made that were narrated so far"""

    def owner(self, owner: int | None, other: str = "a guest") -> str:
        """The name of a guest or of a guest_memfd; ``other`` if it is not known."""
        if owner is None:
            return other
        if owner in self.memory.vms:
            return f"VM {self.memory.vms[owner].number}" if self.simulated else self.memory.vms[owner].name
        return f"guest_memfd {self._gmems.index(owner) + 1 if self.simulated and owner in self._gmems else owner}"

    def of(self, owner: int | None) -> str:
        """`` of vm1``; nothing if it is not known, or if a simulated host has no other."""
        alone = len(self.memory.vms if owner in self.memory.vms else self.memory.gmems) < 2
        return "" if owner is None or (self.simulated and alone) else f" of {self.owner(owner)}"

    def pages(self, event: Any, unit: str = "") -> str:
        """The pages of an event and whose they are; gfns of a VM, indices of a guest_memfd."""
        return self.run(event.start, event.npages, event.owner, unit)

    def run(self, start: int | None, npages: int | None, owner: int | None, unit: str = "") -> str:
        """Pages ``[start, start + npages)`` of an attribute owner."""
        if self.simulated:
            return decimal_pages(start, npages, unit or ("gfn" if owner in self.memory.vms else "page")) + self.of(owner)
        if start is None:
            return "pages that are not known" + self.of(owner)
        return span(start, END if npages is None else start + npages) + self.of(owner)

    def page(self, number: int) -> str:
        """One page number: hexadecimal, or decimal on a simulated host."""
        return str(number) if self.simulated else hex(number)

    def number(self, conversion: int | None) -> str:
        """`` (conversion 5)``; nothing on a simulated host, where one conversion follows another."""
        return "" if self.simulated else f" (conversion {conversion})"

    def call(self, conversion: int | None) -> str:
        """The conversion that an event belongs to."""
        return "the ioctl" if self.simulated else "a conversion" if conversion is None else f"conversion {conversion}"

    def caller(self, thread: int | None) -> str:
        """The thread that calls KVM."""
        return "the VMM" if self.simulated else "a thread" if thread is None else f"thread {thread}"

    def path(self, event: e.GuestAsked | e.GuestAnswered) -> e.RequestPath | None:
        """How a request was made, as far as that is known."""
        if isinstance(event, e.GuestAsked):
            self._paths[event.request] = event.path
        request = self.memory.requests.get(event.request)
        return self._paths.get(event.request, None if request is None else request.path)
