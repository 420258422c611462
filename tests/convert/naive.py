"""The ioctls of a naive host: what must come of a request, written from the text of the specification, a dialect at a time.

The numbers are sections of the domain reference. What its text leaves open is said where it stands.
"""

from collections.abc import Callable
from errno import EAGAIN, EFAULT, EINVAL, EIO, ENOTTY

from tests.convert.naive_host import OTHER, PRIVATE, SHARED, Failed, NaiveHost, NeverReturns, Request, Returned, runs

WRAP = 1 << 64


class Naive(NaiveHost):
    """A naive host that converts."""

    def convert(self, request: Request) -> Returned:
        self.warned = False
        ioctl: dict[str, Callable[[Request], None]] = {
            "mainline": self.mainline, "rfc-v2": self.rfc_v2, "inplace": self.inplace, "check-first": self.check_first
        }  # fmt: skip
        try:
            ioctl[self.dialect](request)
        except Failed as failed:
            return failed.errno, failed.offset
        except NeverReturns:
            return None
        return 0, None

    def mainline(self, request: Request) -> None:
        """4.1"""
        if self.bugged or not request.same_mm:
            raise Failed(EIO)
        if not request.readable:
            raise Failed(EFAULT)
        if request.flags or request.attributes & ~(8 if self.private_mem else 0) or bad_range(request):
            raise Failed(EINVAL)
        pages, target = request.pages, request.target
        if all(self.kind.get(page, SHARED) == target for page in pages):
            return
        if errno := self.wrong("reserve", pages):
            raise Failed(errno)
        failed = []
        for slot in self.slots:
            failed += self.zap([page for page in pages if page in slot], OTHER[target])
        self.learned(failed)
        self.kind |= dict.fromkeys(pages, target)

    def inplace(self, request: Request) -> None:
        """inplace-v13, 1 and 2, with the corrections measured on a real kernel."""
        if not self.in_place:
            raise Failed(ENOTTY)
        if not request.readable:
            raise Failed(EFAULT)
        if request.flags or request.reserved or not self.private_mem or request.attributes & ~8 or bad_range(request):
            raise Failed(EINVAL)
        if request.pages[-1] >= self.npages:
            raise Failed(EINVAL)
        pages, target = request.pages, request.target
        if all(self.kind[page] == target for page in pages):
            return
        if errno := self.wrong("reserve", pages):
            raise Failed(errno, request.address) if request.writable else Failed(EFAULT)
        if target == PRIVATE:
            self.tell(("host", "iommu"), set(pages))
            for slot in self.slots if self.notifier else ():
                self.zap([page for page in pages if page in slot], SHARED)
            drained = False
            for head, size in self.folios(pages):
                used = any(each.kind in ("pin", "host") and head in each.pages for each in self.people)
                if not used and self.references(head, size, drained=drained) != size:
                    drained = True
                    used = self.references(head, size, drained=drained) != size
                if used:
                    raise Failed(EAGAIN, max(head, pages[0]) << 12) if request.writable else Failed(EFAULT)
        failed = []
        for slot in self.slots:
            failed += self.zap([page for page in pages if page in slot], OTHER[target])
        self.learned(failed)
        if target == SHARED and self.type == "snp":
            self.rmp_goes_back(page for page in pages if self.kind[page] == PRIVATE)
        self.kind |= dict.fromkeys(pages, target)

    def rfc_checks(self, request: Request) -> bool:
        """2.1; whether anything is to be done. On an error the struct goes back as it is, but for an error_offset."""
        if not self.in_place:
            raise Failed(ENOTTY)
        if not request.readable:
            raise Failed(EFAULT)
        back = Failed(EINVAL, request.error_offset) if request.writable else Failed(EFAULT)
        if request.error_offset:
            raise back
        if request.size == 0:
            return False
        if bad_range(request) or request.pages[-1] >= self.npages:
            raise back
        known = [page for page in request.pages if page in self.folio and self.host_page[page] in self.untaken]
        if self.policy == "track" and known:
            raise Failed(EFAULT)
        return True

    def items(self, request: Request) -> list[list[int]]:
        """compute_work(): one item for each run that differs; a shadowed `ret` hides that there is no memory for one."""
        items = []
        for item in runs(page for page in request.pages if self.kind[page] != request.target):
            if errno := self.wrong("work_item", item):
                if "shadowed-ret" in self.defects:
                    break
                raise Failed(errno)
            items.append(item)
        return items

    def rfc_v2(self, request: Request) -> None:
        """2.2 to 2.4"""
        if self.rfc_checks(request):
            try:
                self.rfc_v2_range(self.items(request), request.target)
            except Failed as failed:
                raise failed if request.writable else Failed(EFAULT) from None

    def rfc_v2_range(self, items: list[list[int]], target: str) -> None:
        for item in items:
            if target == SHARED:
                self.learned(self.zap(item, PRIVATE), item)
                continue
            self.tell(("host", "iommu"), set(item))
            if self.notifier or "no-zap" not in self.defects:
                self.zap(item, SHARED)
            for head, size in self.folios(item):
                if self.references(head, size) != size:
                    raise Failed(EAGAIN, head << 12)
        for n, item in enumerate(items):
            stored = False
            if not (errno := self.wrong("store", item)):
                self.kind |= dict.fromkeys(item, target)
                stored = True
                errno = self.restructure(item, target)
            if errno:
                self.roll_back(items[:n] if not stored else items[: n + 1], None if stored else item, OTHER[target])
                raise Failed(errno)

    def roll_back(self, changed: list[list[int]], unchanged: list[int] | None, target: str) -> None:
        """Step 6: through the failing item; what goes wrong here is a warning. An item that was never stored stays old."""
        for item in [*changed, *([unchanged] if unchanged else [])]:
            if self.wrong("undo", item):
                self.warned = True
                continue
            self.kind |= dict.fromkeys(item, target)
            self.warned |= bool(self.restructure(item, target))

    def restructure(self, item: list[int], target: str) -> int:
        """2.4: split every touched huge folio, or merge where a huge range is private throughout; all or none of them."""
        done = []
        for block in self.huge_ranges(item) if self.order else ():
            if target == SHARED:
                needed, at = self.folio.get(block.start) == (block.start, len(block)), "split"
            else:
                needed, at = self.mergeable(block), "merge"
            if not needed:
                continue
            if any(self.references(head, size) != size for head, size in self.folios(block)):
                raise NeverReturns  # filemap_remove_folio_for_restructuring() spins
            if errno := self.wrong(at, block):
                for other in done:
                    self.resize(other, huge=target == SHARED)
                if "underflow" in self.defects and item[0] < len(block):
                    raise NeverReturns
                return errno
            self.resize(block, huge=target == PRIVATE)
            done.append(block)
        return 0

    def resize(self, block: range, *, huge: bool) -> None:
        self.folio |= {page: (block.start, len(block)) if huge else (page, 1) for page in block}

    def check_first(self, request: Request) -> None:
        """3.1 (YAN-1, YAN-2) and the row yan-poc of 2.3: ask, count and allocate before anybody is unmapped."""
        if self.rfc_checks(request):
            try:
                self.check_first_range(request.pages, self.items(request), request.target)
            except Failed as failed:
                raise failed if request.writable else Failed(EFAULT) from None

    def check_first_range(self, asked: list[int], items: list[list[int]], target: str) -> None:
        mapping = ("host", "iommu")
        if not items:
            return
        for item in items if target == PRIVATE else ():
            if any(
                each.kind in mapping and each.answer != 0 and each.pages & each.stubborn & set(item) for each in self.people
            ):
                raise Failed(EAGAIN, item[0] << 12)
            for head, size in self.folios(item):
                if self.references(head, size, drained=True, without=mapping) != size:
                    raise Failed(EAGAIN, head << 12)
        at = "split" if target == SHARED else "merge"
        if errno := self.wrong("reserve", asked) or (self.order and self.wrong(at, asked)):
            raise Failed(errno)
        failed = []
        for item in items:
            if target == PRIVATE:
                self.tell(mapping, set(item))
            failed += self.zap(item, OTHER[target])
        self.learned(failed, [page for item in items for page in item] if target == SHARED else ())
        for item in items if target == SHARED else ():
            if any(self.references(head, size, drained=True) > size for head, size in self.folios(item)):
                raise Failed(EFAULT)
        for item in items:
            self.kind |= dict.fromkeys(item, target)
            for block in self.huge_ranges(item) if self.order else ():
                if target == SHARED and self.folio.get(block.start) == (block.start, len(block)):
                    self.resize(block, huge=False)
                elif target == PRIVATE and self.mergeable(block) and not self.held(block):
                    self.resize(block, huge=True)

    def held(self, block: range) -> bool:
        """Whether somebody holds a page; it cannot be merged then, and nothing may fail where it is asked."""
        return any(self.references(head, size, drained=True) != size for head, size in self.folios(block))


def bad_range(request: Request) -> bool:
    """Size 0, a wrap, or no whole pages."""
    return request.size == 0 or request.address + request.size >= WRAP or bool((request.address | request.size) % 4096)
