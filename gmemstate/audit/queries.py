"""Answers as plain data, the way ``--json`` prints them.

u64 values are hex strings, times decimal strings in ns, ranges half-open; what is not known is null.
"""

from bisect import bisect, bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from gmemstate.audit.history.history import CorroboratingReport, History
from gmemstate.audit.history.moment import Moment
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.events import Capability, Through, details
from gmemstate.model.linux import PAGE_SHIFT
from gmemstate.model.machines.range import PRIVATE, SHARED, UNKNOWN
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion, MessedUp, Request, Vm
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END, Gfn, gpa_of, hexadecimal
from gmemstate.model.verdict import Label, Verdict, arguments_known, error_offset_counts, verdict

Json = dict[str, Any]
NO_GUEST = "?"


def _time(t: int | None) -> str | None:
    return None if t is None else str(t)


def guest_name(moment: Moment, owner: int | None) -> str:
    """The name of the guest of an attribute owner, ``?`` if it is not known."""
    guest_id = moment.memory.guest_id(owner)
    return moment.memory.vms[guest_id].name if guest_id in moment.memory.vms else NO_GUEST


def evidence(history: History, source: int | None, first: int | None, last: int | None) -> Json | None:
    """The lines that show something."""
    known = history.sources.get(source or 0)
    if known is None or first is None:
        return None
    return {"file": known.name, "first": first, "last": last if last is not None else first}


def asked(conversion: Conversion) -> tuple[int | None, int | None]:
    """Address and size in bytes as they were asked, unaligned or not; None where the kernel could not read them."""
    if not arguments_known(conversion):
        return None, None
    if conversion.start is not None and conversion.npages is not None:
        return conversion.start << PAGE_SHIFT, conversion.npages << PAGE_SHIFT
    odd = details(conversion.detail)
    return (int(odd["address"], 16), int(odd["size"], 16)) if "address" in odd and "size" in odd else (None, None)


def gfns(history: History, conversion: Conversion) -> tuple[int, int] | None:
    """The gfns that a conversion is about, if they are whole pages and known."""
    if not arguments_known(conversion) or conversion.start is None or conversion.end is None:
        return None
    if conversion.in_vm:
        return conversion.start, conversion.end
    return history.places.get(conversion.id)


def judged(history: History, conversion: Conversion) -> Verdict:
    """The verdict of a conversion at the end of a history."""
    return verdict(conversion, history.memory.sources.get(conversion.source or 0))


def conversion_json(history: History, conversion: Conversion) -> Json:
    """One conversion with its verdict."""
    address, size = asked(conversion)
    known = arguments_known(conversion)
    pages = gfns(history, conversion)
    found = judged(history, conversion)
    in_vm = conversion.through is Through.VM_IOCTL
    returned = history.result_of(conversion)
    return {
        "id": conversion.id,
        "guest": guest_name(history, conversion.owner),
        "thread": conversion.thread,
        "through": conversion.through.name.lower(),
        "gpa": hexadecimal(address) if in_vm else (hexadecimal(gpa_of(Gfn(pages[0]))) if pages else None),
        "offset": None if in_vm else hexadecimal(address),
        "size": hexadecimal(size),
        "attributes": hexadecimal(conversion.attributes) if known else None,
        "to": conversion.target if known else None,
        "start": hexadecimal(pages[0]) if pages else None,
        "end": hexadecimal(pages[1]) if pages else None,
        "errno": returned,
        "error_offset": hexadecimal(conversion.error_offset) if error_offset_counts(conversion) else None,
        "applied": {
            "extent": found.applied.extent,
            "ranges": [[hexadecimal(start), hexadecimal(end)] for start, end in found.applied.ranges],
            "unit": "gfn" if in_vm else "index",
            "basis": found.applied.basis,
        },
        "residue": [
            {
                "what": left.what,
                "unit": "gfn" if left.owner in history.memory.vms else "index",
                "start": hexadecimal(left.start),
                "end": hexadecimal(left.end),
                "entries": left.entries,
                "basis": left.basis,
            }
            for left in found.residue
        ]
        if found.residue is not None
        else None,
        "label": found.label if returned == found.result else Label.UNKNOWN if returned else Label.COMMITTED,
        "stuck": conversion.stuck,
        "dying": conversion.dying,
        "trigger": conversion.trigger,
        "request": conversion.request,
        "started_ns": _time(conversion.asked),
        "ended_ns": _time(conversion.returned),
        "evidence": evidence(history, conversion.source, conversion.first_line, conversion.last_line),
        "witnesses": witnesses(history, conversion),
    }


def witnesses(history: History, conversion: Conversion) -> list[Json]:
    """What other sources say of the result of a conversion, and where: it is known from them if its own has not shown it."""
    heard = list(history.witnesses.get(conversion.id, ()))
    if conversion.result_from is not None and conversion.result is not None:
        heard.insert(0, CorroboratingReport(*conversion.result_from, conversion.result))
    return [
        {"file": history.sources[source].name, "line": line, "errno": result, "join": join}
        for source, line, result, join in heard
        if source in history.sources
    ]


