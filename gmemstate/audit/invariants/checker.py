"""The one pass over a record in which all invariants are checked, and what comes of each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from gmemstate.audit.invariants.catalogue import CATALOGUE, Invariant, OnRecord
from gmemstate.audit.invariants.context import AFTER, AT_END, BEFORE, STEPS, Check, CheckContext, Steps
from gmemstate.model import events as e
from gmemstate.model.document import Document
from gmemstate.model.events import KIND, KINDS, OWNER, SEQ, WORDS, T, foreign
from gmemstate.model.findings import Finding, Severity
from gmemstate.model.fold.apply import apply
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion
from gmemstate.model.record import Record
from gmemstate.model.soundness import possible

KEPT = 20
"""How many findings of one invariant are kept; all are counted."""
AT_ONCE = 10_000


class InvariantOutcome(StrEnum):
    """What came of an invariant."""

    HELD = "held"
    BROKEN = "broken"
    NOT_SEEN = "not seen"
    """nothing happened that it is about, or nothing that is certain"""
    NOT_EVALUABLE = "not evaluable"
    """the record cannot show it"""


class Breach(Finding):
    """One finding of an invariant; its code is the id of the invariant."""

    __slots__ = ()

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return CATALOGUE[self.code].severity


@dataclass(frozen=True, slots=True)
class InvariantResult(Document):
    """What came of one invariant: how often it was looked at and broken, the first findings, or what the record lacks."""

    invariant: Invariant
    outcome: InvariantOutcome
    evaluations: int
    broken: int
    findings: tuple[Breach, ...] = ()
    missing: str | None = None

    written: ClassVar = (
        "id", "severity", "dialects", "claim", "outcome", "evaluations", "broken", "missing", "findings",
    )  # fmt: skip

    @property
    def id(self) -> str:
        """The invariant: ``INV-05``."""
        return self.invariant.id

    @property
    def severity(self) -> Severity:
        """How bad it is if it is broken."""
        return self.invariant.severity

    @property
    def dialects(self) -> tuple[e.Dialect, ...]:
        """Where it holds."""
        return self.invariant.dialects

    @property
    def claim(self) -> str:
        """What it promises."""
        return self.invariant.claim


class InvariantChecker:
    """Looks at all invariants while somebody else folds a record into ``memory``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._at = CheckContext(memory)
        self._record = OnRecord()
        self._evaluations = dict.fromkeys(CATALOGUE, 0)
        self._broken = dict.fromkeys(CATALOGUE, 0)
        self._findings: dict[str, list[Breach]] = {code: [] for code in CATALOGUE}

    def watch(self, rows: Iterable[e.EventRow]) -> Iterator[e.EventRow]:
        """Pass rows on to the one who folds them: each must be applied before the next one is asked for."""
        at, kinds, conversions = self._at, self._record.kinds, self._memory.conversions
        for row in rows:
            kind, key = row[KIND], e.conversion_of(row)
            if kind not in KINDS or (kind in WORDS and foreign(row)):
                yield row
                continue
            kinds.add(kind)
            at.go_to(row)
            if kind in BEFORE and (checks := BEFORE[kind][at.dialect]):
                self._check(checks, e.event_of(row))
            yield row
            if key is not None and (at.conversion is None or kind in STEPS):
                self._follow(row)
            if kind in _KEPT:
                self._keep(row)
            if kind in AFTER and (checks := AFTER[kind][at.dialect]):
                self._check(checks, e.event_of(row))
            if at.conversion is not None and at.conversion.id not in conversions:
                at.open.pop(at.conversion.id, None)
        for conversion in self._memory.open_conversions():
            at.conversion, at.steps = conversion, at.open.get(conversion.id) or Steps()
            self._check(AT_END[at.dialect], None)

    def _check(self, checks: Iterable[tuple[str, Check]], event: e.Event | None) -> None:
        at, evaluations = self._at, self._evaluations
        for code, check in checks:
            for found in check(at, event):
                evaluations[code] += 1
                if found is None:
                    continue
                self._broken[code] += 1
                if len(self._findings[code]) < KEPT:
                    seq = at.row[SEQ] if found.seq is None else found.seq
                    self._findings[code].append(Breach.at(code, seq, found.text, found.owner, found.start, found.end))

    def _follow(self, row: e.EventRow) -> None:
        """Keep the steps of the open conversions."""
        at = self._at
        if at.conversion is None and (opened := self._memory.conversions.get(e.conversion_of(row) or 0)) is not None:
            at.conversion = opened
            self._open(opened)
        if at.conversion is not None:
            at.steps = at.open.setdefault(at.conversion.id, at.steps)
            at.steps.add(row)

    def _keep(self, row: e.EventRow) -> None:
        """Keep what else the checks need to know and the memory does not."""
        if row[KIND] in _CHANGES:
            self._change(row)
            return
        match e.event_of(row):
            case e.SourceOpened() as opened:
                if (name := e.details(opened.detail).get("format")) is not None:
                    self._at.formats[row[SEQ]] = name
                    self._record.formats.add(name)
            case e.SourceShows(capability=capability):
                self._record.capabilities.add(capability)
            case event:
                self._record.hardware |= _hardware(event)

    def _open(self, conversion: Conversion) -> None:
        """One more conversion; whoever works on the same pages at the same time is crowded."""
        at, memory = self._at, self._memory
        if len(at.open) >= len(memory.conversions):
            at.open = {key: steps for key, steps in at.open.items() if key in memory.conversions}
        if conversion.through is e.Through.GMEM_IOCTL:
            self._record.dialects.add(e.Dialect.INPLACE)
        steps = at.steps = at.open[conversion.id] = Steps()
        for key, other in at.open.items():
            neighbour = memory.conversions.get(key)
            if (
                neighbour is not None
                and neighbour is not conversion
                and neighbour.source == conversion.source
                and (None in (neighbour.owner, conversion.owner) or neighbour.owner == conversion.owner)
            ):
                steps.crowded = other.crowded = True

    def _change(self, row: e.EventRow) -> None:
        at, guest_id = self._at, self._memory.guest_id
        for owner in {row[OWNER], None if at.conversion is None else at.conversion.owner}:
            for key in {owner, guest_id(owner)}:
                if key is not None:
                    at.changed[key] = row[T]

    def results(self) -> list[InvariantResult]:
        """What came of each invariant, by id."""
        self._record.dialects |= {vm.dialect for vm in self._memory.vms.values()}
        return [self._result(invariant) for invariant in CATALOGUE.values()]

    def _result(self, invariant: Invariant) -> InvariantResult:
        code = invariant.id
        if self._broken[code]:
            return InvariantResult(
                invariant, InvariantOutcome.BROKEN, self._evaluations[code], self._broken[code], tuple(self._findings[code])
            )
        if self._evaluations[code]:
            return InvariantResult(invariant, InvariantOutcome.HELD, self._evaluations[code], 0)
        missing = invariant.missing(self._record)
        return InvariantResult(
            invariant, InvariantOutcome.NOT_SEEN if missing is None else InvariantOutcome.NOT_EVALUABLE, 0, 0, (), missing
        )


