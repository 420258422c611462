"""The registry of kinds: how a typed event becomes a row, and a row a typed event.

Every kind is a frozen dataclass, declared with :func:`kind`. Of its thirteen columns ``value``, ``actor`` and, in a few
kinds, ``result`` and ``conversion`` have a meaning of the kind's own (see ``columns`` of each class).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Annotated, Any, ClassVar, dataclass_transform, get_args, get_origin

from gmemstate.model.errors import BadEvent
from gmemstate.model.events.columns import ACTOR, COLUMNS, CONVERSION, DETAIL, KIND, SEQ, EventRow, T
from gmemstate.model.events.fields import Bounds, Refers, SourceRef
from gmemstate.model.units import signed, unsigned


def detail(**facts: Any) -> str | None:
    """Facts that no fold needs, as canonical JSON; None where all are None."""
    present = {name: fact for name, fact in facts.items() if fact is not None}
    if not present:
        return None
    return json.dumps(present, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def details(text: str | None) -> dict[str, Any]:
    """The facts of a ``detail`` column."""
    return json.loads(text) if text else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event has: its time, its source, the line that shows it, and further facts."""

    t: int | None = None
    source: SourceRef | None = None
    line: int | None = None
    detail: str | None = None

    code: ClassVar[int]
    name: ClassVar[str]
    analogue: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    """Field name to column name, for every field."""
    enums: ClassVar[dict[str, Any]]
    """Field name to enumeration, for the fields that have one."""
    limits: ClassVar[dict[str, Any]]
    """Field name to enumeration, or bounds of the number."""
    optional: ClassVar[frozenset[str]]
    """The fields that may be None."""
    refers: ClassVar[dict[str, tuple[int, Refers]]]
    """Field name to its column, and what it refers to."""
    row: ClassVar[Callable[["Event"], EventRow]]


_COLUMN_OF = {"owner": "space"}
"""Fields that stores know by another name."""

KINDS: dict[int, type[Event]] = {}
BY_NAME: dict[str, type[Event]] = {}
_MAKERS: dict[int, Callable[[EventRow], Event]] = {}
WORDS: dict[int, tuple[tuple[int, frozenset[int]], ...]] = {}
"""for each kind with enumerations: their columns, and the words that they have"""
_OF_CONVERSIONS: set[int] = set()
"""the kinds that can belong to a conversion; in others the column holds a request, or nothing"""
_OF_THREADS: set[int] = set()
"""the kinds that name a thread; in others the column holds a reference, or nothing"""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=())
def kind(
    number: int, analogue: str, renamed: dict[str, str] | None = None, *, version: int = 1
) -> Callable[[type[Any]], type[Any]]:
    """Register a kind: its number for ever, the kernel's analogue, and the columns of its own fields."""

    def register(cls: type[Any]) -> type[Any]:
        made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
        made.code = number + 256 * (version - 1)
        made.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
        made.analogue = analogue
        made.columns = {
            field.name: (renamed or {}).get(field.name, _COLUMN_OF.get(field.name, field.name)) for field in fields(made)
        }
        taken = list(made.columns.values())
        if made.code in KINDS or len(set(taken)) != len(taken) or not set(taken) <= set(COLUMNS):
            raise TypeError(f"{cls.__name__} does not fit the columns")
        enums = {
            field.name: field.type for field in fields(made) if isinstance(field.type, type) and issubclass(field.type, IntEnum)
        }
        _declare_limits(made)
        made.row = _row_maker(made.code, made.columns, enums)
        made.enums = enums
        _MAKERS[made.code] = _event_maker(made, enums)
        if enums:
            WORDS[made.code] = tuple(
                (COLUMNS.index(made.columns[name]), frozenset(map(int, enum))) for name, enum in enums.items()
            )
        if "conversion" in made.columns:
            _OF_CONVERSIONS.add(made.code)
        if made.columns.get("thread") == "actor":
            _OF_THREADS.add(made.code)
        KINDS[made.code] = BY_NAME[made.name] = made
        return made

    return register


def _declare_limits(made: type[Event]) -> None:
    """What fields may hold, by their types; a number without bounds of its own is one that its column can hold."""
    made.limits, made.refers = {}, {}
    made.optional = frozenset(field.name for field in fields(made) if type(None) in get_args(field.type))
    for name, hint in ((field.name, field.type) for field in fields(made) if field.name != "detail"):
        inner: Any = next((arg for arg in get_args(hint) if arg is not type(None)), hint) if name in made.optional else hint
        column = made.columns[name]
        said = get_args(inner)[1] if get_origin(inner) is Annotated else None
        if isinstance(said, Refers):
            made.refers[name] = COLUMNS.index(column), said
            made.limits[name] = Bounds(-(1 << 63), (1 << 63) - 1)
        elif inner is int:
            made.limits[name] = Bounds(0, (1 << (64 if column == "value" else 63)) - 1)
        else:
            made.limits[name] = said or inner


