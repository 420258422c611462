"""A simulated history told step by step: who was asked, who refused, what the caller was told, what is left."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gmemstate.convert.engine.users import FOLL_PIN
from gmemstate.convert.simulation.guest_requests import GENERIC_ERROR, INVALID_OPERAND, RETRY
from gmemstate.convert.simulation.residue import left, run
from gmemstate.convert.simulation.run import Outcome
from gmemstate.decode import errno_name
from gmemstate.model.events import (
    Access,
    AttrsCompared,
    AttrsStored,
    ConvertAsked,
    ConvertAttempted,
    ConvertReturned,
    DmaFaulted,
    DmaMapped,
    Event,
    FaultServed,
    FolioMerged,
    FolioSplit,
    GmemBound,
    GmemReleased,
    GuestAnswered,
    GuestAsked,
    InvalidateAdded,
    MemoryFaultExit,
    PageAdded,
    PageFreed,
    PageLeaked,
    Pinned,
    Poisoned,
    PrivateMapFailed,
    PrivateMapped,
    PrivateUnmapFailed,
    Punched,
    RequestPath,
    Reserved,
    RmpViolation,
    SlotSet,
    Spinning,
    TaskStuck,
    Through,
    Undone,
    UnmapStep,
    Unpinned,
    User,
    UserAnswered,
    UsersChecked,
    VcpuExited,
    VmBugged,
    VmDead,
    VmmSaid,
    WorkItem,
    details,
    event_of,
)
from gmemstate.model.linux import KVM_EXIT_MMIO, KVM_MEM_GUEST_MEMFD, PAGE_SHIFT, PRIVATE_ATTRIBUTE, PUNCH

IOCTLS = {
    (Through.VM_IOCTL, "private"): "KVM_SET_MEMORY_ATTRIBUTES",
    (Through.VM_IOCTL, "shared"): "KVM_SET_MEMORY_ATTRIBUTES",
    (Through.GMEM_IOCTL, "private"): "KVM_SET_MEMORY_ATTRIBUTES2",
    (Through.GMEM_IOCTL, "shared"): "KVM_SET_MEMORY_ATTRIBUTES2",
    (Through.GMEM_CONVERT, "private"): "KVM_GMEM_CONVERT_PRIVATE",
    (Through.GMEM_CONVERT, "shared"): "KVM_GMEM_CONVERT_SHARED",
}
PATHS = {
    RequestPath.VMCALL: "KVM_HC_MAP_GPA_RANGE",
    RequestPath.TDVMCALL: "TDVMCALL MapGPA",
    RequestPath.PSC_MSR: "page state change by MSR",
    RequestPath.PSC_GHCB: "page state change",
}
STEPS = {
    UnmapStep.BLOCK: "TDH.MEM.RANGE.BLOCK fails",
    UnmapStep.TRACK: "TDH.MEM.TRACK fails",
    UnmapStep.REMOVE: "TDH.MEM.PAGE.REMOVE fails, the S-EPT maps it still",
    UnmapStep.WBINVD: "TDH.PHYMEM.PAGE.WBINVD fails",
    UnmapStep.RMPUPDATE: "RMPUPDATE fails, the RMP gives it to the guest still",
    UnmapStep.PSMASH: "PSMASH fails",
}
ORDERS = {9: "2M", 18: "1G"}
KINDS = {User.HOST: "host", User.GUEST: "guest", User.IOMMU: "IOMMU", User.PIN: "pin", User.REFERENCE: "reference"}


def tell(outcome: Outcome) -> Iterator[str]:
    """The steps of a scenario, one sentence each; what belongs to an ioctl is indented."""
    story = _Story(outcome)
    inside = False
    for text, event in story.sentences():
        if isinstance(event, ConvertReturned):
            inside = False
        yield "  " * inside + text
        inside |= isinstance(event, ConvertAsked)
    yield from left(outcome)


def _kind(attributes: int | None) -> str:
    return "private" if attributes and attributes & PRIVATE_ATTRIBUTE else "shared"


def _be(event: Any) -> str:
    return "is" if event.npages == 1 else "are"


class _Story:
    """The sentences of a simulation; what an earlier event says of a later one is kept here."""

    def __init__(self, outcome: Outcome) -> None:
        self.rows = outcome.simulation.rows[outcome.first - 1 :]
        self.memory = outcome.simulation.memory
        self.gmems = sorted(self.memory.gmems)
        self.asked: Any = None
        self.paths: dict[int, RequestPath] = {}
        self.tellers: dict[type[Event], Callable[[Any, dict[str, Any]], str | None]] = _TELL | {
            ConvertAsked: self.ask, ConvertReturned: self.returned, UserAnswered: self.answered, InvalidateAdded: self.invalidated,
            AttrsStored: self.stored, FaultServed: self.served, GuestAsked: self.guest_asked, GuestAnswered: self.guest_answered,
        }  # fmt: skip

    def sentences(self) -> Iterator[tuple[str, Event]]:
        """Each sentence with its event; what one user touches page by page is one sentence."""
        findings = {finding.seq: finding for finding in self.memory.findings}
        for row in _joined(self.rows):
            event = event_of(row)
            teller = self.tellers.get(type(event))
            text = None if teller is None else teller(event, details(event.detail))
            if text is not None:
                yield text, event
            if row[0] in findings:
                yield f"finding {findings[row[0]].code}: {findings[row[0]].text}", event

    def unit(self, owner: int | None) -> str:
        return "gfn" if owner in self.memory.vms else "page"

    def of_gmem(self, owner: int | None) -> str:
        return f" of guest_memfd {self.gmems.index(owner) + 1}" if len(self.gmems) > 1 and owner in self.gmems else ""

    def of_vm(self, owner: int | None) -> str:
        vm = self.memory.vms.get(owner or 0)
        return f" of VM {vm.number}" if vm is not None and len(self.memory.vms) > 1 else ""

    def ask(self, event: Any, facts: dict[str, Any]) -> str:
        self.asked = event
        if event.attributes is None:
            return "the VMM asks for a conversion, with a pointer that cannot be read"
        kind = _kind(event.attributes)
        where = run(event.start, event.npages, self.unit(event.owner)) + self.of_gmem(event.owner)
        if event.start is None:
            where = f"{facts.get('address')}, size {facts.get('size')},"
        elif event.npages == 0:
            where = f"nothing (size 0) from {self.unit(event.owner)} {event.start} on"
        odd = [
            f"{name.replace('_', ' ')} {facts[name]}"
            for name in ("flags", "reserved", "error_offset", "struct")
            if name in facts
        ]
        if event.attributes & ~PRIVATE_ATTRIBUTE:
            odd.append(f"attributes {event.attributes:#x}")
        return f"the VMM asks for {where} as {kind}: {', '.join([IOCTLS[event.through, kind], *odd])}"

    def returned(self, event: Any, _: dict[str, Any]) -> str:
        offset = ""
        if event.error_offset is not None and (event.error_offset or errno_name(event.result) in ("EAGAIN", "ENOMEM")):
            offset = f", error_offset {event.error_offset:#x}"
            offset += f" (page {event.error_offset >> PAGE_SHIFT})" if errno_name(event.result) == "EAGAIN" else ""
        return f"the VMM is told {errno_name(event.result)}{offset}"

    def answered(self, event: Any, facts: dict[str, Any]) -> str:
        where = run(event.start, event.npages, self.unit(event.owner)) + self.of_vm(event.owner)
        if "user" not in facts:
            return f"guest_memfd learns that {where} did not come off"
        name, kind = facts["user"], KINDS[event.user]
        who = name if name == kind else f"{name} ({kind})"
        slow = f" after {facts['turns']} turns" if "turns" in facts else ""
        if event.result is None:
            return f"{who} is told to unmap {where}, and does not answer"
        if event.result:
            them = "it" if event.npages == 1 else "them"
            return f"{who} is told to unmap {where}{slow}, refuses ({errno_name(event.result)}), and maps {them} still"
        if event.entries is None:
            return f"{who} unmaps {where}{slow}"
        gone = {0: "had no mapping left", 1: "1 mapping gone"}.get(event.entries, f"{event.entries} mappings gone")
        return f"{who} unmaps {where}{slow}: {gone}"

    def invalidated(self, event: Any, _: dict[str, Any]) -> str | None:
        """Only what is wider than the request."""
        asked = self.asked
        if event.conversion is None or asked is None or asked.npages is None or event.npages <= asked.npages:
            return None
        return f"guest faults in {run(event.start, event.npages, self.unit(event.owner))} wait until the end"

    def stored(self, event: Any, _: dict[str, Any]) -> str:
        where, kind = run(event.start, event.npages, self.unit(event.owner)), _kind(event.attributes)
        return (
            f"{where}: {kind} cannot be stored ({errno_name(event.result)})"
            if event.result
            else f"{where} {_be(event)} {kind} now"
        )

    def served(self, event: Any, facts: dict[str, Any]) -> str:
        kind = {Access.GUEST_PRIVATE: " as private", Access.GUEST_SHARED: " as shared"}.get(event.access, "")
        where = run(event.start, event.npages, self.unit(event.owner))
        end = facts.get("signal", "fails") if event.result else "faulted in"
        return f"{facts.get('user')} touches {where}{kind}: {end}"

    def guest_asked(self, event: Any, facts: dict[str, Any]) -> str:
        self.paths[event.request] = event.path
        kind = "private" if event.flags else "shared"
        where = run(event.start, event.npages, "gfn")
        if "entries" in facts:
            where = ", ".join(run(start, end - start, "gfn") for start, end in facts["entries"])
        return f"the guest asks for {where} as {kind}: {PATHS[event.path]}"

    def guest_answered(self, event: Any, _: dict[str, Any]) -> str:
        path, returned = self.paths[event.request], str(event.result)
        if path is RequestPath.TDVMCALL:
            returned = {0: "success", RETRY: "RETRY", INVALID_OPERAND: "INVALID_OPERAND"}.get(event.result, returned)
        elif path is not RequestPath.VMCALL:
            returned = {0: "success", GENERIC_ERROR: f"the generic error ({GENERIC_ERROR:#x})"}.get(event.result, returned)
        elif event.result < 0:
            returned = f"-{errno_name(-event.result)}"
        on = "" if event.next_gpa is None else f", and to go on at gfn {event.next_gpa >> PAGE_SHIFT}"
        return f"the guest is told {returned}{on}"


def _joined(rows: Iterable[Any]) -> Iterator[Any]:
    """Rows, where faults of one user on neighbouring pages, one after the other, are one."""
    last: Any = None
    for row in rows:
        if last is not None:
            same = last[2] == row[2] == FaultServed.code and last[8] == row[8] == 0
            if same and (last[4], last[10], last[12]) == (row[4], row[10], row[12]) and last[6] + last[7] == row[6]:
                last = (*last[:7], last[7] + row[7], *last[8:])
                continue
            yield last
        last = row
    if last is not None:
        yield last


def _slot(event: Any, _: dict[str, Any]) -> str:
    if not event.npages:
        return f"memslot {event.slot} is deleted"
    behind = "" if event.flags & KVM_MEM_GUEST_MEMFD else ", without a guest_memfd"
    return f"memslot {event.slot} is set: {run(event.start, event.npages, 'gfn')}{behind}"


def _reserved(event: Any, facts: dict[str, Any]) -> str | None:
    if not event.result:
        return None
    if "what" in facts:
        return f"no memory for {facts['what']} ({errno_name(event.result)})"
    return f"memory cannot be reserved ({errno_name(event.result)}); nobody was unmapped yet"


def _checked(event: Any, facts: dict[str, Any]) -> str:
    if not event.result:
        return "nobody else holds a page"
    if "user" in facts:
        return f"{facts['user']} is asked whether it would let go, and would {facts['would']}; nobody was unmapped yet"
    pin = f"; a pin counts {FOLL_PIN}" if event.references >= FOLL_PIN else ""
    return f"page {event.start} is in use: {event.references} references, not {event.expected}{pin}"


def _added(event: Any, _: dict[str, Any]) -> str:
    if event.npages == 1:
        return f"page {event.start} gets host page {event.pfn:#x}"
    return f"{run(event.start, event.npages)} get host pages from {event.pfn:#x} on"


def _freed(event: Any, facts: dict[str, Any]) -> str:
    where = f"{run(event.start, event.npages)} {'leaves' if event.npages == 1 else 'leave'} the file"
    why = facts.get("kept")
    if why is None:
        return f"{where}, back to the allocator"
    return (
        f"{where}; the host memory is not freed: {why}"
        if why != "for ever"
        else f"{where}; guest_memfd keeps the host memory for ever"
    )


def _folio(event: Any, what: str) -> str:
    size = ORDERS.get(event.order or 0, f"{event.npages} pages")
    if what == "split":
        return f"the {size} folio at page {event.start} {'cannot be split' if event.result else 'is split'}"
    return f"{run(event.start, event.npages)} {'cannot be' if event.result else 'are'} merged to a {size} folio"


def _undone(event: Any, _: dict[str, Any]) -> str:
    kind = _kind(event.attributes)
    if event.result:
        return f"rollback: {run(event.start, event.npages)} cannot be put back ({errno_name(event.result)}): a WARN, and {kind} stays"
    return f"rollback: {run(event.start, event.npages)} {_be(event)} {kind} as before"


_TELL: dict[type[Event], Callable[[Any, dict[str, Any]], str | None]] = {
    ConvertAttempted: lambda _e, _: "tracepoint kvm_vm_set_mem_attributes",
    AttrsCompared: lambda e, _: "all of it has the attribute already" if e.equal else None,
    WorkItem: lambda e, _: f"an item of work: {run(e.start, e.npages)}",
    Reserved: _reserved,
    UsersChecked: _checked,
    FolioSplit: lambda e, _: _folio(e, "split"),
    FolioMerged: lambda e, _: _folio(e, "merge"),
    Undone: _undone,
    Spinning: lambda e, f: f"Spinning on folio: page {int(f['page'], 16)} has {e.references} references, not {f['expected']}",
    TaskStuck: lambda _e, f: f"it goes no further: {f.get('loop') or 'it waits for ' + str(f.get('waits_for'))}",
    PrivateUnmapFailed: lambda e, _: f"page {e.start} does not come off: {STEPS[e.step]}",
    PrivateMapFailed: lambda e, _: f"gfn {e.start} cannot be made private: the RMP refuses it ({errno_name(e.status)})",
    PrivateMapped: lambda e, _: f"{run(e.start, e.npages, 'gfn')} {_be(e)} measured as they are",
    VmmSaid: lambda e, f: f"{f.get('text')}: {errno_name(e.result)}",
    VmBugged: lambda _e, _: "the VM is bugged",
    PageLeaked: lambda e, _: f"the firmware keeps host page {e.pfn:#x}, and the kernel leaks it: it is given to nobody again",
    VmDead: lambda _e, f: f"{f.get('user')} touches page {f.get('page')} before it has accepted it: the VM is dead",
    PageFreed: _freed,
    PageAdded: _added,
    Poisoned: lambda e, _: f"{run(e.start, e.npages)} {_be(e)} marked as poisoned",
    Punched: lambda e, _: f"{run(e.start, e.npages)}: {'a hole is punched' if e.mode == PUNCH else 'fallocate is done'}",
    GmemReleased: lambda _e, _: "the guest_memfd is closed",
    GmemBound: lambda e, _: f"behind it lies the guest_memfd, from page {e.index} on",
    SlotSet: _slot,
    Pinned: lambda e, f: f"{f.get('user')} holds {run(e.start, e.npages)}",
    Unpinned: lambda e, f: f"{f.get('user')} lets go of {run(e.start, e.npages)}",
    DmaMapped: lambda e, f: f"{f.get('user')} reaches {run(e.start, e.npages)}",
    DmaFaulted: lambda e, f: f"{f.get('user')} touches page {e.start}: a DMA fault, since a device cannot fault it in",
    RmpViolation: lambda _e, f: f"{f.get('user')} writes to page {f.get('page')}: an RMP fault",
    MemoryFaultExit: lambda e, f: (
        f"{f.get('user')} touches gfn {e.start} as {_kind(e.flags)}: KVM_EXIT_MEMORY_FAULT, {errno_name(e.result)}"
    ),
    VcpuExited: lambda e, f: (
        f"{f.get('user')} does not run: KVM_RUN says {errno_name(e.result)}"
        if e.result
        else f"{f.get('user')} touches a gfn without a memslot: KVM_EXIT_MMIO"
        if e.reason == KVM_EXIT_MMIO
        else None
    ),
}
