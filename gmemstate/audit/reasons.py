"""One sentence for each event that can be a reason for what a page is, with the line that shows it."""

from collections.abc import Callable
from typing import Any

from gmemstate.decode import errno_name
from gmemstate.model import events as e
from gmemstate.model.events import Event, details
from gmemstate.model.linux import PRIVATE_ATTRIBUTE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import slot_number
from gmemstate.model.units import END, span

Words = Callable[[Any, "Teller"], str]


class Teller:
    """Tells events of a record; ``memory`` knows the names of guests."""

    def __init__(self, memory: Memory, sources: dict[int, str]) -> None:
        self._memory = memory
        self._sources = sources

    def tell(self, event: Event) -> str:
        """What happened, as a sentence without its end."""
        words = _WORDS.get(type(event))
        return words(event, self) if words is not None else f"{event.name.replace('_', ' ')}{self.where(event)}"

    def evidence(self, event: Event) -> str:
        """The source and the line of it that show the event; empty where nobody has read it anywhere."""
        if event.line is None:
            return ""
        return f"{self._sources.get(event.source or 0, '?')}:{event.line}"

    def owner(self, owner: int | None) -> str:
        """The name of a guest or of a guest_memfd."""
        if owner in self._memory.vms:
            return self._memory.vms[owner].name
        return "a guest" if owner is None else f"guest_memfd {owner}"

    def where(self, event: Any) -> str:
        """`` of [0x0,0x8) of guest_memfd 88``, as far as it is known."""
        owner, pages = getattr(event, "owner", None), self.pages(event)
        return (f" of {pages}" if pages else "") + (f" of {self.owner(owner)}" if owner is not None else "")

    def pages(self, event: Any) -> str:
        """The pages of an event."""
        start, npages = getattr(event, "start", None), getattr(event, "npages", None)
        return "" if start is None else span(start, END if npages is None else start + npages)


def returned(errno: int | None) -> str:
    """An errno by its name."""
    return "what is not known" if errno is None else errno_name(errno)


def kind_of(attributes: int | None) -> str:
    """Where a conversion leads."""
    return "another attribute" if attributes is None else "private" if attributes & PRIVATE_ATTRIBUTE else "shared"


def host_page(event: Any) -> str:
    """The host page of an event."""
    return "a host page" if event.pfn is None else f"host page {event.pfn:#x}"


def _seen(event: e.VmSeen, by: Teller) -> str:
    return f"{by.owner(event.owner)} is {'made' if event.made else 'met; it was made before the record begins'}"


def _asked(event: Any, by: Teller) -> str:
    pages = by.pages(event) or "pages that are not known"
    verb = {e.ConvertMet: "is met inside of the", e.ConvertAttempted: "begins the"}.get(type(event), "asks for the")
    thread = "a thread" if event.thread is None else f"thread {event.thread}"
    of = "" if event.owner is None else f" of {by.owner(event.owner)}"
    return f"{thread} {verb} conversion of {pages}{of} to {kind_of(event.attributes)} (conversion {event.conversion})"


def _returned(event: e.ConvertReturned, _: Teller) -> str:
    return f"conversion {event.conversion} returns {returned(event.result)}"


def _slot(event: e.SlotSet, by: Teller) -> str:
    failed = f": {returned(event.result)}" if event.result else ""
    if event.npages == 0:
        return f"memslot {slot_number(event.slot)} of {by.owner(event.owner)} is deleted{failed}"
    return f"memslot {slot_number(event.slot)} of {by.owner(event.owner)} is set to {by.pages(event)}{failed}"


def _served(event: e.FaultServed, by: Teller) -> str:
    access = event.access.name.lower().replace("_", " ")
    outcome = f"fails with {returned(event.result)}" if event.result else "gets its memory"
    return f"an access ({access}) to {by.pages(event)} of {by.owner(event.owner)} {outcome}"


def _compared(event: e.AttrsCompared, by: Teller) -> str:
    return f"the kernel finds {by.pages(event)} {'' if event.equal else 'not '}to be {kind_of(event.attributes)}"


