"""The first answer to logs as people bring them: what failed is never shown as nothing, what is not shown stays unknown."""

from pathlib import Path

import pytest

from gmemstate.conclusions.guests import Guests
from gmemstate.conclusions.host import MayStart
from tests.postmortem.test_host_pages import advice, read, text

# --- system calls without anything from inside of them ----------------------------------------------------------------

STRACE = (
    "4455 10:11:22.300000 ioctl(11<anon_inode:kvm-vm>, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffd11223340 <unfinished ...>",
    "4455 10:11:22.301000 <... ioctl resumed>) = -1 ENOMEM (Cannot allocate memory)",
)
PERF = (
    "       CPU 0/KVM    4456 [003]  8123.100300:           syscalls:sys_enter_ioctl: fd: 0x0000000b, cmd: "
    "0x4020aed2, arg: 0x7ffd11223340",
    "       CPU 0/KVM    4456 [003]  8123.100400:            syscalls:sys_exit_ioctl: 0xfffffffffffffff4",
)
PERF_RAW = (
    "       CPU 0/KVM    4456 [003]  8123.100300:               raw_syscalls:sys_enter: NR 16 (b, 4020aed2, "
    "7ffd11223340, 0, 0, 0)",
    "       CPU 0/KVM    4456 [003]  8123.100400:                raw_syscalls:sys_exit: NR 16 = -12",
)
TRACE_CMD = (
    "cpus=2",
    "       CPU 0/KVM-4456  [003]  8123.100300: sys_enter_ioctl:      fd: 0x0000000b, cmd: 0x4020aed2, arg: 0x7ffd11223340",
    "       CPU 0/KVM-4456  [003]  8123.100400: sys_exit_ioctl:       0xfffffffffffffff4",
)


@pytest.mark.parametrize("lines", [STRACE, PERF, PERF_RAW, TRACE_CMD], ids=["strace", "perf", "perf raw", "trace-cmd"])
def test_a_failed_call_without_its_range_is_a_failure_all_the_same(tmp_path: Path, lines: tuple[str, ...]) -> None:
    """Its errno is shown, its range and the guest are not known, and nothing is said of which kind was asked for."""
    _, incidents = read(tmp_path, *lines)
    (incident,) = incidents
    assert (incident.blame, incident.title) == ("memory shortage", "not applied")
    ((_, _, what, result, took),) = incident.rows()
    assert (what, result) == ("range not known", "ENOMEM")
    assert took in ("1 ms", "100 us")
    assert "guest not known" in incident.who
    assert "no source shows" in incident.summary
    assert not incident.complete


def test_refusals_without_a_range_are_not_said_to_be_of_one_page(tmp_path: Path) -> None:
    """What was asked again, and whether it went well, is not known: a later success may be of other pages."""
    call = "4455 10:11:22.{}00000 ioctl(12<anon_inode:[kvm-gmem]>, KVM_SET_MEMORY_ATTRIBUTES2, 0x7ffd11223340) = {}"
    refused = "-1 EAGAIN (Resource temporarily unavailable)"
    _, (incident,) = read(tmp_path, call.format(1, refused), call.format(2, refused), call.format(3, "0"))
    assert incident.title == "not applied"
    assert "2 requests were refused with EAGAIN" in incident.summary
    assert "whether it was asked for again with success, no source shows" in incident.summary
    assert "none was repeated" not in text(incident)


def test_eio_is_the_end_of_a_vm_and_no_mistake_in_the_call(tmp_path: Path) -> None:
    """Mending the call would not help: KVM refuses all calls of a VM that is dead or bugged."""
    _, (incident,) = read(tmp_path, STRACE[0], "4455 10:11:22.301000 <... ioctl resumed>) = -1 EIO (Input/output error)")
    assert (incident.blame, incident.title, incident.complete) == ("unknown", "refused before the argument checks", False)
    assert "mend the call" not in text(incident)
    assert "what ended the VM" in text(incident)


