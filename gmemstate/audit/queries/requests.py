"""Requests of guests, and whether each was answered as it was served."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import NamedTuple

from gmemstate.audit.history import coverage
from gmemstate.audit.history.history import History
from gmemstate.audit.queries.conversions import gfns, judged
from gmemstate.audit.queries.evidence import Lines, guest_name, lines
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.document import Document
from gmemstate.model.events import Capability, RequestPath, details
from gmemstate.model.machines.range import PRIVATE, SHARED
from gmemstate.model.objects import Conversion, Request
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, U64, Direction, Gfn, Gpa, Ns, PageRange, Unit, direction, gfn_of, gpa_of, ns, u64


class Note(StrEnum):
    """What is remarkable in the answer to a request."""

    DIRECTION_FROM_CONVERSIONS = auto()
    """its flags say otherwise than the conversions that served it"""
    RETURNED_FAIL_BUT_APPLIED = auto()
    """the guest was refused, and pages are converted"""
    RETURNED_OK_NOT_APPLIED = auto()
    """the guest got success, and pages are not converted"""
    UNDONE = auto()
    """what had been converted for it was converted back: none of its pages differ"""
    ANSWERED_BY_KERNEL = auto()
    """KVM answered without an exit to the VMM"""
    RETRIED_OK = auto()
    """the guest asked again, with success"""


@dataclass(frozen=True, slots=True)
class RequestRow(Document):
    """What a guest asked for, what was applied of it, and what the guest got as the answer."""

    id: int
    """the seq of its first event"""
    guest: str
    """``?`` if it is not known"""
    thread: int
    path: RequestPath
    gpa: Gpa | None
    """bytes"""
    pages: int | None
    flags: U64 | None
    to: Direction | None
    """by the conversions that served it"""
    conversions: tuple[int, ...]
    """the ids of the conversions that served it"""
    applied_pages: int | None
    returned: int | None
    """what the guest got: 0 for success; None if it was not seen"""
    notes: tuple[Note, ...]
    asked_ns: Ns | None
    answered_ns: Ns | None
    evidence: Lines | None

    def meets(self, pages: PageRange) -> bool:
        """Whether it asks for some of these gfns."""
        start = None if self.gpa is None else gfn_of(self.gpa)
        return pages.meets(Unit.GFN, start, None if start is None else start + (self.pages or 1))


class Served(NamedTuple):
    """What became of a request: pages asked, pages that have the asked kind, and what the guest got as the answer."""

    to: str | None
    asked: int | None
    applied: int | None
    result: int | None
    notes: tuple[Note, ...]


def served(history: History, request: Request) -> Served:
    """The verdict of a request, from the state that its conversions left; its own flags are not trusted for the direction.

    KVM_HC_MAP_GPA_RANGE has private in bit 4 (arch/x86/include/uapi/asm/kvm_para.h), but other encodings are in use. What is
    converted first is what the guest had asked for; a conversion to the other kind takes it back.
    """
    own = [history.conversions[key] for key in request.conversions if key in history.conversions]
    to = own[0].target if own and (own[0].target is not None) else None
    returned = request.result
    by_kernel = returned is not None and not own and not request.was_exit and _shows_exits(history, request)
    undone = any(one.result == 0 and one.target not in (to, None) for one in own)
    applied = _applied(history, request, own, to) if own or by_kernel else None
    asked_for = None if request.flags is None else PRIVATE if request.flags & ENCRYPTED else SHARED
    short = applied is not None and request.npages is not None and applied < request.npages
    notes = {
        Note.DIRECTION_FROM_CONVERSIONS: None not in (to, asked_for) and asked_for != to,
        Note.RETURNED_FAIL_BUT_APPLIED: bool(returned and applied),
        Note.RETURNED_OK_NOT_APPLIED: returned == 0 and bool(own) and short,
        Note.UNDONE: undone and applied == 0,
        Note.ANSWERED_BY_KERNEL: by_kernel,
        Note.RETRIED_OK: bool(returned) and _asked_again(history, request),
    }
    return Served(to, request.npages, applied, returned, tuple(note for note, holds in notes.items() if holds))


def _applied(history: History, request: Request, own: list[Conversion], to: str | None) -> int | None:
    """How many of the pages that were asked for its conversions have left converted; None where that is not known.

    Conversions that were made meanwhile, for a reason that is not known, may have served it too.
    """
    if coverage.lost(history, coverage.of_request(request)) or any(coverage.others(history, request)):
        return None
    left: dict[bool, RangeMap] = {}
    asked = None if request.start is None or request.npages is None else (request.start, request.start + request.npages)
    for conversion in sorted(own, key=lambda one: one.last):
        extent = judged(history, conversion).applied.extent
        if extent not in ("all", "none") or conversion.start is None or conversion.end is None:
            return None
        place = gfns(history, conversion)
        first, last = place or (conversion.start, conversion.end)
        if place is not None and asked is not None:
            first, last = max(first, asked[0]), min(last, asked[1])
        if extent == "all" and first < last:
            left.setdefault(place is not None, RangeMap()).set(first, last, int(conversion.target == to))
    pages = sum(last - first for kept in left.values() for first, last, converted in kept.runs(0, END) if converted)
    return pages if request.npages is None else min(pages, request.npages)


def _shows_exits(history: History, request: Request) -> bool:
    """Whether an exit to the VMM would have been seen."""
    interval = coverage.of_request(request)
    proven = coverage.shows(history, interval)
    return not coverage.lost(history, interval) and not proven.isdisjoint((Capability.EXITS, Capability.FAULT_EXITS))


def _asked_again(history: History, request: Request) -> bool:
    return any(
        later.id > request.id
        and (later.owner, later.start, later.npages, later.result) == (request.owner, request.start, request.npages, 0)
        and later.start is not None
        and later.conversions
        for later in history.requests.values()
    )


def requests(history: History) -> Iterator[RequestRow]:
    """All requests, oldest first."""
    return (_row(history, history.requests[key]) for key in sorted(history.requests))


def _row(history: History, request: Request) -> RequestRow:
    odd = details(request.detail)
    found = served(history, request)
    gpa = int(odd["gpa"], 16) if "gpa" in odd else None
    pages = int(odd["pages"], 16) if "pages" in odd else None
    return RequestRow(
        id=request.id,
        guest=guest_name(history, request.owner),
        thread=request.thread,
        path=request.path,
        gpa=gpa_of(Gfn(request.start)) if request.start is not None else None if gpa is None else Gpa(gpa),
        pages=request.npages if request.npages is not None else pages,
        flags=u64(request.flags),
        to=direction(found.to),
        conversions=tuple(request.conversions),
        applied_pages=found.applied,
        returned=found.result,
        notes=found.notes,
        asked_ns=ns(request.asked),
        answered_ns=ns(request.answered),
        evidence=lines(history, request.source, request.first_line, request.last_line),
    )
