"""Who may access and hold a page, and what may change its attribute (INV-03 to 08, 25, 27, 28, 44, 48, 49)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.context import OK, CheckContext, Evaluations, Pages, Violation, before
from gmemstate.model import events as e
from gmemstate.model.events import NPAGES, OWNER, START, details
from gmemstate.model.findings import unexpected
from gmemstate.model.fold.conversions import KIND_OF
from gmemstate.model.linux import EACCES, GUEST_MEMFD_FLAG_INIT_SHARED, PAGES_1G, PAGES_2M, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import MAPPED, NO_ANSWER, POISONED_PAGE
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import PageIndex

HUGE = (PAGES_2M, PAGES_1G)
_KIND_OF_ACCESS: dict[int | None, str] = {e.Access.GUEST_PRIVATE: PRIVATE, e.Access.GUEST_SHARED: SHARED}


def _becomes_private(at: CheckContext, event: e.AttrsStored) -> Pages | None:
    """The asked pages of a guest_memfd that are stored as private, if they are."""
    conversion = at.conversion
    if conversion is None or conversion.in_vm or conversion.owner != at.owner or event.result:
        return None
    if event.attributes != PRIVATE_ATTRIBUTE or conversion.start is None or conversion.end is None:
        return None
    start, end = at.pages
    pages = max(start, conversion.start), min(end, conversion.end)
    return pages if pages[0] < pages[1] else None


# --- becoming private -----------------------------------------------------------------------------------------------


@before("INV-03", e.AttrsStored)
def host_is_unmapped_first(at: CheckContext, event: e.AttrsStored) -> Evaluations:
    """unmap_mapping_pages() comes before pages are stored as private."""
    pages, mappings = _becomes_private(at, event), at.memory.mappings.get((at.owner, e.User.HOST))
    if pages is None or mappings is None or not at.shows(e.Capability.HOST_FAULTS, e.Capability.HOST_UNMAP):
        return
    runs = mappings.runs(*pages)
    mapped = [run for run in runs if run.value == MAPPED]
    for run in mapped:
        yield Violation("pages become private that the host maps", at.owner, run.start, run.end)
    if not mapped and any(run.value != NO_ANSWER for run in runs):
        yield OK


HELD, LET_GO = 1, 2


@dataclass
class _Held:
    """What devices map and what is pinned of each attribute owner, as far as it is on record."""

    dma: dict[int, RangeMap] = field(default_factory=dict)
    pins: dict[int, RangeMap] = field(default_factory=dict)


@before("INV-04", e.DmaMapped, e.DmaUnmapped, e.Pinned, e.Unpinned, e.Punched, e.UserAnswered)
def devices_and_pins(
    at: CheckContext, event: e.DmaMapped | e.DmaUnmapped | e.Pinned | e.Unpinned | e.Punched | e.UserAnswered
) -> Evaluations:
    """Notes what devices map and what is pinned."""
    held, takes, pins = at.note(_Held), isinstance(event, e.DmaMapped | e.Pinned), isinstance(event, e.Pinned | e.Unpinned)
    if (not isinstance(event, e.Pinned | e.Unpinned) and event.result) or getattr(event, "user", e.User.IOMMU) != e.User.IOMMU:
        return ()
    for users in (held.dma, held.pins):
        concerned = isinstance(event, e.Punched) or (users is held.pins) == pins
        if concerned and (takes or at.owner in users):
            users.setdefault(at.owner, RangeMap()).set(*at.pages, HELD if takes else LET_GO)
    return ()


@before("INV-04", e.AttrsStored)
def private_is_not_held(at: CheckContext, event: e.AttrsStored) -> Evaluations:
    """A pin may have gone unseen where the kernel's own test has passed; an IOMMU mapping is known by its unmapping."""
    pages, held = _becomes_private(at, event), at.note(_Held)
    if pages is None:
        return
    dma = held.dma[at.owner].runs(*pages) if at.owner in held.dma else []
    pins = held.pins[at.owner].runs(*pages) if at.owner in held.pins else []
    wrong = [
        Violation("pages become private that a device maps", at.owner, run.start, run.end) for run in dma if run.value == HELD
    ]
    if not at.steps.tested:
        wrong += [
            Violation("pinned pages become private, untested", at.owner, run.start, run.end)
            for run in pins
            if run.value == HELD
        ]
    yield from wrong
    if not wrong and any(run.value for run in (*dma, *pins)):
        yield OK


@before("INV-07", e.AttrsStored)
def stored_range_is_merged(at: CheckContext, event: e.AttrsStored) -> Evaluations:
    """A trace shows the range that is written to the maple tree: its neighbours have the other value, or are not known."""
    gmem, (start, end) = at.memory.gmems.get(at.owner), at.pages
    kind = KIND_OF.get(event.attributes)
    if gmem is None or kind is None or not at.traced or at.row[START] is None or not at.quiet(gmem.id):
        return
    if at.conversion is None or at.conversion.through is not e.Through.GMEM_IOCTL:
        return
    neighbours = [page for page in (start - 1, end) if 0 <= page < (gmem.npages or 0)]
    states = {page: at.runs(gmem.id, (page, page + 1))[0].state for page in neighbours}
    wrong = [page for page, state in states.items() if state == kind]
    for page in wrong:
        yield Violation(f"stored next to a page that is {kind} already, and not merged with it", gmem.id, page, page + 1)
    if start >= end:
        yield Violation("an empty range was stored", gmem.id, start, end)
    elif not wrong and set(states.values()) <= {SHARED, PRIVATE}:
        yield OK


