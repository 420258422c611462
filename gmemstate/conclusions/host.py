"""May VMs be started on this host: a gate that fails closed.

Yes needs the log of the host's kernel from its start to its end, the line of success of each part that the kind of guest
needs, and nothing that excludes it. What was not seen is not known.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from gmemstate.audit.history.history import History
from gmemstate.audit.queries.messed_up import MessedUpRow, messed_up
from gmemstate.conclusions import pages, platform
from gmemstate.conclusions.boots import Boot, boots
from gmemstate.conclusions.conclusion import Conclusion, Mended, Predicate, Subject, SubjectKind
from gmemstate.conclusions.guests import NEEDS, PROVEN_BY, VENDOR_OF, Guests
from gmemstate.model.document import Answer, Document
from gmemstate.model.events import Cause
from gmemstate.model.log_owner import LogOwner
from gmemstate.model.machines.host import DEAD, FAILED, FOUND, MISSING, UP, WHOLE
from gmemstate.model.objects import OF_A_TD
from gmemstate.model.reports import PlatformPart
from gmemstate.model.verdict import Basis


class MayStart(StrEnum):
    """Whether a kind of guest may be started."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "not known"
    OTHER = "not this platform"


class Outcome(StrEnum):
    """What came of a check."""

    PASS = "pass"
    FAIL = "fail"
    NOT_SEEN = "not seen"


@dataclass(frozen=True, slots=True)
class Check(Document):
    """One thing that must be so before guests are started."""

    name: str
    outcome: Outcome
    guests: tuple[Guests, ...]
    """which kinds need it"""
    reason: str
    lines: tuple[str, ...]
    """the lines that show it: ``dmesg.txt:7``"""
    hint: str
    """what to do where it did not pass"""
    mended_by: Mended | None
    """what ends it, where it failed"""


@dataclass(frozen=True, slots=True)
class StartVerdict(Document):
    """One kind of guest: whether it may be started, and why."""

    guests: Guests
    verdict: MayStart
    reason: str
    lines: tuple[str, ...]
    """the lines that prove it"""
    mended_by: Mended | None
    """what ends a `no`"""


@dataclass(frozen=True, slots=True)
class HostAnswer(Answer):
    """The answer for a host, as far as its record goes."""

    answers: tuple[StartVerdict, ...]
    checks: tuple[Check, ...]
    messed_up: tuple[MessedUpRow, ...]
    """what is messed up now, oldest first"""
    at_least: str | None
    """why there may be more pages than these; None if there is no reason to think so"""
    conclusions: tuple[Conclusion, ...]
    missing: tuple[str, ...] = ()
    """why the record may be incomplete"""

    def of(self, guests: Guests) -> StartVerdict:
        """The answer for one kind of guest. Raises KeyError for one that is not asked about here."""
        for answer in self.answers:
            if answer.guests is guests:
                return answer
        raise KeyError(guests)


_JOURNAL = "`journalctl -k -b -o short-monotonic > dmesg.txt`, then ingest that"
_READ = f"read the host's kernel log: {_JOURNAL}"
_HOSTS = (LogOwner.HOST, LogOwner.NESTED)
_ALL = tuple(Guests)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known: all boots, the last one of each log that is the host's, and the conclusions about them."""

    all: list[Boot]
    last: list[Boot]
    hosts: list[Boot]
    conclusions: list[Conclusion]
    pages: list[pages.PageReason]

    def about(self, subject: Subject, predicate: Predicate) -> Conclusion | None:
        return next((one for one in self.conclusions if (one.subject, one.predicate) == (subject, predicate)), None)

    def boot(self, boot: Boot, predicate: Predicate) -> Conclusion | None:
        return self.about(Subject(SubjectKind.BOOT, boot.name), predicate)

    def part(self, boot: Boot, part: PlatformPart) -> Conclusion | None:
        return self.about(Subject(SubjectKind.PART, part, boot.name), Predicate.STATE)


def conclude(history: History) -> tuple[Conclusion, ...]:
    """Everything that the record carries about the host, its boots, its platform and its pages, and what may be started."""
    return host(history).conclusions


def host(history: History) -> HostAnswer:
    """What may be started on the host, by what its record shows since its last start."""
    facts = _facts(history)
    asked = [guests for guests in Guests if guests is not Guests.CCA or _realms(facts)]
    checks = [check for guests in asked if _elsewhere(facts, guests) is None for check in _checks(facts, guests)]
    answers = tuple(_answer(facts, guests, [check for check in checks if guests in check.guests]) for guests in asked)
    entries = tuple(messed_up(history))
    said = tuple(_said(facts, answer) for answer in answers)
    return HostAnswer(
        answers, _once(checks), entries, _more(history, entries), (*facts.conclusions, *said), tuple(history.missing())
    )


