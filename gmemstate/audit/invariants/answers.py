"""What a conversion answers and leaves: all or nothing, and the right words (INV-01, 02, 15 to 18, 35, 40, 41)."""

from dataclasses import dataclass, field

from gmemstate.audit.invariants.moment import OK, Evaluations, Moment, Pages, Violation, before, behind
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    NPAGES,
    OWNER,
    RESULT,
    SOURCE,
    START,
    VALUE,
    AttrsCompared,
    Capability,
    ConvertAsked,
    ConvertReturned,
    DmaUnmapped,
    PageFreed,
    Punched,
    Through,
    Unpinned,
    User,
    UsersChecked,
)
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


@before("INV-01", ConvertReturned)
def all_or_nothing(at: Moment) -> Evaluations:
    conversion = at.conversion
    if conversion is None or conversion.in_vm:
        return
    if at.row[RESULT]:
        left = _not_undone(at)
        for start, end in left:
            yield Violation("told an errno, the new attribute stays", conversion.owner, start, end)
        if not left and at.shows(Capability.STORED):
            yield OK
    elif at.complete or (conversion.stored and at.shows(Capability.STORED)):
        yield from _all_new(at, conversion)


@before("INV-02", ConvertReturned)
def all_or_nothing_in_a_vm(at: Moment) -> Evaluations:
    """Mainline reserves before it touches anything, and cannot fail behind that: it never undoes."""
    conversion = at.conversion
    if conversion is None or not conversion.in_vm:
        return
    if at.row[RESULT] and at.steps.stored:
        yield Violation("told an errno, the new attribute stays", conversion.owner, *at.steps.stored[0])
    elif at.row[RESULT] == ENOMEM and at.steps.zaps:
        yield _about(conversion, "told ENOMEM, users were unmapped")
    elif at.complete and at.row[RESULT]:
        yield OK
    elif at.complete:
        yield from _all_new(at, conversion)


def _not_undone(at: Moment) -> list[Pages]:
    """The pages that were stored and not undone; an undo that failed with a WARN is excused."""
    new = RangeMap()
    for start, end in at.steps.stored:
        new.set(start, end, 1)
    for start, end in at.steps.undone:
        new.set(start, end, 0)
    return [(start, end) for start, end, left in new if left]


def _all_new(at: Moment, conversion: Conversion) -> Evaluations:
    """At the return each page has been written, or had the target before."""
    asked, target = _asked(conversion), conversion.target
    if asked is None or target is None or conversion.owner is None:
        return
    other = SHARED if target == PRIVATE else PRIVATE
    old = (other, f"zapping({other}>{target})", f"checked({other}>{target})")
    wrong = [run for run in at.runs(conversion.owner, asked) if run.state in old]
    for run in wrong:
        yield Violation("told 0, the old attribute stays", conversion.owner, run.start, run.end)
    if not wrong:
        yield OK


@before("INV-02", AttrsCompared)
def compared_as_known_in_a_vm(at: Moment) -> Evaluations:
    if at.owner in at.memory.vms:
        yield from _compared_as_known(at)


@before("INV-01", AttrsCompared)
def compared_as_known(at: Moment) -> Evaluations:
    if at.owner in at.memory.gmems:
        yield from _compared_as_known(at)


def _compared_as_known(at: Moment) -> Evaluations:
    """What the kernel compares under its lock is what earlier conversions have left."""
    kind = KIND_OF.get(at.row[VALUE])
    runs = at.runs()
    if kind is None or at.row[CONVERSION] is None or not runs or not at.quiet(at.owner):
        return
    if any(run.state not in SETTLED[1:] for run in runs):
        return
    other = next((run for run in runs if run.state != kind), None)
    equal = bool(at.row[RESULT])
    if equal and other is not None:
        text = f"event attrs_compared (all are {kind}) not expected in the state {other.state}"
        yield Violation(text, at.owner, other.start, other.end)
    elif not equal and other is None and kind == PRIVATE:
        yield Violation("event attrs_compared (not all are private) not expected in the state private", at.owner, *at.pages)
    elif equal or other is not None:
        yield OK
    # Shared pages that compare as different are no proof: a reservation that failed leaves entries without a value.


