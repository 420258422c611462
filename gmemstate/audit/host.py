"""May VMs be started on this host: what failed unmaps, leaks and poison have left behind, since it was last started.

A page that KVM could not take back stays with its old owner although the kernel may hand it out again; who may be given it
depends on why. Rules: Linux 7.2 arch/x86/kvm/vmx/tdx.c, arch/x86/virt/svm/sev.c; mails of 2025-07-11 to 2025-07-15 on reuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model import events as e
from gmemstate.model.events import DETAIL, KIND, LINE, RESULT, SOURCE, details
from gmemstate.model.linux import PAGE_SIZE
from gmemstate.model.objects import MessedUp
from gmemstate.model.reports import SourceFormat, formats_of

"""The format of a source that would show what is messed up; without one nothing can be said to be well."""


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


class Doubt(NamedTuple):
    """A line that does not name a page and yet speaks against a kind of guest."""

    guests: tuple["Guests", ...]
    until: str
    why: str
    line: str
    """where it stands"""


class Answer(NamedTuple):
    """One kind of guest: whether it may be started, until when that holds, and why."""

    guests: Guests
    advice: Advice
    until: str
    why: str


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a cause means for each kind of guest; None: nothing."""

    plain: tuple[Advice, str] | None
    tdx: tuple[Advice, str] | None
    snp: tuple[Advice, str] | None
    until: str


_REBOOT = "the next reboot"
_RULES = {
    e.Cause.SEPT_STILL_MAPS: _Rule(
        (Advice.RISK, "a page may still be mapped by a dead TD; ordinary use works as long as that TD is never entered again"),
        (Advice.NO, "the TDX module refuses a new TD the page (TDX_PAGE_METADATA_INCORRECT)"),
        None,
        _REBOOT,
    ),
    e.Cause.RMP_STILL_GUEST: _Rule(
        (Advice.NO, "the RMP still gives a page to a guest: whoever writes to it takes a fault, the kernel included"),
        None,
        (Advice.NO, "the RMP still gives a page to a guest that is gone"),
        _REBOOT,
    ),
    e.Cause.UNUSABLE_PRIVATE: _Rule(
        None,
        (Advice.RISK, "a page cannot be made private: a guest that is given it will fail"),
        (Advice.RISK, "a page cannot be made private: a guest that is given it will fail"),
        "the cause is mended; a reboot does not help",
    ),
    e.Cause.STALE_DMA: _Rule(
        (Advice.NO, "a device still reaches pages that are others' now"),
        (Advice.NO, "a device still reaches pages that are others' now"),
        (Advice.NO, "a device still reaches pages that are others' now"),
        "the device is reset or unbound",
    ),
    e.Cause.LEAKED_BY_KERNEL: _Rule(None, None, None, _REBOOT),
    e.Cause.POISONED: _Rule(None, None, None, "for ever"),
    e.Cause.RECLAIM_REFUSED: _Rule(None, None, None, _REBOOT),
}
"""Leaked, poisoned and unreclaimed pages are kept by the kernel: memory is lost, nobody is given it."""

_LOST = (e.Cause.LEAKED_BY_KERNEL, e.Cause.RECLAIM_REFUSED, e.Cause.POISONED)
_ORDER = (Advice.NO, Advice.RISK, Advice.UNKNOWN, Advice.YES)


@dataclass(frozen=True, slots=True)
class Host:
    """The answer for a host, as far as its record goes."""

    answers: tuple[Answer, ...]
    entries: tuple[MessedUp, ...]
    """what is messed up now, oldest first"""
    doubts: tuple[Doubt, ...]
    """what is said without a page"""
    at_least: str | None
    """why there may be more than these; None if there is no reason to think so"""
    looked: bool
    """a kernel log was read"""


def host(history: History) -> Host:
    """What may be started on the host, by what its record shows since its last start."""
    entries = tuple(entry for entry in history.memory.messed_up.values() if entry.state != "cleared")
    doubts = tuple(_doubts(history))
    guests = set(_of_guests(history))
    looked = any(
        SourceFormat.KERNEL_LOG in formats_of(source.format) and source.id not in guests for source in history.sources.values()
    )
    answers = tuple(_answer(guests, entries, doubts, looked=looked) for guests in Guests)
    return Host(answers, entries, doubts, _more(history, entries), looked)


def _of_guests(history: History) -> Iterator[int | None]:
    """The sources that the kernel of a protected guest has written: what they do not say is not said of the host."""
    for row in history.reports:
        if row[KIND] == e.KernelWarned.code and details(row[DETAIL]).get("what") == "kernel of a guest":
            yield row[SOURCE]


