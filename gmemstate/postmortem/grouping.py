"""Which events of a history belong to one incident.

A failed conversion and what was asked again of the same pages is one incident, whether or not it succeeded at last; all
incidents of one guest with the same cause and the same end are one.
"""

from dataclasses import dataclass, field

from gmemstate.audit.history.history import History
from gmemstate.audit.queries.conversions import gfns, judged
from gmemstate.audit.queries.requests import Note, served
from gmemstate.model.events import SOURCE, Cause
from gmemstate.model.findings import Finding
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.objects import Conversion, FaultClass, FaultExit, MessedUp, Request, Vm, slot_number
from gmemstate.model.reports import VmmReportCode
from gmemstate.model.units import END
from gmemstate.model.verdict import Basis, Label
from gmemstate.postmortem.incident import IncidentKind, Relation
from gmemstate.postmortem.report_groups import classified
from gmemstate.postmortem.reports import ReportedEvent, Reports, detail_words

FAILED = (Label.FAILED, Label.FAILED_RESIDUE, Label.PARTIAL, Label.UNKNOWN)
NO_RESULT = (Label.ATTEMPTED, Label.CUT)


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
class IncidentEvents:
    """What of a record one incident is about."""

    kind: IncidentKind
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
    reports: list[ReportedEvent] = field(default_factory=list)
    """what kernels and VMMs reported, and did to tasks"""
    ties: list["Tie"] = field(default_factory=list)
    """incidents that are a part of it"""

    @property
    def begin(self) -> int:
        """The seq of the first event of it and of its parts."""
        return min([self.first, *(tie.part.first for tie in self.ties)])

    @property
    def all_conversions(self) -> list[Conversion]:
        """Its conversions, those of its episodes included."""
        return [*self.conversions, *(conversion for episode in self.episodes for conversion in episode.conversions)]

    def ranges(self, history: History) -> list[tuple[int, int]]:
        """The gfns ``[start, end)`` that it is about, as far as they are known; they may overlap."""
        asked = [episode.request for episode in self.episodes if episode.request is not None]
        found: list[tuple[int, int]] = [
            place for conversion in self.all_conversions if (place := gfns(history, conversion)) is not None
        ]
        found += [_run(request.start, request.npages) for request in (*self.requests, *asked) if request.start is not None]
        found += [_run(fault.start, fault.npages) for fault in self.faults if fault.start is not None]
        found += [_run(entry.gfn, entry.count) for entry in self.entries if entry.gfn is not None]
        found += [(start, end) for start, end, _ in self.trapped]
        found += [
            (finding.start, END if finding.end is None else finding.end)
            for finding in self.findings
            if finding.start is not None and finding.owner in history.memory.vms
        ]
        for report in self.reports:
            gfn, pages = report.words.get("gfn", ""), report.words.get("pages", "")
            if gfn.startswith("0x"):
                found.append(_run(int(gfn, 16), int(pages) if pages.isdigit() else 1))
        return found


def _run(start: int, npages: int | None) -> tuple[int, int]:
    return start, min(start + (1 if npages is None else npages), END)


@dataclass(frozen=True, slots=True)
class Tie:
    """What makes an incident a part of another one."""

    part: IncidentEvents
    relation: Relation
    why: str
    basis: Basis
    page: bool
    """whether both are about the same host page"""


class _Groups(dict[tuple[object, ...], IncidentEvents]):
    """Incidents under construction, by what their events have in common."""

    def of(self, kind: IncidentKind, vm: Vm | None, first: int, *key: object) -> IncidentEvents:
        """The incident of a kind, a guest and whatever else its events share; the first event opens it."""
        return self.setdefault((kind, vm.id if vm else None, *key), IncidentEvents(kind, vm, first))


def grouped(history: History, reports: Reports) -> list[IncidentEvents]:
    """The events of all incidents of a history, in the order in which the incidents began."""
    groups = _Groups()
    answered = _requests(history, groups)
    _failures(history, groups, answered)
    _refused_requests(history, groups)
    _conversions(history, groups)
    _unbacked(history, groups)
    _messed_up(history, groups)
    _faults(history, groups, reports)
    for kill in map(ReportedEvent.of, history.kills):
        groups.of(IncidentKind.OUT_OF_MEMORY, _vm(history, kill.owner), kill.seq).reports.append(kill)
    for finding in history.findings:
        kind = _KIND_OF_FINDING.get(finding.code, IncidentKind.UNEXPECTED_EVENT)
        groups.of(kind, _vm(history, finding.owner), finding.seq).findings.append(finding)
    for report, kind, key in classified(reports):
        groups.of(kind, _vm(history, report.owner), report.seq, *key).reports.append(report)
    _not_understood(history, groups)
    return sorted(groups.values(), key=lambda incident: incident.first)


