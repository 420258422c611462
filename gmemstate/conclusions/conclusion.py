"""What a conclusion is: about whom, which of a closed list of predicates, its value, the rule that made it, and its lines."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from gmemstate.conclusions.guests import NEEDS
from gmemstate.model.document import Document
from gmemstate.model.verdict import Basis


class SubjectKind(StrEnum):
    """What a conclusion is about."""

    HOST = "host"
    BOOT = "boot"
    PART = "part of the platform"
    PAGE = "page"


class Predicate(StrEnum):
    """What is said of it. Of one subject a predicate has one value, or two conclusions contradict each other."""

    LOG_OF = "log of"
    LOG_REACHES = "log reaches"
    VENDOR = "vendor"
    STATE = "state"
    KERNEL = "kernel"
    GIVEN_TO = "given to"
    """who may be given the page"""
    MAY_START = "may start"


class Mended(StrEnum):
    """What ends a state of affairs."""

    FIRMWARE = "firmware update"
    BIOS = "BIOS setting"
    MODULE = "TDX module update"
    KERNEL = "kernel update"
    RELOAD = "load the driver again"
    REBOOT = "reboot"
    RESET = "reset of the device"
    UNKNOWN = "not known"
    NEVER = "never"


class Subject(NamedTuple):
    """Whom a conclusion is about: ``name`` tells it from others of its kind, ``of`` is the boot that it lives in."""

    kind: SubjectKind
    name: str
    of: str = ""

    def __str__(self) -> str:
        return " ".join(word for word in (self.kind, self.name, f"in {self.of}" if self.of else "") if word)


@dataclass(frozen=True, slots=True)
class Conclusion(Document):
    """One thing that the record carries."""

    subject: Subject
    predicate: Predicate
    value: str
    basis: Basis
    rule: str
    """which rule made it"""
    lines: tuple[str, ...]
    """the lines that carry it: ``dmesg.txt:7``"""
    reason: str = ""
    mended_by: Mended | None = None


EXCLUDES = {
    ("yes", Predicate.STATE): ("failed", "missing", "unclear"),
    ("yes", Predicate.KERNEL): ("suspect", "locked", "overwritten", "dead"),
}
"""What a `may start: yes` excludes of the parts that it rests on, and of the kernel of its boot."""


def contradictions(found: Iterable[Conclusion]) -> Iterator[tuple[Conclusion, Conclusion]]:
    """The pairs that cannot both hold."""
    by_subject: dict[tuple[Subject, Predicate], list[Conclusion]] = defaultdict(list)
    found = list(found)
    for one in found:
        others = by_subject[one.subject, one.predicate]
        yield from ((other, one) for other in others if other.value != one.value)
        others.append(one)
    starts = [one for one in found if one.predicate is Predicate.MAY_START and one.value == "yes"]
    for one in found:
        for yes in starts:
            excluded = EXCLUDES.get((yes.value, one.predicate), ())
            if one.value in excluded and _rests_on(yes, one):
                yield yes, one


def _rests_on(yes: Conclusion, other: Conclusion) -> bool:
    """Whether a kind of guest needs a part of its boot; all need the kernel of it."""
    if other.subject.kind is SubjectKind.BOOT:
        return other.subject.name == yes.subject.of
    needed = next((parts for guests, parts in NEEDS.items() if guests == yes.subject.name), ())
    return other.subject.of == yes.subject.of and other.subject.name in needed
