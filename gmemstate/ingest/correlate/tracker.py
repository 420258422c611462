"""The join: who is who in a trace, and the events that its facts amount to.

A kvm pointer is one guest from one birth on; a line without one belongs to the guest of its thread if that thread was
seen with exactly one, else to nobody. Facts of a thread nest like its calls. What cannot be decided stays None.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gmemstate.ingest.correlate.trackees import GmemState, Run, Thread, VmState
from gmemstate.ingest.fact import Fact, Marker
from gmemstate.model.events import (
    Capability,
    Dialect,
    DialectSeen,
    Event,
    Gap,
    GapKind,
    GmemSeen,
    SourceShows,
    VmSeen,
    detail,
)
from gmemstate.text import printable

if TYPE_CHECKING:
    from gmemstate.ingest.correlate.kernel_report import Report

SHOWS = {
    "vm_ioctl": Capability.ASKED,
    "gmem_ioctl": Capability.ASKED,
    "vm_ioctl_ret": Capability.RETURNED,
    "gmem_ioctl_ret": Capability.RETURNED,
    "attempt": Capability.ATTEMPTED,
    "range_has_attrs": Capability.COMPARED,
    "gmem_inv": Capability.ZAP,
    "gmem_store": Capability.STORED,
    "spte": Capability.GUEST_ENTRIES,
    "unmap_gfn": Capability.GUEST_UNMAP,
    "host_unmap": Capability.HOST_UNMAP,
    "lru_folio": Capability.REFERENCES,
    "exit": Capability.EXITS,
    "uexit": Capability.EXITS,
    "hypercall": Capability.HYPERCALLS,
    "run_ret": Capability.FAULT_EXITS,
    "gmem_get_pfn": Capability.PRIVATE_FAULTS,
    "gmem_ufault": Capability.HOST_FAULTS,
    "set_region_ret": Capability.SLOTS,
    "signal": Capability.SIGNALS,
    "convert_call": Capability.RETURNED,
}


GAPS = {"lost": GapKind.LOST, "suppressed": GapKind.SUPPRESSED, "elided": GapKind.ELIDED}
"""Kinds of gaps by the name of their marker; any other is a buffer that was overwritten."""

OUTSIDE = frozenset(
    [
        "enter_ioctl",
        "enter_fallocate",
        "enter_madvise",
        "exit",
        "uexit",
        "run_ret",
        "hypercall",
        "hc_done",
        "page_fault",
        "gmem_get_pfn",
        "gmem_ufault",
        "set_region",
        "set_region_ret",
        "gmem_create",
        "gmem_bind",
        "gmem_prepare",
        "gmem_commit",
        "gmem_release",
        "gmem_fallocate",
    ]
)
"""Facts of a thread that is not, or no longer, inside of a conversion, whether or not its return was seen."""


Handler = Callable[["Tracker", Fact, Thread], bool]


class Tracker:
    """Takes the facts of one trace in order and makes events of them (``take``)."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self.source = -1
        self.next = -2
        self.made: list[Event] = []
        self.closed: list[int] = []
        """references of conversions that no later event can carry"""
        self.threads: dict[int, Thread] = {}
        self.vms: dict[int, VmState] = {}
        self.gmems: list[GmemState] = []
        self.by_handle: dict[int, VmState] = {}
        self.shown: set[Capability] = set()
        self.whole = True
        self.sees_inside = False
        """probes or tracepoints inside of a conversion's ioctl were met: a system call without them is of another file"""
        """nothing was lost so far"""
        self._running: dict[int, Thread] = {}
        self._group = ""
        self.report: Report | None = None
        """what the kernel is telling in several lines"""
        self.told: Report | None = None
        """the last report that came to its end"""
        self.gmem_fds: set[int] = set()
        """file descriptors that calls have shown to be of guest_memfds"""
        self._handlers = handlers

    # --- input and output

    def feed(self, fact: Fact) -> bool:
        """Take one fact; whether it is used (now or in an event still to come) or mere context."""
        handler = self._handlers.get(fact.name)
        if handler is None:
            return False
        thread = self.threads.get(fact.thread)
        if thread is None:
            thread = self.threads[fact.thread] = Thread(fact.thread, fact.comm)
        elif thread.call is not None and fact.name in OUTSIDE:
            self.leave(thread)
        used = handler(self, fact, thread)
        capability = SHOWS.get(fact.name)
        if capability is not None:
            self._show(fact, thread, capability)
        return used

    def _show(self, fact: Fact, thread: Thread, capability: Capability) -> None:
        """The first line of a kind about a guest proves that the next ones would be there too."""
        pointer = fact.args.get("kvm")
        vm = self.vms.get(pointer) if pointer is not None else self.vm_of(thread)
        shown = self.shown if vm is None else vm.shown
        if capability in shown or (fact.name == "gmem_store" and fact.args.get("val") not in (0x1, 0x11)):
            return
        shown.add(capability)
        # Not by `emit`: what it proves is no step between two pages.
        owner = vm.handle if vm is not None else None
        self.made.append(SourceShows(capability=capability, owner=owner, t=fact.t, line=fact.line, source=self.source))

    def take(self) -> list[Event]:
        """The events made since the last time."""
        made, self.made = self.made, []
        return made

    def emit(self, event: Event) -> None:
        """Add an event, behind the pages that were seen before it."""
        self.flush()
        self.made.append(event)

    def handle(self) -> int:
        """A reference that no event carries yet."""
        self.next -= 1
        return self.next

    # --- runs

    def extend(self, thread: Thread, group: str, key: str, page: int, fact: Fact, value: int | None,
               make: Callable[[Run], Event], npages: int = 1) -> Run:  # fmt: skip
        """Add a line to the run ``key`` of a thread, or begin it anew where the pages do not follow.

        Only runs of one group are pending at a time: the order between touching and unmapping counts.
        """
        if group != self._group:
            self.flush()
            self._group = group
        run = thread.runs.get(key)
        if run is not None and page <= run.end <= page + npages:
            run.end = page + npages
            run.last_line = fact.line
            run.lines += 1
            return run
        if run is not None:
            self._end_run(thread, key)
        run = thread.runs[key] = Run(make, fact.t, fact.line, page, page + npages, fact.line, value=value)
        self._running[thread.tid] = thread
        return run

    def _end_run(self, thread: Thread, key: str) -> None:
        run = thread.runs.pop(key)
        self.made.append(run.make(run))

    def flush(self) -> None:
        """Make the events of all pending runs."""
        for thread in self._running.values():
            for key in list(thread.runs):
                self._end_run(thread, key)
        self._running.clear()
        if self.report is not None:
            self.told, self.report = self.report, None
            self.made.append(self.told.event(self.source))

    # --- who is who

    def vm(self, pointer: int, fact: Fact, thread: Thread, *, makes: bool = False) -> VmState:
        """The guest behind a kvm pointer. ``makes`` says that the line belongs to making something in it."""
        vm = self.vms.get(pointer)
        if vm is None or (makes and vm.torn_down):
            vm = self.new_vm(pointer, fact, thread, makes=makes)
        if vm.handle not in thread.vms:
            thread.vms.append(vm.handle)
        return vm

    def new_vm(self, pointer: int, fact: Fact, thread: Thread, *, makes: bool) -> VmState:
        """A guest that was not met before; an older one at the same address is gone."""
        old = self.vms.get(pointer)
        vm = VmState(self.handle(), pointer, fact.line, thread.tid, makes and self.whole, returned=thread.returned.copy())
        self.vms[pointer] = self.by_handle[vm.handle] = vm
        if old is not None:
            del self.by_handle[old.handle]
            for other in self.threads.values():
                if old.handle in other.vms:
                    other.vms.remove(old.handle)
        self.emit(
            VmSeen(owner=vm.handle, made=int(vm.born_here), pointer=pointer, thread=thread.tid, t=fact.t, line=fact.line, source=self.source,
                   detail=detail(comm=printable(thread.comm)))
        )  # fmt: skip
        return vm

    def vm_of(self, thread: Thread) -> VmState | None:
        """The one guest that a thread was seen with; None if there are none or several."""
        return self.by_handle.get(thread.vms[0]) if len(thread.vms) == 1 else None

    def mainline(self, vm: VmState, fact: Fact) -> None:
        """A name in a line proves that the attributes of a guest live in its VM."""
        if vm.dialect is Dialect.UNKNOWN:
            vm.dialect = Dialect.MAINLINE
            self.emit(DialectSeen(owner=vm.handle, dialect=vm.dialect, t=fact.t, line=fact.line, source=self.source))

    def gmem_known(self, pointer: int, vm: int | None) -> GmemState | None:
        """The guest_memfd that was met at an inode pointer. ``vm`` is the guest that the line names, if it names one.

        The file of another guest is another file; and behind a gap only the guest tells that it is still the same.
        """
        for gmem in reversed(self.gmems):
            if gmem.pointer == pointer and not gmem.released:
                same = not gmem.doubtful if vm is None or gmem.vm is None else gmem.vm == vm
                gmem.doubtful = gmem.doubtful and not same
                return gmem if same else None
        return None

    def gmem_at(self, pointer: int, fact: Fact, vm: int | None) -> GmemState:
        """A guest_memfd that was not met before; or the only one of its guest whose inode no line has named yet.

        File descriptors are dup()ed: the one that is bound need not be the one that was returned. But a guest_memfd is
        bound to the guest that has made it (kvm_gmem_bind(), kvm_gmem_prepare_memory_region()).
        """
        guest_id = self.by_handle.get(vm or 0)
        if guest_id is not None and guest_id.born_here and self.whole and "kvm" in fact.args:
            nameless = [gmem for gmem in self.gmems if gmem.vm == vm and gmem.pointer is None and gmem.fd is not None]
            if len(nameless) == 1:
                nameless[0].pointer = pointer
                return nameless[0]
        gmem = GmemState(self.handle(), vm, pointer=pointer)
        self.gmems.append(gmem)
        self.emit(GmemSeen(owner=gmem.handle, pointer=pointer, vm=vm, t=fact.t, line=fact.line, source=self.source))
        return gmem

    def gmem_of_fd(self, fd: int | None, vm: int | None) -> GmemState | None:
        """The youngest guest_memfd that was created with a file descriptor, in one guest."""
        for gmem in reversed(self.gmems):
            if gmem.fd == fd is not None and (vm is None or gmem.vm == vm):
                return gmem
        return None

    def leave(self, thread: Thread) -> None:
        """A thread is no longer inside its conversion."""
        if thread.call is not None:
            self.closed.append(thread.call.handle)
            thread.call = None
        thread.zap = None

    # --- the trace itself

    def restart(self) -> None:
        """Another recording begins in the same input: the same pointers and thread numbers are other guests and threads."""
        self.flush()
        self.closed += [thread.call.handle for thread in self.threads.values() if thread.call is not None]
        self.threads, self.vms, self.by_handle, self.gmems = {}, {}, {}, []
        self.whole = True

    def mark(self, marker: Marker) -> None:
        """A gap in the trace: nothing that was in the middle can be trusted to be the same behind it."""
        kind = GAPS.get(marker.name, GapKind.OVERWRITTEN)
        what = detail(what=printable(marker.text)) if marker.text else None
        self.emit(Gap(gap=kind, count=marker.lost, line=marker.line, source=self.source, detail=what))
        if kind is GapKind.SUPPRESSED:
            return  # lines of a kernel log are missing, none of a trace
        self.whole = False
        for thread in self.threads.values():
            self.leave(thread)
            thread.syscall = thread.region = thread.zap = thread.bracket = thread.exit = thread.entered = None
            thread.request = thread.fault = thread.error = thread.file = None
            thread.returned, thread.vms = {}, []
        for gmem in self.gmems:
            gmem.fd, gmem.doubtful = None, True
        for vm in self.vms.values():
            vm.slots = {}
            vm.born_here = False
