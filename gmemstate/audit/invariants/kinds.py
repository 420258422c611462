"""Private and shared are kept apart: who may touch and hold a page, and what its kind may be changed by (INV-03 to 08, 25, 27, 28, 44, 48, 49)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.moment import OK, Evaluations, Moment, Pages, Violation, before
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    NPAGES,
    OWNER,
    RESULT,
    START,
    VALUE,
    Access,
    AttrsStored,
    Capability,
    Dialect,
    DmaMapped,
    DmaUnmapped,
    FaultServed,
    GmemBound,
    GmemReleased,
    InvalidateAdded,
    KernelWarned,
    Pinned,
    Poisoned,
    Punched,
    SlotSet,
    Through,
    Unpinned,
    User,
    UserAnswered,
    UsersChecked,
    VmBugged,
    VmDead,
    details,
)
from gmemstate.model.findings import unexpected
from gmemstate.model.fold.conversions import KIND_OF
from gmemstate.model.linux import EACCES, GUEST_MEMFD_FLAG_INIT_SHARED, PAGES_1G, PAGES_2M, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import MAPPED, NO_ANSWER, POISONED_PAGE
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import PageIndex

HUGE = (PAGES_2M, PAGES_1G)
_KIND_OF_ACCESS: dict[int | None, str] = {Access.GUEST_PRIVATE: PRIVATE, Access.GUEST_SHARED: SHARED}


def _becomes_private(at: Moment) -> Pages | None:
    """The asked pages of a guest_memfd that are stored as private, if they are."""
    conversion = at.conversion
    if conversion is None or conversion.in_vm or conversion.owner != at.owner or at.row[RESULT]:
        return None
    if at.row[VALUE] != PRIVATE_ATTRIBUTE or conversion.start is None or conversion.end is None:
        return None
    start, end = at.pages
    pages = max(start, conversion.start), min(end, conversion.end)
    return pages if pages[0] < pages[1] else None


# --- becoming private -----------------------------------------------------------------------------------------------


@before("INV-03", AttrsStored)
def private_is_unmapped(at: Moment) -> Evaluations:
    pages, mappings = _becomes_private(at), at.memory.mappings.get((at.owner, User.HOST))
    if pages is None or mappings is None or not at.shows(Capability.HOST_FAULTS, Capability.HOST_UNMAP):
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


@before("INV-04", DmaMapped, DmaUnmapped, Pinned, Unpinned, Punched, UserAnswered)
def holders_come_and_go(at: Moment) -> Evaluations:
    kind, held = at.row[KIND], at.note(_Held)
    if at.row[RESULT] or (kind == UserAnswered.code and at.row[ACTOR] != User.IOMMU):
        return ()
    takes = kind in (DmaMapped.code, Pinned.code)
    for users in (held.dma, held.pins):
        concerned = kind == Punched.code or (users is held.pins) == (kind in (Pinned.code, Unpinned.code))
        if concerned and (takes or at.owner in users):
            users.setdefault(at.owner, RangeMap()).set(*at.pages, HELD if takes else LET_GO)
    return ()


@before("INV-04", AttrsStored)
def private_is_held_by_nobody(at: Moment) -> Evaluations:
    """A pin may have gone unseen where the kernel's own test has passed; an IOMMU mapping is known by its unmapping."""
    pages, held = _becomes_private(at), at.note(_Held)
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


@before("INV-07", AttrsStored)
def stored_is_merged(at: Moment) -> Evaluations:
    """A trace shows the range that is written to the tree: what lies beside it has the other value, or is not known."""
    gmem, (start, end) = at.memory.gmems.get(at.owner), at.pages
    kind = KIND_OF.get(at.row[VALUE])
    if gmem is None or kind is None or not at.traced or at.row[START] is None or not at.quiet(gmem.id):
        return
    if at.conversion is None or at.conversion.through is not Through.GMEM_IOCTL:
        return
    beside = [page for page in (start - 1, end) if 0 <= page < (gmem.npages or 0)]
    states = {page: at.runs(gmem.id, (page, page + 1))[0].state for page in beside}
    wrong = [page for page, state in states.items() if state == kind]
    for page in wrong:
        yield Violation(f"stored beside a page that is {kind} already, and not merged with it", gmem.id, page, page + 1)
    if start >= end:
        yield Violation("an empty range was stored", gmem.id, start, end)
    elif not wrong and set(states.values()) <= {SHARED, PRIVATE}:
        yield OK


