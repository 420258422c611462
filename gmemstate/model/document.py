"""Results as JSON: the annotations of a frozen dataclass say how each of its fields is written.

A u64 (gfn, page index, pfn, gpa, size in bytes, flags) is a hex string, a time in ns a decimal string, an enumeration its word;
what is not known is null, and so is the end of a range that has none.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from types import NoneType, UnionType
from typing import ClassVar, Generic, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints, overload

from gmemstate.model.units import U64, Gfn, Gpa, Ns, Page, PageIndex, Pfn

SCHEMA = 1
"""The version of all documents: it grows when a field is renamed, removed, or gets another meaning."""
HEXADECIMAL = (Gfn, Gpa, Page, PageIndex, Pfn, U64)

Pairs: TypeAlias = tuple[tuple[str, str], ...]
"""Names with texts, in their order: written as an object."""
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
R_co = TypeVar("R_co", bound="Document", covariant=True)


class Document:
    """A frozen dataclass that can be written as JSON."""

    __slots__ = ()
    written: ClassVar[tuple[str, ...]] = ()
    """the fields and properties that are written, where that is not all fields and nothing else"""

    def to_json(self) -> dict[str, Json]:
        """The fields by their names."""
        return self._facts()

    def _facts(self) -> dict[str, Json]:
        return _named(self)


class Answer(Document):
    """What a verb answers: a whole document, with the version of its schema unless it stands inside of another one."""

    __slots__ = ()

    def to_json(self) -> dict[str, Json]:
        """The fields by their names, after the version of the schema."""
        return {"schema": SCHEMA, **self._facts()}


@dataclass(frozen=True, slots=True)
class Listing(Answer, Sequence[R_co], Generic[R_co]):
    """An answer of many rows of one kind; it is a sequence of them."""

    rows: tuple[R_co, ...]
    missing: tuple[str, ...] = ()
    """why the answer may be incomplete; empty if nothing is known to be missing"""

    @overload
    def __getitem__(self, index: int) -> R_co: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[R_co, ...]: ...
    def __getitem__(self, index: int | slice) -> R_co | tuple[R_co, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R_co]:
        return iter(self.rows)


_Writer = Callable[[object], Json]


_WRITERS: dict[type, list[tuple[str, _Writer]]] = {}


def annotations(kind: type) -> dict[str, object]:
    """What is written of a document or a named tuple: the names of fields and properties, and their annotations."""
    hints = get_type_hints(kind)
    names = getattr(kind, "written", ()) or getattr(kind, "_fields", ()) or [field.name for field in fields(kind)]
    return {name: hints[name] if name in hints else get_type_hints(getattr(kind, name).fget)["return"] for name in names}


def _named(value: object) -> dict[str, Json]:
    """A document or a named tuple as an object."""
    kind = type(value)
    if kind not in _WRITERS:
        _WRITERS[kind] = [(name, _writer(hint)) for name, hint in annotations(kind).items()]
    return {name: write(getattr(value, name)) for name, write in _WRITERS[kind]}


def _writer(hint: object) -> _Writer:
    """What writes a value of an annotated type."""
    origin, args = get_origin(hint), get_args(hint)
    if hint in HEXADECIMAL:
        return lambda value: f"{value:#x}"
    if hint is Ns:
        return str
    if hint == Pairs:
        return _object
    if origin in (Union, UnionType):
        only = _writer(next(arg for arg in args if arg is not NoneType))
        return lambda value: None if value is None else only(value)
    if origin is tuple:
        parts = [_writer(arg) for arg in args if arg is not ...]
        return lambda value: _listed(value, parts)
    return _as_it_is


def _object(pairs: object) -> Json:
    assert isinstance(pairs, tuple)
    return dict(pairs)


def _listed(value: object, parts: list[_Writer]) -> Json:
    assert isinstance(value, tuple)
    return [parts[n % len(parts)](item) for n, item in enumerate(value)]


def _as_it_is(value: object) -> Json:
    """A value that says itself how it is written."""
    if isinstance(value, Document):
        return value._facts()
    if isinstance(value, IntEnum):
        return str(getattr(value, "word", value.name.lower()))
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return {str(key): _as_it_is(item) for key, item in value.items()}
    if hasattr(value, "_fields"):
        return _named(value)
    if isinstance(value, list | tuple):
        return [_as_it_is(item) for item in value]
    assert value is None or isinstance(value, bool | int | str)
    return value
