"""The users of pages: the mail's A, B and C. Callers supply their own; those here are what a kernel meets every day.

Pages are numbered as the attribute owner that is converted numbers them: gfns of a VM, page indices of a guest_memfd.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

from gmemstate.model.errors import PageUserFailed
from gmemstate.model.events import User
from gmemstate.model.linux import EOPNOTSUPP, GUP_PIN_COUNTING_BIAS, MAX_ERRNO

MAX_REFERENCES = (1 << 31) - 1
"""The largest reference count: folio_ref_count() is an int."""
MAX_ENTRIES = (1 << 63) - 1
"""The largest number of mappings that can be recorded."""


class UnmapAnswer(NamedTuple):
    """What a user answers to a notification: ``result`` 0, a positive errno, or None for silence."""

    result: int | None = 0
    entries: int | None = None
    """how many mappings it gave up (or, with an errno, still has), where it counts them"""


class PageUser(Protocol):
    """Somebody who maps or holds pages ``[start, end)`` of the attribute owner that is converted."""

    @property
    def name(self) -> str:
        """How the record calls it."""

    @property
    def kind(self) -> User:
        """Host, guest and IOMMU are notified; pins and references are only counted."""

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        """Unmap the pages; with ``ask`` only say whether it would."""

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """What it adds to the reference counts of the pages; ``drained``: the LRU batches are empty."""


@runtime_checkable
class MapsAgain(PageUser, Protocol):
    """A user that can be asked to map again what it has unmapped (dialect notify, policy map-again)."""

    def map_again(self, start: int, end: int) -> UnmapAnswer:
        """Map pages ``[start, end)`` as before it unmapped them, or refuse."""


class CheckedUser:
    """The ``number``-th user that a caller supplied: what it raises, lacks or answers wrongly is an error that names it."""

    def __init__(self, user: PageUser, number: int) -> None:
        self._user = user
        self._called = f"user {number} ({type(user).__name__})"

    @cached_property
    def name(self) -> str:
        """Its name. Raises PageUserFailed."""
        name = self._get("name")
        if not isinstance(name, str) or not name.isprintable():
            raise self._wrong("name", f"is {name!r}, not a printable string")
        self._called = f"user {name!r}"
        return name

    @cached_property
    def kind(self) -> User:
        """Its kind. Raises PageUserFailed."""
        kind = self._get("kind")
        if not _is_count(kind) or kind not in set(User):
            raise self._wrong("kind", f"is {kind!r}, not a gmemstate.model.events.User")
        return User(kind)

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        """Its answer about pages ``[start, end)``, one that a kernel could get. Raises PageUserFailed."""
        return self._answer("unmap", self._call("unmap", start, end, ask=ask))

    def map_again(self, start: int, end: int) -> UnmapAnswer:
        """Its answer to a request to map pages ``[start, end)`` again; EOPNOTSUPP if it has no such method.

        Raises PageUserFailed.
        """
        if not hasattr(self._user, "map_again"):
            return UnmapAnswer(EOPNOTSUPP)
        return self._answer("map_again", self._call("map_again", start, end))

    def _answer(self, method: str, answer: Any) -> UnmapAnswer:
        if not isinstance(answer, UnmapAnswer):
            raise self._wrong(f"{method}()", f"answered {answer!r}, not an UnmapAnswer")
        for name, largest in (("result", MAX_ERRNO), ("entries", MAX_ENTRIES)):
            value = getattr(answer, name)
            if value is not None and not (_is_count(value) and value <= largest):
                raise self._wrong(f"{method}()", f"answered {name} {value!r}, neither None nor a number from 0 to {largest}")
        return answer

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """Its references to pages ``[start, end)``, a number that a folio can have. Raises PageUserFailed."""
        count = self._call("references", start, end, drained=drained)
        if not _is_count(count) or count > MAX_REFERENCES:
            raise self._wrong("references()", f"answered {count!r}, not a number from 0 to {MAX_REFERENCES}")
        return int(count)

    def _get(self, attribute: str) -> Any:
        return self._attempt(attribute, lambda: getattr(self._user, attribute))

    def _call(self, method: str, start: int, end: int, **how: bool) -> Any:
        name = self.name  # an error in the method names it
        bound = self._get(method)
        if not callable(bound):
            raise self._wrong(method, f"of {name!r} is {bound!r}, not a method")
        return self._attempt(f"{method}()", lambda: bound(start, end, **how))

    def _attempt(self, what: str, attempt: Callable[[], Any]) -> Any:
        try:
            return attempt()
        except Exception as error:
            raise self._wrong(what, f"raised {type(error).__name__}: {error}") from error

    def _wrong(self, what: str, how: str) -> PageUserFailed:
        return PageUserFailed(f"{self._called}: {what} {how}", user=self._called, method=what.rstrip("()"))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(slots=True)
class Mapper:
    """A user that maps pages: host page tables, the guest's, an IOMMU.

    ``refuses`` is the errno (or None: silence) of its answer about pages of ``refused``. What it does not unmap, it maps.
    """

    name: str
    kind: User
    pages: set[int]
    refuses: int | None = 0
    refused: frozenset[int] = frozenset()
    faults_in: bool = True
    weight: int = 1
    """references for each page that it maps"""
    maps_again: int | None = 0
    """the errno (or None: silence) of its answer when it is asked to map again"""
    unmapped: set[int] = field(default_factory=set)
    """what it was asked to unmap, and did"""

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        """Unmap what it maps of pages ``[start, end)``, but for what it refuses."""
        mine = {page for page in self.pages if start <= page < end}
        kept = mine & self.refused
        if not ask:
            self.pages -= mine - kept
            self.unmapped |= mine - kept
        return UnmapAnswer(self.refuses, len(mine - kept)) if kept else UnmapAnswer(0, len(mine))

    def map_again(self, start: int, end: int) -> UnmapAnswer:
        """Map what it has unmapped of pages ``[start, end)``, unless it refuses."""
        mine = {page for page in self.unmapped if start <= page < end}
        if self.maps_again != 0:
            return UnmapAnswer(self.maps_again)
        self.pages |= mine
        return UnmapAnswer(0, len(mine))

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """One for each mapping of pages ``[start, end)``."""
        return self.weight * _within(self.pages, start, end)

    def access(self, page: int) -> bool:
        """Fault the page in, if it can."""
        if page not in self.pages and self.faults_in:
            self.pages.add(page)
        return page in self.pages


@dataclass(slots=True)
class Holder:
    """A user that holds references and is not notified: a pin, an I/O, an LRU batch.

    ``transient`` references go away when the LRU batches are drained; ``checks`` counts how many reference counts of the
    kernel still find them before they go by themselves (None: always).
    """

    name: str
    kind: User
    pages: set[int]
    weight: int = 1
    transient: bool = False
    checks: int | None = None
    dma: bool = False
    """a device reads and writes the pages through it"""

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        """It is not notified of pages ``[start, end)``, so it does not answer."""
        return UnmapAnswer(None)

    def references(self, start: int, end: int, *, drained: bool) -> int:
        """What it holds of pages ``[start, end)``, as long as it holds it."""
        held = _within(self.pages, start, end)
        if not held or (self.transient and drained):
            return 0
        if self.checks is not None:
            self.checks -= 1
            if self.checks < 0:
                self.pages.clear()
                return 0
        return self.weight * held

    def access(self, page: int) -> bool:
        """What is held stays reachable, whatever becomes of the page."""
        return page in self.pages

    def release(self) -> None:
        """Put all references."""
        self.pages.clear()


def _within(pages: set[int], start: int, end: int) -> int:
    if end - start == 1:
        return start in pages
    return sum(start <= page < end for page in pages)


def host(name: str, pages: Iterable[int] = (), *, refuses: int | None = 0, refused: Iterable[int] = ()) -> Mapper:
    """Host page tables: each entry holds a reference; the next access faults a lost one in."""
    return Mapper(name, User.HOST, set(pages), refuses, frozenset(refused))


def guest(name: str, pages: Iterable[int] = (), *, refuses: int | None = 0, refused: Iterable[int] = ()) -> Mapper:
    """The guest's page tables: KVM holds no reference for an entry."""
    return Mapper(name, User.GUEST, set(pages), refuses, frozenset(refused), weight=0)


def iommu(name: str, pages: Iterable[int] = (), *, refuses: int | None = 0, refused: Iterable[int] = ()) -> Mapper:
    """An IOMMU that maps pages and follows notifications: it cannot fault a lost mapping in."""
    return Mapper(name, User.IOMMU, set(pages), refuses, frozenset(refused), faults_in=False)


def pin(name: str, pages: Iterable[int]) -> Holder:
    """A long-term pin of VFIO or iommufd: DMA goes on, whatever becomes of the page."""
    return Holder(name, User.PIN, set(pages), GUP_PIN_COUNTING_BIAS, dma=True)


def reference(name: str, pages: Iterable[int], checks: int | None = None) -> Holder:
    """A plain reference to each of these pages (get_page, a pipe): it looks like a transient one."""
    return Holder(name, User.REFERENCE, set(pages), checks=checks)


def lru_batch(name: str, pages: Iterable[int]) -> Holder:
    """Pages (4 KiB) in the lru_add batch of a CPU: one reference until it is drained."""
    return Holder(name, User.REFERENCE, set(pages), transient=True)
