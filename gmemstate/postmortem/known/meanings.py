"""What a report of a kernel or VMM means: whose fault, what happened, what is left, what to do, what is missing.

The rows are data (``data/reports``), one for each kind of report that is known; the first that fits counts. Their texts name
facts of the report in braces. Sources: arch/x86/kvm/vmx/tdx.c, arch/x86/virt/svm/sev.c, arch/x86/kvm/svm/sev.c,
virt/kvm/kvm_main.c and guest_memfd.c of Linux 6.8 to 7.2; QEMU's accel/kvm, hw/vfio and system/ram-block-attributes.c.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from gmemstate.postmortem.incident import Blame, Story
from gmemstate.postmortem.known.patterns import Facts, filled, fits, gaps_in
from gmemstate.postmortem.reports import Reports

TEXTS = {
    "host log": "the host's kernel log of the same minute: dmesg -T | grep -e SEAMCALL -e SEV -e kvm -e 'Memory failure'",
    "vmm log": "which VM it was and what it had asked for: its VMM's log of the same second (tools/capture qemu prints "
    "the options with which QEMU says it)",
    "answer": "what the kernel answered: tools/capture trace --pid PID-OF-THE-VMM, or strace -f -ttt -yy -e "
    "trace=ioctl,fallocate -p "
    "PID-OF-THE-VMM",
    "end of the vm": "every later ioctl of the VM returns EIO; its vCPUs cannot run any more",
    "first line": "which host page it is: the first line of the failure: dmesg | grep 'RMPUPDATE failed'",
    "gfn and pfn": 'gfn and pfn at once: dmesg | grep "Failed to update RMP entry: GFN"',
    "map fails": "the fault returns EIO, and so does every later ioctl of the VM; a status that is transient is retried and "
    "not printed "
    "[implied]",
    "page of a map": "the page: the line names none; trace kvm_mmu_set_spte and a probe on tdh_mem_page_aug",
    "rmp refuses": 'a guest that accessed it got KVM_RUN = EINVAL or EFAULT; QEMU prints "kvm run failed" with a register dump '
    "of no use [implied]. The attribute stays private, nothing is rolled back; a retry hits the same page while it stays in "
    "that guest_memfd",
    "rmp stack": "whether it was to be a guest's or the firmware's page: the stack after the dump: dmesg | grep -A600 "
    "'RMPUPDATE failed'",
    "safe": "not affected: no page of it is suspect, leaked or poisoned by this",
}
"""Sentences that many rows share, by their names in ``<>``."""


@dataclass(frozen=True, slots=True)
class ReportMeaning:
    """A kind of report. ``when`` holds patterns of its facts; ``ask`` what would complete it, with the command that gets it.

    A second pattern of ``ask`` is that of the event with which it need not be asked for.
    """

    when: dict[str, str]
    blame: Blame
    title: str
    says: str
    more: tuple[tuple[str, str], ...] = ()
    ask: tuple[tuple[str, Facts | None], ...] = ()

    @property
    def ends_vm(self) -> bool:
        """Whether KVM gives the VM up with such a report."""
        return any(TEXTS["end of the vm"] in text for _, text in self.more)


@cache
def meanings() -> tuple[ReportMeaning, ...]:
    """All kinds of reports that are known, in the order in which they are tried."""
    folder = Path(str(resources.files("gmemstate"))) / "data" / "reports"
    files = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))]
    return tuple(_read(row) for content in files for row in content["report"])


def _read(row: dict[str, Any]) -> ReportMeaning:
    more = tuple((word, _whole(text)) for word, text in row.get("more", ()))
    ask = tuple(
        (_whole(one["text"]), one["unless"]) if isinstance(one, dict) else (_whole(one), None) for one in row.get("ask", ())
    )
    return ReportMeaning(row["when"], Blame(row["blame"]), row["title"], _whole(row["says"]), more, ask)


def _whole(text: str) -> str:
    return re.sub(r"<([a-z ]+)>", lambda match: TEXTS[match[1]], text)


def describe(story: Story, known: ReportMeaning, facts: Facts, reports: Reports) -> None:
    """Add what a kind of report means, with its facts, and ask for the evidence that is not on record."""
    for word, text in known.more:
        if not gaps_in(text, facts):
            story.add(word, filled(text, facts))
    on_record = [facts, *(report.words for report in reports)]
    story.missing += [
        filled(text, facts) for text, unless in known.ask if unless is None or not any(fits(unless, one) for one in on_record)
    ]
    story.complete = not story.missing


def meaning(report: Facts) -> ReportMeaning | None:
    """The first meaning that fits a report; None where none does."""
    return next((known for known in meanings() if fits(known.when, report)), None)
