"""Opening a record to be asked only, wherever it lies."""

from pathlib import Path

from gmemstate.ledger.queries import Export, Queries
from gmemstate.store.jsonl import is_export


def read(where: str | Path) -> Queries:
    """Open a ledger (a path or a database URL) or an export, to be asked only; an export needs no database.

    Raises NotALedger, CannotRead.
    """
    if is_export(Path(where)):
        return Export(Path(where))
    from gmemstate.ledger.ledger import Ledger

    return Ledger.open(where, readonly=True)
