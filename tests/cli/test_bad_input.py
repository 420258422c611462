"""Bad input gets one clear line that says what to do, the right exit code, never a traceback, and nothing half stored."""

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gmemstate.cli.exits import shown
from tests.cli.running import GMEMSTATE, PLAIN, ROOT, Ran, ledger_of, put, run, say
from tests.traces import lines_of

HALF = b"\n".join(lines_of("half_done")) + b"\n"
TRACE_DAT = b"\x17\x08\x44tracing6\0\0\0\0\x10\0\0"
ACCESS = b'host - - [22/Nov/2026:10:00:00 +0000] "GET /index.html HTTP/1.1" 200 512\n'

FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; there is nothing to read"),
    "binary": (bytes(range(256)) * 40, "is binary data, not a log; gmemstate reads text (and .gz of text)"),
    "trace.dat": (TRACE_DAT + bytes(100), "is a binary trace-cmd recording"),
    "zipped.dat": (gzip.compress(TRACE_DAT + bytes(100)), "is a binary trace-cmd recording"),
    "nonsense.gz": (b"\x1f\x8bnonsense", "the gzip data is damaged or cut"),
    "empty.gz": (gzip.compress(b""), "is empty; there is nothing to read"),
    "access.txt": (ACCESS, "no line of a known format among 1; line 1 is: host - - [22/Nov/2026"),
    "prose.txt": (b"Dear kernel,\nplease help.\n", "no line of a known format among 2; line 1 is: Dear kernel,"),
    "utf16.txt": ("a trace\n".encode("utf-16"), "is text in UTF-16; gmemstate reads UTF-8: iconv -f UTF-16 -t UTF-8 "),
    "latin1.txt": ("Stra\xdfe\n".encode("latin-1"), r"line 1 is: Stra\\xdfe"),
    "one-long-line.txt": (b"x" * 3_000_000, "no line of a known format among 0"),
}


