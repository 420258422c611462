"""A log with the truth about it, and the laws: no claim goes beyond the truth, and every decisive line is used."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.adversary.program import Answers

KERNEL, PLATFORM, VMM, GUEST, MEMORY, UNKNOWN, NOBODY = (
    "kernel or module",
    "host platform",
    "VMM",
    "guest",
    "memory shortage",
    "unknown",
    "nobody",
)
YES, NO, OPEN, NOT_HERE, RISK = "yes", "no", "not known", "not this platform", "at a risk"
CLOSED = frozenset((OPEN, NO, RISK, NOT_HERE))
NOT_KNOWN = dict.fromkeys(("plain", "tdx", "snp"), CLOSED)
PROVEN = {
    "rmpupdate": r"rmpupdate (?:failed|(?:was )?refused)|rmpupdate: page|taken back from|in the rmp\b|takes an rmp fault",
    "psmash": r"psmash (?:failed|was refused|refused)",
    "reclaim": r"not reclaimed|reclaims? (?:failed|was refused)",
    "remove": r"(?:remove|block|track|wbinvd)\w* (?:failed|was refused)|still mapped by a dead td|s-ept still maps",
    "lost": r"(?:page|memory|pages) (?:is|are|was) (?:lost|leaked)|lost until|memory is lost",
    "poison": r"poisoned page|memory error at pfn",
    "innocent": r"unrelated|nothing to do with|do not look for the cause|no conversion failed|nothing failed",
    "host well": r"nothing is wrong with the host|host not affected|no page of it is suspect",
    "waits": r"somebody holds a page|who pins the pages|waits, and prints",
    "bugged": r"the vm is bugged(?! [^.]*if)",
}
"""Claims, and the words by which each is known."""
CULPRIT = re.compile(
    r"(?:warned|failed|crashed|faulted|died|oops(?:ed)?|panicked|refused|stuck) (?:in|at) `?(\w+)|\bwhere (\w+)"
)


@dataclass(frozen=True)
class Truth:
    """What a log shows."""

    blame: frozenset[str]
    """who may be blamed; ``unknown`` may always be said"""
    named: frozenset[str] = frozenset()
    """the functions that may be said to have failed"""
    stacks: frozenset[str] = frozenset()
    """all functions that stand on stacks"""
    claims: frozenset[str] = frozenset()
    """what of PROVEN the lines carry"""
    words: tuple[str, ...] = ()
    """what the decisive lines say: a post-mortem that uses them has these words"""
    host: Mapping[str, frozenset[str]] = field(default_factory=lambda: NOT_KNOWN)
    pages: int = 0
    """so many entries of messed-up pages at most"""
    failures: int = 1
    """so many incidents at most; with 0 nothing failed"""
    quiet: bool = False
    """nothing need be said"""


@dataclass(frozen=True)
class Log:
    """Lines, and the truth."""

    lines: tuple[str, ...]
    truth: Truth
    other: tuple[str, ...] = ()
    """those of a second file that is read with it"""
    envelope: str | None = None
    """the only one that it can have"""


def no_claim(truth: Truth, said: Answers) -> Iterator[str]:
    """Nothing is claimed that no line carries."""
    for claim, words in PROVEN.items():
        found = re.search(words, f"{said.told} {said.reasons}")
        if found and claim not in truth.claims and not (claim == "innocent" and not truth.failures):
            yield f"claims {claim}: {found[0]}"


def culprit(truth: Truth, said: Answers) -> Iterator[str]:
    """No function is blamed that no first line names."""
    for match in CULPRIT.finditer(said.told):
        name = match[1] or match[2]
        if name in {function.lower() for function in truth.stacks - truth.named}:
            yield f"blames {name}: {match[0]}"


def blamed(truth: Truth, said: Answers) -> Iterator[str]:
    """Only those are blamed who may be."""
    for blame in said.blames:
        if blame not in truth.blame | {UNKNOWN} and (truth.failures or blame != NOBODY):
            yield f"blames {blame}, not {' or '.join(sorted(truth.blame))}"


def gate(truth: Truth, said: Answers) -> Iterator[str]:
    """The gate says yes only to a whole, clean boot log, and no only to what fails."""
    for guests, right in truth.host.items():
        if said.host[guests] not in right:
            yield f"{guests}: {said.host[guests]}, not {' or '.join(sorted(right))}"


def pages(truth: Truth, said: Answers) -> Iterator[str]:
    """No page is lost without a line that says so."""
    if said.pages > truth.pages:
        yield f"{said.pages} entries of messed-up pages, at most {truth.pages} are shown"


def once(truth: Truth, said: Answers) -> Iterator[str]:
    """One failure is one incident."""
    if len(said.blames) > max(truth.failures, 0 if said.blames == (NOBODY,) else truth.failures):
        yield f"{len(said.blames)} incidents of {truth.failures} failures: {said.titles}"


def used(truth: Truth, said: Answers) -> Iterator[str]:
    """What the decisive lines say is said."""
    if truth.failures and not truth.quiet and (said.refused or not (said.blames or OPEN in said.told)):
        yield "silent about a failure"
    for words in truth.words:
        if not re.search(words, said.told):
            yield f"does not say {words}"


LAWS: dict[str, Callable[[Truth, Answers], Iterator[str]]] = {
    "no-claim": no_claim,
    "culprit": culprit,
    "blamed": blamed,
    "gate": gate,
    "pages": pages,
    "once": once,
    "used": used,
}
