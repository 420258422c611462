"""How a conversion goes: its work, its invalidations, its turn (INV-09 to 12, 14, 19, 20, 36, 39, 42, 43)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.context import OK, CheckContext, Evaluations, Pages, Violation, after, at_end, before
from gmemstate.model import events as e
from gmemstate.model.events import OWNER, SOURCE, START, T
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import PRESENT, Conversion, Gmem
from gmemstate.model.reports import SourceFormat
from gmemstate.model.units import NS

HANG = 30 * NS
"""Who waits for so long (ns) for a reference waits for ever."""


def _about(conversion: Conversion, text: str) -> Violation:
    return Violation(text, conversion.owner, conversion.start, conversion.end)


# --- work -----------------------------------------------------------------------------------------------------------


@before("INV-39", e.WorkItem)
def work_is_ordered_and_needed(at: CheckContext, _event: e.Event) -> Evaluations:
    """Items of work are in order, in the request, and of pages that have not the target (compute_work(), RFC v2)."""
    conversion, (start, end) = at.conversion, at.pages
    if conversion is None or conversion.owner is None or at.row[START] is None:
        return
    if conversion.items and start < conversion.items[-1][1]:
        yield Violation("an item of work is not after the one before it", conversion.owner, start, end)
    elif conversion.start is not None and conversion.end is not None and not conversion.start <= start < end <= conversion.end:
        yield Violation("an item of work is no part of the request", conversion.owner, start, end)
    elif any(run.state == conversion.target for run in at.runs(conversion.owner)):
        yield Violation(f"event work_item not expected in the state {conversion.target}", conversion.owner, start, end)
    else:
        yield OK


@before("INV-09", e.UsersChecked)
def filemap_holds_its_folios(at: CheckContext, event: e.UsersChecked) -> Evaluations:
    """One reference for each page and the one of the test itself are expected; more are others', fewer are a bug."""
    found, expected = event.references, event.expected
    if at.conversion is None or at.conversion.through is not e.Through.GMEM_CONVERT or found is None or not expected:
        return
    few = found < expected
    yield Violation(f"a folio has {found} references, its filemap alone {expected}", at.owner, *at.pages) if few else OK


@dataclass
class _Orders:
    """The largest order of a folio that was seen in each guest_memfd."""

    largest: dict[int, int] = field(default_factory=dict)


@before("INV-10", e.PageAdded, e.FolioSplit, e.FolioMerged)
def folio_orders(at: CheckContext, event: e.PageAdded | e.FolioSplit | e.FolioMerged) -> Evaluations:
    """Notes the largest order of folios of each file."""
    if event.order:
        largest = at.note(_Orders).largest
        largest[at.owner] = max(event.order, largest.get(at.owner, 0))
    return ()


