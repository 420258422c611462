"""A small kernel that writes its own trace: several threads make guests, memslots and guest_memfds, and convert.

It knows of each page what it is, one page at a time, and of each call what it was asked and has returned. Its lines are those
that Linux 7.2 and the in-place kernel print with the probes of the captures. Pointers, inodes and file descriptors are used
again, file descriptors are dup()ed, threads are preempted between any two lines unless they wait for the lock of a guest.
"""

import random
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

PAGE = 4096
FIRST_GFN, GMEM_PAGES, ELSEWHERE = 0x100000, 32, 0x4000000
EIO, EAGAIN, ENOMEM, EFAULT, EINVAL = 5, 11, 12, 14, 22
PRIVATE, SHARED = 8, 0
U64 = 1 << 64


class Line(NamedTuple):
    """A line of the trace, before it is spelled."""

    t: int
    tid: int
    comm: str
    cpu: int
    flags: str
    kind: str
    body: str


@dataclass(eq=False)
class Vm:
    """A guest. Its attributes are those of mainline."""

    number: int
    pointer: int
    file: int
    attributes: dict[int, int] = field(default_factory=dict)
    slots: dict[int, tuple[int, int, "Gmem | None"]] = field(default_factory=dict)
    """first gfn, pages, guest_memfd, by slot"""
    locked: bool = False


@dataclass(eq=False)
class Gmem:
    """A guest_memfd. Its attributes are those of the in-place kernel."""

    vm: Vm
    inode: int
    attributes: list[int]
    pins: set[int] = field(default_factory=set)


@dataclass
class Called:
    """A conversion, as its caller knows it."""

    tid: int
    vm: Vm
    gmem: Gmem | None
    address: int
    size: int
    attributes: int
    asked: bool
    """whether the guest had asked for it"""
    entered: int = 0
    errno: int = 0
    error_offset: int | None = None


@dataclass(eq=False)
class Handle:
    """What a program holds: a guest, its fd, the fd of its vCPU, its guest_memfd and the fd of that."""

    vm: Vm
    fd: int
    vcpu: int
    gmem: Gmem
    gmem_fd: int


WAIT, WENT_ON = True, False
Steps = Generator[bool, None, None]
Program = Callable[["Thread"], Steps]


