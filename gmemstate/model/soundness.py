"""Whether a stored row can be an event of its kind: asked once, where a row leaves the store.

A record holds whatever somebody has sealed. In place of a row that cannot be an event stands an unusable one that says why
(:func:`sound`), so that no answer reads it; the fold makes it a finding. What a row says of others, its references, is held
against the memory of all events before it (:func:`possible`): only there it is known what they are.
"""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from enum import IntEnum
from functools import lru_cache
from typing import Any

from gmemstate.model import events as e
from gmemstate.model.events import COLUMNS, DETAIL, KIND, KINDS, SEQ, EventRow
from gmemstate.model.events.fields import Bounds, Refers
from gmemstate.model.memory import Memory

Test = Callable[[Any], bool]
_HEX = re.compile(r"-?0x[0-9a-f]{1,16}").fullmatch
_MOST = 1 << 64
"""No number of a detail is as large."""


def sound(rows: Iterable[EventRow]) -> Generator[EventRow, None, None]:
    """The rows; in place of each that cannot be an event an unusable one with the same seq."""
    tests = _TESTS
    for row in rows:
        test = tests.get(row[KIND])
        yield row if test is not None and test(row) else e.unusable(row, *why_not(row))


def possible(rows: Iterable[EventRow], memory: Memory) -> Iterator[EventRow]:
    """Sound rows; in place of each that refers to what is not on record an unusable one with the same seq.

    ``memory`` is that of the caller, who applies each row before the next one is asked for.
    """
    referring = _REFERENCES
    for row in rows:
        yield (
            row
            if row[KIND] not in referring or (reason := bad_reference(row, memory)) is None
            else e.unusable(row, "EVENT-INVALID", reason)
        )


def why_not(row: EventRow) -> tuple[str, str]:
    """The code and the text of the finding that a row is which cannot be an event."""
    kind: int = row[KIND]
    if type(kind) is not int:
        return "EVENT-INVALID", f"its kind cannot be {kind!r:.60}"
    if kind not in KINDS:
        return "UNKNOWN-KIND", f"event kind {kind & 0xFF} of version {(kind >> 8) + 1} is unknown"
    if e.foreign(row) and all(type(row[column]) is int for column, _ in e.WORDS[kind]):
        return "UNKNOWN-KIND", f"a {KINDS[kind].name} of a sort that this version does not know"
    return "EVENT-INVALID", f"{KINDS[kind].name}: {_flaw(row)}"


def _flaw(row: EventRow) -> str:
    made = KINDS[row[KIND]]
    field_of = {column: field for field, column in made.columns.items()}
    for n, (column, value) in enumerate(zip(COLUMNS, row, strict=True)):
        field = field_of.get(column)
        wrong_type = n != DETAIL and value is not None and type(value) is not int
        if wrong_type or (field in made.limits and not _allows(made, str(field), value)):
            return f"{field or column} cannot be {value!r:.60}"
    return (detail_flaw(row[KIND], row[DETAIL]) if row[DETAIL] is not None else None) or "cannot be"


def bad_reference(row: EventRow, memory: Memory) -> str | None:
    """What an event refers to that there is not, or that is something else; None if nothing.

    ``memory`` is that of all events before it. It lets go of conversions and requests that have ended: what belongs to none
    that is open makes a finding of its own.
    """
    for column, what, opens in _REFERENCES.get(row[KIND], ()):
        value = row[column]
        if value is None or (opens and value == row[SEQ]):
            continue
        if type(value) is int and not _is_there(what, value, memory):
            return f"{KINDS[row[KIND]].name}: {value} is not {what} on record"
    return None


def _is_there(what: Refers, seq: int, memory: Memory) -> bool:
    match what:
        case Refers.SOURCE:
            return seq in memory.sources
        case Refers.GUEST:
            return seq in memory.vms
        case Refers.GMEM:
            return seq in memory.gmems
        case Refers.OWNER:
            return seq in memory.vms or seq in memory.gmems
    return True


def _allows(kind: type[e.Event], field: str, value: Any) -> bool:
    if value is None:
        return field in kind.optional
    if type(value) is not int:
        return False
    limit = kind.limits[field]
    if not isinstance(limit, Bounds):
        return value in set(limit)
    return kind.columns[field] == "value" or limit.low <= value <= limit.high


# --- details


def detail_flaw(kind: int, text: Any) -> str | None:
    """What is wrong with the ``detail`` of an event of a kind, None if nothing."""
    if not isinstance(text, str):
        return f"detail cannot be {text!r:.60}"
    return _detail_flaw(kind if kind in _OF_A_KIND else 0, text)


@lru_cache(4096)
def _detail_flaw(kind: int, text: str) -> str | None:
    try:
        facts = json.loads(text)
        text.encode()
    except (ValueError, RecursionError):
        return f"detail is no JSON: {text!r:.60}"
    if not isinstance(facts, dict):
        return f"detail is no object of JSON: {text!r:.60}"
    tests = {**_FACTS, **_OF_A_KIND.get(kind, {})}
    for name, fact in facts.items():
        if not tests.get(name, _is_plain)(fact):
            return f"detail: {name!r:.60} cannot be {fact!r:.60}"
    return None