def conversions(history: History) -> list[Json]:
    """All conversions, oldest first."""
    return [conversion_json(history, conversion) for conversion in history.ordered()]


# --- requests -------------------------------------------------------------------------------------------------------


class Served(NamedTuple):
    """What became of a request: pages asked, pages that have the asked kind, and what the guest got as the answer."""

    to: str | None
    asked: int | None
    applied: int | None
    result: int | None
    flags: tuple[str, ...]


def served(history: History, request: Request) -> Served:
    """The verdict of a request, from its conversions; its own flags are not trusted for the direction.

    KVM_HC_MAP_GPA_RANGE has private in bit 4, but other encodings are in use; the conversions that followed tell.
    """
    own = [history.conversions[key] for key in request.conversions if key in history.conversions]
    kinds = {conversion.target for conversion in own}
    to = kinds.pop() if len(kinds) == 1 else None
    flags = []
    if own and request.flags is not None and to is not None and (PRIVATE if request.flags & ENCRYPTED else SHARED) != to:
        flags.append("DIRECTION_FROM_CONVERSIONS")
    returned = request.result
    by_kernel = returned is not None and not own and not request.was_exit and _shows_exits(history, request)
    # Conversions that were made meanwhile, for a reason that is not known, may have served it too.
    others = bisect(history.unexplained, request.last) - bisect(history.unexplained, request.id)
    applied: int | None = 0 if (own or by_kernel) and not others else None
    for conversion in own:
        extent = judged(history, conversion).applied.extent
        if extent == "unknown" or conversion.npages is None:
            applied = None
        elif extent == "all" and applied is not None:
            applied += conversion.npages
    if returned not in (0, None) and applied:
        flags.append("TOLD_FAIL_BUT_APPLIED")
    if returned == 0 and own and applied is not None and request.npages is not None and applied < request.npages:
        flags.append("TOLD_OK_NOT_APPLIED")
    if by_kernel:
        flags.append("ANSWERED_BY_KERNEL")
    if returned not in (0, None) and _asked_again(history, request):
        flags.append("RETRIED_OK")
    return Served(to, request.npages, applied, returned, tuple(flags))


def _shows_exits(history: History, request: Request) -> bool:
    """Whether an exit to the VMM would have been seen."""
    vm, source = history.memory.vms.get(request.owner or 0), history.memory.sources.get(request.source or 0)
    shows = (vm.shows if vm is not None else frozenset()) | (source.shows if source is not None else frozenset())
    return not shows.isdisjoint((Capability.EXITS, Capability.FAULT_EXITS))


def _asked_again(history: History, request: Request) -> bool:
    return any(
        later.id > request.id
        and (later.owner, later.start, later.npages, later.result) == (request.owner, request.start, request.npages, 0)
        and later.start is not None
        and later.conversions
        for later in history.requests.values()
    )


def request_json(history: History, request: Request) -> Json:
    """One request of a guest with its verdict."""
    odd = details(request.detail)
    found = served(history, request)
    gpa = None if request.start is None else gpa_of(Gfn(request.start))
    return {
        "id": request.id,
        "guest": guest_name(history, request.owner),
        "thread": request.thread,
        "path": request.path.name.lower(),
        "gpa": hexadecimal(gpa) if gpa is not None else odd.get("gpa"),
        "pages": request.npages if request.npages is not None else (int(odd["pages"], 16) if "pages" in odd else None),
        "flags": hexadecimal(request.flags),
        "to": found.to,
        "conversions": request.conversions,
        "applied_pages": found.applied,
        "told": found.result,
        "notes": list(found.flags),
        "asked_ns": _time(request.asked),
        "answered_ns": _time(request.answered),
        "evidence": evidence(history, request.source, request.first_line, request.last_line),
    }


def requests(history: History) -> list[Json]:
    """All requests, oldest first."""
    return [request_json(history, history.requests[key]) for key in sorted(history.requests)]


# --- state ----------------------------------------------------------------------------------------------------------


class StateRow(NamedTuple):
    """Pages of one guest, or of a guest_memfd in no memslot, that are in one state and alike otherwise."""

    guest: str
    gmem: int | None
    start: int
    end: int
    state: str
    unbacked: str | None = None
    """why there can be no private memory behind it"""
    held_by: int | None = None
    """the conversion that is at work on it"""
    gone: str | None = None
    """what became of the guest: None, "bugged", "dead" or "destroyed"; the state is that of its end"""

    @property
    def alike(self) -> tuple[object, ...]:
        """What adjacent pages have in common that are told as one."""
        return self.state, self.unbacked, self.held_by, self.guest, self.gmem, self.gone


def unbacked(moment: Moment, vm: Vm, gfn: Gfn) -> str | None:
    """Why there can be no private memory behind a gfn; None if there can, or if it is not known."""
    slot = vm.slot_of(gfn)
    if slot is None:
        return "no_slot" if moment.memory.slots_known(vm) else None
    if slot.has_gmem is False:
        return "no_gmem"
    gmem = moment.memory.gmems.get(slot.gmem or 0)
    return "gmem_closed" if gmem is not None and gmem.released else None


