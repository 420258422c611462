"""Incidents: what of a history is worth a post-mortem, and what belongs together.

A failed conversion and what was asked again of the same pages is one incident, whether or not it succeeded at last; all
incidents of one guest with the same cause and the same end are told as one.
"""

from dataclasses import dataclass, field

from gmemstate.audit.history.history import History
from gmemstate.audit.queries import judged, served
from gmemstate.model.events import (
    DETAIL,
    LINE,
    OWNER,
    SEQ,
    SOURCE,
    Cause,
    EventRow,
    details,
)
from gmemstate.model.findings import Finding
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.objects import Conversion, FaultClass, FaultExit, MessedUp, Request, Slot, Vm, slot_number
from gmemstate.model.units import END
from gmemstate.model.verdict import Label
from gmemstate.postmortem.kinds import Kind
from gmemstate.postmortem.stories.reported import Reported, reported

FAILED = (Label.FAILED, Label.FAILED_RESIDUE, Label.PARTIAL, Label.UNKNOWN)
UNSEEN = (Label.ATTEMPTED, Label.CUT)


@dataclass(slots=True)
class Episode:
    """Conversions of the same pages to the same kind, from the first that failed to the one that did it."""

    conversions: list[Conversion]
    request: Request | None = None

    @property
    def failed(self) -> list[Conversion]:
        """Those that failed."""
        return [conversion for conversion in self.conversions if conversion.result]

    @property
    def last_success(self) -> Conversion | None:
        """The one that applied everything that had failed, if there is one."""
        last = self.conversions[-1]
        return last if last.result == 0 and self.request is None else None


@dataclass(slots=True)
class Incident:
    """One thing that went wrong, perhaps several times."""

    kind: Kind
    vm: Vm | None
    first: int
    """the seq of its first event"""
    episodes: list[Episode] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    conversions: list[Conversion] = field(default_factory=list)
    faults: list[FaultExit] = field(default_factory=list)
    entries: list[MessedUp] = field(default_factory=list)
    trapped: list[tuple[int, int, str]] = field(default_factory=list)
    """gfns that are private and have no memory, with the reason"""
    findings: list[Finding] = field(default_factory=list)
    reports: list[EventRow] = field(default_factory=list)
    """what kernels and VMMs have said, and done to tasks"""


def incidents(history: History) -> list[Incident]:
    """All incidents of a history, in the order in which they began."""
    found: list[Incident] = []
    returned: set[int] = set()
    found += _requests(history, returned)
    found += _failures(history, returned)
    found += _refused_requests(history)
    found += _rejections(history)
    found += _unbacked(history)
    found += _poison(history)
    found += _distrusted(history)
    found += _races(history)
    found += _stopped(history)
    found += _killed(history)
    found += _out_of_memory(history)
    found += _unseen(history)
    found += _findings(history)
    found += [_incident(history, group) for group in reported(history)]
    return sorted(found, key=lambda incident: incident.first)


def _incident(history: History, group: Reported) -> Incident:
    return Incident(group.kind, _vm(history, group.owner), group.first, reports=group.rows)


def guest_of(history: History, conversion: Conversion) -> Vm | None:
    """The guest of a conversion."""
    return _vm(history, conversion.owner)


def _vm(history: History, owner: int | None) -> Vm | None:
    return history.memory.vms.get(history.memory.guest_id(owner) or 0)


def _requests(history: History, returned: set[int]) -> list[Incident]:
    """Requests of which the guest was told otherwise than what was applied; their conversions are one incident."""
    found = []
    for request in history.requests.values():
        own = [history.conversions[key] for key in request.conversions if key in history.conversions]
        flags = served(history, request).flags
        partly = "TOLD_FAIL_BUT_APPLIED" in flags and any(conversion.result for conversion in own)
        if partly or "TOLD_OK_NOT_APPLIED" in flags:
            returned |= {conversion.id for conversion in own}
            kind = Kind.PARTLY_APPLIED if partly else Kind.NOT_AS_TOLD
            found.append(Incident(kind, _vm(history, request.owner), request.id, [Episode(own, request)]))
    return found


def _refused_requests(history: History) -> list[Incident]:
    """Requests that were answered with an error and of which no conversion is on record."""
    groups: dict[tuple[object, ...], Incident] = {}
    for _, request in sorted(history.requests.items()):
        if request.result and not request.conversions:
            vm = _vm(history, request.owner)
            key = (vm.id if vm else None, request.result, request.was_exit)
            groups.setdefault(key, Incident(Kind.REQUEST_REFUSED, vm, request.id)).requests.append(request)
    return list(groups.values())


