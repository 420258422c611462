"""A PostgreSQL server of the tests' own: a private folder, a unix socket, no TCP; it ends with the session."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

WITHOUT = "GMEMSTATE_WITHOUT_POSTGRES"
OWNER = "gmemstate"
GUARDED, PASSWORD = "guarded", "sesame/op@en"
"""A role that needs its password."""

FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off")
"""What no test needs that only kills processes: the system keeps running, and so does its cache."""

MEMORY = "/dev/shm"
"""A file system in memory: databases are copied there four times as fast."""

QUIET = ("listen_addresses=", "shared_buffers=128MB", "max_connections=60")
WATCHED = """
    folder=$1; shift
    "$@" &
    read -r word; alone=$?
    kill -QUIT $!; wait
    [ $alone = 0 ] || rm -rf "$folder"
"""
"""Runs the server until it is told a line; where it is told none, because the tests were killed, nothing is left of it."""

ACCESS = f"local all {GUARDED} scram-sha-256\nlocal all all trust\n"


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``, if there is one."""
    places = [Path(found).resolve().parent for found in (shutil.which("initdb"), shutil.which("postgres")) if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if asks := shutil.which("pg_config"):
        places.append(Path(subprocess.run([asks, "--bindir"], capture_output=True, text=True, check=False).stdout.strip()))
    return next((place for place in places if (place / "initdb").is_file() and (place / "postgres").is_file()), None)


def found() -> Path:
    """The same; the test fails without it, unless somebody has decided to go without."""
    folder = binaries()
    if os.environ.get(WITHOUT) == "1":
        pytest.skip("without PostgreSQL, as wished")
    if folder is None:
        pytest.fail(
            "PostgreSQL is not tested, as initdb and postgres were found neither in PATH nor in /usr/lib/postgresql/*/bin "
            f"nor by pg_config: install its server, or set {WITHOUT}=1 to go without",
            pytrace=False,
        )
    return folder


def unprivileged() -> dict[str, Any]:
    """Arguments of subprocess: PostgreSQL refuses to run as root."""
    if os.getuid():
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@dataclass
class Server:
    """A cluster in a folder of its own; :meth:`begin` and :meth:`end` may alternate."""

    programs: Path
    folder: Path
    settings: Sequence[str] = FAST
    process: "subprocess.Popen[bytes] | None" = None
    made: int = 0
    _as: dict[str, Any] = field(default_factory=unprivileged)

    def create(self) -> None:
        """Make the cluster."""
        if self._as:
            os.chown(self.folder, self._as["user"], self._as["group"])
        command = ["initdb", "-D", "data", "-U", OWNER, "--auth=trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        self._run(command)
        (self.folder / "data" / "pg_hba.conf").write_text(ACCESS)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr

    def begin(self) -> None:
        """Start the server and wait until it answers."""
        options = [word for setting in (*QUIET, *self.settings) for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", WATCHED, "sh", self.folder, self.programs / "postgres", "-D", "data", "-k", self.folder, *options],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                **self._as,
            )
        import psycopg

        until = time.monotonic() + 60
        while True:
            try:
                return psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                alive = self.process.poll() is None and time.monotonic() < until
                assert alive, (self.folder / "log").read_text()[-2000:]
                time.sleep(0.05)

    def end(self) -> None:
        """Stop the server at once, as a crash would; what it has acknowledged it recovers when it begins again."""
        if self.process is not None:
            self.process.communicate(b"end\n", timeout=60)
            self.process = None

    def url(self, database: str, *, role: str = OWNER, password: str | None = None) -> str:
        """The URL of a database of this server."""
        who = role if password is None else f"{role}:{quote(password, safe='')}"
        return f"postgresql://{who}@/{database}?host={quote(str(self.folder), safe='')}"

    def sql(self, statement: str, *parameters: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """What another program gets that runs one statement."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def database(self, template: str = "template0") -> str:
        """A new database; the URL."""
        self.made += 1
        name = f"t{self.made}"
        strategy = "" if self.sql("SHOW server_version_num")[0][0] < "150000" else "STRATEGY FILE_COPY"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} {strategy}")
        return self.url(name)


@contextmanager
def cluster(settings: Sequence[str] = FAST) -> Iterator[Server]:
    """A server that runs inside of the context, with an empty ledger in its database ``empty``."""
    programs = found()
    # The name of a socket is limited to 107 bytes, and the folders of pytest are closed to others.
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="gmemstate-pg-", dir=memory, ignore_cleanup_errors=True) as folder:
        server = Server(programs, Path(folder), settings)
        try:
            server.create()
            server.begin()
            server.sql(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
            server.sql("CREATE DATABASE empty")
            from gmemstate.ledger.ledger import Ledger

            Ledger.open(server.url("empty")).close()
            yield server
        finally:
            server.end()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that all tests of a process share; each makes databases of its own."""
    with cluster() as running:
        yield running


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Whoever goes without PostgreSQL is told so."""
    if os.environ.get(WITHOUT) == "1":
        terminalreporter.section(f"PostgreSQL was NOT tested: {WITHOUT}=1", sep="!", red=True, bold=True)