@behind("INV-40", ConvertReturned)
def all_work_was_done(at: Moment) -> Evaluations:
    conversion = at.conversion
    if conversion is None or conversion.items is None or at.row[RESULT]:
        return
    yield _about(conversion, "told 0, part of the work was never listed") if conversion.state == "committed_short" else OK


# --- the words of a refusal -----------------------------------------------------------------------------------------


@before("INV-15", ConvertReturned)
def eagain_names_a_page_of_the_request(at: Moment) -> Evaluations:
    conversion = at.conversion
    if conversion is None or conversion.in_vm or at.row[RESULT] != EAGAIN:
        return
    if conversion.target == SHARED:
        yield _about(conversion, "EAGAIN to a conversion to shared")
    asked, offset = _asked(conversion), at.row[VALUE]
    if asked is None or offset is None:
        return
    page = unsigned(offset) >> PAGE_SHIFT
    gmem = at.memory.gmems.get(conversion.owner or 0)
    huge = conversion.through is Through.GMEM_CONVERT and gmem is not None and gmem.orders.get(page)
    if offset % PAGE_SIZE:
        yield _about(conversion, f"error_offset {unsigned(offset):#x} is no page")
    elif not asked[0] <= page < asked[1] and not huge:  # RFC v2 names the head of a folio, which may lie before
        yield _about(conversion, f"error_offset {unsigned(offset):#x} is no page of the request")
    else:
        yield OK


@before("INV-17", ConvertReturned)
def enomem_touches_nothing(at: Moment) -> Evaluations:
    conversion = at.conversion
    if conversion is None or conversion.through is not Through.GMEM_IOCTL or at.row[RESULT] != ENOMEM:
        return
    offset = at.row[VALUE]
    if at.steps.zaps:
        yield _about(conversion, "ENOMEM, and users were unmapped")
    elif offset is not None and conversion.start is not None and unsigned(offset) != conversion.start << PAGE_SHIFT:
        yield _about(conversion, f"ENOMEM, and error_offset is {unsigned(offset):#x}")
    elif offset is not None or at.shows(Capability.HOST_UNMAP):
        yield OK


@before("INV-18", ConvertReturned)
def eagain_costs_processors_only(at: Moment) -> Evaluations:
    conversion = at.conversion
    if conversion is None or conversion.in_vm or at.row[RESULT] != EAGAIN:
        return
    lost = next((row for row in conversion.answers if row[ACTOR] == User.IOMMU and row[VALUE]), None)
    if at.steps.stored:
        yield _about(conversion, "EAGAIN behind a store")
    elif at.steps.folios:
        yield _about(conversion, "EAGAIN behind a split or merge of folios")
    elif lost is not None:
        start, npages = lost[START] or 0, lost[NPAGES]
        end = END if npages is None else start + npages
        yield Violation("EAGAIN, and an IOMMU has lost its mapping: no device can fault it in again", lost[OWNER], start, end)
    elif at.shows(Capability.STORED):
        yield OK


@before("INV-41", ConvertReturned)
def error_offset_is_written_if_it_counts(at: Moment) -> Evaluations:
    """A trace shows the field as it is, written or not; there only what stands with EAGAIN and ENOMEM is on record."""
    conversion = at.conversion
    if conversion is None or conversion.through is not Through.GMEM_IOCTL:
        return
    written, due = at.row[VALUE] is not None, at.row[RESULT] in (EAGAIN, ENOMEM)
    if written and not due:
        yield _about(conversion, f"error_offset was written, and the result is {at.row[RESULT] or 0}")
    elif due and not written and at.complete:
        yield _about(conversion, f"error_offset was not written, and the result is {at.row[RESULT]}")
    elif written or at.complete:
        yield OK


