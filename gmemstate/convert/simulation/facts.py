"""The facts that a scenario can expect: each is read off the record of a simulation, or off what it folds to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, get_type_hints

from gmemstate.convert.engine.ioctl import Returned
from gmemstate.convert.engine.kernel import joined, runs_of
from gmemstate.convert.engine.users import Holder
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.decode import errno_name
from gmemstate.model import events as e
from gmemstate.model.document import Document
from gmemstate.model.events import KIND, SEQ, Event, details, event_of
from gmemstate.model.linux import EFAULT
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.objects import MessedUp
from gmemstate.model.units import END, hexadecimal
from gmemstate.model.verdict import Label, label

STUCK = "stuck"
"""What stands for the errno of an ioctl that never returns."""

LIST, ERRNOS, VERDICTS, PAGES = "list", "list of errnos", "list of verdicts", "list of pages"
TABLE, NUMBER, VM = "pages of users", "number", "word"

Pages = list[str]
"""Runs of pages as scenario files write them: ``0+16`` is 16 pages from page 0 on."""


class _Form(NamedTuple):
    form: str
    kinds: frozenset[int]


def _fact(form: str, *kinds: type[Event]) -> _Form:
    """The form of a fact, and the kinds of events that show it."""
    return _Form(form, frozenset(kind.code for kind in kinds))


@dataclass(frozen=True, slots=True)
class ScenarioFacts(Document):
    """What came of a scenario, in the words of scenario files (``gmemstate help scenarios``)."""

    returned: Annotated[list[str], _fact(ERRNOS, e.ConvertReturned)]
    """what each conversion returned: ``0``, an errno, ``stuck``"""
    error_offset: Annotated[list[str], _fact(LIST, e.ConvertReturned)]
    """bytes, hexadecimal; ``-`` where the kernel wrote nothing"""
    verdicts: Annotated[list[Label], _fact(VERDICTS, e.ConvertReturned)]
    private: Annotated[Pages, _fact(PAGES, e.AttrsStored, e.Undone)]
    notified: Annotated[dict[str, Pages], _fact(TABLE, e.UserAnswered)]
    """what conversions asked each user to unmap, in order; the guest in gfns"""
    lost: Annotated[dict[str, Pages], _fact(TABLE, e.UserAnswered, e.Punched)]
    """what each user has mapped, and maps no longer"""
    references: Annotated[list[str], _fact(LIST, e.UsersChecked, e.Spinning)]
    """folios in use: first page, references found and expected"""
    invalidated: Annotated[Pages, _fact(PAGES, e.InvalidateAdded)]
    invalidations: Annotated[int, _fact(NUMBER, e.InvalidateEnded)]
    """how many ended"""
    tracepoint: Annotated[int, _fact(NUMBER, e.ConvertAttempted)]
    """how often kvm_vm_set_mem_attributes fired"""
    undone: Annotated[list[str], _fact(PAGES, e.Undone)]
    """the items that were rolled back; with `` WARN`` where that failed"""
    huge: Annotated[Pages, _fact(PAGES, e.FolioSplit, e.FolioMerged)]
    contents_lost: Annotated[Pages, _fact(PAGES, e.UserAnswered, e.Punched)]
    dma_at_risk: Annotated[Pages, _fact(PAGES, e.AttrsStored)]
    """private pages that a device still reaches"""
    messed_up: Annotated[list[str], _fact(LIST, e.PrivateUnmapFailed, e.PrivateMapFailed, e.Poisoned, e.PageLeaked)]
    vm: Annotated[str, _fact(VM, e.VmBugged, e.VmDead)]
    accessed: Annotated[
        list[str], _fact(LIST, e.FaultServed, e.DmaFaulted, e.MemoryFaultExit, e.VcpuExited, e.VmDead, e.RmpViolation)
    ]
    """what came of each access"""
    populated: Annotated[list[str], _fact(ERRNOS, e.PrivateMapped, e.VmmSaid)]
    guest_answered: Annotated[list[str], _fact(LIST, e.GuestAnswered)]
    """what each request of the guest returned: a number, or a status in hexadecimal"""
    findings: Annotated[list[str], _fact(LIST)]
    """codes of findings about the whole record"""


_FACTS: dict[str, _Form] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(ScenarioFacts, include_extras=True).items()
    if name in ScenarioFacts.__dataclass_fields__
}
FORMS = {name: fact.form for name, fact in _FACTS.items()}
"""What an expectation can name, and its form."""


@dataclass
class Seen:
    """What a simulation does not record: what each user has ever mapped, and what came of the steps that are no conversions."""

    mapped: dict[str, set[int]]
    accessed: list[str] = field(default_factory=list)
    populated: list[str] = field(default_factory=list)
    guest_answered: list[str] = field(default_factory=list)


def facts(simulation: Simulation, first: int, seen: Seen) -> ScenarioFacts:
    """All facts of what happened from the event ``first`` (a seq) on."""
    memory = simulation.memory
    events = [event_of(row) for row in simulation.rows[first - 1 :]]
    private = list(private_runs(simulation, simulation.owner))
    conversions = {
        conversion.id: conversion for conversion in (*memory.ended, *memory.open_conversions()) if conversion.id >= first
    }
    return ScenarioFacts(
        returned=[_errno_word(returned) for returned in simulation.returned],
        error_offset=[
            "-" if returned is None or returned.error_offset is None else hex(returned.error_offset)
            for returned in simulation.returned
        ],
        verdicts=[label(conversions[seq], memory.sources[conversions[seq].source or 0]) for seq in sorted(conversions)],
        private=_private(simulation),
        notified=_notified(events),
        lost={
            user.name: words(runs_of(gone))
            for user in simulation.users
            if not isinstance(user, Holder) and (gone := seen.mapped[user.name] - user.pages)
        },
        references=[text for event in events if (text := _references(event)) is not None],
        invalidated=[_run(event) for event in events if isinstance(event, e.InvalidateAdded) and event.conversion is not None],
        invalidations=sum(isinstance(event, e.InvalidateEnded) for event in events),
        tracepoint=sum(isinstance(event, e.ConvertAttempted) for event in events),
        undone=[_run(event) + " WARN" * bool(event.result) for event in events if isinstance(event, e.Undone)],
        huge=words(_huge(simulation)),
        contents_lost=words(runs_of(page for owner, page in simulation.emptied if owner == simulation.owner)),
        dma_at_risk=words(runs_of(page for page in _reached(simulation) if any(a <= page < b for a, b in private))),
        messed_up=[f"{entry.cause.name.lower()} {messed_up_page(entry)}" for entry in memory.messed_up.values()],
        vm=memory.vms[simulation.vm].gone or "ok",
        accessed=seen.accessed,
        populated=seen.populated,
        guest_answered=seen.guest_answered,
        findings=sorted({finding.code for finding in memory.findings}),
    )


def messed_up_page(entry: MessedUp) -> str:
    """The page or gfn of a messed-up entry; its host page where nothing else is known of it."""
    place = entry.gfn if entry.index is None else entry.index
    return f"pfn {entry.pfn:#x}" if place is None else str(place)


def words(runs: Iterable[tuple[int, int]]) -> Pages:
    """Runs of pages ``[start, end)`` as a scenario writes them; neighbours are joined."""
    return [f"{start}+{end - start}" for start, end in joined(runs)]


def private_runs(simulation: Simulation, owner: int) -> Iterator[tuple[int, int]]:
    """The private pages of an attribute owner, as runs ``[start, end)``."""
    return ((start, end) for start, end, kind in simulation.kernel().kinds(owner, 0, END) if kind == PRIVATE)


def _private(simulation: Simulation) -> Pages:
    if simulation.in_vm:
        return words(private_runs(simulation, simulation.vm))
    found = []
    for number, gmem in enumerate(sorted(simulation.memory.gmems), 1):
        mark = f"gmem {number}: " if number > 1 else ""
        found += [mark + run for run in words(private_runs(simulation, gmem))]
    return found


def _errno_word(returned: Returned | None) -> str:
    return STUCK if returned is None else errno_name(returned.errno)


def _run(event: e.InvalidateAdded | e.Undone | e.UserAnswered) -> str:
    return f"{event.start}+{event.npages}"


def _notified(events: Iterable[Event]) -> dict[str, Pages]:
    found: dict[str, Pages] = {}
    for event in events:
        if isinstance(event, e.UserAnswered) and event.conversion is not None and (user := details(event.detail).get("user")):
            found.setdefault(user, []).append(_run(event))
    return found


def _references(event: Event) -> str | None:
    """The folio that somebody else holds: its first page, the references found and those expected."""
    if isinstance(event, e.Spinning):
        said = details(event.detail)
        return f"{int(said['page'], 16)}: {event.references}, not {said['expected']}"
    if isinstance(event, e.UsersChecked) and event.result and event.references is not None:
        return f"{event.start}: {event.references}, not {event.expected}"
    return None


def _huge(simulation: Simulation) -> list[tuple[int, int]]:
    gmem = simulation.memory.gmems[simulation.gmem]
    return [(start, end) for start, end, order in gmem.orders if order and gmem.backing.get(start)]


def _reached(simulation: Simulation) -> set[int]:
    """What devices can reach: through a pin, or an IOMMU that follows notifications."""
    users = [user for user in simulation.users if (isinstance(user, Holder) and user.dma) or user.kind is e.User.IOMMU]
    return {page for user in users if simulation.owner_of(user) == simulation.owner for page in user.pages}


def refusal(event: Event | None) -> str:
    """In a word, why an access failed, by the event that shows it; None: nothing is recorded, since nothing could be mapped."""
    match event:
        case None:
            return "no mmap"
        case e.MemoryFaultExit():
            return "memory fault" if event.result == EFAULT else f"memory fault {errno_name(event.result)}"
        case e.VcpuExited():
            return errno_name(event.result) if event.result else "MMIO"
        case e.DmaFaulted():
            return "DMA fault"
        case e.VmDead():
            return "VM dead"
        case e.RmpViolation():
            return "RMP fault"
        case _:
            return "SIGBUS"


def answer(result: int) -> str:
    """What a request of a guest returns: small numbers as they are, statuses as hexadecimal."""
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
    """The event (a seq) at which expectation and history part: in a list the first that differs, else the last of its kinds."""
    if fact == "findings" and simulation.memory.findings:
        return simulation.memory.findings[0].seq
    kinds = _FACTS[fact].kinds
    seqs = [row[SEQ] for row in simulation.rows[first - 1 :] if row[KIND] in kinds]
    if not seqs:
        return simulation.rows[-1][SEQ]
    if FORMS[fact] not in (TABLE, NUMBER, VM):
        pairs = enumerate(zip(plain(expected), plain(found), strict=False))
        n = next((n for n, (wanted, have) in pairs if wanted != have), len(seqs))
        return seqs[min(n, len(seqs) - 1)]
    return seqs[-1]
