"""Who is who in a log, and the events that its facts amount to: takes one fact after the other.

A kvm pointer is one guest from its first line to its last; a line without one belongs to the guest of its thread if that thread
was seen with exactly one, else to nobody. Facts of a thread nest like its calls. What cannot be decided stays None.
"""

from collections.abc import Callable

from gmemstate.ingest.correlate.kernel_report import PoisonRun, Report
from gmemstate.ingest.correlate.lost_lines import WATCHED, lines_are_missing
from gmemstate.ingest.correlate.report_events import event_of_poison, event_of_report
from gmemstate.ingest.correlate.trackees import GmemState, PageRun, Thread, VmState
from gmemstate.ingest.fact import KINDS, STORED_ATTRIBUTES, Fact, FactKind, Marker
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.text import printable

_OF_A_LOG = FactKind()

GAPS = {"lost": e.GapKind.LOST, "suppressed": e.GapKind.SUPPRESSED, "elided": e.GapKind.ELIDED}
"""Kinds of gaps by the name of their marker; any other is a buffer that was overwritten."""

UNPAIRED = "a call without its beginning or its end, though its thread has shown both before"

Handler = Callable[["Tracker", Fact, Thread], bool]
"""Takes a fact, and the thread that it is about; whether the fact is used, now or in an event still to come."""
HANDLERS: dict[str, Handler] = {}
"""By kind of fact; each module of handlers adds its own (``handles``)."""


def handles(*kinds: str) -> Callable[[Handler], Handler]:
    """Declare a function to be the handler of kinds of facts. Raises ValueError for a kind that has one."""

    def register(handler: Handler) -> Handler:
        for kind in kinds:
            if HANDLERS.setdefault(kind, handler) is not handler:
                raise ValueError(f"{kind} is handled by {HANDLERS[kind].__name__} already")
        return handler

    return register


