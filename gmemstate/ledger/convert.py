"""Conversions carried out on a ledger: every step is durable before the next one is taken.

The phase of a conversion is the state of its machine, as the recorder steps it; nothing here keeps another.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

from gmemstate.audit.events import RecordedEvent
from gmemstate.audit.history.moment import moment_at
from gmemstate.audit.queries.conversions import AppliedRow, ResidueRow, applied_row, residue_rows
from gmemstate.convert.engine.dialects import CONVERT, SOURCES
from gmemstate.convert.engine.ioctl import ConversionCall, Fault, Setting
from gmemstate.convert.engine.kernel import THIS, Kernel
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy, usual_policy
from gmemstate.convert.engine.steps import carry_out, drive
from gmemstate.convert.engine.users import CheckedUser, PageUser
from gmemstate.model import events as e
from gmemstate.model.document import Answer
from gmemstate.model.errors import PageUserFailed, UsageError
from gmemstate.model.events import SEQ, SOURCE, detail, event_of
from gmemstate.model.linux import LAST_PAGE, PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SETTLED
from gmemstate.model.objects import Conversion
from gmemstate.model.reports import SourceFormat
from gmemstate.model.units import Direction, Unit
from gmemstate.model.verdict import Label, verdict
from gmemstate.narrate import Narrator
from gmemstate.store.locks import owner_lock
from gmemstate.store.recorder import Recorder

Resolution = Literal["roll-back", "declare"]
"""How an open conversion is closed: its old attributes are written back, or an operator says what became of it."""
Outcome = Literal["new", "old", "unknown"]
"""What an operator declares: the range has its new attribute, its old one, or nobody knows."""
OUTCOMES: dict[Outcome | None, int] = {"new": 0, "old": 1, "unknown": 2, None: 1}
"""The number that the record has for each; a roll-back gives the old attribute back."""


@dataclass(frozen=True, slots=True)
class ConversionResult(Answer):
    """What came of a conversion: the three axes of its verdict, the label, and its events."""

    id: int
    """the seq of its first event"""
    errno: int | None
    """0 for success, None if it did not return"""
    label: Label
    applied: AppliedRow
    residue: tuple[ResidueRow, ...] | None
    """what it left different; None where that is not known"""
    events: tuple[RecordedEvent, ...]


class ConversionRunner:
    """Carries out conversions in one ledger, as one source of events. One thread uses it at a time."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._source: int | None = None
        self._begun = time.monotonic_ns()

    def convert(
        self,
        owner: int,
        start: int,
        end: int,
        to: Direction,
        *,
        users: Sequence[PageUser] = (),
        dialect: e.Dialect | None = None,
        policy: Policy | None = None,
        setting: Setting | None = None,
        faults: Sequence[Fault] = (),
    ) -> ConversionResult:
        """Convert pages ``[start, end)`` of an attribute owner (gfns of a VM, page indices of a guest_memfd).

        Raises UsageError where an argument has no meaning, or the record does not say what the pages are now; PageUserFailed
        where a user fails, which leaves the conversion interrupted.
        """
        if to not in get_args(Direction):
            raise UsageError(f"cannot convert to {to!r}: say {' or '.join(get_args(Direction))}")
        if not 0 <= start <= end <= LAST_PAGE:
            raise UsageError(
                f"invalid range [{start:#x},{end:#x}): pages are numbered from 0, and the end comes after the start"
            )
        attributes = PRIVATE_ATTRIBUTE if to == PRIVATE else 0
        call = ConversionCall(owner, start << PAGE_SHIFT, (end - start) << PAGE_SHIFT, attributes)
        recorder = self._recorder
        with owner_lock(recorder.engine, recorder.where, owner):
            memory = recorder.current()
            self._record_interrupted(owner)
            kind = self._dialect(owner, dialect)
            policy = policy or usual_policy(kind)
            if policy not in POLICIES[kind]:
                possible = ", ".join(POLICIES[kind])
                raise UsageError(f"the dialect {kind.word} cannot have the policy {policy}; it can have {possible}")
            unsure = [run for run in memory.runs(owner, start, end) if run.state not in SETTLED[1:]]
            if unsure:
                raise UsageError(
                    f"pages {unsure[0].start:#x} to {unsure[0].end:#x} are {unsure[0].state}: a conversion starts from what is "
                    "known; resolve what is open, or record what they are"
                )
            self._open(owner)
            first = memory.seq + 1
            function, through = CONVERT[kind]
            checked = [CheckedUser(user, n) for n, user in enumerate(users, 1)]
            kernel = Kernel(memory, checked, setting or Setting(), Policy(policy), faults)
            known: dict[int, int] = {}
            try:
                drive(carry_out(function, kernel, call, through), lambda event: self._append(event, known))
            except PageUserFailed as error:
                conversion = known[THIS]
                self._append(e.Interrupted(conversion=conversion, owner=owner))
                raise PageUserFailed(
                    f"{error}; conversion {conversion} is left interrupted: "
                    f'ledger.resolve({conversion}, "roll-back") closes it',
                    **error.data,
                    conversion=conversion,
                ) from error.__cause__
            return self._result(known[THIS], first)

    def resolve(self, conversion: int, how: Resolution, outcome: Outcome | None = None) -> ConversionResult:
        """Close a conversion that was left open.

        ``roll-back`` writes back what its range had before it was asked (conversions of :meth:`convert` only); ``declare``
        states an ``outcome``. Raises UsageError where there is nothing to resolve.
        """
        if how not in get_args(Resolution) or (how == "declare") != (outcome is not None) or outcome not in OUTCOMES:
            raise UsageError(f'resolve with "roll-back", or with "declare" and an outcome: {", ".join(get_args(Outcome))}')
        recorder = self._recorder
        open_one = recorder.current().conversions.get(conversion)
        if open_one is None:
            raise UsageError(f"conversion {conversion} is not open; `gmemstate conversions` lists them")
        owner = open_one.owner
        if how == "roll-back" and (owner is None or not self._ours(open_one.source)):
            raise UsageError(f"conversion {conversion} was observed: nobody can roll it back here, it can only be declared")
        with owner_lock(recorder.engine, recorder.where, owner or 0):
            memory = recorder.current()
            if conversion not in memory.conversions:
                raise UsageError(f"conversion {conversion} was closed meanwhile")
            first = memory.seq + 1
            if owner is not None:
                self._record_interrupted(owner)
                self._open(owner)
            self._append(e.Declared(conversion=conversion, how=OUTCOMES[outcome], owner=owner))
            found = self._result(conversion, first)
            if outcome in (None, "old") and owner is not None:
                self._restate(open_one, owner)
            return replace(found, events=self._events(first))

    def _restate(self, conversion: Conversion, owner: int) -> None:
        """Record the attributes that the range had before: what was torn is known again."""
        before = moment_at(self._recorder.record, conversion.id - 1).memory
        for run in before.runs(owner, conversion.start or 0, conversion.end or 0):
            if run.state in SETTLED[1:]:
                attributes = PRIVATE_ATTRIBUTE if run.state == PRIVATE else 0
                self._append(e.AttrsStored(start=run.start, npages=run.end - run.start, attributes=attributes, owner=owner))

    def close(self) -> None:
        """Say that nothing more will come."""
        if self._source is not None:
            self._append(e.SourceRead(offset=0, detail=detail(lines=0, used=0, unparsed=0)))
            self._source = None

    # --- the source

    def _open(self, owner: int) -> None:
        """Everything that the engine does is on record: its silence is evidence."""
        memory = self._recorder.memory
        if self._source is None:
            opened: dict[int, int] = {}
            name = f"{SourceFormat.ENGINE} {os.getpid()}"
            self._append(e.SourceOpened(source=-1, detail=detail(name=name, format=SourceFormat.ENGINE)), opened)
            self._source = opened[-1]
        vm = memory.vms.get(memory.guest_id(owner) or 0)
        for capability in e.Capability:
            if vm is not None and capability not in vm.shows:
                self._append(e.SourceShows(capability=capability, owner=vm.id))

    def _append(self, event: e.Event, known: dict[int, int] | None = None) -> None:
        source = self._source if event.source is None else event.source
        row = replace(event, source=source, t=time.monotonic_ns() - self._begun).row()
        self._recorder.append([row], {} if known is None else known, live=True)

    def _ours(self, source: int | None) -> bool:
        return any(info.id == source and info.format == SourceFormat.ENGINE for info in self._recorder.record.sources())

    def _record_interrupted(self, owner: int) -> None:
        """Whoever held the lock before and has left a conversion open is dead: say so."""
        for conversion in self._recorder.memory.open_conversions():
            if conversion.owner == owner and not conversion.gapped and self._ours(conversion.source):
                self._append(e.Interrupted(conversion=conversion.id, owner=owner))

    def _dialect(self, owner: int, named: e.Dialect | None) -> e.Dialect:
        memory = self._recorder.memory
        vm = memory.vms.get(memory.guest_id(owner) or 0)
        if vm is None:
            raise UsageError(f"{owner} is neither a guest nor a guest_memfd of a guest; `gmemstate status` lists them")
        kind = vm.dialect if named is None else named
        if kind not in SOURCES:
            raise UsageError(f"the record does not say how guest {owner} converts; name a dialect: {', '.join(DIALECT_NAMES)}")
        if (kind is e.Dialect.MAINLINE) != (owner in memory.vms):
            what = "the VM" if kind is e.Dialect.MAINLINE else "a guest_memfd"
            raise UsageError(f"in this dialect {what} holds the attribute; convert its pages")
        return kind

    def _result(self, conversion: int, first: int) -> ConversionResult:
        memory = self._recorder.memory
        made = memory.conversions.get(conversion) or next(one for one in memory.ended if one.id == conversion)
        found = verdict(made, memory.sources.get(made.source or 0))
        return ConversionResult(
            id=conversion,
            errno=found.result,
            label=found.label,
            applied=applied_row(found.applied, Unit.GFN if made.in_vm else Unit.INDEX),
            residue=residue_rows(memory, found.residue),
            events=self._events(first),
        )

    def _events(self, first: int) -> tuple[RecordedEvent, ...]:
        narrator = cache(self._narrator)
        rows = self._recorder.record.events(first)
        return tuple(RecordedEvent(row[SEQ], event_of(row), narrator) for row in rows if row[SOURCE] == self._source)

    def _narrator(self) -> Narrator:
        moment = moment_at(self._recorder.record)
        return Narrator(moment.memory, moment.labels())