def _facts(history: History) -> _Facts:
    every = boots(history)
    conclusions = [one for boot in every for one in platform.about(boot)]
    last = [boot for boot in every if boot.last]
    hosts = [boot for boot in last if boot.owner in _HOSTS]
    foreign = frozenset(boot.source for boot in last if boot.owner not in (*_HOSTS, LogOwner.UNKNOWN))
    found = list(pages.about(history, foreign))
    conclusions += dict.fromkeys(reason.conclusion for reason in found)
    return _Facts(every, last, hosts, conclusions, found)


def _realms(facts: _Facts) -> bool:
    return any(facts.part(boot, PlatformPart.KVM_REALM) is not None for boot in facts.hosts)


# --- checks


def _checks(facts: _Facts, guests: Guests) -> Iterator[Check]:
    for check in (_log, _one_host, _whole, _kernel):
        yield check(facts)
    yield from _parts(facts, guests)
    yield from _page_checks(facts, guests)


def _check(
    name: str,
    outcome: Outcome,
    guests: Iterable[Guests],
    reason: str,
    because: Iterable[Conclusion | None] = (),
    hint: str = "",
) -> Check:
    known = [one for one in because if one is not None]
    lines = tuple(dict.fromkeys(line for one in known for line in one.lines))
    mended = next((one.mended_by for one in known if one.mended_by is not None), None)
    return Check(name, outcome, tuple(guests), reason, lines, hint, mended if outcome is Outcome.FAIL else None)


def _log(facts: _Facts) -> Check:
    name = "the host's kernel log"
    if facts.hosts:
        owners = [facts.boot(boot, Predicate.LOG_OF) for boot in facts.hosts]
        return _check(name, Outcome.PASS, _ALL, ", ".join(boot.log for boot in facts.hosts), owners)
    if not facts.last:
        return _check(name, Outcome.NOT_SEEN, _ALL, "no kernel log was read", hint=_READ)
    whose = [
        f"{boot.log} is "
        f"{'not known to be a log of the host' if boot.owner is LogOwner.UNKNOWN else f'the log of a {boot.owner}'}"
        for boot in facts.last
    ]
    owners = [facts.boot(boot, Predicate.LOG_OF) for boot in facts.last]
    return _check(name, Outcome.NOT_SEEN, _ALL, "; ".join(whose), owners, _READ)


def _one_host(facts: _Facts) -> Check:
    name = "one host, one kernel"
    others = [boot for boot in facts.last if boot.owner is LogOwner.UNKNOWN]
    if len(facts.hosts) + len(others) > 1 and facts.hosts:
        logs = " and ".join(boot.log for boot in (*facts.hosts, *others))
        return _check(name, Outcome.NOT_SEEN, _ALL, f"{logs}: nothing proves that they are of one host", hint=_READ)
    unmarked = [boot for boot in facts.hosts if boot.number > 1 and not boot.marked]
    if unmarked:
        reason = f"{unmarked[0].log} shows kernels that start one after the other; not known whether each is the host's"
        return _check(name, Outcome.NOT_SEEN, _ALL, reason, hint=_READ)
    return _check(name, Outcome.PASS if facts.hosts else Outcome.NOT_SEEN, _ALL, "", hint="" if facts.hosts else _READ)


def _whole(facts: _Facts) -> Check:
    name = "from the boot to the end"
    whole = [facts.boot(boot, Predicate.LOG_REACHES) for boot in facts.hosts]
    if whole and all(whole):
        return _check(name, Outcome.PASS, _ALL, "no line is known to be missing", whole)
    for boot in facts.hosts:
        if boot.gaps:
            return _check(name, Outcome.NOT_SEEN, _ALL, boot.gaps[0], hint=_READ)
        if not boot.from_the_start:
            return _check(name, Outcome.NOT_SEEN, _ALL, f"{boot.log} does not begin where its kernel starts", hint=_READ)
    return _check(name, Outcome.NOT_SEEN, _ALL, "no log of the host", hint=_READ)


def _kernel(facts: _Facts) -> Check:
    name = "the kernel is whole"
    hint = "reboot, then ask again with the log of the new boot"
    for boot in facts.hosts:
        state = facts.boot(boot, Predicate.KERNEL)
        if state is not None and state.value != WHOLE:
            outcome = Outcome.FAIL if state.value == DEAD else Outcome.NOT_SEEN
            return _check(name, outcome, _ALL, state.reason, [state], hint)
    found = [facts.boot(boot, Predicate.KERNEL) for boot in facts.hosts]
    if found and all(found):
        return _check(name, Outcome.PASS, _ALL, "no report speaks of damage", found)
    return _check(name, Outcome.NOT_SEEN, _ALL, "what is not in the log may have damaged it", hint=_READ)


