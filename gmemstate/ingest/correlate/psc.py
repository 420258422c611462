"""Page state changes of SEV-SNP guests, by the GHCB MSR protocol or by VMGEXIT: what a guest asks, and what it is told.

Neither passes the tracepoint of hypercalls (arch/x86/kvm/svm/sev.c makes the exit itself). The MSR has the page in it; the entries
behind a VMGEXIT are in memory that no tracepoint prints.
"""

from typing import Any

from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model.events import GuestAnswered, GuestAsked, RequestPath, detail
from gmemstate.model.linux import PAGE_SHIFT

PAGE_STATE_CHANGE = 0x8000_0010
INFO, GFN, OPERATION = 0xFFF, (1 << 40) - 1, 52
REQUEST, RESPONSE = 0x014, 0x015
"""Of the MSR: bits 11:0 say what it is, 51:12 are the gfn, 55:52 the operation; of a response bits 63:32 are the error."""
OPERATIONS = {1: "to private", 2: "to shared"}


def _owner(tracker: Tracker, thread: Thread) -> int | None:
    vm = tracker.vm_of(thread)
    return vm.handle if vm is not None else None


def _ask(tracker: Tracker, fact: Fact, thread: Thread, path: RequestPath, **page: Any) -> bool:
    thread.request, thread.other_hypercall = tracker.handle(), False
    thread.exit = None
    tracker.emit(GuestAsked(request=thread.request, thread=thread.tid, owner=_owner(tracker, thread), path=path, **page))
    return True


def _answer(tracker: Tracker, fact: Fact, thread: Thread, result: int) -> bool:
    if thread.request is None or not 0 <= result < 1 << 63:
        return False
    tracker.emit(GuestAnswered(request=thread.request, result=result, owner=_owner(tracker, thread), thread=thread.tid))
    tracker.closed.append(thread.request)
    thread.request = None
    return True


@handles("psc_msr")
def psc_msr(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """One page, and to which kind."""
    word = fact.args["ghcb"]
    operation = word >> OPERATION & 0xF
    if word & INFO != REQUEST:
        return False
    page = {
        "start": word >> PAGE_SHIFT & GFN,
        "npages": 1,
        "flags": operation,
        "detail": detail(asked=OPERATIONS.get(operation)),
    }
    return _ask(tracker, fact, thread, RequestPath.PSC_MSR, **page)


@handles("psc_msr_done")
def psc_msr_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    return fact.args["ghcb"] & INFO == RESPONSE and _answer(tracker, fact, thread, fact.args["ghcb"] >> 32)


@handles("psc_ghcb")
def psc_ghcb(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """Up to 253 entries; KVM hands them to the VMM range by range, as KVM_HC_MAP_GPA_RANGE."""
    return fact.args["reason"] == PAGE_STATE_CHANGE and _ask(tracker, fact, thread, RequestPath.PSC_GHCB)


@handles("psc_ghcb_done")
def psc_ghcb_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    return fact.args["reason"] == PAGE_STATE_CHANGE and _answer(tracker, fact, thread, fact.args["info2"])
