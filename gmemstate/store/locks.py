"""The lock of a space: whoever carries out a conversion holds it, over threads and processes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import Engine, text

from gmemstate.store.database import explained

LOCKS = 0x676D
"""The first half of the advisory locks of PostgreSQL; the second is the space."""


@contextmanager
def space_lock(engine: Engine, where: str, space: int) -> Iterator[None]:
    """Hold the lock of a space; waits for whoever holds it. It goes with the process, however that ends.

    On SQLite it is an OS lock on a file beside the ledger, which is there only while it is held.
    """
    if engine.dialect.name == "sqlite":
        with explained(where):
            held = _locked(f"{engine.url.database}.{space}.lock")
        try:
            yield
        finally:
            os.close(held)
        return
    with explained(where), engine.connect() as connection:
        which = {"locks": LOCKS, "space": space & 0x7FFFFFFF}
        connection.execute(text("SELECT pg_advisory_lock(:locks, :space)"), which)
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:locks, :space)"), which)
            connection.commit()


def _locked(path: str) -> int:
    """Lock a file and take its name away again: the next one makes its own, unless it waits for this one already."""
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)