class Kernel:
    """Runs threads in turns and keeps their trace and the truth."""

    def __init__(self, seed: int, *, inplace: bool) -> None:
        self.dice = random.Random(seed)
        self.inplace = inplace
        self.lines: list[Line] = []
        self.calls: list[Called] = []
        self.vms: list[Vm] = []
        self.free_vms, self.free_inodes = [0xFFFF888100A00000], [0xFFFF8881003D9708]
        self.t = 5_000_000_000

    def run(self, programs: list[tuple[int, str, Program]]) -> None:
        """Run programs, each as a thread, until all have ended."""
        files: dict[int, set[int]] = {}
        running = []
        for tid, comm, program in programs:
            thread = Thread(self, tid, comm, files.setdefault(tid // 100, {0, 1, 2}))
            running.append((thread, program(thread)))
        burst = self.dice.choice([2, 6, 40])
        while running:
            at = self.dice.randrange(len(running))
            for _ in range(self.dice.randrange(1, burst)):
                said = next(running[at][1], None)
                if said is None:
                    del running[at]
                if said is not WENT_ON:
                    break


def pointer(free: list[int], step: int) -> int:
    """An address; one that was freed is used again first."""
    if len(free) > 1:
        return free.pop()
    free[0] += step
    return free[0]


@dataclass(eq=False)
class Thread:
    """A thread of a program; its methods are system calls."""

    kernel: Kernel
    tid: int
    comm: str
    fds: set[int]

    def say(self, kind: str, body: str, flags: str = ".....") -> bool:
        kernel = self.kernel
        kernel.t += kernel.dice.randrange(1, 900) * 1000
        kernel.lines.append(Line(kernel.t, self.tid, self.comm, kernel.dice.randrange(2), flags, kind, body))
        return WENT_ON

    def fd(self) -> int:
        new = min(set(range(99)) - self.fds)
        self.fds.add(new)
        return new

    def back(self, result: int) -> bool:
        return self.say("syscall", f"sys_ioctl -> {result % U64:#x}")

    def take(self, vm: Vm) -> Steps:
        while vm.locked:
            yield WAIT
        vm.locked = True

    # --- a guest

    def make_guest(self) -> Generator[bool, None, Handle]:
        """A guest with 32 pages of guest_memfd in slot 10, made like the selftests' library does: fds are dup()ed."""
        kernel = self.kernel
        dice = kernel.dice
        vm = Vm(len(kernel.vms), pointer(kernel.free_vms, 0x2000), 0xFFFF888100000000 + dice.randrange(1 << 20) * 64)
        kernel.vms.append(vm)
        fd, vcpu = self.fd(), self.fd()
        yield self.back(fd)
        yield from self.set_slot(vm, 0, 0, 0x291)
        yield self.back(vcpu)
        flags = dice.choice([1, 3]) if kernel.inplace else 0
        gmem = Gmem(vm, pointer(kernel.free_inodes, 0x228), [SHARED if flags & 2 else PRIVATE] * GMEM_PAGES)
        gmem_fd = self.fd()
        yield self.say(
            "gmem_create",
            "gmem_create: (kvm_vm_ioctl+0x1c7/0x1d40 [kvm] <- kvm_gmem_create) "
            f"kvm={vm.pointer:#x} size={GMEM_PAGES * PAGE:#x} flags={flags:#x} fd={gmem_fd}",
        )
        yield self.back(gmem_fd)
        yield from self.set_slot(vm, 10, FIRST_GFN, GMEM_PAGES, gmem, gmem_fd if dice.random() < 0.5 else self.fd())
        return Handle(vm, fd, vcpu, gmem, gmem_fd)

    def set_slot(self, vm: Vm, slot: int, gfn: int, npages: int, gmem: Gmem | None = None, fd: int = -1) -> Steps:
        yield from self.take(vm)
        hva = 0x7F0000000000 + vm.number * 0x100000000 + slot * 0x1000000
        where = f"slot={slot} flags={4 if gmem else 0:#x} gpa={gfn * PAGE:#x} size={npages * PAGE:#x}"
        yield self.say(
            "set_region",
            f"set_region: (kvm_vm_ioctl+0x4/0x1d40 [kvm]) cmd=0x40a0ae49 {where} hva={hva:#x} gmem_offset=0x0 gmem_fd={fd}",
        )
        if gmem is not None:
            bound = f"kvm={vm.pointer:#x} base_gfn={gfn:#x} npages={npages} slot={slot}"
            if self.kernel.inplace:
                names = ("gmem_prepare", "kvm_gmem_prepare_memory_region", f"fd={fd} offset=0x0 inode={gmem.inode:#x}")
            else:
                names = ("gmem_bind", "kvm_gmem_bind", f"fd={fd} offset=0x0")
            yield self.say(
                names[0], f"{names[0]}: (kvm_set_memory_region.part.0+0x326/0x520 [kvm] <- {names[1]}) {bound} {names[2]} ret=0"
            )
            if self.kernel.inplace:
                yield self.say(
                    "gmem_commit",
                    "gmem_commit: (kvm_set_memslot+0x3bf/0x6e0 [kvm] <- kvm_gmem_commit_memory_region) "
                    f"{bound} pgoff=0x0 inode={gmem.inode:#x} ret=0",
                )
        yield self.say(
            "set_region_ret",
            "set_region_ret: (__x64_sys_ioctl+0x36a/0x840 <- kvm_vm_ioctl) "
            f"cmd=0x40a0ae49 ret=0 slot={slot} gpa={gfn * PAGE:#x} size={npages * PAGE:#x}",
        )
        vm.slots[slot] = (gfn, npages, gmem)
        vm.locked = False
        yield self.back(0)

    def end_guest(self, handle: Handle) -> Steps:
        vm, gmem = handle.vm, handle.gmem
        yield self.say(
            "gmem_release", f"gmem_release: (kvm_gmem_release+0x4/0x160 [kvm]) inode={gmem.inode:#x} size={GMEM_PAGES * PAGE}"
        )
        yield from self._invalidate(handle, 0, None, 2)
        yield self.say(
            "gmem_unbind",
            f"gmem_unbind: (kvm_gmem_unbind+0x4/0xd0 [kvm]) base_gfn={FIRST_GFN:#x} npages={GMEM_PAGES} slot=10 pgoff=0x0",
        )
        self.kernel.free_inodes.append(gmem.inode)
        self.kernel.free_vms.append(vm.pointer)

    def _invalidate(self, handle: Handle, start: int, end: int | None, filter_: int) -> Steps:
        kvm = f"kvm={handle.vm.pointer:#x}"
        last = U64 - 1 if end is None else end
        yield self.say(
            "gmem_inv",
            f"gmem_inv: (__kvm_gmem_invalidate_start+0x0/0x130 [kvm]) start={start:#x} end={last:#x} filter={filter_}",
        )
        gfns = f"start={FIRST_GFN + start:#x} end={FIRST_GFN + (GMEM_PAGES if end is None else end):#x}"
        yield self.say(
            "unmap_gfn",
            f"unmap_gfn: (__kvm_gmem_invalidate_start+0x62/0x130 [kvm] <- kvm_unmap_gfn_range) {kvm} {gfns} slot=10 "
            f"filter={filter_} flush=0",
            "...1.",
        )

    def punch(self, handle: Handle, start: int, end: int) -> Steps:
        where = f"offset: {start * PAGE:#x}, len: {(end - start) * PAGE:#x}"
        yield self.say("syscall", f"sys_fallocate(fd: {handle.gmem_fd}, mode: 3, {where})")
        yield from self._invalidate(handle, start, end, 2)
        yield self.say("inv_end", f"inv_end: (kvm_mmu_invalidate_end+0x4/0x60 [kvm]) kvm={handle.vm.pointer:#x}", "...1.")
        yield self.say(
            "gmem_fallocate",
            "gmem_fallocate: (vfs_fallocate+0xfb/0x260 <- kvm_gmem_fallocate) "
            f"inode={handle.gmem.inode:#x} mode=0x3 offset={start * PAGE:#x} len={(end - start) * PAGE:#x} ret=0",
        )
        yield self.say("syscall", "sys_fallocate -> 0x0")

    # --- a vCPU

    def run_vcpu(self, handle: Handle) -> Steps:
        yield self.say("syscall", f"sys_ioctl(fd: {handle.vcpu}, cmd: 0xae80, arg: 0)")
        yield self.say("exit", "kvm_userspace_exit: reason KVM_EXIT_IO (2)")
        yield self.say("uexit", "uexit: (kvm.kvm_userspace_exit) reason=2 err=0", "...1.")
        yield self.back(0)

    def ask(self, handle: Handle, page: int, npages: int, attributes: int) -> Steps:
        """The guest asks; the program converts, in one piece or two, and answers."""
        gpa = (FIRST_GFN + page) * PAGE
        yield self.say("syscall", f"sys_ioctl(fd: {handle.vcpu}, cmd: 0xae80, arg: 0)")
        yield self.say("hypercall", f"kvm_hypercall: nr 0xc a0 {gpa:#x} a1 {npages:#x} a2 {1 if attributes else 3:#x} a3 0x0")
        yield self.say(
            "run_ret",
            "run_ret: (kvm_vcpu_ioctl+0x2f1/0x9e0 [kvm] <- kvm_arch_vcpu_ioctl_run) "
            f"ret=0 exit=3 flags=0xc gpa={gpa:#x} size={npages:#x}",
        )
        yield self.say("exit", "kvm_userspace_exit: reason KVM_EXIT_HYPERCALL (3)")
        yield self.say("uexit", "uexit: (kvm.kvm_userspace_exit) reason=3 err=0", "...1.")
        yield self.back(0)
        half = npages // 2
        told = 0
        for start, count in ((page, half), (page + half, npages - half)) if half else ((page, npages),):
            if told == 0:
                told = yield from self.convert(handle, start, count, attributes, asked=True)
        yield self.say("syscall", f"sys_ioctl(fd: {handle.vcpu}, cmd: 0xae80, arg: 0)")
        yield self.say("hc_done", f"hc_done: (complete_hypercall_exit+0x4/0x70 [kvm]) ret={-told}")
        yield self.say("exit", "kvm_userspace_exit: reason KVM_EXIT_IO (2)")
        yield self.say("uexit", "uexit: (kvm.kvm_userspace_exit) reason=2 err=0", "...1.")
        yield self.back(0)

    # --- conversions

    def convert(
        self,
        handle: Handle,
        page: int,
        npages: int,
        attributes: int,
        *,
        asked: bool = False,
        odd: int = 0,
        base: int = FIRST_GFN,
    ) -> Generator[bool, None, int]:
        """Convert pages of slot 10, or of ``base``; ``odd`` bytes make it misaligned. The kernel may have no memory."""
        fail = self.kernel.dice.choice([0] * 8 + [ENOMEM])
        if self.kernel.inplace:
            return (yield from self._convert_gmem(handle, page * PAGE + odd, npages * PAGE, attributes, fail, asked))
        address = (base + page) * PAGE + odd
        return (yield from self._convert_vm(handle, address, npages * PAGE, attributes, fail, asked))

    def _convert_vm(
        self, handle: Handle, address: int, size: int, attributes: int, fail: int, asked: bool
    ) -> Generator[bool, None, int]:
        vm = handle.vm
        kvm = f"kvm={vm.pointer:#x}"
        call = Called(self.tid, vm, None, address, size, attributes, asked)
        given = f"addr={address:#x} size={size:#x} attrs={attributes:#x}"
        yield self.say("syscall", f"sys_ioctl(fd: {handle.fd}, cmd: 0x4020aed2, arg: 0x7ffca9365a70)")
        self.say("vm_ioctl", f"vm_ioctl: (kvm_vm_ioctl+0x4/0x1d40 [kvm]) file={vm.file:#x} cmd=0x4020aed2 {given} flags=0x0")
        call.entered = self.kernel.t
        self.kernel.calls.append(call)
        yield WENT_ON
        if address % PAGE:
            call.errno = EINVAL
        else:
            first, last = address // PAGE, (address + size) // PAGE
            yield self.say("attempt", f"kvm_vm_set_mem_attributes: 0x{first:014x} -- 0x{last:014x} [{attributes:#x}]")
            yield from self.take(vm)
            equal = all(vm.attributes.get(gfn, SHARED) == attributes for gfn in range(first, last))
            yield self.say(
                "range_has_attrs",
                "range_has_attrs: (kvm_vm_ioctl+0x522/0x1d40 [kvm] <- kvm_range_has_memory_attributes) "
                f"{kvm} start={first:#x} end={last:#x} mask=0xffffffffffffffff attrs={attributes:#x} ret={int(equal)}",
            )
            if not equal and fail:
                call.errno = fail
            elif not equal:
                yield from self._apply(vm, first, last, attributes)
            vm.locked = False
        yield self.say(
            "vm_ioctl_ret",
            f"vm_ioctl_ret: ([unknown/kretprobe'd] <- kvm_vm_ioctl) cmd=0x4020aed2 ret={-call.errno} {given} {kvm}",
        )
        yield self.back(-call.errno)
        return call.errno

    def _apply(self, vm: Vm, first: int, last: int, attributes: int) -> Steps:
        kvm = f"kvm={vm.pointer:#x}"
        clipped = [(slot, max(first, gfn), min(last, gfn + npages)) for slot, (gfn, npages, _) in vm.slots.items()]
        places = [f"start={low:#x} end={high:#x} slot={slot}" for slot, low, high in clipped if low < high]
        for place in places:
            yield self.say(
                "unmap_gfn",
                f"unmap_gfn: ([unknown/kretprobe'd] <- kvm_unmap_gfn_range) {kvm} {place} filter=1 flush=1",
                "...1.",
            )
            yield self.say(
                "pre_set",
                "pre_set: (kvm_vm_ioctl+0x102a/0x1d40 [kvm] <- kvm_arch_pre_set_memory_attributes) "
                f"{kvm} {place} attrs={attributes:#x} flush=1",
                "...1.",
            )
        vm.attributes.update(dict.fromkeys(range(first, last), attributes))
        yield self.say("inv_end", f"inv_end: (kvm_mmu_invalidate_end+0x4/0x60 [kvm]) {kvm}", "...1.")
        for place in places:
            yield self.say(
                "post_set",
                f"post_set: (kvm_arch_post_set_memory_attributes+0x4/0x260 [kvm]) {kvm} {place} attrs={attributes:#x}",
                "...1.",
            )

    def _convert_gmem(
        self, handle: Handle, offset: int, size: int, attributes: int, fail: int, asked: bool
    ) -> Generator[bool, None, int]:
        vm, gmem = handle.vm, handle.gmem
        inode = f"inode={gmem.inode:#x}"
        call = Called(self.tid, vm, gmem, offset, size, attributes, asked)
        given = f"offset={offset:#x} size={size:#x} attrs={attributes:#x} flags=0x0"
        yield self.say("syscall", f"sys_ioctl(fd: {handle.gmem_fd}, cmd: 0xc080aed2, arg: 0x7ffd2f33be20)")
        self.say(
            "gmem_ioctl",
            f"gmem_ioctl: (kvm_gmem_ioctl+0x4/0x30 [kvm]) cmd=0xc080aed2 {given} error_in=0x5a5a5a5a {inode} "
            f"kvm={vm.pointer:#x}",
        )
        call.entered = self.kernel.t
        self.kernel.calls.append(call)
        yield WENT_ON
        first, last = offset // PAGE, (offset + size) // PAGE
        if offset % PAGE:
            call.errno = EINVAL
        else:
            yield from self.take(vm)
            if any(gmem.attributes[page] != attributes for page in range(first, last)):
                if fail:
                    call.errno, call.error_offset = fail, offset
                else:
                    yield from self._change(handle, call, first, last)
            vm.locked = False
        error_offset = 0x5A5A5A5A if call.error_offset is None else call.error_offset
        yield self.say(
            "gmem_ioctl_ret",
            "gmem_ioctl_ret: (__x64_sys_ioctl+0x36a/0x840 <- kvm_gmem_ioctl) "
            f"cmd=0xc080aed2 ret={-call.errno} {given} error_offset={error_offset:#x} {inode}",
        )
        yield self.back(-call.errno)
        return call.errno

    def _change(self, handle: Handle, call: Called, first: int, last: int) -> Steps:
        gmem, attributes = handle.gmem, call.attributes
        if attributes:
            yield self.say(
                "host_unmap",
                f"host_unmap: (unmap_mapping_pages+0x4/0x90) inode={gmem.inode:#x} start={first:#x} nr={last - first:#x}",
            )
            pinned = sorted(gmem.pins & set(range(first, last)))
            for page in range(first, pinned[0] if pinned else last):
                yield self.say(
                    "lru_folio", f"lru_folio: (lru_cache_drain_for_folio+0x4/0x190) index={page:#x} refs=2 extra=1 drained=0"
                )
            if pinned:
                call.errno, call.error_offset = EAGAIN, pinned[0] * PAGE
                return
        yield from self._invalidate(handle, first, last, 1 if attributes else 2)
        gmem.attributes[first:last] = [attributes] * (last - first)
        low, high = first, last
        while low > 0 and gmem.attributes[low - 1] == attributes:
            low -= 1
        while high < GMEM_PAGES and gmem.attributes[high] == attributes:
            high += 1
        for _ in range(self.kernel.dice.choice([1, 2])):
            yield self.say(
                "gmem_store",
                f"gmem_store: (maple_tree.ma_write) index={low} last={high - 1} val={0x11 if attributes else 1:#x}",
                "...1.",
            )
        yield self.say("inv_end", f"inv_end: (kvm_mmu_invalidate_end+0x4/0x60 [kvm]) kvm={handle.vm.pointer:#x}", "...1.")


# --- programs -------------------------------------------------------------------------------------------------------------


def something(thread: Thread, handle: Handle) -> Steps:
    """One thing that a VMM may do."""
    dice = thread.kernel.dice
    page = dice.randrange(GMEM_PAGES)
    npages = dice.randrange(1, GMEM_PAGES + 1 - page)
    attributes = dice.choice([PRIVATE, SHARED])
    handle.gmem.pins = {dice.randrange(GMEM_PAGES)} if dice.random() < 0.2 else set()
    choice = dice.random()
    if choice < 0.6:
        odd = dice.choice([0] * 12 + [0x200])
        base = dice.choice([FIRST_GFN, FIRST_GFN, FIRST_GFN + 16, 0, ELSEWHERE])
        yield from thread.convert(handle, page, npages, attributes, odd=odd, base=base)
    elif choice < 0.75:
        yield from thread.ask(handle, page, npages, attributes)
    elif choice < 0.85:
        yield from thread.punch(handle, page, page + npages)
    else:
        yield from thread.run_vcpu(handle)


def one_guest(thread: Thread) -> Steps:
    handle = yield from thread.make_guest()
    for _ in range(thread.kernel.dice.randrange(2, 9)):
        yield from something(thread, handle)
    yield from thread.end_guest(handle)


def several_guests(thread: Thread) -> Steps:
    """A program that makes one guest after the other; the kernel uses their addresses again."""
    for _ in range(3):
        yield from one_guest(thread)


def guests_at_once(thread: Thread) -> Steps:
    """A program that has two guests at a time in one thread."""
    dice = thread.kernel.dice
    handles = []
    for _ in range(2):
        handles.append((yield from thread.make_guest()))  # noqa: PERF401
    for _ in range(dice.randrange(4, 12)):
        yield from something(thread, dice.choice(handles))


def many_threads() -> tuple[Program, Program]:
    """One thread makes a guest, the others convert its pages and run its vCPUs."""
    made: list[Handle] = []

    def first(thread: Thread) -> Steps:
        made.append((yield from thread.make_guest()))

    def other(thread: Thread) -> Steps:
        while not made:
            yield WAIT
        for _ in range(thread.kernel.dice.randrange(2, 8)):
            yield from something(thread, made[0])

    return first, other


def played(seed: int) -> Kernel:
    """A kernel that has run some programs; which ones, the seed decides."""
    dice = random.Random(seed)
    kernel = Kernel(seed, inplace=dice.random() < 0.4)
    comm = dice.choice(["gmem_cases", "qemu", "CPU 0/KVM", "a-12 [003] x: b", "x" * 15])
    first, other = many_threads()
    kernel.run(
        dice.choice(
            [
                [(100 * n, comm, one_guest) for n in (1, 2, 3)],
                [(100, comm, several_guests)],
                [(100, comm, guests_at_once)],
                [(100, comm, first), (101, comm, other), (102, comm, other)],
            ]
        )
    )
    return kernel


# --- spelling -------------------------------------------------------------------------------------------------------------


def seconds(t: int) -> str:
    return f"{t // 10**9:5d}.{t % 10**9 // 1000:06d}"


def tracefs(line: Line) -> str:
    return f"{line.comm:>16}-{line.tid:<7} [{line.cpu:03d}] {line.flags} {seconds(line.t)}: {line.body}"


def report(line: Line) -> str:
    """As `trace-cmd report` prints it."""
    name, text = event(line.body)
    return f"{line.comm:>16}-{line.tid:<5} [{line.cpu:03d}] {seconds(line.t)}: {name + ':':<20} {text}"


def report_latency(line: Line) -> str:
    """As `trace-cmd report -l` prints it."""
    name, text = event(line.body)
    return f"{line.comm[:8]:>8}-{line.tid:<5} {line.cpu}{line.flags} {seconds(line.t)}: {name + ':':<20} {text}"


def report_differences(line: Line) -> str:
    """As `trace-cmd report --ts-diff` prints it."""
    name, text = event(line.body)
    return f"{line.comm:>16}-{line.tid:<5} [{line.cpu:03d}] {seconds(line.t)}: (+17) {name + ':':<20} {text}"


def no_irq_info(line: Line) -> str:
    return f"{line.comm:>16}-{line.tid:<7} [{line.cpu:03d}] {seconds(line.t)}: {line.body}"


def with_tgid(line: Line) -> str:
    return (
        f"{line.comm:>16}-{line.tid:<7} ({line.tid // 100 * 100:>7}) [{line.cpu:03d}] {line.flags} {seconds(line.t)}: "
        f"{line.body}"
    )


def latency(line: Line) -> str:
    """With the option latency-format, and in a buffer that is dumped when the kernel dies."""
    mark = " +!#"[line.t // 1000 % 4]
    return f"{line.comm[:8]:>8}-{line.tid:<7} {line.cpu:3d}{line.flags} {line.t // 1000:4d}us{mark}: {line.body}"


def dumped(line: Line) -> str:
    """The same in the kernel's log."""
    return f"[{seconds(line.t + 10**9)}] {latency(line)}"


SPELLINGS = (tracefs, report, report_latency, report_differences, no_irq_info, with_tgid, latency, dumped)


def event(body: str) -> tuple[str, str]:
    """The event of a line and its text; those of system calls have other names in trace-cmd."""
    if body.startswith("sys_"):
        name, _, text = body[4:].partition(" -> ") if " -> " in body else body[4:].partition("(")
        return (f"sys_exit_{name}", text) if " -> " in body else (f"sys_enter_{name}", text.rstrip(")"))
    name, _, text = body.partition(": ")
    return name, text


def spelled(lines: list[Line], spell: Callable[[Line], str]) -> Iterator[bytes]:
    """Lines as text."""
    yield b"# tracer: nop"
    for line in lines:
        yield spell(line).encode()