def _parts(facts: _Facts, guests: Guests) -> Iterator[Check]:
    for part in NEEDS[guests]:
        found = [one for boot in facts.hosts if (one := facts.part(boot, part)) is not None]
        users = tuple(kind for kind in Guests if part in NEEDS[kind])
        bad = next((one for one in found if one.value in (FAILED, MISSING)), None)
        proven = [
            one
            for one in found
            if one.value == UP or (one.value == FOUND and part in (PlatformPart.RMP_TABLE, PlatformPart.TDX_BIOS))
        ]
        if bad is not None:
            yield _check(part, Outcome.FAIL, users, bad.reason, [bad], f"mended by: {bad.mended_by}")
        elif found and len(proven) == len(found):
            yield _check(part, Outcome.PASS, users, proven[0].reason, proven)
        elif found and any(one not in proven and one.value != FOUND for one in found):
            yield _check(part, Outcome.NOT_SEEN, users, "its lines contradict each other", found, _READ)
        elif part in PROVEN_BY[guests]:
            users = tuple(kind for kind in Guests if part in PROVEN_BY[kind])
            yield _check(part, Outcome.NOT_SEEN, users, "no line says that it works", found, _READ)


def _page_checks(facts: _Facts, guests: Guests) -> Iterator[Check]:
    name = "pages can be given out"
    found = [reason for reason in facts.pages if reason.guests is guests]
    for reason in sorted(found, key=lambda one: not one.rule.certain)[:1]:
        outcome = Outcome.FAIL if reason.rule.certain else Outcome.NOT_SEEN
        same = [one.conclusion for one in found if one.rule == reason.rule]
        yield _check(name, outcome, [guests], reason.rule.reason, same, f"mended by: {reason.rule.mended_by}")
    if found:
        return
    shown = all(facts.boot(boot, Predicate.LOG_REACHES) for boot in facts.hosts) and bool(facts.hosts)
    seen = "no page is known that such a guest may not be given"
    yield _check(name, Outcome.PASS if shown else Outcome.NOT_SEEN, [guests], seen, hint="" if shown else _READ)


def _once(checks: list[Check]) -> tuple[Check, ...]:
    """Checks that several kinds of guests share stand once; those that differ only in whom they concern are one."""
    found: dict[Check, tuple[Guests, ...]] = {}
    for check in checks:
        alone = replace(check, guests=())
        found[alone] = tuple(dict.fromkeys((*found.get(alone, ()), *check.guests)))
    return tuple(replace(check, guests=guests) for check, guests in found.items())


# --- answers


def _answer(facts: _Facts, guests: Guests, checks: list[Check]) -> StartVerdict:
    if (vendor := _elsewhere(facts, guests)) is not None:
        reason = f"the platform is {vendor.value}'s"
        return StartVerdict(guests, MayStart.OTHER, reason, vendor.lines, Mended.NEVER)
    failed = next((one for one in checks if one.outcome is Outcome.FAIL), None)
    if failed is not None:
        return StartVerdict(guests, MayStart.NO, f"{failed.name}: {failed.reason}", failed.lines, failed.mended_by)
    if (unseen := _worst(checks)) is not None:
        return StartVerdict(guests, MayStart.UNKNOWN, f"{unseen.name}: {unseen.reason}", unseen.lines, None)
    lines = tuple(dict.fromkeys(line for check in checks for line in check.lines))
    return StartVerdict(guests, MayStart.YES, "all checks pass", lines, None)


def _elsewhere(facts: _Facts, guests: Guests) -> Conclusion | None:
    """The vendor of the platform, where it is not that of a kind of guest."""
    vendors = [one for boot in facts.hosts if (one := facts.boot(boot, Predicate.VENDOR)) is not None]
    wanted = VENDOR_OF.get(guests)
    return vendors[0] if wanted is not None and vendors and all(one.value != wanted for one in vendors) else None


def _worst(checks: list[Check]) -> Check | None:
    """Of the checks that did not pass the one that says most: what was seen before what was not."""
    unseen = [check for check in checks if check.outcome is Outcome.NOT_SEEN]
    return next((check for check in unseen if check.lines), unseen[0] if unseen else None)


def _said(facts: _Facts, answer: StartVerdict) -> Conclusion:
    of = facts.hosts[0].name if len(facts.hosts) == 1 else ""
    basis = Basis.ASSUMED if answer.verdict is MayStart.YES else Basis.IMPLIED
    subject = Subject(SubjectKind.HOST, answer.guests, of)
    return Conclusion(
        subject, Predicate.MAY_START, answer.verdict, basis, "gate", answer.lines, answer.reason, answer.mended_by
    )


def _more(history: History, entries: Iterable[MessedUpRow]) -> str | None:
    """Why there may be more pages than are on record."""
    causes = {entry.cause for entry in entries}
    if causes & set(OF_A_TD):
        return "the kernel prints the first failure of a VM only"
    if any(entry.count is None for entry in entries):
        return "some lines name no page"
    if causes & {Cause.RMP_STILL_GUEST, Cause.RECLAIM_REFUSED, Cause.UNUSABLE_PRIVATE}:
        return "the kernel limits the rate of such lines"
    if any(source.gaps for source in history.sources.values()):
        return "lines of a log are missing"
    return None
