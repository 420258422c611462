"""May VMs be started on this host: by the failed unmaps, leaks and poison since it was last started.

A page that KVM could not take back stays with its old owner although the kernel may hand it out again; who may be given it
depends on why. Rules: Linux 7.2 arch/x86/kvm/vmx/tdx.c, arch/x86/virt/svm/sev.c; mails of 2025-07-11 to 2025-07-15 on reuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model.document import Document
from gmemstate.model.events import Cause, DmaUnmapped, Event, KernelWarned, RmpViolation, VmmSaid, details, event_of
from gmemstate.model.linux import PAGE_SIZE
from gmemstate.model.objects import MessedUp
from gmemstate.model.reports import KernelReportCode, SourceFormat, VmmReportCode, formats_of


class Guests(StrEnum):
    """What may be started."""

    PLAIN = "VMs without protection"
    TDX = "TDX guests"
    SNP = "SEV-SNP guests"


class Advice(StrEnum):
    """Whether it may be started."""

    NO = "no"
    RISK = "at a risk"
    YES = "yes"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Doubt(Document):
    """A line that names no page, and is a reason not to start a kind of guest."""

    guests: tuple[Guests, ...]
    until: str
    reason: str
    line: str
    """where it stands: ``dmesg.txt:7``"""


@dataclass(frozen=True, slots=True)
class StartVerdict(Document):
    """One kind of guest: whether it may be started, until when that holds, and the evidence for it."""

    guests: Guests
    verdict: Advice
    until: str
    """empty for a verdict that has no end"""
    reason: str


_REBOOT = "the next reboot"
_DEVICE_RESET = "the device is reset or unbound"
_REFUSED = (Advice.RISK, "a page cannot be made private: a guest that is given it will fail")
_REACHED = (Advice.NO, "a device still reaches pages that are others' now")
_RULES: dict[Cause, tuple[str, dict[Guests, tuple[Advice, str]]]] = {
    Cause.SEPT_STILL_MAPS: (
        _REBOOT,
        {
            Guests.PLAIN: (
                Advice.RISK,
                "a page may still be mapped by a dead TD; ordinary use works as long as that TD is never entered again",
            ),
            Guests.TDX: (Advice.NO, "the TDX module refuses a new TD the page (TDX_PAGE_METADATA_INCORRECT)"),
        },
    ),
    Cause.RMP_STILL_GUEST: (
        _REBOOT,
        {
            Guests.PLAIN: (
                Advice.NO,
                "the RMP still gives a page to a guest: whoever writes to it takes a fault, the kernel included",
            ),
            Guests.SNP: (Advice.NO, "the RMP still gives a page to a guest that is gone"),
        },
    ),
    Cause.UNUSABLE_PRIVATE: ("the cause is mended; a reboot does not help", {Guests.TDX: _REFUSED, Guests.SNP: _REFUSED}),
    Cause.STALE_DMA: (_DEVICE_RESET, dict.fromkeys(Guests, _REACHED)),
}
"""Until when a cause lasts, and what it means for which guests.