def test_a_call_that_probes_have_shown_is_reported_once(tmp_path: Path) -> None:
    """Where probes show what is inside of the calls, a call of the same number on another file is no conversion."""
    where = "  qemu-4456  [003] .....  8123.1003"
    history, _ = read(
        tmp_path,
        where + "00: sys_ioctl(fd: 11, cmd: 0x4020aed2, arg: 0x7ffd11223340)",
        where + "10: vm_ioctl: (kvm_vm_ioctl+0x4/0x1d40 [kvm]) file=0xffff888100b23840 cmd=0x4020aed2 addr=0x100000000 "
        "size=0x2000 attrs=0x8 flags=0x0",
        where + "20: vm_ioctl_ret: ([unknown/kretprobe'd] <- kvm_vm_ioctl) cmd=0x4020aed2 ret=-12 addr=0x100000000 size=0x2000 "
        "attrs=0x8 kvm=0xffff888100a06000",
        where + "30: sys_ioctl -> 0xfffffffffffffff4",
        where + "40: sys_ioctl(fd: 6, cmd: 0x4020aed2, arg: 0x7ffd11223340)",
        where + "50: sys_ioctl -> 0xffffffffffffffea",
    )
    assert [(one.start, one.result) for one in history.ordered()] == [(0x100000, 12)]


def test_a_file_that_has_no_such_ioctl_is_asked_for_no_conversion(tmp_path: Path) -> None:
    """ENOTTY of a bare system call says that the file was another."""
    history, _ = read(tmp_path, PERF[0], PERF[1].replace("fff4", "ffe7"))
    assert history.ordered() == []


# --- kernels ------------------------------------------------------------------------------------------------------------


def test_a_leaf_in_brackets_is_the_same_leaf(tmp_path: Path) -> None:
    plain = "[ 8123.100111] kvm_intel: SEAMCALL TDH_MEM_RANGE_BLOCK failed: 0x8000020000000081"
    (tmp_path / "plain").mkdir()
    (tmp_path / "brackets").mkdir()
    _, (one,) = read(tmp_path / "plain", plain)
    _, (other,) = read(tmp_path / "brackets", plain.replace("TDH_MEM_RANGE_BLOCK", "(TDH_MEM_RANGE_BLOCK)"))
    assert text(one) == text(other)


@pytest.mark.parametrize(
    "line", ["SEAMCALL 29 has failed, st 0xc0000b0d", "SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d000000011111"]
)
def test_a_seamcall_that_nobody_can_read_leaves_the_host_in_doubt(tmp_path: Path, line: str) -> None:
    """A shortened line is no proof that nothing happened: whose fault is unknown, and so is what may be started."""
    history, (incident,) = read(tmp_path, f"[ 8123.100111] kvm_intel: {line}")
    assert (incident.blame, incident.complete) == ("unknown", False)
    assert line in incident.summary
    assert advice(history)[Guests.TDX] is MayStart.UNKNOWN
    assert advice(history)[Guests.PLAIN] is MayStart.UNKNOWN


MAIL = (
    "> [ 8123.100111] kvm_intel: SEAMCALL",
    "> TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x8000000123400780,",
    "> level_state 0x401",
)


def test_a_line_that_a_mail_has_broken_is_reported_as_not_whole(tmp_path: Path) -> None:
    history, (incident,) = read(tmp_path, *MAIL)
    assert (incident.blame, incident.title, incident.complete) == ("unknown", "failed, in a line that is not whole", False)
    assert "journalctl -k" in text(incident)
    assert advice(history)[Guests.TDX] is MayStart.UNKNOWN


def test_a_broken_line_of_the_rmp_leaves_snp_in_doubt(tmp_path: Path) -> None:
    history, (incident,) = read(tmp_path, "> [ 5000.123456] SEV-SNP: RMPUPDATE failed for PFN", "> 1a2b3c, pg_level: 1, ret: 3")
    assert incident.title == "failed, in a line that is not whole"
    assert advice(history)[Guests.SNP] is MayStart.UNKNOWN


GUEST = (
    "[    0.000000] tdx: Guest detected",
    "[  112.223340] ------------[ cut here ]------------",
    "[  112.223341] CPA VMM failure to convert memory (addr=00000000d1c2b3a4, numpages=512) to shared: -5",
    "[  112.223350] WARNING: CPU: 2 PID: 91 at arch/x86/mm/pat/set_memory.c:2164 __set_memory_enc_pgtable+0x1a0/0x1c0",
    "[  112.223360] ---[ end trace 0000000000000000 ]---",
)


def test_a_guest_that_could_not_convert_says_so_and_not_who_refused(tmp_path: Path) -> None:
    _, incidents = read(tmp_path, *GUEST)
    assert {(incident.blame, incident.title) for incident in incidents} == {("unknown", "guest's conversion failed")}
    assert "512 pages could not be made shared (-5)" in incidents[0].summary
    assert all(incident.missing for incident in incidents)


def test_the_warning_alone_is_not_called_unrelated(tmp_path: Path) -> None:
    _, (incident,) = read(tmp_path, *GUEST[3:])
    assert incident.title == "guest's conversion failed"
    assert "__set_memory_enc_pgtable" in incident.summary


