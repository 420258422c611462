"""Conversions carried out on a ledger: every step is durable before the next one is taken."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from gmemstate.audit.history.moment import moment_at
from gmemstate.convert.engine.dialects import CONVERT, SOURCES
from gmemstate.convert.engine.engine import carry_out, drive
from gmemstate.convert.engine.ioctl import Call, Fault, Setting
from gmemstate.convert.engine.kernel import THIS, Kernel
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.engine.users import PageUser
from gmemstate.model.errors import UsageError
from gmemstate.model.events import (
    SEQ,
    SOURCE,
    AttrsStored,
    Capability,
    Declared,
    Dialect,
    Event,
    Interrupted,
    SourceOpened,
    SourceRead,
    SourceShows,
    detail,
    event_of,
)
from gmemstate.model.linux import PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.machines.range import PRIVATE, SETTLED, SHARED
from gmemstate.model.objects import Conversion
from gmemstate.model.verdict import Verdict, verdict
from gmemstate.store.locks import owner_lock
from gmemstate.store.recorder import Recorder

FORMAT = "engine"
"""The format of a source whose events this module has recorded."""

ROLL_BACK, DECLARE = "roll-back", "declare"
OUTCOMES = {"new": 0, "old": 1, "unknown": 2}
"""What an operator can declare: the range has its new attribute, its old one, or nobody knows."""


class Converted(NamedTuple):
    """What came of a conversion: its id, the verdict on three axes, and the events of its steps."""

    id: int
    verdict: Verdict
    events: tuple[tuple[int, Event], ...]

    @property
    def result(self) -> int | None:
        """The errno, 0 for success, None if it is stuck."""
        return self.verdict.result


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
        to: str,
        *,
        users: Sequence[PageUser] = (),
        dialect: str | None = None,
        policy: str | None = None,
        setting: Setting | None = None,
        faults: Sequence[Fault] = (),
        **how: Any,
    ) -> Converted:
        """Convert pages ``[start, end)`` of an attribute owner (gfns of a VM, indices of a guest_memfd) to "private" or "shared".

        ``how`` are further arguments of :class:`gmemstate.convert.engine.ioctl.Call`. Raises UsageError where the record does not
        say what the pages are now.
        """
        if to not in (SHARED, PRIVATE):
            raise UsageError(f"{to!r} is no kind: say {SHARED} or {PRIVATE}")
        attributes = PRIVATE_ATTRIBUTE if to == PRIVATE else 0
        call = Call(owner, start << PAGE_SHIFT, (end - start) << PAGE_SHIFT, attributes, **how)
        recorder = self._recorder
        with owner_lock(recorder.engine, recorder.where, owner):
            memory = recorder.current()
            self._record_interrupted(owner)
            kind = self._dialect(owner, dialect)
            chosen = _policy(kind, policy)
            unsure = [run for run in memory.runs(owner, start, end) if run.state not in SETTLED[1:]]
            if unsure:
                raise UsageError(
                    f"pages {unsure[0].start:#x} to {unsure[0].end:#x} are {unsure[0].state}: a conversion starts from what is known; "
                    "resolve what is open, or record what they are"
                )
            self._open(owner)
            first = memory.seq + 1
            function, through = CONVERT[kind]
            kernel = Kernel(memory, users, setting or Setting(), chosen, faults)
            known: dict[int, int] = {}
            drive(carry_out(function, kernel, call, through), lambda event: self._append(event, known))
            return self._result(known[THIS], first)

    def resolve(self, conversion: int, how: str, outcome: str | None = None) -> Converted:
        """Close a conversion that was left open.

        ``roll-back`` writes back what its range had before it was asked (engine conversions only); ``declare`` states an
        ``outcome``: new, old or unknown. Raises UsageError where there is nothing to resolve.
        """
        if how not in (ROLL_BACK, DECLARE) or (how == DECLARE) != (outcome is not None) or outcome not in (None, *OUTCOMES):
            raise UsageError(f"resolve with {ROLL_BACK!r}, or with {DECLARE!r} and an outcome: {', '.join(OUTCOMES)}")
        recorder = self._recorder
        open_one = recorder.current().conversions.get(conversion)
        if open_one is None:
            raise UsageError(f"conversion {conversion} is not open; `gmemstate conversions` lists them")
        owner = open_one.owner
        if how == ROLL_BACK and (owner is None or not self._ours(open_one.source)):
            raise UsageError(f"conversion {conversion} was observed: nobody can roll it back here, it can only be declared")
        with owner_lock(recorder.engine, recorder.where, owner or 0):
            memory = recorder.current()
            if conversion not in memory.conversions:
                raise UsageError(f"conversion {conversion} was closed meanwhile")
            first = memory.seq + 1
            if owner is not None:
                self._record_interrupted(owner)
                self._open(owner)
            number = 1 if outcome is None else OUTCOMES[outcome]
            self._append(Declared(conversion=conversion, how=number, owner=owner))
            found = self._result(conversion, first)
            if number == 1 and owner is not None:
                self._restate(open_one, owner)
            return found._replace(events=self._events(first))

    def _restate(self, conversion: Conversion, owner: int) -> None:
        """Record the attributes that the range had before: what was torn is known again."""
        before = moment_at(self._recorder.record, conversion.id - 1).memory
        for run in before.runs(owner, conversion.start or 0, conversion.end or 0):
            if run.state in SETTLED[1:]:
                attributes = PRIVATE_ATTRIBUTE if run.state == PRIVATE else 0
                self._append(AttrsStored(start=run.start, npages=run.end - run.start, attributes=attributes, owner=owner))

    def close(self) -> None:
        """Say that nothing more will come."""
        if self._source is not None:
            self._append(SourceRead(offset=0, detail=detail(lines=0, used=0, unparsed=0)))
            self._source = None

    # --- the source

    def _open(self, owner: int) -> None:
        """Everything that the engine does is on record: its silence is evidence."""
        memory = self._recorder.memory
        if self._source is None:
            opened: dict[int, int] = {}
            name = f"{FORMAT} {os.getpid()}"
            self._append(SourceOpened(source=-1, detail=detail(name=name, format=FORMAT)), opened)
            self._source = opened[-1]
        vm = memory.vms.get(memory.guest_id(owner) or 0)
        for capability in Capability:
            if vm is not None and capability not in vm.shows:
                self._append(SourceShows(capability=capability, owner=vm.id))

    def _append(self, event: Event, known: dict[int, int] | None = None) -> None:
        source = self._source if event.source is None else event.source
        row = replace(event, source=source, t=time.monotonic_ns() - self._begun).row()
        self._recorder.append([row], {} if known is None else known)

    def _ours(self, source: int | None) -> bool:
        return any(info.id == source and info.format == FORMAT for info in self._recorder.record.sources())

    def _record_interrupted(self, owner: int) -> None:
        """Whoever held the lock before and has left a conversion open is dead: say so."""
        for conversion in self._recorder.memory.open_conversions():
            if conversion.owner == owner and not conversion.gapped and self._ours(conversion.source):
                self._append(Interrupted(conversion=conversion.id, owner=owner))

    def _dialect(self, owner: int, name: str | None) -> Dialect:
        memory = self._recorder.memory
        if memory.guest_id(owner) is None or memory.guest_id(owner) not in memory.vms:
            raise UsageError(f"{owner} is no guest and no guest_memfd of a guest; `gmemstate status` lists them")
        kind = memory.vms[memory.guest_id(owner) or 0].dialect if name is None else DIALECT_NAMES.get(name, Dialect.UNKNOWN)
        if kind not in SOURCES:
            raise UsageError(f"the record does not say how guest {owner} converts; name a dialect: {', '.join(DIALECT_NAMES)}")
        if (kind is Dialect.MAINLINE) != (owner in memory.vms):
            what = "the VM" if kind is Dialect.MAINLINE else "a guest_memfd"
            raise UsageError(f"in this dialect {what} holds the attribute; convert its pages")
        return kind

    def _result(self, conversion: int, first: int) -> Converted:
        memory = self._recorder.memory
        made = memory.conversions.get(conversion) or next(one for one in memory.ended if one.id == conversion)
        return Converted(conversion, verdict(made, memory.sources.get(made.source or 0)), self._events(first))

    def _events(self, first: int) -> tuple[tuple[int, Event], ...]:
        rows = self._recorder.record.events(first)
        return tuple((row[SEQ], event_of(row)) for row in rows if row[SOURCE] == self._source)


def _policy(dialect: Dialect, name: str | None) -> Policy:
    policy = Policy.BUG_VM if name is None else Policy(name)
    if policy not in POLICIES[dialect]:
        raise UsageError(f"this dialect cannot have the policy {policy}; it can have {', '.join(POLICIES[dialect])}")
    return policy