def _failures(history: History, returned: set[int]) -> list[Incident]:
    """Failed conversions with what followed on the same pages, merged where guest, errno, target and end are the same."""
    groups: dict[tuple[object, ...], Incident] = {}
    for episode in _episodes(history, returned) + _of_no_range(history, returned):
        first = episode.failed[0]
        kind = Kind.REFUSED_THEN_APPLIED if episode.last_success is not None else Kind.NOT_APPLIED
        vm = guest_of(history, first)
        key = (kind, vm.id if vm else None, first.result, first.target)
        group = groups.setdefault(key, Incident(kind, vm, first.id))
        group.episodes.append(episode)
    return list(groups.values())


def _episodes(history: History, returned: set[int]) -> list[Episode]:
    done: list[Episode] = []
    going: list[Episode] = []
    for conversion in history.ordered():
        if conversion.id in returned or conversion.start is None or conversion.end is None:
            continue
        label = judged(history, conversion).label
        mine = next((episode for episode in going if _touches(episode, conversion)), None)
        if mine is None:
            if label in FAILED:
                going.append(Episode([conversion]))
            continue
        if conversion.target != mine.conversions[0].target:
            going.remove(mine)  # asked for the other kind: what failed is given up
            done.append(mine)
            if label in FAILED:
                going.append(Episode([conversion]))
            continue
        mine.conversions.append(conversion)
        if conversion.result == 0 and all(_covers(conversion, failure) for failure in mine.failed):
            going.remove(mine)
            done.append(mine)
    for episode in going:
        while episode.conversions[-1].result == 0:
            episode.conversions.pop()  # what followed covers only a part of what had failed
    return sorted(done + going, key=lambda episode: episode.conversions[0].id)


def _of_no_range(history: History, returned: set[int]) -> list[Episode]:
    """Failures of which no source shows the range, as in strace: what followed on the same pages cannot be told."""
    return [
        Episode([conversion])
        for conversion in history.ordered()
        if (conversion.start is None or conversion.end is None)
        and conversion.id not in returned
        and conversion.result
        and judged(history, conversion).label in FAILED
    ]


def _touches(episode: Episode, conversion: Conversion) -> bool:
    return any(
        conversion.owner == failure.owner
        and (conversion.start or 0) < (failure.end or 0)
        and (failure.start or 0) < (conversion.end or 0)
        for failure in episode.failed
    )


def _covers(conversion: Conversion, failure: Conversion) -> bool:
    return (conversion.start or 0) <= (failure.start or 0) and (failure.end or 0) <= (conversion.end or 0)


def _by_guest(history: History, kind: Kind, chosen: list[Conversion]) -> list[Incident]:
    groups: dict[int | None, Incident] = {}
    for conversion in chosen:
        vm = guest_of(history, conversion)
        groups.setdefault(vm.id if vm else None, Incident(kind, vm, conversion.id)).conversions.append(conversion)
    return list(groups.values())


def _rejections(history: History) -> list[Incident]:
    rejected = [conversion for conversion in history.ordered() if judged(history, conversion).label is Label.REJECTED]
    return _by_guest(history, Kind.REJECTED, rejected)


def _unseen(history: History) -> list[Incident]:
    return _by_guest(history, Kind.RESULT_UNSEEN, [c for c in history.ordered() if judged(history, c).label in UNSEEN])


def _killed(history: History) -> list[Incident]:
    return _by_guest(history, Kind.KILLED, [conversion for conversion in history.ordered() if conversion.dying])


def _out_of_memory(history: History) -> list[Incident]:
    groups: dict[int | None, Incident] = {}
    for row in history.kills:
        vm = _vm(history, row[OWNER])
        groups.setdefault(vm.id if vm else None, Incident(Kind.OUT_OF_MEMORY, vm, row[SEQ])).reports.append(row)
    return list(groups.values())


def _unbacked(history: History) -> list[Incident]:
    """Faults on private pages without memory, the conversions that made them private, and the traps that are left."""
    found = []
    for vm in history.memory.vms.values():
        faults = [fault for fault in history.faults if fault.owner == vm.id and fault.kind is FaultClass.UNBACKED]
        trapped = traps(history, vm)
        if not faults and not trapped:
            continue
        makers = [
            conversion
            for conversion in history.ordered()
            if conversion.owner == vm.id and conversion.target == PRIVATE and conversion.result == 0
            and any(_hits(conversion, start, end) for start, end in _places(faults, trapped))
        ]  # fmt: skip
        first = min([conversion.id for conversion in makers] + [fault.seq for fault in faults])
        found.append(Incident(Kind.NO_MEMORY_BEHIND, vm, first, conversions=makers, faults=faults, trapped=trapped))
    return found


