"""Records written by hand: a guest with a guest_memfd, and what is told to happen to it."""

from dataclasses import replace
from typing import Any

from gmemstate.model import events as e
from gmemstate.model.fold.apply import apply
from gmemstate.model.machines.range import PRIVATE
from gmemstate.model.memory import Memory

GFN = 0x100
"""Where the guest sees page 0 of its guest_memfd."""
SECONDS = 2_000_000_000
"""ns between two events: nothing is so close to another thing that they could be a race."""


class Story:
    """A source, a guest and its guest_memfd; events are added one by one, pages are those of the guest_memfd.

    ``format`` ftrace: what a trace of a real kernel shows; simulation: all that happens on the host is told.
    """

    def __init__(self, dialect: e.Dialect, format: str = "ftrace", *, shared: bool = True, pages: int = 64) -> None:
        self.dialect, self.pages = dialect, pages
        self.rows: list[e.EventRow] = []
        self.memory = Memory()
        self.source: int | None = None
        self.source = self.add(e.SourceOpened(detail=e.detail(name="story", format=format)))
        self.vm = self.guest()
        for capability in e.Capability:
            self.add(e.SourceShows(capability=capability, owner=self.vm))
        flags = 2 if shared and dialect is not e.Dialect.MAINLINE else 0
        self.gmem = len(self.rows) + 1
        self.add(e.GmemCreated(owner=self.gmem, vm=self.vm, npages=pages, flags=flags, result=0))
        self.add(e.SlotSet(slot=0, owner=self.vm, start=GFN, npages=pages, flags=4, result=0))
        self.add(e.GmemBound(owner=self.vm, start=GFN, npages=pages, index=0, gmem=self.gmem))

    @property
    def in_vm(self) -> bool:
        """Whether the VM holds the attributes."""
        return self.dialect is e.Dialect.MAINLINE

    @property
    def owner(self) -> int:
        """Where the attributes are held."""
        return self.vm if self.in_vm else self.gmem

    def page(self, page: int) -> int:
        """A page, as the space of the attributes numbers it."""
        return GFN + page if self.in_vm else page

    def add(self, event: e.Event) -> int:
        """One more event; its seq."""
        seq = len(self.rows) + 1
        event = replace(event, source=seq if self.source is None else self.source, t=seq * SECONDS)
        self.rows.append((seq, *event.row()[1:]))
        apply(self.memory, self.rows[-1])
        return seq

    def guest(self) -> int:
        """One more guest."""
        vm = len(self.rows) + 1
        self.add(e.VmSeen(owner=vm, made=1))
        self.add(e.VmCreated(owner=vm, dialect=self.dialect))
        return vm

    # --- conversions: each step names the conversion, as `ask` has returned it

    def ask(self, start: int, npages: int, to: str, **facts: Any) -> int:
        through = {e.Dialect.MAINLINE: e.Through.VM_IOCTL, e.Dialect.INPLACE: e.Through.GMEM_IOCTL}
        asked = {"conversion": len(self.rows) + 1, "through": through.get(self.dialect, e.Through.GMEM_CONVERT), "thread": 1}
        return self.add(
            e.ConvertAsked(owner=self.owner, attributes=attributes(to), **self._run(start, npages), **asked | facts)
        )

    def compared(self, conversion: int, start: int, npages: int, to: str, *, equal: bool) -> int:
        return self.add(e.AttrsCompared(attributes=attributes(to), equal=int(equal), **self._at(conversion, start, npages)))

    def work(self, conversion: int, start: int, npages: int) -> int:
        return self.add(e.WorkItem(**self._at(conversion, start, npages)))

    def reserved(self, conversion: int, result: int = 0) -> int:
        return self.add(e.Reserved(conversion=conversion, owner=self.owner, result=result))

    def held_off(self, conversion: int, start: int, npages: int) -> int:
        return self.add(e.InvalidateAdded(**self._at(conversion, start, npages)))

    def zapped(self, conversion: int, start: int, npages: int, slot: int | None = None) -> int:
        return self.add(e.ZapStarted(slot=slot, **self._at(conversion, start, npages)))

    def answered(self, conversion: int | None, user: e.User, start: int, npages: int, result: int = 0, entries: int = 1) -> int:
        return self.add(e.UserAnswered(user=user, result=result, entries=entries, **self._at(conversion, start, npages)))

    def tested(self, conversion: int, start: int, npages: int, result: int = 0, **facts: int) -> int:
        return self.add(e.UsersChecked(result=result, **self._at(conversion, start, npages), **facts))

    def stored(self, conversion: int | None, start: int, npages: int, to: str) -> int:
        return self.add(e.AttrsStored(attributes=attributes(to), **self._at(conversion, start, npages)))

    def undone(self, conversion: int, start: int, npages: int, result: int = 0) -> int:
        return self.add(e.Undone(result=result, **self._at(conversion, start, npages)))

    def ended(self, conversion: int) -> int:
        return self.add(e.InvalidateEnded(conversion=conversion, owner=self.owner))

    def returned(self, conversion: int, result: int = 0, error_offset: int | None = None) -> int:
        return self.add(
            e.ConvertReturned(conversion=conversion, result=result, owner=self.owner, error_offset=error_offset, thread=1)
        )

    def converted(self, start: int, npages: int, to: str, **facts: Any) -> int:
        """A whole conversion that goes well; the id of it."""
        conversion = self.ask(start, npages, to, **facts)
        self.reserved(conversion)
        self.zapped(conversion, start, npages)
        if to == PRIVATE and not self.in_vm:
            self.answered(conversion, e.User.HOST, start, npages)
            self.tested(conversion, start, npages)
        self.stored(conversion, start, npages, to)
        self.returned(conversion)
        return conversion

    # --- pages

    def touched(self, access: e.Access, page: int, npages: int = 1, result: int = 0, **facts: Any) -> int:
        """A page is touched by the guest, or through the mmap of its guest_memfd."""
        by_host = access is e.Access.HOST
        where = {"owner": self.gmem if by_host else self.vm, "start": page if by_host else GFN + page, "npages": npages}
        return self.add(e.FaultServed(access=access, result=result, **where, **facts))

    def unmap_fails(self, page: int, step: e.UnmapStep = e.UnmapStep.REMOVE, **facts: Any) -> int:
        """A private page does not come off."""
        return self.add(e.PrivateUnmapFailed(step=step, owner=self.gmem, start=page, npages=1, **facts))

    def punched(self, page: int, npages: int, result: int = 0, **facts: Any) -> int:
        return self.add(e.Punched(mode=3, result=result, owner=self.gmem, start=page, npages=npages, **facts))

    # --- requests of the guest

    def guest_asks(self, start: int, npages: int, path: e.RequestPath, flags: int = 0x10, thread: int = 9) -> int:
        """The guest asks, and its VMM is told."""
        request = len(self.rows) + 1
        self.add(
            e.GuestAsked(
                request=request, thread=thread, owner=self.vm, start=GFN + start, npages=npages, flags=flags, path=path
            )
        )
        self.add(e.VcpuExited(thread=thread, owner=self.vm, reason=3, result=0))
        return request

    def guest_told(self, request: int, result: int, **facts: Any) -> int:
        return self.add(e.GuestAnswered(request=request, result=result, owner=self.vm, thread=9, **facts))

    def _run(self, start: int, npages: int) -> dict[str, Any]:
        return {"start": self.page(start), "npages": npages}

    def _at(self, conversion: int | None, start: int, npages: int) -> dict[str, Any]:
        return {"conversion": conversion, "owner": self.owner, **self._run(start, npages)}


def attributes(to: str) -> int:
    """KVM_MEMORY_ATTRIBUTE_PRIVATE or none."""
    return 8 if to == PRIVATE else 0
