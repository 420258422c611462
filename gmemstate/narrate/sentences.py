"""The sentence of each kind of event, without a full stop."""

from collections.abc import Callable
from typing import Any

from gmemstate.decode import errno_name, exit_reason
from gmemstate.model import events as e
from gmemstate.model.events import Event
from gmemstate.model.linux import (
    FALLOC_FL_PUNCH_HOLE,
    GUP_PIN_COUNTING_BIAS,
    KVM_EXIT_MMIO,
    KVM_MEM_GUEST_MEMFD,
    PAGE_SHIFT,
    PRIVATE_ATTRIBUTE,
)
from gmemstate.model.objects import slot_number
from gmemstate.model.units import seconds, span
from gmemstate.narrate.names import Names, decimal_pages

IOCTLS = {
    (e.Through.VM_IOCTL, "private"): "KVM_SET_MEMORY_ATTRIBUTES",
    (e.Through.VM_IOCTL, "shared"): "KVM_SET_MEMORY_ATTRIBUTES",
    (e.Through.GMEM_IOCTL, "private"): "KVM_SET_MEMORY_ATTRIBUTES2",
    (e.Through.GMEM_IOCTL, "shared"): "KVM_SET_MEMORY_ATTRIBUTES2",
    (e.Through.GMEM_CONVERT, "private"): "KVM_GMEM_CONVERT_PRIVATE",
    (e.Through.GMEM_CONVERT, "shared"): "KVM_GMEM_CONVERT_SHARED",
}
PATHS = {
    e.RequestPath.VMCALL: "KVM_HC_MAP_GPA_RANGE",
    e.RequestPath.TDVMCALL: "TDVMCALL MapGPA",
    e.RequestPath.PSC_MSR: "page state change by MSR",
    e.RequestPath.PSC_GHCB: "page state change",
}
STEPS = {
    e.UnmapStep.BLOCK: "TDH.MEM.RANGE.BLOCK fails{}, the S-EPT maps it as before",
    e.UnmapStep.TRACK: "TDH.MEM.TRACK fails{}, old translations may still reach it",
    e.UnmapStep.REMOVE: "TDH.MEM.PAGE.REMOVE fails{}, the S-EPT still maps it",
    e.UnmapStep.WBINVD: "TDH.PHYMEM.PAGE.WBINVD fails{}, it is removed, its cache lines are not written back",
    e.UnmapStep.RMPUPDATE: "RMPUPDATE fails{}, the RMP still gives it to the guest",
    e.UnmapStep.PSMASH: "PSMASH fails{}, it is part of a 2M entry of the RMP",
}
ORDERS = {9: "2M", 18: "1G"}
USERS = {
    e.User.HOST: "the host",
    e.User.GUEST: "the guest",
    e.User.IOMMU: "an IOMMU",
    e.User.PIN: "a pin",
    e.User.REFERENCE: "a reference",
}
DECLARED = ("all of it is converted", "nothing of it is converted", "it is not known what is converted")
STATUSES = {0: "success", 1: "RETRY", 1 << 63: "INVALID_OPERAND"}
GENERIC_ERROR = 0x100 << 32
"""What KVM answers to a page state change that failed (PSC_SPECIFIC_ERROR_GENERIC of the GHCB specification)."""


Facts = dict[str, Any]
Sentence = Callable[[Any, Facts, Names], str]


def _kind(attributes: int | None) -> str:
    return "another attribute" if attributes is None else "private" if attributes & PRIVATE_ATTRIBUTE else "shared"


def _failure(result: int | None) -> str:
    """`` (ENOMEM)`` of what has failed."""
    return f" ({errno_name(result)})" if result else ""


def _be(event: Any) -> str:
    return "is" if event.npages == 1 else "are"


def _host_page(event: Any) -> str:
    return "a host page" if event.pfn is None else f"host page {event.pfn:#x}"


def _page_of(event: Any, by: Names) -> str:
    """The page that is converted, or the host page where only that is known; a simulated page has no telling pfn."""
    if by.simulated:
        return by.pages(event)
    where = f", {by.run(event.start, event.npages, None)}," if event.start is not None else ""
    return _host_page(event) + where + by.of(event.owner)


