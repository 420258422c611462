"""The page on the format of a record: its example is a real one, and enough for a reader that was written from the page."""

import hashlib
import json
import re
from pathlib import Path

import gmemstate
from gmemstate.store.jsonl import JsonlRecord
from tests.audit.verifier import verify
from tests.model.batch import decode

PAGE = (Path(gmemstate.__file__).parent / "docs" / "record.md").read_text(encoding="utf-8")
EXAMPLE = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?:^    .*\n)+", PAGE.partition("## An example")[2], re.M)]


def test_the_example_is_an_export_that_every_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "example.jsonl"
    path.write_text(EXAMPLE[0], encoding="utf-8")
    assert [len(rows) for _, rows in JsonlRecord(path).sealed()] == [1, 1]
    assert verify(path).returncode == 0


def test_the_bytes_of_the_example_are_those_that_were_hashed() -> None:
    data = bytes.fromhex(EXAMPLE[1])
    batch, row = (json.loads(line) for line in EXAMPLE[0].splitlines()[3:5])
    assert hashlib.sha256(data).hexdigest() == batch["hash"]
    assert decode(data[18 + 32 + 24 :], 2) == [(2, *row)]