_CHANGES = frozenset((e.ConvertReturned.code, e.AttrsStored.code, e.Punched.code, e.Poisoned.code))
_KEPT = _CHANGES | {e.SourceOpened.code, e.SourceShows.code, e.GuestAsked.code, e.PrivateUnmapFailed.code, e.PageLeaked.code}


def _hardware(event: e.Event) -> set[str]:
    """The hardware that an event gives away."""
    match event:
        case e.PageLeaked():
            return {"SNP"}
        case e.PrivateUnmapFailed(step=step):
            return {"TDX" if step <= e.UnmapStep.WBINVD else "SNP"}
        case e.GuestAsked(path=e.RequestPath.TDVMCALL):
            return {"TDX"}
        case e.GuestAsked(path=e.RequestPath.PSC_MSR | e.RequestPath.PSC_GHCB):
            return {"SNP"}
    return set()


def evaluate(record: Record | Iterable[e.EventRow]) -> list[InvariantResult]:
    """Look at all invariants in one pass over a record, or over rows in order; what came of each, by id."""
    memory = Memory()
    rows = record if isinstance(record, Iterable) else possible(record.events(), memory)
    inspection = InvariantChecker(memory)
    for n, row in enumerate(inspection.watch(rows), 1):
        apply(memory, row)
        if n % AT_ONCE == 0:
            memory.clear_pending()
    return inspection.results()
