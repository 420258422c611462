"""What a conversion answers and leaves: all or nothing, and the right words (INV-01, 02, 15 to 18, 35, 40, 41)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.context import OK, CheckContext, Evaluations, Pages, Violation, after, before
from gmemstate.model import events as e
from gmemstate.model.events import NPAGES, OWNER, SOURCE, START
from gmemstate.model.fold.conversions import KIND_OF
from gmemstate.model.linux import EAGAIN, ENOMEM, GUP_PIN_COUNTING_BIAS, PAGE_SHIFT, PAGE_SIZE
from gmemstate.model.machines.range import PRIVATE, SETTLED, SHARED
from gmemstate.model.objects import Conversion
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, unsigned


def _asked(conversion: Conversion) -> Pages | None:
    """The pages that were asked for."""
    if conversion.start is None or conversion.end is None:
        return None
    return conversion.start, conversion.end


def _about(conversion: Conversion, text: str) -> Violation:
    return Violation(text, conversion.owner, conversion.start, conversion.end)


# --- all or nothing -------------------------------------------------------------------------------------------------


@before("INV-01", e.ConvertReturned)
def gmem_conversion_is_atomic(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """What kvm_gmem_set_attributes() returns fits what it has stored and not undone."""
    conversion = at.conversion
    if conversion is None or conversion.in_vm:
        return
    if event.result:
        left = _not_undone(at)
        for start, end in left:
            yield Violation("an errno is returned, the new attribute stays", conversion.owner, start, end)
        if not left and at.shows(e.Capability.STORED):
            yield OK
    elif at.complete or (conversion.stored and at.shows(e.Capability.STORED)):
        yield from _all_new(at, conversion)


@before("INV-02", e.ConvertReturned)
def vm_conversion_is_atomic(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """Mainline reserves before it changes anything, and cannot fail after that: it never undoes."""
    conversion = at.conversion
    if conversion is None or not conversion.in_vm:
        return
    if event.result and at.steps.stored:
        yield Violation("an errno is returned, the new attribute stays", conversion.owner, *at.steps.stored[0])
    elif event.result == ENOMEM and at.steps.zaps:
        yield _about(conversion, "ENOMEM is returned, and users were unmapped")
    elif at.complete and event.result:
        yield OK
    elif at.complete:
        yield from _all_new(at, conversion)


def _not_undone(at: CheckContext) -> list[Pages]:
    """The pages that were stored and not undone; an undo that failed with a WARN is excused."""
    new = RangeMap()
    for start, end in at.steps.stored:
        new.set(start, end, 1)
    for start, end in at.steps.undone:
        new.set(start, end, 0)
    return [(start, end) for start, end, left in new if left]


def _all_new(at: CheckContext, conversion: Conversion) -> Evaluations:
    """At the return each page has been written, or had the target before."""
    asked, target = _asked(conversion), conversion.target
    if asked is None or target is None or conversion.owner is None:
        return
    other = SHARED if target == PRIVATE else PRIVATE
    old = (other, f"zapping({other}>{target})", f"checked({other}>{target})")
    wrong = [run for run in at.runs(conversion.owner, asked) if run.state in old]
    for run in wrong:
        yield Violation("0 is returned, the old attribute stays", conversion.owner, run.start, run.end)
    if not wrong:
        yield OK


@before("INV-02", e.AttrsCompared)
def vm_attributes_are_as_recorded(at: CheckContext, event: e.AttrsCompared) -> Evaluations:
    """kvm_range_has_memory_attributes() finds what earlier conversions of the VM have left."""
    if at.owner in at.memory.vms:
        yield from _compared_as_known(at, event)


@before("INV-01", e.AttrsCompared)
def gmem_attributes_are_as_recorded(at: CheckContext, event: e.AttrsCompared) -> Evaluations:
    """A guest_memfd has the attributes that earlier conversions of it have left."""
    if at.owner in at.memory.gmems:
        yield from _compared_as_known(at, event)


def _compared_as_known(at: CheckContext, event: e.AttrsCompared) -> Evaluations:
    """What the kernel compares under its lock is what earlier conversions have left."""
    kind = KIND_OF.get(event.attributes)
    runs = at.runs()
    if kind is None or event.conversion is None or not runs or not at.quiet(at.owner):
        return
    if any(run.state not in SETTLED[1:] for run in runs):
        return
    other = next((run for run in runs if run.state != kind), None)
    equal = bool(event.equal)
    if equal and other is not None:
        text = f"event attrs_compared (all are {kind}) not expected in the state {other.state}"
        yield Violation(text, at.owner, other.start, other.end)
    elif not equal and other is None and kind == PRIVATE:
        yield Violation("event attrs_compared (not all are private) not expected in the state private", at.owner, *at.pages)
    elif equal or other is not None:
        yield OK
    # Shared pages that compare as different are no proof: a reservation that failed leaves entries without a value.


@after("INV-40", e.ConvertReturned)
def success_covers_the_request(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """Success of KVM_GMEM_CONVERT means that all of the range was worked on, not only its first items (RFC v2, patch 38)."""
    conversion = at.conversion
    if conversion is None or conversion.items is None or event.result:
        return
    yield (
        _about(conversion, "0 is returned, part of the work was never listed") if conversion.state == "committed_short" else OK
    )


# --- the words of a refusal -----------------------------------------------------------------------------------------


@before("INV-15", e.ConvertReturned)
def eagain_names_a_page_in_the_request(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """error_offset of EAGAIN lies in the request (kvm_gmem_is_safe_for_conversion())."""
    conversion = at.conversion
    if conversion is None or conversion.in_vm or event.result != EAGAIN:
        return
    if conversion.target == SHARED:
        yield _about(conversion, "EAGAIN to a conversion to shared")
    asked, offset = _asked(conversion), event.error_offset
    if asked is None or offset is None:
        return
    page = unsigned(offset) >> PAGE_SHIFT
    gmem = at.memory.gmems.get(conversion.owner or 0)
    huge = conversion.through is e.Through.GMEM_CONVERT and gmem is not None and gmem.orders.get(page)
    if offset % PAGE_SIZE:
        yield _about(conversion, f"error_offset {unsigned(offset):#x} is no page")
    elif not asked[0] <= page < asked[1] and not huge:  # RFC v2 names the head of a folio, which may lie before
        yield _about(conversion, f"error_offset {unsigned(offset):#x} is no page of the request")
    else:
        yield OK


@before("INV-17", e.ConvertReturned)
def enomem_changes_nothing(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """Memory is reserved first (xa_reserve(), mas_preallocate()): ENOMEM comes before any user is unmapped."""
    conversion = at.conversion
    if conversion is None or conversion.through is not e.Through.GMEM_IOCTL or event.result != ENOMEM:
        return
    offset = event.error_offset
    if at.steps.zaps:
        yield _about(conversion, "ENOMEM, and users were unmapped")
    elif offset is not None and conversion.start is not None and unsigned(offset) != conversion.start << PAGE_SHIFT:
        yield _about(conversion, f"ENOMEM, and error_offset is {unsigned(offset):#x}")
    elif offset is not None or at.shows(e.Capability.HOST_UNMAP):
        yield OK


@before("INV-18", e.ConvertReturned)
def eagain_leaves_attributes_and_folios(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """EAGAIN may cost mappings of processors, which come back by faults; nothing is stored, split or unmapped from a device."""
    conversion = at.conversion
    if conversion is None or conversion.in_vm or event.result != EAGAIN:
        return
    answers = map(e.event_of, conversion.answers)
    lost = next((one for one in answers if isinstance(one, e.UserAnswered) and one.user is e.User.IOMMU and one.entries), None)
    if at.steps.stored:
        yield _about(conversion, "EAGAIN after a store")
    elif at.steps.folios:
        yield _about(conversion, "EAGAIN after a split or merge of folios")
    elif lost is not None:
        text = "EAGAIN, and an IOMMU has lost its mapping: no device can fault it in again"
        yield Violation(text, lost.owner, lost.start, END if lost.npages is None else lost.start + lost.npages)
    elif at.shows(e.Capability.STORED):
        yield OK


@before("INV-41", e.ConvertReturned)
def error_offset_is_written(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """A trace shows the field as it is, written or not; there only what stands with EAGAIN and ENOMEM is on record."""
    conversion = at.conversion
    if conversion is None or conversion.through is not e.Through.GMEM_IOCTL:
        return
    written, due = event.error_offset is not None, event.result in (EAGAIN, ENOMEM)
    if written and not due:
        yield _about(conversion, f"error_offset was written, and the result is {event.result or 0}")
    elif due and not written and at.complete:
        yield _about(conversion, f"error_offset was not written, and the result is {event.result}")
    elif written or at.complete:
        yield OK


# --- asking again ---------------------------------------------------------------------------------------------------


@dataclass
class _Misled:
    """Conversions of RFC v2 that came back with an error_offset that means nothing, by thread."""

    ends: dict[tuple[int | None, int], tuple[int | None, int, int]] = field(default_factory=dict)
    """space, the page that the rubbish names, the end of the request"""


@before("INV-16", e.ConvertReturned)
def meaningless_error_offset(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """RFC v2 writes an error_offset that no page explains where it returns another errno than EAGAIN."""
    conversion, offset = at.conversion, event.error_offset
    if conversion is not None and conversion.through is e.Through.GMEM_CONVERT and conversion.thread is not None:
        ends = at.note(_Misled).ends
        ends.pop((conversion.source, conversion.thread), None)
        page = None if offset is None else unsigned(offset) >> PAGE_SHIFT
        if event.result not in (0, EAGAIN, None) and page and conversion.end is not None and page != conversion.start:
            ends[conversion.source, conversion.thread] = conversion.owner, page, conversion.end
    return ()


@before("INV-16", e.ConvertAsked)
def no_retry_from_a_meaningless_error_offset(at: CheckContext, event: e.ConvertAsked) -> Evaluations:
    """A VMM that asks again from such an error_offset leaves out pages that were never converted."""
    misled = at.note(_Misled).ends.pop((at.row[SOURCE], event.thread or 0), None)
    if misled is None or misled[0] != at.row[OWNER] or at.row[START] is None:
        return
    goes_on = (at.row[START], at.pages[1]) == misled[1:]
    yield Violation("goes on from an error_offset that means nothing", at.row[OWNER], *at.pages) if goes_on else OK


@dataclass
class _Pinned:
    """The page of each attribute owner for which a conversion was last refused, if a pin holds it, until somebody lets go."""

    pages: dict[int, int] = field(default_factory=dict)


@before("INV-35", e.UsersChecked)
def pin_refuses(at: CheckContext, event: e.UsersChecked) -> Evaluations:
    """Notes the page for which kvm_gmem_is_safe_for_conversion() has found more references than a pin has."""
    beyond = (event.references or 0) - (event.expected or 0)
    if event.result and at.row[START] is not None and at.row[NPAGES] == 1 and beyond >= GUP_PIN_COUNTING_BIAS:
        at.note(_Pinned).pages[at.owner] = at.row[START]
    return ()


@before("INV-35", e.Unpinned, e.DmaUnmapped, e.Punched, e.PageFreed)
def user_lets_go(at: CheckContext, _event: e.Event) -> Evaluations:
    """Whoever unpins, unmaps, punches or frees pages may have ended the refusal."""
    at.note(_Pinned).pages.pop(at.owner, None)
    return ()


@before("INV-35", e.ConvertAsked)
def asked_again(at: CheckContext, event: e.ConvertAsked) -> Evaluations:
    """Only what is asked after a refusal is asked again."""
    owner = at.owner
    if owner in (pages := at.note(_Pinned).pages) and event.conversion is not None:
        at.note(_Again).pages[event.conversion] = pages[owner]
    return ()


@dataclass
class _Again:
    """Conversions that were asked while a page was known to be pinned, and that page."""

    pages: dict[int, int] = field(default_factory=dict)


@before("INV-35", e.ConvertReturned)
def pinned_page_is_refused_again(at: CheckContext, event: e.ConvertReturned) -> Evaluations:
    """As long as nobody has let go, the same request is refused at the same page or a lower one."""
    conversion = at.conversion
    page = at.note(_Again).pages.pop(event.conversion or 0, None)
    if conversion is None or page is None or conversion.target != PRIVATE or conversion.owner not in at.note(_Pinned).pages:
        return
    if _asked(conversion) is None or not conversion.start <= page < conversion.end:  # type: ignore[operator]
        return
    offset = event.error_offset
    if not event.result:
        yield Violation("0 is returned, and the pin that was in the way is still there", conversion.owner, page, page + 1)
    elif event.result == EAGAIN and offset is not None:
        higher = unsigned(offset) >> PAGE_SHIFT > page
        yield Violation("EAGAIN names a higher page than before", conversion.owner, page, page + 1) if higher else OK
