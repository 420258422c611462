"""Host pages: those that nobody may have again, the poisoned ones, and which page backs which (INV-22, 23, 26, 31, 33, 34, 45)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.moment import OK, Evaluations, Moment, Pages, Violation, before
from gmemstate.decode.tdx import OPERAND_BUSY
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    KINDS,
    NPAGES,
    OWNER,
    RESULT,
    SOURCE,
    START,
    VALUE,
    Access,
    Capability,
    FaultServed,
    Gap,
    GmemReleased,
    HostBooted,
    MemoryFaultExit,
    PageAdded,
    PageFreed,
    PageLeaked,
    Poisoned,
    PrivateMapped,
    PrivateUnmapFailed,
    Punched,
    UnmapStep,
    User,
    UserAnswered,
    VmDestroyed,
    details,
)
from gmemstate.model.linux import EHWPOISON, PUNCH
from gmemstate.model.objects import POISONED_PAGE
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, unsigned

MOST = 4096
"""How many pages are remembered with their host pages, the youngest ones."""


def _pfns(at: Moment) -> Pages | None:
    """The host pages that an event names; of a run of faults the first one only."""
    if at.row[VALUE] is None:
        return None
    return _run(at.row[VALUE], 1 if at.row[KIND] == FaultServed.code else at.row[NPAGES])


def _run(pfn: int, npages: int | None) -> Pages:
    first = unsigned(pfn)
    return first, min(END, first + (npages or 1))


# --- pages that nobody may have again -------------------------------------------------------------------------------


@dataclass
class _Distrusted:
    """Host pages that a guest may still map; and the pages of guest_memfds that they are behind."""

    pfns: RangeMap = field(default_factory=RangeMap)
    places: set[Pages] = field(default_factory=set)


@before("INV-22", PrivateUnmapFailed)
def a_page_is_distrusted(at: Moment) -> Evaluations:
    distrusted, pfns = at.note(_Distrusted), _pfns(at)
    if pfns is not None:
        distrusted.pfns.set(*pfns, 1)
    if at.row[START] is not None and at.owner in at.memory.gmems:
        distrusted.places.add((at.owner, at.row[START]))
    elif at.row[START] is not None:
        for gmem, first, *_ in at.memory.indices(at.owner, at.row[START], at.row[START] + 1):
            distrusted.places.add((gmem, first))
    return ()


@before("INV-22", PageFreed)
def a_distrusted_page_is_freed(at: Moment) -> Evaluations:
    """Here its host page is named; unless the kernel keeps a reference it is free for everybody."""
    distrusted, (start, end), pfns = at.note(_Distrusted), at.pages, _pfns(at)
    for owner, page in [place for place in distrusted.places if place[0] == at.owner and start <= place[1] < end]:
        distrusted.places.discard((owner, page))
        if pfns is not None and "kept" not in details(at.row[DETAIL]):
            distrusted.pfns.set(pfns[0] + page - start, pfns[0] + page - start + 1, 1)
    return ()


@before("INV-22", Poisoned)
def poison_is_given_to_nobody(at: Moment) -> Evaluations:
    if at.row[START] is not None:
        at.note(_Distrusted).places.discard((at.owner, at.row[START]))
    return ()


@before("INV-22", HostBooted)
def a_reboot_clears_all(at: Moment) -> Evaluations:
    at.note(_Distrusted).pfns = RangeMap()
    at.note(_Distrusted).places.clear()
    at.note(_Leaked).pfns = RangeMap()
    return ()


@before("INV-22", PageAdded, PrivateMapped)
def a_distrusted_page_is_not_given_away(at: Moment) -> Evaluations:
    yield from _not_among(at, at.note(_Distrusted).pfns, "whose private unmap had failed")


@before("INV-22", FaultServed)
def a_distrusted_page_is_not_for_the_host(at: Moment) -> Evaluations:
    """Converted in place it has become shared all the same."""
    places, (start, end) = at.note(_Distrusted).places, at.pages
    if places and at.row[ACTOR] == Access.HOST and not at.row[RESULT]:
        for page in sorted(page for owner, page in places if owner == at.owner and start <= page < end):
            yield Violation("the host maps a page whose private unmap had failed", at.owner, page, page + 1)


@dataclass
class _Leaked:
    """Host pages that the kernel keeps for good."""

    pfns: RangeMap = field(default_factory=RangeMap)


@before("INV-23", PageLeaked)
def a_page_is_leaked(at: Moment) -> Evaluations:
    if at.row[START] is not None:
        at.note(_Leaked).pfns.set(*_run(at.row[START], at.row[NPAGES]), 1)
    return ()


@before("INV-23", PageAdded, PrivateMapped, FaultServed)
def a_leaked_page_is_not_seen_again(at: Moment) -> Evaluations:
    yield from _not_among(at, at.note(_Leaked).pfns, "that the kernel had leaked")


def _not_among(at: Moment, bad: RangeMap, what: str) -> Evaluations:
    pfns = _pfns(at)
    if pfns is None or len(bad) == 1 or at.row[RESULT]:
        return
    met = [run for run in bad.runs(*pfns) if run.value]
    for run in met:
        text = f"event {KINDS[at.row[KIND]].name} of host page {run.start:#x}, {what}"
        page = None if at.row[START] is None else at.row[START] + run.start - pfns[0]
        yield Violation(text, at.row[OWNER], page, None if page is None else page + run.end - run.start)
    if not met:
        yield OK


@before("INV-31", PrivateUnmapFailed)
def busy_is_not_final(at: Moment) -> Evaluations:
    status, step = at.row[RESULT], at.row[ACTOR] or 0
    if status is None or step > UnmapStep.WBINVD:
        return
    code = unsigned(status) >> 32 or unsigned(status)  # the operand stands in the lower half
    busy = code == OPERAND_BUSY >> 32
    yield Violation(f"a private unmap failed at {UnmapStep(step).name}: operand busy", at.owner, *at.pages) if busy else OK


@before("INV-33", PrivateUnmapFailed)
def what_is_shared_or_free_is_nobodys(at: Moment) -> Evaluations:
    if (at.row[ACTOR] or 0) in (UnmapStep.RMPUPDATE, UnmapStep.PSMASH):
        yield Violation("a page stays with the guest in the RMP", at.owner, *at.pages)


# --- punched and poisoned -------------------------------------------------------------------------------------------


@before("INV-26", Punched)
def a_punch_succeeds(at: Moment) -> Evaluations:
    gmem, (start, end) = at.memory.gmems.get(at.owner), at.pages
    if gmem is None or gmem.npages is None or at.row[START] is None or at.row[VALUE] != PUNCH:
        return
    if start < end <= gmem.npages:
        yield (
            Violation(f"a punch inside of the file fails with {at.row[RESULT]}", gmem.id, start, end) if at.row[RESULT] else OK
        )


@dataclass
class _Poison:
    """Whether there is any, and which sources show punches: in others a page may have been punched unseen."""

    met: bool = False
    punches_shown_by: set[int | None] = field(default_factory=set)


@before("INV-34", Poisoned)
def poison_is_met(at: Moment) -> Evaluations:
    at.note(_Poison).met = True
    return ()


@before("INV-34", Punched)
def punches_are_shown(at: Moment) -> Evaluations:
    at.note(_Poison).punches_shown_by.add(at.row[SOURCE])
    return ()


@before("INV-34", FaultServed)
def poison_is_given_to_no_guest(at: Moment) -> Evaluations:
    poison = at.note(_Poison)
    if not poison.met or at.owner not in at.memory.vms or at.row[ACTOR] == Access.HOST:
        return
    for gmem, index in _poisoned(at):
        in_file = at.memory.gmems[gmem].inplace or at.row[ACTOR] == Access.GUEST_PRIVATE
        if in_file and at.row[RESULT]:
            yield OK
        elif in_file and at.settled(gmem) and (at.complete or at.row[SOURCE] in poison.punches_shown_by):
            yield Violation("event fault_served, and the page is poisoned", gmem, index, index + 1)


@before("INV-34", MemoryFaultExit)
def poison_is_told(at: Moment) -> Evaluations:
    if at.row[RESULT] == EHWPOISON and _poisoned(at):
        yield OK


def _poisoned(at: Moment) -> list[Pages]:
    """The poisoned pages of guest_memfds among the gfns of an event: file and first page of each run."""
    return [
        (gmem, run.start)
        for gmem, first, last, _ in at.memory.indices(at.owner, *at.pages)
        for run in at.memory.gmems[gmem].backing.runs(first, last)
        if run.value == POISONED_PAGE
    ]


# --- the host page of a page ----------------------------------------------------------------------------------------


@dataclass
class _Backing:
    """The host pages behind pages of guest_memfds, as faults have shown them."""

    pfns: dict[Pages, int] = field(default_factory=dict)

    def forget(self, gmem: int, start: int = 0, end: int = END) -> None:
        """What lies in a range is another page from now on."""
        if end - start < len(self.pfns):
            for page in range(start, end):
                self.pfns.pop((gmem, page), None)
            return
        gone = [place for place in self.pfns if place[0] == gmem and start <= place[1] < end]
        for place in gone:
            del self.pfns[place]


@before("INV-45", Punched, PageFreed, GmemReleased)
def a_page_goes(at: Moment) -> Evaluations:
    backing = at.note(_Backing)
    if at.row[KIND] == GmemReleased.code or at.row[START] is None:
        backing.forget(at.owner)
    else:
        backing.forget(at.owner, *at.pages)
    return ()


@before("INV-45", UserAnswered)
def a_page_may_go(at: Moment) -> Evaluations:
    """What is unmapped outside of a conversion may have been punched, whether or not a line says so."""
    if at.row[CONVERSION] is None and at.row[ACTOR] == User.GUEST:
        for gmem, first, last, _ in at.memory.indices(at.owner, *at.pages):
            at.note(_Backing).forget(gmem, first, last)
    return ()


@before("INV-45", Gap)
def anything_may_go(at: Moment) -> Evaluations:
    at.note(_Backing).pfns.clear()
    return ()


@before("INV-45", VmDestroyed)
def a_guest_goes(at: Moment) -> Evaluations:
    for gmem in at.memory.gmems.values():
        if gmem.vm == at.owner:
            at.note(_Backing).forget(gmem.id)
    return ()


@before("INV-45", FaultServed)
def a_page_keeps_its_host_page(at: Moment) -> Evaluations:
    pfns = _pfns(at)
    if pfns is None or at.row[RESULT] or at.row[START] is None:
        return
    known = at.note(_Backing).pfns
    for gmem, index, *_ in at.memory.indices(at.owner, at.row[START], at.row[START] + 1):
        if not at.memory.gmems[gmem].inplace:
            continue
        before_it = known.pop((gmem, index), None)
        known[gmem, index] = pfns[0]
        if len(known) > MOST:
            del known[next(iter(known))]
        if before_it is not None:
            text = f"served by host page {pfns[0]:#x}, before it was {before_it:#x}"
            if before_it == pfns[0]:
                yield OK
            elif at.complete or Capability.GUEST_UNMAP in at.memory.vms[at.owner].shows:
                yield Violation(text, gmem, index, index + 1)