@before("INV-08", KernelWarned)
def every_page_has_an_attribute(at: Moment) -> Evaluations:
    """Only a page without one is heard of: the kernel takes what the file was made with, behind a WARN."""
    if details(at.row[DETAIL]).get("function") == "kvm_gmem_get_attributes":
        yield Violation("the tree has no attribute for a page of a guest_memfd", at.row[OWNER])


# --- being private --------------------------------------------------------------------------------------------------


@before("INV-05", FaultServed)
def the_host_is_refused(at: Moment) -> Evaluations:
    if at.row[ACTOR] != Access.HOST or at.owner not in at.memory.gmems or not at.quiet(at.owner):
        return
    for run in at.runs():
        if run.state == PRIVATE:
            yield OK if at.row[RESULT] else Violation(unexpected("host fault_served", PRIVATE), at.owner, run.start, run.end)


@before("INV-06", FaultServed)
def the_guest_gets_what_it_touches(at: Moment) -> Evaluations:
    """A page that a trace says was given may not have been mapped: whoever lost a race against a conversion tries again."""
    vm = at.memory.vms.get(at.owner)
    wanted = _KIND_OF_ACCESS.get(at.row[ACTOR])
    if vm is None or wanted is None or vm.dialect is not Dialect.MAINLINE or at.row[RESULT] or not at.quiet(vm.id):
        return
    for run in at.runs():
        if run.state == wanted:
            yield OK
        elif run.state in (SHARED, PRIVATE) and at.settled(vm.id):
            yield Violation(unexpected(f"{wanted} fault_served", run.state), vm.id, run.start, run.end)


@before("INV-25", FaultServed)
def a_file_is_of_one_kind(at: Moment) -> Evaluations:
    gmem = at.memory.gmems.get(at.owner)
    vm = at.memory.vms.get(gmem.vm or 0) if gmem is not None else None
    if gmem is None or vm is None or vm.dialect is not Dialect.MAINLINE or gmem.flags is None or at.row[ACTOR] != Access.HOST:
        return
    shared = bool(gmem.flags & GUEST_MEMFD_FLAG_INIT_SHARED)
    if shared and not at.row[RESULT]:
        yield OK
    elif not shared:
        yield OK if at.row[RESULT] else Violation("the host maps pages of a private guest_memfd", gmem.id, *at.pages)


@before("INV-28", FaultServed)
def huge_entries_are_of_one_kind(at: Moment) -> Evaluations:
    """A run of several lines says so in its detail; a single one of many pages is a huge entry."""
    vm, (start, _), npages = at.memory.vms.get(at.owner), at.pages, at.row[NPAGES]
    if vm is None or vm.dialect is not Dialect.MAINLINE or npages not in HUGE or start % npages or at.row[RESULT]:
        return
    if not at.traced or "lines" in details(at.row[DETAIL]) or not at.quiet(vm.id):
        return
    kinds = {run.state for run in at.runs()}
    if kinds <= {SHARED, PRIVATE} and (len(kinds) == 1 or at.settled(vm.id)):
        yield OK if len(kinds) == 1 else Violation("a huge entry covers private and shared pages", vm.id, *at.pages)


