"""The lock of an attribute owner: whoever carries out a conversion holds it, over threads and processes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import Engine, text

from gmemstate.store.engine import explained, located

LOCKS = 0x676D
"""The first half of the advisory locks of PostgreSQL; the second is the attribute owner."""


@contextmanager
def owner_lock(engine: Engine, where: str, owner: int) -> Iterator[None]:
    """Hold the lock of an attribute owner; waits for whoever holds it. It goes with the process, however that ends.

    On SQLite it is an OS lock on a file next to the ledger, which is there only while it is held.
    """
    if engine.dialect.name == "sqlite":
        file = Path(f"{located(where)}.{owner}.lock")
        with explained(where):
            held = _locked(file)
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            os.close(held)
        return
    with explained(where), engine.connect() as connection:
        which = {"locks": LOCKS, "space": owner & 0x7FFFFFFF}
        connection.execute(text("SELECT pg_advisory_lock(:locks, :space)"), which)
        connection.commit()
        try:
            yield
        finally:
            connection.execute(text("SELECT pg_advisory_unlock(:locks, :space)"), which)
            connection.commit()


def _locked(path: Path) -> int:
    """Make and lock a file; its holder removes it, so what was waited for may be there no longer."""
    while True:
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(file).st_ino:
                return file
        os.close(file)
