"""The facts that a scenario can expect: each is read off the record of a simulation, or off what it folds to."""

from collections.abc import Iterable, Iterator
from typing import Any

from gmemstate.convert.engine.ioctl import Returned
from gmemstate.convert.engine.kernel import joined, runs_of
from gmemstate.convert.engine.users import Holder
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.decode import errno_name
from gmemstate.model.events import (
    CONVERSION,
    KIND,
    RESULT,
    SEQ,
    AttrsStored,
    ConvertAttempted,
    ConvertReturned,
    DmaFaulted,
    Event,
    EventRow,
    FaultServed,
    FolioMerged,
    FolioSplit,
    GuestAnswered,
    InvalidateAdded,
    InvalidateEnded,
    MemoryFaultExit,
    PageLeaked,
    Poisoned,
    PrivateMapFailed,
    PrivateMapped,
    PrivateUnmapFailed,
    Punched,
    RmpViolation,
    Spinning,
    Undone,
    User,
    UserAnswered,
    UsersChecked,
    VcpuExited,
    VmBugged,
    VmDead,
    VmmSaid,
    details,
    event_of,
)
from gmemstate.model.linux import EFAULT
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.objects import MessedUp
from gmemstate.model.units import hexadecimal
from gmemstate.model.verdict import label

STUCK = "stuck"
"""What is told by an ioctl that never returns."""

LIST, ERRNOS, VERDICTS, PAGES = "list", "list of errnos", "list of verdicts", "list of pages"
TABLE, NUMBER, VM = "pages of users", "number", "word"

FACTS: dict[str, tuple[str, tuple[type[Event], ...]]] = {
    "returned": (ERRNOS, (ConvertReturned,)),
    "error_offset": (LIST, (ConvertReturned,)),
    "verdicts": (VERDICTS, (ConvertReturned,)),
    "private": (PAGES, (AttrsStored, Undone)),
    "notified": (TABLE, (UserAnswered,)),
    "lost": (TABLE, (UserAnswered, Punched)),
    "references": (LIST, (UsersChecked, Spinning)),
    "invalidated": (PAGES, (InvalidateAdded,)),
    "invalidations": (NUMBER, (InvalidateEnded,)),
    "tracepoint": (NUMBER, (ConvertAttempted,)),
    "undone": (PAGES, (Undone,)),
    "huge": (PAGES, (FolioSplit, FolioMerged)),
    "contents_lost": (PAGES, (UserAnswered, Punched)),
    "dma_at_risk": (PAGES, (AttrsStored,)),
    "messed_up": (LIST, (PrivateUnmapFailed, PrivateMapFailed, Poisoned, PageLeaked)),
    "vm": (VM, (VmBugged, VmDead)),
    "accessed": (LIST, (FaultServed, DmaFaulted, MemoryFaultExit, VcpuExited, VmDead, RmpViolation)),
    "populated": (ERRNOS, (PrivateMapped, VmmSaid)),
    "guest_answered": (LIST, (GuestAnswered,)),
    "findings": (LIST, ()),
}
"""What an expectation can name: its form, and the kinds of events that show it."""


def facts(
    simulation: Simulation, first: int, mapped: dict[str, set[int]], heard: dict[str, list[str]], touched: list[str]
) -> dict[str, Any]:
    """All facts of what happened from the event ``first`` on.

    ``mapped`` is what each user has ever mapped, ``heard`` what ``populated`` and ``guest_answered`` list, ``touched`` likewise.
    """
    memory, rows = simulation.memory, simulation.rows[first - 1 :]
    private = [(start, end) for start, end in private_runs(simulation, simulation.owner)]
    conversions = {
        conversion.id: conversion for conversion in (*memory.ended, *memory.open_conversions()) if conversion.id >= first
    }
    return {
        "returned": [_errno_word(returned) for returned in simulation.returned],
        "error_offset": [
            "-" if returned is None or returned.error_offset is None else hex(returned.error_offset)
            for returned in simulation.returned
        ],
        "verdicts": [
            label(conversions[seq], memory.sources[conversions[seq].source or 0]).value for seq in sorted(conversions)
        ],
        "private": _private(simulation),
        "notified": _notified(rows),
        "lost": {
            user.name: words(runs_of(gone))
            for user in simulation.users
            if not isinstance(user, Holder) and (gone := mapped[user.name] - user.pages)
        },
        "references": [_references(event_of(row)) for row in rows if _counts(row)],
        "invalidated": [_run(row) for row in rows if row[KIND] == InvalidateAdded.code and row[CONVERSION] is not None],
        "invalidations": sum(row[KIND] == InvalidateEnded.code for row in rows),
        "tracepoint": sum(row[KIND] == ConvertAttempted.code for row in rows),
        "undone": [_run(row) + (" WARN" if row[RESULT] else "") for row in rows if row[KIND] == Undone.code],
        "huge": words(_huge(simulation)),
        "contents_lost": words(runs_of(page for owner, page in simulation.emptied if owner == simulation.owner)),
        "dma_at_risk": words(runs_of(page for page in _reached(simulation) if any(a <= page < b for a, b in private))),
        "messed_up": [f"{entry.cause.name.lower()} {messed_up_page(entry)}" for entry in memory.messed_up.values()],
        "vm": memory.vms[simulation.vm].gone or "ok",
        "accessed": touched,
        **heard,
        "findings": sorted({finding.code for finding in memory.findings}),
    }


