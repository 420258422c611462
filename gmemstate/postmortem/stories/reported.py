"""What kernels, VMMs and refused calls have said, put together by what it is about; and what of it is about no guest's memory."""

from dataclasses import dataclass, field

from gmemstate.audit.history.history import History
from gmemstate.model.events import (
    ACTOR,
    DETAIL,
    KIND,
    LINE,
    OWNER,
    RESULT,
    SEQ,
    SOURCE,
    EventRow,
    GeneralProtection,
    KernelWarned,
    RmpViolation,
    VmBugged,
    VmDead,
    VmmSaid,
    details,
)
from gmemstate.postmortem.kinds import Kind
from gmemstate.postmortem.known.meanings import meaning
from gmemstate.postmortem.known.patterns import facts

BESIDE = 3
"""How many lines may stand between a warning and the line of the failure that it is about."""
WISHES = frozenset(
    ("convert wish", "KVM_HC_MAP_GPA_RANGE", "ram block state change", "launch update", "firmware asks", "validates", "new VM")
)
"""What a VMM or a guest's firmware says before anything has failed."""
MEMORY_MAP = "memory map"
BACKGROUND = (MEMORY_MAP, "kernel of a guest")
"""What a kernel says of memory and of itself when it starts: it explains, and is nothing that happened."""


@dataclass(slots=True)
class Reported:
    """Reports of one kind, about one guest or about none that is named."""

    kind: Kind
    owner: int | None
    first: int
    """the seq of the first"""
    rows: list[EventRow] = field(default_factory=list)


def reported(history: History) -> list[Reported]:
    """What kernels and VMMs have said: by what it means, where it is about a guest's memory; all else beside."""
    groups: dict[tuple[object, ...], Reported] = {}
    marked, given_up = _marked(history), _given_up(history)
    for row in history.reports:
        if _part_of_a_mark(marked, row) or _follow_up(given_up, row):
            continue
        kind, key = _about(row)
        if kind is not None:
            guest_id = history.memory.guest_id(row[OWNER])
            groups.setdefault((kind, guest_id, *key), Reported(kind, row[OWNER], row[SEQ])).rows.append(row)
    return list(groups.values())


def _about(row: EventRow) -> tuple[Kind | None, tuple[object, ...]]:
    """The kind of incident that a report belongs to (None: it is none), and what it has in common with others of the same."""
    report = facts(row)
    known = meaning(report)
    key = (known.title if known else report.get("what"), row[RESULT], None if "leaf" in report else report.get("function"))
    if row[KIND] == VmDead.code:
        return Kind.VM_DEAD, (report.get("what"),)
    if row[KIND] in (RmpViolation.code, GeneralProtection.code):
        return Kind.HOST_FAULT, (*key, report.get("why"))
    if row[KIND] == VmmSaid.code:
        wish = report.get("code") in WISHES or (report.get("code") == "discard" and not row[RESULT])
        return (None if wish else Kind.VMM_SAID), (known.title if known else report.get("code"), row[RESULT])
    if row[KIND] == VmBugged.code or report.get("what") in BACKGROUND:
        return None, ()  # a bugged VM is told with what has bugged it
    if row[KIND] != KernelWarned.code:
        return Kind.REPORTED, key
    related = known is not None or "about" in report or "path" in report or "gmem" in report.get("function", "")
    # UBSAN checks how code is written, not what it does.
    return (Kind.REPORTED, key) if related and report.get("what") != "UBSAN" else (Kind.UNRELATED, ())


Place = tuple[int | None, int | None, int]
"""A source, a thread, a line."""


def _marked(history: History) -> set[Place]:
    """Where the warnings may end that the kernel prints right before the line of a failure itself."""
    return {
        (mark[SOURCE], returned["thread"], (mark[LINE] or 0) - back)
        for mark in history.marks.values()
        if (returned := details(mark[DETAIL])).get("join") == "time" and "thread" in returned
        for back in range(1, BESIDE + 1)
    }


def _part_of_a_mark(marked: set[Place], row: EventRow) -> bool:
    """Whether a warning is the one that stands right before the line of a failure."""
    return row[KIND] == KernelWarned.code and (row[SOURCE], row[ACTOR], details(row[DETAIL]).get("last") or row[LINE]) in marked


def _given_up(history: History) -> set[tuple[int | None, int | None]]:
    """The sources in which a VM could not be run any more, each with the errno."""
    return {
        (row[SOURCE], row[RESULT])
        for row in history.reports
        if row[KIND] == VmmSaid.code and details(row[DETAIL]).get("code") == "kvm run failed"
    }


def _follow_up(given_up: set[tuple[int | None, int | None]], row: EventRow) -> bool:
    """Whether a VMM only says that it cannot look at a VM that it could not run any more."""
    return (
        row[KIND] == VmmSaid.code and (row[SOURCE], row[RESULT]) in given_up and details(row[DETAIL]).get("code") == "registers"
    )
