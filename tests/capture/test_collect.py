"""One archive with everything that a post-mortem needs; what is not there is said, and what is there can be read in."""

import gzip
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from capturing import collect, host, qemu
from capturing.host import Refused

from gmemstate.ingest.readers.detect import FormatDetector, proves
from tests.cli.running import PLAIN, ROOT, say
from tests.traces import capture

CAPTURE = ROOT / "tools" / "capture"
DMESG = b"[  100.000001] kvm_intel: load kvm_intel with TDX.\n[  101.000000] Memory failure: 0x1234: recovery action for dirty LRU page: Recovered\n"
JOURNAL = [
    {"_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": "Memory failure: 0x1234: recovery action for dirty LRU page: Recovered"},
    {"_TRANSPORT": "journal", "SYSLOG_IDENTIFIER": "libvirtd", "MESSAGE": "internal error", "__REALTIME_TIMESTAMP": "1764000000000000"},
    {"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "sshd", "MESSAGE": "Accepted publickey for somebody"},
]  # fmt: skip


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a kernel log and a journal."""
    monkeypatch.setattr(host, "run", lambda command: DMESG if command[0] == "dmesg" else None)
    monkeypatch.setattr(host, "lines", lambda _command: (json.dumps(record).encode() + b"\n" for record in JOURNAL))
    monkeypatch.setattr("shutil.which", lambda program: program if program == "journalctl" else None)


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {member.name: file.read() for member in tar if (file := tar.extractfile(member)) is not None}


@pytest.mark.usefixtures("logged")
def test_an_archive_holds_logs_and_what_is_asked_about_the_host(tmp_path: Path) -> None:
    """Of the journal only those who speak of VMs, and no line of the kernel a second time."""
    folder = tmp_path / "capture"
    folder.mkdir()
    (folder / "trace.txt").write_bytes(gzip.decompress(capture("half_done").read_bytes()))
    (folder / "probes.txt").write_text("conv/vm_ioctl_ret: NOT THERE: refused\n")
    (folder / "clocks.json").write_text("{}")
    (tmp_path / "qemu.log").write_text("kvm_convert_memory start 0x100000000 size 0x1000 shared_to_private\n")
    said: list[str] = []
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    collect.collect(tmp_path / "host.tar.gz", [folder, tmp_path / "qemu.log"], said.append)
    files = contents(tmp_path / "host.tar.gz")
    assert files["host/logs/kernel.log"] == DMESG
    assert [json.loads(line)["MESSAGE"] for line in files["host/logs/journal.json"].splitlines()] == ["internal error"]
    assert {
        "host/logs/trace.txt",
        "host/logs/qemu.log",
        "host/about/capture/probes.txt",
        "host/about/capture/clocks.json",
    } <= set(files)
    pairs = json.loads(files["host/about/clocks.json"])
    assert before <= float(pairs["before"]["mono"]) <= float(pairs["after"]["mono"]) <= time.clock_gettime(time.CLOCK_MONOTONIC)
    assert abs(float(pairs["after"]["real"]) - time.time()) < 60
    assert "boot_id: " + Path("/proc/sys/kernel/random/boot_id").read_text() in files["host/about/versions.txt"].decode()
    assert files["host/collected.txt"].decode().splitlines() == said[:-1]
    with tarfile.open(tmp_path / "host.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    ran = say("--db", tmp_path / "a.db", "ingest", *sorted((tmp_path / "host" / "logs").iterdir()))
    assert "gmemstate:" not in ran.err
    assert len(json.loads(say("--db", tmp_path / "a.db", "conversions", "--json").out)) >= 2


def test_what_is_not_there_is_said_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda _command: None)
    monkeypatch.setattr("shutil.which", lambda _program: None)
    said: list[str] = []
    collect.collect(tmp_path / "host.tar.gz", [], said.append)
    assert "logs/kernel.log: NOT COLLECTED: dmesg is not allowed; run it as root" in said
    assert "logs/journal.json: NOT COLLECTED: journalctl is not installed" in said


def test_two_files_of_one_name_are_both_there(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "strace.txt").write_text(folder)
    collect.collect(tmp_path / "host.tgz", [tmp_path / "a", tmp_path / "b" / "strace.txt"], lambda _line: None)
    files = contents(tmp_path / "host.tgz")
    assert sorted(files[name] for name in files if "strace" in name) == [b"a", b"b"]


def test_nothing_is_written_over_and_nothing_is_left_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host.tar.gz").write_bytes(b"mine")
    with pytest.raises(Refused, match="exists already; name another file"):
        collect.collect(tmp_path / "host.tar.gz", [], print)
    with pytest.raises(Refused, match="no such file"):
        collect.collect(tmp_path / "new.tar.gz", [tmp_path / "missing.log"], print)
    monkeypatch.setattr(collect, "_configuration", lambda _archive: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        collect.collect(tmp_path / "new.tar.gz", [], print)
    assert [path.name for path in tmp_path.iterdir()] == ["host.tar.gz"]


def test_the_program_makes_an_archive_of_this_machine_and_tells_the_next_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CAPTURE, "collect", "host.tar.gz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=PLAIN,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "host.tar.gz is complete; where gmemstate is: tar xf host.tar.gz && gmemstate ingest host/logs/*"
    )
    assert "host/about/versions.txt" in contents(tmp_path / "host.tar.gz")


def test_the_archive_itself_is_refused_with_the_command_that_unpacks_it(tmp_path: Path) -> None:
    collect.collect(tmp_path / "host.tar.gz", [], lambda _line: None)
    ran = say("--db", tmp_path / "a.db", "ingest", tmp_path / "host.tar.gz")
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == f"gmemstate: {tmp_path}/host.tar.gz: is an archive; unpack it (tar xf) and name the logs in it\n"


def test_the_trace_events_of_QEMU_are_those_that_are_read() -> None:  # noqa: N802
    """Each name begins a message that the reader knows; the options end with a log that has times."""
    for event in qemu.EVENTS:
        said = FormatDetector().parse(1, f"4711@1764000000.000001:{event} ")
        assert said is not None, event
        assert proves(said), event
    assert "-msg timestamp=on" in qemu.options()
    assert qemu.options().count("-trace ") == len(qemu.EVENTS)
