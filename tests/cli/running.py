"""Running the command line: in this process where only its words matter, else as a process, in a pipe or on a terminal."""

import contextlib
import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from gmemstate.cli.main import main
from tests.traces import capture

ROOT = Path(__file__).parents[2]
PLAIN = {
    **{
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GMEMSTATE", "NO_COLOR", "FORCE_COLOR", "COLUMNS"))
    },
    "PYTHONPATH": str(ROOT),
    "PYTHONWARNINGS": "error",
    "TERM": "xterm-256color",
}
GMEMSTATE = (sys.executable, "-m", "gmemstate")


class Ran(NamedTuple):
    """What came of a command."""

    code: int
    out: str
    err: str


def say(*words: object) -> Ran:
    """Run a command in this process, as in a pipe."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert isinstance(left.value.code, int)
    return Ran(left.value.code, out.getvalue(), err.getvalue())


def run(*words: object, given: bytes = b"", shell: str | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run a command as a process in a pipe; ``shell`` may redirect its streams (``{} >/dev/full``)."""
    command: Sequence[str] = [*GMEMSTATE, *map(str, words)]
    if shell is not None:
        command = ["bash", "-c", shell.replace("{}", '"$@"'), "bash", *command]
    done = subprocess.run(command, input=given, capture_output=True, env={**PLAIN, **(env or {})}, timeout=120, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def on_terminal(
    *words: object,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
    out: bool = True,
    given: Sequence[bytes] = (),
    after: float = 0,
) -> Ran:
    """Run a command on a terminal: standard error, and if ``out`` is set standard output, are that (both in ``err``).

    ``given`` is fed to standard input in pieces, each so many seconds ``after`` the one before was taken.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*GMEMSTATE, *map(str, words)],
        stdin=subprocess.PIPE, stdout=follower if out else subprocess.PIPE, stderr=follower, env={**PLAIN, **(env or {})},
    )  # fmt: skip
    os.close(follower)
    shown: list[bytes] = []
    reader = threading.Thread(target=_read_all, args=(leader, shown))
    reader.start()
    assert process.stdin is not None
    for n, piece in enumerate(given):
        threading.Event().wait(after if n else 0)
        process.stdin.write(piece)
        process.stdin.flush()
    process.stdin.close()
    plain = process.stdout.read() if process.stdout is not None else b""
    process.wait(timeout=120)
    reader.join(timeout=120)
    os.close(leader)
    if process.stdout is not None:
        process.stdout.close()
    return Ran(process.returncode, plain.decode(), b"".join(shown).decode().replace("\r\n", "\n"))


def _read_all(leader: int, shown: list[bytes]) -> None:
    """Read a terminal until its other side is closed (which Linux reports as an error)."""
    with contextlib.suppress(OSError):
        while data := os.read(leader, 65536):
            shown.append(data)


def put(case: str, folder: Path) -> Path:
    """Put the trace of a case into a folder, under the name of the case."""
    path = folder / f"{case}.txt.gz"
    shutil.copyfile(capture(case), path)
    return path


def ledger_of(folder: Path, *cases: str) -> Path:
    """A ledger of some cases in a folder, read one after the other."""
    where = folder / f"{'-'.join(cases)}.db"
    for case in cases:
        assert say("--db", where, "ingest", put(case, folder)).code in (0, 3)
    return where
