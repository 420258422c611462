r"""Batch format 1: the bytes of a batch for ever, and the chain of their hashes.

A batch is a header and its events in order. All integers are little endian and signed unless said otherwise.

===========  =====================================================================================================
header       ``b"gmemstate batch 1\\n"``; the hash of the batch before (32 bytes, zero for the first); the seq of its
             first event (i64); the number of its events (i64); the time of recording in ns since 1970 (i64)
event        a u16 whose bit n says that column n is present (1: t .. 12: detail; the seq is not repeated); then each present
column in order: integers as i64,
             ``detail`` (the last one) as its length in bytes (u32) and UTF-8
hash         SHA-256 over header and events
===========  =====================================================================================================

The columns are those of :data:`gmemstate.model.events.COLUMNS`; the seq of an event is that of the batch's first event plus
its place. Values from 2**63 on are stored as two's complement.
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gmemstate.model.errors import BadEvent
from gmemstate.model.events import COLUMNS, DETAIL, KIND, SEQ, EventRow

FORMAT = 1
MAGIC = b"gmemstate batch 1\n"
NO_HASH = bytes(32)
_HEADER = struct.Struct("<qqq")
_COUNT = struct.Struct("<I")

Shape = tuple[type, ...]
Encoder = Callable[[EventRow], bytes]


class Batch(NamedTuple):
    """One sealed batch: the seqs ``first .. first + size - 1``, recorded at once."""

    first: int
    size: int
    recorded: int
    previous: bytes
    hash: bytes

    @property
    def last(self) -> int:
        """The seq of the last event."""
        return self.first + self.size - 1


def seal(rows: Sequence[EventRow], first: int, recorded: int, previous: bytes) -> Batch:
    """The batch of the rows; raises BadEvent where a column does not fit."""
    try:
        header = _HEADER.pack(first, len(rows), recorded)
    except struct.error:
        raise BadEvent(f"the time of recording {recorded} does not fit into 64 bits", recorded=recorded) from None
    return Batch(first, len(rows), recorded, previous, hashlib.sha256(MAGIC + previous + header + encode(rows)).digest())


def encode(rows: Sequence[EventRow]) -> bytes:
    """The canonical bytes of the events; raises BadEvent where a column does not fit."""
    try:
        return b"".join([_encoders[tuple(map(type, row))](row) for row in rows])
    except struct.error:
        bad = next(row for row in rows if any(isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 for value in row))
        raise BadEvent(f"a column of {bad} does not fit into 64 bits", row=bad) from None
    except UnicodeEncodeError as error:
        raise BadEvent(f"the detail {error.object!a} is no text: {error.reason}", detail=error.object) from None


def _counted(text: str) -> bytes:
    data = text.encode()
    return _COUNT.pack(len(data)) + data


class _Encoders(dict[Shape, Encoder]):
    """An encoder for all rows with the same columns present; a few dozen shapes cover everything."""

    def __missing__(self, shape: Shape) -> Encoder:
        present = [n for n, kind in enumerate(shape) if kind is not type(None) and n != SEQ]
        integers = [n for n in present if n != DETAIL]
        wrong = [COLUMNS[n] for n in integers if not issubclass(shape[n], int)]
        if len(shape) != len(COLUMNS) or wrong or (DETAIL in present and shape[DETAIL] is not str):
            raise BadEvent(f"columns {wrong or list(shape)} have the wrong type", columns=wrong)
        if KIND not in present:
            raise BadEvent("an event without a kind", columns=["kind"])
        mask = sum(1 << n for n in present)
        pack = struct.Struct(f"<H{len(integers)}q").pack
        # Built as text: it runs once for every event that is recorded.
        code = f"lambda row: pack({mask}, {', '.join(f'row[{n}]' for n in integers)})"
        if DETAIL in present:
            code += f" + counted(row[{DETAIL}])"
        encoder: Encoder = eval(code, {"pack": pack, "counted": _counted})
        self[shape] = encoder
        return encoder


_encoders = _Encoders()