# --- asking again ---------------------------------------------------------------------------------------------------


@dataclass
class _Misled:
    """Conversions of RFC v2 that came back with an error_offset that means nothing, by thread."""

    ends: dict[tuple[int | None, int], tuple[int | None, int, int]] = field(default_factory=dict)
    """space, the page that the rubbish names, the end of the request"""


@before("INV-16", ConvertReturned)
def rubbish_is_returned(at: Moment) -> Evaluations:
    conversion, offset = at.conversion, at.row[VALUE]
    if conversion is not None and conversion.through is Through.GMEM_CONVERT and conversion.thread is not None:
        ends = at.note(_Misled).ends
        ends.pop((conversion.source, conversion.thread), None)
        page = None if offset is None else unsigned(offset) >> PAGE_SHIFT
        if at.row[RESULT] not in (0, EAGAIN, None) and page and conversion.end is not None and page != conversion.start:
            ends[conversion.source, conversion.thread] = conversion.owner, page, conversion.end
    return ()


@before("INV-16", ConvertAsked)
def nobody_goes_on_from_rubbish(at: Moment) -> Evaluations:
    misled = at.note(_Misled).ends.pop((at.row[SOURCE], at.row[ACTOR] or 0), None)
    if misled is None or misled[0] != at.row[OWNER] or at.row[START] is None:
        return
    goes_on = (at.row[START], at.pages[1]) == misled[1:]
    yield Violation("goes on from an error_offset that means nothing", at.row[OWNER], *at.pages) if goes_on else OK


@dataclass
class _Pinned:
    """The page of each attribute owner for which a conversion was last refused, if a pin holds it, until somebody lets go."""

    pages: dict[int, int] = field(default_factory=dict)


@before("INV-35", UsersChecked)
def a_pin_is_in_the_way(at: Moment) -> Evaluations:
    beyond = (at.row[VALUE] or 0) - (at.row[ACTOR] or 0)
    if at.row[RESULT] and at.row[START] is not None and at.row[NPAGES] == 1 and beyond >= GUP_PIN_COUNTING_BIAS:
        at.note(_Pinned).pages[at.owner] = at.row[START]
    return ()


@before("INV-35", Unpinned, DmaUnmapped, Punched, PageFreed)
def somebody_lets_go(at: Moment) -> Evaluations:
    at.note(_Pinned).pages.pop(at.owner, None)
    return ()


@before("INV-35", ConvertAsked)
def asked_again(at: Moment) -> Evaluations:
    """Only what is asked behind a refusal is asked again."""
    owner = at.owner
    if owner in (pages := at.note(_Pinned).pages) and at.row[CONVERSION] is not None:
        at.note(_Again).pages[at.row[CONVERSION]] = pages[owner]
    return ()


@dataclass
class _Again:
    """Conversions that were asked while a page was known to be pinned, and that page."""

    pages: dict[int, int] = field(default_factory=dict)


@before("INV-35", ConvertReturned)
def refused_again(at: Moment) -> Evaluations:
    conversion = at.conversion
    page = at.note(_Again).pages.pop(at.row[CONVERSION] or 0, None)
    if conversion is None or page is None or conversion.target != PRIVATE or conversion.owner not in at.note(_Pinned).pages:
        return
    if _asked(conversion) is None or not conversion.start <= page < conversion.end:  # type: ignore[operator]
        return
    offset = at.row[VALUE]
    if not at.row[RESULT]:
        yield Violation("told 0, and the pin that was in the way is still there", conversion.owner, page, page + 1)
    elif at.row[RESULT] == EAGAIN and offset is not None:
        higher = unsigned(offset) >> PAGE_SHIFT > page
        yield Violation("EAGAIN names a higher page than before", conversion.owner, page, page + 1) if higher else OK