def _user(event: Any, facts: Facts, other: str) -> str:
    return str(facts.get("user", other))


def _said(facts: Facts) -> str:
    """What a log says in its own words, or in those of its reader."""
    return ", ".join(str(facts[name]) for name in ("text", "what", "code", "why", "site") if facts.get(name) is not None)


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


# --- sources and guests -----------------------------------------------------------------------------------------------


def _clocks(event: e.ClockPair, _facts: Facts, by: Names) -> str:
    other = "CLOCK_REALTIME" if event.clock is None else f"the clock of {by.sources.get(event.clock, 'another source')}"
    return f"at this time {other} shows {seconds(event.other)}"


def _created(event: e.GmemCreated, _facts: Facts, by: Names) -> str:
    if event.result:
        return f"a guest_memfd for {by.owner(event.vm)} cannot be created{_failure(event.result)}"
    return f"{by.owner(event.owner, 'a guest_memfd')} is created for {by.owner(event.vm)}"


def _slot(event: e.SlotSet, _facts: Facts, by: Names) -> str:
    slot = f"memslot {slot_number(event.slot)}{by.of(event.owner)}"
    if event.npages == 0:
        return f"{slot} is deleted{_failure(event.result)}"
    plain = event.flags is not None and not event.flags & KVM_MEM_GUEST_MEMFD
    where = by.run(event.start, event.npages, None, "gfn")
    done = "cannot be" if event.result else "is"
    return f"{slot} {done} set: {where}{', without a guest_memfd' * plain}{_failure(event.result)}"


def _bound(event: e.GmemBound, _facts: Facts, by: Names) -> str:
    done, gmem = "cannot be" if event.result else "are", by.owner(event.gmem, "a guest_memfd")
    return f"{by.pages(event)} {done} backed by {gmem} from its page {by.page(event.index or 0)} on{_failure(event.result)}"


def _exited(event: e.VcpuExited, facts: Facts, by: Names) -> str:
    who = _user(event, facts, by.caller(event.thread))
    if event.result:
        return f"{who} does not run: KVM_RUN returns {errno_name(event.result)}"
    if event.reason == KVM_EXIT_MMIO and by.simulated:
        return f"{who} accesses a gfn without a memslot: KVM_EXIT_MMIO"
    known = None if event.reason is None else exit_reason(event.reason)
    return f"{who} returns from KVM_RUN: {known.name if known is not None else event.reason or 'exit not known'}"


def _dead(event: e.VmDead, facts: Facts, by: Names) -> str:
    if by.simulated and "page" in facts:
        return f"{facts.get('user')} accesses page {facts['page']} before it has accepted it: the VM is dead"
    return f"{by.owner(event.owner)} is dead{': ' + _said(facts) if _said(facts) else ''}"


# --- requests ---------------------------------------------------------------------------------------------------------


def _guest_asked(event: e.GuestAsked, facts: Facts, by: Names) -> str:
    where = by.run(event.start, event.npages, event.owner, "gfn")
    if "entries" in facts and by.simulated:
        where = ", ".join(decimal_pages(start, end - start, "gfn") for start, end in facts["entries"])
    kind = "as the other kind" if event.flags is None else "as private" if event.flags else "as shared"
    return f"the guest asks for {where} {kind}: {PATHS[by.path(event) or event.path]}"


def _guest_answered(event: e.GuestAnswered, _facts: Facts, by: Names) -> str:
    path, result = by.path(event), str(event.result)
    if path is e.RequestPath.TDVMCALL:
        result = STATUSES.get(event.result % (1 << 64), result)
    elif path in (e.RequestPath.PSC_MSR, e.RequestPath.PSC_GHCB):
        result = {0: "success", GENERIC_ERROR: f"the generic error ({GENERIC_ERROR:#x})"}.get(event.result, result)
    elif event.result < 0:
        result = f"-{errno_name(-event.result)}"
    if event.next_gpa is None:
        return f"the guest gets {result}"
    return f"the guest gets {result}, and the gfn to go on from, {by.page(event.next_gpa >> PAGE_SHIFT)}"


