"""Rules about one boot: whose log it is, how far it reaches, the vendor of the CPU, the parts of the platform, the kernel."""

from collections.abc import Callable, Iterator

from gmemstate.conclusions.boots import Boot, Reported
from gmemstate.conclusions.conclusion import Conclusion, Mended, Predicate, Subject, SubjectKind
from gmemstate.conclusions.guests import PARTS_OF, Vendor
from gmemstate.messages.report_kinds import Effect, effect_of
from gmemstate.model.linux import MSR_AMD64_SYSCFG, SYSCFG_SNP_ENABLE
from gmemstate.model.log_owner import LogEvidence, LogOwner
from gmemstate.model.machines.host import DEAD, FAILED, KERNEL, MISSING, NOT_SEEN, PART, WHOLE
from gmemstate.model.machines.run import fire
from gmemstate.model.reports import KernelReportCode, PlatformPart, PlatformState
from gmemstate.model.verdict import Basis

TRIGGER = {
    Effect.NOTHING: "harmless",
    Effect.UNKNOWN: "reported",
    Effect.LOCKS_HELD: "task_died",
    Effect.MEMORY_OVERWRITTEN: "overwrote",
    Effect.KERNEL_DEAD: "stopped",
}
"""What a report of each effect does to the machine of the kernel."""
MENDED_BY = {PlatformPart.TDX_BIOS: Mended.BIOS, PlatformPart.RMP_TABLE: Mended.BIOS, PlatformPart.KVM: Mended.BIOS}
"""What mends a part that has failed or is missing, where its lines do not say more."""
MENDED = (
    (PlatformPart.TDX_MODULE, "too old", Mended.MODULE),
    (PlatformPart.TDX_MODULE, "memory map", Mended.BIOS),
    (PlatformPart.TDX_MODULE, "not loaded", Mended.BIOS),
    (PlatformPart.SNP_FIRMWARE, "too old", Mended.FIRMWARE),
    (PlatformPart.SECURITY_PROCESSOR, "not enabled by BIOS", Mended.BIOS),
    (PlatformPart.SEV_FIRMWARE, "not enabled by BIOS", Mended.BIOS),
)
"""What mends a part, by words of its cause or of the line itself."""

