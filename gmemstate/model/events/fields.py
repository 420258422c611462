"""What fields of events may hold, declared as their types: bounds of numbers, and what references refer to."""

from enum import StrEnum
from typing import Annotated, NamedTuple


class Bounds(NamedTuple):
    """The least and the greatest number that a field may hold."""

    low: int
    high: int


class Refers(StrEnum):
    """What a reference refers to: the seq of the event that opened it, or a negative number in its place."""

    SOURCE = "a source"
    OWNER = "a guest or a guest_memfd"
    GUEST = "a guest"
    GMEM = "a guest_memfd"
    CONVERSION = "a conversion"
    REQUEST = "a request of a guest"


Errno = Annotated[int, Bounds(0, 4095)]
"""0 for success, or a positive errno"""
Answer = Annotated[int, Bounds(-(1 << 63), (1 << 63) - 1)]
"""what a guest sees as the result of its request: 0, or as KVM defines it for the path"""
Order = Annotated[int, Bounds(0, 63)]
Flag = Annotated[int, Bounds(0, 1)]
SourceRef = Annotated[int, Refers.SOURCE]
OwnerRef = Annotated[int, Refers.OWNER]
GuestRef = Annotated[int, Refers.GUEST]
GmemRef = Annotated[int, Refers.GMEM]
ConversionRef = Annotated[int, Refers.CONVERSION]
RequestRef = Annotated[int, Refers.REQUEST]
