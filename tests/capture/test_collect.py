"""One archive with everything that a post-mortem needs; what is not there is said, and what is there can be read in."""

import gzip
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import IO, BinaryIO

import pytest
from capturing import collect, host, qemu
from capturing.host import Refused

from gmemstate.ingest.readers.detect import FormatDetector, proves
from tests.cli.running import PLAIN, ROOT, say
from tests.traces import capture

CAPTURE = ROOT / "tools" / "capture"
DMESG = (
    b"[  100.000001] kvm_intel: load kvm_intel with TDX.\n[  101.000000] Memory failure: 0x1234: recovery action for "
    b"dirty LRU page: Recovered\n"
)
JOURNAL = [
    {"_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel",
        "MESSAGE": "Memory failure: 0x1234: recovery action for dirty LRU page: Recovered"},
    {"_TRANSPORT": "journal", "SYSLOG_IDENTIFIER": "libvirtd", "MESSAGE": "internal error",
        "__REALTIME_TIMESTAMP": "1764000000000000"},
    {"_TRANSPORT": "syslog", "SYSLOG_IDENTIFIER": "sshd", "MESSAGE": "Accepted publickey for somebody"},
]  # fmt: skip


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with a kernel log and a journal."""
    monkeypatch.setattr(host, "run", lambda command: DMESG if command[0] == "dmesg" else None)
    monkeypatch.setattr(host, "lines", lambda _command: (json.dumps(record).encode() + b"\n" for record in JOURNAL))
    monkeypatch.setattr("shutil.which", lambda program, path=None: program if program == "journalctl" else None)


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
    assert len(json.loads(say("--db", tmp_path / "a.db", "conversions", "--json").out)["rows"]) >= 2


def test_what_is_not_there_is_said_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "run", lambda _command: None)
    monkeypatch.setattr("shutil.which", lambda _program, path=None: None)
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


# --- what it must not do as root


def test_links_are_neither_followed_nor_written_through(tmp_path: Path) -> None:
    """Whoever may write into the folders given may not have other people's files packed, nor written over."""
    secret, folder = tmp_path / "secret", tmp_path / "capture"
    secret.write_text("not for others")
    folder.mkdir()
    (folder / "trace.txt").symlink_to(secret)
    (folder / "logs").symlink_to(tmp_path)
    said: list[str] = []
    collect.collect(tmp_path / "host.tar.gz", [folder], said.append)
    assert not any(b"not for others" in content for content in contents(tmp_path / "host.tar.gz").values())
    assert any(line.startswith("logs/trace.txt: NOT COLLECTED: ") for line in said)
    with pytest.raises(Refused, match="is a link; name what it points to"):
        collect.collect(tmp_path / "other.tar.gz", [folder / "trace.txt"], print)
    (tmp_path / "planted.tar.gz").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused, match="exists already"):
        collect.collect(tmp_path / "planted.tar.gz", [], print)
    assert not (tmp_path / "nowhere").exists()


def test_an_archive_is_for_its_owner_only_and_leaves_no_folder_behind(tmp_path: Path) -> None:
    collect.collect(tmp_path / "host.tar.gz", [], lambda _line: None)
    assert (tmp_path / "host.tar.gz").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["host.tar.gz"]


def test_a_log_that_is_shortened_while_it_is_copied_is_said_to_be_short_and_the_archive_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "qemu.log"
    log.write_bytes(b"x" * 3_000_000)
    whole = collect._copy

    def shortened(file: BinaryIO, to: IO[bytes], size: int) -> int:
        log.write_bytes(b"")
        return whole(file, to, size)

    monkeypatch.setattr(collect, "_copy", shortened)
    said: list[str] = []
    collect.collect(tmp_path / "host.tar.gz", [log], said.append)
    assert contents(tmp_path / "host.tar.gz")["host/logs/qemu.log"] == b""
    assert any("logs/qemu.log: 0 bytes, of 3000000: it was shortened while it was copied" in line for line in said)


def test_a_pipe_among_the_files_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    said: list[str] = []
    collect.collect(tmp_path / "host.tar.gz", [tmp_path / "log"], said.append)
    assert f"logs/log: NOT COLLECTED: {tmp_path}/log: is no plain file" in said


def test_names_that_are_no_text_or_would_move_the_cursor_are_escaped_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "logs of today"
    folder.mkdir()
    for name in (b"escape-\x1b[2J.log", b"latin-\xe4.log"):
        (Path(os.fsdecode(bytes(folder) + b"/" + name))).write_text("here")
    said: list[str] = []
    collect.collect(tmp_path / "host.tar.gz", [folder], said.append)
    assert all(line.isprintable() for line in said)
    assert [
        content for name, content in contents(tmp_path / "host.tar.gz").items() if "/logs/e" in name or "/logs/l" in name
    ] == [b"here", b"here"]


@pytest.mark.parametrize("name", [".tar.gz", "..tar.gz", "my host.tar.gz"])
def test_no_name_in_an_archive_is_absolute_and_the_advice_can_be_pasted(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, CAPTURE, "collect", name], cwd=tmp_path, capture_output=True, text=True, check=True, env=PLAIN
    )
    with tarfile.open(tmp_path / name) as tar:
        assert not [one.name for one in tar if one.name.startswith(("/", "."))]
    command = done.stderr.splitlines()[-1].partition("where gmemstate is: ")[2].partition(" && ")[0]
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)


def test_programs_are_taken_from_the_folders_of_the_system_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "dmesg"
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    planted.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    host.run(["dmesg"])
    assert not (tmp_path / "ran").exists()
