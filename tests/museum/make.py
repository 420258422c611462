"""Puts a ledger of today's schema into the museum, if there is none yet: `python -m tests.museum.make`."""

import contextlib
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

from gmemstate.ledger.ledger import Ledger
from gmemstate.store.schema import HEAD
from tests.traces import capture
from tests.views import conversions, messed_up

MUSEUM = Path(__file__).parent
CASES = ("half_done", "ip_hwpoison_shared")


def facts(ledger: Ledger) -> dict[str, Any]:
    """What no later version may see otherwise."""
    head = ledger.head()
    return {
        "events": head.seq,
        "head": head.hash.hex(),
        "batches": [[batch.first, batch.size, batch.recorded] for batch in ledger.record_.batches()],
        "conversions": [
            [c["id"], c["guest"], c["start"], c["end"], c["to"], c["errno"]] for c in conversions(ledger.history())
        ],
        "messed up": [[m["cause"], m["pfn"], m["guest"], m["gfn"]] for m in messed_up(ledger.moment())],
    }


def make() -> None:
    """Two captures, recorded by the code that is here."""
    piece = MUSEUM / f"{HEAD}.db.gz"
    if piece.exists():
        raise SystemExit(f"{piece} is there already; what is in the museum stays as it is")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        where = Path("vm.db")
        for case in CASES:
            Path(f"{case}.txt.gz").write_bytes(capture(case).read_bytes())
        with Ledger.open(where) as ledger:
            ledger.ingest(*(f"{case}.txt.gz" for case in CASES))
            known = facts(ledger)
        piece.write_bytes(gzip.compress(where.read_bytes(), mtime=0))
    (MUSEUM / f"{HEAD}.json").write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make()
