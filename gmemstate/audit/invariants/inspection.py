"""The one pass over a record in which all invariants are looked at, and what comes of each."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gmemstate.audit.invariants.catalogue import CATALOGUE, Invariant, OnRecord
from gmemstate.audit.invariants.moment import AT_THE_END, BEFORE, BEHIND, STEPS, Check, Moment, Steps
from gmemstate.model.events import (
    ACTOR,
    CONVERSION,
    DETAIL,
    KIND,
    OWNER,
    RESULT,
    SEQ,
    VALUE,
    WORDS,
    AttrsStored,
    ConvertReturned,
    Dialect,
    EventRow,
    GuestAsked,
    PageLeaked,
    Poisoned,
    PrivateUnmapFailed,
    Punched,
    RequestPath,
    SourceOpened,
    SourceShows,
    T,
    Through,
    UnmapStep,
    details,
    foreign,
)
from gmemstate.model.findings import Finding, Severity
from gmemstate.model.fold.apply import apply
from gmemstate.model.memory import Memory
from gmemstate.model.objects import Conversion
from gmemstate.model.record import Record
from gmemstate.model.units import END, hexadecimal

KEPT = 20
"""How many findings of one invariant are kept; all are counted."""
AT_ONCE = 10_000


class Outcome(StrEnum):
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
class Judged:
    """What came of one invariant: how often it was looked at and broken, the first findings, or what the record lacks."""

    invariant: Invariant
    outcome: Outcome
    looks: int
    broken: int
    findings: tuple[Breach, ...] = ()
    missing: str | None = None

    def json(self) -> dict[str, Any]:
        """Its facts as plain data, the way ``--json`` prints them; of the findings the first ones."""
        invariant = self.invariant
        return {
            "id": invariant.id,
            "severity": invariant.severity,
            "dialects": [dialect.word for dialect in invariant.dialects],
            "claim": invariant.claim,
            "outcome": self.outcome,
            "looks": self.looks,
            "broken": self.broken,
            "missing": self.missing,
            "findings": [
                {
                    "seq": found.seq,
                    "owner": found.owner,
                    "start": hexadecimal(found.start),
                    "end": None if found.end is None or found.end >= END else hexadecimal(found.end),
                    "text": str(found),
                }
                for found in self.findings
            ],
        }


class Inspection:
    """Looks at all invariants while somebody else folds a record into ``memory``."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._at = Moment(memory)
        self._record = OnRecord()
        self._looks = dict.fromkeys(CATALOGUE, 0)
        self._broken = dict.fromkeys(CATALOGUE, 0)
        self._findings: dict[str, list[Breach]] = {code: [] for code in CATALOGUE}

    def watch(self, rows: Iterable[EventRow]) -> Iterator[EventRow]:
        """Pass rows on to the one who folds them: each must be applied before the next one is asked for."""
        at, kinds, conversions = self._at, self._record.kinds, self._memory.conversions
        for row in rows:
            kind, key = row[KIND], row[CONVERSION]
            if kind in WORDS and foreign(row):
                yield row
                continue
            kinds.add(kind)
            at.turn_to(row)
            if kind in BEFORE and (checks := BEFORE[kind][at.dialect]):
                self._look(checks)
            yield row
            if key is not None and (at.conversion is None or kind in STEPS):
                self._follow(row)
            if kind in _KEPT:
                self._keep(row)
            if kind in BEHIND and (checks := BEHIND[kind][at.dialect]):
                self._look(checks)
            if at.conversion is not None and at.conversion.id not in conversions:
                at.open.pop(at.conversion.id, None)
        for conversion in self._memory.open_conversions():
            at.conversion, at.steps = conversion, at.open.get(conversion.id) or Steps()
            self._look(AT_THE_END[at.dialect])

    def _look(self, checks: Iterable[tuple[str, Check]]) -> None:
        at, looks = self._at, self._looks
        for code, check in checks:
            for found in check(at):
                looks[code] += 1
                if found is None:
                    continue
                self._broken[code] += 1
                if len(self._findings[code]) < KEPT:
                    seq = at.row[SEQ] if found.seq is None else found.seq
                    self._findings[code].append(Breach(code, seq, found.text, found.owner, found.start, found.end))

    def _follow(self, row: EventRow) -> None:
        """Keep the steps of the open conversions."""
        at = self._at
        if at.conversion is None and (opened := self._memory.conversions.get(row[CONVERSION] or 0)) is not None:
            at.conversion = opened
            self._open(opened)
        if at.conversion is not None:
            at.steps = at.open.setdefault(at.conversion.id, at.steps)
            at.steps.add(row)

    def _keep(self, row: EventRow) -> None:
        """Keep what else the judges need to know and the memory does not."""
        at, kind = self._at, row[KIND]
        if kind in _CHANGES:
            self._change(row)
        elif kind == SourceOpened.code:
            if (name := details(row[DETAIL]).get("format")) is not None:
                at.formats[row[SEQ]] = name
                self._record.formats.add(name)
        elif kind == SourceShows.code:
            self._record.capabilities.add(row[VALUE] or 0)
        else:
            self._record.hardware |= _hardware(row)

    def _open(self, conversion: Conversion) -> None:
        """One more conversion; whoever works on the same pages at the same time is crowded."""
        at, memory = self._at, self._memory
        if len(at.open) >= len(memory.conversions):
            at.open = {key: steps for key, steps in at.open.items() if key in memory.conversions}
        if conversion.through is Through.GMEM_IOCTL:
            self._record.dialects.add(Dialect.INPLACE)
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

    def _change(self, row: EventRow) -> None:
        at, guest_id = self._at, self._memory.guest_id
        for owner in {row[OWNER], None if at.conversion is None else at.conversion.owner}:
            for key in {owner, guest_id(owner)}:
                if key is not None:
                    at.changed[key] = row[T]

    def judged(self) -> list[Judged]:
        """What came of each invariant, by id."""
        self._record.dialects |= {vm.dialect for vm in self._memory.vms.values()}
        return [self._judged(invariant) for invariant in CATALOGUE.values()]

    def _judged(self, invariant: Invariant) -> Judged:
        code = invariant.id
        if self._broken[code]:
            return Judged(invariant, Outcome.BROKEN, self._looks[code], self._broken[code], tuple(self._findings[code]))
        if self._looks[code]:
            return Judged(invariant, Outcome.HELD, self._looks[code], 0)
        missing = invariant.missing(self._record)
        return Judged(invariant, Outcome.NOT_SEEN if missing is None else Outcome.NOT_EVALUABLE, 0, 0, (), missing)