def _gap(event: e.Gap, _: Teller) -> str:
    count = "events" if event.count is None else f"{event.count} events"
    return f"{count} are missing here ({event.gap.name.lower().replace('_', ' ')})"


def _unmap_failed(event: e.PrivateUnmapFailed, by: Teller) -> str:
    return (
        f"{host_page(event)} cannot be taken back from {by.owner(event.owner)}: {event.step.name} fails with {event.status:#x}"
    )


def _shows(event: e.SourceShows, _: Teller) -> str:
    return f"the source has shown {event.capability.name.lower().replace('_', ' ')}, and would show more of them"


_WORDS: dict[type[Event], Words] = {
    e.SourceOpened: lambda event, _: f"{details(event.detail).get('name', 'a source')} begins",
    e.SourceShows: _shows,
    e.Gap: _gap,
    e.HostBooted: lambda _, __: "the host is started anew",
    e.VmSeen: _seen,
    e.VmCreated: lambda event, by: f"the birth of {by.owner(event.owner)} is on record: nothing was converted before",
    e.DialectSeen: lambda event, _: f"the kernel keeps attributes as {event.dialect.name.lower()} does",
    e.VmBugged: lambda event, by: f"KVM marks {by.owner(event.owner)} as bugged",
    e.VmDead: lambda event, by: f"{by.owner(event.owner)} is dead",
    e.VmDestroyed: lambda event, by: f"{by.owner(event.owner)} is gone",
    e.SlotSet: _slot,
    e.GmemCreated: lambda event, by: f"{by.owner(event.owner)} is made for {by.owner(event.vm)}",
    e.GmemSeen: lambda event, by: f"{by.owner(event.owner)} is met",
    e.GmemBound: lambda event, by: f"{by.pages(event)} of {by.owner(event.owner)} get pages of {by.owner(event.gmem)} from {event.index or 0:#x} on",
    e.GmemUnbound: lambda event, by: f"{by.pages(event)} of {by.owner(event.owner)} lose their guest_memfd",
    e.GmemReleased: lambda event, by: f"{by.owner(event.owner)} is closed",
    e.ConvertAsked: _asked,
    e.ConvertMet: _asked,
    e.ConvertAttempted: _asked,
    e.ConvertReturned: _returned,
    e.AttrsCompared: _compared,
    e.ZapStarted: lambda event, by: f"conversion {event.conversion} begins to unmap {by.pages(event)}",
    e.InvalidateEnded: lambda event, _: f"conversion {event.conversion} lets faults in again",
    e.AttrsStored: lambda event, by: f"{by.pages(event)} of {by.owner(event.owner)} are stored as {kind_of(event.attributes)}",
    e.Undone: lambda event, by: f"conversion {event.conversion} undoes {by.pages(event)}{': ' + returned(event.result) if event.result else ''}",
    e.FaultServed: _served,
    e.PrivateMapped: lambda event, by: f"{host_page(event)} is given to {by.owner(event.owner)} as private",
    e.PrivateMapFailed: lambda event, by: f"{host_page(event)} cannot be given to {by.owner(event.owner)}",
    e.PrivateUnmapFailed: _unmap_failed,
    e.PageAdded: lambda event, by: f"{host_page(event)} is put behind {by.pages(event)} of {by.owner(event.owner)}",
    e.PageFreed: lambda event, by: f"{host_page(event)} leaves {by.pages(event)} of {by.owner(event.owner)}",
    e.Punched: lambda event, by: f"{by.pages(event)} of {by.owner(event.owner)} are {'punched out' if event.mode == 3 else 'allocated'}",
    e.Poisoned: lambda event, by: f"{host_page(event)} has a memory error{by.where(event)}",
    e.PageLeaked: lambda event, _: f"the kernel gives up host page {event.pfn or 0:#x} and {(event.npages or 1) - 1:#x} behind it",
    e.ReclaimFailed: lambda event, by: f"{host_page(event)} of {by.owner(event.owner)} cannot be reclaimed",
    e.Interrupted: lambda event, _: f"whoever carried out conversion {event.conversion} is gone",
    e.Declared: lambda event, _: f"somebody has declared what became of conversion {event.conversion}",
}  # fmt: skip