def _memory_fault(event: e.MemoryFaultExit, facts: Facts, by: Names) -> str:
    who = _user(event, facts, by.caller(event.thread))
    kind = f" as {_kind(event.flags)}" if event.flags is not None else ""
    where = by.run(event.start, event.npages, event.owner, "gfn")
    return f"{who} accesses {where}{kind}: KVM_EXIT_MEMORY_FAULT, {errno_name(event.result)}"


# --- conversions ------------------------------------------------------------------------------------------------------


def _asked(event: e.ConvertAsked | e.ConvertMet, facts: Facts, by: Names) -> str:
    verb = "is inside of a call that asks" if isinstance(event, e.ConvertMet) else "asks"
    number = by.number(event.conversion)
    if event.attributes is None:
        unread = ", with a pointer that cannot be read" if by.simulated else f" of {by.pages(event)}"
        return f"{by.caller(event.thread)} {verb} for a conversion{unread}{number}"
    kind, where = _kind(event.attributes), by.pages(event)
    if event.start is None and "address" in facts:
        where = f"{facts.get('address')}, size {facts.get('size')},"
    elif event.npages == 0:
        where = f"nothing (size 0) from {'gfn' if event.owner in by.memory.vms else 'page'} {event.start} on"
    odd = [f"{_words(name)} {facts[name]}" for name in ("flags", "reserved", "error_offset", "struct") if name in facts]
    if event.attributes & ~PRIVATE_ATTRIBUTE:
        odd.append(f"attributes {event.attributes:#x}")
    return f"{by.caller(event.thread)} {verb} for {where} as {kind}: {', '.join([IOCTLS[event.through, kind], *odd])}{number}"


def _attempted(event: e.ConvertAttempted, _facts: Facts, by: Names) -> str:
    what = f"{by.pages(event)} to {_kind(event.attributes)}{by.number(event.conversion)}"
    return f"tracepoint kvm_vm_set_mem_attributes: {what}"


def _returned(event: e.ConvertReturned, _facts: Facts, by: Names) -> str:
    name, offset = errno_name(event.result), ""
    if event.error_offset is not None and (event.error_offset or name in ("EAGAIN", "ENOMEM")):
        offset = f", error_offset {event.error_offset:#x}"
        offset += f" (page {by.page(event.error_offset >> PAGE_SHIFT)})" if name == "EAGAIN" else ""
    return f"{by.call(event.conversion)} returns {name}{offset}"


def _compared(event: e.AttrsCompared, _facts: Facts, by: Names) -> str:
    where, kind = by.pages(event), _kind(event.attributes)
    return f"all of {where} has the attribute already: {kind}" if event.equal else f"not all of {where} is {kind}"


def _reserved(event: e.Reserved, facts: Facts, by: Names) -> str:
    if not event.result:
        return f"memory for the attributes of {by.call(event.conversion)} is reserved"
    if "what" in facts:
        return f"no memory for {facts['what']}{_failure(event.result)}"
    return f"memory cannot be reserved{_failure(event.result)}; nobody was unmapped yet"


def _answered(event: e.UserAnswered, facts: Facts, by: Names) -> str:
    where = by.pages(event)
    if "user" not in facts and event.result:
        return f"guest_memfd learns that {where} cannot be unmapped{_failure(event.result)}"
    who, kind = _user(event, facts, USERS[event.user]), USERS[event.user].split()[-1]
    who = who if "user" not in facts or who == kind else f"{who} ({kind})"
    slow = f" after {facts['turns']} turns" if "turns" in facts else ""
    if event.result is None:
        return f"{who} is asked to unmap {where}, and does not answer"
    if event.result:
        them = "it" if event.npages == 1 else "them"
        return f"{who} is asked to unmap {where}{slow}, refuses ({errno_name(event.result)}), and still maps {them}"
    if event.entries is None:
        return f"{who} unmaps {where}{slow}"
    gone = {0: "had no mapping left", 1: "1 mapping gone"}.get(event.entries, f"{event.entries} mappings gone")
    return f"{who} unmaps {where}{slow}: {gone}"


