"""A capture of in-place conversions as operations on simulated hosts, and where these are not what the kernel was.

The operations are those that the program itself has reported (ground truth), in their order. Memslots, births of guest_memfds
and touches come from the trace of the same run where it shows them, else from what the program has reported of them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from errno import EAGAIN, ENOTTY
from typing import Any

from gmemstate.convert.engine import users
from gmemstate.convert.engine.ioctl import Fault, Returned, Setting
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model import events as e
from gmemstate.model.linux import GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP
from gmemstate.model.objects import POISONED_PAGE, Conversion
from tests.convert.replayed_vm import PRIVATE, SHARED, call_of, last_exit
from tests.convert.reports import Report, reports
from tests.traces import read_case

HELD_BY = {"vmsplice": users.reference, "gup_test_longterm": users.pin}
LETS_GO = {"read_pipe": "vmsplice", "gup_test_longterm": "gup_test_longterm"}
TELLS_NOTHING = {
    "begin", "end", "cap", "guest_saw", "guest_request", "guest_done", "mmap", "summary", "converted",
        "host_thread", "io_thread",
    "vcpu_thread", "child", "child_gone", "kill", "host_read_plain", "process_vm_readv",
}  # fmt: skip


@dataclass
class File:
    """A guest_memfd, on a host of its own."""

    s: Simulation
    host: users.Mapper
    guest: users.Mapper
    reported: dict[int, str]
    """what its pages are by the results that the program has reported"""
    seen_as: int | None = None
    """what the trace calls it"""
    shown: list[Conversion] = field(default_factory=list)
    """its conversions, as the trace shows them, that were not replayed yet"""
    hva: int | None = None
    """where the program has mapped it"""
    hva_told: bool = False
    fresh: bool = False
    """nothing was touched since its last conversion or punch"""

    @classmethod
    def make(cls, npages: int, flags: int, *, in_place: bool) -> "File":
        mmap, shared = bool(flags & GUEST_MEMFD_FLAG_MMAP), bool(flags & GUEST_MEMFD_FLAG_INIT_SHARED)
        s = Simulation(e.Dialect.INPLACE, setting=Setting(in_place=in_place, mmap=mmap, mmap_is_hva=mmap))
        s.open("replayed")
        s.vm = s.make_vm()
        s.gmem = s.make_gmem(s.vm, npages, shared=shared)
        file = cls(s, users.host("host"), users.guest("guest"), dict.fromkeys(range(npages), SHARED if shared else PRIVATE))
        s.add_user(file.host)
        s.add_user(file.guest)
        return file

    @property
    def kinds(self) -> dict[int, str]:
        return _by_page(self.s.kernel().kinds(self.s.gmem, 0, len(self.reported)))

    def report(self, first: int, last: int, kind: str) -> None:
        self.reported |= dict.fromkeys(range(first, last), kind)

    def at(self, address: int) -> int | None:
        """The page at a host address."""
        page = -1 if self.hva is None else address - self.hva >> 12
        return page if 0 <= page < len(self.reported) else None


class InPlace:
    """A run on a kernel with in-place conversion; ``wrong`` has what a simulated host does otherwise.

    ``notes`` says what is special about calls, by the program's own words. In a ``transient`` run others touched and held
    pages at moments that nobody knows: only the calls are replayed, and where one was refused, somebody holds that page.
    """

    def __init__(self, case: str, notes: dict[str, dict[str, Any]], *, in_place: bool = True, transient: bool = False) -> None:
        self.trace = read_case(case)
        self.notes, self.in_place, self.transient = notes, in_place, transient
        self.files: dict[int, File] = {}
        """by descriptor; a number that is used again is another file"""
        self.all: list[File] = []
        self.slots: dict[int | None, tuple[int, int]] = {}
        """by first gfn: the number of the slot and its hva"""
        self.pins: dict[str, tuple[File, users.Holder]] = {}
        self.wrong: list[str] = []
        self.compared = dict.fromkeys(("conversions", "page tables", "guest entries", "touches", "exits"), 0)
        host = [row for row in self.trace.rows if row[e.KIND] == e.FaultServed.code and row[e.ACTOR] == e.Access.HOST]
        self.shows_touches = bool(host)
        for step, what in self.steps(case):
            step(what)
        for file in self.all:
            self.settle(file)

    def steps(self, case: str) -> list[tuple[Callable[[Any], None], Any]]:
        """What the trace shows and what the program reports, in the order of time."""
        traced = {e.GmemCreated.code: self.created, e.SlotSet.code: self.slot_set, e.GmemBound.code: self.bound}
        if not self.transient:
            traced[e.FaultServed.code] = self.touched
        steps: list[tuple[float, Callable[[Any], None], Any]] = [
            ((row[e.T] or 0) / 1e9, traced[row[e.KIND]], row) for row in self.trace.rows if row[e.KIND] in traced
        ]
        steps += [
            (report.begun, getattr(self, f"op_{report.op}"), report)
            for report in reports(case)
            if report.op not in TELLS_NOTHING and (not self.transient or report.op == "set_memory_attributes2")
        ]
        return [step[1:] for step in sorted(steps, key=lambda step: step[0])]

    def check(self, what: str, found: object, expected: object, where: object) -> None:
        self.compared[what] += 1
        if found != expected:
            self.wrong.append(f"{where}: {what}: {found}, but on the kernel {expected}")

    def settle(self, file: File) -> None:
        """The last state of each page, by what was reported and by what the trace shows.

        A program that was killed could not report its last call.
        """
        for conversion in file.shown:
            if conversion.start is None:
                continue  # of an ioctl that it does not know the kernel reads nothing (ENOTTY)
            assert conversion.end is not None
            target = conversion.target or "?"
            returned = file.s.convert_pages(conversion.start, conversion.end, target)
            self.check("conversions", returned, Returned(conversion.result or 0), f"not reported: {conversion.start}")
            file.report(conversion.start, conversion.end if not conversion.result else 0, target)
        if file.kinds != file.reported:
            self.wrong.append(f"at the end {file.kinds}, reported {file.reported}")
        memory = self.trace.history.memory
        if file.seen_as in memory.gmems and memory.gmems[file.seen_as].inplace:
            shown = _by_page(memory.runs(file.seen_as, 0, len(file.reported)))
            if file.kinds != shown:
                self.wrong.append(f"at the end {file.kinds}, the trace shows {shown}")

    # --- what the trace shows

    def make(self, fd: int, npages: int, flags: int) -> File:
        self.files[fd] = file = File.make(npages, flags, in_place=self.in_place)
        self.all.append(file)
        return file

    def created(self, row: e.EventRow) -> None:
        if not row[e.RESULT]:
            file = self.make(e.details(row[e.DETAIL])["fd"], row[e.NPAGES] or 0, row[e.VALUE] or 0)
            file.seen_as = row[e.OWNER]
            if not self.transient:
                file.shown = [conversion for conversion in self.trace.history.ordered() if conversion.owner == row[e.OWNER]]

    def slot_set(self, row: e.EventRow) -> None:
        """A slot that is bound to a guest_memfd is set when that is shown."""
        slot, start, npages = row[e.ACTOR] or 0, row[e.START] or 0, row[e.NPAGES] or 0
        self.slots[row[e.START]] = slot, int(e.details(row[e.DETAIL])["hva"], 16)
        for s in (file.s for file in self.all):
            if not npages and slot in s.memory.vms[s.vm].slots:
                s.delete_slot(s.vm, slot)
            elif npages and not row[e.VALUE]:
                s.set_slot(s.vm, slot, start, npages)

    def bound(self, row: e.EventRow) -> None:
        slot, hva = self.slots[row[e.START]]
        for file in self.all:
            if file.seen_as == row[e.ACTOR]:
                file.s.set_slot(file.s.vm, slot, row[e.START] or 0, row[e.NPAGES] or 0, file.s.gmem, row[e.VALUE] or 0)
                if file.s.setting.mmap and not file.hva_told:
                    file.hva = hva - ((row[e.VALUE] or 0) << 12)

    def touched(self, row: e.EventRow) -> None:
        """Somebody touches pages; the kernel's handler serves a poisoned page too, and generic code refuses it then."""
        start, end, host = row[e.START] or 0, (row[e.START] or 0) + (row[e.NPAGES] or 1), row[e.ACTOR] == e.Access.HOST
        for file in self.all:
            s = file.s
            runs = [(first, last) for _, first, last, _ in s.memory.indices(s.vm, start, end)]
            if host:
                here = row[e.OWNER] == file.seen_as or (row[e.OWNER] is None and len(self.all) == 1)
                runs = [(start, end)] if here else []
            for page in (page for first, last in runs for page in range(first, last)):
                served = s.access(file.host if host else file.guest, page)
                file.fresh = False
                if s.memory.gmems[s.gmem].backing.get(page) != POISONED_PAGE:
                    self.check("touches", served, not row[e.RESULT], row)

    # --- what the program has reported

    def op_create_guest_memfd(self, report: Report) -> None:
        if not report.errno and report.number("fd") not in self.files:
            self.make(report.number("fd"), report.number("size") >> 12, report.number("flags"))

    def op_memslot(self, report: Report) -> None:
        if "gpa" in report.fields:
            file = self.all[-1]
            s, mapped = file.s, report.fields["mmap_of_guest_memfd"]
            file.hva, file.hva_told = None if mapped == "(nil)" else int(mapped, 16), True
            s.setting = replace(s.setting, mmap_is_hva=report.fields["userspace_addr"] == mapped)
            if not s.memory.vms[s.vm].slots:
                s.set_slot(s.vm, report.number("slot"), report.number("gpa") >> 12, report.number("size") >> 12, s.gmem)

    def op_set_memory_attributes2(self, report: Report) -> None:
        how = dict(self.notes.get(report.note, {}))
        if how.pop("skip", False):
            return
        file = self.files[report.number("fd")]
        s, rows = file.s, len(file.s.rows)
        s.setting = replace(s.setting, private_mem=how.pop("private_mem", s.setting.private_mem))
        s.faults = [Fault("reserve", errno=how.pop("fault"))] if "fault" in how else []
        somebody = users.reference("somebody", [])
        if self.transient and report.errno == EAGAIN:
            page = report.number("error_offset") >> 12
            s.allocate(page, page + 1)
            somebody.pages.add(page)
            s.add_user(somebody)
        returned = s.convert(call_of(s.gmem, report, **how))
        s.release(somebody)
        before = report.number("error_in") if "error_in" in report.fields else 0
        expected = report.errno, report.number("error_offset") if "error_offset" in report.fields else before
        found = returned and (returned.errno, before if returned.error_offset is None else returned.error_offset)
        self.check("conversions", found, expected, report.text)
        if not report.errno:
            file.report(report.pages.start, report.pages.stop, PRIVATE if report.number("attrs") & 8 else SHARED)
        if file.shown:
            self.guest_entries(file.shown.pop(0), s.rows[rows:], report)
        file.fresh = True

    def guest_entries(self, shown: Conversion, rows: list[e.EventRow], report: Report) -> None:
        """How many entries the guest has lost by a conversion, where the trace shows each of them."""
        assert shown.result == report.errno, report.text
        if e.Capability.GUEST_ENTRIES in shown.shown and report.errno in (0, EAGAIN):
            lost = [
                sum(row[e.VALUE] or 0 for row in answers if row[e.KIND] == e.UserAnswered.code and row[e.ACTOR] == e.User.GUEST)
                for answers in (rows, shown.answers)
            ]
            self.check("guest entries", *lost, report.text)

    def op_set_memory_attributes(self, report: Report) -> None:
        """The ioctl on the VM, which such a kernel still has; on a guest_memfd it is unknown."""
        if report.errno != ENOTTY:
            s = self.all[0].s
            self.check("conversions", s.convert(call_of(s.vm, report)), Returned(report.errno), report.text)

    def mapped(self, report: Report) -> tuple[File, int] | None:
        """The file and the page that a host access is about; None where that cannot be known."""
        address = report.fields.get("addr") or report.fields.get("hva")
        if address is not None:
            found = [(file, page) for file in self.all if (page := file.at(int(address, 16))) is not None]
            return found[0] if found else None
        alone = len(self.all) == 1 and self.all[0].hva is not None
        return (self.all[0], report.number("offset") >> 12) if alone else None

    def op_host_read(self, report: Report) -> None:
        if place := self.mapped(report):
            file, page = place
            refused = "SIGBUS" in report.text or report.errno != 0
            self.check("touches", file.s.access(file.host, page), not refused, report.text)
            file.fresh = False

    op_host_write = op_write_from_private = op_host_read

    def op_host_ptes(self, report: Report) -> None:
        """Which host page table entries are there. Where nothing shows the touches before, they are taken from here."""
        file = self.all[0]
        runs = re.findall(r"(\d+)-(\d+)|(\d+)", report.fields["ranges"])
        pages = {page for first, last, alone in runs for page in range(int(first or alone), int(last or alone) + 1)}
        if file.fresh or self.shows_touches:
            self.check("page tables", file.host.pages, pages, report.text)
        for page in sorted(pages - file.host.pages):
            file.s.access(file.host, page)

    def op_host_retouch(self, report: Report) -> None:
        file = self.all[0]
        missing = [page for page in range(report.number("pages")) if page not in file.host.pages]
        if not self.shows_touches:
            self.check("page tables", len(missing), report.number("minor_faults"), report.text)
        for page in missing:
            file.s.access(file.host, page)

    def op_pin(self, report: Report) -> None:
        if report.number("ret") < 0:
            self.op_host_read(report)
        elif report.number("size") and (place := self.mapped(report)):
            file, page = place
            how = report.fields["how"]
            file.s.access(file.host, page)
            holder = HELD_BY[how](how, [page])
            file.s.add_user(holder)
            self.pins[how] = file, holder

    def op_unpin(self, report: Report) -> None:
        file, holder = self.pins.pop(LETS_GO[report.fields["how"]])
        file.s.release(holder)

    def op_fallocate(self, report: Report) -> None:
        if not report.errno:
            file = self.files[report.number("fd")]
            do = file.s.punch if report.number("mode") & 2 else file.s.fallocate
            do(report.pages.start, report.pages.stop)
            file.fresh = True

    def op_SIGBUS(self, report: Report) -> None:  # noqa: N802 - as the programs spell it
        if place := self.mapped(report):
            place[0].s.poison(place[1])

    def op_hwpoison_inject(self, report: Report) -> None:
        self.all[0].s.poison(report.number("page"))

    def op_close(self, report: Report) -> None:
        self.files[report.number("fd")].s.close_gmem()

    def op_KVM_RUN(self, report: Report) -> None:  # noqa: N802 - as the programs spell it
        """An exit that says why the guest does not get its page; what it got is in the trace."""
        if "gpa" in report.fields and report.errno:
            file, gfn = self.all[0], report.number("gpa") >> 12
            page = next((index for _, index, *_ in file.s.memory.indices(file.s.vm, gfn, gfn + 1)), gfn)
            file.s.access(file.guest, page, private=bool(report.number("flags")))
            self.check("exits", last_exit(file.s), (gfn, report.errno, report.number("flags")), report.text)


def _by_page(runs: Any) -> dict[int, str]:
    return {page: kind for start, end, kind in runs for page in range(start, end)}