class Tracker:
    """Takes the facts of one trace in order and makes events of them (``take``)."""

    def __init__(self) -> None:
        self.source = -1
        self.fact = Fact(0, None, 0, "", "", {})
        """the one that is handled now"""
        self.next = -2
        self.made: list[e.Event] = []
        self.closed: list[int] = []
        """references of conversions that no later event can carry"""
        self.threads: dict[int, Thread] = {}
        self.vms: dict[int, VmState] = {}
        self.gmems: list[GmemState] = []
        self.by_handle: dict[int, VmState] = {}
        self.shown: set[e.Capability] = set()
        self.whole = True
        """nothing was lost so far"""
        self.sees_inside = False
        """lines from inside of a conversion's ioctl were seen: a system call without them is of another file"""
        self._running: dict[int, Thread] = {}
        self._group = ""
        self.report: Report | PoisonRun | None = None
        """what the kernel is telling in several lines"""
        self.reported: Report | None = None
        """the last report that came to its end"""
        self.owners: set[str] = set()
        """what lines of this boot have shown of whose log it is"""
        self.gmem_fds: set[int] = set()
        """file descriptors that calls have shown to be of guest_memfds"""

    # --- input and output

    def feed(self, fact: Fact) -> bool:
        """Take one fact; whether it is used (now or in an event still to come) or mere context."""
        handler = HANDLERS.get(fact.name)
        if handler is None:
            return False
        self.fact = fact
        kind = KINDS.get(fact.name, _OF_A_LOG)
        thread = self.threads.get(fact.thread)
        if thread is None:
            thread = self.threads[fact.thread] = Thread(fact.thread, fact.comm)
        elif thread.call is not None and kind.outside:
            self.leave(thread)
        if fact.name in WATCHED and lines_are_missing(thread, fact):
            paired, begun = thread.paired, thread.open
            self.mark(Marker(fact.line, "lost", text=UNPAIRED))
            thread.paired, thread.open = paired, begun & {fact.name}
        used = handler(self, fact, thread)
        if kind.shows is not None:
            self._show(fact, thread, kind.shows)
        return used

    def _show(self, fact: Fact, thread: Thread, capability: e.Capability) -> None:
        """The first line of a kind about a guest proves that the next ones would be there too."""
        pointer = fact.args.get("kvm")
        vm = self.vms.get(pointer) if pointer is not None else self.vm_of(thread)
        shown = self.shown if vm is None else vm.shown
        if capability in shown or (fact.name == "gmem_store" and fact.args["val"] not in STORED_ATTRIBUTES):
            return
        shown.add(capability)
        owner = vm.handle if vm is not None else None
        self.add(e.SourceShows(capability=capability, owner=owner))

    def take(self) -> list[e.Event]:
        """The events made since the last time."""
        made, self.made = self.made, []
        return made

    def emit(self, event: e.Event) -> None:
        """Add an event, after the pages that were seen before it."""
        self.flush()
        self.add(event)

    def add(self, event: e.Event) -> None:
        """Add an event that does not end a run of pages. One that names no line is of the line, and of the time, at hand."""
        self._add(event, self.fact.line, self.fact.t)

    def _add(self, event: e.Event, line: int, t: int | None) -> None:
        stamp = object.__setattr__  # events are frozen for all who get to see them
        stamp(event, "source", self.source)
        if event.line is None:
            stamp(event, "line", line)
            stamp(event, "t", t)
        self.made.append(event)

    def handle(self) -> int:
        """A reference that no event carries yet."""
        self.next -= 1
        return self.next

    # --- runs

    def extend(
        self,
        thread: Thread,
        group: str,
        key: str,
        page: int,
        make: Callable[[PageRun], e.Event],
        npages: int = 1,
        pfn: int | None = None,
    ) -> PageRun:
        """Add the pages of the line at hand to the run ``key`` of a thread, or begin another one where they do not follow.

        Only runs of one group are pending at a time: the order of faults and unmaps counts. ``pfn`` is that of the first page.
        """
        if group != self._group:
            self.flush()
            self._group = group
        run = thread.runs.get(key)
        if run is not None and page <= run.end <= page + npages:
            run.end = page + npages
            run.last_line = self.fact.line
            run.lines += 1
            return run
        if run is not None:
            self._end_run(thread, key)
        run = thread.runs[key] = PageRun(make, self.fact.t, self.fact.line, page, page + npages, self.fact.line, pfn=pfn)
        self._running[thread.tid] = thread
        return run

    def _end_run(self, thread: Thread, key: str) -> None:
        run = thread.runs.pop(key)
        self._add(run.make(run), run.first_line, run.t)

    def flush(self) -> None:
        """Make the events of all pending runs."""
        for thread in self._running.values():
            for key in list(thread.runs):
                self._end_run(thread, key)
        self._running.clear()
        report, self.report = self.report, None
        if isinstance(report, Report):
            self.reported = report
            self.add(event_of_report(report))
        elif report is not None:
            self.add(event_of_poison(report))

    # --- who is who

    def vm(self, pointer: int, thread: Thread, *, makes: bool = False) -> VmState:
        """The guest at a kvm pointer. ``makes`` says that the line belongs to making something in it."""
        vm = self.vms.get(pointer)
        if vm is None or (makes and vm.torn_down):
            vm = self.new_vm(pointer, thread, makes=makes)
        if vm.handle not in thread.vms:
            thread.vms.append(vm.handle)
        return vm

    def new_vm(self, pointer: int, thread: Thread, *, makes: bool) -> VmState:
        """A guest that was not seen before; an older one at the same address is gone."""
        old = self.vms.get(pointer)
        vm = VmState(self.handle(), pointer, makes and self.whole, returned=thread.returned.copy())
        self.vms[pointer] = self.by_handle[vm.handle] = vm
        if old is not None:
            del self.by_handle[old.handle]
            for other in self.threads.values():
                if old.handle in other.vms:
                    other.vms.remove(old.handle)
        comm = detail(comm=printable(thread.comm))
        self.emit(e.VmSeen(owner=vm.handle, made=int(vm.born_here), pointer=pointer, thread=thread.tid, detail=comm))
        return vm

    def vm_of(self, thread: Thread) -> VmState | None:
        """The one guest that a thread was seen with; None if there are none or several."""
        return self.by_handle.get(thread.vms[0]) if len(thread.vms) == 1 else None

    def owner_of(self, thread: Thread) -> int | None:
        """The reference of the one guest that a thread was seen with."""
        vm = self.vm_of(thread)
        return None if vm is None else vm.handle

    def mainline(self, vm: VmState) -> None:
        """The name of a function proves that the attributes of a guest live in its VM."""
        if vm.dialect is e.Dialect.UNKNOWN:
            vm.dialect = e.Dialect.MAINLINE
            self.emit(e.DialectSeen(owner=vm.handle, dialect=vm.dialect))

    def gmem_known(self, pointer: int, vm: int | None) -> GmemState | None:
        """The guest_memfd that was seen at an inode pointer. ``vm`` is the guest that the line names, if it names one.

        The file of another guest is another file; and after a gap only the guest tells that it is still the same.
        """
        for gmem in reversed(self.gmems):
            if gmem.pointer == pointer and not gmem.released:
                same = not gmem.doubtful if vm is None or gmem.vm is None else gmem.vm == vm
                gmem.doubtful = gmem.doubtful and not same
                return gmem if same else None
        return None

    def gmem_at(self, pointer: int, vm: int | None) -> GmemState:
        """A guest_memfd that was not seen before; or the only one of its guest whose inode no line has named yet.

        File descriptors are dup()ed: the one that is bound need not be the one that was returned. But a guest_memfd is
        bound to the guest that has made it (kvm_gmem_bind(), kvm_gmem_prepare_memory_region()).
        """
        guest_id = self.by_handle.get(vm or 0)
        if guest_id is not None and guest_id.born_here and self.whole and "kvm" in self.fact.args:
            nameless = [gmem for gmem in self.gmems if gmem.vm == vm and gmem.pointer is None and gmem.fd is not None]
            if len(nameless) == 1:
                nameless[0].pointer = pointer
                return nameless[0]
        gmem = GmemState(self.handle(), vm, pointer=pointer)
        self.gmems.append(gmem)
        self.emit(e.GmemSeen(owner=gmem.handle, pointer=pointer, vm=vm))
        return gmem

    def gmem_of_fd(self, fd: int | None, vm: int | None) -> GmemState | None:
        """The youngest guest_memfd that was created with a file descriptor, in one guest."""
        for gmem in reversed(self.gmems):
            if gmem.fd == fd is not None and (vm is None or gmem.vm == vm):
                return gmem
        return None

    def gmem_of_syscall(self, thread: Thread, vm: int | None) -> GmemState:
        """The guest_memfd of a line inside a syscall on its fd: the one created with that fd, if the inode was not seen."""
        pointer = self.fact.args["inode"]
        known = self.gmem_known(pointer, vm if "kvm" in self.fact.args else None)
        fd = thread.syscall.args.get("fd") if thread.syscall is not None else None
        vm = self.owner_of(thread) if vm is None else vm
        created = self.gmem_of_fd(fd, vm) if fd is not None and vm is not None else None
        if created is not None and created.pointer is None and (known is None or created.handle < known.handle):
            created.pointer = pointer
            return created
        if known is not None and known.vm is None and vm is not None:
            known.vm = vm
            self.emit(e.GmemSeen(owner=known.handle, pointer=pointer, vm=vm))
        return known or self.gmem_at(pointer, vm)

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
        """A gap in the trace: nothing that was in the middle can be trusted to be the same after it."""
        kind = GAPS.get(marker.name, e.GapKind.OVERWRITTEN)
        what = detail(what=printable(marker.text)) if marker.text else None
        gap = e.Gap(gap=kind, count=marker.lost, line=marker.line, detail=what)
        if kind in (e.GapKind.SUPPRESSED, e.GapKind.ELIDED) and isinstance(self.report, Report):
            self.report.cut = True  # lines of a report are missing, which goes on
            self.add(gap)
        else:
            self.emit(gap)
        if kind is e.GapKind.SUPPRESSED:
            return  # lines of a kernel log are missing, none of a trace
        self.whole = False
        for thread in self.threads.values():
            self.leave(thread)
            thread.syscall = thread.region = thread.zap = thread.bracket = thread.exit = thread.entered = None
            thread.request = thread.fault = thread.error = thread.file = None
            thread.returned, thread.vms, thread.open, thread.paired = {}, [], set(), set()
        for gmem in self.gmems:
            gmem.fd, gmem.doubtful = None, True
        for vm in self.vms.values():
            vm.slots = {}
            vm.born_here = False