def messed_up_page(entry: MessedUp) -> str:
    """The page or gfn of a messed-up entry; its host page where nothing else is said of it."""
    place = entry.gfn if entry.index is None else entry.index
    return f"pfn {entry.pfn:#x}" if place is None else str(place)


def words(runs: Iterable[tuple[int, int]]) -> list[str]:
    """Runs of pages as a scenario writes them; neighbours are joined."""
    return [f"{start}+{end - start}" for start, end in joined(runs)]


def private_runs(simulation: Simulation, owner: int) -> Iterator[tuple[int, int]]:
    """The private pages of an attribute owner."""
    kinds = simulation.kernel().kinds(owner, 0, 1 << 64)
    return ((start, end) for start, end, kind in kinds if kind == PRIVATE)


def _private(simulation: Simulation) -> list[str]:
    if simulation.in_vm:
        return words(private_runs(simulation, simulation.vm))
    found = []
    for number, gmem in enumerate(sorted(simulation.memory.gmems), 1):
        mark = f"gmem {number}: " if number > 1 else ""
        found += [mark + run for run in words(private_runs(simulation, gmem))]
    return found


def _errno_word(returned: Returned | None) -> str:
    if returned is None:
        return STUCK
    return errno_name(returned.errno)


def _run(row: EventRow) -> str:
    event: Any = event_of(row)
    return f"{event.start}+{event.npages}"


def _notified(rows: list[EventRow]) -> dict[str, list[str]]:
    """What each user was returned to unmap for a conversion, in order; the guest in gfns."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row[KIND] == UserAnswered.code and row[CONVERSION] is not None:
            event: Any = event_of(row)
            if user := details(event.detail).get("user"):
                found.setdefault(user, []).append(_run(row))
    return found


def _counts(row: EventRow) -> bool:
    if row[KIND] == UsersChecked.code:
        event: Any = event_of(row)
        return event.result != 0 and event.references is not None
    return row[KIND] == Spinning.code


def _references(event: Any) -> str:
    """The folio that somebody else holds: its first page, the references found and those expected."""
    if isinstance(event, Spinning):
        facts = details(event.detail)
        return f"{int(facts['page'], 16)}: {event.references}, not {facts['expected']}"
    return f"{event.start}: {event.references}, not {event.expected}"


def _huge(simulation: Simulation) -> list[tuple[int, int]]:
    gmem = simulation.memory.gmems[simulation.gmem]
    return [(start, end) for start, end, order in gmem.orders if order and gmem.backing.get(start)]


def _reached(simulation: Simulation) -> set[int]:
    """What devices can reach: through a pin, or an IOMMU that follows notifications."""
    users = [user for user in simulation.users if (isinstance(user, Holder) and user.dma) or user.kind is User.IOMMU]
    return {page for user in users if simulation.owner_of(user) == simulation.owner for page in user.pages}


def refusal(row: EventRow | None) -> str:
    """In a word, why an access failed, by the event that shows it."""
    if row is None:
        return "no mmap"
    kind, result = row[KIND], row[RESULT]
    if kind == MemoryFaultExit.code:
        return "memory fault" if result == EFAULT else f"memory fault {errno_name(result or 0)}"
    if kind == VcpuExited.code:
        return errno_name(result) if result else "MMIO"
    names: dict[type[Event], str] = {
        DmaFaulted: "DMA fault",
        FaultServed: "SIGBUS",
        VmDead: "VM dead",
        RmpViolation: "RMP fault",
    }
    return next(word for event, word in names.items() if event.code == kind)


def answer(result: int) -> str:
    """What a guest is told: small numbers as they are, statuses as hexadecimal."""
    return str(result) if abs(result) < 4096 else str(hexadecimal(result))


def plain(fact: Any) -> Any:
    """A fact without the difference between a number and its text, decimal or hexadecimal."""
    if isinstance(fact, dict):
        return {key: plain(value) for key, value in fact.items()}
    if isinstance(fact, (list, tuple)):
        return [plain(value) for value in fact]
    try:
        return str(int(str(fact), 0))
    except ValueError:
        return str(fact)


def shown_by(simulation: Simulation, first: int, fact: str, expected: Any, found: Any) -> int | None:
    """The event at which expectation and history part: in a list the first that differs, else the last of its kinds."""
    if fact == "findings" and simulation.memory.findings:
        return simulation.memory.findings[0].seq
    kinds = [kind.code for kind in FACTS[fact][1]]
    rows = [row for row in simulation.rows[first - 1 :] if row[KIND] in kinds]
    if not rows:
        return simulation.rows[-1][SEQ]
    if FACTS[fact][0] not in (TABLE, NUMBER, VM):
        pairs = enumerate(zip(plain(expected), plain(found), strict=False))
        n = next((n for n, (wanted, have) in pairs if wanted != have), len(rows))
        return rows[min(n, len(rows) - 1)][SEQ]
    return rows[-1][SEQ]
