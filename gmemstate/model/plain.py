"""Objects of a memory as plain data and back, by their annotations; nothing is ever executed on the way.

What is read may be hostile: every value is held against the annotation of its place, and integers against the columns that they
came from. Whatever does not fit raises ValueError.
"""

import dataclasses
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END

Reader = Callable[[Any], Any]

UNSIGNED = frozenset(("attributes", "error_offset", "pointer"))
"""The fields that hold a u64; all other integers fit into a column."""
DERIVED = frozenset(("end", "target"))
"""The fields of a conversion that follow from others."""


def plain(value: Any, maps: list[RangeMap]) -> Any:
    """A value as JSON can hold it; maps of pages are put into ``maps`` and stand as their place there."""
    if value is None or isinstance(value, int | str):
        return value
    if isinstance(value, tuple | list):
        return [plain(item, maps) for item in value]
    if isinstance(value, dict):
        return [[plain(key, maps), plain(item, maps)] for key, item in value.items()]
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, RangeMap):
        maps.append(value)
        return len(maps) - 1
    kind: Any = type(value)
    return [plain(getattr(value, name), maps) for name in _written(kind)]


@cache
def _written(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.init and field.name not in DERIVED]


def reader(hint: Any, maps: Sequence[RangeMap]) -> Reader:
    """What turns plain data into a value of the annotated type; it raises ValueError for what is none."""
    return lambda data: _reader(hint)(data, maps)


_Typed = Callable[[Any, Sequence[RangeMap]], Any]


@cache
def _reader(hint: Any) -> _Typed:
    hint = getattr(hint, "__supertype__", hint)  # a NewType is read as what it is at run time
    if hint in (int, str, bool, NoneType):
        return _scalar(hint)
    if hint is RangeMap:
        return lambda data, maps: maps[_within(data, 0, len(maps) - 1)]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda data, _: hint(data)
    if dataclasses.is_dataclass(hint):
        return _fields(hint)
    return _container(get_origin(hint), get_args(hint))


def _scalar(kind: type) -> _Typed:
    def read(data: Any, _: Sequence[RangeMap]) -> Any:
        if type(data) is not kind:
            raise ValueError(f"{data!r:.40} is no {kind.__name__}")
        return _within(data, -1 << 63, (1 << 63) - 1) if kind is int else data

    return read


def _within(data: Any, low: int, high: int) -> int:
    if type(data) is not int or not low <= data <= high:
        raise ValueError(f"{data!r:.40} is out of range")
    return data


def _unsigned(data: Any, _: Sequence[RangeMap]) -> int | None:
    return None if data is None else _within(data, 0, END - 1)


def _page(data: Any, _: Sequence[RangeMap]) -> int:
    return _within(data, -1 << 63, END)


def _container(origin: Any, args: tuple[Any, ...]) -> _Typed:
    if origin in (Union, UnionType):  # that of a NewType is the former
        readers = [(_reader(arg), arg) for arg in args if arg is not NoneType]
        (only, _), optional = readers[0], NoneType in args
        return lambda data, maps: None if data is None and optional else only(data, maps)
    if origin is tuple and args[-1:] != (...,):
        parts = [_page if args == (int, int) else _reader(arg) for arg in args]
        return lambda data, maps: tuple(read(item, maps) for read, item in zip(parts, _listed(data, len(parts)), strict=True))
    one = _reader(args[0])
    if origin is dict:
        other = _reader(args[1])
        return lambda data, maps: {
            one(key, maps): other(item, maps) for key, item in (_listed(pair, 2) for pair in _listed(data))
        }
    return lambda data, maps: origin(one(item, maps) for item in _listed(data))


def _listed(data: Any, length: int | None = None) -> list[Any]:
    if not isinstance(data, list) or (length is not None and len(data) != length):
        raise ValueError(f"{data!r:.40} is no list of {'any' if length is None else length} values")
    return data


def _fields(kind: Any) -> _Typed:
    hints, names = get_type_hints(kind), _written(kind)
    parts = [(name, _unsigned if name in UNSIGNED else _reader(hints[name])) for name in names]
    return lambda data, maps: kind(
        **{name: read(item, maps) for (name, read), item in zip(parts, _listed(data, len(parts)), strict=True)}
    )
