"""Whether less evidence says something else. It may say less: an unknown, a weaker word; it may not say anything new."""

from collections.abc import Callable, Iterator

from gmemstate.model.events import KIND, EventRow, FaultServed, HvaUnmapped, SourceRead, UserAnswered
from tests import views
from tests.traces import Read
from tests.views import Json

EFAULT = 14
WEAK = {"unknown", "attempted", "cut", "in_flight"}
"""Labels that claim no outcome."""
CERTAIN = {"shared", "private"}
FACTS = ("through", "gpa", "offset", "size", "attributes", "to", "start", "end", "errno", "error_offset", "started_ns")
NEAR = 6
"""How many lines apart two tracepoints of the same return of KVM_RUN are."""

Lines = Callable[[int], int | None]
"""From a line of the trace with less evidence to the same line of the whole one; None if it is none of its lines."""


def same(line: int) -> int:
    return line


def changed(whole: Read, less: Read, line: Lines = same, *, alone: bool = True, then: Read | None = None) -> list[str]:
    """What a trace with less evidence says of the same events, and the whole one does not say.

    Without ``alone`` the lines of another trace stand between, and what is of that one is left out. ``then`` is the whole
    trace at the moment at which the other one ends, if that is not its end.
    """
    files: dict[int, set[int]] = {}
    found = [*_conversions(whole, less, line, files, alone=alone), *_requests(whole, less, line), *_faults(whole, less, line)]
    if alone:
        found += [*_messed_up(whole, less), *_findings(whole, less)]
    return [*found, *_states(then or whole, less, files, alone=alone)]


def _differs(kind: str, at: object, name: str, less: object, whole: object) -> str:
    return f"{kind} at line {at}: {name} is {less!r}, but was {whole!r}"


def _conversions(whole: Read, less: Read, line: Lines, files: dict[int, set[int]], *, alone: bool) -> Iterator[str]:
    """Conversions are the same if they share lines. ``files`` is told which guest_memfd is which."""
    known = whole.conversions
    requests = {request["id"]: request["evidence"]["first"] for request in views.requests(whole.history)}
    fewer = {request["id"]: request["evidence"]["first"] for request in views.requests(less.history)}
    # Where no guest ever asked for anything, every conversion is the VMM's own; and another trace may show that asking
    # would have been seen.
    own_wish = not alone or not (whole.history.requests or whole.history.faults)
    pointers, own = _pointers(whole), _pointers(less)
    for one in less.conversions:
        first, last = line(one["evidence"]["first"]), line(one["evidence"]["last"])
        if first is None or last is None:
            continue
        matching = [
            other
            for other in known
            if other["thread"] == one["thread"] and other["evidence"]["first"] <= last and first <= other["evidence"]["last"]
        ]
        if len(matching) != 1:
            yield f"conversion at line {first}: it was {len(matching)} conversions"
            continue
        (other,) = matching
        owners = (less.history.conversions[one["id"]].owner, whole.history.conversions[other["id"]].owner)
        if one["through"] != "vm_ioctl" and None not in owners:
            files.setdefault(owners[0], set()).add(owners[1])
        # What a probe reads at an unreadable pointer is rubbish; only the result tells that it is.
        unreadable = other["errno"] == EFAULT and other["size"] is None
        for name in FACTS if not unreadable else ("through", "errno"):
            if one[name] not in (None, other[name]):
                yield _differs("conversion", first, name, one[name], other[name])
        if one["guest"] != "?" and own[one["guest"]] != pointers.get(other["guest"]):
            yield _differs("conversion", first, "guest", own[one["guest"]], pointers.get(other["guest"]))
        if one["label"] not in (*WEAK, other["label"]) and (one["label"], other["label"]) != ("committed", "noop"):
            yield _differs("conversion", first, "label", one["label"], other["label"])
        if one["trigger"] not in ("unknown", other["trigger"], "vmm" if own_wish and other["trigger"] == "unknown" else None):
            yield _differs("conversion", first, "trigger", one["trigger"], other["trigger"])
        if one["applied"]["extent"] not in ("unknown", other["applied"]["extent"]):
            yield _differs("conversion", first, "applied", one["applied"], other["applied"])
        if one["request"] is not None and line(fewer[one["request"]]) != requests.get(other["request"]):
            yield _differs("conversion", first, "request", one["request"], other["request"])
        for name in ("dying", "stuck"):
            if one[name] and not other[name]:
                yield _differs("conversion", first, name, one[name], other[name])
        residue = [_left(left) for left in other["residue"] or ()]
        yield from (
            _differs("conversion", first, "residue", left, residue)
            for left in one["residue"] or ()
            if left["basis"] != "assumed" and left["start"] is not None and _left(left) not in residue
        )


