"""What is certain of a capture without gmemstate: what its program reported, and what single lines of the kernel say."""

import re
from functools import cache
from typing import NamedTuple

from tests.traces import ground_truth, lines_of, meta

NOT_OURS = {
    ("einval", 12): "a vCPU fd: kvm_vcpu_ioctl answers EINVAL",
    ("einval", 13): "a guest_memfd fd of a kernel without ioctls there",
    ("capture_tool", 15): "einval 12 after the three calls of its case simple",
    ("capture_tool", 16): "einval 13 after the three calls of its case simple",
    ("ip_einval", 19): "a vCPU fd: kvm_vcpu_ioctl answers EINVAL",
}
"""Calls of the program (case, number) that reach no handler of conversions."""

NEW_IOCTL_ON_A_VM = ("ip_einval", 18)
"""KVM_SET_MEMORY_ATTRIBUTES2 on a VM fd: kvm_vm_ioctl answers ENOTTY."""

OLD_IOCTL_ON_A_FILE = ("ip_einval", 22)
"""KVM_SET_MEMORY_ATTRIBUTES on a guest_memfd fd: kvm_gmem_ioctl answers ENOTTY, and its arguments are no offset and size."""

OVERWRITTEN = {"ip_lost_overrun": 1}
"""How many of the first calls were overwritten in the ring buffer."""

MISSED = {"busy_24_vcpus": 7}
"""How many returns the return probe missed: its instances had run out. The calls are all of one VM."""

FAILURES_ONLY = "ip_race_host2"
"""Its program did not report the calls that succeeded."""

UNSEEN = ("ip_basic_tp", "ip_eagain_tp")
"""In-place conversions, static tracepoints only: there is none for them."""

ATTEMPTS = ("simple_tp", "st_conv_tp")
"""Conversions on the VM, static tracepoints only: those show attempts."""

LATE = ("kill_mid", "lost_overrun", "ip_lost_overrun")
"""Tracing began when the guest was there already (kill_mid: events of its child alone), or the beginning was overwritten.

`late_attach` missed the first seven of the conversions that `st_conv` shows, but the others leave every page as all do.
"""

NO_CALLS = ("guest_ask_nocap", "lost_overrun", "st_guest_memfd", "st_set_region")
"""Nothing is converted, or none of it is left in the ring buffer."""

PRIVATE = 0x8
VM, GMEM = "vm_ioctl", "gmem_ioctl"
INIT_SHARED = 2


class Call(NamedTuple):
    """An ioctl as it was asked and answered; what cannot be read is None."""

    thread: int
    through: str
    address: int | None
    size: int | None
    attributes: int | None
    errno: int | None


class Reported(NamedTuple):
    """A call with the moment of its return (ns) and the fd it was made on, if they are known."""

    call: Call
    t: int
    fd: int | None


UNREPORTED = {
    "kill_mid": Reported(Call(379, VM, 4 << 30, 16 << 30, PRIVATE, 0), 18_776_000_000, None),
    "ip_kill_mid": Reported(Call(140, GMEM, 0, 1 << 30, PRIVATE, 0), 8_290_000_000, 8),
}
"""The last call of a program that was killed in it: the kernel finishes it, nobody is left to report."""

_THROUGH = {"set_memory_attributes": VM, "set_memory_attributes2": GMEM}


@cache
def reported(case: str) -> tuple[Reported, ...]:
    """All calls that reached the kernel's handlers, as the program of a case has reported them, by time of return."""
    calls = [truth for truth in ground_truth(case) if truth.op in _THROUGH]
    found = []
    for number, truth in enumerate(calls):
        if (case, number) in NOT_OURS:
            continue
        through = VM if (case, number) == NEW_IOCTL_ON_A_VM else _THROUGH[truth.op]
        address = truth.number("gpa" if truth.op == "set_memory_attributes" else "offset")
        call = Call(truth.thread, through, address, truth.number("size"), truth.number("attrs"), truth.errno)
        if (case, number) == OLD_IOCTL_ON_A_FILE:
            call = Call(truth.thread, GMEM, None, None, None, truth.errno)
        found.append(Reported(call, truth.t, truth.number("fd")))
    if case in UNREPORTED:
        found.append(UNREPORTED[case])
    return tuple(found[OVERWRITTEN.get(case, 0) :])


# --- single lines -------------------------------------------------------------------------------------------------

_RETURN = re.compile(
    rb"-(\d+) +\[.* (\d+)\.(\d{6}): (?:vm_ioctl_ret: .* cmd=0x(?:4020|c080)aed2|gmem_ioctl_ret: .* cmd=0x(4020|c080)aed2) "
    rb"ret=(-?\d+) (?:addr|offset)=(\S+) size=(\S+) attrs=(\S+) .*?(kvm|inode)=(0x\w+)"
)
_ATTEMPT = re.compile(rb"-(\d+) +\[.*mem_attributes: (0x\w+) -- (0x\w+) \[(0x\w+)\]")
_CREATE = re.compile(rb"-(\d+) +\[.* (\d+)\.(\d{6}): gmem_create: .* size=(0x\w+) flags=(0x\w+) fd=(\d+)")
_DESTROYED = re.compile(rb" (\d+)\.(\d{6}): vm_destroyed: .* kvm=(0x\w+)")


