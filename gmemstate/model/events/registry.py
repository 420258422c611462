"""The registry of kinds: how a typed event becomes a row, and a row a typed event.

Every kind is a frozen dataclass, declared with :func:`kind`. Of its thirteen columns ``value``, ``actor`` and, in a few
kinds, ``result`` and ``conversion`` have a meaning of the kind's own (see ``columns`` of each class).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, dataclass_transform

from gmemstate.model.errors import BadEvent
from gmemstate.model.events.columns import COLUMNS, KIND, EventRow
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
    """What every event has: its time, its source, the line that shows it, and facts beside."""

    t: int | None = None
    source: int | None = None
    line: int | None = None
    detail: str | None = None

    code: ClassVar[int]
    name: ClassVar[str]
    analogue: ClassVar[str]
    columns: ClassVar[dict[str, str]]
    """Field name to column name, for every field."""
    enums: ClassVar[dict[str, Any]]
    """Field name to enumeration, for the fields that have one."""
    actor_is_reference: ClassVar[bool]
    row: ClassVar[Callable[["Event"], EventRow]]


_COLUMN_OF = {"owner": "space"}
"""Fields that stores know by another name."""

KINDS: dict[int, type[Event]] = {}
BY_NAME: dict[str, type[Event]] = {}
WORDS: dict[int, tuple[tuple[int, frozenset[int]], ...]] = {}
"""for each kind with enumerations: their columns, and the words that they have"""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=())
def kind(
    number: int, analogue: str, renamed: dict[str, str] | None = None, *, version: int = 1, reference: str = ""
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
        made.actor_is_reference = bool(reference)
        taken = list(made.columns.values())
        if made.code in KINDS or len(set(taken)) != len(taken) or not set(taken) <= set(COLUMNS):
            raise TypeError(f"{cls.__name__} does not fit the columns")
        enums = {
            field.name: field.type for field in fields(made) if isinstance(field.type, type) and issubclass(field.type, IntEnum)
        }
        made.row = _row_maker(made.code, made.columns, enums)
        made.enums = enums
        if enums:
            WORDS[made.code] = tuple(
                (COLUMNS.index(made.columns[name]), frozenset(map(int, enum))) for name, enum in enums.items()
            )
        KINDS[made.code] = BY_NAME[made.name] = made
        return made

    return register


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


def event_of(row: EventRow) -> Event:
    """The typed event behind a row. Raises BadEvent for an unknown kind, and for a word that its enumeration does not have."""
    kind = KINDS.get(row[KIND])
    if kind is None:
        raise BadEvent(f"event kind {row[KIND]} is unknown to this version; it was written by a newer one", kind=row[KIND])
    values: dict[str, Any] = {}
    for field, column in kind.columns.items():
        value: Any = row[COLUMNS.index(column)]
        if value is not None and column in ("value", "start"):
            value = unsigned(value)
        values[field] = value
    try:
        values.update({field: enum(values[field]) for field, enum in kind.enums.items()})
    except ValueError as error:
        raise BadEvent(f"{kind.name}: {error} in this version; it was written by a newer one", kind=row[KIND]) from None
    return kind(**values)


def kinds() -> Iterator[type[Event]]:
    """All kinds, by number."""
    return iter(KINDS[code] for code in sorted(KINDS))
