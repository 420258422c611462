"""The event that a report of the kernel amounts to, once all of its lines are read.

A line that states a failure gives an event of that failure. A stack alone gives none: the most that it says of a function that
converts pages is that the task was inside of it.
"""

from collections.abc import Iterable
from posixpath import normpath
from typing import Any

from gmemstate.decode import errno, rmpupdate
from gmemstate.ingest.correlate.kernel_report import PoisonRun, Report, StackFrame
from gmemstate.messages.functions import about, culprit, entry_path, inside, of_a_guest, plain
from gmemstate.messages.report_kinds import states_a_function
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import PAGE_SHIFT, SI_KERNEL, SIGKILL
from gmemstate.model.log_owner import LogEvidence
from gmemstate.model.reports import KernelReportCode

RMP_FAULT = 1 << 31
PTE_PFN = ((1 << 51) - 1) & ~0xFFF
"""Without bit 51, where the mark of encrypted memory may be."""
FRAMES = 24
"""How many frames are put on record."""
IOCTL = 16
"""The number of ioctl() on x86-64."""
_VIRTUAL = (
    "QEMU",
    "Google Google Compute",
    "VMware",
    "Xen ",
    "Bochs",
    "Microsoft Corporation Virtual",
    "innotek",
    "Red Hat KVM",
    "KubeVirt",
    "OpenStack",
    "Alibaba Cloud ECS",
)
_REPORTERS = ("dump_stack", "__dump_stack", "show_stack", "dump_backtrace")


def event_of_report(report: Report) -> e.Event:
    """What a report amounts to."""
    at: dict[str, Any] = {"t": report.t, "line": report.line}
    if report.begun in ("rmpupdate", "rmp_refused", "rmp_kept") or _dumped_by_rmpupdate(report):
        return _rmp_failed(report, at)
    match report.what:
        case KernelReportCode.PAGE_FAULT:
            return _faulted(report, at)
        case KernelReportCode.GENERAL_PROTECTION:
            facts = _detail(report, what=report.what, thread=report.thread, errors=_errors(report))
            return e.GeneralProtection(address=report.args.get("address"), detail=facts, **at)
        case KernelReportCode.ABORT if "Granule Protection Fault" in report.words.get("text", ""):
            return e.RmpViolation(detail=_detail(report, what=KernelReportCode.GRANULE_FAULT, thread=report.thread), **at)
        case KernelReportCode.MACHINE_CHECK:
            facts = _detail(report, what=report.what, address=_hex(report.args.get("address")))
            return e.MachineCheck(pfn=report.args.get("pfn"), detail=facts, **at)
        case KernelReportCode.HUNG_TASK:
            holder = report.words.get("holder")
            facts = _detail(
                report,
                what=report.what,
                seconds=report.args.get("seconds"),
                waits_for_task=holder and f"{holder}/{report.args['holder_pid']}",
            )
            return e.TaskStuck(thread=report.thread or 0, detail=facts, **at)
        case KernelReportCode.OOM if "killed" in report.words:
            facts = _detail(
                report, what=report.what, cause="oom", comm=report.words["killed"], invoked_by=report.words.get("comm")
            )
            return e.TaskSignalled(thread=report.args["killed_pid"], signal=SIGKILL, reason=SI_KERNEL, detail=facts, **at)
        case _:
            return _warned(report, at)


def event_of_poison(run: PoisonRun) -> e.Event:
    """What lines about poisoned pages amount to."""
    actions = [action for action, _ in run.actions.most_common(4)]
    return e.Poisoned(
        pfn=run.args["pfn"],
        npages=run.end - run.args["pfn"],
        detail=detail(
            action=actions[0] if len(actions) == 1 else None,
            actions=actions if len(actions) > 1 else None,
            text=run.words.get("text") if not actions else None,
            users=run.args.get("users"),
            punched=run.args.get("punched"),
            injected=run.words.get("injected"),
            at=run.words.get("at"),
            host=run.words.get("host"),
            lines=run.lines if run.lines > 1 else None,
            last=run.last if run.lines > 1 else None,
        ),
        t=run.t,
        line=run.line,
    )


