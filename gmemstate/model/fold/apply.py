"""Folding: each event of a record goes to the handler of its kind, in the order of seqs.

The fold is deterministic. A bad history makes findings, never an exception.
"""

from collections.abc import Iterable

from gmemstate.model.events import DETAIL, KIND, KINDS, OWNER, SEQ, SOURCE, UNUSABLE, WORDS, EventRow, T, details, foreign
from gmemstate.model.fold import conversions, pages, requests, vms
from gmemstate.model.memory import Memory
from gmemstate.model.soundness import why_not

HANDLERS = {**vms.HANDLERS, **conversions.HANDLERS, **requests.HANDLERS, **pages.HANDLERS}
"""What each kind of event does to a memory; a kind without a handler changes nothing."""


def fold(rows: Iterable[EventRow], memory: Memory | None = None) -> Memory:
    """Apply events, as their rows, in order; what they find is added to ``findings`` of the memory."""
    memory = memory or Memory()
    handlers, last_of, late = HANDLERS, memory.last_of, memory.late
    for row in rows:
        seq, kind, owner = row[SEQ], row[KIND], row[OWNER]
        handler = handlers.get(kind)
        if handler is not None and not (kind in WORDS and foreign(row)):
            if late and row[SOURCE] in late:
                memory.moving = not _is_late(memory, row)
            handler(memory, seq, row)
            memory.moving = True
        elif kind == UNUSABLE:
            facts = details(row[DETAIL])
            memory.leave_out(seq, facts["code"], facts["why"])
        elif kind not in KINDS or handler is not None:
            memory.leave_out(seq, *why_not(row))
        if owner is not None:
            last_of[owner] = seq
        memory.seq = seq
    return memory


def apply(memory: Memory, row: EventRow) -> None:
    """Apply one event, as its row."""
    fold((row,), memory)


def _is_late(memory: Memory, row: EventRow) -> bool:
    """Whether an event of a source that speaks of the past does so still."""
    source, t = memory.sources[row[SOURCE] or 0], row[T]
    if t is not None and source.until is not None and t > source.until:
        source.until = None
        memory.late.discard(source.id)
        return False
    return True