def _map_answered(event: e.MapAnswered, facts: Facts, by: Names) -> str:
    asked = f"{_user(event, facts, USERS[event.user])} is asked to map {by.pages(event)} again"
    if event.result is None:
        return f"{asked}, and does not answer"
    return f"{asked}, and cannot{_failure(event.result)}" if event.result else f"{asked}, and does"


def _checked(event: e.UsersChecked, facts: Facts, by: Names) -> str:
    if not event.result:
        return f"nobody else holds {by.pages(event)}"
    if "user" in facts:
        return f"{facts['user']} is asked whether it would unmap, and would {facts['would']}; nobody was unmapped yet"
    where = f"page {event.start} is" if by.simulated else f"{by.pages(event)} {_be(event)}"
    if event.references is None or event.expected is None:
        return f"{where} in use{_failure(event.result)}"
    pin = f"; a pin counts {GUP_PIN_COUNTING_BIAS}" if event.references >= GUP_PIN_COUNTING_BIAS else ""
    return f"{where} in use: {event.references} references, not {event.expected}{pin}"


def _stored(event: e.AttrsStored, _facts: Facts, by: Names) -> str:
    where, kind = by.pages(event), _kind(event.attributes)
    return f"{where}: {kind} cannot be stored{_failure(event.result)}" if event.result else f"{where} {_be(event)} {kind} now"


def _folio(event: e.FolioSplit | e.FolioMerged, _facts: Facts, by: Names) -> str:
    size = ORDERS.get(event.order or 0, f"{event.npages} pages")
    failed = "cannot be" if event.result else ""
    if isinstance(event, e.FolioSplit):
        where = f"page {event.start}" if by.simulated else by.pages(event)
        return f"the {size} folio at {where} {failed or 'is'} split"
    return f"{by.pages(event)} {failed or 'are'} merged to a {size} folio"


def _undone(event: e.Undone, _facts: Facts, by: Names) -> str:
    where, kind = by.pages(event), "" if event.attributes is None else _kind(event.attributes)
    if event.result:
        return f"rollback: {where} cannot be put back{_failure(event.result)}: a WARN, and {kind or 'the new attribute'} stays"
    return f"rollback: {where} {_be(event)}{' ' if kind else ''}{kind} as before"


def _declared(event: e.Declared, _facts: Facts, by: Names) -> str:
    known = DECLARED[event.how] if 0 <= event.how < len(DECLARED) else f"{event.how}"
    return f"an operator declares what became of {by.call(event.conversion)}: {known}"


# --- pages, devices, tasks --------------------------------------------------------------------------------------------


def _served(event: e.FaultServed, facts: Facts, by: Names) -> str:
    kind = {e.Access.GUEST_PRIVATE: " as private", e.Access.GUEST_SHARED: " as shared"}.get(event.access, "")
    who = _user(event, facts, "the host" if event.access is e.Access.HOST else "the guest")
    end = facts.get("signal", f"fails{_failure(event.result)}") if event.result else "faulted in"
    return f"{who} accesses {by.pages(event)}{kind}: {end}"


def _private_mapped(event: e.PrivateMapped, _facts: Facts, by: Names) -> str:
    if by.simulated:
        return f"{by.pages(event, 'gfn')} {_be(event)} measured as they are"
    return f"{_page_of(event, by)} is made private"


def _unmap_failed(event: e.PrivateUnmapFailed, _facts: Facts, by: Names) -> str:
    status = "" if event.status is None or by.simulated else f" with {event.status:#x}"
    return f"{_page_of(event, by)} cannot be unmapped: {STEPS[event.step].format(status)}"


def _map_failed(event: e.PrivateMapFailed, _facts: Facts, by: Names) -> str:
    if by.simulated:
        return f"gfn {event.start} cannot be made private: RMPUPDATE refuses it{_failure(event.status)}"
    return f"{_page_of(event, by)} cannot be made private" + ("" if event.status is None else f": {event.status:#x}")


