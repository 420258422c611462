"""A naive host, page by page: its memory, the people who use it, and what can be done to it. No ioctl is in here.

It knows no ranges, no events and no state machines: a page has a kind, a folio and people who map or hold it. All of it is
written from the text of the specification; the numbers in brackets are its sections.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from errno import EFAULT, EIO, ENOMEM

SHARED, PRIVATE = "shared", "private"
OTHER = {SHARED: PRIVATE, PRIVATE: SHARED}
WEIGHT = {"host": 1, "guest": 0, "iommu": 1, "pin": 1024, "reference": 1, "lru": 1}
"""References for each page: KVM holds none for a guest's entry, a pin counts 1024."""
EHWPOISON = 133

Returned = tuple[int, int | None] | None
"""errno and error_offset (None: not written); None for an ioctl that never returns."""


class Failed(Exception):
    """The request ends with an errno."""

    def __init__(self, errno: int, offset: int | None = None) -> None:
        self.errno, self.offset = errno, offset


class NeverReturns(Exception):
    """Somebody waits for ever."""


@dataclass
class Person:
    """Somebody who maps or holds pages. What is ``stubborn`` is kept, whatever the ``answer``."""

    name: str
    kind: str
    pages: set[int]
    stubborn: frozenset[int] = frozenset()
    answer: int | None = 0

    def let_go(self, pages: set[int]) -> int | None:
        kept = self.pages & pages & self.stubborn
        self.pages -= pages - self.stubborn
        return self.answer if kept else 0


@dataclass
class Trouble:
    """What goes wrong: ``times`` times from the ``nth`` attempt on, of the attempts that are about ``page`` if one is named."""

    at: str
    page: int | None = None
    nth: int = 1
    errno: int = ENOMEM
    times: int = 1
    seen: int = 0


@dataclass
class Request:
    """What the caller passes."""

    address: int
    size: int
    attributes: int = 8
    flags: int = 0
    reserved: int = 0
    error_offset: int = 0
    readable: bool = True
    writable: bool = True
    same_mm: bool = True

    @property
    def target(self) -> str:
        return PRIVATE if self.attributes & 8 else SHARED

    @property
    def pages(self) -> list[int]:
        return list(range(self.address >> 12, self.address + self.size >> 12))


