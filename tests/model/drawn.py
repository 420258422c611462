"""Events drawn by Hypothesis: each field within the bounds of its column, and never from what a trace would say."""

from enum import IntEnum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_type_hints

from hypothesis import strategies as st

from gmemstate.model.events import Event, detail, kinds

U64 = st.integers(0, 2**64 - 1)
I63 = st.integers(0, 2**63 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DETAIL = st.dictionaries(TEXT, st.one_of(TEXT, I64, st.booleans()), max_size=3).map(lambda facts: detail(**facts))


hints = cache(get_type_hints)


def column(kind: type[Event], field: str) -> st.SearchStrategy[Any]:
    """All values that a field can have: u64 for pages and values, and what names something is not negative."""
    wanted = hints(kind)[field]
    if isinstance(wanted, type) and issubclass(wanted, IntEnum):
        return st.sampled_from(wanted)
    name = kind.columns[field]
    values = {"start": U64, "value": U64, "t": I64, "result": I64, "detail": DETAIL}.get(name, I63)
    return st.none() | values if NoneType in get_args(wanted) and name != "detail" else values


@cache
def of_kind(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of a kind."""
    return st.builds(kind, **{field: column(kind, field) for field in kind.columns})


EVENTS = st.sampled_from(list(kinds())).flatmap(of_kind)


@cache
def crowded(kind: type[Event], ids: int) -> st.SearchStrategy[Event]:
    """Any event of a kind with numbers so small that events meet on the same pages, guests and conversions."""
    small = {"start": 8, "npages": 8, "value": 9, "line": ids, "t": ids}
    results = st.sampled_from([0, 0, 1, 5, 11, 12, 14, 22, 25, 133])

    def narrow(field: str) -> st.SearchStrategy[Any]:
        wanted, name = hints(kind)[field], kind.columns[field]
        if name == "detail":
            return st.none()
        if isinstance(wanted, type) and issubclass(wanted, IntEnum):
            return st.sampled_from(wanted)
        values = results if name == "result" else st.integers(0, small.get(name, ids))
        return st.none() | values if NoneType in get_args(wanted) else values

    return st.builds(kind, **{field: narrow(field) for field in kind.columns})
