"""Rules about host pages: who may not be given one that could not be taken back, by the cause, and until when.

A page that KVM could not take back stays with its old owner although the kernel may hand it out again. Rules: Linux 7.2
arch/x86/kvm/vmx/tdx.c, arch/x86/virt/svm/sev.c; mails of 2025-07-11 to 2025-07-15 on reuse. Leaked, poisoned and unreclaimed
pages are kept by the kernel: memory is lost, nobody is given it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.conclusions.conclusion import Conclusion, Mended, Predicate, Subject, SubjectKind
from gmemstate.conclusions.guests import Guests
from gmemstate.model.events import Cause, DmaUnmapped, Event, KernelWarned, RmpViolation, VmmSaid, details, event_of
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.objects import MessedUp
from gmemstate.model.reports import KernelReportCode, VmmReportCode
from gmemstate.model.verdict import Basis

NOBODY, NOT_KNOWN = "must not be given", "not known who may be given it"
X86 = (Guests.PLAIN, Guests.TDX, Guests.SNP)


class PageRule(NamedTuple):
    """Why a kind of guest may not be given a page, or why that is not known."""

    certain: bool
    mended_by: Mended
    reason: str


_UNUSABLE = PageRule(False, Mended.UNKNOWN, "a page cannot be made private: a guest that is given it will fail")
_REACHED = PageRule(True, Mended.RESET, "a device still reaches pages that are others' now")
BY_CAUSE: dict[Cause, dict[Guests, PageRule]] = {
    Cause.SEPT_STILL_MAPS: {
        Guests.PLAIN: PageRule(
            False, Mended.REBOOT, "a page may still be mapped by a dead TD; it works as long as that TD is never entered again"
        ),
        Guests.TDX: PageRule(True, Mended.REBOOT, "the TDX module refuses a new TD the page (TDX_PAGE_METADATA_INCORRECT)"),
    },
    Cause.RMP_STILL_GUEST: {
        Guests.PLAIN: PageRule(
            True,
            Mended.REBOOT,
            "the RMP still gives a page to a guest: whoever writes to it takes a fault, the kernel included",
        ),
        Guests.SNP: PageRule(True, Mended.REBOOT, "the RMP still gives a page to a guest that is gone"),
    },
    Cause.UNTRACKED: {
        Guests.PLAIN: PageRule(False, Mended.REBOOT, "a page that is not named may still be reached by a dead TD"),
        Guests.TDX: PageRule(False, Mended.REBOOT, "the TDX module may refuse a new TD a page that is not named"),
    },
    Cause.UNFLUSHED: dict.fromkeys(
        (Guests.PLAIN, Guests.TDX),
        PageRule(False, Mended.REBOOT, "old cache lines of a TD may be written over a page that others have now"),
    ),
    Cause.UNSPLIT: dict.fromkeys(
        (Guests.PLAIN, Guests.SNP),
        PageRule(False, Mended.REBOOT, "a page may still be a guest's in the RMP: a 2M entry could not be split"),
    ),
    Cause.UNUSABLE_PRIVATE: {Guests.TDX: _UNUSABLE, Guests.SNP: _UNUSABLE},
    Cause.STALE_DMA: dict.fromkeys(X86, _REACHED),
}
"""What a cause means for which guests."""
KEPT = (Cause.LEAKED_BY_KERNEL, Cause.RECLAIM_REFUSED, Cause.POISONED)
"""Memory that is lost, and that nobody is given."""


class PageReason(NamedTuple):
    """What excludes kinds of guests, with the conclusion that carries it."""

    guests: Guests
    rule: PageRule
    conclusion: Conclusion


def about(history: History, foreign: frozenset[int]) -> Iterator[PageReason]:
    """What pages, and reports that name none, say against guests; ``foreign`` are sources that are no log of the host."""
    for entry in history.memory.messed_up.values():
        if entry.state in MESSED_UP.final or entry.source in foreign or _given_up(history, entry):
            continue
        mark = history.marks.get(entry.id)
        event = None if mark is None else event_of(mark)
        line = f"event {entry.id}" if event is None or event.line is None else history.place(event.source, event.line)
        for guests, rule in BY_CAUSE.get(entry.cause, {}).items():
            yield PageReason(guests, rule, _conclusion(_name(entry), rule, "page-" + entry.cause.name.lower(), line))
    for row in history.reports:
        event = event_of(row)
        if history.before_a_boot(row) or event.source in foreign:
            continue
        if (found := _doubt(event, details(event.detail))) is not None:
            line = history.place(event.source, event.line)
            for guests in found.guests:
                rule = PageRule(False, found.mended_by, found.reason)
                yield PageReason(guests, rule, _conclusion(f"of {line}", rule, "page-not-named", line))


def _given_up(history: History, entry: MessedUp) -> bool:
    """Whether the kernel has leaked the page that it could not take back (kvm_rmp_make_shared()): nobody is given it."""
    return entry.cause in (Cause.RMP_STILL_GUEST, Cause.UNSPLIT) and any(
        kept.cause is Cause.LEAKED_BY_KERNEL
        and kept.pfn is not None
        and entry.pfn is not None
        and kept.pfn <= entry.pfn < kept.pfn + (kept.count or 1)
        for kept in history.memory.messed_up.values()
        if kept.state not in MESSED_UP.final
    )


def _name(entry: MessedUp) -> str:
    if entry.pfn is None:
        return f"of event {entry.id}"
    return f"pfn {entry.pfn:#x}" + (f"+{entry.count}" if entry.count not in (1, None) else "")


def _conclusion(name: str, rule: PageRule, by: str, line: str) -> Conclusion:
    value = NOBODY if rule.certain else NOT_KNOWN
    subject = Subject(SubjectKind.PAGE, name)
    return Conclusion(subject, Predicate.GIVEN_TO, value, Basis.IMPLIED, by, (line,), rule.reason, rule.mended_by)


class _Doubt(NamedTuple):
    guests: tuple[Guests, ...]
    mended_by: Mended
    reason: str


_SNP = (Guests.PLAIN, Guests.SNP)
_DAMAGED = "a step of TDX or SNP failed, and the line is damaged or shortened"
_WARNED = _Doubt(
    X86, Mended.REBOOT, "a warning about a private unmap: a page may still belong to a guest; which page is not on record"
)
_NO_DIRECTION = _Doubt(_SNP, Mended.REBOOT, "RMPUPDATE failed, and whether a page stayed a guest's is not on record")
_GUEST_OWNED = _Doubt(_SNP, Mended.REBOOT, "the host accessed a page that the RMP gives to a guest")
_NOT_THE_HOSTS = _Doubt(_SNP, Mended.REBOOT, "the host accessed a page that the hardware does not give to it")
_DEVICE_MAPS = _Doubt(X86, Mended.RESET, "a device may still reach pages that became private")


def _doubt(event: Event, facts: dict[str, Any]) -> _Doubt | None:
    """What a report without a page says against guests."""
    what = facts.get("what")
    if isinstance(event, KernelWarned):
        return _of_warning(facts, what)
    if isinstance(event, RmpViolation):
        if str(facts.get("owner")).startswith("guest-owned"):
            return _GUEST_OWNED
        # a page that is nobody's was in use for a moment only
        by_host = str(what).endswith("fault of the host") and "unassigned" not in str(facts.get("owner"))
        return _NOT_THE_HOSTS if by_host else None
    if isinstance(event, DmaUnmapped):
        return _DEVICE_MAPS if event.result else None
    if isinstance(event, VmmSaid):
        code = facts.get("code")
        still = code == VmmReportCode.DMA_STILL_MAPPED or (code, what) == (VmmReportCode.DMA, "UNMAP")
        return _DEVICE_MAPS if still else None
    return None


def _of_warning(facts: dict[str, Any], what: str | None) -> _Doubt | None:
    if what == KernelReportCode.SEAMCALL_OTHER:
        return _Doubt((Guests.PLAIN, Guests.TDX), Mended.REBOOT, _DAMAGED)
    if what == KernelReportCode.RMPUPDATE_OTHER:
        return _Doubt(_SNP, Mended.REBOOT, _DAMAGED)
    if what == KernelReportCode.RMPUPDATE:
        return None if "to" in facts else _NO_DIRECTION
    return _WARNED if facts.get("about") == "private unmap" else None
