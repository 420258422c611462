"""Page state changes of SEV-SNP guests, by the GHCB MSR protocol or by VMGEXIT: what a guest asks, and what it is answered.

Neither passes the tracepoint of hypercalls (arch/x86/kvm/svm/sev.c makes the exit itself). The MSR has the page in it; the
entries of a VMGEXIT are in memory that no tracepoint prints.
"""

from gmemstate.ingest.correlate.exits import answer
from gmemstate.ingest.correlate.trackees import Thread
from gmemstate.ingest.correlate.tracker import Tracker, handles
from gmemstate.ingest.fact import Fact
from gmemstate.model.events import GuestAsked, RequestPath, detail
from gmemstate.model.linux import PAGE_SHIFT

PAGE_STATE_CHANGE = 0x8000_0010
"""SVM_VMGEXIT_PSC"""
INFO, GFN, OPERATION = 0xFFF, (1 << 40) - 1, 52
REQUEST, RESPONSE = 0x014, 0x015
"""Of the MSR: bits 11:0 say what it is, 51:12 are the gfn, 55:52 the operation; of a response bits 63:32 are the error."""
OPERATIONS = {1: "to private", 2: "to shared"}


def _begin(tracker: Tracker, thread: Thread) -> int:
    thread.request, thread.other_hypercall, thread.exit = tracker.handle(), False, None
    return thread.request


def _answer(tracker: Tracker, thread: Thread, result: int) -> bool:
    if thread.request is None or not 0 <= result < 1 << 63:
        return False
    answer(tracker, thread, thread.request, result)
    return True


@handles("psc_msr")
def psc_msr(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """sev_handle_vmgexit_msr_protocol() enters: GHCB_MSR_PSC_REQ has one page, and to which kind."""
    word = fact.args["ghcb"]
    if word & INFO != REQUEST:
        return False
    operation, owner = word >> OPERATION & 0xF, tracker.owner_of(thread)
    tracker.emit(
        GuestAsked(
            request=_begin(tracker, thread),
            thread=thread.tid,
            owner=owner,
            path=RequestPath.PSC_MSR,
            start=word >> PAGE_SHIFT & GFN,
            npages=1,
            flags=operation,
            detail=detail(asked=OPERATIONS.get(operation)),
        )
    )
    return True


@handles("psc_msr_done")
def psc_msr_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """sev_handle_vmgexit_msr_protocol() leaves, GHCB_MSR_PSC_RESP: the upper half is the error."""
    return fact.args["ghcb"] & INFO == RESPONSE and _answer(tracker, thread, fact.args["ghcb"] >> 32)


@handles("psc_ghcb")
def psc_ghcb(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """sev_handle_vmgexit() enters, up to 253 entries; KVM hands them to the VMM range by range, as KVM_HC_MAP_GPA_RANGE."""
    if fact.args["reason"] != PAGE_STATE_CHANGE:
        return False
    owner, path = tracker.owner_of(thread), RequestPath.PSC_GHCB
    tracker.emit(GuestAsked(request=_begin(tracker, thread), thread=thread.tid, owner=owner, path=path))
    return True


@handles("psc_ghcb_done")
def psc_ghcb_done(tracker: Tracker, fact: Fact, thread: Thread) -> bool:
    """snp_complete_psc(): the error that the guest reads in exit_info2."""
    return fact.args["reason"] == PAGE_STATE_CHANGE and _answer(tracker, thread, fact.args["info2"])
