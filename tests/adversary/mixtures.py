"""Reports that are cut, and logs that are read together: two hosts, a host and its guest, a kernel and a VMM."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.adversary.platforms import LATER, STARTS
from tests.adversary.reports import REPORTS
from tests.adversary.truth import CLOSED, GUEST, KERNEL, MEMORY, NOBODY, NOT_KNOWN, PLATFORM, UNKNOWN, VMM, YES, Log, Truth

Mixture = Callable[[Random], Log]
MIXTURES: dict[str, Mixture] = {}
ANYBODY = frozenset((KERNEL, PLATFORM, MEMORY, UNKNOWN, NOBODY))


def mixture(make: Mixture) -> Mixture:
    """Register a kind of mixture by its name."""
    MIXTURES[make.__name__.replace("_", "-")] = make
    return make


@mixture
def cut_report(rng: Random) -> Log:
    """Any report whose end is lost: its first line is there."""
    whole = REPORTS[rng.choice(list(REPORTS))](rng)
    kept = max(1, rng.randrange(len(whole.lines)))
    return Log(whole.lines[:kept], replace(whole.truth, words=(), quiet=True, failures=2))


@mixture
def headless_report(rng: Random) -> Log:
    """Any report whose first lines are lost: what happened is not known, where the task was is."""
    whole = REPORTS[rng.choice(list(REPORTS))](rng)
    lines = whole.lines[rng.randrange(1, len(whole.lines)) :]
    return Log(lines, replace(whole.truth, blame=ANYBODY, words=(), quiet=True, failures=2))


@mixture
def shortened_report(rng: Random) -> Log:
    """A report with "..." in place of lines inside it, as people send them: one report."""
    whole = REPORTS[rng.choice(("oops-null", "bug", "warning", "kasan", "scheduling-while-atomic", "soft-lockup"))](rng)
    lines = list(whole.lines)
    for place in sorted(rng.sample(range(3, len(lines)), 2), reverse=True):
        lines[place : place + 1] = ["..."]
    return Log(tuple(lines), replace(whole.truth, words=(), quiet=True), envelope=rng.choice(("bare", "quoted")))


@mixture
def two_hosts(rng: Random) -> Log:
    """The clean log of one host and the failing one of another: they are never one host, so nothing is known of "this" host."""
    good, bad = rng.choice((("whole-tdx", "snp-failed"), ("whole-snp", "tdx-failed"), ("whole-plain", "tdx-failed")))
    failing = STARTS[bad](rng)
    host = {guests: CLOSED for guests in ("plain", "tdx", "snp")}
    return Log(STARTS[good](rng).lines, replace(failing.truth, words=(), host=host), failing.lines, "dmesg")


@mixture
def host_and_guest(rng: Random) -> Log:
    """A host that is well and the log of a guest of it that failed: the failure is the guest's."""
    start = rng.choice(("whole-tdx", "whole-snp"))
    host, guest = STARTS[start](rng), STARTS["guest-detected"](rng)
    truth = replace(guest.truth, host={**dict.fromkeys(("tdx", "snp"), CLOSED | {YES}), "plain": LATER | CLOSED}, words=())
    return Log(host.lines, truth, guest.lines, "dmesg")


@mixture
def termination_and_exit(rng: Random) -> Log:
    """The kernel says that a guest ended itself, the VMM that it does not know this exit: one failure."""
    group, code = rng.choice(((0, 0), (0, 1), (0, 2), (1, 0)))
    truth = Truth(frozenset((GUEST, VMM)), words=(f"{code:#x}",))
    return Log(
        (f"kvm_amd: SEV-ES guest requested termination: {group:#x}:{code:#x}",), truth, ("KVM: unknown exit reason 24",), "bare"
    )


@mixture
def two_reports(rng: Random) -> Log:
    """Two reports of one kernel, one after the other: each its own."""
    first, second = (REPORTS[rng.choice(list(REPORTS))](rng) for _ in range(2))
    one, two = first.truth, second.truth
    truth = Truth(
        one.blame | two.blame,
        one.named | two.named,
        one.stacks | two.stacks,
        one.claims | two.claims,
        host=NOT_KNOWN,
        pages=one.pages + two.pages,
        failures=one.failures + two.failures,
        quiet=one.quiet and two.quiet,
    )
    return Log((*first.lines, *second.lines), truth)
