"""The thirteen columns that every event is stored in, and where each stands in a row."""

from typing import Final

COLUMNS = ("seq", "t", "kind", "source", "space", "conversion", "start", "npages", "result", "value", "actor", "line", "detail")

EventRow = tuple[
    int,
    int | None,
    int,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    int | None,
    str | None,
]
"""An event as its thirteen columns; seq is 0 as long as it is not recorded."""

# Where each column stands in a row. One by one, so that a type checker knows the type of each.
SEQ: Final = 0
T: Final = 1
KIND: Final = 2
SOURCE: Final = 3
OWNER: Final = 4
"""the attribute owner; stores call this column ``space``"""
CONVERSION: Final = 5
START: Final = 6
NPAGES: Final = 7
RESULT: Final = 8
VALUE: Final = 9
ACTOR: Final = 10
LINE: Final = 11
DETAIL: Final = 12
