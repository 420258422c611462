"""May VMs be started on this host: what failed unmaps, leaks and poison have left behind, since it was last started.

A page that KVM could not take back stays with its old owner although the kernel may hand it out again; who may be given it
depends on why. Rules: Linux 7.2 arch/x86/kvm/vmx/tdx.c, arch/x86/virt/svm/sev.c; mails of 2025-07-11 to 2025-07-15 on reuse.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gmemstate.audit.history import History
from gmemstate.model.events import Cause
from gmemstate.model.objects import MessedUp

KERNEL_LOG = "kernel log"
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


_RULES = {
    Cause.SEPT_STILL_MAPS: _Rule(
        (Advice.RISK, "a page may still be mapped by a dead TD; ordinary use works as long as that TD is never entered again"),
        (Advice.NO, "the TDX module refuses a new TD the page (TDX_PAGE_METADATA_INCORRECT)"),
        None,
        "the next reboot",
    ),
    Cause.RMP_STILL_GUEST: _Rule(
        (Advice.NO, "the RMP still gives a page to a guest: whoever writes to it takes a fault, the kernel included"),
        None,
        (Advice.NO, "the RMP still gives a page to a guest that is gone"),
        "the next reboot",
    ),
    Cause.UNUSABLE_PRIVATE: _Rule(
        None,
        (Advice.RISK, "a page cannot be made private: a guest that is given it will fail"),
        (Advice.RISK, "a page cannot be made private: a guest that is given it will fail"),
        "the cause is mended; a reboot does not help",
    ),
    Cause.STALE_DMA: _Rule(
        (Advice.NO, "a device still reaches pages that are others' now"),
        (Advice.NO, "a device still reaches pages that are others' now"),
        (Advice.NO, "a device still reaches pages that are others' now"),
        "the device is reset or unbound",
    ),
    Cause.LEAKED_BY_KERNEL: _Rule(None, None, None, "the next reboot"),
    Cause.POISONED: _Rule(None, None, None, "for ever"),
    Cause.RECLAIM_REFUSED: _Rule(None, None, None, "the next reboot"),
}
"""Leaked, poisoned and unreclaimed pages are kept by the kernel: memory is lost, nobody is given it."""

_ORDER = (Advice.NO, Advice.RISK, Advice.UNKNOWN, Advice.YES)


@dataclass(frozen=True, slots=True)
class Host:
    """The answer for a host, as far as its record goes."""

    answers: tuple[Answer, ...]
    entries: tuple[MessedUp, ...]
    """what is messed up now, oldest first"""
    at_least: bool
    """the kernel stops printing behind the first failure, or names no page: there may be more"""
    looked: bool
    """a kernel log was read"""


def host(history: History) -> Host:
    """What may be started on the host, by what its record shows since its last start."""
    entries = tuple(entry for entry in history.memory.messed_up.values() if entry.state != "cleared")
    looked = any(KERNEL_LOG in source.format for source in history.sources.values())
    answers = tuple(_answer(guests, entries, looked=looked) for guests in Guests)
    silent = (Cause.SEPT_STILL_MAPS, Cause.RMP_STILL_GUEST)
    at_least = any(entry.count is None or entry.cause in silent for entry in entries)
    return Host(answers, entries, at_least, looked)


def _answer(guests: Guests, entries: tuple[MessedUp, ...], *, looked: bool) -> Answer:
    found: list[tuple[Advice, str, str]] = []
    for cause in dict.fromkeys(entry.cause for entry in entries):
        rule = _RULES[cause]
        said = {Guests.PLAIN: rule.plain, Guests.TDX: rule.tdx, Guests.SNP: rule.snp}[guests]
        if said is not None:
            found.append((said[0], rule.until, said[1]))
    if found:
        advice, until, why = min(found, key=lambda one: _ORDER.index(one[0]))
        return Answer(guests, advice, until, why)
    if not looked:
        return Answer(guests, Advice.UNKNOWN, "", "no kernel log was read: `gmemstate ingest` one of this host's whole uptime")
    return Answer(guests, Advice.YES, "", "nothing on record speaks against it")
