"""A program that records three batches on a disk that fails at a chosen call; it runs with ``faults.c`` loaded.

Arguments: a ledger, a folder for copies of it, and the calls to fail. For each call, errno and duration of the fault it prints
a line of JSON: the copy, what was acknowledged, the error that was raised, whether the fault was met.
"""

import ctypes
import errno
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import GmemstateError
from tests.crash.rounds import copied, next_batch

shim = ctypes.CDLL(None)
BATCHES, SIZE = 3, 100
"""How many batches are recorded, and how many conversions each has: enough for a hundred writes."""


def attempt(path: Path, call: int, number: int, lasting: bool) -> dict[str, Any]:
    """Open, then record three batches and close while the disk fails once, or from then on."""
    acknowledged: list[tuple[int, str]] = []
    errors: list[str] = []
    ledger = Ledger.open(path)
    seq = ledger.head().seq
    shim.fault_at(ctypes.c_long(call), number, lasting)
    for _ in range(BATCHES):
        try:
            seq, hash_ = ledger.record(*next_batch(seq, SIZE))
            acknowledged.append((seq, hash_.hex()))
        except GmemstateError as error:
            errors.append(f"{error.code}: {error}")
    try:
        ledger.close()
    except GmemstateError as error:
        errors.append(f"{error.code}: {error}")
    met = shim.fault_calls() > call
    return {
        "copy": str(path),
        "fault": [call, errno.errorcode[number], "lasting" if lasting else "once"],
        "acknowledged": acknowledged,
        "errors": errors,
        "met": met,
        "calls": shim.fault_calls(),
    }


def main(ledger: Path, folder: Path, calls: list[int]) -> None:
    for call in calls:
        for number in (errno.EIO, errno.ENOSPC):
            for lasting in (False, True):
                path = copied(ledger, folder / f"{call}-{number}-{lasting:d}.db")
                if (child := os.fork()) == 0:
                    try:
                        print(json.dumps(attempt(path, call, number, lasting)), flush=True)
                    except BaseException:
                        traceback.print_exc()
                    os._exit(0)  # as a crash: nothing is mended at exit
                os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(word) for word in sys.argv[3].split(",")])
