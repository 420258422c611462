"""The users of pages: the mail's A, B and C. Callers supply their own; those here are what a kernel meets every day."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gmemstate.model.events import User

FOLL_PIN = 1024
"""GUP_PIN_COUNTING_BIAS: what one pin adds to the reference count of a small folio (include/linux/mm.h)."""


class Answer(NamedTuple):
    """What a user answers to a notification: ``result`` 0, an errno, or None for silence."""

    result: int | None = 0
    entries: int | None = None
    """how many mappings it gave up, where it counts them"""
    turns: int = 0
    """how long it took"""


class PageUser(Protocol):
    """Somebody who maps or holds pages ``[start, end)``, numbered as the attribute owner that is converted numbers them."""

    name: str
    kind: User

    def unmap(self, start: int, end: int, *, ask: bool) -> Answer:
        """Let go of the pages; with ``ask`` only say whether it would."""

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """What it adds to the reference counts of the pages; ``drained``: the LRU batches are empty."""

    def touch(self, page: int) -> bool:
        """Access a page; False if it does not map it and cannot fault it in."""


@dataclass(slots=True)
class Mapping:
    """A user that maps pages: host page tables, the guest's, an IOMMU.

    ``refuses`` is the errno (or None: silence) of its answer about pages of ``refused``. What it does not let go, it maps.
    """

    name: str
    kind: User
    pages: set[int]
    refuses: int | None = 0
    refused: frozenset[int] = frozenset()
    turns: int = 0
    faults_in: bool = True
    weight: int = 1
    """references for each page that it maps"""

    def unmap(self, start: int, end: int, *, ask: bool) -> Answer:
        """Let go of what it maps, but for what it refuses."""
        mine = {page for page in self.pages if start <= page < end}
        kept = mine & self.refused
        if not ask:
            self.pages -= mine - kept
        if kept:
            return Answer(self.refuses, len(mine - kept), self.turns)
        return Answer(0, len(mine), self.turns)

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """One for each mapping."""
        return self.weight * _within(self.pages, start, end)

    def touch(self, page: int) -> bool:
        """Fault the page in, if it can."""
        if page not in self.pages and self.faults_in:
            self.pages.add(page)
        return page in self.pages


def host(name: str, pages: Iterable[int] = (), **how: object) -> Mapping:
    """Host page tables: each entry holds a reference; the next access faults a lost one in."""
    return Mapping(name, User.HOST, set(pages), **how)  # type: ignore[arg-type]


def guest(name: str, pages: Iterable[int] = (), **how: object) -> Mapping:
    """The guest's page tables: KVM holds no reference for an entry."""
    return Mapping(name, User.GUEST, set(pages), weight=0, **how)  # type: ignore[arg-type]


def iommu(name: str, pages: Iterable[int] = (), **how: object) -> Mapping:
    """An IOMMU that follows notifications: it cannot fault a lost mapping in."""
    return Mapping(name, User.IOMMU, set(pages), faults_in=False, **how)  # type: ignore[arg-type]


@dataclass(slots=True)
class Holder:
    """A user that holds references and is not notified: a pin, an I/O, an LRU batch.

    ``transient`` references go away when the LRU batches are drained; ``turns`` counts how often they are still seen
    before they go by themselves (None: never).
    """

    name: str
    kind: User
    pages: set[int]
    weight: int = 1
    transient: bool = False
    turns: int | None = None
    dma: bool = field(default=False)
    """a device reads and writes the pages through it"""

    def unmap(self, start: int, end: int, *, ask: bool) -> Answer:
        """Nobody asks it; it would not hear."""
        return Answer(None)

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """What it holds, as long as it holds it."""
        held = _within(self.pages, start, end)
        if not held or (self.transient and drained):
            return 0
        if self.turns is not None:
            self.turns -= 1
            if self.turns < 0:
                self.pages.clear()
                return 0
        return self.weight * held

    def touch(self, page: int) -> bool:
        """What is held stays reachable, whatever becomes of the page."""
        return page in self.pages

    def release(self) -> None:
        """Let go of everything."""
        self.pages.clear()


def _within(pages: set[int], start: int, end: int) -> int:
    if end - start == 1:
        return start in pages
    return sum(start <= page < end for page in pages)


def pin(name: str, pages: Iterable[int]) -> Holder:
    """A long-term pin of VFIO or iommufd: DMA goes on, whatever becomes of the page."""
    return Holder(name, User.PIN, set(pages), FOLL_PIN, dma=True)


def reference(name: str, pages: Iterable[int], turns: int | None = None) -> Holder:
    """A plain reference (get_page, a pipe): it cannot be told from a transient one."""
    return Holder(name, User.REFERENCE, set(pages), turns=turns)


def lru_batch(name: str, pages: Iterable[int]) -> Holder:
    """Pages in the lru_add batch of a CPU: one reference until it is drained."""
    return Holder(name, User.REFERENCE, set(pages), transient=True)
