r"""A snapshot: the whole memory at one event, as data.

It saves folding from the first event; it is never the truth. The same memory makes the same content, however its events were
cut into batches, so a fold can be compared with it.

===========  =====================================================================================================
magic        ``b"gmemstate snapshot 1\\n"``
digest       SHA-256 of all that follows (32 bytes)
content      compressed by zlib: the length of the facts (u32), the facts as JSON (the version of the fold, the seq, the hash
             of the batch that ends there, the latest time up to there, and the memory), then each map of pages: the number of
             its runs
             (u64), the lengths of all runs but the last (u64 each) and their values (a byte each)
===========  =====================================================================================================
"""

import hashlib
import json
import struct
import zlib
from typing import Any, NamedTuple, get_type_hints

from gmemstate.model.errors import GmemstateError
from gmemstate.model.fold.conversions import KIND_OF
from gmemstate.model.fold.requests import UNSEEN
from gmemstate.model.machines.conversion import CONVERSION
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.machines.range import RANGE
from gmemstate.model.memory import Memory
from gmemstate.model.objects import MAPPED, POISONED_PAGE, Conversion, FaultExit, Gmem, GuestEnd, MessedUp, Request, Source, Vm
from gmemstate.model.plain import plain, reader
from gmemstate.model.rangemap import RangeMap
from gmemstate.model.units import END

FOLD = 10
"""The version of the fold: raised whenever the same events make another memory, so that older snapshots count no more."""

MAGIC = b"gmemstate snapshot 1\n"
MOST = 1 << 30
"""No content is longer (bytes)."""
MOST_ORDER = 63
_COUNT = struct.Struct("<I")
_Thread = tuple[int | None, int]


class BadSnapshot(GmemstateError):
    """Something is no snapshot, or not of this fold or of this record. It can be dropped: the record has everything."""

    code = "bad-snapshot"


class Snapshot(NamedTuple):
    """The memory at its ``seq``; ``head``: the hash of the batch that ends there, ``latest``: the latest time (ns)."""

    memory: Memory
    head: bytes
    latest: int | None


class _Plain(NamedTuple):
    """What a memory is without the pending changes of its last events, in the order in which it is written."""

    sources: list[Source]
    vms: list[Vm]
    gmems: list[Gmem]
    ranges: dict[int, RangeMap]
    mappings: dict[tuple[int, int], RangeMap]
    unplaced: RangeMap
    conversions: list[Conversion]
    requests: list[Request]
    messed_up: list[MessedUp]
    last_of: dict[int, int]
    by_thread: dict[_Thread, int]
    open_request: dict[_Thread, int]
    faults: dict[_Thread, FaultExit]
    left_out: list[int]
    returned: dict[_Thread, int | None]
    """what else threads were last returned: the id of a request, 0 for one that is not on record, None for nothing"""


def encode(snapshot: Snapshot) -> bytes:
    """A snapshot as bytes."""
    packed = zlib.compress(content_of(snapshot), 1)
    return MAGIC + hashlib.sha256(packed).digest() + packed


