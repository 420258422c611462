"""What an event may say when it is recorded: values of the right type and size, and references to what is on record."""

from collections.abc import Callable, Container
from enum import IntEnum
from typing import Any

from gmemstate.model import events as e
from gmemstate.model.errors import BadEvent
from gmemstate.model.events import BY_NAME, KIND, KINDS, NPAGES, OWNER, SEQ, details, event_of
from gmemstate.model.events.fields import Refers
from gmemstate.model.memory import Memory

OPENING: dict[Refers, tuple[type[e.Event], ...]] = {
    Refers.SOURCE: (e.SourceOpened,),
    Refers.OWNER: (e.VmSeen, e.GmemCreated, e.GmemSeen),
    Refers.GUEST: (e.VmSeen,),
    Refers.GMEM: (e.GmemCreated, e.GmemSeen),
    Refers.CONVERSION: (e.ConvertAsked, e.ConvertMet, e.ConvertAttempted),
    Refers.REQUEST: (e.GuestAsked,),
}
"""The kinds that open what a reference refers to."""
_IDENTITIES = ("source", "owner", "conversion", "request")
_ALWAYS_NEW = (e.VmSeen, e.GmemCreated, e.GuestAsked)
"""What these open was not there before."""
TEXTS = ("name", "format", "head", "text", "comm")
"""Facts of a detail that are texts wherever they stand."""


def check_fields(event: e.Event) -> None:
    """Hold the fields of an event against their types and bounds. Raises BadEvent with the field, value and allowed."""
    kind = BY_NAME.get(getattr(type(event), "name", ""))
    if kind is not type(event):
        raise BadEvent(f"{event!r:.60} is no event: make one of a kind in gmemstate.model.events")
    for field, limit in kind.limits.items():
        value = getattr(event, field)
        if value is None and field in kind.optional:
            continue
        if isinstance(limit, type) and issubclass(limit, IntEnum):
            if type(value) not in (int, limit) or value not in set(limit):
                _refuse(event, field, value, f"one of {', '.join(f'{word.name} ({word.value})' for word in limit)}")
        elif type(value) is not int:
            _refuse(event, field, value, "an integer")
        elif not limit.low <= value <= limit.high:
            _refuse(event, field, value, f"{limit.low} to {limit.high}")
    _check_detail(event)


def _check_detail(event: e.Event) -> None:
    if event.detail is None:
        return
    try:
        facts = details(event.detail) if isinstance(event.detail, str) and event.detail.encode() else None
    except ValueError:
        facts = None
    wrong = not isinstance(facts, dict) or any(not isinstance(facts.get(name, ""), str) for name in TEXTS)
    if wrong or not isinstance((facts or {}).get("head_size", 0), int):
        _refuse(event, "detail", event.detail, "the facts of gmemstate.model.events.detail(...), texts where texts are meant")


def check_references(row: e.EventRow, memory: Memory, opened: Callable[[int], int | None]) -> None:
    """Hold the references of a numbered event against a memory of all events before it, and its pages against their file.

    ``opened`` gives the kind of an event on record by its seq, for what the memory has let go of. Raises BadEvent.
    """
    kind, seq = KINDS[row[KIND]], row[SEQ]
    for field, (column, what) in kind.refers.items():
        value: Any = row[column]
        if value is None:
            continue
        opens = kind in OPENING[what] and field in _IDENTITIES
        if value == seq and opens:
            continue
        if (opens and kind in _ALWAYS_NEW) or not _is_known(what, value, memory, opened):
            allowed = f"the seq of {what} on record" + (", or a negative number for a new one" if opens else "")
            _refuse(event_of(row), field, value, allowed)
    _check_pages(row, memory)


def _is_known(what: Refers, seq: int, memory: Memory, opened: Callable[[int], int | None]) -> bool:
    """Whether a thing is on record; the memory lets go of conversions and requests that have ended."""
    known: dict[Refers, tuple[Container[int], ...]] = {
        Refers.SOURCE: (memory.sources,),
        Refers.OWNER: (memory.vms, memory.gmems),
        Refers.GUEST: (memory.vms,),
        Refers.GMEM: (memory.gmems,),
        Refers.CONVERSION: (memory.conversions,),
        Refers.REQUEST: (memory.requests,),
    }
    ended = what in (Refers.CONVERSION, Refers.REQUEST) and opened(seq) in {kind.code for kind in OPENING[what]}
    return ended or any(seq in objects for objects in known[what])


def _check_pages(row: e.EventRow, memory: Memory) -> None:
    """A guest_memfd has no pages after its end."""
    event: Any = event_of(row)
    start, npages = getattr(event, "start", None), row[NPAGES] or 0
    file, first = memory.gmems.get(row[OWNER] or 0), start
    if isinstance(event, e.GmemBound):
        file, first = memory.gmems.get(event.gmem or 0), event.index
    pages = None if file is None else file.npages
    if pages is not None and first is not None and first + max(npages, 1) > pages:
        _refuse(
            event, "index" if isinstance(event, e.GmemBound) else "start", first, f"pages of a guest_memfd that has {pages}"
        )


def _refuse(event: e.Event, field: str, value: object, allowed: str) -> None:
    raise BadEvent(
        f"{event.name}: {field} cannot be {value!r:.60}; allowed: {allowed}. Nothing of the batch was stored",
        kind=event.name,
        field=field,
        value=value,
        allowed=allowed,
    )