def _places(faults: list[FaultExit], trapped: list[tuple[int, int, str]]) -> list[tuple[int, int]]:
    touched = [(fault.start, fault.start + (fault.npages or 1)) for fault in faults if fault.start is not None]
    return touched + [(start, end) for start, end, _ in trapped]


def _hits(conversion: Conversion, start: int, end: int) -> bool:
    return (conversion.start or 0) < end and start < (conversion.end or END)


def traps(history: History, vm: Vm) -> list[tuple[int, int, str]]:
    """Gfns with attribute private that no guest_memfd backs: a guest that touches one is stopped.

    Only where conversions made them private; with the reason (no slot, no guest_memfd in the slot).
    """
    found = []
    for run in history.memory.runs(vm.id):
        if run.state != PRIVATE:
            continue
        at = run.start
        for slot in sorted(vm.slots.values(), key=lambda slot: slot.start):
            start, end = max(at, slot.start), min(run.end, slot.end)
            if start >= end:
                continue
            if at < start and history.memory.slots_known(vm):
                found.append((at, start, "no memslot"))
            if slot.has_gmem is False:
                found.append((start, end, _without(slot)))
            at = end
        if at < run.end and history.memory.slots_known(vm):
            found.append((at, run.end, "no memslot"))
    return found


def _without(slot: Slot) -> str:
    return f"slot {slot_number(slot.id)} has no guest_memfd"


def _poison(history: History) -> list[Incident]:
    groups: dict[int | None, Incident] = {}
    for entry in history.memory.messed_up.values():
        if entry.cause is Cause.POISONED:
            vm = history.memory.vms.get(entry.vm or 0)
            group = groups.setdefault(entry.vm, Incident(Kind.POISON, vm, entry.id))
            group.entries.append(entry)
    for key, group in groups.items():
        group.faults = [fault for fault in history.faults if fault.kind is FaultClass.POISONED and key in (None, fault.owner)]
    return list(groups.values())


def _distrusted(history: History) -> list[Incident]:
    """Host pages that are messed up for another cause than poison; those of TDX and SNP, and those of different threads, apart."""
    groups: dict[tuple[object, ...], Incident] = {}
    for entry in history.memory.messed_up.values():
        if entry.cause is not Cause.POISONED and entry.state != "cleared":
            vm = history.memory.vms.get(entry.vm or 0)
            facts = details(entry.detail)
            of = facts.get("thread") if vm is None else None  # threads of a log without names are of different guests, perhaps
            key = (entry.cause, entry.vm, of, "leaf" in facts)
            groups.setdefault(key, Incident(Kind.DISTRUSTED, vm, entry.id)).entries.append(entry)
    return list(groups.values())


def _races(history: History) -> list[Incident]:
    groups: dict[int | None, Incident] = {}
    for fault in history.faults:
        if fault.kind is FaultClass.LOST_RACE:
            raced = history.conversions.get(fault.raced or 0)
            vm = history.memory.vms.get(fault.owner or 0) or (guest_of(history, raced) if raced is not None else None)
            group = groups.setdefault(vm.id if vm else None, Incident(Kind.LOST_RACE, vm, fault.seq))
            group.faults.append(fault)
    return list(groups.values())


def _stopped(history: History) -> list[Incident]:
    """Memory fault exits for which no page could be mapped, or which this record does not explain and no VMM tells of."""
    returned = {(row[SOURCE], row[LINE]) for row in history.reports if details(row[DETAIL]).get("code") == "unhandled exit"}
    groups: dict[tuple[object, ...], Incident] = {}
    for fault in history.faults:
        if fault.kind in (FaultClass.MAP_FAILED, FaultClass.UNKNOWN) and (fault.source, fault.line) not in returned:
            vm = history.memory.vms.get(fault.owner or 0)
            group = groups.setdefault((fault.kind, fault.result, fault.owner), Incident(Kind.STOPPED, vm, fault.seq))
            group.faults.append(fault)
    return list(groups.values())


_KINDS = {"SLOT-SWAP-FLIP": Kind.SLOT_SWAP, "PFN-REUSED": Kind.GIVEN_AWAY, "WITNESSES-DISAGREE": Kind.CONTRADICTION}


def _findings(history: History) -> list[Incident]:
    groups: dict[tuple[object, ...], Incident] = {}
    for finding in history.findings:
        kind = _KINDS.get(finding.code, Kind.FINDING)
        vm = _vm(history, finding.owner)
        group = groups.setdefault((kind, vm.id if vm else None), Incident(kind, vm, finding.seq))
        group.findings.append(finding)
    return list(groups.values())