@pytest.mark.parametrize(
    "line",
    [
        "tdx: Guest detected",
        "Memory Encryption Features active: AMD SEV SEV-ES SEV-SNP",
        "Memory Encryption Features active: Intel TDX",
    ],
)
def test_the_log_of_a_guest_says_nothing_of_its_host(tmp_path: Path, line: str) -> None:
    """It names no messed-up page of the host, and is no proof that there is none."""
    history, incidents = read(
        tmp_path, f"[    0.000000] {line}", "[    1.000000] virtio_blk virtio1: [vda] 41943040 512-byte logical blocks"
    )
    assert incidents == []
    assert set(advice(history).values()) == {MayStart.UNKNOWN}


def test_a_host_with_memory_encryption_of_its_own_is_a_host(tmp_path: Path) -> None:
    history, _ = read(
        tmp_path,
        "[    0.000000] Memory Encryption Features active: AMD SME",
        "[    1.000000] ------------[ cut here ]------------",
    )
    assert set(advice(history).values()) == {MayStart.UNKNOWN}


FAULT = (
    "[  100.000001] BUG: unable to handle page fault for address: ff11000137d4a000",
    "[  100.000002] #PF: supervisor write access in kernel mode",
    "[  100.000003] #PF: error_code(0x80000003) - RMP violation",
    "[  100.000004] PGD 12345067 P4D 12346067 PUD 1234 PMD 1234 PTE 8000000137d4a163",
)
ENTRY = "[  100.000005] SEV-SNP: PFN 0x137d4a, RMP entry: "


@pytest.mark.parametrize(
    ("entry", "title"),
    [
        ((), "host write refused by the RMP"),
        ((ENTRY + "[0x0000000000000001 - 0x0000000000000005]",), "host wrote to a page of the firmware"),
        ((ENTRY + "[0x4008000001f00001 - 0x000000000000001f]",), "host wrote to a guest's page"),
    ],
)
def test_a_host_that_must_be_rebooted_is_not_called_well(tmp_path: Path, entry: tuple[str, ...], title: str) -> None:
    """Whoever owns the page that the host wrote to, the post-mortem and the advice on the host agree."""
    history, (incident,) = read(tmp_path, *FAULT, *entry)
    assert incident.title == title
    assert "reboot" in text(incident)
    assert advice(history) == {Guests.PLAIN: MayStart.UNKNOWN, Guests.TDX: MayStart.UNKNOWN, Guests.SNP: MayStart.UNKNOWN}


POISON = "Nov 28 03:11:22 host7 kernel: Memory failure: 0x8a3f21: recovery action for "


def test_the_usual_end_of_a_page_of_a_guest_memfd_is_called_usual(tmp_path: Path) -> None:
    _, (incident,) = read(tmp_path, POISON + "dirty unevictable LRU page: Failed")
    assert "MF_DELAYED" in text(incident)
    assert "out of use for good" in text(incident)
    assert [(lines.first, lines.last) for lines in incident.evidence] == [(1, 1)]


@pytest.mark.parametrize("action", ["free buddy page: Failed", "huge page: Failed"])
def test_another_failed_recovery_is_not_taken_for_the_usual_end(tmp_path: Path, action: str) -> None:
    """Pages of guest_memfds are unevictable; of others "Failed" means nothing good."""
    _, (incident,) = read(tmp_path, POISON + action)
    assert "MF_DELAYED" not in text(incident)
    assert action in text(incident)


def test_a_page_that_the_kernel_could_not_take_away_may_be_in_use_still(tmp_path: Path) -> None:
    """Also where lines about its neighbours say something else."""
    _, (incident,) = read(
        tmp_path, POISON + "reserved kernel page: Ignored", POISON.replace("f21", "f22") + "dirty LRU page: Recovered"
    )
    shown = text(incident)
    assert "out of use for good" not in shown
    assert "put out of use" not in shown
    assert '"reserved kernel page: Ignored"' in shown
    assert "dirty LRU page: Recovered" in shown
    assert "find out whether a guest_memfd holds the page" in shown


def test_an_entry_that_is_no_leaf_is_not_called_missing(tmp_path: Path) -> None:
    failed = "[ 9123.456789] kvm_intel: SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001"
    _, (incident,) = read(tmp_path, failed + ", entry 0x8000000123400700, level_state 0x401")
    assert "the pfn: the entry that is printed is no leaf and names no page" in incident.missing