Rule = Callable[[Boot], Iterator[Conclusion]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Register a rule about a boot."""
    RULES.append(function)
    return function


def about(boot: Boot) -> Iterator[Conclusion]:
    """All conclusions about a boot."""
    for each in RULES:
        yield from each(boot)


def _boot(boot: Boot) -> Subject:
    return Subject(SubjectKind.BOOT, boot.name)


@rule
def whose_log(boot: Boot) -> Iterator[Conclusion]:
    """Of a kernel that only a host, or only a guest, can be; evidence of both decides nothing."""
    if boot.owner is not LogOwner.UNKNOWN:
        proofs = ", ".join(boot.evidence)
        lines = tuple(boot.evidence.values())
        yield Conclusion(_boot(boot), Predicate.LOG_OF, boot.owner, Basis.IMPLIED, "whose-log", lines, f"it shows: {proofs}")


@rule
def extent(boot: Boot) -> Iterator[Conclusion]:
    """A log is whole if it begins with its kernel, and no line of it is known to be missing."""
    if boot.start is not None and boot.from_the_start and not boot.gaps:
        why = "from `Linux version` to its end without a gap"
        yield Conclusion(
            _boot(boot), Predicate.LOG_REACHES, "whole boot", Basis.OBSERVED, "whole-log", (boot.start.place,), why
        )


@rule
def vendor(boot: Boot) -> Iterator[Conclusion]:
    """The CPU names itself; else a part that only one vendor's platforms have, if no other vendor's is seen."""
    found: dict[Vendor, tuple[Basis, str]] = {}
    for report in boot.reports:
        part = _part(report)
        for each in Vendor:
            named = part is PlatformPart.CPU and each.value.lower() in str(report.words.get("version", "")).lower()
            if named or part in PARTS_OF[each]:
                found.setdefault(each, (Basis.OBSERVED if named else Basis.IMPLIED, report.place))
    if len(found) == 1:
        ((each, (basis, place)),) = found.items()
        yield Conclusion(_boot(boot), Predicate.VENDOR, each, basis, "vendor", (place,))


@rule
def parts(boot: Boot) -> Iterator[Conclusion]:
    """Each part is a machine that its lines move, one after the other."""
    states: dict[PlatformPart, str] = {}
    carried: dict[PlatformPart, list[Reported]] = {}
    for report in boot.reports:
        for part, trigger in _steps(report):
            state = states.get(part, NOT_SEEN)
            states[part] = fire(PART, state, trigger) or state
            carried.setdefault(part, []).append(report)
    for part, state in states.items():
        lines = tuple(dict.fromkeys(report.place for report in carried[part]))
        deciding = carried[part][-1] if state not in (FAILED, MISSING) else carried[part][0]
        bad = next((one for one in carried[part] if state in dict(_steps(one)).values()), deciding)
        yield Conclusion(
            Subject(SubjectKind.PART, part, boot.name),
            Predicate.STATE,
            state,
            Basis.OBSERVED,
            "part",
            lines,
            _words(bad),
            _mended(part, bad) if state in (FAILED, MISSING) else None,
        )


def _steps(report: Reported) -> Iterator[tuple[PlatformPart, str]]:
    """Which parts a report moves, and by which trigger."""
    words = report.words
    part = _part(report)
    if part is not None and part not in (PlatformPart.KERNEL, PlatformPart.CPU) and _plain_sev(report) is False:
        state = str(words.get("state"))
        if state in set(PlatformState) - {PlatformState.STARTS}:
            # that the BIOS has given out key ids does not say that they are enough
            yield part, "found" if (part, state) == (PlatformPart.TDX_BIOS, PlatformState.UP) else state
    if words.get("what") == KernelReportCode.MEMORY_MAP and words.get("of") == "RMP table":
        yield PlatformPart.RMP_TABLE, "found"  # snp_probe_rmptable_info() prints it before SNP is enabled
    if words.get("what") == KernelReportCode.MSR_ACCESS and _enables_snp(report):
        yield PlatformPart.RMP_TABLE, "failed"  # __snp_enable(): this CPU does not look at the RMP
    if words.get("of") == LogEvidence.HYPERVISOR or (part is PlatformPart.TDX_MODULE and _asked_for_by_kvm(report)):
        yield PlatformPart.KVM, "up"


def _asked_for_by_kvm(report: Reported) -> bool:
    """Whether KVM has the TDX module initialised: __tdx_enable() is called by kvm_intel (tdx_bringup()) up to Linux 7.1."""
    words = report.words
    return words.get("state") == PlatformState.UP and str(words.get("text", "")).endswith("tdx: module initialized")


def _plain_sev(report: Reported) -> bool:
    """Whether a line about SEV in KVM is about another generation of it than SEV-SNP (SEV, SEV-ES)."""
    return report.words.get("part") == PlatformPart.KVM_SEV


def _part(report: Reported) -> PlatformPart | None:
    words = report.words
    part = words.get("part") if words.get("what") == KernelReportCode.PLATFORM else None
    return PlatformPart(part) if part in set(PlatformPart) else None


def _enables_snp(report: Reported) -> bool:
    """Whether a CPU refused to set SNPEn in SYSCFG (unchecked MSR access error: WRMSR)."""
    words = report.words
    msr, value = (_number(words.get(name)) for name in ("msr", "value"))
    return msr == MSR_AMD64_SYSCFG and str(words.get("access")).startswith("WRMSR") and bool(value & SYSCFG_SNP_ENABLE)


def _number(word: object) -> int:
    try:
        return int(str(word), 0)
    except ValueError:
        return 0


def _words(report: Reported) -> str:
    words = report.words
    named = [str(words[name]) for name in ("cause", "text") if words.get(name)]
    needs = [f"needs {words['needs']}"] if words.get("needs") else []
    return ": ".join(dict.fromkeys(named)) or " ".join([str(words.get("part", "")), str(words.get("state", "")), *needs])


def _mended(part: PlatformPart, report: Reported) -> Mended:
    said = f"{report.words.get('cause', '')} {report.words.get('text', '')}".lower()
    named = (mended for which, word, mended in MENDED if which is part and word.lower() in said)
    return next(named, MENDED_BY.get(part, Mended.UNKNOWN))


@rule
def kernel(boot: Boot) -> Iterator[Conclusion]:
    """The kernel is a machine that its reports move; what a report does is in the table of their kinds, with a reason."""
    state, carried = WHOLE, dict[str, tuple[str, str]]()
    for report in boot.reports:
        found = effect_of(report.words)
        if found is None:
            continue
        effect, reason = found
        after = fire(KERNEL, state, TRIGGER[effect]) or state
        if after != state:
            carried = {report.place: (str(report.words.get("what")), reason)}
        state = after
    if carried:
        ((place, (what, reason)),) = carried.items()
        mended = Mended.REBOOT
        why = f"{what}: {reason}"
        yield Conclusion(_boot(boot), Predicate.KERNEL, state, Basis.IMPLIED, "kernel", (place,), why, mended)
    elif boot.owner is LogOwner.HOST and boot.from_the_start and not boot.gaps and boot.start is not None:
        yield Conclusion(
            _boot(boot), Predicate.KERNEL, WHOLE, Basis.ASSUMED, "kernel", (boot.start.place,), "no report speaks of damage"
        )


def stopped(found: Conclusion) -> bool:
    """Whether a conclusion says that the kernel of a boot runs no more."""
    return found.predicate is Predicate.KERNEL and found.value == DEAD