@after("INV-10", e.ConvertReturned)
def folios_fit_the_attributes(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """After a success shared pages lie in small folios, whole private huge ranges in huge ones (RFC v2, kvm_gmem_merge())."""
    conversion = at.conversion
    gmem = at.memory.gmems.get(conversion.owner or 0) if conversion is not None else None
    if conversion is None or gmem is None or not conversion.items or conversion.state == "failed_dirty":
        return
    order = at.note(_Orders).largest.get(gmem.id, 0)
    if not order or conversion.through is not e.Through.GMEM_CONVERT:
        return
    merged = conversion.target == PRIVATE and not event.result
    wrong = [found for item in conversion.items for found in _misfits(at, gmem, _rounded(item, order), order, merged)]
    yield from wrong or [OK]


def _rounded(pages: Pages, order: int) -> Pages:
    """The huge ranges that a range overlaps."""
    return pages[0] >> order << order, -(-pages[1] >> order) << order


def _inside(pages: Pages, order: int) -> Pages:
    """The huge ranges that lie in a range."""
    return -(-pages[0] >> order) << order, pages[1] >> order << order


def _misfits(at: CheckContext, gmem: Gmem, pages: Pages, order: int, merged: bool) -> Evaluations:
    """Shared pages in huge folios; after a success (``merged``) private huge ranges in small ones, but for punched ones."""
    for start, end, backing in gmem.backing.runs(*pages):
        for run in at.runs(gmem.id, _inside((start, end), order)) if backing == PRESENT else ():
            for first, last, now in gmem.orders.runs(run.start, run.end):
                low, high = _inside((first, last), order)
                if run.state == SHARED and now:
                    yield Violation("a shared page lies in a huge folio", gmem.id, first, last)
                elif run.state == PRIVATE and not now and merged and low < high:
                    yield Violation("a private huge range lies in small folios", gmem.id, low, high)


# --- invalidations --------------------------------------------------------------------------------------------------


@before("INV-11", e.InvalidateEnded)
def no_end_without_a_begin(at: CheckContext, _event: e.Event) -> Evaluations:
    """kvm_mmu_invalidate_end() follows a kvm_mmu_invalidate_begin()."""
    conversion, steps = at.conversion, at.steps
    if conversion is None or not at.complete:
        return
    begun = steps.slots or steps.invalidation_ranges
    if conversion.through is e.Through.GMEM_CONVERT:
        begun = steps.ended < len(steps.invalidation_ranges)
    yield OK if begun else _about(conversion, "event invalidate_ended, and no invalidation was begun")


@before("INV-11", e.ConvertReturned)
def no_begin_without_an_end(at: CheckContext, _event: e.Event) -> Evaluations:
    """Each invalidation ends before the ioctl returns."""
    conversion, steps = at.conversion, at.steps
    if conversion is None or not at.complete:
        return
    begun = len(steps.invalidation_ranges) if conversion.through is e.Through.GMEM_CONVERT else bool(steps.slots)
    if steps.ended < begun:
        yield _about(conversion, "event convert_returned, and an invalidation was not ended")
    elif begun:
        yield OK


@before("INV-12", e.InvalidateEnded)
def invalidation_has_a_range(at: CheckContext, _event: e.Event) -> Evaluations:
    """kvm_mmu_invalidate_range_add() names a range before the invalidation ends."""
    if at.conversion is not None and at.complete:
        yield OK if at.steps.invalidation_ranges else _about(at.conversion, "event invalidate_ended, and no range was named")


@before("INV-14", e.ZapStarted)
def zaps_lie_in_the_invalidation(at: CheckContext, _event: e.Event) -> Evaluations:
    """What is unmapped lies in what is invalidated."""
    conversion, (start, end) = at.conversion, at.pages
    if conversion is None or conversion.through is not e.Through.GMEM_CONVERT or not at.complete:
        return
    inside = any(low <= start and end <= high for low, high in at.steps.invalidation_ranges)
    yield OK if inside else Violation("event zap_started outside of what is invalidated", conversion.owner, start, end)


@before("INV-14", e.GmemBound, e.SlotSet)
def memslots_stay_during_a_conversion(at: CheckContext, event: e.GmemBound | e.SlotSet) -> Evaluations:
    """No memslot of the file changes while its invalidation is open."""
    gmem = at.gmem_of_slot(event)
    if gmem is None or event.result:
        return
    for conversion in at.memory.conversions.values():
        if conversion.owner == gmem and conversion.through is e.Through.GMEM_CONVERT and not conversion.gapped:
            steps = at.open.get(conversion.id)
            if steps is not None and steps.ended < len(steps.invalidation_ranges):
                yield Violation(
                    f"event {event.name} inside of conversion {conversion.id}", gmem, conversion.start, conversion.end
                )


# --- no-ops and turns -----------------------------------------------------------------------------------------------


@before("INV-19", e.ZapStarted, e.InvalidateAdded, e.AttrsStored)
def noop_changes_nothing(at: CheckContext, event: e.Event) -> Evaluations:
    """A conversion of pages that have the attribute unmaps, invalidates and stores nothing."""
    conversion, steps = at.conversion, at.steps
    if conversion is None or conversion.gapped or steps.zaps or steps.invalidation_ranges or steps.stored:
        return ()
    if not steps.same and not _known_to_be_equal(at, conversion):
        return ()
    return (_about(conversion, f"event {event.name}, and all pages have the asked attribute"),)


def _known_to_be_equal(at: CheckContext, conversion: Conversion) -> bool:
    if conversion.start is None or conversion.end is None or conversion.owner is None or at.steps.crowded:
        return False
    if at.steps.same is False and not at.complete:
        return False  # a reservation that failed leaves entries without a value: they differ from none
    only = at.memory.only(conversion.owner, conversion.start, conversion.end)
    return only is not None and only == conversion.target


@before("INV-19", e.ConvertReturned)
def noop_is_seen_whole(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """A no-op was seen from its comparison to its return."""
    conversion, steps = at.conversion, at.steps
    if conversion is None or event.result or steps.zaps or steps.invalidation_ranges or steps.stored:
        return
    proven = (e.Capability.COMPARED,) if conversion.in_vm else (e.Capability.ZAP, e.Capability.STORED)
    if at.shows(*proven) and (steps.same or (steps.same is None and _known_to_be_equal(at, conversion))):
        yield OK


@dataclass
class _Turns:
    """Who holds the lock of each attribute owner, and who seems to have left it for whom."""

    holder: dict[int, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)


_LOCKED: tuple[type[e.Event], ...] = (e.AttrsCompared, e.WorkItem, e.InvalidateAdded, e.ZapStarted, e.UserAnswered)
_LOCKED += (e.AttrsStored, e.FolioSplit, e.FolioMerged, e.Undone, e.InvalidateEnded)
"""The steps that are taken, and seen, under the lock. The in-use test is known at the return only."""


@before("INV-20", *_LOCKED)
def conversions_are_serialised(at: CheckContext, event: e.Event) -> Evaluations:
    """One conversion of an attribute owner is at work at a time (slots_lock; in place filemap_invalidate_lock())."""
    conversion = at.conversion
    if conversion is None or conversion.owner is None or conversion.gapped:
        return
    turns, mine = at.note(_Turns), conversion.id
    holder = turns.holder.get(conversion.owner)
    if holder == mine:
        return
    if mine in turns.left and at.shows(e.Capability.RETURNED):
        name, other = event.name, turns.left[mine]
        yield Violation(
            f"event {name} of conversion {mine} after the first step of conversion {other}", conversion.owner, *at.pages
        )
    if holder in at.memory.conversions:
        turns.left[holder] = mine
    turns.holder[conversion.owner] = mine


@before("INV-20", e.ConvertReturned)
def lock_is_released(at: CheckContext, _event: e.Event) -> Evaluations:
    """The lock was held from the first step to the return, by this conversion alone."""
    conversion = at.conversion
    if conversion is None or conversion.owner is None:
        return
    turns = at.note(_Turns)
    if conversion.id in (turns.holder.get(conversion.owner), *turns.left):
        yield OK
    turns.left.pop(conversion.id, None)
    if turns.holder.get(conversion.owner) == conversion.id:
        del turns.holder[conversion.owner]


# --- in place -------------------------------------------------------------------------------------------------------


@before("INV-42", e.ConvertReturned)
def one_store_and_no_zap_without_it(at: CheckContext, _event: e.Event) -> Evaluations:
    """In place one range is stored, after the guest was unmapped, and nothing is unmapped for nothing."""
    conversion, steps = at.conversion, at.steps
    if conversion is None or conversion.through is not e.Through.GMEM_IOCTL:
        return
    if len(steps.stored) > 1:
        yield _about(conversion, f"the attribute was stored {len(steps.stored)} times")
    elif steps.slots and not steps.stored and at.complete:
        yield _about(conversion, "the guest was zapped, and nothing was stored")
    elif steps.stored and at.complete and not steps.reserved:
        yield _about(conversion, "stored without a reservation")
    elif steps.stored:
        yield OK


@before("INV-43", e.PrivateUnmapFailed)
def private_unmap_only_to_shared(at: CheckContext, event: e.PrivateUnmapFailed) -> Evaluations:
    """Private entries of the guest are unmapped only by a conversion to shared."""
    conversion = at.conversion
    if conversion is None or conversion.through is not e.Through.GMEM_IOCTL or (event.step or 0) > e.UnmapStep.WBINVD:
        return
    if conversion.target == PRIVATE:
        yield Violation("a conversion to private has unmapped a private page", at.row[OWNER], *at.pages)
    elif conversion.target == SHARED:
        yield OK


# --- waiting --------------------------------------------------------------------------------------------------------


@before("INV-36", e.ConvertReturned)
def wait_ends(at: CheckContext, _event: e.Event) -> Evaluations:
    """A conversion that waited for a reference has returned."""
    if at.conversion is not None and at.steps.waits is not None and at.conversion.through is e.Through.GMEM_CONVERT:
        yield OK


@at_end("INV-36")
def wait_is_not_endless(at: CheckContext, _event: None) -> Evaluations:
    """A conversion does not wait for a reference for ever (spinning in the split of RFC v2)."""
    conversion, waits = at.conversion, at.steps.waits
    if conversion is None or waits is None or conversion.through is not e.Through.GMEM_CONVERT:
        return
    seq, since = waits
    now = at.row[T] if at.row[SOURCE] == conversion.source else None
    long = since is not None and now is not None and now - since >= HANG
    if at.steps.stuck or long or at.formats.get(conversion.source or 0) == SourceFormat.SIMULATION:
        where = conversion.owner, conversion.start, conversion.end
        yield Violation("a conversion waits for a reference, and does not return", *where, seq)