def content_of(snapshot: Snapshot) -> bytes:
    """What the bytes of a snapshot stand for: equal for equal memories."""
    memory, maps = snapshot.memory, list[RangeMap]()
    requests = memory.needed_requests()
    exits = sorted(memory.exits.items(), key=lambda item: (item[0][0] or 0, item[0][1]))
    parts = _Plain(
        list(memory.sources.values()),
        list(memory.vms.values()),
        list(memory.gmems.values()),
        memory.ranges,
        memory.mappings,
        memory.unplaced,
        list(memory.conversions.values()),
        [request for request in memory.requests.values() if request.id in requests],
        list(memory.messed_up.values()),
        memory.last_of,
        memory.by_thread,
        memory.open_request,
        {thread: returned for thread, returned in exits if isinstance(returned, FaultExit)},
        memory.left_out,
        {
            thread: None if returned is None else returned.id
            for thread, returned in exits
            if not isinstance(returned, FaultExit)
        },
    )
    facts = json.dumps(
        {
            "fold": FOLD,
            "seq": memory.seq,
            "head": snapshot.head.hex(),
            "latest": snapshot.latest,
            "memory": [plain(part, maps) for part in parts],
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode()
    return b"".join([_COUNT.pack(len(facts)), facts, *(pages.to_bytes() for pages in maps)])


def decode(data: bytes) -> Snapshot:
    """The snapshot in some bytes. Raises BadSnapshot for whatever cannot be one."""
    try:
        return _decode(content_in(data))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, struct.error) as error:
        raise BadSnapshot(f"is no snapshot of this version: {error}; `gmemstate rebuild` makes it again") from None


def content_in(data: bytes) -> bytes:
    """The content of bytes. Raises ValueError where they are not those that were written."""
    if not data.startswith(MAGIC):
        raise ValueError("it begins differently")
    digest, packed = data[len(MAGIC) : len(MAGIC) + 32], data[len(MAGIC) + 32 :]
    if hashlib.sha256(packed).digest() != digest:
        raise ValueError("it does not fit its digest")
    unpacker = zlib.decompressobj()
    try:
        content = unpacker.decompress(packed, MOST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("it is larger than any memory, or has more after its end")
    return content


def _decode(content: bytes) -> Snapshot:
    (length,) = _COUNT.unpack_from(content)
    at = _COUNT.size + length
    facts = json.loads(content[_COUNT.size : at])
    maps: list[RangeMap] = []
    while at < len(content):
        pages, at = RangeMap.from_bytes(content, at)
        maps.append(pages)
    if not isinstance(facts, dict) or facts.get("fold") != FOLD:
        raise ValueError("another version of the fold has made it")
    parts = _read(facts["memory"], maps)
    memory = Memory()
    memory.seq = reader(int, maps)(facts["seq"])
    memory.sources = {source.id: source for source in parts.sources}
    memory.vms = {vm.id: vm for vm in parts.vms}
    memory.gmems = {gmem.id: gmem for gmem in parts.gmems}
    memory.conversions = {conversion.id: conversion for conversion in parts.conversions}
    memory.requests = {request.id: request for request in parts.requests}
    memory.messed_up = {entry.id: entry for entry in parts.messed_up}
    memory.ranges, memory.mappings, memory.unplaced = parts.ranges, parts.mappings, parts.unplaced
    memory.last_of, memory.by_thread, memory.open_request = parts.last_of, parts.by_thread, parts.open_request
    memory.left_out = parts.left_out
    requests = {0: UNSEEN, **memory.requests}
    memory.exits = {**parts.faults, **{thread: None if id is None else requests[id] for thread, id in parts.returned.items()}}
    _derive(memory)
    return Snapshot(memory, bytes.fromhex(facts["head"]), reader(int | None, maps)(facts["latest"]))


def _read(parts: Any, maps: list[RangeMap]) -> _Plain:
    hints = get_type_hints(_Plain)
    if not isinstance(parts, list) or len(parts) != len(hints):
        raise ValueError("it has other parts")
    return _Plain(*(reader(hint, maps)(part) for hint, part in zip(hints.values(), parts, strict=True)))


def _derive(memory: Memory) -> None:
    """Fill in what follows from the rest, and make sure that what is named is there."""
    memory.destroyed = {vm.id for vm in memory.vms.values() if vm.gone is GuestEnd.DESTROYED}
    memory.late = {source.id for source in memory.sources.values() if source.until is not None}
    for conversion in memory.conversions.values():
        conversion.target = KIND_OF.get(conversion.attributes)
        if conversion.start is not None:
            conversion.end = END if conversion.npages is None else conversion.start + conversion.npages
        _among(conversion.state, CONVERSION.states)
    for entry in memory.messed_up.values():
        _among(entry.state, MESSED_UP.states)
    for id in memory.by_thread.values():
        _among(id, memory.conversions)
    for pages in memory.ranges.values():
        _at_most(pages, len(RANGE.states) - 1)
    for pages in memory.mappings.values():
        _at_most(pages, MAPPED)
    for gmem in memory.gmems.values():
        _at_most(gmem.backing, POISONED_PAGE)
        _at_most(gmem.orders, MOST_ORDER)
    _at_most(memory.unplaced, 1)


def _among(value: Any, known: Any) -> None:
    if value not in known:
        raise ValueError(f"{value!r:.40} is not known")


def _at_most(pages: RangeMap, most: int) -> None:
    if pages.greatest() > most:
        raise ValueError("a page has a value that none has")