_CHANGES = frozenset((ConvertReturned.code, AttrsStored.code, Punched.code, Poisoned.code))
_KEPT = _CHANGES | {SourceOpened.code, SourceShows.code, GuestAsked.code, PrivateUnmapFailed.code, PageLeaked.code}


def _hardware(row: EventRow) -> set[str]:
    """The hardware that an event gives away."""
    if row[KIND] == PageLeaked.code:
        return {"SNP"}
    if row[KIND] == PrivateUnmapFailed.code:
        return {"TDX" if (row[ACTOR] or 0) <= UnmapStep.WBINVD else "SNP"}
    if row[RESULT] == RequestPath.TDVMCALL:
        return {"TDX"}
    return {"SNP"} if row[RESULT] in (RequestPath.PSC_MSR, RequestPath.PSC_GHCB) else set()


def evaluate(record: Record | Iterable[EventRow]) -> list[Judged]:
    """Look at all invariants in one pass over a record, or over rows in order; what came of each, by id."""
    rows = record if isinstance(record, Iterable) else record.events()
    memory = Memory()
    inspection = Inspection(memory)
    for n, row in enumerate(inspection.watch(rows), 1):
        apply(memory, row)
        if n % AT_ONCE == 0:
            memory.clear_pending()
    return inspection.judged()
