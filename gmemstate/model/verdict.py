"""What became of a conversion, on three axes: what its caller was returned, what was applied, what is left different."""

from dataclasses import dataclass
from enum import StrEnum

from gmemstate.model.events import ACTOR, NPAGES, OWNER, START, VALUE, Capability, Through, User
from gmemstate.model.linux import EAGAIN, EFAULT, EIO, ENOMEM, ENOTTY
from gmemstate.model.objects import Conversion, Source
from gmemstate.model.units import END


class Label(StrEnum):
    """The closed list of words for a verdict; derived, never stored as a fact."""

    COMMITTED = "committed"
    """returned 0: the whole range has the asked value"""
    NOOP = "noop"
    """returned 0, and it had it before"""
    REJECTED = "rejected"
    """refused by the argument checks: nothing was looked at"""
    FAILED = "failed"
    """an errno; the attributes as before, and nothing else is known to differ"""
    FAILED_RESIDUE = "failed_residue"
    """an errno, the attributes as before, something else differs"""
    PARTIAL = "partial"
    """part was applied"""
    UNKNOWN = "unknown"
    """an errno that has several meanings, and steps may have gone unseen"""
    ATTEMPTED = "attempted"
    """the result was not seen"""
    CUT = "cut"
    """the record ends inside"""
    IN_FLIGHT = "in_flight"
    """it is still going on, as far as the record goes"""
    DECLARED = "declared"
    """an operator closed it"""


class Basis(StrEnum):
    """How a fact is known."""

    OBSERVED = "observed"
    IMPLIED = "implied"
    """the kernel's source says that it must follow"""
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Applied:
    """How much of a conversion took effect: ``extent`` all, part, none or unknown, and which ranges."""

    extent: str
    ranges: tuple[tuple[int, int], ...]
    basis: Basis | None


@dataclass(frozen=True, slots=True)
class Residue:
    """Something that a failed or successful conversion left different: ``user`` lost ``[start, end)``, or pages are suspect."""

    what: str
    owner: int | None
    start: int | None
    end: int | None
    entries: int | None
    basis: Basis


@dataclass(frozen=True, slots=True)
class Verdict:
    """The three axes and the label."""

    result: int | None
    """the errno, 0 for success, None if it was not seen"""
    applied: Applied
    residue: tuple[Residue, ...] | None
    """None where steps may have gone unseen"""
    label: Label


_BY_STATE = {
    "rejected": Label.REJECTED,
    "noop": Label.NOOP,
    "committed": Label.COMMITTED,
    "committed_short": Label.PARTIAL,
    "declared": Label.DECLARED,
}

USER_NAMES = {
    User.HOST: "host mapping",
    User.GUEST: "guest mapping",
    User.IOMMU: "IOMMU mapping",
    User.PIN: "pin",
    User.REFERENCE: "reference",
}


def user_name(user: int | None) -> str:
    """How people call a user of pages."""
    return USER_NAMES[User(user)] if user in USER_NAMES else f"user {user}"


def verdict(conversion: Conversion, source: Source | None = None) -> Verdict:
    """The verdict of a conversion as far as it is on record; ``source`` tells whether its record is still growing."""
    return Verdict(conversion.result, _applied(conversion), _residue(conversion), label(conversion, source))


def label(conversion: Conversion, source: Source | None = None) -> Label:
    """The word for a verdict."""
    if conversion.state in _BY_STATE:
        return _BY_STATE[conversion.state]
    if conversion.result == 0:
        return Label.COMMITTED
    if conversion.result is not None:
        left = _residue(conversion)
        if left is None:
            return Label.UNKNOWN
        dirty = conversion.state == "failed_dirty" or left
        return Label.FAILED_RESIDUE if dirty else Label.FAILED
    if conversion.superseded:
        return Label.ATTEMPTED
    if source is not None and not source.read and conversion.state != "cut":
        return Label.IN_FLIGHT
    return Label.CUT if conversion.gapped or Capability.RETURNED in conversion.shown else Label.ATTEMPTED


def _applied(conversion: Conversion) -> Applied:
    whole = () if conversion.start is None or conversion.end is None else ((conversion.start, conversion.end),)
    if conversion.result == 0:
        if conversion.state == "committed_short":
            return Applied("part", (), Basis.OBSERVED)
        return Applied("all", whole, Basis.OBSERVED if conversion.stored or conversion.state == "noop" else Basis.IMPLIED)
    if conversion.result is None:
        if conversion.stored:
            return Applied("all", whole, Basis.OBSERVED)
        return Applied("unknown", (), None)
    if conversion.state == "failed_dirty":
        return Applied("unknown", (), None)
    return Applied("none", (), Basis.IMPLIED)


def _residue(conversion: Conversion) -> tuple[Residue, ...] | None:
    """What differs although the attribute does not: users that lost mappings in a failed conversion, and suspect pages.

    In-place, EAGAIN comes from the in-use test, which follows unmap_mapping_pages() over the whole request; and EFAULT may
    hide an EAGAIN that could not be written back.
    """
    found = []
    if conversion.suspects:
        found.append(Residue("suspect pages", conversion.owner, None, None, conversion.suspects, Basis.OBSERVED))
    if conversion.result in (0, None):
        return tuple(found)
    if conversion.result_from is not None and conversion.gapped:
        return None  # another source knows the result; the steps were lost with the return
    for row in conversion.answers:
        start, npages, entries = row[START], row[NPAGES], row[VALUE]
        if entries != 0 and start is not None:
            end = END if npages is None else start + npages
            # Host page tables are clean after unmap_mapping_pages(); the guest may have had no entry to lose.
            basis = Basis.OBSERVED if entries or row[ACTOR] == User.HOST else Basis.ASSUMED
            found.append(Residue(user_name(row[ACTOR]), row[OWNER], start, end, entries, basis))
    if conversion.through is Through.GMEM_IOCTL and User.HOST not in [row[ACTOR] for row in conversion.answers]:
        if conversion.result == EAGAIN:
            found.append(
                Residue(USER_NAMES[User.HOST], conversion.owner, conversion.start, conversion.end, None, Basis.IMPLIED)
            )
        elif conversion.result == EFAULT and not found and conversion.state not in ("rejected", "failed_at_reserve"):
            return None
    return tuple(found)


def error_offset_counts(conversion: Conversion) -> bool:
    """Whether the kernel wrote error_offset: only with EAGAIN and ENOMEM of an in-place conversion (INV-41)."""
    return conversion.through is not Through.VM_IOCTL and conversion.result in (EAGAIN, ENOMEM)


def arguments_known(conversion: Conversion) -> bool:
    """Whether the arguments on record are those that were passed.

    With EFAULT the kernel could not read them, unless a step shows that it had. With EIO and ENOTTY it never looked; a probe
    at a bad pointer reads rubbish then, but not the same rubbish twice.
    """
    if conversion.covered is not None or conversion.answers:
        return True
    if conversion.result == EFAULT:
        return False
    return conversion.result not in (EIO, ENOTTY) or conversion.read_twice