@before("INV-08", e.KernelWarned)
def page_has_an_attribute(at: CheckContext, event: e.KernelWarned) -> Evaluations:
    """A page without one is reported by a WARN: the kernel takes what the file was made with (kvm_gmem_get_attributes())."""
    if details(event.detail).get("function") == "kvm_gmem_get_attributes":
        yield Violation("the tree has no attribute for a page of a guest_memfd", at.row[OWNER])


# --- being private --------------------------------------------------------------------------------------------------


@before("INV-05", e.FaultServed)
def host_fault_on_private_is_refused(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """kvm_gmem_fault_user_mapping() refuses a private page."""
    if event.access != e.Access.HOST or at.owner not in at.memory.gmems or not at.quiet(at.owner):
        return
    for run in at.runs():
        if run.state == PRIVATE:
            yield OK if event.result else Violation(unexpected("host fault_served", PRIVATE), at.owner, run.start, run.end)


@before("INV-06", e.FaultServed)
def guest_fault_gets_its_kind(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """A page that a trace says was given may not have been mapped: whoever lost a race against a conversion tries again."""
    vm = at.memory.vms.get(at.owner)
    wanted = _KIND_OF_ACCESS.get(event.access)
    if vm is None or wanted is None or vm.dialect is not e.Dialect.MAINLINE or event.result or not at.quiet(vm.id):
        return
    for run in at.runs():
        if run.state == wanted:
            yield OK
        elif run.state in (SHARED, PRIVATE) and at.settled(vm.id):
            yield Violation(unexpected(f"{wanted} fault_served", run.state), vm.id, run.start, run.end)


@before("INV-25", e.FaultServed)
def file_without_shared_pages_is_not_mapped(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """The host cannot map a guest_memfd that was made private (kvm_gmem_fault_user_mapping())."""
    gmem = at.memory.gmems.get(at.owner)
    vm = at.memory.vms.get(gmem.vm or 0) if gmem is not None else None
    if (
        gmem is None
        or vm is None
        or vm.dialect is not e.Dialect.MAINLINE
        or gmem.flags is None
        or event.access != e.Access.HOST
    ):
        return
    shared = bool(gmem.flags & GUEST_MEMFD_FLAG_INIT_SHARED)
    if shared and not event.result:
        yield OK
    elif not shared:
        yield OK if event.result else Violation("the host maps pages of a private guest_memfd", gmem.id, *at.pages)


@before("INV-28", e.FaultServed)
def huge_entry_is_of_one_kind(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """A run of several lines says so in its detail; a single one of many pages is a huge entry."""
    vm, (start, _), npages = at.memory.vms.get(at.owner), at.pages, at.row[NPAGES]
    if vm is None or vm.dialect is not e.Dialect.MAINLINE or npages not in HUGE or start % npages or event.result:
        return
    if not at.traced or "lines" in details(event.detail) or not at.quiet(vm.id):
        return
    kinds = {run.state for run in at.runs()}
    if kinds <= {SHARED, PRIVATE} and (len(kinds) == 1 or at.settled(vm.id)):
        yield OK if len(kinds) == 1 else Violation("a huge entry covers private and shared pages", vm.id, *at.pages)


@before("INV-27", e.InvalidateAdded)
def mixed_range_is_flagged(at: CheckContext, _event: e.Event) -> Evaluations:
    """Outside of what is converted KVM holds faults off in huge ranges of a slot that are not flagged: there the flag shows."""
    vm, conversion, (start, end) = at.memory.vms.get(at.owner), at.conversion, at.pages
    if (
        vm is None
        or vm.dialect is not e.Dialect.MAINLINE
        or conversion is None
        or end - start not in HUGE
        or start % (end - start)
    ):
        return
    if conversion.start is None or conversion.end is None or (conversion.start <= start and end <= conversion.end):
        return
    if not at.quiet(vm.id) or not at.memory.slots_known(vm):
        return
    kinds = {run.state for run in at.runs()}
    if not any(slot.start <= start and end <= slot.end for slot in vm.slots.values()):
        yield Violation("a huge range that lies in no memslot is taken for one of a single kind", vm.id, start, end)
    elif kinds <= {SHARED, PRIVATE}:
        mixed = Violation("a huge range with private and shared pages is not flagged as mixed", vm.id, start, end)
        yield OK if len(kinds) == 1 else mixed


# --- staying what it is ---------------------------------------------------------------------------------------------


@dataclass
class _Provoked:
    """The guest_memfds to which something has happened that may not change an attribute, but could."""

    gmems: set[int] = field(default_factory=set)


@before("INV-44", e.Punched, e.Poisoned, e.GmemReleased)
def file_changes(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes files of which pages are punched, poisoned or released: none of it may change an attribute."""
    at.note(_Provoked).gmems.add(at.owner)
    return ()


@before("INV-44", e.GmemBound, e.SlotSet)
def memslot_changes(at: CheckContext, event: e.GmemBound | e.SlotSet) -> Evaluations:
    """Notes files whose memslots are set or bound: none of it may change an attribute."""
    at.note(_Provoked).gmems.add(at.gmem_of_slot(event) or 0)
    return ()


@before("INV-44", e.VmBugged, e.VmDead)
def vm_ends(at: CheckContext, _event: e.Event) -> Evaluations:
    """Notes files of VMs that are bugged or dead: none of it may change an attribute."""
    vm = at.memory.vms.get(at.owner)
    at.note(_Provoked).gmems.update(slot.gmem or 0 for slot in (vm.slots.values() if vm is not None else ()))
    return ()


@before("INV-44", e.AttrsStored)
def neighbours_are_unchanged(at: CheckContext, event: e.AttrsStored) -> Evaluations:
    """What is written beyond a request are neighbours that had the value: it shows what they are."""
    gmem, kind, conversion = at.memory.gmems.get(at.owner), KIND_OF.get(event.attributes), at.conversion
    if gmem is None or not gmem.inplace or kind is None or event.result or not at.quiet(gmem.id):
        return
    outside: list[Pages] = [at.pages]
    if event.conversion is not None:
        if conversion is None or conversion.start is None or conversion.end is None:
            return
        start, end = at.pages
        outside = [(start, min(end, conversion.start)), (max(start, conversion.end), end)]
    runs = [run for pages in outside for run in at.runs(gmem.id, pages)]
    for run in runs:
        if run.state in (SHARED, PRIVATE):
            text = f"{run.state} pages are {kind} now, and nobody converted them"
            yield OK if run.state == kind else Violation(text, gmem.id, run.start, run.end)


@before("INV-44", e.FaultServed)
def host_access_is_unchanged(at: CheckContext, event: e.FaultServed) -> Evaluations:
    """Here what it may have is refused; where it gets what it may not have, that is INV-05."""
    gmem, (_, end), result = at.memory.gmems.get(at.owner), at.pages, event.result
    if gmem is None or not gmem.inplace or event.access != e.Access.HOST or gmem.id not in at.note(_Provoked).gmems:
        return
    if gmem.npages is None or end > gmem.npages or result not in (0, EACCES) or not at.quiet(gmem.id):
        return
    for run in at.runs():
        if run.state == (PRIVATE if result else SHARED):
            yield OK
        elif run.state == SHARED and at.settled(gmem.id):
            yield Violation("shared pages are refused to the host, and nobody converted them", gmem.id, run.start, run.end)


# --- who holds a page -----------------------------------------------------------------------------------------------


def _held(at: CheckContext, page: int) -> bool:
    """Whether somebody is on record who holds a page; a user that did not let go may."""
    memory, gmem = at.memory, at.memory.gmems.get(at.owner)
    known = any(
        memory.mapped(at.owner, user, page) == MAPPED for user in (e.User.HOST, e.User.IOMMU, e.User.PIN, e.User.REFERENCE)
    )
    return known or at.steps.refused or (gmem is not None and gmem.backing.get(page) == POISONED_PAGE)


@before("INV-48", e.UsersChecked)
def idle_private_page_is_not_held(at: CheckContext, event: e.UsersChecked) -> Evaluations:
    """Nobody holds a reference to a private page that no fault is using (kvm_gmem_is_safe_for_conversion())."""
    conversion, (start, _) = at.conversion, at.pages
    if not at.simulated or conversion is None or conversion.through is not e.Through.GMEM_IOCTL:
        return
    private = [run for run in at.runs() if run.state in (PRIVATE, f"zapping({PRIVATE}>{PRIVATE})")]
    if not private:
        return
    if not event.result:
        yield OK
    elif private[0].start == start:
        yield (
            OK if _held(at, start) else Violation("a private page is in use, and nobody holds it but KVM", at.owner, *at.pages)
        )


@before("INV-49", e.UsersChecked)
def guest_is_no_obstacle(at: CheckContext, event: e.UsersChecked) -> Evaluations:
    """The guest's own mappings hold no reference: they never make a page count as in use."""
    conversion, (start, end) = at.conversion, at.pages
    if not at.simulated or conversion is None or conversion.through is not e.Through.GMEM_IOCTL or not event.result:
        return
    vm, gfn = at.memory.place(at.owner, PageIndex(start))
    if _held(at, start):
        yield OK
    elif vm is not None and gfn is not None and at.memory.mapped(vm, e.User.GUEST, gfn) == MAPPED:
        yield Violation("a page is in use, and nobody but the guest has accessed it", at.owner, start, end)
