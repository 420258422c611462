"""Host pages: those not to be used again, poisoned ones, and which page backs which (INV-22, 23, 26, 31, 33, 34, 45)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.context import OK, CheckContext, Evaluations, Pages, Violation, before
from gmemstate.decode.tdx import OPERAND_BUSY
from gmemstate.model import events as e
from gmemstate.model.events import KIND, NPAGES, OWNER, SOURCE, START, details
from gmemstate.model.linux import EHWPOISON, PUNCH
from gmemstate.model.objects import POISONED_PAGE
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, unsigned

MOST = 4096
"""How many pages are remembered with their host pages, the youngest ones."""

_Shows = e.PageAdded | e.PrivateMapped | e.FaultServed
_Names = _Shows | e.PrivateUnmapFailed | e.PageFreed


def _pfns(event: _Names) -> Pages | None:
    """The host pages (pfns) that an event names; of a run of faults the first one only."""
    if event.pfn is None:
        return None
    return _run(event.pfn, 1 if isinstance(event, e.FaultServed) else event.npages)


def _run(pfn: int, npages: int | None) -> Pages:
    first = unsigned(pfn)
    return first, min(END, first + (npages or 1))


# --- pages that nobody may have again -------------------------------------------------------------------------------


@dataclass
class _Distrusted:
    """Host pages that a guest may still map; and the pages of guest_memfds that they back."""

    pfns: RangeMap = field(default_factory=RangeMap)
    places: set[Pages] = field(default_factory=set)


@before("INV-22", e.PrivateUnmapFailed)
def private_unmap_failed(at: CheckContext, event: e.PrivateUnmapFailed) -> Evaluations:
    """Notes the host page that a guest may still map."""
    distrusted, pfns = at.note(_Distrusted), _pfns(event)
    if pfns is not None:
        distrusted.pfns.set(*pfns, 1)
    if at.row[START] is not None and at.owner in at.memory.gmems:
        distrusted.places.add((at.owner, at.row[START]))
    elif at.row[START] is not None:
        for gmem, first, *_ in at.memory.indices(at.owner, at.row[START], at.row[START] + 1):
            distrusted.places.add((gmem, first))
    return ()


@before("INV-22", e.PageFreed)
def distrusted_page_is_freed(at: CheckContext, event: e.PageFreed) -> Evaluations:
    """Here its host page is named; unless the kernel keeps a reference it is free for everybody."""
    distrusted, (start, end), pfns = at.note(_Distrusted), at.pages, _pfns(event)
    for owner, page in [place for place in distrusted.places if place[0] == at.owner and start <= place[1] < end]:
        distrusted.places.discard((owner, page))
        if pfns is not None and "kept" not in details(event.detail):
            distrusted.pfns.set(pfns[0] + page - start, pfns[0] + page - start + 1, 1)
    return ()


@before("INV-22", e.Poisoned)
def poisoned_page_is_not_reused(at: CheckContext, _event: e.Event) -> Evaluations:
    """A page that memory_failure() takes out of use is given to nobody."""
    if at.row[START] is not None:
        at.note(_Distrusted).places.discard((at.owner, at.row[START]))
    return ()


@before("INV-22", e.HostBooted)
def reboot_clears(at: CheckContext, _event: e.Event) -> Evaluations:
    """After a reboot no page is mapped by a guest of before."""
    at.note(_Distrusted).pfns = RangeMap()
    at.note(_Distrusted).places.clear()
    at.note(_Leaked).pfns = RangeMap()
    return ()


@before("INV-22", e.PageAdded, e.PrivateMapped)
def distrusted_page_is_not_reused(at: CheckContext, event: e.PageAdded | e.PrivateMapped) -> Evaluations:
    """A host page whose private unmap failed backs no other page."""
    yield from _not_among(at, event, at.note(_Distrusted).pfns, "whose private unmap had failed")


@before("INV-22", e.FaultServed)
def distrusted_page_is_not_mapped_by_the_host(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """Converted in place it has become shared all the same."""
    places, (start, end) = at.note(_Distrusted).places, at.pages
    if places and event.access == e.Access.HOST and not event.result:
        for page in sorted(page for owner, page in places if owner == at.owner and start <= page < end):
            yield Violation("the host maps a page whose private unmap had failed", at.owner, page, page + 1)


@dataclass
class _Leaked:
    """Host pages that the kernel keeps for good."""

    pfns: RangeMap = field(default_factory=RangeMap)


@before("INV-23", e.PageLeaked)
def page_is_leaked(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes the host pages that snp_leak_pages() and its like keep for good."""
    if at.row[START] is not None:
        at.note(_Leaked).pfns.set(*_run(at.row[START], at.row[NPAGES]), 1)
    return ()


@before("INV-23", e.PageAdded, e.PrivateMapped, e.FaultServed)
def leaked_page_is_not_reused(at: CheckContext, event: _Shows) -> Evaluations:
    """A host page that was leaked backs nothing again."""
    yield from _not_among(at, event, at.note(_Leaked).pfns, "that the kernel had leaked")


def _not_among(at: CheckContext, event: _Shows, bad: RangeMap, what: str) -> Evaluations:
    pfns = _pfns(event)
    if pfns is None or len(bad) == 1 or (isinstance(event, e.FaultServed) and event.result):
        return
    found = [run for run in bad.runs(*pfns) if run.value]
    for run in found:
        text = f"event {event.name} of host page {run.start:#x}, {what}"
        page = None if event.start is None else event.start + run.start - pfns[0]
        yield Violation(text, at.row[OWNER], page, None if page is None else page + run.end - run.start)
    if not found:
        yield OK


