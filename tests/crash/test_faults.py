"""A disk that fails: a clear error, the ledger opens again, and what was acknowledged is there."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.crash.faulty import BATCHES, SIZE
from tests.crash.rounds import Acknowledged, assert_recovered, next_batch
from tests.store.places import ROOT

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.fail("failing disks are not tested, as there is no C compiler: install gcc", pytrace=False)
    library = tmp_path_factory.mktemp("shim") / "faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


def attempts(shim: Path, tmp_path: Path, calls: Iterable[int]) -> list[dict[str, Any]]:
    ledger = tmp_path / "good"
    with Ledger.open(ledger) as made:
        seq = 0
        for _ in range(2):
            seq = made.record(*next_batch(seq)).seq
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash.faulty", ledger, tmp_path, ",".join(str(call) for call in calls)],
        env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_survived(attempt: dict[str, Any]) -> None:
    *_, (seq, hash_) = [(5, None), *attempt["acknowledged"]]
    if attempt["met"] and not attempt["errors"]:
        assert seq == 5 + 2 * BATCHES * SIZE, attempt  # a fault that SQLite can do without, such as one of its index in memory
    for error in attempt["errors"]:
        assert error.startswith("cannot-write: "), attempt
        assert "\n" not in error
    with Ledger.open(attempt["copy"], readonly=True) as ledger:
        hash_ = hash_ or next(batch.hash.hex() for batch in ledger.record_.batches() if batch.last == 5)
    assert_recovered(attempt["copy"], Acknowledged(seq, bytes.fromhex(hash_)), SIZE)


def swept(shim: Path, tmp_path: Path, calls: Iterable[int]) -> list[dict[str, Any]]:
    """All faults at these calls; those that were met."""
    found = attempts(shim, tmp_path, calls)
    for attempt in found:
        assert_survived(attempt)
    return [attempt for attempt in found if attempt["met"]]


def test_a_disk_that_fails_at_some_call_loses_nothing(shim: Path, tmp_path: Path) -> None:
    met = swept(shim, tmp_path, [0, 2, 5, 20, 60])
    assert len(met) == 20
    assert sum(bool(attempt["errors"]) for attempt in met) > 10


@pytest.mark.crash
def test_a_disk_that_fails_at_each_of_a_hundred_calls_loses_nothing(shim: Path, tmp_path: Path) -> None:
    met = swept(shim, tmp_path, range(100))
    assert len(met) == 400
    assert sum(bool(attempt["errors"]) for attempt in met) > 200
