"""Host pages that can no longer be trusted."""

from collections.abc import Iterator
from dataclasses import dataclass

from gmemstate.audit.history.moment import Moment
from gmemstate.audit.queries.evidence import guest_name
from gmemstate.model.document import Document
from gmemstate.model.events import Cause
from gmemstate.model.machines.messed_up import MESSED_UP
from gmemstate.model.units import Gfn, Ns, PageIndex, PageRange, Pfn, Unit, ns


@dataclass(frozen=True, slots=True)
class MessedUpRow(Document):
    """Host pages that cannot be trusted for one cause, and what clears them."""

    id: int
    """the seq of the event that shows it"""
    cause: Cause
    state: str
    pfn: Pfn | None
    """the first page; None where no line names it"""
    count: int | None
    """how many pages; None for at least one"""
    guest: str
    """``?`` if it is not known"""
    gfn: Gfn | None
    gmem: int | None
    index: PageIndex | None
    reuse_risk: str
    """what happens to the next one who is given the page"""
    cleared_by: str
    """reboot, fix or never"""
    since_ns: Ns | None

    def meets(self, pages: PageRange) -> bool:
        """Whether some of these pages are meant, by their gfn, their index or their pfn."""
        places = ((Unit.GFN, self.gfn, 1), (Unit.INDEX, self.index, 1), (Unit.PFN, self.pfn, self.count or 1))
        return any(start is not None and pages.meets(unit, start, start + npages) for unit, start, npages in places)


def messed_up(moment: Moment) -> Iterator[MessedUpRow]:
    """All messed-up pages that were not cleared, oldest first."""
    for entry in moment.memory.messed_up.values():
        if entry.state not in MESSED_UP.final:
            yield MessedUpRow(
                entry.id,
                entry.cause,
                entry.state,
                entry.pfn,
                entry.count,
                guest_name(moment, entry.vm),
                entry.gfn,
                entry.gmem,
                entry.index,
                entry.reuse_risk,
                entry.cleared_by,
                ns(entry.since),
            )