def _added(event: e.PageAdded, _facts: Facts, by: Names) -> str:
    if event.npages == 1:
        return f"{by.pages(event)} gets host page {event.pfn:#x}"
    return f"{by.pages(event)} get host pages from {event.pfn:#x} on"


def _freed(event: e.PageFreed, facts: Facts, by: Names) -> str:
    where, why = f"{by.pages(event)} {'leaves' if event.npages == 1 else 'leave'} the file", facts.get("kept")
    if why is None:
        return f"{where}, back to the allocator" if by.simulated else where
    if why == "for ever":
        return f"{where}; guest_memfd keeps the host memory for ever"
    return f"{where}; the host memory is not freed: {why}"


def _punched(event: e.Punched, _facts: Facts, by: Names) -> str:
    what = "a hole is punched" if event.mode & FALLOC_FL_PUNCH_HOLE else "fallocate is done"
    return f"{by.pages(event)}: {'fallocate fails' if event.result else what}{_failure(event.result)}"


def _held(verb: str, *, failed: str = "") -> Sentence:
    """What a device or a holder does with pages."""

    def sentence(event: Any, facts: Facts, by: Names) -> str:
        result = getattr(event, "result", 0)
        return f"{_user(event, facts, 'a device')} {failed if result else verb} {by.pages(event)}{_failure(result)}"

    return sentence


def _rmp(event: e.RmpViolation, facts: Facts, by: Names) -> str:
    if by.simulated:
        return f"{facts.get('user')} writes to page {facts.get('page')}: an RMP fault"
    return f"an RMP violation at {_host_page(event)}{': ' + _said(facts) if _said(facts) else ''}"


def _spinning(event: e.Spinning, facts: Facts, by: Names) -> str:
    page = by.page(int(facts["page"], 16)) if "page" in facts else "not known"
    not_expected = f", not {facts['expected']}" if "expected" in facts else ""
    count = "too many" if event.references is None else event.references
    return f"Spinning on folio: page {page} has {count} references{not_expected}"


def _stuck(event: e.TaskStuck, facts: Facts, by: Names) -> str:
    why = facts.get("loop") or (f"it waits for {facts['waits_for']}" if "waits_for" in facts else "")
    who = "the ioctl" if by.simulated else by.caller(event.thread)
    return f"{who} makes no progress{': ' if why else ''}{why}"


def _signalled(event: e.TaskSignalled, facts: Facts, by: Names) -> str:
    inside = "" if event.conversion is None else f" inside of {by.call(event.conversion)}"
    return f"{by.caller(event.thread)} gets signal {event.signal}{inside}{' (out of memory)' * (facts.get('cause') == 'oom')}"


def _vmm(event: e.VmmSaid, facts: Facts, by: Names) -> str:
    text = _said(facts) or "something that is not known"
    error = f": {errno_name(event.result)}" if event.result is not None else ""
    return f"{text}{error}" if by.simulated else f"the VMM reports {text}{error}"