def state(moment: Moment, start: int = 0, end: int = END, unit: str = "gfn") -> Iterator[StateRow]:
    """The state of all pages of ``[start, end)``: gfns guest by guest, or with ``unit`` idx pages of each guest_memfd.

    A look at all gfns adds the guest_memfds that are in no memslot.
    """
    memory = moment.memory
    if unit == "gfn":
        for vm in memory.vms.values():
            yield from _coalesced(_guest_rows(moment, vm, start, end))
        runs = _unplaced(memory).runs(start, end)
        yield from _coalesced(
            StateRow(NO_GUEST, None, first, last, UNKNOWN) for first, last, conversions in runs if conversions
        )
    everything = (start, end) == (0, END)
    for gmem in memory.gmems.values():
        if gmem.inplace and (unit == "idx" or (everything and not _in_a_slot(memory, gmem.id))):
            for run in memory.runs(gmem.id, start, end):
                guest = memory.vms.get(memory.guest_id(gmem.id) or 0)
                held = _held(memory, gmem.id, run.start) if "(" in run.state else None
                yield StateRow(
                    guest.name if guest else NO_GUEST, gmem.id, run.start, run.end, run.state,
                    held_by=held, gone=guest.gone if guest else None,
                )  # fmt: skip


def _unplaced(memory: Memory) -> RangeMap:
    """The pages that conversions of nobody knows which guest were or are about."""
    pages = memory.unplaced.copy()
    for conversion in memory.conversions.values():
        conversion.unplace(pages)
    return pages


def _in_a_slot(memory: Memory, gmem: int) -> bool:
    return any(slot.gmem == gmem for vm in memory.vms.values() for slot in vm.slots.values())


def _guest_rows(moment: Moment, vm: Vm, start: int, end: int) -> Iterator[StateRow]:
    """The runs of a guest, cut where memslots begin and end and what is behind a page changes."""
    memory = moment.memory
    edges = sorted({0, END, *(edge for slot in vm.slots.values() for edge in (slot.start, slot.end))})
    behind = [unbacked(moment, vm, Gfn(edge)) for edge in edges]
    for first, last, state in memory.guest_runs(vm.id, start, end):
        if first >= last:
            continue
        at = bisect(edges, first)
        if last <= edges[at] and "(" not in state:
            yield StateRow(vm.name, None, first, last, state, behind[at - 1] if state == PRIVATE else None, None, vm.gone)
            continue
        cuts = [first, *edges[at : bisect_left(edges, last)], last]
        for n, (low, high) in enumerate(pairwise(cuts), at - 1):
            held = _holder(memory, vm, low) if "(" in state else None
            why = behind[n] if state == PRIVATE else None
            yield StateRow(vm.name, None, low, high, state, why, held, vm.gone)


def _coalesced(rows: Iterable[StateRow]) -> Iterator[StateRow]:
    """Adjacent rows that differ in their pages only, as one."""
    pending: StateRow | None = None
    for row in rows:
        if pending is not None and pending.end == row.start and pending.alike == row.alike:
            pending = pending._replace(end=row.end)
            continue
        if pending is not None:
            yield pending
        pending = row
    if pending is not None:
        yield pending


def _holder(memory: Memory, vm: Vm, gfn: int) -> int | None:
    """The conversion that is at work on a gfn, of the VM or of the guest_memfd behind it."""
    for gmem, index, _, _ in memory.indices(vm.id, gfn, gfn + 1):
        if (found := _held(memory, gmem, index)) is not None:
            return found
    return _held(memory, vm.id, gfn)


def _held(memory: Memory, owner: int, page: int) -> int | None:
    for conversion in memory.conversions.values():
        if conversion.owner == owner and conversion.start is not None and conversion.start <= page < (conversion.end or 0):
            return conversion.id
    return None


def state_json(row: StateRow) -> Json:
    """One row of a state; ``end`` null means "to the end"."""
    return {
        "guest": row.guest,
        "unit": "gfn" if row.gmem is None else "index",
        "gmem": row.gmem,
        "start": hexadecimal(row.start),
        "end": None if row.end >= END else hexadecimal(row.end),
        "pages": None if row.end >= END else row.end - row.start,
        "state": row.state,
        "unbacked": row.unbacked,
        "held_by": row.held_by,
        "guest_gone": row.gone,
    }


# --- messed-up pages --------------------------------------------------------------------------------------------------


def messed_up_json(moment: Moment, entry: MessedUp) -> Json:
    """One page that cannot be trusted."""
    return {
        "id": entry.id,
        "cause": entry.cause.name.lower(),
        "state": entry.state,
        "pfn": hexadecimal(entry.pfn),
        "count": entry.count,
        "guest": guest_name(moment, entry.vm),
        "gfn": hexadecimal(entry.gfn),
        "gmem": entry.gmem,
        "index": hexadecimal(entry.index),
        "reuse_risk": entry.reuse_risk,
        "cleared_by": entry.cleared_by,
        "since_ns": _time(entry.since),
    }


def messed_up(moment: Moment) -> list[Json]:
    """All messed-up pages that were not cleared."""
    entries = moment.memory.messed_up.values()
    return [messed_up_json(moment, entry) for entry in entries if entry.state != "cleared"]
