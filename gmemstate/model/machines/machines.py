"""The three state machines, defined once: range, conversion, messed-up entry.

Each machine is a list of rows ``(row id, trigger, sources, destination, note)``; the row ids are those of the
machines' page in the documentation. Live paths fire triggers of a real ``transitions.Machine`` on a light row
object; bulk folds use tables (:func:`step_table`, :func:`ways`), compiled from the same rows. There are no conditions and no
callbacks: a guard is a trigger of its own. ``=`` as destination means that the state stays as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

STAY = "="
UNKNOWN, SHARED, PRIVATE = SETTLED = ("unknown", "shared", "private")
TORN, GONE = "torn", "gone"
PHASES = ("zapping", "checked", "stored", "undoing")


class Row(NamedTuple):
    """One row of a machine: from every state of ``sources``, ``trigger`` leads to ``dest``."""

    id: str
    trigger: str
    sources: tuple[str, ...]
    dest: str
    note: str


@dataclass(frozen=True, slots=True)
class Definition:
    """A machine as data: its states in a fixed order, the first one initial, and its rows."""

    name: str
    states: tuple[str, ...]
    rows: tuple[Row, ...]
    final: tuple[str, ...]

    def transitions(self) -> Iterator[tuple[str, str, str]]:
        """All ``(state, trigger, next state)``, with ``=`` resolved."""
        for row in self.rows:
            for state in row.sources:
                yield state, row.trigger, state if row.dest == STAY else row.dest

    def triggers(self) -> tuple[str, ...]:
        """The names of all triggers, in the order of their first row."""
        return tuple(dict.fromkeys(row.trigger for row in self.rows))


def in_flight(phase: str, before: str, target: str) -> str:
    """The name of a state of a range inside a conversion, e.g. ``zapping(shared>private)``."""
    return f"{phase}({before}>{target})"


# --- the range machine -------------------------------------------------------------------------------------------
# One per maximal run of equal attribute. `before` and `target` are part of the state, so that no row needs a guard.


def _range_rows() -> Iterator[Row]:
    pairs = [(b, t) for b in SETTLED for t in SETTLED]
    flight = tuple(in_flight(phase, b, t) for phase in PHASES for b, t in pairs)
    live = (*SETTLED, *flight, TORN)

    def of(phase: str, *, target: str | None = None) -> tuple[str, ...]:
        return tuple(in_flight(phase, b, t) for b, t in pairs if target is None or t == target)

    for kind in (SHARED, PRIVATE):
        yield Row("R1", f"born_{kind}", (UNKNOWN, kind), kind, "the birth of the VM or of the inode is on record")
        yield Row("R2", f"seen_{kind}", (UNKNOWN, TORN), kind, "evidence of the present value")
        yield Row("R2", f"seen_{kind}", (*SETTLED[1:], *flight), STAY, "a look that may be older than it overrules nothing")
    for target in SETTLED:
        for b in SETTLED:
            yield Row("R3", f"zap_to_{target}", (b,), in_flight("zapping", b, target), "users begin to lose their mappings")
        yield Row(
            "R3",
            f"zap_to_{target}",
            (TORN,),
            in_flight("zapping", UNKNOWN, target),
            "a new conversion over a torn range",
        )
        yield Row("R3", f"zap_to_{target}", of("checked", target=target), STAY, "in-place: the references were checked first")
    yield Row("R4", "answered", live, STAY, "a user's answer changes mappings only")
    yield Row("R5", "private_unmap_failed", live, STAY, "adds a messed-up entry; who is told depends on the dialect")
    for b, t in pairs:
        yield Row(
            "R6",
            "users_checked",
            (in_flight("zapping", b, t),),
            in_flight("checked", b, t),
            "nobody else holds the pages",
        )
    for kind in (SHARED, PRIVATE):
        for b in SETTLED:
            stored = in_flight("stored", b, kind)
            before_store = tuple(in_flight(phase, b, t) for phase in PHASES[:2] for t in (kind, UNKNOWN))
            yield Row("R7", f"store_{kind}", (b, *before_store), stored, "the attribute is written")
        yield Row("R7", f"store_{kind}", (TORN,), in_flight("stored", UNKNOWN, kind), "the attribute is written")
        yield Row("R7", f"store_{kind}", of("stored", target=kind), STAY, "the store is seen once more")
    yield Row("R8", "restructured", of("stored"), STAY, "folios split or merged: a page size is no state")
    for b, t in pairs:
        yield Row("R9", "ended", (in_flight("stored", b, t),), t, "the invalidation ends behind the store")
    yield Row(
        "R9",
        "ended",
        (*SETTLED, *of("zapping"), *of("checked"), TORN),
        STAY,
        "mainline ends it before the store is seen",
    )
    for b, t in pairs:
        yield Row("R13", "ended", (in_flight("undoing", b, t),), b, "the rollback is complete")
    for kind in (SHARED, PRIVATE):
        done = tuple(in_flight(phase, b, t) for phase in PHASES[:3] for b in SETTLED for t in (kind, UNKNOWN))
        yield Row("R9", f"returned_ok_{kind}", done, kind, "success: all new")
        yield Row("R15", f"returned_ok_{kind}", SETTLED, kind, "success without a visible store: implied")
        yield Row("R14", f"returned_ok_{kind}", (TORN,), kind, "success over a torn range")
    for phase in ("zapping", "checked", "undoing"):
        for b, t in pairs:
            yield Row("R11", "returned_err", (in_flight(phase, b, t),), b, "failure: all old")
    yield Row("R17", "returned_err", (*SETTLED, TORN), STAY, "failure before anything was touched")
    for b, t in pairs:
        begun = tuple(in_flight(phase, b, t) for phase in PHASES[:3])
        yield Row("R12", "undo_started", begun, in_flight("undoing", b, t), "rfc-v2 rolls back, the failing item included")
    yield Row("R13", "undone", of("undoing"), STAY, "one item of the rollback went well")
    yield Row("R13'", "undo_warned", of("undoing"), TORN, "one item of the rollback failed (WARN)")
    yield Row("R10", "gap", flight, TORN, "evidence is missing inside a conversion")
    yield Row("R10", "gap", (*SETTLED,), UNKNOWN, "evidence is missing: a conversion may be in it")
    yield Row("R10", "gap", (TORN,), STAY, "evidence is missing")
    for step in ("users_checked", "undo_started", "undone"):
        yield Row("R10", step, (UNKNOWN, TORN), STAY, "a step behind a gap")
    yield Row("R10", "undo_warned", (UNKNOWN, TORN), TORN, "a step behind a gap")
    for kind in SETTLED:
        for b in SETTLED:
            yield Row("R18", f"outcome_lost_{kind}", (b,), kind if b == kind else UNKNOWN, "asked, the result unseen")
        yield Row("R18", f"outcome_lost_{kind}", (*flight, TORN), TORN, "begun, the result unseen")
    yield Row("R19", "slot_changed", live, STAY, "the attribute outlives the slot")
    yield Row("R20", "backing_changed", live, STAY, "punched, released, poisoned, freed: the attribute stays")
    yield Row("R21", "vm_bugged", live, STAY, "the VM is lost, its attributes are frozen")
    yield Row("R22", "destroyed", live, GONE, "the VM or the inode is gone")
    for kind in (SHARED, PRIVATE):
        others = tuple(state for state in SETTLED if state != kind)
        yield Row("R23", f"declared_old_{kind}", (*others, TORN), STAY, "an operator says that it has what it had")
        yield Row(
            "R23", f"declared_old_{kind}", (kind,), UNKNOWN, "the same, behind the end of the store: what it had is stated next"
        )
        for b in SETTLED:
            begun = tuple(in_flight(phase, b, t) for phase in PHASES for t in SETTLED)
            yield Row("R23", f"declared_old_{kind}", begun, b, "the same, before that end")


RANGE = Definition(
    name="range",
    states=(*SETTLED, *(in_flight(p, b, t) for p in PHASES for b in SETTLED for t in SETTLED), TORN, GONE),
    rows=tuple(_range_rows()),
    final=(GONE,),
)

# --- the conversion machine --------------------------------------------------------------------------------------
# One per ioctl, as one thread issued it. What the caller was told, what was applied and what is left over are
# facts beside the state; the labels are derived from them.

NEW = "new"
ENDED = (
    "rejected",
    "noop",
    "committed",
    "committed_short",
    "failed",
    "failed_at_reserve",
    "failed_at_unmap",
    "failed_at_check",
    "failed_at_store",
    "failed_dirty",
    "declared",
)
OPEN = ("asked", "waiting", "same", "reserving", "planned", "zapping", "checked", "storing", "ending")
FAILING = ("failing_at_unmap", "failing_at_check", "undoing", "undoing_dirty")


def _conversion_rows() -> Iterator[Row]:
    going = (*OPEN, *FAILING)
    yield Row("C1", "asked", (NEW,), "asked", "bytes as requested, perhaps unaligned")
    yield Row("C1", "asked", (*going, "cut"), STAY, "its arguments are seen late")
    yield Row("C2", "attempted", (NEW, "asked"), "waiting", "the tracepoint: validation passed")
    yield Row("C3", "returned_refused", (NEW, "asked"), "rejected", "EINVAL, EFAULT, EIO, ENOTTY: nothing was looked at")
    yield Row("C4", "compared_equal", (NEW, "asked", "waiting"), "same", "the whole range has the value already")
    yield Row("C4", "returned_ok", ("same",), "noop", "nothing had to be done")
    yield Row("C4", "returned_noop", (NEW, "asked", "waiting", "same"), "noop", "success, and nothing was done in between")
    yield Row("C5", "compared_different", (NEW, "asked", "waiting"), "reserving", "the lock is held from here on")
    yield Row("C6", "work_item", (NEW, "asked", "waiting", "planned"), "planned", "rfc-v2: one item of work")
    yield Row("C6", "reserved", ("asked", "waiting", "reserving", "planned"), STAY, "entries or nodes are reserved")
    yield Row(
        "C7",
        "returned_enomem",
        (NEW, "asked", "waiting", "reserving", "planned"),
        "failed_at_reserve",
        "nothing was touched",
    )
    for error in ("refused", "error"):
        yield Row(
            "C7",
            f"returned_{error}",
            ("reserving", "planned"),
            "failed_at_reserve",
            "EFAULT: no memory, and the answer could not be written",
        )
    yield Row(
        "C7", "returned_refused", ("reserving", "planned"), "failed_at_reserve", "EFAULT: ENOMEM could not be written back"
    )
    yield Row(
        "C8",
        "zap",
        (NEW, "asked", "waiting", "same", "reserving", "planned"),
        "zapping",
        "the first user loses its mappings",
    )
    yield Row("C8", "zap", ("zapping", "checked"), STAY, "one more slot, or in-place behind the check")
    yield Row(
        "C9",
        "returned_ok",
        (NEW, "asked", "waiting", "reserving", "planned"),
        "committed",
        "no slot, or the steps were not shown",
    )
    yield Row("C10", "refused", ("zapping", "checked"), "failing_at_unmap", "a user refuses, or a reported private unmap fails")
    yield Row("C10", "refused", ("failing_at_unmap",), STAY, "one more")
    yield Row("C10", "zap", ("failing_at_unmap",), STAY, "one more slot: an unmap returns void, nobody obeys the answer")
    yield Row("C11", "suspect", going, STAY, "a private unmap failed and nobody is told")
    heard = ("zapping", "checked", "failing_at_unmap")
    yield Row(
        "C12", "users_checked", heard, "checked", "nobody else holds the pages; a refusal that holds nothing is not heard"
    )
    yield Row("C12", "users_bad", heard, "failing_at_check", "somebody holds a page")
    yield Row(
        "C13",
        "stored",
        (NEW, "asked", "waiting", "reserving", "planned", "zapping", "checked", "storing", "ending"),
        "storing",
        "the attribute is written",
    )
    yield Row("C13", "stored", ("failing_at_unmap",), "storing", "nobody has obeyed the refusal")
    yield Row("C14", "store_failed", ("storing", "checked", "zapping"), "undoing", "store, split or merge failed: rollback")
    yield Row("C15", "ended", ("storing",), "ending", "the invalidation ends")
    yield Row(
        "C15",
        "ended",
        (*(state for state in going if state != "storing"),),
        STAY,
        "an end that belongs to an earlier step",
    )
    yield Row("C12", "users_bad", ("planned", "reserving"), "failing_at_check", "check-first: nobody was unmapped yet")
    yield Row("C16", "returned_ok", ("zapping", "checked", "storing", "ending"), "committed", "success")
    for error in ("refused", "eagain", "enomem", "error"):
        yield Row("C17", f"returned_{error}", ("failing_at_unmap",), "failed_at_unmap", "all old, users unmapped")
        yield Row("C17", f"returned_{error}", ("failing_at_check",), "failed_at_check", "all old, users unmapped")
        yield Row("C18", f"returned_{error}", ("undoing",), "failed_at_store", "all old, rolled back")
        yield Row("C18", f"returned_{error}", ("undoing_dirty",), "failed_dirty", "the rollback itself failed")
    yield Row(
        "C17",
        "returned_eagain",
        (NEW, "asked", "zapping", "checked"),
        "failed_at_check",
        "a page was in use; the steps were not shown",
    )
    yield Row(
        "C17",
        "returned_refused",
        ("zapping", "checked"),
        "failed_at_check",
        "EFAULT: a page was in use and the answer could not be written",
    )
    yield Row("C17", "returned_error", (NEW, "asked", "zapping", "checked"), "failed", "another errno")
    yield Row("C18", "undone", ("undoing", "undoing_dirty"), STAY, "one item of the rollback went well")
    yield Row("C18", "undo_warned", ("undoing", "undoing_dirty"), "undoing_dirty", "one item of the rollback failed")
    yield Row(
        "C19",
        "returned_short",
        ("asked", "planned", "zapping", "checked", "storing", "ending"),
        "committed_short",
        "success, but less was changed",
    )
    yield Row("C20", "spinning", going, STAY, "stuck: it can still end")
    yield Row("C21", "signalled", going, STAY, "dying: the ioctl runs to its end")
    yield from _rows_behind_a_gap(going)


def _rows_behind_a_gap(going: tuple[str, ...]) -> Iterator[Row]:
    yield Row("C22", "cut", going, "cut", "the record ends, or a gap: the result may be missing")
    yield Row("C22", "returned_ok", ("cut",), "committed", "the gap hid steps, not the result")
    yield Row("C22", "returned_refused", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_enomem", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_eagain", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_error", ("cut",), "failed", "the gap hid steps, not the result")
    yield Row("C22", "returned_noop", ("cut",), "noop", "the gap hid steps, not the result")
    yield Row("C22", "returned_short", ("cut",), "committed_short", "the gap hid steps, not the result")
    steps = (
        "attempted",
        "compared_equal",
        "compared_different",
        "work_item",
        "reserved",
        "zap",
        "refused",
        "users_checked",
        "users_bad",
        "stored",
        "store_failed",
        "undone",
        "undo_warned",
        "ended",
        "suspect",
        "spinning",
        "signalled",
        "cut",
    )
    for step in steps:
        yield Row("C22", step, ("cut",), STAY, "a step behind a gap")
    yield Row("C23", "declare", (*going, "cut"), "declared", "an operator closes it")


CONVERSION = Definition(
    name="conversion",
    states=(NEW, *OPEN, *FAILING, "cut", *ENDED),
    rows=tuple(_conversion_rows()),
    final=ENDED,
)

# --- the machine of a messed-up entry ----------------------------------------------------------------------------

MESSED_UP = Definition(
    name="messed-up",
    states=("trusted", "messed_up", "reused", "cleared"),
    rows=(
        Row("M1", "marked", ("trusted", "messed_up"), "messed_up", "a page can no longer be trusted"),
        Row("M1", "marked", ("reused",), STAY, "once more"),
        Row("M2", "seen_reused", ("messed_up", "reused"), "reused", "somebody else was given the page (INV-22)"),
        Row("M3", "fixed", ("messed_up", "reused"), "cleared", "what was wrong was put right"),
        Row("M4", "rebooted", ("messed_up", "reused"), "cleared", "the host was started anew"),
    ),
    final=("cleared",),
)

MACHINES = {definition.name: definition for definition in (RANGE, CONVERSION, MESSED_UP)}


# --- compiled --------------------------------------------------------------------------------------------------

NO_WAY = 255


@cache
def step_table(definition: Definition, trigger: str) -> bytes:
    """The trigger as 256 bytes: the code of the next state for each code of a state, 255 where there is no way."""
    codes = {state: code for code, state in enumerate(definition.states)}
    table = bytearray([NO_WAY] * 256)
    for state, name, dest in definition.transitions():
        if name == trigger:
            table[codes[state]] = codes[dest]
    return bytes(table)


@cache
def ways(definition: Definition) -> dict[str, dict[str, str]]:
    """The machine by trigger: for each, from state to next state; a missing state is not expected."""
    found: dict[str, dict[str, str]] = {trigger: {} for trigger in definition.triggers()}
    for state, trigger, dest in definition.transitions():
        found[trigger][state] = dest
    return found


# --- live ------------------------------------------------------------------------------------------------------


class LiveRow:
    """One instance of a machine: a range, a conversion or a messed-up entry with nothing but its state."""

    __slots__ = ("state",)

    def __init__(self, state: str) -> None:
        self.state = state


@cache
def machine(definition: Definition) -> Any:
    """The shared ``transitions.Machine`` of a definition (no model of its own)."""
    from transitions import Machine  # half of the start-up time of a command that needs no machine

    return Machine(
        model=None,
        states=list(definition.states),
        initial=definition.states[0],
        transitions=[[trigger, state, dest] for state, trigger, dest in definition.transitions()],
        auto_transitions=False,
        send_event=True,
    )


def fire(definition: Definition, state: str, trigger: str) -> str | None:
    """Fire the trigger of the real machine on a row in ``state``; the next state, or None if it is not expected there."""
    from transitions import MachineError

    row = LiveRow(state)
    event = machine(definition).events.get(trigger)
    if event is None:
        return None
    try:
        event.trigger(row)
    except MachineError:
        return None
    return row.state


def may(definition: Definition, state: str, trigger: str) -> bool:
    """Whether the trigger is expected in the state."""
    return state in ways(definition).get(trigger, {})


# --- pictures --------------------------------------------------------------------------------------------------


def table(definition: Definition) -> list[Row]:
    """The rows, as the documentation shows them."""
    return list(definition.rows)


def dot(definition: Definition) -> str:
    """The machine in the dialect of Graphviz that Linux runtime verification reads (tools/verification/rvgen).

    Its tools make C names of states and events: states have no brackets there, and several events on one arrow are separated
    by a line break.
    """
    lines = ["digraph state_automaton {", "\tcenter = true;", '\tsize = "7,11";']
    first = plain(definition.states[0])
    lines.append(f'\t{{node [shape = plaintext, style=invis, label=""] "__init_{first}"}};')
    lines += [f'\t{{node [shape = doublecircle] "{plain(state)}"}};' for state in definition.final]
    lines += [f'\t{{node [shape = circle] "{plain(state)}"}};' for state in definition.states]
    lines.append(f'\t"__init_{first}" -> "{first}";')
    for a, b, label in _arrows(definition):
        events = label.replace(", ", "\\n")
        lines.append(f'\t"{plain(a)}" -> "{plain(b)}" [ label = "{events}" ];')
    return "\n".join([*lines, "}"])


def plain(state: str) -> str:
    """The name of a state as an identifier: ``zapping_shared_private`` for ``zapping(shared>private)``."""
    return state.rstrip(")").replace("(", "_").replace(">", "_")


def mermaid(definition: Definition) -> str:
    """The machine as a Mermaid state diagram, without the triggers that change nothing."""
    names = {state: f"s{code}" for code, state in enumerate(definition.states)}
    lines = ["stateDiagram-v2", f"    [*] --> {names[definition.states[0]]}"]
    lines += [f"    {names[state]}: {state}" for state in definition.states]
    lines += [f"    {names[a]} --> {names[b]}: {label}" for a, b, label in _arrows(definition) if a != b]
    lines += [f"    {names[state]} --> [*]" for state in definition.final]
    return "\n".join(lines)


def _arrows(definition: Definition) -> Iterable[tuple[str, str, str]]:
    arrows: dict[tuple[str, str], list[str]] = {}
    for state, trigger, dest in definition.transitions():
        arrows.setdefault((state, dest), []).append(trigger)
    return ((a, b, ", ".join(labels)) for (a, b), labels in arrows.items())
