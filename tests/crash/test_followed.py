"""A log that is followed by programs that are killed, again and again, ends as the record of one reading."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import DETAIL, KIND, SourceOpened, SourceRead
from tests.cli.running import GMEMSTATE, PLAIN
from tests.store.places import Place, assert_chained
from tests.traces import lines_of


def events(where: str) -> list[tuple[object, ...]]:
    """All events with all that they say, but for the name of the file; ends of readings apart."""
    with Ledger.open(where) as ledger:
        assert_chained(ledger)
        assert ledger.check().problems == ()
        rows = [row for row in ledger.record_.events() if row[KIND] != SourceRead.code]
        return [row[:DETAIL] if row[KIND] == SourceOpened.code else row for row in rows]


@pytest.mark.crash
@pytest.mark.parametrize("case", ["half_done", "ip_eagain_pin"])
def test_forty_killed_followers_have_recorded_what_one_reading_records(place: Place, tmp_path: Path, case: str) -> None:
    content = b"".join(line + b"\n" for line in lines_of(case) if not line.startswith(b"#"))
    dice, log, at = random.Random(case), tmp_path / "trace.txt", 0
    log.touch()
    for _ in range(40):
        process = subprocess.Popen(
            [*GMEMSTATE, "--db", place.where, "ingest", "--follow", log], stderr=subprocess.DEVNULL, env=PLAIN
        )
        end = time.monotonic() + dice.uniform(0, 2.5)
        with log.open("ab", buffering=0) as file:
            while time.monotonic() < end:
                step = dice.randrange(len(content) // 100)
                file.write(content[at : at + step])
                at = min(at + step, len(content))
                time.sleep(dice.uniform(0, 0.3))
        process.kill()
        process.wait()
    with log.open("ab") as file:
        file.write(content[at:])
    with place.open() as ledger:
        ledger.ingest(log)
    with Ledger.open(tmp_path / "whole.db") as ledger:
        ledger.ingest(log)
    assert events(place.where) == events(str(tmp_path / "whole.db"))