def _left(left: Json) -> tuple[str, str, str]:
    return left["what"], left["start"], left["end"]


def _pointers(read: Read) -> dict[str, int | None]:
    return {vm.name: vm.pointer for vm in read.history.memory.vms.values()}


def _requests(whole: Read, less: Read, line: Lines) -> Iterator[str]:
    known = {(request["thread"], request["evidence"]["first"]): request for request in views.requests(whole.history)}
    for one in views.requests(less.history):
        first = line(one["evidence"]["first"])
        if first is None:
            continue
        other = known.get((one["thread"], first))
        if other is None:
            yield f"request at line {first}: there was none"
            continue
        for name in ("path", "gpa", "pages", "flags", "to", "returned", "applied_pages"):
            if one[name] not in (None, other[name]):
                yield _differs("request", first, name, one[name], other[name])
        if not set(one["notes"]) <= set(other["notes"]):
            yield _differs("request", first, "notes", one["notes"], other["notes"])


def _faults(whole: Read, less: Read, line: Lines) -> Iterator[str]:
    for one in less.history.faults:
        at = line(one.line or 0)
        if at is None:
            continue
        near = [other for other in whole.history.faults if other.thread == one.thread and abs((other.line or 0) - at) <= NEAR]
        if not near:
            yield f"fault at line {at}: there was none"
            continue
        other = min(near, key=lambda other: abs((other.line or 0) - at))
        for name in ("start", "npages", "private", "result"):
            if getattr(one, name) not in (None, getattr(other, name)):
                yield _differs("fault", at, name, getattr(one, name), getattr(other, name))
        if one.kind not in ("unknown", other.kind):
            yield _differs("fault", at, "kind", one.kind, other.kind)


def _messed_up(whole: Read, less: Read) -> Iterator[str]:
    known = views.messed_up(whole.history)
    names = ("cause", "state", "pfn", "gfn", "index")
    for one in views.messed_up(less.history):
        if not any(all(one[name] in (None, other[name]) for name in names) for other in known):
            yield f"messed-up page {one}: there was none"


def _findings(whole: Read, less: Read) -> Iterator[str]:
    known = {finding.code for finding in whole.history.findings}
    yield from (f"finding {one}: there was none" for one in less.history.findings if one.code not in known)


def _states(whole: Read, less: Read, files: dict[int, set[int]], *, alone: bool = True) -> Iterator[str]:
    """States of pages that were others. Of several guests at one pointer one must agree in all pages of a run."""
    before, after = whole.history.memory, less.history.memory
    for vm in after.vms.values():
        known = [other.id for other in before.vms.values() if other.pointer == vm.pointer]
        if not known and not alone:
            continue
        for run in after.guest_runs(vm.id):
            states = [{part.state for part in before.guest_runs(other, run.start, run.end)} for other in known]
            if run.start < run.end and run.state in CERTAIN and {run.state} not in states:
                yield f"guest at {vm.pointer:#x}: {run} was {states}"
    for file, known_files in files.items():
        for run in after.runs(file):
            states = [{part.state for part in before.runs(other, run.start, run.end)} for other in known_files]
            if run.state in CERTAIN and {run.state} not in states:
                yield f"guest_memfd {file}: {run} was {states}"


RUNS = {FaultServed.code, UserAnswered.code, HvaUnmapped.code}
"""Events that may stand for many lines, and are shorter where the input ends in the middle of those."""


def beginning(whole: list[EventRow], rows: list[EventRow]) -> list[EventRow]:
    """The rows of a cut trace that are not the first rows of the whole one, but for runs that end early."""
    common = next((n for n in range(1, len(rows)) if n >= len(whole) or rows[n] != whole[n]), len(rows))
    return [row for row in rows[common:] if row[KIND] not in RUNS | {SourceRead.code}]