SENTENCES: dict[type[Event], Sentence] = {
    e.SourceOpened: lambda _, f, __: f"{f.get('name', 'a source')} begins ({f.get('format', 'format not known')})",
    e.ClockPair: _clocks,
    e.Gap: lambda event, _, by: (
        f"{event.count or ''} events{by.of(event.owner)} are missing here ({_words(event.gap.name)})".lstrip()
    ),
    e.SourceShows: lambda event, _, by: f"the source proves that it shows: {_words(event.capability.name)}{by.of(event.owner)}",
    e.SourceRead: lambda event, *_: f"the source is read up to byte {event.offset}{', not to its end' * bool(event.whole)}",
    e.HostBooted: lambda *_: "the host is booted again",
    e.VmSeen: lambda event, _, by: (
        f"{by.owner(event.owner)} is {'created' if event.made else 'first observed; it was created before the record begins'}"
    ),
    e.VmCreated: lambda event, _, by: f"{by.owner(event.owner)} is created: nothing was converted before",
    e.VmDestroyed: lambda event, _, by: f"{by.owner(event.owner)} is destroyed",
    e.VmBugged: lambda event, _, by: f"KVM marks {by.owner(event.owner)} as bugged",
    e.VmDead: _dead,
    e.VcpuExited: _exited,
    e.DialectSeen: lambda event, _, by: f"the kernel keeps attributes{by.of(event.owner)} as {event.dialect.word} does",
    e.SlotSet: _slot,
    e.GmemCreated: _created,
    e.GmemSeen: lambda event, _, by: f"{by.owner(event.owner)}{by.of(event.vm)} is first observed",
    e.GmemBound: _bound,
    e.GmemUnbound: lambda event, _, by: f"{by.pages(event)} lose their guest_memfd",
    e.GmemReleased: lambda event, _, by: (
        f"{'the guest_memfd' if by.simulated else by.owner(event.owner, 'a guest_memfd')} is closed"
    ),
    e.GuestAsked: _guest_asked,
    e.GuestAnswered: _guest_answered,
    e.MemoryFaultExit: _memory_fault,
    e.ConvertAsked: _asked,
    e.ConvertMet: _asked,
    e.ConvertAttempted: _attempted,
    e.ConvertReturned: _returned,
    e.AttrsCompared: _compared,
    e.WorkItem: lambda event, _, by: f"an item of work: {by.pages(event)}",
    e.Reserved: _reserved,
    e.ZapStarted: lambda event, _, by: f"{by.call(event.conversion)} begins to unmap {by.pages(event)}",
    e.InvalidateAdded: lambda event, _, by: f"guest faults in {by.pages(event)} wait until the invalidation ends",
    e.InvalidateEnded: lambda event, _, by: f"the invalidation of {by.call(event.conversion)} ends: faults are served again",
    e.UserAnswered: _answered,
    e.MapAnswered: _map_answered,
    e.UsersChecked: _checked,
    e.AttrsStored: _stored,
    e.FolioSplit: _folio,
    e.FolioMerged: _folio,
    e.Undone: _undone,
    e.HvaUnmapped: lambda event, _, by: f"host virtual pages {by.pages(event)} are unmapped (mmu notifier)",
    e.FaultServed: _served,
    e.PrivateMapped: _private_mapped,
    e.PrivateMapFailed: _map_failed,
    e.PrivateUnmapFailed: _unmap_failed,
    e.PageLeaked: lambda event, _, by: (
        f"the kernel leaks host pages {span(event.pfn, event.pfn + event.npages)}{by.of(event.owner)}: given to nobody again"
    ),
    e.HkidLeaked: lambda event, *_: f"TDX key id {'not known' if event.hkid is None else event.hkid} is leaked",
    e.ReclaimFailed: lambda event, _, by: f"{_host_page(event)}{by.of(event.owner)} cannot be reclaimed",
    e.PageAdded: _added,
    e.PageFreed: _freed,
    e.Punched: _punched,
    e.Poisoned: lambda event, _, by: f"a memory error of {_page_of(event, by)}",
    e.RmpViolation: _rmp,
    e.GeneralProtection: lambda _, f, __: f"the kernel takes a general protection fault{': ' + _said(f) if _said(f) else ''}",
    e.MachineCheck: lambda event, *_: f"the machine reports a memory error of {_host_page(event)}",
    e.DmaMapped: _held("maps", failed="cannot map"),
    e.DmaUnmapped: _held("unmaps", failed="cannot unmap"),
    e.Pinned: _held("holds"),
    e.Unpinned: _held("releases"),
    e.DmaFaulted: lambda event, facts, by: (
        f"{_user(event, facts, 'a device')} accesses {by.pages(event)}: a DMA fault, since a device cannot fault it in"
    ),
    e.Spinning: _spinning,
    e.TaskStuck: _stuck,
    e.TaskSignalled: _signalled,
    e.KernelWarned: lambda _, f, __: f"the kernel warns{': ' + _said(f) if _said(f) else ''}",
    e.VmmSaid: _vmm,
    e.Declared: _declared,
    e.Interrupted: lambda event, _, by: f"the process that carried out {by.call(event.conversion)} is gone",
}
"""The sentence of every kind of event."""
