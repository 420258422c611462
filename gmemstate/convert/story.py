"""A simulated history told step by step: who was asked, who refused, what the caller was told, what is left."""

import errno as errnos
from collections.abc import Iterator
from typing import Any

from gmemstate.convert.outcome import Outcome
from gmemstate.model.events import (
    AttrsCompared,
    AttrsStored,
    ConvertAsked,
    ConvertReturned,
    DmaFaulted,
    Event,
    FaultServed,
    FolioMerged,
    FolioSplit,
    GmemReleased,
    GuestAnswered,
    GuestAsked,
    MemoryFaultExit,
    PageFreed,
    Poisoned,
    PrivateUnmapFailed,
    Punched,
    Reserved,
    SlotSet,
    Spinning,
    TaskStuck,
    Undone,
    Unpinned,
    User,
    UserAnswered,
    UsersChecked,
    VmBugged,
    VmDead,
    details,
    event_of,
)
from gmemstate.model.units import PRIVATE as PRIVATE_ATTRIBUTE


def tell(outcome: Outcome) -> Iterator[str]:
    """The steps of a scenario, one sentence each; what belongs to an ioctl is indented."""
    inside = False
    for row in outcome.simulation.rows[outcome.first - 1 :]:
        event = event_of(row)
        sentence = _sentence(event)
        if isinstance(event, ConvertReturned):
            inside = False
        if sentence is not None:
            yield ("  " if inside else "") + sentence
        if isinstance(event, ConvertAsked):
            inside = True
    yield from _left(outcome)


def _sentence(event: Event) -> str | None:
    facts = details(event.detail)
    teller = _TELL.get(type(event))
    return None if teller is None else teller(event, facts)


def pages(start: int | None, npages: int | None) -> str:
    """Pages as a person writes them."""
    if start is None:
        return "pages that are none"
    if npages == 1:
        return f"page {start}"
    return f"pages {start} to {'the end' if npages is None else start + npages - 1}"


def _kind(attributes: int | None) -> str:
    return "private" if attributes and attributes & PRIVATE_ATTRIBUTE else "shared"


def _error(errno: int | None) -> str:
    return errnos.errorcode.get(errno or 0, str(errno)) if errno else "0"


def _asked(event: Any, facts: dict[str, Any]) -> str:
    if event.attributes is None:
        return "a conversion is asked, with arguments that cannot be read"
    where = pages(event.start, event.npages) if event.start is not None else f"{facts.get('address')}, size {facts.get('size')}"
    return f"a conversion to {_kind(event.attributes)} is asked: {where}"


def _answered(event: Any, facts: dict[str, Any]) -> str:
    name = facts.get("user", event.user.name.lower())
    who = f"{name} ({event.user.name.lower()})" if event.user is not User.IOMMU else f"{name} (IOMMU)"
    slow = f" after {facts['turns']} turns" if "turns" in facts else ""
    if event.result is None:
        return f"{who} is told to unmap {pages(event.start, event.npages)}, and does not answer"
    if event.result:
        return f"{who} is told to unmap {pages(event.start, event.npages)}{slow}: it refuses ({_error(event.result)}) and still maps them"
    count = "" if event.entries is None else f", {event.entries} mapping{'s' * (event.entries != 1)} gone"
    return f"{who} unmaps {pages(event.start, event.npages)}{slow}{count}"


def _checked(event: Any, facts: dict[str, Any]) -> str:
    if not event.result:
        return "nobody else holds a page"
    if "user" in facts:
        return f"{facts['user']} is asked first whether it would let go: it would {facts['would']}; nobody was unmapped"
    return f"page {event.start} is in use: {event.references} references, {event.expected} expected"


def _returned(event: Any, _facts: dict[str, Any]) -> str:
    offset = "" if event.error_offset is None else f", error_offset {event.error_offset:#x}"
    return f"the caller is told {_error(event.result)}{offset}"


