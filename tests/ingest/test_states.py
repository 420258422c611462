"""What is shared and what is private, page by page, is what the successful calls of a program amount to."""

import re
from itertools import pairwise

import pytest

from gmemstate.audit.history.history import History
from gmemstate.model.events import T
from gmemstate.model.units import END
from tests.ingest.truth import ATTEMPTS, GMEM, LATE, NO_CALLS, UNSEEN, Key, Owner, created, keyed, owners
from tests.traces import ALL_CASES, Truth, ground_truth, lines_of, read_case

WITH_RESULTS = [case for case in ALL_CASES if case not in (*ATTEMPTS, *UNSEEN, *NO_CALLS)]
INPLACE = [case for case in WITH_RESULTS if case.startswith(("ip_", "st_gmem")) and case not in ("ip_off", *LATE)]
"""By name, as test data: `ip_off` is an in-place kernel with the mode switched off."""
Runs = list[tuple[int, int, str]]


def owners_by_key(case: str) -> dict[Key, int]:
    """Which space of the reader each space of the program is, by the calls that were made on them."""
    read = read_case(case)
    calls: dict[int, list[int | None]] = {}
    for conversion in read.history.ordered():
        calls.setdefault(conversion.thread or 0, []).append(conversion.owner)
    found: dict[Key, set[int | None]] = {}
    for call, key in keyed(case):
        found.setdefault(key, set()).add(calls[call.thread].pop(0))
    assert all(len(known - {None}) <= 1 for known in found.values()), f"one space is taken for several: {found}"
    mapped = {key: owner for key, known in found.items() for owner in known if owner is not None}
    assert len(set(mapped.values())) == len(mapped), f"several spaces are taken for one: {mapped}"
    return mapped


def contradictions(runs: Runs, owner: Owner, end: int = END) -> list[tuple[int, int, str, str | None]]:
    """Where the runs of ``[0, end)`` say something else than a space. Between two edges of both, all pages are alike."""
    edges = {edge for first, last, _ in runs for edge in (first, last)} | owner.edges() | {0, end}
    states = {first: state for first, _, state in runs}
    found, state = [], "unknown"
    for first, last in pairwise(sorted(edge for edge in edges if edge <= end)):
        state = states.get(first, state)
        certain = owner.state(first)
        if state not in (certain, "unknown") or (state != certain and owner.touched(first)):
            found.append((first, last, state, certain))
    return found


@pytest.mark.parametrize("case", WITH_RESULTS)
def test_every_page_has_the_state_that_the_calls_gave_it_or_is_unknown_where_none_did(case: str) -> None:
    memory = read_case(case).history.memory
    mapped = owners_by_key(case)
    for key, owner in owners(case).items():
        if key not in mapped:
            assert not owner.stored, f"successful calls on {key} are on no space"
            continue
        end = created(case)[key[2]].npages if key[0] == GMEM and created(case) else END
        assert contradictions([*memory.runs(mapped[key], 0, end)], owner, end) == []


def test_what_is_certain_of_a_late_record_is_what_the_same_program_did_in_a_whole_one() -> None:
    late, whole = (keyed(case) for case in ("late_attach", "st_conv"))
    assert [call[1:] for call, _ in late] == [call[1:] for call, _ in whole[7:]]
    (known,), (all_of_it,) = owners("late_attach").values(), owners("st_conv").values()
    assert all(known.state(page) == all_of_it.state(page) for page in {0, *all_of_it.edges()})


@pytest.mark.parametrize("case", INPLACE)
def test_every_page_of_a_guest_memfd_is_known_whose_creation_is_on_record(case: str) -> None:
    memory = read_case(case).history.memory
    mapped = owners_by_key(case)
    for key in [key for key, owner in owners(case).items() if key[0] == GMEM and owner.stored]:
        npages = created(case)[key[2]].npages
        assert "unknown" not in {state for _, _, state in memory.runs(mapped[key], 0, npages)}