class Returned(NamedTuple):
    """A line of a conversion's return; ``owner`` is the pointer of the VM or of the inode."""

    call: Call
    t: int
    owner: str


@cache
def returned(case: str) -> tuple[Returned, ...]:
    """All conversions whose return the kernel shows, in order."""
    found = []
    for line in lines_of(case):
        if match := _RETURN.search(line):
            thread, s, us, to_file, ret, address, size, attributes, kind, pointer = (
                (group or b"").decode() for group in match.groups()
            )
            through = VM if kind == "kvm" else GMEM
            asked = (None, None, None) if to_file == "4020" else (int(address, 16), int(size, 16), int(attributes, 16))
            call = Call(int(thread), through, *asked, -int(ret))
            found.append(Returned(call, int(s + us) * 1000, pointer))
    return tuple(found)


def attempts(case: str) -> list[Call]:
    """All attempts that the static tracepoint shows."""
    matches = [match for line in lines_of(case) if (match := _ATTEMPT.search(line))]
    return [
        Call(int(match[1]), VM, int(match[2], 16) << 12, int(match[3], 16) - int(match[2], 16) << 12, int(match[4], 16), None)
        for match in matches
    ]


class Created(NamedTuple):
    """A guest_memfd when it was made (ns)."""

    t: int
    fd: int
    npages: int
    flags: int


@cache
def created(case: str) -> tuple[Created, ...]:
    """All guest_memfds that were made, as the kernel shows them, else as the program has reported them."""
    lines = [match for line in lines_of(case) if (match := _CREATE.search(line))]
    if lines:
        return tuple(
            Created(int(match[2] + match[3]) * 1000, int(match[6]), int(match[4], 16) >> 12, int(match[5], 16))
            for match in lines
        )
    made = [truth for truth in ground_truth(case) if truth.op == "create_guest_memfd" and not truth.errno]
    return tuple(
        Created(truth.t, truth.number("fd") or 0, (truth.number("size") or 0) >> 12, truth.number("flags") or 0)
        for truth in made
    )


@cache
def destructions(case: str) -> tuple[tuple[int, str], ...]:
    """When VMs were destroyed (ns), and at which pointer: the next one may get the same address."""
    matches = [match for line in lines_of(case) if (match := _DESTROYED.search(line))]
    return tuple((int(match[1] + match[2]) * 1000, match[3].decode()) for match in matches)


# --- what must be true at the end ---------------------------------------------------------------------------------


class Owner:
    """One holder of attributes, a VM or a guest_memfd: a list of everything that was stored in it."""

    def __init__(self, born: str | None) -> None:
        self.born = born
        self.stored: list[tuple[int, int, str]] = []

    def state(self, page: int) -> str | None:
        """The state of a page; None where nothing is certain."""
        return next((kind for start, end, kind in reversed(self.stored) if start <= page < end), self.born)

    def touched(self, page: int) -> bool:
        return any(start <= page < end for start, end, _ in self.stored)

    def edges(self) -> set[int]:
        return {edge for start, end, _ in self.stored for edge in (start, end)}


Key = tuple[str, str, int]
"""Through what, at which pointer, and the number of its creation: of a guest_memfd among all, of a VM among those at its
address."""


@cache
def keyed(case: str) -> tuple[tuple[Call, Key], ...]:
    """Each call with the space that it was made on, in the order of their returns."""
    shown = returned(case)
    if not meta(case)["ground_truth"] or case == FAILURES_ONLY:
        return tuple((one.call, (one.call.through, one.owner, 0)) for one in shown)
    pointers: dict[int, list[str]] = {}
    if case in MISSED:
        (only,) = {one.owner for one in shown}
        assert len(reported(case)) - len(shown) == MISSED[case]
        return tuple((one.call, (one.call.through, only, 0)) for one in reported(case))
    for one in shown:
        pointers.setdefault(one.call.thread, []).append(one.owner)
    found = []
    for one in reported(case):
        pointer = pointers[one.call.thread].pop(0) if shown else "the only one"
        if one.call.through == VM:
            made = sum(t < one.t for t, destroyed in destructions(case) if destroyed == pointer)
        else:
            made = max(
                (number for number, file in enumerate(created(case)) if file.fd == one.fd and file.t <= one.t), default=0
            )
        found.append((one.call, (one.call.through, pointer, made)))
    assert not any(pointers.values()), "the kernel shows calls that nobody has reported"
    return tuple(found)


def owners(case: str) -> dict[Key, Owner]:
    """What the successful calls of a case amount to."""
    found: dict[Key, Owner] = {}
    for call, key in keyed(case):
        born = None if case in LATE else "shared"
        if call.through == GMEM and born is not None:
            made = created(case)
            born = None if not made else "shared" if made[key[2]].flags & INIT_SHARED else "private"
        owner = found.setdefault(key, Owner(born))
        if call.errno == 0 and call.address is not None and call.size is not None:
            kind = "private" if call.attributes == PRIVATE else "shared"
            owner.stored.append((call.address >> 12, call.address + call.size >> 12, kind))
    return found
