"""The range machine: one per maximal run of pages with the same attribute.

``before`` and ``target`` of a conversion are part of the state, so that no row needs a guard.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gmemstate.model.machines.definition import STAY, Definition, Row

UNKNOWN, SHARED, PRIVATE = SETTLED = ("unknown", "shared", "private")
TORN, GONE = "torn", "gone"
PHASES = ("zapping", "checked", "stored", "undoing")


class InFlight(NamedTuple):
    """Where a conversion of a range is: its phase, the attribute before it, and the one that it converts to."""

    phase: str
    before: str
    target: str


def in_flight(phase: str, before: str, target: str) -> str:
    """The name of a state of a range inside a conversion, e.g. ``zapping(shared>private)``."""
    return f"{phase}({before}>{target})"


_IN_FLIGHT = {in_flight(p, b, t): InFlight(p, b, t) for p in PHASES for b in SETTLED for t in SETTLED}


def is_in_flight(state: str) -> bool:
    """Whether a range in this state is inside a conversion."""
    return state in _IN_FLIGHT


def flight_of(state: str) -> InFlight | None:
    """Phase, attribute before and target of a state inside a conversion; None for every other state."""
    return _IN_FLIGHT.get(state)


_PAIRS = [(b, t) for b in SETTLED for t in SETTLED]
"""Attribute before, and target."""
_FLIGHT = tuple(_IN_FLIGHT)
_LIVE = (*SETTLED, *_FLIGHT, TORN)


def _of(phase: str, *, target: str | None = None) -> tuple[str, ...]:
    """The states of a phase of a conversion."""
    return tuple(in_flight(phase, b, t) for b, t in _PAIRS if target is None or t == target)


def _begun() -> Iterator[Row]:
    """How a range comes into being, and the steps up to the store."""
    for kind in (SHARED, PRIVATE):
        yield Row("R1", f"born_{kind}", (UNKNOWN, kind), kind, "the birth of the VM or of the inode is on record")
        yield Row("R2", f"seen_{kind}", (UNKNOWN, TORN), kind, "evidence of the present value")
        yield Row("R2", f"seen_{kind}", (*SETTLED[1:], *_FLIGHT), STAY, "a look that may be older than it overrules nothing")
    for target in SETTLED:
        for b in SETTLED:
            yield Row("R3", f"zap_to_{target}", (b,), in_flight("zapping", b, target), "users begin to lose their mappings")
        yield Row(
            "R3", f"zap_to_{target}", (TORN,), in_flight("zapping", UNKNOWN, target), "a new conversion over a torn range"
        )
        yield Row("R3", f"zap_to_{target}", _of("checked", target=target), STAY, "in-place: the references were checked first")
    yield Row("R4", "answered", _LIVE, STAY, "a user's answer changes mappings only")
    yield Row("R5", "private_unmap_failed", _LIVE, STAY, "adds a messed-up entry; who is notified depends on the dialect")
    for b, t in _PAIRS:
        yield Row(
            "R6", "users_checked", (in_flight("zapping", b, t),), in_flight("checked", b, t), "nobody else holds the pages"
        )
    for kind in (SHARED, PRIVATE):
        for b in SETTLED:
            stored = in_flight("stored", b, kind)
            before_store = tuple(in_flight(phase, b, t) for phase in PHASES[:2] for t in (kind, UNKNOWN))
            yield Row("R7", f"store_{kind}", (b, *before_store), stored, "the attribute is written")
        yield Row("R7", f"store_{kind}", (TORN,), in_flight("stored", UNKNOWN, kind), "the attribute is written")
        yield Row("R7", f"store_{kind}", _of("stored", target=kind), STAY, "the store is seen once more")


def _ended() -> Iterator[Row]:
    """What ends a conversion: its invalidation, its result, its rollback."""
    yield Row("R8", "restructured", _LIVE, STAY, "folios split or merged: a page size is no state")
    for b, t in _PAIRS:
        yield Row("R9", "ended", (in_flight("stored", b, t),), t, "the invalidation ends after the store")
    yield Row(
        "R9", "ended", (*SETTLED, *_of("zapping"), *_of("checked"), TORN), STAY, "mainline ends it before the store is seen"
    )
    for b, t in _PAIRS:
        yield Row("R13", "ended", (in_flight("undoing", b, t),), b, "the rollback is complete")
    for kind in (SHARED, PRIVATE):
        done = tuple(in_flight(phase, b, t) for phase in PHASES[:3] for b in SETTLED for t in (kind, UNKNOWN))
        yield Row("R9", f"returned_ok_{kind}", done, kind, "success: all new")
        yield Row("R15", f"returned_ok_{kind}", SETTLED, kind, "success without a visible store: implied")
        yield Row("R14", f"returned_ok_{kind}", (TORN,), kind, "success over a torn range")
    for phase in ("zapping", "checked", "undoing"):
        for b, t in _PAIRS:
            yield Row("R11", "returned_err", (in_flight(phase, b, t),), b, "failure: all old")
    yield Row("R17", "returned_err", (*SETTLED, TORN), STAY, "failure before anything was changed")
    for b, t in _PAIRS:
        begun = tuple(in_flight(phase, b, t) for phase in PHASES[:3])
        yield Row("R12", "undo_started", begun, in_flight("undoing", b, t), "rfc-v2 rolls back, the failing item included")
    yield Row("R13", "undone", _of("undoing"), STAY, "one item of the rollback went well")
    yield Row("R13'", "undo_warned", _of("undoing"), TORN, "one item of the rollback failed (WARN)")


def _from_outside() -> Iterator[Row]:
    """What happens to a range in any conversion: missing evidence, slots, backing, the end of the VM, an operator."""
    yield Row("R10", "gap", _FLIGHT, TORN, "evidence is missing inside a conversion")
    yield Row("R10", "gap", (*SETTLED,), UNKNOWN, "evidence is missing: a conversion may be in it")
    yield Row("R10", "gap", (TORN,), STAY, "evidence is missing")
    for step in ("users_checked", "undo_started", "undone"):
        yield Row("R10", step, (UNKNOWN, TORN), STAY, "a step after a gap")
    yield Row("R10", "undo_warned", (UNKNOWN, TORN), TORN, "a step after a gap")
    for kind in SETTLED:
        for b in SETTLED:
            yield Row("R18", f"outcome_lost_{kind}", (b,), kind if b == kind else UNKNOWN, "asked, the result unseen")
        yield Row("R18", f"outcome_lost_{kind}", (*_FLIGHT, TORN), TORN, "begun, the result unseen")
    yield Row("R19", "slot_changed", _LIVE, STAY, "the attribute outlives the slot")
    yield Row("R20", "backing_changed", _LIVE, STAY, "punched, released, poisoned, freed: the attribute stays")
    yield Row("R21", "vm_bugged", _LIVE, STAY, "the VM is lost, its attributes are frozen")
    yield Row("R22", "destroyed", _LIVE, GONE, "the VM or the inode is gone")
    for id, trigger in (
        ("R4", "answered"),
        ("R5", "private_unmap_failed"),
        ("R19", "slot_changed"),
        ("R20", "backing_changed"),
    ):
        yield Row(id, trigger, (GONE,), STAY, "kvm_destroy_vm() unmaps, and frees memslots and pages")
    for kind in (SHARED, PRIVATE):
        others = tuple(state for state in SETTLED if state != kind)
        yield Row("R23", f"declared_old_{kind}", (*others, TORN), STAY, "an operator says that it has what it had")
        yield Row(
            "R23", f"declared_old_{kind}", (kind,), UNKNOWN, "the same, after the end of the store: what it had comes next"
        )
        for b in SETTLED:
            begun = tuple(in_flight(phase, b, t) for phase in PHASES for t in SETTLED)
            yield Row("R23", f"declared_old_{kind}", begun, b, "the same, before that end")


RANGE = Definition(
    name="range", states=(*SETTLED, *_IN_FLIGHT, TORN, GONE), rows=(*_begun(), *_ended(), *_from_outside()), final=(GONE,)
)