@before("INV-31", e.PrivateUnmapFailed)
def busy_is_tried_again(at: CheckContext, event: e.PrivateUnmapFailed) -> Evaluations:
    """KVM tries a SEAMCALL again that finds its operand busy (tdh_mem_page_remove(), tdh_mem_range_block())."""
    status, step = event.status, event.step or 0
    if status is None or step > e.UnmapStep.WBINVD:
        return
    code = unsigned(status) >> 32 or unsigned(status)  # the operand stands in the lower half
    busy = code == OPERAND_BUSY >> 32
    yield Violation(f"a private unmap failed at {e.UnmapStep(step).name}: operand busy", at.owner, *at.pages) if busy else OK


@before("INV-33", e.PrivateUnmapFailed)
def rmp_gives_pages_back(at: CheckContext, event: e.PrivateUnmapFailed) -> Evaluations:
    """RMPUPDATE to shared and PSMASH give a page back to the host (rmp_make_shared(), psmash())."""
    if (event.step or 0) in (e.UnmapStep.RMPUPDATE, e.UnmapStep.PSMASH):
        yield Violation("a page stays with the guest in the RMP", at.owner, *at.pages)


# --- punched and poisoned -------------------------------------------------------------------------------------------


@before("INV-26", e.Punched)
def punch_succeeds(at: CheckContext, event: e.Punched) -> Evaluations:
    """Punching whole pages of a guest_memfd cannot fail (kvm_gmem_punch_hole())."""
    gmem, (start, end) = at.memory.gmems.get(at.owner), at.pages
    if gmem is None or gmem.npages is None or at.row[START] is None or event.mode != PUNCH:
        return
    if start < end <= gmem.npages:
        yield (Violation(f"a punch inside of the file fails with {event.result}", gmem.id, start, end) if event.result else OK)


@dataclass
class _Poison:
    """Whether there is any, and which sources show punches: in others a page may have been punched unseen."""

    seen: bool = False
    punches_shown_by: set[int | None] = field(default_factory=set)


@before("INV-34", e.Poisoned)
def poison_is_seen(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes that pages are poisoned in this record."""
    at.note(_Poison).seen = True
    return ()


@before("INV-34", e.Punched)
def punches_are_shown(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes which sources show punches: only those can show that poison is gone."""
    at.note(_Poison).punches_shown_by.add(at.row[SOURCE])
    return ()


@before("INV-34", e.FaultServed)
def poison_is_not_served(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """kvm_gmem_get_pfn() gives no guest a page with the hwpoison flag."""
    poison = at.note(_Poison)
    if not poison.seen or at.owner not in at.memory.vms or event.access == e.Access.HOST:
        return
    for gmem, index in _poisoned(at):
        in_file = at.memory.gmems[gmem].inplace or event.access == e.Access.GUEST_PRIVATE
        if in_file and event.result:
            yield OK
        elif in_file and at.settled(gmem) and (at.complete or at.row[SOURCE] in poison.punches_shown_by):
            yield Violation("event fault_served, and the page is poisoned", gmem, index, index + 1)


@before("INV-34", e.MemoryFaultExit)
def poison_returns_ehwpoison(at: CheckContext, event: e.MemoryFaultExit) -> Evaluations:
    """A fault on a poisoned page returns EHWPOISON (kvm_gmem_get_pfn())."""
    if event.result == EHWPOISON and _poisoned(at):
        yield OK


def _poisoned(at: CheckContext) -> list[Pages]:
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
    """The host pages that back pages of guest_memfds, as faults have shown them."""

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


@before("INV-45", e.Punched, e.PageFreed, e.GmemReleased)
def page_leaves_the_file(at: CheckContext, _event: e.Event) -> Evaluations:
    """A page that is punched, freed or released may have another host page next."""
    backing = at.note(_Backing)
    if at.row[KIND] == e.GmemReleased.code or at.row[START] is None:
        backing.forget(at.owner)
    else:
        backing.forget(at.owner, *at.pages)
    return ()


@before("INV-45", e.UserAnswered)
def page_may_leave_the_file(at: CheckContext, event: e.UserAnswered) -> Evaluations:
    """What is unmapped outside of a conversion may have been punched, whether or not a line says so."""
    if event.conversion is None and event.user == e.User.GUEST:
        for gmem, first, last, _ in at.memory.indices(at.owner, *at.pages):
            at.note(_Backing).forget(gmem, first, last)
    return ()


@before("INV-45", e.Gap)
def pages_may_leave_unseen(at: CheckContext, _event: e.Event) -> Evaluations:
    """After a gap nothing is known of host pages."""
    at.note(_Backing).pfns.clear()
    return ()


@before("INV-45", e.VmDestroyed)
def file_of_a_destroyed_vm(at: CheckContext, _event: e.Event) -> Evaluations:
    """The files of a VM that is destroyed may be freed with it."""
    for gmem in at.memory.gmems.values():
        if gmem.vm == at.owner:
            at.note(_Backing).forget(gmem.id)
    return ()


@before("INV-45", e.FaultServed)
def page_keeps_its_host_page(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """A page of a guest_memfd has one host page until it is punched or freed (kvm_gmem_get_folio())."""
    pfns = _pfns(event)
    if pfns is None or event.result or at.row[START] is None:
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
            elif at.complete or e.Capability.GUEST_UNMAP in at.memory.vms[at.owner].shows:
                yield Violation(text, gmem, index, index + 1)
