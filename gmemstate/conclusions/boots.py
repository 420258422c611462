"""The boots that kernel logs show: where each begins, how far its log reaches, whose it is, and what was reported in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.model.events import (
    SEQ,
    SOURCE,
    Event,
    HostBooted,
    KernelWarned,
    PageLeaked,
    PrivateMapFailed,
    PrivateUnmapFailed,
    ReclaimFailed,
    details,
    event_of,
)
from gmemstate.model.log_owner import LogEvidence, LogOwner, evidence_of, owner_of
from gmemstate.model.reports import KernelReportCode, PlatformPart, PlatformState, SourceFormat, formats_of

FIRST_SECOND = 1_000_000_000
"""ns: a kernel says that it starts when its clock begins."""
_OF_KVM = (PageLeaked, PrivateMapFailed, PrivateUnmapFailed, ReclaimFailed)
"""What only the kernel prints that runs guests: it could not give a page to one, or take it back."""
WALL_CLOCK = 1_000_000_000_000_000_000
"""ns: a time beyond it is no time of a kernel, which counts from its start, but one of a calendar (2001)."""
FIRST_LINES = 5
"""Without times of the kernel, the line of a kernel that starts is among the first."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A report of a kernel, with its words and its line."""

    event: Event
    words: dict[str, Any]
    place: str


@dataclass(slots=True)
class Boot:
    """One kernel, from its start to its end, as far as one log shows it."""

    source: int
    log: str
    """how its log is called"""
    number: int
    since: int
    """the seq of its first event"""
    marked: bool
    """the log itself says that a boot begins here"""
    start: Reported | None = None
    """the line with which the kernel says that it starts"""
    reports: list[Reported] = field(default_factory=list)
    evidence: dict[LogEvidence, str] = field(default_factory=dict)
    """what lines prove of whose log it is, each with the first such line"""
    gaps: list[str] = field(default_factory=list)
    """why lines may be missing"""
    last: bool = True
    """no other boot follows in its log"""

    @property
    def name(self) -> str:
        """What it is called: its log, and its number where that has several."""
        return self.log if self.number == 1 and self.last else f"boot {self.number} of {self.log}"

    @property
    def owner(self) -> LogOwner:
        """Whose kernel it is."""
        return owner_of(self.evidence)

    @property
    def from_the_start(self) -> bool:
        """Whether the log begins when the kernel does (``Linux version``, the first line of start_kernel())."""
        if self.start is None:
            return False
        t = self.start.event.t
        if t is None or t > WALL_CLOCK:
            return self.marked or (self.start.event.line or 0) <= FIRST_LINES
        return t < FIRST_SECOND


def boots(history: History) -> list[Boot]:
    """The boots of all kernel logs on record, in the order of their logs."""
    labels = history.labels()
    found: dict[int, list[Boot]] = {}
    for source in history.sources.values():
        if SourceFormat.KERNEL_LOG in formats_of(source.format):
            found[source.id] = [Boot(source.id, labels[source.id], 1, source.id, marked=False)]
    for row in sorted([*history.reports, *history.boots, *history.marks.values()], key=lambda row: int(row[SEQ] or 0)):
        if (of := found.get(row[SOURCE] or 0)) is None:
            continue
        event = event_of(row)
        words = {} if isinstance(event, HostBooted) else details(event.detail)
        _put(of, int(row[SEQ] or 0), Reported(event, words, history.place(event.source, event.line)))
    for of in found.values():
        _gaps(history, of)
    return [boot for of in found.values() for boot in of]


def _put(of: list[Boot], seq: int, report: Reported) -> None:
    boot = of[-1]
    starts = _starts(report)
    if isinstance(report.event, HostBooted) or (starts and (boot.start is not None or boot.reports)):
        boot.last = False
        boot = Boot(boot.source, boot.log, boot.number + 1, seq, marked=isinstance(report.event, HostBooted))
        of.append(boot)
    if starts:
        boot.start = report
    if isinstance(report.event, HostBooted):
        return
    boot.reports.append(report)
    proof = LogEvidence.HYPERVISOR if isinstance(report.event, _OF_KVM) else evidence_of(report.words)
    if proof is not None:
        boot.evidence.setdefault(proof, report.place)


def _starts(report: Reported) -> bool:
    words = report.words
    return words.get("what") == KernelReportCode.PLATFORM and (words.get("part"), words.get("state")) == (
        PlatformPart.KERNEL,
        PlatformState.STARTS,
    )


def _gaps(history: History, of: list[Boot]) -> None:
    """Each gap belongs to the boot in which it stands; an end that was not reached to the last one."""
    source = history.sources[of[0].source]
    seqs = history.memory.sources[source.id].gaps if source.id in history.memory.sources else []
    for seq, (line, lost) in zip(seqs, source.gaps, strict=False):
        boot = next(boot for boot in reversed(of) if boot.since <= seq)
        boot.gaps.append(f"{source.name}:{line}: {'lines' if lost is None else f'{lost} lines'} are missing")
    if source.damage is not None:
        of[-1].gaps.append(source.damage)


def reports_of(boot: Boot, what: KernelReportCode) -> Iterator[Reported]:
    """The reports of one kind in a boot."""
    return (one for one in boot.reports if isinstance(one.event, KernelWarned) and one.words.get("what") == what)