def _not_understood(history: History, groups: _Groups) -> None:
    """Logs with lines that report a failure and that nobody understands, where no other incident is about the log."""
    reports = [report for incident in groups.values() for report in incident.reports]
    marked = {row[SOURCE] for row in history.marks.values()}
    explained = {report.event.source for report in reports} | marked
    for source in history.sources.values():
        if source.account.get("failures") and source.id not in explained:
            groups.of(IncidentKind.NOT_UNDERSTOOD, None, source.id, source.id)


def _vm(history: History, owner: int | None) -> Vm | None:
    return history.memory.vms.get(history.memory.guest_id(owner) or 0)


def _requests(history: History, groups: _Groups) -> set[int]:
    """Requests whose answer differs from what was applied; each is an incident with its conversions, which are returned."""
    answered: set[int] = set()
    for request in history.requests.values():
        own = [history.conversions[key] for key in request.conversions if key in history.conversions]
        notes = served(history, request).notes
        partly = Note.RETURNED_FAIL_BUT_APPLIED in notes and any(conversion.result for conversion in own)
        if partly or Note.RETURNED_OK_NOT_APPLIED in notes:
            answered |= {conversion.id for conversion in own}
            kind = IncidentKind.PARTLY_APPLIED if partly else IncidentKind.SUCCESS_NOT_APPLIED
            groups.of(kind, _vm(history, request.owner), request.id, request.id).episodes.append(Episode(own, request))
    return answered


def _refused_requests(history: History, groups: _Groups) -> None:
    """Requests that were answered with an error and of which no conversion is on record."""
    for _, request in sorted(history.requests.items()):
        if request.result and not request.conversions:
            key = (request.result, request.was_exit)
            groups.of(IncidentKind.REQUEST_REFUSED, _vm(history, request.owner), request.id, key).requests.append(request)


def _failures(history: History, groups: _Groups, answered: set[int]) -> None:
    """Failed conversions with what followed on the same pages, merged where guest, errno, target and end are the same."""
    for episode in _episodes(history, answered) + _without_range(history, answered):
        first = episode.failed[0]
        kind = IncidentKind.REFUSED_THEN_APPLIED if episode.last_success is not None else IncidentKind.NOT_APPLIED
        groups.of(kind, history.memory.guest_of(first), first.id, first.result, first.target).episodes.append(episode)


def _conversions(history: History, groups: _Groups) -> None:
    """Conversions that were rejected, that have no result or a wrong one, or inside of which a task was killed."""
    for conversion in history.ordered():
        label, guest = judged(history, conversion).label, history.memory.guest_of(conversion)
        if label is Label.REJECTED:
            groups.of(IncidentKind.REJECTED, guest, conversion.id).conversions.append(conversion)
        if label is Label.PARTIAL and conversion.result == 0:
            groups.of(IncidentKind.SHORT_SUCCESS, guest, conversion.id).conversions.append(conversion)
        if conversion.dying:
            groups.of(IncidentKind.KILLED, guest, conversion.id).conversions.append(conversion)
        if label in NO_RESULT:
            groups.of(IncidentKind.RESULT_UNKNOWN, guest, conversion.id).conversions.append(conversion)


def _episodes(history: History, answered: set[int]) -> list[Episode]:
    """Failed conversions, each with what was asked of the same pages until it succeeded or the other kind was asked for."""
    ended: list[Episode] = []
    going: list[Episode] = []
    for conversion in history.ordered():
        if conversion.id in answered or conversion.start is None or conversion.end is None:
            continue
        failed = bool(conversion.result) and judged(history, conversion).label in FAILED
        mine = next((episode for episode in going if _same_pages(episode, conversion)), None)
        if mine is None:
            if failed:
                going.append(Episode([conversion]))
            continue
        if conversion.target != mine.conversions[0].target:
            going.remove(mine)  # asked for the other kind: what had failed is not wanted any more
            ended.append(mine)
            if failed:
                going.append(Episode([conversion]))
            continue
        mine.conversions.append(conversion)
        if conversion.result == 0 and all(_covers(conversion, failure) for failure in mine.failed):
            going.remove(mine)
            ended.append(mine)
    for episode in going:
        while episode.conversions[-1].result == 0:
            episode.conversions.pop()  # what followed covers only a part of what had failed
    return sorted(ended + going, key=lambda episode: episode.conversions[0].id)