def _row_maker(code: int, columns: dict[str, str], enums: dict[str, Any]) -> Callable[[Event], EventRow]:
    """A function from an event to its row. Built as text: it runs once for every event that is recorded."""
    field_of = {column: name for name, column in columns.items()}
    parts = []
    for column in COLUMNS:
        field = field_of.get(column)
        if column == "seq":
            parts.append("0")
        elif column == "kind":
            parts.append(str(code))
        elif field is None:
            parts.append("None")
        elif isinstance(enums.get(field), type):
            parts.append(f"int(e.{field})")
        elif column in ("value", "start"):
            parts.append(f"(e.{field} if e.{field} is None or e.{field} < {1 << 63} else signed(e.{field}))")
        else:
            parts.append(f"e.{field}")
    made: Callable[[Event], EventRow] = eval(f"lambda e: ({', '.join(parts)})", {"signed": signed})
    return made


def foreign(row: EventRow) -> bool:
    """Whether an event of a known kind holds a word that its enumeration does not have: a newer version wrote it, or nobody."""
    return any(row[column] not in words for column, words in WORDS.get(row[KIND], ()))


def _event_maker(made: type[Any], enums: dict[str, Any]) -> Callable[[EventRow], Event]:
    """A function from a row to its event: it fills the slots in, as it runs once for each event that a check looks at."""
    names: dict[str, Any] = {"new": made.__new__, "made": made, "unsigned": unsigned, **enums}
    lines = ["def event(row):", " e = new(made)"]
    for field, column in made.columns.items():
        at = f"row[{COLUMNS.index(column)}]"
        names[f"set_{field}"] = getattr(made, field).__set__
        if field in enums:
            names[f"enum_{field}"] = enums[field]._value2member_map_
            value = f"enum_{field}[{at}]"
        else:
            value = f"{at} if {at} is None or {at} >= 0 else unsigned({at})" if column in ("value", "start") else at
        lines.append(f" set_{field}(e, {value})")
    exec("\n".join([*lines, " return e"]), names)
    maker: Callable[[EventRow], Event] = names["event"]
    return maker


UNUSABLE = -(1 << 63)
"""The number in place of a kind in the row of an unusable event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable(Event):
    """What stands in a record as an event and cannot be one; ``detail`` says why. It is never recorded, and of no kind."""

    name: ClassVar[str] = "unusable"
    columns: ClassVar[dict[str, str]] = {"detail": "detail"}


def unusable(row: EventRow, code: str, why: str) -> EventRow:
    """A row in place of one that cannot be an event, with its time and the code and the text of the finding that it is."""
    t = row[T] if type(row[T]) is int else None
    return (row[SEQ], t, UNUSABLE, *[None] * 9, detail(code=code, why=why))  # type: ignore[return-value]


_MAKERS[UNUSABLE] = lambda row: Unusable(detail=row[DETAIL])


def event_of(row: EventRow) -> Event:
    """The typed event of a row. Raises BadEvent for an unknown kind, and for a word that its enumeration does not have."""
    try:
        return _MAKERS[row[KIND]](row)
    except KeyError as error:
        kind, word = KINDS.get(row[KIND]), error.args[0]
    if kind is None:
        raise BadEvent(f"event kind {word} is unknown to this version; it was written by a newer one", kind=row[KIND])
    wrong = next(name for name, enum in kind.enums.items() if row[COLUMNS.index(kind.columns[name])] not in set(enum))
    raise BadEvent(f"{kind.name}: {wrong} {word!r} is no word of this version; it was written by a newer one", kind=row[KIND])


def conversion_of(row: EventRow) -> int | None:
    """The conversion that an event belongs to, by the seq that opened it; None where it belongs to none."""
    return row[CONVERSION] if row[KIND] in _OF_CONVERSIONS else None


def thread_of(row: EventRow) -> int | None:
    """The thread that an event names, None where it names none."""
    return row[ACTOR] if row[KIND] in _OF_THREADS else None


def in_conversion(row: EventRow, conversion: int, join: str | None = None) -> EventRow:
    """An event as one of another conversion; ``join`` says by what it was found to belong there."""
    seq, t, kind, source, owner, _, start, npages, result, value, actor, line, text = row
    if join is not None:
        text = detail(**{**details(text), "join": join})
    return (seq, t, kind, source, owner, conversion, start, npages, result, value, actor, line, text)


def kinds() -> Iterator[type[Event]]:
    """All kinds, by number."""
    return iter(KINDS[code] for code in sorted(KINDS))
