"""Each verb says, word for word, what lies beside this module. To renew it: ``GMEMSTATE_RENEW=1 pytest
tests/cli/test_golden.py``.

A file of `golden/` holds a command, what it prints, what it says to the person (behind ``2>``) and its exit code. After a
renewal, read the difference: it is what users will see.
"""

import os
import re
import shlex
from pathlib import Path

import pytest

from tests.cli.running import Ran, put, say

GOLDEN = Path(__file__).parent / "golden"
CASES = ("half_done", "ip_hwpoison_shared")
QUESTIONS = {
    "conversions": "conversions",
    "requests": "requests",
    "state": "state",
    "state-range": "state 0x100000+4",
    "state-at": "state --at 60",
    "messed-up": "messed-up",
    "events": "events",
    "events-kind": "events --kind convert_returned",
    "status": "status",
    "replay": "replay",
    "postmortem": "postmortem",
}
ALONE = {
    "demo": "demo",
    "machine-table": "machine messed-up",
    "machine-dot": "machine messed-up --as dot",
    "machine-mermaid": "machine messed-up --as mermaid",
    "machine-json": "machine messed-up --json",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the traces and a ledger of each."""
    found = tmp_path_factory.mktemp("golden")
    for case in CASES:
        put(case, found)
        assert say("--db", found / f"{case}.db", "ingest", found / f"{case}.txt.gz").code == 0
    return found


def transcript(command: str, ran: Ran) -> str:
    """What a person sees, without what differs between runs: hashes that cover the time of recording, and folders."""
    errors = "".join(f"2> {line}\n" for line in ran.err.splitlines())
    said = re.sub(r"\b[0-9a-f]{64}\b", "<hash>", f"{ran.out}{errors}")
    return f"$ gmemstate {command}\n{said.replace(str(Path.cwd()), '<here>')}exit {ran.code}\n"


def compare(name: str, command: str) -> None:
    """Run a command where the traces are and compare what it says with its file."""
    path = GOLDEN / f"{name}.txt"
    said = transcript(command, say(*shlex.split(command)))
    if os.environ.get("GMEMSTATE_RENEW"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(said, encoding="utf-8")
    assert said == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_word_for_word_what_it_was(
    case: str, question: str, form: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    json = " --json" if form == "json" else ""
    compare(f"{case}/{question}-{form}", f"--db {case}.db {QUESTIONS[question]}{json}")


@pytest.mark.parametrize("name", ALONE)
def test_what_needs_no_ledger_is_word_for_word_what_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    compare(name, ALONE[name])


def test_reading_twice_and_rebuilding_say_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    put("half_done", tmp_path)
    compare("ingest-text", "--db a.db ingest half_done.txt.gz")
    compare("ingest-again", "--db a.db ingest half_done.txt.gz")
    compare("ingest-json", "--db b.db ingest half_done.txt.gz --json")
    compare("rebuild", "--db a.db rebuild")


def test_no_golden_file_is_left_over() -> None:
    expected = {f"{case}/{question}-{form}" for case in CASES for question in QUESTIONS for form in ("text", "json")}
    expected |= {*ALONE, "ingest-text", "ingest-again", "ingest-json", "rebuild"}
    assert {str(path.relative_to(GOLDEN).with_suffix("")) for path in GOLDEN.rglob("*.txt")} == expected
