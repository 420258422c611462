"""A capture of KVM_SET_MEMORY_ATTRIBUTES as operations on a simulated host, and where that host is not what the kernel was.

The calls are those that the program has reported, in their order; memslots and guest_memfds are those that the trace shows.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import ConversionCall, Fault, Returned, Setting
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model import events as e
from gmemstate.model.linux import KVM_MEM_GUEST_MEMFD
from gmemstate.model.objects import Conversion
from tests.convert.reports import Report, reports
from tests.traces import coalesced, lines_of, read_case

PRIVATE, SHARED = "private", "shared"
SKIP: dict[str, Any] = {"skip": True}
"""For a call that went to something else than what is simulated."""


def call_of(owner: int, report: Report, **how: Any) -> ConversionCall:
    """The call of a report."""
    if "arg" in report.fields:
        return ConversionCall(owner, 0, 0, readable=False)
    address = report.number("offset" if "offset" in report.fields else "gpa")
    return ConversionCall(owner, address, report.number("size"), report.number("attrs"), report.number("flags"), **how)


def last_exit(s: Simulation) -> tuple[int | None, int | None, int | None] | None:
    """Where and why the guest was not served, if the last thing that happened is that."""
    event = e.event_of(s.rows[-1])
    return (event.start, event.result, event.flags) if isinstance(event, e.MemoryFaultExit) else None


def _held_off(row: e.EventRow) -> bool:
    return row[e.KIND] == e.InvalidateAdded.code and row[e.CONVERSION] is not None


def straddled(rows: list[e.EventRow]) -> list[tuple[Any, ...]]:
    """What a trace shows of held off ranges: the range of a slot itself comes first, by a call that is inlined."""
    return [row[e.START : e.NPAGES + 1] for before, row in pairwise(rows) if _held_off(row) and _held_off(before)]


class OnVm:
    """A run on a kernel whose attributes live in the VM; ``calls`` says of some conversions, by their number, what is special.

    Where the program has reported none, the calls are those that the trace shows. ``held_off``: the huge ranges beside what
    is converted that the kernel has invalidated; a trace that begins late does not say in which memslots they lie.
    """

    def __init__(self, case: str, calls: dict[int, dict[str, Any]]) -> None:
        self.trace = read_case(case)
        self.s = self.host()
        self.default = replace(self.host(), setting=Setting(private_mem=False))
        self.guest = users.guest("guest")
        self.reported: dict[int, str] = {}
        self.wrong: list[str] = []
        self.conversions = self.exits = 0
        for row in self.trace.rows:
            self.memory(row)
        self.s.add_user(self.guest)
        numbers = iter(range(1000))
        for report in reports(case):
            if report.op == "set_memory_attributes":
                self.convert(report, **calls.get(next(numbers), {}))
            elif handler := getattr(self, f"op_{report.op}", None):
                handler(report)
        for conversion in self.trace.history.ordered() if not next(numbers) else ():
            self.as_shown(conversion)
        self.settle()
        self.held_off = [row[e.START : e.NPAGES + 1] for row in self.trace.rows if _held_off(row)]
        shown = any(b": inv_end:" in line for line in lines_of(case)) and self.s.memory.vms[self.s.vm].slots
        if shown and self.held_off != (found := straddled(self.s.rows)):
            self.wrong.append(f"held off besides what is converted: {found}, on the kernel {self.held_off}")

    def host(self) -> Simulation:
        s = Simulation(e.Dialect.MAINLINE)
        s.open("replayed")
        s.vm = s.make_vm()
        return s

    def memory(self, row: e.EventRow) -> None:
        """Guest_memfds and memslots, before anything else: mainline keeps attributes whatever becomes of them."""
        s = self.s
        if row[e.KIND] == e.GmemCreated.code and not row[e.RESULT]:
            gmem = s.make_gmem(s.vm, row[e.NPAGES] or 0, shared=False)
            s.gmem = s.gmem or gmem
        elif row[e.KIND] == e.SlotSet.code and not row[e.RESULT] and row[e.NPAGES]:
            gmem = max(s.memory.gmems, default=None) if (row[e.VALUE] or 0) & KVM_MEM_GUEST_MEMFD else None
            s.set_slot(s.vm, row[e.ACTOR] or 0, row[e.START] or 0, row[e.NPAGES], gmem)

    def convert(self, report: Report, skip: bool = False, default: bool = False, fault: int = 0, **how: Any) -> None:
        if skip:
            return
        s = self.default if default else self.s
        s.faults = [Fault("reserve", errno=fault)] if fault else []
        self.compare(s.convert(call_of(s.vm, report, **how)), report.errno, report.text)
        if not report.errno and not default:
            self.reported |= dict.fromkeys(report.pages, PRIVATE if report.number("attrs") & 8 else SHARED)

    def as_shown(self, conversion: Conversion) -> None:
        assert conversion.start is not None
        assert conversion.end is not None
        returned = self.s.convert_pages(conversion.start, conversion.end, conversion.target or "?")
        self.compare(returned, conversion.result, f"{conversion.start:#x}")

    def compare(self, returned: Returned | None, errno: int | None, where: str) -> None:
        self.conversions += 1
        if errno is not None and returned != Returned(errno):
            self.wrong.append(f"{where}: {returned}, on the kernel {errno}")

    def op_fallocate(self, report: Report) -> None:
        if not report.errno and report.number("mode") & 2 and self.s.gmem:
            self.s.punch(report.pages.start, report.pages.stop)

    def op_hwpoison_inject(self, report: Report) -> None:
        gfn = report.number("gfn")
        _, index, *_ = next(self.s.memory.indices(self.s.vm, gfn, gfn + 1))
        self.s.access(self.guest, gfn)
        self.s.poison(index)

    def op_KVM_RUN(self, report: Report) -> None:  # noqa: N802 - as the programs spell it
        """An exit that says why the guest does not get its page."""
        if "gpa" in report.fields and report.errno:
            gfn, flags = report.number("gpa") >> 12, report.number("flags")
            self.s.access(self.guest, gfn, private=bool(flags))
            self.exits += 1
            if last_exit(self.s) != (gfn, report.errno, flags):
                self.wrong.append(f"{report.text}: {last_exit(self.s)}")

    def settle(self) -> None:
        """The last state of each gfn, by what was reported and by what the trace shows of the first guest."""
        for gfn, kind in self.reported.items():
            if (found := self.s.memory.attribute(self.s.vm, gfn)) != kind:
                self.wrong.append(f"at the end gfn {gfn:#x} is {found}, reported {kind}")
        guests = sorted(self.trace.history.memory.vms)
        for start, end, kind in self.trace.runs(guests[0]) if guests else ():
            runs = coalesced(self.s.memory.runs(self.s.vm, start, end))
            if kind in (SHARED, PRIVATE) and runs != [(start, end, kind)]:
                self.wrong.append(f"at the end {runs}, the trace shows {kind} from {start:#x} to {end:#x}")