@before("INV-27", InvalidateAdded)
def what_is_not_flagged_is_not_mixed(at: Moment) -> Evaluations:
    """Beside what is converted KVM holds faults off in huge ranges that lie in a slot and are not flagged: there the flag shows."""
    vm, conversion, (start, end) = at.memory.vms.get(at.owner), at.conversion, at.pages
    if (
        vm is None
        or vm.dialect is not Dialect.MAINLINE
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
        yield OK if len(kinds) == 1 else Violation("a huge range with private and shared pages is not flagged as mixed", vm.id, start, end)  # fmt: skip


# --- staying what it is ---------------------------------------------------------------------------------------------


@dataclass
class _Provoked:
    """The guest_memfds to which something has happened that may not change an attribute, but could."""

    gmems: set[int] = field(default_factory=set)


@before("INV-44", Punched, Poisoned, GmemReleased)
def something_happens_to_a_file(at: Moment) -> Evaluations:
    at.note(_Provoked).gmems.add(at.owner)
    return ()


@before("INV-44", GmemBound, SlotSet)
def something_happens_to_a_memslot(at: Moment) -> Evaluations:
    vm, gmem = at.memory.vms.get(at.owner), at.row[ACTOR]
    if at.row[KIND] == SlotSet.code:
        slot = vm.slots.get(at.row[ACTOR] or 0) if vm is not None else None
        gmem = None if slot is None else slot.gmem
    at.note(_Provoked).gmems.add(gmem or 0)
    return ()


@before("INV-44", VmBugged, VmDead)
def something_happens_to_a_vm(at: Moment) -> Evaluations:
    vm = at.memory.vms.get(at.owner)
    at.note(_Provoked).gmems.update(slot.gmem or 0 for slot in (vm.slots.values() if vm is not None else ()))
    return ()


@before("INV-44", AttrsStored)
def neighbours_are_as_they_were(at: Moment) -> Evaluations:
    """What is written beyond a request are neighbours that had the value: it shows what they are."""
    gmem, kind, conversion = at.memory.gmems.get(at.owner), KIND_OF.get(at.row[VALUE]), at.conversion
    if gmem is None or not gmem.inplace or kind is None or at.row[RESULT] or not at.quiet(gmem.id):
        return
    outside: list[Pages] = [at.pages]
    if at.row[CONVERSION] is not None:
        if conversion is None or conversion.start is None or conversion.end is None:
            return
        start, end = at.pages
        outside = [(start, min(end, conversion.start)), (max(start, conversion.end), end)]
    runs = [run for pages in outside for run in at.runs(gmem.id, pages)]
    for run in runs:
        if run.state in (SHARED, PRIVATE):
            yield OK if run.state == kind else Violation(f"{run.state} pages are {kind} now, and nobody converted them", gmem.id, run.start, run.end)  # fmt: skip


@before("INV-44", FaultServed)
def the_host_finds_what_was_left(at: Moment) -> Evaluations:
    """Here what it may have is refused; where it gets what it may not have, that is INV-05."""
    gmem, (_, end), result = at.memory.gmems.get(at.owner), at.pages, at.row[RESULT]
    if gmem is None or not gmem.inplace or at.row[ACTOR] != Access.HOST or gmem.id not in at.note(_Provoked).gmems:
        return
    if gmem.npages is None or end > gmem.npages or result not in (0, EACCES) or not at.quiet(gmem.id):
        return
    for run in at.runs():
        if run.state == (PRIVATE if result else SHARED):
            yield OK
        elif run.state == SHARED and at.settled(gmem.id):
            yield Violation("shared pages are refused to the host, and nobody converted them", gmem.id, run.start, run.end)


# --- who holds a page -----------------------------------------------------------------------------------------------


def _held(at: Moment, page: int) -> bool:
    """Whether somebody is on record who holds a page; a user that did not let go may."""
    memory, gmem = at.memory, at.memory.gmems.get(at.owner)
    known = any(memory.mapped(at.owner, user, page) == MAPPED for user in (User.HOST, User.IOMMU, User.PIN, User.REFERENCE))
    return known or at.steps.refused or (gmem is not None and gmem.backing.get(page) == POISONED_PAGE)


@before("INV-48", UsersChecked)
def nobody_holds_idle_private_pages(at: Moment) -> Evaluations:
    conversion, (start, _) = at.conversion, at.pages
    if not at.simulated or conversion is None or conversion.through is not Through.GMEM_IOCTL:
        return
    private = [run for run in at.runs() if run.state in (PRIVATE, f"zapping({PRIVATE}>{PRIVATE})")]
    if not private:
        return
    if not at.row[RESULT]:
        yield OK
    elif private[0].start == start:
        yield (
            OK if _held(at, start) else Violation("a private page is in use, and nobody holds it but KVM", at.owner, *at.pages)
        )


@before("INV-49", UsersChecked)
def the_guest_is_no_obstacle(at: Moment) -> Evaluations:
    conversion, (start, end) = at.conversion, at.pages
    if not at.simulated or conversion is None or conversion.through is not Through.GMEM_IOCTL or not at.row[RESULT]:
        return
    vm, gfn = at.memory.place(at.owner, PageIndex(start))
    if _held(at, start):
        yield OK
    elif vm is not None and gfn is not None and at.memory.mapped(vm, User.GUEST, gfn) == MAPPED:
        yield Violation("a page is in use, and nobody but the guest has touched it", at.owner, start, end)
