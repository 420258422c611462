"""What is said of a trace is what the small kernel that has written it knows: calls, guests and the state of every page."""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from tests import views
from tests.ingest.small_kernel import (
    EINVAL,
    ELSEWHERE,
    FIRST_GFN,
    GMEM_PAGES,
    PAGE,
    PRIVATE,
    SPELLINGS,
    Called,
    Kernel,
    Line,
    Vm,
    played,
    spelled,
    tracefs,
)
from tests.traces import Read, read_lines

SEEDS = range(24)
PAGES = [*range(GMEM_PAGES), *range(FIRST_GFN, FIRST_GFN + 3 * GMEM_PAGES // 2), *range(ELSEWHERE, ELSEWHERE + GMEM_PAGES)]
PROFILES = {
    "everything": (),
    "no system calls": ("syscall",),
    "no entries": ("vm_ioctl", "gmem_ioctl"),
    "results alone": (
        "syscall", "vm_ioctl", "gmem_ioctl", "range_has_attrs", "pre_set", "post_set", "unmap_gfn", "inv_end", "gmem_inv",
        "host_unmap", "lru_folio", "gmem_store",
    ),
}  # fmt: skip


def asked(call: Called) -> tuple[int, int, int, int]:
    return call.address, call.size, call.attributes, call.errno


def told(row: views.Json) -> tuple[int, int, int, int | None]:
    address = row["offset"] if row["through"] == "gmem_ioctl" else row["gpa"]
    return int(address, 16), int(row["size"], 16), int(row["attributes"], 16), row["errno"]


def matched(kernel: Kernel, read: Read) -> list[tuple[Called, views.Json]]:
    """Each call of the kernel with what is said of it, thread by thread in the order of time."""
    said: dict[int, list[views.Json]] = defaultdict(list)
    for row in views.conversions(read.history):
        said[row["thread"]].append(row)
    calls: dict[int, list[Called]] = defaultdict(list)
    for call in sorted(kernel.calls, key=lambda call: call.entered):
        calls[call.tid].append(call)
    assert {tid: len(own) for tid, own in said.items()} == {tid: len(own) for tid, own in calls.items()}
    return [pair for tid, own in calls.items() for pair in zip(own, said[tid], strict=True)]


def guests(pairs: list[tuple[Called, views.Json]]) -> dict[str, Vm]:
    """The guest behind each name; no name is that of two, and no guest has two names."""
    found = {(row["guest"], call.vm.number): call.vm for call, row in pairs if row["guest"] != views.NO_GUEST}
    assert len({name for name, _ in found}) == len({number for _, number in found}) == len(found)
    return {name: vm for (name, _), vm in found.items()}


def truth(kernel: Kernel, vm: Vm, gfn: int) -> str:
    if not kernel.inplace:
        return "private" if vm.attributes.get(gfn) == PRIVATE else "shared"
    for first, npages, gmem in vm.slots.values():
        if gmem is not None and first <= gfn < first + npages:
            return "private" if gmem.attributes[gfn - first] == PRIVATE else "shared"
    return "shared"


def wrong_pages(kernel: Kernel, read: Read, named: dict[str, Vm]) -> list[tuple[str, int, str, str]]:
    """Pages whose state is said to be another than it is."""
    found = []
    for row in views.state(read.history):
        if row.guest in named and row.gmem is None and row.state != "unknown":
            true = {gfn: truth(kernel, named[row.guest], gfn) for gfn in PAGES if row.start <= gfn < (row.end or 1 << 64)}
            found += [(row.guest, gfn, row.state, state) for gfn, state in true.items() if state != row.state]
    return found


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", SEEDS)
def test_calls_guests_and_pages_are_what_the_kernel_knows(seed: int, profile: str, tmp_path: Path) -> None:
    kernel = played(seed)
    lines = [line for line in kernel.lines if line.kind not in PROFILES[profile]]
    read = read_lines(list(spelled(lines, SPELLINGS[seed % len(SPELLINGS)])), tmp_path)
    assert read.account.unparsed == 0
    pairs = matched(kernel, read)
    for call, row in pairs:
        assert told(row) == asked(call)
        assert row["error_offset"] == (None if call.error_offset is None else hex(call.error_offset))
        assert call.asked or row["trigger"] != "guest_request"
        assert row["label"] in (("committed", "noop") if call.errno == 0 else ("failed", "failed_residue", "rejected"))
        assert (row["label"] == "rejected") == (call.errno == EINVAL)
        if call.errno == EINVAL:
            assert (row["start"], row["end"]) == (None, None)
        elif call.gmem is None:
            assert (row["start"], row["end"]) == (hex(call.address // PAGE), hex((call.address + call.size) // PAGE))
    assert wrong_pages(kernel, read, guests(pairs)) == []
    assert read.history.findings == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_guest_that_is_alone_on_its_thread_is_known_in_every_page_that_was_converted(seed: int, tmp_path: Path) -> None:
    kernel = played(seed)
    if len({(call.tid, call.vm.number) for call in kernel.calls}) > len({call.tid for call in kernel.calls}):
        pytest.skip("a thread of this one has several guests")
    read = read_lines(list(spelled(kernel.lines, tracefs)), tmp_path)
    pairs = matched(kernel, read)
    assert all(row["guest"] != views.NO_GUEST for _, row in pairs)
    assert [call.asked for call, _ in pairs] == [row["trigger"] == "guest_request" for _, row in pairs]
    unknown = {
        (row.guest, gfn)
        for row in views.state(read.history)
        if row.state == "unknown"
        for gfn in PAGES
        if row.start <= gfn < (row.end or 1 << 64)
    }
    converted = [(name, vm) for name, vm in guests(pairs).items() if any(c.vm is vm and not c.errno for c, _ in pairs)]
    assert not {(name, gfn) for name, _ in converted for gfn in range(FIRST_GFN, FIRST_GFN + GMEM_PAGES)} & unknown


def lossy(lines: list[Line], dice: random.Random) -> list[bytes]:
    """A trace that has lost some lines, and says so where they were."""
    lost: set[int] = set()
    for _ in range(3):
        start = dice.randrange(1, len(lines))
        lost |= set(range(start, min(len(lines) - 1, start + dice.choice([1, 2, 5, 20, 60]))))
    found = [b"# tracer: nop"]
    for n, line in enumerate(lines):
        if n not in lost:
            found += [b"CPU:%d [LOST %d EVENTS]" % (line.cpu, 5)] * (n - 1 in lost) + [tracefs(line).encode()]
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_said_of_a_trace_that_has_lost_lines_is_true(seed: int, tmp_path: Path) -> None:
    kernel = played(seed)
    read = read_lines(lossy(kernel.lines, random.Random(seed)), tmp_path)
    times = [
        (call, call.entered, next((c.entered for c in kernel.calls if c.tid == call.tid and c.entered > call.entered), 1 << 62))
             for call in sorted(kernel.calls, key=lambda call: call.entered)]  # fmt: skip
    for row in views.conversions(read.history):
        at = int(row["ended_ns"] or row["started_ns"] or -1)
        call = next((call for call, start, end in times if call.tid == row["thread"] and start <= at < end), None)
        if call is None:
            continue
        assert row["errno"] in (None, call.errno)
        assert row["size"] in (None, hex(call.size))
        assert row["to"] in (None, "private" if call.attributes else "shared")
        assert not (row["label"] in ("committed", "noop") and call.errno)
        assert not (row["label"] in ("failed", "failed_residue", "rejected") and not call.errno)
    assert read.history.missing()