# --- where, who, and what else


def _detail(report: Report, **facts: Any) -> str | None:
    """Where and who, as far as the lines tell, and what the kind of report adds."""
    words, args = report.words, report.args
    functions = _place(report)
    where = culprit(functions)
    states = states_a_function(report.what) or report.begun.startswith("rmp")
    frames = report.frames
    rip = words.get("rip", words.get("function"))
    known = {
        **{name: words.get(name) for name in ("at", "host", "comm", "text", "rule", "access", "cache", "because", "panic")},
        **{name: words.get(name) for name in ("kernel", "hardware", "other")},
        "taint": "".join(words["taint"].split()) if "taint" in words else None,
        "cpu": args.get("cpu"),
        "size": args.get("size"),
        "site": normpath(words["site"]) if "site" in words else None,
        "function": where,
        "module": _module(report, where),
        "rip": plain(rip) if rip is not None and plain(rip) != where else None,
        "path": entry_path(functions),
        "about": about(functions) if states else None,
        "inside": inside(functions) or None,
        "frames": [plain(frame) for frame in frames[:FRAMES]] or None,
        "guessed": True if frames and not report.sections.get("main") else None,
        "locks": report.locks or None,
        "atomic_in": culprit(report.outlined("atomic")),
        "allocated_by": args.get("allocated_by"),
        "allocated_in": culprit(report.outlined("allocated")),
        "freed_by": args.get("freed_by"),
        "freed_in": culprit(report.outlined("freed")),
        "ioctl": _ioctl(report),
        "log_of": _log_of(report),
        "last": report.last if report.last > report.line else None,
    }
    return detail(**{**known, **facts})


def _place(report: Report) -> list[str]:
    """The functions that may be the one that it is about, the likeliest first."""
    words = report.words
    named = [words[name] for name in ("function", "rip") if name in words]
    if report.what == KernelReportCode.LOCKDEP and "lock_at" in words:
        named.append(words["lock_at"])
    without_a_stack = [] if report.own else [*report.outlined("atomic"), *reversed(report.held)]
    return [*dict.fromkeys(named), *report.outlined(), *without_a_stack]


def _module(report: Report, where: str | None) -> str | None:
    frames: Iterable[StackFrame] = (*report.sections.get("main", ()), *report.guessed)
    for name, module in (("function", "module"), ("rip", "rip_module")):
        if where is not None and plain(report.words.get(name, "")) == where and module in report.words:
            return report.words[module]
    return next((frame.module for frame in frames if plain(frame.function) == where and frame.module), None)


def _ioctl(report: Report) -> str | None:
    """The number of the ioctl that the task has made: the second argument of the system call that its registers show."""
    call = report.call
    return hex(call["RSI"] & 0xFFFFFFFF) if call.get("ORIG_RAX") == IOCTL and "RSI" in call else None


def _log_of(report: Report) -> str | None:
    """What the report proves of whose log it is: by a function that only guests run, or by the name of the machine."""
    if "log_of" in report.words:
        return report.words["log_of"]
    if of_a_guest((*_place(report), *(frame.function for frame in report.guessed))):
        return LogEvidence.PROTECTED_GUEST
    return LogEvidence.VIRTUAL_MACHINE if report.words.get("hardware", "").startswith(_VIRTUAL) else None


def _errors(report: Report) -> dict[str, str] | None:
    """Registers that hold an errno, by its name: an error pointer that was followed."""
    known = {name: found.name for name, value in report.errors.items() if (found := errno(value)) is not None}
    return known or None


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


# --- kinds


def _warned(report: Report, at: dict[str, Any]) -> e.Event:
    numbers = {name: _hex(report.args.get(name)) for name in ("address", "error_code", "exit_code", "pfn", "msr", "value")}
    decimal = {name: report.args.get(name) for name in ("seconds", "order", "oops")}
    facts = _detail(report, what=report.what, errors=_errors(report), **numbers, **decimal)
    return e.KernelWarned(thread=report.thread, detail=facts, **at)


