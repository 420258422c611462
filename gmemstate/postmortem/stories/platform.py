"""What a host's kernel said of its memory when it started, and what that tells of a page that the RMP refuses.

Sources: arch/x86/virt/svm/sev.c (RMP table, its fixups), arch/x86/kernel/e820.c, mm/memblock.c and mm/mm_init.c of Linux 6.8 to 7.2.
"""

from dataclasses import dataclass
from typing import NamedTuple

from gmemstate.audit.history.history import History
from gmemstate.model.events import DETAIL, KIND, KernelWarned, details
from gmemstate.model.linux import PAGES_2M
from gmemstate.postmortem.stories.reported import MEMORY_MAP


class Region(NamedTuple):
    """Host pages ``[start, end)`` and what the kernel said of them."""

    what: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Platform:
    """The regions that the kernel named."""

    regions: tuple[Region, ...]

    @classmethod
    def of(cls, history: History) -> "Platform":
        """Those of a record."""
        found = []
        for row in history.reports:
            returned = details(row[DETAIL]) if row[KIND] == KernelWarned.code else {}
            if returned.get("what") == MEMORY_MAP:
                found.append(Region(returned["of"], int(returned["first"], 16), int(returned["behind"], 16)))
        return cls(tuple(found))

    def place(self, report: dict[str, str]) -> dict[str, str]:
        """A report about a page with the fact ``place``: what the kernel said of that page, as far as it matters."""
        if "pfn" not in report or not self.regions:
            return report
        pfn = int(report["pfn"], 16)
        said = {region.what for region in self.regions if region.start <= pfn < region.end}
        edges = {
            edge & -PAGES_2M for region in self.regions if region.what == "RMP table" for edge in (region.start, region.end - 1)
        }
        inside = any(region.what == "RMP table" and region.start <= pfn < region.end for region in self.regions)
        place = []
        if pfn & -PAGES_2M in edges and not inside:
            place.append("beside the RMP table, in one 2M region with its edge")
        if "reserved" in said:
            place.append("reserved in the memory map")
        if "memory of a node" in said:
            place.append("yet ordinary memory of a node")
        return {**report, "place": ", ".join(place)} if place else report
