"""What a guest asks for in a simulation, and how KVM cuts it into exits that a VMM answers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from gmemstate.convert.simulation.operations import VCPU, Simulation
from gmemstate.decode.hypercalls import ENCRYPTED
from gmemstate.model.events import GuestAnswered, GuestAsked, RequestPath, VcpuExited, VmmSaid, detail
from gmemstate.model.linux import EAGAIN, EINVAL, KVM_EXIT_HYPERCALL
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.units import Gfn, gpa_of

CHUNK = 512
"""TDX_MAP_GPA_MAX_LEN: KVM hands a MapGPA to the VMM 2 MiB at a time."""
RETRY, INVALID_OPERAND = 1, -(1 << 63)
"""TDVMCALL_STATUS_RETRY; TDVMCALL_STATUS_INVALID_OPERAND as a signed number"""
GENERIC_ERROR = 0x100 << 32
"""What SW_EXITINFO2 says when a page state change fails otherwise."""

Runs = Sequence[tuple[int, int]]


def ask(
    simulation: Simulation, runs: Runs, kind: str, path: RequestPath, answers: Sequence[int | None], interrupted: int | None
) -> list[int]:
    """A guest asks for pages; the VMM converts each part that it is handed and answers with what the ioctl said.

    ``answers`` overrides the VMM's answer to the n-th exit (an errno; it does not convert then). ``interrupted``: an
    interrupt is pending after the n-th chunk of a MapGPA. Returns what each request returned, in order.
    """
    returned: list[int] = []
    exits = iter(answers)
    if path is RequestPath.TDVMCALL:
        for start, end in runs:
            at: int | None = start
            while at is not None and at < end:
                at = _map_gpa(simulation, at, end, kind, exits, interrupted, returned)
                interrupted = None
        return returned
    merged = _merged(runs) if path is RequestPath.PSC_GHCB else runs
    request = _asked(simulation, merged[0][0], merged[-1][1], kind, path, runs)
    error = 0
    for start, end in merged:
        error = _exit(simulation, start, end, kind, next(exits, None))
        if error:
            break
    result = -error if path is RequestPath.VMCALL else GENERIC_ERROR if error else 0
    simulation.record(GuestAnswered(request=request, result=result, owner=simulation.vm, thread=VCPU))
    return [result]


def _map_gpa(
    simulation: Simulation,
    start: int,
    end: int,
    kind: str,
    exits: Iterator[int | None],
    interrupted: int | None,
    returned: list[int],
) -> int | None:
    """One TDVMCALL, chunk by chunk; returns where the guest asks again at once, as it does after an interrupt."""
    request = _asked(simulation, start, end, kind, RequestPath.TDVMCALL)
    at, n = start, 0
    while at < end:
        stop = min(end, at + CHUNK)
        error = _exit(simulation, at, stop, kind, next(exits, None))
        n += 1
        if error and error != EAGAIN:
            _answer(simulation, request, INVALID_OPERAND, at, returned)
            return None
        if error:
            _answer(simulation, request, RETRY, at, returned)
            return None
        at = stop
        if n == interrupted and at < end:
            _answer(simulation, request, RETRY, at, returned)
            return at
    _answer(simulation, request, 0, None, returned)
    return None


def _answer(simulation: Simulation, request: int, result: int, at: int | None, returned: list[int]) -> None:
    next_gpa = None if at is None else gpa_of(Gfn(at))
    simulation.record(GuestAnswered(request=request, result=result, owner=simulation.vm, thread=VCPU, next_gpa=next_gpa))
    returned.append(result)


def _asked(simulation: Simulation, start: int, end: int, kind: str, path: RequestPath, entries: Runs = ()) -> int:
    flags = ENCRYPTED if kind == PRIVATE else 0
    facts = detail(entries=[list(entry) for entry in entries]) if len(entries) > 1 else None
    asked = GuestAsked(request=simulation.reference(), thread=VCPU, owner=simulation.vm, start=start, npages=end - start)
    return simulation.record(replace(asked, flags=flags, path=path, detail=facts))


def _exit(simulation: Simulation, start: int, end: int, kind: str, answer: int | None) -> int:
    """KVM_EXIT_HYPERCALL: the VMM converts and answers with one of the errnos that KVM takes (0, EINVAL, EAGAIN)."""
    simulation.record(VcpuExited(thread=VCPU, owner=simulation.vm, reason=KVM_EXIT_HYPERCALL))
    if answer is not None:
        simulation.record(
            VmmSaid(owner=simulation.vm, result=answer, detail=detail(text="the VMM converts nothing, and answers"))
        )
        return answer
    for owner, first, last in _ioctls(simulation, start, end):
        returned = simulation.convert_pages(first, last, kind, owner=owner, thread=VCPU)
        if returned is not None and returned.errno:
            return returned.errno if returned.errno in (EAGAIN, EINVAL) else EINVAL
    return 0


def _ioctls(simulation: Simulation, start: int, end: int) -> list[tuple[int, int, int]]:
    """The conversions that gfns of a guest need: one on the VM, or one for each piece of a guest_memfd that backs them."""
    if simulation.in_vm:
        return [(simulation.vm, start, end)]
    slots = sorted(simulation.memory.indices(simulation.vm, start, end), key=lambda part: part[3].start)
    return [(gmem, first, last) for gmem, first, last, _ in slots]


def _merged(entries: Runs) -> list[tuple[int, int]]:
    """Contiguous entries of a page state change of the same page size go to the VMM in one exit."""
    merged: list[tuple[int, int]] = []
    sizes: list[int] = []
    for start, end in entries:
        if merged and merged[-1][1] == start and sizes[-1] == end - start:
            merged[-1] = merged[-1][0], end
        else:
            merged.append((start, end))
            sizes.append(end - start)
    return merged
