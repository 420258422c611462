"""What a ledger holds: its sources, guests, guest_memfds and how much is on record."""

from dataclasses import dataclass
from enum import StrEnum, auto

from gmemstate.audit.history.history import History
from gmemstate.audit.history.moment import SourceFacts
from gmemstate.model.document import Answer, Document
from gmemstate.model.events import Dialect, details
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.record import Head
from gmemstate.model.units import Ns


class Clock(StrEnum):
    """How the clock of a source compares with that of the others."""

    ALONE = auto()
    """there is no other source"""
    REFERENCE = auto()
    """others are compared with it"""
    COMPARED = auto()
    NOT_COMPARABLE = auto()
    """its events keep the order of reading"""


@dataclass(frozen=True, slots=True)
class SourceStatus(Document):
    """A log or a trace, and what became of its lines."""

    id: int
    name: str
    format: str
    lines: int | None
    """None if its reading has not come to an end"""
    used: int
    context: int
    unparsed: int
    gaps: int
    damage: str | None
    """why it is not whole"""
    clock: Clock
    reference: str | None
    """the source whose clock its own is compared with"""
    ahead_ns: Ns | None
    """how far its clock is ahead of that"""


@dataclass(frozen=True, slots=True)
class GuestStatus(Document):
    """A guest: its id is what conversions of a VM's attributes name as the attribute owner."""

    id: int
    name: str
    command: str | None
    thread: int | None
    dialect: Dialect
    gone: str | None
    """None, "bugged", "dead" or "destroyed" """


@dataclass(frozen=True, slots=True)
class GmemStatus(Document):
    """A guest_memfd: its id is what conversions in place name as the attribute owner."""

    id: int
    guest: str | None
    pages: int | None
    """its size in pages"""
    inplace: bool
    """the attribute is known to live in it"""
    released: bool


@dataclass(frozen=True, slots=True)
class Status(Answer):
    """What a ledger holds, with the hash of its last batch."""

    ledger: str
    events: int
    head: str
    sources: tuple[SourceStatus, ...]
    guests: tuple[GuestStatus, ...]
    guest_memfds: tuple[GmemStatus, ...]
    conversions: int
    requests: int
    messed_up: int
    missing: tuple[str, ...]


def status(where: str, head: Head, history: History) -> Status:
    """What the ledger at ``where`` holds at the end of a history."""
    memory = history.memory
    return Status(
        ledger=where,
        events=head.seq,
        head=head.hash.hex(),
        sources=tuple(_source(history, source) for source in history.sources.values()),
        guests=tuple(
            GuestStatus(vm.id, vm.name, details(vm.detail).get("comm"), vm.thread, vm.dialect, vm.gone)
            for vm in memory.vms.values()
        ),
        guest_memfds=tuple(
            GmemStatus(
                gmem.id, memory.vms[gmem.vm].name if gmem.vm in memory.vms else None, gmem.npages, gmem.inplace, gmem.released
            )
            for gmem in memory.gmems.values()
        ),
        conversions=len(history.ordered()),
        requests=len(history.requests),
        messed_up=sum(entry.state not in MESSED_UP.final for entry in memory.messed_up.values()),
        missing=tuple(history.missing()),
    )


def _source(history: History, source: SourceFacts) -> SourceStatus:
    account, sources = source.account, history.memory.sources
    known = sources.get(source.id)
    clock, reference, ahead = Clock.NOT_COMPARABLE, None, None
    if known is None or len(sources) < 2:
        clock = Clock.ALONE
    elif known.reference is not None:
        clock, reference, ahead = Clock.COMPARED, history.labels()[known.reference], Ns(known.ahead)
    elif any(other.reference == source.id for other in sources.values()):
        clock = Clock.REFERENCE
    return SourceStatus(
        id=source.id,
        name=source.name,
        format=source.format,
        lines=account.get("lines"),
        used=account.get("used", 0),
        context=sum(account.get("context", {}).values()),
        unparsed=account.get("unparsed", 0),
        gaps=len(source.gaps),
        damage=source.damage,
        clock=clock,
        reference=reference,
        ahead_ns=ahead,
    )