def _more(history: History, entries: tuple[MessedUp, ...]) -> str | None:
    """Why there may be more pages than are on record."""
    causes = {entry.cause for entry in entries}
    if e.Cause.SEPT_STILL_MAPS in causes:
        return "the kernel prints the first failure of a VM only"
    if any(entry.count is None for entry in entries):
        return "some lines name no page"
    if causes & {e.Cause.RMP_STILL_GUEST, e.Cause.RECLAIM_REFUSED, e.Cause.UNUSABLE_PRIVATE}:
        return "the kernel limits the rate of such lines"
    if any(SourceFormat.KERNEL_LOG in formats_of(source.format) and source.gaps for source in history.sources.values()):
        return "lines of the kernel log are missing"
    return None


_DAMAGED = {"SEAMCALL of another form": Guests.TDX, "RMPUPDATE of another form": Guests.SNP}


def _doubts(history: History) -> Iterator[Doubt]:
    """Reports since the last start that name no page, or not what became of it."""
    for row in history.reports:
        if history.before_a_boot(row):
            continue
        facts = details(row[DETAIL])
        said: tuple[tuple[Guests, ...], str, str] | None = None
        if row[KIND] == e.KernelWarned.code and (kind := _DAMAGED.get(str(facts.get("what")))) is not None:
            said = (
                (Guests.PLAIN, kind),
                "the line is read whole",
                "a step of TDX or SNP failed, and the line is damaged or shortened",
            )
        elif row[KIND] == e.KernelWarned.code and facts.get("about") == "private unmap" and facts.get("what") != "RMPUPDATE":
            said = (
                tuple(Guests),
                _REBOOT,
                "a warning about a private unmap: a page may still be a guest's, which one is not on record",
            )
        elif row[KIND] == e.KernelWarned.code and facts.get("what") == "RMPUPDATE" and "to" not in facts:
            said = (
                (Guests.PLAIN, Guests.SNP),
                "its direction is known",
                "RMPUPDATE failed, and whether a page stayed a guest's is not on record",
            )
        elif row[KIND] == e.RmpViolation.code and str(facts.get("owner")).startswith("guest-owned"):
            said = ((Guests.PLAIN, Guests.SNP), _REBOOT, "the host met a page that the RMP gives to a guest")
        elif row[KIND] == e.RmpViolation.code and _met_by_the_host(facts):
            said = ((Guests.PLAIN, Guests.SNP), _REBOOT, "the host met a page that the hardware does not give to it")
        elif _still_mapped_for_a_device(row, facts):
            said = (tuple(Guests), "the device is reset or unbound", "a device may still reach pages that became private")
        if said is not None:
            yield Doubt(*said, line=history.place(row[SOURCE], row[LINE]))


def _met_by_the_host(facts: dict[str, Any]) -> bool:
    """Whether the host touched a page of another owner, whoever that is; one that is nobody's was in use for a moment only."""
    return str(facts.get("what")).endswith("fault of the host") and "unassigned" not in str(facts.get("owner"))


def _still_mapped_for_a_device(row: e.EventRow, facts: dict[str, Any]) -> bool:
    if row[KIND] == e.DmaUnmapped.code:
        return bool(row[RESULT])
    code = facts.get("code")
    return row[KIND] == e.VmmSaid.code and (code == "DMA still mapped" or (code, facts.get("what")) == ("DMA", "UNMAP"))


def _answer(guests: Guests, entries: tuple[MessedUp, ...], doubts: tuple[Doubt, ...], *, looked: bool) -> Answer:
    found: list[tuple[Advice, str, str]] = []
    for cause in dict.fromkeys(entry.cause for entry in entries):
        rule = _RULES[cause]
        said = {Guests.PLAIN: rule.plain, Guests.TDX: rule.tdx, Guests.SNP: rule.snp}[guests]
        if said is not None:
            found.append((said[0], rule.until, said[1]))
    found += [(Advice.UNKNOWN, doubt.until, f"{doubt.why} ({doubt.line})") for doubt in doubts if guests in doubt.guests]
    if found:
        advice, until, why = min(found, key=lambda one: _ORDER.index(one[0]))
        return Answer(guests, advice, until, why)
    if not looked:
        return Answer(guests, Advice.UNKNOWN, "", "no kernel log was read: `gmemstate ingest` one of this host's whole uptime")
    lost = sum(entry.count or 1 for entry in entries if entry.cause in _LOST)
    return Answer(
        guests,
        Advice.YES,
        "",
        "nothing in the kernel log that was read speaks against it, which counts as far back as it goes"
        + (f"; at least {lost * PAGE_SIZE >> 10} KiB of memory are lost" if lost else ""),
    )
