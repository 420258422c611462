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

    ends_vm: bool = False
    """whether KVM gives the VM up with such a report"""
    one: bool = False
    """whether all reports of one log with this title are about one failure"""


@cache
def _files() -> tuple[dict[str, Any], ...]:
    folder = Path(str(resources.files("gmemstate"))) / "data" / "reports"
    return tuple(tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml")))


def shared_text(name: str) -> str:
    """A sentence that many rows share; they name it in ``<>``."""
    text: str = _files()[0]["texts"][name]
    return text


@cache
def meanings() -> tuple[ReportMeaning, ...]:
    """All kinds of reports that are known, in the order in which they are tried."""
    return tuple(_read(row) for content in _files() for row in content.get("report", ()))


def _read(row: dict[str, Any]) -> ReportMeaning:
    ask = [one if isinstance(one, dict) else {"text": one} for one in row.get("ask", ())]
    return ReportMeaning(
        when=row["when"],
        blame=Blame(row["blame"]),
        title=row["title"],
        says=_whole(row["says"]),
        more=tuple((word, _whole(text)) for word, text in row.get("more", ())),
        ask=tuple((_whole(one["text"]), one.get("unless")) for one in ask),
        one=row.get("one", False),
        ends_vm=any("<end of the vm>" in text for _, text in row.get("more", ())),
    )


def _whole(text: str) -> str:
    return re.sub(r"<([a-z ]+)>", lambda match: shared_text(match[1]), text)


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