def one_line(ran: Ran, code: int) -> str:
    """The one line that a person is told; nothing else is printed."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("gmemstate: ")
    assert "Traceback" not in line
    return line


def stored(ledger: Path) -> int:
    """How many events a ledger holds, by SQL."""
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    (count,) = connection.execute("SELECT count(*) FROM event").fetchone()
    connection.close()
    return int(count)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_trace_is_refused_by_name_with_the_way_out(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    (tmp_path / name).write_bytes(content)
    line = one_line(say("--db", tmp_path / "a.db", "ingest", tmp_path / name), 4)
    assert line.startswith(f"gmemstate: {tmp_path / name}: ")
    assert said.replace("\\\\", "\\") in line
    assert stored(tmp_path / "a.db") == 0


@pytest.mark.parametrize("name", ["empty", "binary", "access.txt"])
def test_the_same_on_standard_input_is_refused_too(name: str, tmp_path: Path) -> None:
    content, said = FILES[name]
    line = one_line(run("--db", tmp_path / "a.db", "ingest", "-", given=content), 4)
    assert line.startswith("gmemstate: standard input: ")
    assert said in line


def test_a_recording_on_standard_input_is_answered_with_the_way_to_its_text(tmp_path: Path) -> None:
    line = one_line(run("--db", tmp_path / "a.db", "ingest", "-", given=FILES["trace.dat"][0]), 4)
    assert line.endswith("give its text: `trace-cmd report FILE | gmemstate ingest -`")


def test_a_header_without_entries_is_an_empty_trace(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"# tracer: nop\n#\n# entries-in-buffer/entries-written: 0/0   #P:2\n#\n")
    ran = say("--db", tmp_path / "a.db", "ingest", tmp_path / "a.txt")
    assert ran.code == 0
    assert "4 lines = 0 used + 4 context + 0 not understood" in ran.out
    assert say("--db", tmp_path / "a.db", "postmortem").code == 3


def test_a_directory_is_refused_with_what_to_name_instead(tmp_path: Path) -> None:
    line = one_line(say("--db", tmp_path / "a.db", "ingest", tmp_path), 4)
    assert line.endswith(f"is a directory; name the files in it, e.g. {tmp_path}/*.txt")


@pytest.mark.parametrize("name", ["nothing.txt", "no/such/folder.txt", "x" * 300, "\udcff.txt", "line\nbreak.txt"])
def test_a_file_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    line = one_line(say("--db", tmp_path / "a.db", "ingest", f"{tmp_path}/{name}"), 4)
    assert line.endswith("check the name and its permissions")


def test_a_closed_standard_input_is_said_to_be_closed(tmp_path: Path) -> None:
    line = one_line(run("--db", tmp_path / "a.db", "ingest", "-", shell="{} <&-"), 4)
    assert "standard input: is closed" in line


def test_a_truncated_gzip_keeps_its_whole_batches_and_is_incomplete(tmp_path: Path) -> None:
    whole = put("half_done", tmp_path)
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(whole.read_bytes()[:6000])
    ran = say("--db", tmp_path / "a.db", "ingest", cut)
    assert ran.code == 3
    assert ran.err.startswith(f"incomplete: {cut}: the gzip data is damaged or cut")
    assert ran.err.endswith("what came before it is stored\n")
    assert stored(tmp_path / "a.db") > 5
    ran = say("--db", tmp_path / "a.db", "replay")
    assert ran.code == 3
    assert "0 findings" in ran.out
    assert say("--db", tmp_path / "a.db", "postmortem").code == 3


def test_two_files_of_which_the_second_is_bad_store_the_first_only(tmp_path: Path) -> None:
    good = put("half_done", tmp_path)
    ran = say("--db", tmp_path / "a.db", "ingest", good, tmp_path / "nothing.txt")
    assert ran.code == 4
    assert ran.out.startswith(f"{good}: 76 events; ")
    assert ran.err.startswith(f"gmemstate: {tmp_path}/nothing.txt: ")
    assert stored(tmp_path / "a.db") == 76


def test_mixed_sources_are_each_answered_and_the_worst_code_counts(tmp_path: Path) -> None:
    for name in ("access.txt", "trace.dat", "empty"):
        (tmp_path / name).write_bytes(FILES[name][0])
    good = put("half_done", tmp_path)
    ran = say("--db", tmp_path / "a.db", "ingest", tmp_path / "access.txt", good, tmp_path / "trace.dat", tmp_path / "empty")
    assert ran.code == 4
    assert [line.split(": ")[1] for line in ran.err.splitlines()] == [
        f"{tmp_path}/{name}" for name in ("access.txt", "trace.dat", "empty")
    ]
    assert len(ran.out.splitlines()) == 1
    assert stored(tmp_path / "a.db") == 76


def test_lines_of_others_in_a_trace_are_counted_and_shown_and_not_lost(tmp_path: Path) -> None:
    lines = HALF.splitlines(keepends=True)
    (tmp_path / "mixed.txt").write_bytes(b"".join([*lines[:500], ACCESS, b"Dear kernel,\n", *lines[500:]]))
    ran = say("--db", tmp_path / "a.db", "ingest", tmp_path / "mixed.txt")
    assert ran.code == 0
    assert "2 not understood" in ran.out
    assert f"{tmp_path}/mixed.txt:501: not understood: host - - [22/Nov/2026" in ran.out


# --- the ledger -----------------------------------------------------------------------------------------------------


def _of_another(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()


def _newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


LEDGERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text": (lambda path: path.write_text("a trace, in error\n"), "is no SQLite database; name a ledger with --db"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a directory; name a file in it"),
    "another database": (
        lambda path: (path.unlink(), _of_another(path)),
        "is a database, but not a ledger of gmemstate; name another with --db",
    ),
    "a newer schema": (_newer, "was made by a newer gmemstate (schema 9999"),
    "a torn file": (lambda path: os.truncate(path, 5000), "restore it from a copy"),
}


@pytest.mark.parametrize("verb", ["status", "postmortem", "ingest", "rebuild"])
@pytest.mark.parametrize("what", LEDGERS)
def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(what: str, verb: str, half_done: Path, tmp_path: Path) -> None:
    spoil, said = LEDGERS[what]
    ledger = Path(shutil.copy(half_done, tmp_path))
    spoil(ledger)
    before = ledger.read_bytes() if ledger.is_file() else b""
    words = [put("half_done", tmp_path)] if verb == "ingest" else []
    line = one_line(say("--db", ledger, verb, *words), 4)
    assert line.startswith(f"gmemstate: {ledger}: ")
    assert said in line
    assert (ledger.read_bytes() if ledger.is_file() else b"") == before


@pytest.mark.parametrize("where", ["nonsense://x", "mysql://host/x", "postgresql://", "sqlite+nonsense:///x"])
def test_a_url_that_is_no_database_is_refused(where: str) -> None:
    assert where.split(":", maxsplit=1)[0].split("+", maxsplit=1)[0] in one_line(say("--db", where, "status"), 4)


def test_a_password_is_not_repeated() -> None:
    line = one_line(say("--db", "postgresql://me:secret@127.0.0.1:1/x", "status"), 4)
    assert "postgresql://127.0.0.1:1/x" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("url", "as_shown"),
    [
        ("postgresql://me:sec/ret@host/x", "postgresql://host/x"),
        ("postgresql:///x?user=me&password=secret&host=/tmp", "postgresql:///x?host=/tmp"),
    ],
)
def test_a_password_is_shown_nowhere_in_a_url(url: str, as_shown: str) -> None:
    """What the verbs that succeed say of a ledger goes the same way."""
    assert shown(f"{url}: 3 events") == f"{as_shown}: 3 events"


def test_a_ledger_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    line = one_line(say("--db", tmp_path / "no" / "a.db", "ingest", put("half_done", tmp_path)), 4)
    assert line.endswith(f"the folder {tmp_path}/no does not exist; make it first")


def unprivileged(*words: object) -> Ran:
    """Run as somebody to whom permissions apply: the superuser without the capability to pass them over."""
    # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH; who has not got them need not drop them.
    drop = "import ctypes, os, sys; [ctypes.CDLL(None).prctl(24, n) for n in (1, 2)]; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", drop, *GMEMSTATE, *map(str, words)]
    done = subprocess.run(command, capture_output=True, env=PLAIN, cwd=ROOT, timeout=120, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def test_a_folder_that_cannot_be_written_is_read_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    ledger, trace = ledger_of(folder, "half_done"), put("enomem", tmp_path)
    page = folder / "page.html"
    ledger.chmod(0o444)
    folder.chmod(0o555)
    try:
        assert unprivileged("--db", ledger, "status").code == 0
        assert "its folder cannot be written" in one_line(unprivileged("--db", folder / "new.db", "ingest", trace), 4)
        refused = unprivileged("--db", ledger, "ingest", trace)
        assert (refused.code, len(refused.err.splitlines())) == (4, 1)
        told = unprivileged("--db", ledger, "postmortem", "--html", page)
        assert told.code == 4
        assert told.err == f"gmemstate: {page}: Permission denied; name a file in a folder that can be written\n"
        assert told.out.startswith("VMM: PARTLY APPLIED")
    finally:
        folder.chmod(0o755)
    assert stored(ledger) == 76


def test_a_trace_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    trace = put("half_done", tmp_path)
    trace.chmod(0)
    assert "Permission denied; check the name and its permissions" in one_line(
        unprivileged("--db", tmp_path / "a.db", "ingest", trace), 4
    )


# --- where the answer goes ------------------------------------------------------------------------------------------


def test_a_full_disk_is_said_in_one_line(half_done: Path) -> None:
    line = one_line(run("--db", half_done, "events", shell="{} >/dev/full"), 4)
    assert "No space left on device" in line


def test_a_reader_who_has_had_enough_is_no_failure(half_done: Path) -> None:
    ran = run("--db", half_done, "events", "--json", shell="{} | head -n 1; exit ${PIPESTATUS[0]}")
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) == 1


def test_a_closed_output_is_no_traceback(half_done: Path) -> None:
    ran = run("--db", half_done, "status", shell="{} >&-")
    assert (ran.code, ran.err) == (0, "")
