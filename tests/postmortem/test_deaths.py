"""Stories of what ends a guest without a conversion that failed: a killer, a closed guest_memfd."""

from pathlib import Path

from gmemstate.postmortem.incident import PostMortem
from tests.ingest.small_kernel import (
    FIRST_GFN,
    GMEM_PAGES,
    PAGE,
    PRIVATE,
    SHARED,
    WAIT,
    Handle,
    Kernel,
    Program,
    Steps,
    Thread,
    spelled,
    tracefs,
)
from tests.postmortem.telling import about, post_mortem_of
from tests.traces import read_lines

VICTIM = (
    "mark_victim: pid=100 comm=qemu total-vm=28628kB anon-rss=26240kB file-rss:0kB shmem-rss:840kB uid=0 "
    "pgtables=92kB oom_score_adj=0"
)
KILL = "signal_generate: sig=9 errno=0 code=128 comm=qemu pid=100 grp=1 res=0"


def report(programs: list[tuple[int, str, Program]], folder: Path) -> PostMortem:
    """What is shown of programs on a mainline kernel that has memory."""
    kernel = next(
        kernel for kernel in (ran(programs, seed) for seed in range(99)) if all(not call.errno for call in kernel.calls)
    )
    return post_mortem_of(read_lines(list(spelled(kernel.lines, tracefs)), folder))


def ran(programs: list[tuple[int, str, Program]], seed: int) -> Kernel:
    kernel = Kernel(seed, inplace=False)
    kernel.run(programs)
    return kernel


def test_a_vmm_that_the_oom_killer_kills_is_an_incident_and_no_conversion_is_blamed(tmp_path: Path) -> None:
    def program(thread: Thread) -> Steps:
        handle = yield from thread.make_guest()
        yield from thread.convert(handle, 0, GMEM_PAGES, PRIVATE)
        yield from thread.convert(handle, 0, 8, SHARED)
        thread.say("signal", KILL, "d..2.")
        yield thread.say("oom", VICTIM, "...1.")
        yield from thread.end_guest(handle)

    (incident,) = report([(100, "qemu", program)], tmp_path).incidents
    assert (incident.blame, incident.title) == ("memory shortage", "VMM killed for want of memory")
    assert "conversion" not in incident.summary
    assert [row[2] for row in incident.rows()] == ["thread 100, by the OOM killer"]
    assert "FALLOC_FL_PUNCH_HOLE" in about(incident, "Fix")
    assert "dmesg near" in about(incident, "Missing")


def test_a_kill_of_one_thread_ends_the_conversion_of_another_of_its_process(tmp_path: Path) -> None:
    """SIGKILL takes all threads; only those of one process can be inside of ioctls of one VM."""
    made: list[Handle] = []
    killed: list[bool] = []

    def leader(thread: Thread) -> Steps:
        made.append((yield from thread.make_guest()))
        while not killed:
            yield WAIT
        yield thread.say("signal", KILL, "d..2.")
        killed.append(True)

    def other(thread: Thread) -> Steps:
        while not made:
            yield WAIT
        conversion = thread.convert(made[0], 0, GMEM_PAGES, PRIVATE)
        for _ in range(4):  # its entry, the tracepoint and the first comparison
            yield next(conversion)
        killed.append(False)
        while not killed[1:]:
            yield WAIT
        yield from conversion

    def programs() -> list[tuple[int, str, Program]]:
        made.clear()
        killed.clear()
        return [(100, "qemu", leader), (101, "qemu", other)]

    for seed in range(99):
        kernel = ran(programs(), seed)
        if not kernel.calls[0].errno:
            break
    (incident,) = post_mortem_of(read_lines(list(spelled(kernel.lines, tracefs)), tmp_path)).incidents
    assert incident.title == "killed inside a conversion"
    assert "it ran to its end" in incident.summary
    assert "returned 0" in incident.summary


def test_on_mainline_only_private_pages_of_a_closed_guest_memfd_are_traps_and_shared_ones_free_the_guest(
    tmp_path: Path,
) -> None:
    def program(thread: Thread) -> Steps:
        handle = yield from thread.make_guest()
        yield from thread.convert(handle, 0, GMEM_PAGES, PRIVATE)
        gmem, kvm = handle.gmem, f"kvm={handle.vm.pointer:#x}"
        yield thread.say(
            "gmem_release", f"gmem_release: (kvm_gmem_release+0x4/0x160 [kvm]) inode={gmem.inode:#x} size={GMEM_PAGES * PAGE}"
        )
        yield thread.say(
            "gmem_inv", "gmem_inv: (__kvm_gmem_invalidate_start+0x0/0x130 [kvm]) start=0x0 end=0xffffffffffffffff filter=2"
        )
        yield thread.say(
            "unmap_gfn",
            "unmap_gfn: (__kvm_gmem_invalidate_start+0x62/0x130 [kvm] <- kvm_unmap_gfn_range) "
            f"{kvm} start={FIRST_GFN:#x} end={FIRST_GFN + GMEM_PAGES:#x} slot=10 filter=2 flush=0",
        )
        yield thread.say("syscall", f"sys_ioctl(fd: {handle.vcpu}, cmd: 0xae80, arg: 0)")
        yield thread.say(
            "run_ret",
            "run_ret: (kvm_vcpu_ioctl+0x2f1/0x9e0 [kvm] <- kvm_arch_vcpu_ioctl_run) "
            f"ret=-14 exit=39 flags=0x8 gpa={(FIRST_GFN + 3) * PAGE:#x} size=0x1000",
        )
        yield thread.back(-14)
        yield from thread.convert(handle, 0, GMEM_PAGES, SHARED)

    (incident,) = report([(100, "qemu", program)], tmp_path).incidents
    assert incident.title == "guest_memfd closed under its memslot"
    assert incident.rows()[0][2] == "private access to gfn 0x100003"
    assert "without memory for their private pages" in about(incident, "Why")
    assert "reported as shared" not in about(incident, "Why")
    assert about(incident, "Left").startswith("every private page")
    assert about(incident, "Then") == "converted to shared: gfn [0x100000,0x100020)"