@pytest.mark.parametrize("case", [*ATTEMPTS, *UNSEEN, *NO_CALLS])
def test_nothing_is_private_where_no_conversion_is_seen_to_succeed(case: str) -> None:
    memory = read_case(case).history.memory
    states = {state for owner in (*memory.vms, *memory.gmems) for _, _, state in memory.runs(owner)}
    assert states <= {"shared", "unknown"}


@pytest.mark.parametrize("case", ["simple", "enomem", "half_done", "race", "thp_split", "nogmem", "kvm_exits", "simple_graph"])
def test_a_guest_whose_birth_is_on_record_is_known_in_every_gfn(case: str) -> None:
    read = read_case(case)
    for vm in read.history.memory.vms:
        assert "unknown" not in {state for _, _, state in read.runs(vm)}


# --- as the guest sees it -------------------------------------------------------------------------------------------

_COMMIT = re.compile(rb"gmem_commit: .* kvm=(0x\w+) base_gfn=(0x\w+) npages=(\d+) slot=(\d+) pgoff=(0x\w+) inode=(0x\w+) ret=0")
_DELETED = re.compile(rb"set_region_ret: .* ret=0 slot=(\d+) gpa=0x\w+ size=0x0\b")


def bound(case: str) -> dict[tuple[int, int], tuple[int, int, int, str]]:
    """The memslots of each guest that hold a guest_memfd at the end: first gfn, pages, first index, inode."""
    found: dict[tuple[int, int], tuple[int, int, int, str]] = {}
    for line in lines_of(case):
        if match := _COMMIT.search(line):
            kvm, base, npages, slot, index, inode = (group.decode() for group in match.groups())
            found[int(kvm, 16), int(slot)] = (int(base, 16), int(npages), int(index, 16), inode)
        elif match := _DELETED.search(line):
            found = {key: value for key, value in found.items() if key[1] != int(match[1])}
    return found


@pytest.mark.parametrize("case", INPLACE)
def test_in_place_a_gfn_is_what_the_page_of_the_file_behind_it_is_and_shared_without_one(case: str) -> None:
    read = read_case(case)
    newest = {key[1]: owner for key, owner in owners(case).items() if key[0] == GMEM}
    slots = bound(case)
    for pointer in {vm.pointer for vm in read.history.memory.vms.values() if vm.pointer is not None}:
        seen = Owner("shared")
        for (kvm, _), (base, npages, index, inode) in slots.items():
            if kvm == pointer and inode in newest:
                for page in range(npages):
                    seen.stored.append((base + page, base + page + 1, newest[inode].state(index + page) or "unknown"))
        assert contradictions(read.runs(read.guest(pointer)[-1]), seen) == []


# --- at a moment ----------------------------------------------------------------------------------------------------

BUS_ADRERR = 2


def touches(case: str) -> list[tuple[Truth, str]]:
    """The host's touches of the mmap of a guest_memfd, and what each shows: SIGBUS is private, a value is shared."""
    touched = [truth for truth in ground_truth(case) if truth.op in ("host_read", "host_write")]
    seen = [(truth, "private" if truth.number("code") == BUS_ADRERR else "shared") for truth in touched]
    return [(truth, state) for truth, state in seen if "code" not in truth.fields or state == "private"]


@pytest.mark.parametrize("case", [case for case in INPLACE if case != "ip_half_done" and touches(case)])
def test_what_the_host_met_when_it_touched_a_page_was_its_state_at_that_moment(case: str) -> None:
    """`ip_half_done` has two files, and its program does not say which one it touches."""
    rows = read_case(case).rows
    met = []
    for truth, state in touches(case):
        before = next((n for n, row in enumerate(rows) if row[T] is not None and row[T] > truth.t), len(rows))
        memory = History().fold(rows[:before]).memory
        file = next(gmem for gmem in memory.gmems.values() if gmem.inplace or gmem.flags is not None)
        index = (truth.number("offset") or 0) >> 12
        met.append((memory.runs(file.id, index, index + 1)[0].state, state))
    assert all(known in (state, "unknown") for known, state in met)
    assert any(known == state for known, state in met)
