"""What a dialect sees of a host, and what it may do to it: the steps that are the same in all kernels."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, TypeVar

from gmemstate.convert.engine.ioctl import Fault, Returned, Setting, VmType
from gmemstate.convert.engine.policies import Policy
from gmemstate.convert.engine.users import MapsAgain, PageUser, UnmapAnswer
from gmemstate.model import events as e
from gmemstate.model.events import detail
from gmemstate.model.linux import EFAULT, EOPNOTSUPP, GUP_PIN_COUNTING_BIAS
from gmemstate.model.machines.range import GONE, PHASES, PRIVATE, SETTLED, SHARED, TORN, UNKNOWN, in_flight
from gmemstate.model.memory import Memory
from gmemstate.model.objects import OF_A_TD, POISONED_PAGE, PRESENT, UNMAPPED, Gmem, Slot, Vm
from gmemstate.model.units import PageIndex, hexadecimal

STORED = {state: state for state in (UNKNOWN, SHARED, PRIVATE, TORN, GONE)}
STORED |= {in_flight(phase, b, t): t if phase == "stored" else b for phase in PHASES for b in SETTLED for t in SETTLED}
"""The attribute that is stored in each state of a range."""

THIS = -1
"""The conversion that is being carried out, as long as it has no seq."""

TURNS = 16
"""After how many turns a loop that waits for a reference is reported as stuck."""


class Ask(NamedTuple):
    """A question to a user; whoever drives the engine puts it and sends the answer back."""

    user: PageUser
    start: int
    end: int
    ask: bool = False
    again: bool = False

    def put(self) -> UnmapAnswer:
        """Ask the user to unmap, whether it would, or to map ``again``; who cannot be asked that refuses (EOPNOTSUPP)."""
        if not self.again:
            return self.user.unmap(self.start, self.end, ask=self.ask)
        if isinstance(self.user, MapsAgain):
            return self.user.map_again(self.start, self.end)
        return UnmapAnswer(EOPNOTSUPP)


T = TypeVar("T")
Step = e.Event | Ask
Doing = Generator[Step, UnmapAnswer | None, T]
"""Steps that end with a result."""
Steps = Doing[Returned | None]
"""The steps of an ioctl; it ends with what the ioctl returns, or with None if it never does."""


@dataclass
class Kernel:
    """The host as a dialect sees it: the record so far, the users of pages, what goes wrong, and the policy."""

    memory: Memory
    users: Sequence[PageUser] = ()
    setting: Setting = field(default_factory=Setting)
    policy: Policy = Policy.BUG_VM
    faults: Sequence[Fault] = ()
    pfn: Callable[[int, int], int | None] = lambda _gmem, _index: None
    """the pfn of a page of a guest_memfd, where that is known"""
    drained: bool = False
    failed: list[int] = field(default_factory=list)
    """private pages that could not be unmapped in this conversion"""

    # --- reading

    def vm(self, owner: int) -> Vm:
        """The guest of an attribute owner."""
        return self.memory.vms[self.memory.guest_id(owner) or 0]

    def gmem(self, owner: int) -> Gmem:
        """The guest_memfd inode."""
        return self.memory.gmems[owner]

    def slots(self, owner: int, start: int, end: int) -> Iterator[tuple[Vm, Slot, int, int]]:
        """The memslots that overlap pages of an attribute owner, guest by guest in their order, and the overlaps."""
        for vm in self.memory.vms.values():
            bases = [
                (slot.start if vm.id == owner else slot.index, slot)
                for slot in vm.slots.values()
                if owner in (vm.id, slot.gmem)
            ]
            for base, slot in sorted(((base, slot) for base, slot in bases if base is not None), key=itemgetter(0)):
                if max(base, start) < min(base + slot.npages, end):
                    yield vm, slot, max(base, start), min(base + slot.npages, end)

    def kinds(self, owner: int, start: int, end: int) -> Iterator[tuple[int, int, str]]:
        """The attribute of each page of a range as it is stored at this moment, as runs."""
        return ((run.start, run.end, STORED[run.state]) for run in self.memory.runs(owner, start, end))

    def all_are(self, owner: int, start: int, end: int, kind: str) -> bool:
        """Whether all pages ``[start, end)`` have an attribute."""
        return all(state == kind for _, _, state in self.kinds(owner, start, end))

    def folios(self, owner: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The folios in a range of a guest_memfd: first page and order, in index order."""
        gmem = self.gmem(owner)
        page = start
        while page < end:
            _, last, backing = gmem.backing.run_at(page)
            _, alike, order = gmem.orders.run_at(page)
            if backing not in (PRESENT, POISONED_PAGE):
                page = last
                continue
            heads = range(page >> order << order, min(last, alike, end), 1 << order)
            yield from ((head, order) for head in heads)
            page = heads[-1] + (1 << order)

    def is_small(self, owner: int, start: int, end: int) -> bool:
        """Whether a whole range has memory, in folios of one page."""
        gmem = self.gmem(owner)
        filled = all(what in (PRESENT, POISONED_PAGE) for _, _, what in gmem.backing.runs(start, end))
        return filled and not any(order for _, _, order in gmem.orders.runs(start, end))

    def references(self, owner: int, head: int, order: int) -> int:
        """folio_ref_count(): the filemap's references and those of everybody else."""
        end = head + (1 << order)
        others = sum(user.references(head, end, drained=self.drained) for user in self.users)
        return (1 << order) + others + self._kept(owner, head, end)

    def _kept(self, owner: int, start: int, end: int) -> int:
        """References of the kernel itself: of memory_failure() for poison, of TDX for pages that it could not remove."""
        backing = self.gmem(owner).backing
        if end - start == 1:
            kept = int(backing.get(start) == POISONED_PAGE)
        else:
            kept = sum(last - first for first, last, what in backing.runs(start, end) if what == POISONED_PAGE)
        return kept + len(self.messed_up(owner, start, end)) if self.policy is Policy.UNINFORMED else kept

    def pinned_or_mapped(self, head: int, order: int, count: int) -> bool:
        """folio_maybe_dma_pinned() of a folio with a count of references, or folio_mapped()."""
        hosts = (user for user in self.users if user.kind is e.User.HOST)
        end = head + (1 << order)
        return count >= GUP_PIN_COUNTING_BIAS or any(user.references(head, end, drained=self.drained) for user in hosts)

    def fails(self, at: str, start: int = 0, end: int = 1) -> int:
        """The errno with which a step about pages ``[start, end)`` fails now, 0 if it does not."""
        fault = self.fault(at, start, end)
        return 0 if fault is None else fault.errno

    def fault(self, at: str, start: int, end: int) -> Fault | None:
        """What goes wrong now with pages ``[start, end)``, if anything. Each fault counts this time, whichever strikes."""
        return next(iter([fault for fault in self.faults if fault.strikes(at, start, end)]), None)

    # --- doing

    def unmap(self, owner: int, start: int, end: int, *kinds: e.User, slot: Slot | None = None) -> Steps:
        """Ask the users of some kinds, one after the other, to unmap a range. Their answers are recorded, not obeyed.

        ``slot``: the guest is asked for the gfns of this memslot only.
        """
        for user in self.users:
            if user.kind not in kinds:
                continue
            answer = yield Ask(user, start, end)
            if answer is None or answer.result is None:
                yield from self.no_answer(owner, user, start, end, slot)
                return None
            yield from self.answered(owner, user, start, end, answer, slot)
        return Returned()

    def no_answer(self, owner: int, user: PageUser, start: int, end: int, slot: Slot | None = None) -> Iterator[e.Event]:
        """A user that does not answer about pages ``[start, end)``: the thread waits for it."""
        yield from self.answered(owner, user, start, end, UnmapAnswer(None), slot)
        yield e.TaskStuck(conversion=THIS, owner=owner, thread=0, detail=detail(waits_for=user.name))

    def places(self, owner: int, user: PageUser, start: int, end: int, only: Slot | None = None) -> list[tuple[int, int, int]]:
        """Where a user maps pages ``[start, end)``: the guest's page tables are those of a VM, so its pages are gfns."""
        if user.kind is not e.User.GUEST or owner not in self.memory.gmems:
            return [(owner, start, end)]
        slots = self.slots(owner, start, end)
        return [(vm.id, first + shift(slot), last + shift(slot)) for vm, slot, first, last in slots if only in (None, slot)]

    def answered(
        self, owner: int, user: PageUser, start: int, end: int, answer: UnmapAnswer, only: Slot | None = None
    ) -> Iterator[e.Event]:
        """The answer of a user about pages ``[start, end)`` as events."""
        for n, (where, first, last) in enumerate(self.places(owner, user, start, end, only)):
            yield e.UserAnswered(
                user=user.kind,
                start=first,
                npages=last - first,
                owner=where,
                conversion=THIS,
                result=answer.result,
                entries=answer.entries if n == 0 else None,
                detail=detail(user=user.name),
            )

    def zap(self, owner: int, start: int, end: int, kind: str | None, slot: Slot | None = None) -> Steps:
        """kvm_tdp_mmu_zap_leafs(): the guest loses its entries of a kind (None: of both), in one memslot or in all.

        Only mirrored page tables keep the kinds apart; elsewhere all entries go. A private page of a TD may stay mapped.
        """
        runs = [(start, end)]
        if self.setting.mirrored and kind is not None:
            runs = [(first, last) for first, last, state in self.kinds(owner, start, end) if state == kind]
        for first, last in runs:
            if self.setting.type is VmType.TDX:
                yield from self.remove_private(owner, first, last)
            returned = yield from self.unmap(owner, first, last, e.User.GUEST, slot=slot)
            if returned is None:
                return None
        return Returned()

    def remove_private(self, owner: int, start: int, end: int) -> Doing[None]:
        """tdx_sept_remove_leaf_spte() of each private page: what fails here, the caller does not hear of."""
        for page, gmem, index in self.assigned(owner, start, end, "private_unmap"):
            vm, gfn = self.memory.place(gmem, PageIndex(index))
            if (
                gfn is None
                or self.memory.mapped(vm or 0, e.User.GUEST, gfn) == UNMAPPED
                or self.messed_up(gmem, index, index + 1)
            ):
                continue  # KVM has no entry for it
            if fault := self.fault("private_unmap", page, page + 1):
                self.failed.append(page)
                yield e.PrivateUnmapFailed(
                    step=fault.step, owner=owner, conversion=THIS, start=page, npages=1, pfn=self.pfn(gmem, index)
                )

    def assigned(self, owner: int, start: int, end: int, at: str) -> Iterator[tuple[int, int, int]]:
        """The private pages of a range that have memory, with guest_memfd and index; none if nothing can fail ``at`` them."""
        if not any(fault.at == at and fault.times for fault in self.faults):
            return
        for first, last, kind in list(self.kinds(owner, start, end)):
            for page in range(first, last) if kind == PRIVATE else ():
                backing = [(owner, page)]
                if owner not in self.memory.gmems:
                    backing = [(gmem, index) for gmem, index, *_ in self.memory.indices(owner, page, page + 1)]
                for gmem, index in backing:
                    if self.gmem(gmem).backing.get(index) in (PRESENT, POISONED_PAGE):
                        yield page, gmem, index

    def learn(self, owner: int, start: int, end: int) -> Doing[int]:
        """What guest_memfd learns of private pages that could not be unmapped, by policy; the errno that follows."""
        bad = sorted({*self.failed, *self._flagged(owner, start, end)})
        if not bad or self.policy is Policy.UNINFORMED:
            return 0
        if self.policy is Policy.BUG_VM:
            if self.vm(owner).gone is None:
                yield e.VmBugged(owner=self.vm(owner).id)
            return 0
        for page in self.failed:
            if self.policy is Policy.HOLD_AND_DROP:
                for head, order in list(self.folios(owner, page, page + 1)):
                    yield e.PageFreed(owner=owner, start=head, npages=1 << order, order=order, detail=detail(kept="for ever"))
            elif self.policy is Policy.HWPOISON:
                yield e.Poisoned(owner=owner, start=page, npages=1, pfn=self.pfn(owner, page))
        yield e.UserAnswered(user=e.User.GUEST, start=bad[0], npages=1, owner=owner, conversion=THIS, result=EFAULT)
        return EFAULT

    def _flagged(self, owner: int, start: int, end: int) -> list[int]:
        """kvm_gmem_has_invalid_folio(): pages of a range that are marked as poisoned, where the policy looks for them."""
        if self.policy is not Policy.HWPOISON:
            return []
        runs = self.gmem(owner).backing.runs(start, end)
        return [page for first, last, what in runs if what == POISONED_PAGE for page in range(first, last)]

    def messed_up(self, owner: int, start: int, end: int) -> list[int]:
        """The pages of a range whose host page could not be taken back from a TD, and still backs them."""
        gmem = self.memory.gmems.get(owner)
        return sorted(
            entry.index
            for entry in self.memory.messed_up.values()
            if gmem is not None and entry.gmem == owner and entry.index is not None and start <= entry.index < end
            if entry.state != "cleared"
            and entry.cause in OF_A_TD
            and gmem.backing.get(entry.index) in (PRESENT, POISONED_PAGE)
            and self.pfn(owner, entry.index) == entry.pfn
        )

    def tracked(self, owner: int, start: int, end: int) -> bool:
        """Whether a conversion is refused for a page that the policy ``track`` knows to be messed up."""
        return self.policy is Policy.TRACK and bool(self.messed_up(owner, start, end))

    def freeze(self, owner: int, head: int, order: int) -> Doing[bool]:
        """filemap_remove_folio_for_restructuring(): spins until nobody else holds the folio; False if it never ends."""
        said = False
        for _ in range(TURNS):
            count = self.references(owner, head, order)
            if count == 1 << order:
                return True
            if not said:
                yield e.Spinning(
                    conversion=THIS, owner=owner, references=count, detail=detail(page=hexadecimal(head), expected=1 << order)
                )
                said = True
        return False


def in_use(owner: int, head: int, order: int, result: int, found: int, expected: int) -> e.UsersChecked:
    """That somebody else holds a folio, by the references that were ``found`` and ``expected``."""
    return e.UsersChecked(
        conversion=THIS, owner=owner, start=head, npages=1 << order, result=result, references=found, expected=expected
    )


def shift(slot: Slot) -> int:
    """What makes a gfn of a page index."""
    return slot.start - (slot.index or 0)


def runs_of(pages_: Iterable[int]) -> list[tuple[int, int]]:
    """Pages as half-open runs."""
    return joined((page, page + 1) for page in sorted(set(pages_)))


def joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs in order, neighbours as one."""
    found: list[tuple[int, int]] = []
    for start, end in runs:
        if found and found[-1][1] == start:
            found[-1] = found[-1][0], end
        else:
            found.append((start, end))
    return found
