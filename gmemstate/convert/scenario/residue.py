"""What a simulated history has left, in words: who has lost what, and for whom that is an issue."""

from collections.abc import Iterable, Iterator

from gmemstate.convert.engine.ioctl import VmType
from gmemstate.convert.engine.kernel import joined
from gmemstate.convert.scenario.run import ScenarioOutcome
from gmemstate.convert.simulation.facts import messed_up_page, private_runs
from gmemstate.convert.simulation.host import SimulatedUser
from gmemstate.convert.simulation.operations import Simulation
from gmemstate.model.events import Cause, User
from gmemstate.model.objects import POISONED_PAGE
from gmemstate.model.units import END
from gmemstate.narrate.names import decimal_pages

EVERYTHING = [(0, END)]
FAULTED_IN = "no issue, faulted in by its next access"

CAUSES = {
    Cause.SEPT_STILL_MAPS: "the S-EPT still maps its host page",
    Cause.RMP_STILL_GUEST: "the RMP still gives its host page to the guest",
    Cause.LEAKED_BY_KERNEL: "lost and safe, the kernel gives it to nobody",
    Cause.POISONED: "its host page is poisoned",
    Cause.UNUSABLE_PRIVATE: "its host page cannot be made private",
    Cause.UNTRACKED: "old translations may still reach its host page",
    Cause.UNFLUSHED: "old cache lines may be written over its host page",
}


def left(outcome: ScenarioOutcome) -> Iterator[str]:
    """What differs at the end, and for whom that is an issue."""
    facts, simulation = outcome.facts, outcome.simulation
    stuck = bool(simulation.returned) and simulation.returned[-1] is None
    if stuck:
        yield "the ioctl never returns, and its lock is held"
    unit = "gfn" if simulation.in_vm else "page"
    yield f"at the end: {_listed(facts.private, unit)}"
    for user in simulation.users:
        lost = [
            (int(start), int(start) + int(size))
            for start, _, size in (text.partition("+") for text in facts.lost.get(user.name, []))
        ]
        reasons = [(lost, "its next access waits for the lock")] if stuck else _reasons(simulation, user)
        for pages, why in reasons:
            if gone := _cut(lost, pages):
                where = ", ".join(decimal_pages(start, end - start, unit) for start, end in gone)
                yield f"{user.name} no longer maps {where}: {why}"
            lost = _cut(lost, _rest(pages))
    if facts.dma_at_risk:
        where = _words(facts.dma_at_risk, unit)
        yield f"devices still reach {where}, private now: what they see is not what the guest sees"
    for entry in simulation.memory.messed_up.values():
        what = "page " if entry.index is not None else "gfn " if entry.gfn is not None else ""
        yield f"messed up: {what}{messed_up_page(entry)}, {CAUSES[entry.cause]}"


Reasons = list[tuple[list[tuple[int, int]], str]]
"""Pages, and what it means to have lost their mapping; what comes first counts."""


def _reasons(simulation: Simulation, user: SimulatedUser) -> Reasons:
    """What becomes of the next access of a user to pages that it no longer maps."""
    owner = simulation.owner_of(user)
    private = list(private_runs(simulation, owner))
    if user.kind is User.IOMMU:
        return [(EVERYTHING, "an issue, its next access is a DMA fault: a device cannot fault anything in")]
    gmem = simulation.memory.gmems[simulation.gmem if simulation.in_vm else owner]
    poisoned = [(start, end) for start, end, what in gmem.backing if what == POISONED_PAGE]
    if user.kind is User.HOST:
        hidden = [] if simulation.in_vm else private
        return [
            (hidden, "private now, its next access is a SIGBUS"),
            (poisoned, "poisoned, its next access is a SIGBUS"),
            (EVERYTHING, FAULTED_IN),
        ]
    if simulation.memory.vms[simulation.vm].gone is not None:
        return [(EVERYTHING, "it does not run any more")]
    bound = [(a, b) for _, _, a, b in simulation.kernel().slots(owner, 0, END)]
    closed = EVERYTHING if gmem.released else []
    empty = [(page, page + 1) for where, page in simulation.emptied if where == owner and simulation.setting.type is VmType.TDX]
    return [
        (_rest(bound), "no memslot is there any more"),
        (closed, "the guest_memfd is closed, its next access is a memory fault"),
        (poisoned, "poisoned, its next access is a memory fault"),
        (_cut(private, empty), "to be accepted again, and the contents are gone"),
        (EVERYTHING, FAULTED_IN),
    ]


def _listed(private: list[str], unit: str) -> str:
    if not private:
        return "everything is shared"
    return f"{_words(private, unit)} {'is' if len(private) == 1 and private[0].endswith('+1') else 'are'} private"


def _words(runs: list[str], unit: str) -> str:
    """Runs like ``0+16`` (of the second guest_memfd ``gmem 2: 0+16``) as a person writes them."""
    texts = []
    for text in runs:
        mark, _, pages = text.rpartition(": ")
        start, _, size = pages.partition("+")
        texts.append(
            decimal_pages(int(start), int(size), unit) + (f" of guest_memfd {mark.removeprefix('gmem ')}" if mark else "")
        )
    return ", ".join(texts)


def _cut(runs: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pages that are in both, neighbours as one."""
    others = list(others)
    return joined(sorted((max(start, a), min(end, b)) for start, end in runs for a, b in others if max(start, a) < min(end, b)))


def _rest(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pages that are in none of the runs."""
    edges = [0, *(edge for start_end in _cut(runs, EVERYTHING) for edge in start_end), END]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]