Leaked, poisoned and unreclaimed pages are kept by the kernel: memory is lost, nobody is given it.
"""

_LOST = (Cause.LEAKED_BY_KERNEL, Cause.RECLAIM_REFUSED, Cause.POISONED)
_ORDER = (Advice.NO, Advice.RISK, Advice.UNKNOWN, Advice.YES)


@dataclass(frozen=True, slots=True)
class Host:
    """The answer for a host, as far as its record goes."""

    answers: tuple[StartVerdict, ...]
    entries: tuple[MessedUp, ...]
    """what is messed up now, oldest first"""
    doubts: tuple[Doubt, ...]
    """reports that name no page"""
    at_least: str | None
    """why there may be more than these; None if there is no reason to think so"""
    kernel_log_read: bool


def host(history: History) -> Host:
    """What may be started on the host, by what its record shows since its last start."""
    entries = tuple(entry for entry in history.memory.messed_up.values() if entry.state != "cleared")
    doubts = tuple(_doubts(history))
    guests = set(_of_guests(history))
    logs = [
        history.labels()[source.id]
        for source in history.sources.values()
        if _is_kernel_log(source.format) and source.id not in guests
    ]
    answers = tuple(_answer(guests, entries, doubts, logs) for guests in Guests)
    return Host(answers, entries, doubts, _more(history, entries), bool(logs))


def _is_kernel_log(formats: str) -> bool:
    """Whether a source would show what is messed up; without one nothing can be said to be well."""
    return SourceFormat.KERNEL_LOG in formats_of(formats)


def _of_guests(history: History) -> Iterator[int | None]:
    """The sources that the kernel of a protected guest has written: what they do not say is not said of the host."""
    for event in map(event_of, history.reports):
        if isinstance(event, KernelWarned) and details(event.detail).get("what") == KernelReportCode.GUEST_KERNEL:
            yield event.source


def _more(history: History, entries: tuple[MessedUp, ...]) -> str | None:
    """Why there may be more pages than are on record."""
    causes = {entry.cause for entry in entries}
    if Cause.SEPT_STILL_MAPS in causes:
        return "the kernel prints the first failure of a VM only"
    if any(entry.count is None for entry in entries):
        return "some lines name no page"
    if causes & {Cause.RMP_STILL_GUEST, Cause.RECLAIM_REFUSED, Cause.UNUSABLE_PRIVATE}:
        return "the kernel limits the rate of such lines"
    if any(_is_kernel_log(source.format) and source.gaps for source in history.sources.values()):
        return "lines of the kernel log are missing"
    return None


class _Reason(NamedTuple):
    guests: tuple[Guests, ...]
    until: str
    reason: str


_SNP = (Guests.PLAIN, Guests.SNP)
_DAMAGED = "a step of TDX or SNP failed, and the line is damaged or shortened"
_READ_WHOLE = "the line is read whole"
_WARNED = _Reason(
    tuple(Guests), _REBOOT, "a warning about a private unmap: a page may still belong to a guest; which page is not on record"
)
_NO_DIRECTION = _Reason(
    _SNP, "its direction is known", "RMPUPDATE failed, and whether a page stayed a guest's is not on record"
)
_GUEST_OWNED = _Reason(_SNP, _REBOOT, "the host accessed a page that the RMP gives to a guest")
_NOT_THE_HOSTS = _Reason(_SNP, _REBOOT, "the host accessed a page that the hardware does not give to it")
_DEVICE_MAPS = _Reason(tuple(Guests), _DEVICE_RESET, "a device may still reach pages that became private")


def _doubts(history: History) -> Iterator[Doubt]:
    """Reports since the last start that name no page, or not what became of it."""
    for row in history.reports:
        if history.before_a_boot(row):
            continue
        event = event_of(row)
        found = _reason(event, details(event.detail))
        if found is not None:
            yield Doubt(*found, line=history.place(event.source, event.line))


def _reason(event: Event, facts: dict[str, Any]) -> _Reason | None:
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


def _of_warning(facts: dict[str, Any], what: str | None) -> _Reason | None:
    if what == KernelReportCode.SEAMCALL_OTHER:
        return _Reason((Guests.PLAIN, Guests.TDX), _READ_WHOLE, _DAMAGED)
    if what == KernelReportCode.RMPUPDATE_OTHER:
        return _Reason(_SNP, _READ_WHOLE, _DAMAGED)
    if what == KernelReportCode.RMPUPDATE:
        return None if "to" in facts else _NO_DIRECTION
    return _WARNED if facts.get("about") == "private unmap" else None


def _answer(guests: Guests, entries: tuple[MessedUp, ...], doubts: tuple[Doubt, ...], logs: list[str]) -> StartVerdict:
    found: list[tuple[Advice, str, str]] = []
    for cause in dict.fromkeys(entry.cause for entry in entries):
        until, verdicts = _RULES.get(cause, ("", {}))
        if guests in verdicts:
            verdict, reason = verdicts[guests]
            found.append((verdict, until, reason))
    found += [(Advice.UNKNOWN, doubt.until, f"{doubt.reason} ({doubt.line})") for doubt in doubts if guests in doubt.guests]
    if found:
        return StartVerdict(guests, *min(found, key=lambda one: _ORDER.index(one[0])))
    if not logs:
        none = "no kernel log was read: `gmemstate ingest` one of this host's whole uptime"
        return StartVerdict(guests, Advice.UNKNOWN, "", none)
    lost = sum(entry.count or 1 for entry in entries if entry.cause in _LOST)
    evidence = f"{', '.join(logs)} shows no page that such a guest may not be given, as far back as it goes"
    return StartVerdict(
        guests, Advice.YES, "", evidence + (f"; at least {lost * PAGE_SIZE >> 10} KiB of memory are lost" if lost else "")
    )