def _faulted(report: Report, at: dict[str, Any]) -> e.Event:
    """A page fault of the host: at a page that the RMP gives to somebody else, or at a bad address."""
    if not report.args.get("error_code", 0) & RMP_FAULT:
        return _warned(report, at)
    pte = report.args.get("pte")
    return e.RmpViolation(
        pfn=report.args.get("pfn", None if pte is None else (pte & PTE_PFN) >> PAGE_SHIFT),
        detail=_detail(
            report,
            what=KernelReportCode.HOST_PAGE_FAULT,
            thread=report.thread,
            address=_hex(report.args.get("address")),
            error_code=hex(report.args["error_code"]),
            **_rmp(report),
        ),
        **at,
    )


def _rmp(report: Report) -> dict[str, Any]:
    near = [[hex(run.start), hex(run.end), run.owner] for run in report.neighbours]
    region = None if "first" not in report.args else [hex(report.args["first"]), hex(report.args["end"])]
    return {
        "owner": report.words.get("owner"),
        "entry": report.words.get("entry"),
        "region": region,
        "near": near or None,
        "near_more": report.more or None,
    }


def _dumped_by_rmpupdate(report: Report) -> bool:
    """Whether rmpupdate() itself has dumped the stack, which it does only when RMPUPDATE fails; the header is cut off.

    dump_stack() is called by whoever stands below it. Deeper on a stack rmpupdate() is a function that the task was in.
    """
    if report.what != KernelReportCode.STACK:
        return False
    below = [plain(name) for name in report.frames if not plain(name).startswith(_REPORTERS)]
    return len(below) < len(report.frames) and below[:1] == ["rmpupdate"]


def _rmp_failed(report: Report, at: dict[str, Any]) -> e.Event:
    """RMPUPDATE failed. The stack, the caller's line or the entry gives the direction; else it is unknown."""
    to, basis = _direction(report)
    args = report.args
    code, level = args.get("ret"), args.get("level")
    failure = None if "error" not in args else errno(args["error"])
    facts = {
        "what": KernelReportCode.RMPUPDATE,
        "ret": code,
        "code": rmpupdate(code).name if code is not None else None,
        "level": level,
        "to": to,
        "basis": basis,
        "error": failure.name if failure is not None else None,
        "index": _hex(args.get("index")),
        "text": None,
        **_rmp(report),
    }
    status = code if code is not None else abs(args["error"]) if "error" in args else None
    if "retry" in report.words:
        again = _detail(report, **facts, pfn=_hex(args.get("pfn")), outcome="tried again")
        return e.KernelWarned(thread=report.thread, detail=again, **at)
    if to == "private":
        gfn = args.get("gfn")
        npages = None if gfn is None else 512 if level == 2 else 1
        words = _detail(report, **facts, thread=report.thread)
        return e.PrivateMapFailed(pfn=args.get("pfn"), start=gfn, npages=npages, status=status, detail=words, **at)
    if to == "shared":
        step = e.UnmapStep.PSMASH if report.words.get("step") == "PSMASH" else e.UnmapStep.RMPUPDATE
        words = _detail(report, **facts, thread=report.thread)
        return e.PrivateUnmapFailed(step=step, pfn=args.get("pfn"), start=args.get("gfn"), status=status, detail=words, **at)
    return e.KernelWarned(thread=report.thread, detail=_detail(report, **facts, pfn=_hex(args.get("pfn"))), **at)


def _direction(report: Report) -> tuple[str | None, str | None]:
    if "to" in report.words:
        return report.words["to"], None
    frames = " ".join(report.frames)
    if "rmp_make_private" in frames:
        return "private", None
    if "rmp_make_shared" in frames:
        return "shared", None
    # guest_memfd gives back only what the RMP says is assigned (sev_gmem_invalidate).
    return ("private", "implied") if "unassigned" in report.words else (None, None)
