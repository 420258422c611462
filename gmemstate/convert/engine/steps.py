"""The engine: carries out the steps of an ioctl, as a dialect takes them, one by one."""

from collections.abc import Callable
from dataclasses import replace

from gmemstate.convert.engine.ioctl import ConversionCall, Returned
from gmemstate.convert.engine.kernel import THIS, Ask, Kernel, Steps
from gmemstate.convert.engine.users import UnmapAnswer
from gmemstate.model.events import ConvertAsked, ConvertReturned, Event, Through, detail
from gmemstate.model.linux import PAGE_SHIFT, PRIVATE_ATTRIBUTE
from gmemstate.model.units import hexadecimal, pages

Dialect = Callable[[Kernel, ConversionCall], Steps]


def carry_out(dialect: Dialect, kernel: Kernel, call: ConversionCall, through: Through) -> Steps:
    """A whole ioctl: its entry, the steps of the dialect, its return."""
    if through is Through.GMEM_CONVERT:  # the direction is the number of the ioctl
        call = replace(call, attributes=call.attributes & PRIVATE_ATTRIBUTE)
    run = pages(call.address, call.size) if call.readable else None
    if call.readable and call.size == 0:
        run = call.address >> PAGE_SHIFT, 0
    unaligned = None if run or not call.readable else {"address": hexadecimal(call.address), "size": hexadecimal(call.size)}
    yield ConvertAsked(
        conversion=THIS,
        through=through,
        owner=call.owner,
        thread=call.thread,
        start=run[0] if run else None,
        npages=run[1] if run else None,
        attributes=call.attributes if call.readable else None,
        detail=detail(**(unaligned or {}), **_odd(call)),
    )
    returned = yield from dialect(kernel, call)
    if returned is not None:
        yield ConvertReturned(
            conversion=THIS, result=returned.errno, owner=call.owner, error_offset=returned.error_offset, thread=call.thread
        )
    return returned


def _odd(call: ConversionCall) -> dict[str, str]:
    """What a call passes that others leave 0, and that its answer cannot be written."""
    fields = {"flags": call.flags, "reserved": call.reserved, "error_offset": call.error_offset}
    odd = {name: f"{value:#x}" for name, value in fields.items() if value and call.readable}
    return odd if call.writable else {**odd, "struct": "read-only"}


def drive(steps: Steps, append: Callable[[Event], None]) -> Returned | None:
    """Carry steps out: each event is appended (and stored) before the next step, each question is put to its user."""
    answer: UnmapAnswer | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            returned: Returned | None = end.value
            return returned
        answer = None
        if isinstance(step, Ask):
            answer = step.put()
        else:
            append(step)