def _is_text(fact: Any) -> bool:
    return isinstance(fact, str)


def _is_number(fact: Any) -> bool:
    return type(fact) is int and -_MOST < fact < _MOST


def _is_count(fact: Any) -> bool:
    return type(fact) is int and 0 <= fact < 1 << 63


def _is_hex(fact: Any) -> bool:
    return isinstance(fact, str) and _HEX(fact) is not None


def _is_number_or_hex(fact: Any) -> bool:
    return _is_number(fact) or _is_hex(fact)


def _is_scalar(fact: Any) -> bool:
    return isinstance(fact, str | bool) or _is_number(fact)


def _is_plain(fact: Any) -> bool:
    """A scalar, a list of them or of lists of them, or names with them: nothing that a person could not be shown."""
    if isinstance(fact, list):
        return all(_is_scalar(one) or (isinstance(one, list) and all(map(_is_scalar, one))) for one in fact)
    return _is_scalar(fact) or (isinstance(fact, dict) and all(map(_is_scalar, fact.values())))


def _are_counts(fact: Any) -> bool:
    return isinstance(fact, dict) and all(map(_is_count, fact.values()))


def _are_pairs(fact: Any) -> bool:
    pairs = isinstance(fact, list) and all(isinstance(one, list) and len(one) == 2 for one in fact)
    return pairs and all(_is_number_or_hex(end) for one in fact for end in one)


_TEXTS = (
    "name format head text comm digest damage about basis cache call cause clock code from function join kept leaf log_of loop "
    "of operand outcome owner part path reported signal site status to user vmm waits_for what why would"
)
_COUNTS = "calls head_size kilobytes lines mostly replaced_pages seconds turns unparsed used users within"
_HEXES = "address gfn gpa hva len offset pfn size"
_FACTS: dict[str, Test] = {
    **dict.fromkeys(_TEXTS.split(), _is_text),
    **dict.fromkeys(_COUNTS.split(), _is_count),
    **dict.fromkeys(_HEXES.split(), _is_hex),
    **dict.fromkeys(("replaced",), _are_pairs),
    "context": _are_counts,
    "first_unparsed": lambda fact: isinstance(fact, list) and _is_plain(fact),
}
"""Facts of a detail that are read as something, whatever the kind of the event; all others are only shown."""
_OF_A_KIND: dict[int, dict[str, Test]] = {
    e.SourceRead.code: {"entries": _is_count},
    e.GuestAsked.code: {"pages": _is_hex, "entries": _are_pairs},
    e.VmmSaid.code: {"pages": _is_number_or_hex},
}


# --- tests of rows, made once for each kind


def _test_of(kind: type[e.Event]) -> Callable[[EventRow], bool]:
    """A function that says whether a row can be an event of a kind. Built as text: it runs once for every row that is read."""
    names: dict[str, Any] = {"fits_detail": detail_flaw}
    field_of = {column: field for field, column in kind.columns.items()}
    parts = []
    for n, column in enumerate(COLUMNS):
        if n in (SEQ, KIND, DETAIL):
            continue
        field = field_of.get(column)
        limit = kind.limits.get(field) if field is not None else None
        test = f"row[{n}].__class__ is int"
        if isinstance(limit, type) and issubclass(limit, IntEnum):
            names[f"words_{n}"] = frozenset(map(int, limit))
            test += f" and row[{n}] in words_{n}"
        elif isinstance(limit, Bounds) and column != "value":
            test += f" and {limit.low} <= row[{n}] <= {limit.high}"
        parts.append(f"({test})" if field is not None and field not in kind.optional else f"(row[{n}] is None or {test})")
    parts.append(f"(row[{DETAIL}] is None or fits_detail({kind.code}, row[{DETAIL}]) is None)")
    made: Callable[[EventRow], bool] = eval(f"lambda row: {' and '.join(parts)}", names)
    return made


_TESTS = {code: _test_of(kind) for code, kind in KINDS.items()}
_OPENS: dict[Refers, tuple[type[e.Event], ...]] = {
    Refers.SOURCE: (e.SourceOpened,),
    Refers.OWNER: (e.VmSeen, e.GmemCreated, e.GmemSeen),
    Refers.GUEST: (e.VmSeen,),
    Refers.GMEM: (e.GmemCreated, e.GmemSeen),
    Refers.CONVERSION: (e.ConvertAsked, e.ConvertMet, e.ConvertAttempted),
    Refers.REQUEST: (e.GuestAsked,),
}
_REFERENCES = {
    code: tuple((column, what, kind in _OPENS[what]) for column, what in kind.refers.values())
    for code, kind in KINDS.items()
    if kind.refers
}