def _without_range(history: History, answered: set[int]) -> list[Episode]:
    """Failures of which no source shows the range, as in strace: what followed on the same pages is not known."""
    return [
        Episode([conversion])
        for conversion in history.ordered()
        if (conversion.start is None or conversion.end is None)
        and conversion.id not in answered
        and conversion.result
        and judged(history, conversion).label in FAILED
    ]


def _same_pages(episode: Episode, conversion: Conversion) -> bool:
    return any(
        conversion.owner == failure.owner
        and (conversion.start or 0) < (failure.end or 0)
        and (failure.start or 0) < (conversion.end or 0)
        for failure in episode.failed
    )


def _covers(conversion: Conversion, failure: Conversion) -> bool:
    return (conversion.start or 0) <= (failure.start or 0) and (failure.end or 0) <= (conversion.end or 0)


def _unbacked(history: History, groups: _Groups) -> None:
    """Faults on private pages without memory, the conversions that made them private, and the traps that are left."""
    for vm in history.memory.vms.values():
        faults = [fault for fault in history.faults if fault.owner == vm.id and fault.kind is FaultClass.UNBACKED]
        trapped = traps(history, vm)
        if not faults and not trapped:
            continue
        places = [_run(fault.start, fault.npages or 1) for fault in faults if fault.start is not None]
        places += [(start, end) for start, end, _ in trapped]
        makers = [
            conversion
            for conversion in history.ordered()
            if (conversion.owner, conversion.target, conversion.result) == (vm.id, PRIVATE, 0)
            and any((conversion.start or 0) < end and start < (conversion.end or END) for start, end in places)
        ]
        begun = [conversion.id for conversion in makers] + [fault.seq for fault in faults]
        if not begun:
            continue  # the conversions that made them private are not on record
        first = min(begun)
        incident = groups.of(IncidentKind.PRIVATE_WITHOUT_MEMORY, vm, first)
        incident.conversions, incident.faults, incident.trapped = makers, faults, trapped


def traps(history: History, vm: Vm) -> list[tuple[int, int, str]]:
    """Gfns with attribute private that no guest_memfd backs: a guest that accesses one is stopped.

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
                found.append((start, end, f"slot {slot_number(slot.id)} has no guest_memfd"))
            at = end
        if at < run.end and history.memory.slots_known(vm):
            found.append((at, run.end, "no memslot"))
    return found


def _messed_up(history: History, groups: _Groups) -> None:
    """Messed-up host pages: with a memory error; else by cause, those of TDX and SNP, and of different threads, apart."""
    for entry in history.memory.messed_up.values():
        vm = history.memory.vms.get(entry.vm or 0)
        if entry.cause is Cause.POISONED:
            groups.of(IncidentKind.POISON, vm, entry.id, entry.vm).entries.append(entry)
        elif entry.state != "cleared":
            words = detail_words(entry.detail)
            of = words.get("thread") if vm is None else None  # threads of a log without names are of different guests, perhaps
            key = (entry.cause, entry.vm, of, "leaf" in words)
            groups.of(IncidentKind.HOST_PAGE_SUSPECT, vm, entry.id, key).entries.append(entry)
    for incident in groups.values():
        if incident.kind is IncidentKind.POISON:
            owner = incident.entries[0].vm
            incident.faults = [
                fault for fault in history.faults if fault.kind is FaultClass.POISONED and owner in (None, fault.owner)
            ]


def _faults(history: History, groups: _Groups, reports: Reports) -> None:
    """Faults that lost a race; memory fault exits that could map no page, or that neither record nor VMM explains."""
    reported = {
        (one.event.source, one.event.line) for one in reports.reports if one.words.get("code") == VmmReportCode.UNHANDLED_EXIT
    }
    for fault in history.faults:
        vm = history.memory.vms.get(fault.owner or 0)
        if fault.kind is FaultClass.LOST_RACE:
            raced = history.conversions.get(fault.raced or 0)
            vm = vm or (history.memory.guest_of(raced) if raced is not None else None)
            groups.of(IncidentKind.LOST_RACE, vm, fault.seq).faults.append(fault)
        elif fault.kind in (FaultClass.MAP_FAILED, FaultClass.UNKNOWN) and (fault.source, fault.line) not in reported:
            key = (fault.kind, fault.result, fault.owner)
            groups.of(IncidentKind.STOPPED, vm, fault.seq, key).faults.append(fault)


_KIND_OF_FINDING = {
    "SLOT-SWAP-FLIP": IncidentKind.SLOT_SWAP,
    "PFN-REUSED": IncidentKind.PAGE_REUSED,
    "SOURCES-DISAGREE": IncidentKind.SOURCES_DISAGREE,
}