_TELL: dict[type[Event], Any] = {
    ConvertAsked: _asked,
    AttrsCompared: lambda e, _: "all of it has the attribute already" if e.equal else None,
    Reserved: lambda e, f: (
        f"memory for {f.get('what', 'the attributes')} is refused ({_error(e.result)})" if e.result else None
    ),
    UserAnswered: _answered,
    UsersChecked: _checked,
    AttrsStored: lambda e, _: (
        f"{pages(e.start, e.npages)} cannot be stored ({_error(e.result)})"
        if e.result
        else f"{pages(e.start, e.npages)}: {_kind(e.attributes)} is stored"
    ),
    FolioSplit: lambda e, _: f"the folio of page {e.start} {'cannot be' if e.result else 'is'} split",
    FolioMerged: lambda e, _: f"{pages(e.start, e.npages)} {'cannot be' if e.result else 'are'} merged to one folio",
    Undone: lambda e, _: (
        f"the rollback of {pages(e.start, e.npages)} fails itself ({_error(e.result)}): a WARN, and {_kind(e.attributes)} stays"
        if e.result
        else f"rolled back: {pages(e.start, e.npages)} are {_kind(e.attributes)} again"
    ),
    Spinning: lambda e, f: f"the kernel spins: the folio of page {f.get('page')} has {e.references} references",
    TaskStuck: lambda _e, f: f"and never goes on: {f.get('loop') or 'it waits for ' + str(f.get('waits_for'))}",
    PrivateUnmapFailed: lambda e, _: f"private page {e.start} cannot be taken back from the guest: {e.step.name} fails",
    VmBugged: lambda _e, _f: "the VM is bugged; nobody else is told",
    VmDead: lambda _e, _f: "the VM is dead",
    PageFreed: lambda e, f: (
        f"guest_memfd drops {pages(e.start, e.npages)} from the file and keeps the host page for ever"
        if f.get("kept") and not isinstance(f["kept"], list)
        else None
    ),
    Poisoned: lambda e, _: f"page {e.start} is marked as poisoned",
    Punched: lambda e, _: f"{pages(e.start, e.npages)} are punched out",
    GmemReleased: lambda _e, _f: "the guest_memfd is closed",
    SlotSet: lambda e, _: f"memslot {e.slot & 0xFFFF} is {'set' if e.npages else 'deleted'}",
    ConvertReturned: _returned,
    Unpinned: lambda e, f: f"{f.get('user')} lets go of {pages(e.start, e.npages)}",
    DmaFaulted: lambda e, f: f"{f.get('user')} touches page {e.start}: DMA fault, a device cannot fault it in",
    FaultServed: lambda e, f: f"{f.get('user')} touches page {e.start}: {f.get('signal') if e.result else 'it is faulted in'}",
    MemoryFaultExit: lambda e, f: (
        f"{f.get('user')} touches page {e.start}: KVM_EXIT_MEMORY_FAULT, {'EHWPOISON' if e.result == 133 else _error(e.result)}"
    ),
    GuestAsked: lambda e, _: f"the guest asks: {pages(e.start, e.npages)} to {'private' if e.flags else 'shared'}",
    GuestAnswered: lambda e, _: f"the guest is told {e.result if abs(e.result) < 4096 else hex(e.result & (1 << 64) - 1)}",
}


def _left(outcome: Outcome) -> Iterator[str]:
    """What differs at the end, and for whom that is an issue."""
    facts = outcome.facts
    yield f"at the end: {_listed(facts['private'], 'private') if facts['private'] else 'everything is shared'}"
    for user in outcome.simulation.users:
        if (lost := facts["lost"].get(user.name)) is None:
            continue
        where = ", ".join(_pages_of(run) for run in lost)
        if user.kind is User.IOMMU:
            yield f"{user.name} no longer maps {where}: a device cannot fault them in, its next access is a DMA fault"
        elif _still(outcome, lost):
            yield f"{user.name} no longer maps {where}: no issue, its next access faults them in"
        else:
            yield f"{user.name} no longer maps {where}: they are of the other kind now"
    if facts["dma_at_risk"]:
        yield f"devices still reach {', '.join(_pages_of(run) for run in facts['dma_at_risk'])}, which are private now"
    for entry in facts["messed_up"]:
        yield f"messed up: {entry.rsplit(' ', 1)[0]} on page {entry.rsplit(' ', 1)[1]}"


def _still(outcome: Outcome, lost: list[str]) -> bool:
    """Whether lost pages are still of a kind that their user may map: those of the host and of a shared guest."""
    private = outcome.facts["private"]
    return not any(_overlap(a, b) for a in lost for b in private)


def _overlap(a: str, b: str) -> bool:
    (start, size), (other, length) = (map(int, run.split("+")) for run in (a, b))
    return start < other + length and other < start + size


def _pages_of(run: str) -> str:
    start, size = map(int, run.split("+"))
    return pages(start, size)


def _listed(runs: list[str], kind: str) -> str:
    return f"{', '.join(_pages_of(run) for run in runs)} {kind}"
