"""A second reader of batch format 1, written from its description and nothing else.

header  b"gmemstate batch 1\\n", hash of the batch before (32 bytes), first seq, number of events, time (i64 each)
event   u16 mask; then, for each bit n that is set, column n: an i64, or for bit 12 a u32 length and as much UTF-8
        (bits 1..12: t kind source space conversion start npages result value actor line detail)
hash    SHA-256 of all that; everything little endian
"""

import hashlib
from typing import Any


def decode(data: bytes, first: int) -> list[tuple[Any, ...]]:
    """The rows of the events of a batch, with the seqs that they have."""
    rows = []
    at = 0

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        assert at <= len(data), "the bytes end inside of an event"
        return data[at - size : at]

    while at < len(data):
        mask = int.from_bytes(take(2), "little")
        assert mask & 1 == 0, "the seq is not repeated"
        assert mask >> 13 == 0, "there are thirteen columns"
        row: list[Any] = [first + len(rows)] + [None] * 12
        for n in range(1, 12):
            if mask >> n & 1:
                row[n] = int.from_bytes(take(8), "little", signed=True)
        if mask >> 12 & 1:
            row[12] = take(int.from_bytes(take(4), "little")).decode()
        rows.append(tuple(row))
    return rows


def digest(data: bytes, first: int, size: int, recorded: int, previous: bytes) -> bytes:
    """The hash of a batch with these events."""
    header = b"gmemstate batch 1\n" + previous
    header += b"".join(number.to_bytes(8, "little", signed=True) for number in (first, size, recorded))
    return hashlib.sha256(header + data).digest()