@dataclass
class NaiveHost:
    """One guest with one guest_memfd. Of mainline, the gfns are the page indices."""

    dialect: str
    policy: str
    npages: int
    starts: str
    type: str = "sw"
    order: int = 0
    notifier: bool = True
    """memslots name the mmap of their guest_memfd"""
    in_place: bool = True
    private_mem: bool = True
    defects: frozenset[str] = frozenset()
    slots: list[set[int]] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    folio: dict[int, tuple[int, int]] = field(default_factory=dict)
    """page -> first page and size of the folio behind it"""
    poisoned: set[int] = field(default_factory=set)
    not_in_sept: set[int] = field(default_factory=set)
    """private pages that were zapped and not touched since"""
    host_page: dict[int, int] = field(default_factory=dict)
    """page -> the host page that is behind it, or will be; the allocator gives the same one again"""
    untaken: set[int] = field(default_factory=set)
    """host pages that the S-EPT still maps although KVM has zapped them"""
    assigned: set[int] = field(default_factory=set)
    """host pages that the RMP still gives to the guest"""
    reused: bool = False
    """one of these was given to somebody (INV-22)"""
    lost: set[tuple[str, int]] = field(default_factory=set)
    """host pages that can no longer be trusted: why, and where they were"""
    bugged: bool = False
    closed: bool = False
    warned: bool = False
    """the rollback of the last request has failed itself"""

    def __post_init__(self) -> None:
        self.kind = dict.fromkeys(range(self.npages), SHARED if self.dialect == "mainline" else self.starts)
        self.host_page = {page: page for page in range(self.npages)}

    # --- what others do

    def allocate(self, page: int) -> None:
        """A fault: a huge folio where its whole range is private, split at once where it is not (2.4)."""
        size = 1 << self.order if self.dialect in ("rfc-v2", "check-first") else 1
        block = range(page // size * size, page // size * size + size)
        if page in self.folio:
            return
        if any(other in self.folio for other in block):
            block = range(page, page + 1)
            self.folio[page] = page, 1
        elif size > 1 and all(self.kind[other] == PRIVATE for other in block):
            self.folio |= dict.fromkeys(block, (block.start, size))
            if any(self.host_page[other] != other for other in block):
                self.give_up(block)  # a huge page that lacks a page is none
        else:
            self.folio |= {other: (other, 1) for other in block}
        self.reused |= any(self.host_page[other] in self.untaken | self.assigned for other in block)

    def give_up(self, pages: Iterable[int]) -> None:
        """Their host pages do not come back to the allocator."""
        for page in pages:
            self.host_page[page] = max(*self.host_page.values(), self.npages) + 1

    def host_touches(self, person: Person, page: int) -> int:
        if self.dialect != "mainline":
            if self.kind[page] == PRIVATE:
                return EFAULT  # SIGBUS
            if page in self.poisoned:
                return EHWPOISON
            self.allocate(page)
            if self.host_page[page] in self.assigned:
                return EFAULT  # an RMP violation
            self.reused |= self.host_page[page] in self.untaken
        person.pages.add(page)
        return 0

    def guest_touches(self, person: Person, page: int, kind: str) -> int:
        if self.bugged:
            return EIO
        if self.kind[page] != kind or not any(page in slot for slot in self.slots):
            return EFAULT
        if self.dialect != "mainline" or kind == PRIVATE:
            if self.closed:
                return EFAULT
            if page in self.poisoned:
                return EHWPOISON
            self.allocate(page)
        person.pages.add(page)
        self.not_in_sept.discard(page)
        return 0

    def punch(self, pages: set[int]) -> None:
        """Zap, truncate; no attribute changes; what somebody holds is an orphan from now on (4.3)."""
        self.all_zapped(pages)
        if self.dialect != "mainline":
            self.tell(("host", "iommu"), pages)
        if self.type == "snp":
            self.rmp_goes_back(page for page in sorted(pages) if self.dialect == "mainline" or self.kind[page] == PRIVATE)
        kept = {page for page in pages if page in self.folio and page in self.poisoned}
        if self.policy in ("uninformed", "track"):
            kept |= {page for page in pages if page in self.folio and self.host_page[page] in self.untaken}
        for person in self.people:
            if person.kind != "guest" and self.dialect != "mainline":
                kept |= person.pages & pages if person.kind in ("pin", "reference", "lru") else set()
                person.pages -= pages
        self.give_up(sorted(kept))
        for page in pages:
            self.folio.pop(page, None)
        self.poisoned -= pages

    def poison(self, page: int) -> None:
        """memory_failure(): the folio's range is zapped, the folio stays (4.3)."""
        head, size = self.folio[page]
        self.all_zapped(set(range(head, head + size)))
        if self.dialect != "mainline":
            self.tell(("host", "iommu"), {page})
        self.poisoned.add(page)
        self.lost.add(("POISONED", page))

    def close(self) -> None:
        self.all_zapped(set(range(self.npages)))
        self.closed = True

    def all_zapped(self, pages: set[int]) -> None:
        """What is no conversion zaps all kinds that the guest_memfd can have: on mainline it holds private memory only."""
        failed = []
        for slot in self.slots:
            failed += self.zap(sorted(pages & slot), PRIVATE if self.dialect == "mainline" else None)
        self.bugged |= bool(failed) and self.policy == "bug-vm"

    # --- the parts of a conversion

    def wrong(self, at: str, pages: Iterable[int]) -> int:
        """One attempt at something that concerns pages: 0, or the errno with which it fails."""
        pages, errno = set(pages), 0
        for trouble in self.troubles:
            if trouble.at == at and (trouble.page is None or trouble.page in pages) and trouble.times:
                trouble.seen += 1
                if trouble.seen >= trouble.nth:
                    trouble.times -= 1
                    errno = errno or trouble.errno
        return errno

    def tell(self, kinds: Iterable[str], pages: set[int]) -> None:
        """People are told to unmap; what they answer is not obeyed, but whoever does not answer is waited for."""
        for person in self.people:
            if person.kind in kinds:
                if person.let_go(pages) is None:
                    raise NeverReturns
                if person.kind == "guest":
                    self.not_in_sept |= pages

    def zap(self, pages: Iterable[int], kind: str | None) -> list[int]:
        """The guest's entries of a kind go, without mirrored page tables those of both; returns what did not come off."""
        going = [page for page in pages if self.type != "tdx" or kind in (None, self.kind.get(page, SHARED))]
        covered = set().union(*self.slots)
        failed = []
        for page in going if self.type == "tdx" else ():
            gone = page in self.not_in_sept or page not in self.folio or page not in covered
            gone = gone or self.kind[page] != PRIVATE or self.host_page[page] in self.untaken
            if not gone and self.wrong("private_unmap", {page}):
                failed.append(page)
        self.untaken |= {self.host_page[page] for page in failed}
        self.lost |= {("SEPT_STILL_MAPS", page) for page in failed}
        for run in runs(going):
            self.tell(("guest",), set(run))
        return failed

    def rmp_goes_back(self, pages: Iterable[int]) -> None:
        """RMPUPDATE for each page that may be assigned; a failure is a warning (5.2)."""
        for page in pages:
            if page in self.folio and self.wrong("rmp_update", {page}):
                self.lost.add(("RMP_STILL_GUEST", page))
                self.assigned.add(self.host_page[page])

    def learned(self, failed: list[int], pages: Iterable[int] = ()) -> None:
        """What the five policies make of private pages that did not come off (3.1, SC-10 to SC-14).

        With ``hwpoison`` no page that is marked becomes shared, whoever has marked it.
        """
        marked = self.policy == "hwpoison" and self.poisoned & set(pages)
        if not (failed or marked) or self.policy == "uninformed":
            return
        if self.policy == "bug-vm":
            self.bugged = True
            return
        for page in failed:
            if self.policy == "hold-and-drop":
                head, size = self.folio.get(page, (page, 0))  # a folio leaves the file as a whole, a huge one too
                self.give_up(range(head, head + size))
                for other in range(head, head + size):
                    del self.folio[other]
                    self.poisoned.discard(other)
            elif self.policy == "hwpoison":
                self.poisoned.add(page)
                self.lost.add(("POISONED", page))
        raise Failed(EFAULT)

    def references(self, head: int, size: int, *, drained: bool = False, without: tuple[str, ...] = ()) -> int:
        """folio_ref_count(): the filemap's, those of people, of poison and of a TDX that nobody is told of (2.3)."""
        pages = set(range(head, head + size))
        kinds = {kind for kind in WEIGHT if kind not in without and not (kind == "lru" and drained)}
        count = size + sum(WEIGHT[each.kind] * len(each.pages & pages) for each in self.people if each.kind in kinds)
        untaken = sum(self.host_page[page] in self.untaken for page in pages) if self.policy == "uninformed" else 0
        return count + len(pages & self.poisoned) + untaken

    def folios(self, pages: Iterable[int]) -> list[tuple[int, int]]:
        return sorted({self.folio[page] for page in pages if page in self.folio})

    def huge_ranges(self, pages: Iterable[int]) -> list[range]:
        size = 1 << self.order
        return [range(head, head + size) for head in sorted({page // size * size for page in pages})]

    def mergeable(self, block: range) -> bool:
        every = [self.folio.get(page) for page in block]
        return None not in every and len(set(every)) > 1 and all(self.kind[page] == PRIVATE for page in block)


def runs(pages: Iterable[int]) -> list[list[int]]:
    """Pages as runs of neighbours."""
    found: list[list[int]] = []
    for page in sorted(pages):
        if found and found[-1][-1] + 1 == page:
            found[-1].append(page)
        else:
            found.append([page])
    return found
