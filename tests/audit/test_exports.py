"""Exports: lossless, always the same bytes, refused where they were altered, and read in place of a ledger."""

import json
import subprocess
import sys
import sysconfig
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger, restore
from gmemstate.ledger.queries import Export
from gmemstate.model.encoding import Batch
from gmemstate.model.errors import CannotRead, UsageError
from gmemstate.model.events import EventRow
from gmemstate.store.jsonl import JsonlRecord, export
from tests.audit.questions import answers, questions
from tests.audit.verifier import ROOT, verify
from tests.cli.running import PLAIN, Ran, say
from tests.store.places import Place, conversion, guests


def exported(where: Path, to: Path) -> Path:
    with Ledger.open(where, readonly=True) as ledger, to.open("w", encoding="utf-8", newline="\n") as file:
        export(ledger.record_, file)
    return to


def test_an_export_is_lossless_and_always_the_same(original: Path, tmp_path: Path) -> None:
    first, again = exported(original, tmp_path / "a.jsonl"), exported(original, tmp_path / "b.jsonl")
    assert first.read_bytes() == again.read_bytes()
    made = tmp_path / "made.db"
    head = restore(str(made), JsonlRecord(first))
    assert exported(made, tmp_path / "c.jsonl").read_bytes() == first.read_bytes()
    with Ledger.open(original, readonly=True) as ledger:
        assert ledger.head() == head
    with Ledger.open(made) as ledger:
        assert not ledger.check().problems
    assert not Export(first).check().problems
    assert verify(first).returncode == 0


ALTERED = ("altered", "spoiled", "dropped", "twice", "cut", "goes on", "no json", "a number too large",
    "half a letter", "no hash",
           "a word", "without its end", "another size", "an event in front", "not ours", "empty")  # fmt: skip


def altered(path: Path, how: str) -> bytes:
    """An export to which something was done."""
    lines = path.read_bytes().splitlines(keepends=True)
    row, batch, end = json.loads(lines[40]), json.loads(lines[1]), json.loads(lines[-1])

    def line(content: object) -> bytes:
        return json.dumps(content).encode() + b"\n"

    changed = {
        "altered": [*lines[:40], line([*row[:6], (row[6] or 0) + 1, *row[7:]]), *lines[41:]],
        "spoiled": [*lines[:40], b"\xff\n", *lines[41:]],
        "dropped": [*lines[:40], *lines[41:]],
        "twice": [*lines[:40], lines[40], *lines[40:]],
        "cut": lines[:-1],
        "goes on": [*lines, lines[-1]],
        "no json": [*lines[:40], b"{\n", *lines[41:]],
        "a number too large": [*lines[:40], line([1 << 64, *row[1:]]), *lines[41:]],
        "half a letter": [*lines[:40], line([*row[:11], "\udc00"]), *lines[41:]],
        "no hash": [lines[0], line({**batch, "hash": "00"}), *lines[2:]],
        "a word": [*lines[:40], line(["many", *row[1:]]), *lines[41:]],
        "without its end": [*lines[:-1], lines[-1][:20]],
        "another size": [*lines[:-1], line({**end, "events": 7})],
        "an event in front": [lines[0], lines[2], *lines[1:]],
        "not ours": [b'{"gmemstate":"something"}\n', *lines[1:]],
        "empty": [lines[0]],
    }
    assert set(changed) == set(ALTERED)
    return b"".join(changed[how])


@pytest.fixture(scope="module")
def whole(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(original, tmp_path_factory.mktemp("export") / "whole.jsonl")


@pytest.mark.parametrize("how", ALTERED)
def test_an_altered_export_is_refused_with_the_line_and_nothing_is_kept(whole: Path, tmp_path: Path, how: str) -> None:
    path, where = tmp_path / "a.jsonl", tmp_path / "made.db"
    path.write_bytes(altered(whole, how))
    with pytest.raises(CannotRead, match=rf"{path}:\d+: ") as caught:
        restore(str(where), JsonlRecord(path))
    assert caught.value.data["line"] >= 1
    assert not where.exists()
    for verb in (["conversions"], ["replay"], ["status"], ["events"], ["why", "gfn:0x100004", "--guest", "vm1"]):
        ran = say("--db", path, *verb)
        assert (ran.code, ran.err.count("\n")) == (4, 1), "no verb answers from what was altered"
        assert f"a.jsonl:{caught.value.data['line']}: " in ran.err
    assert say("--db", path, "check").code in (1, 4)
    assert verify(path).returncode in (1, 4)


def test_an_import_does_not_touch_a_ledger_that_is_there(whole: Path, copy: Path) -> None:
    before = copy.read_bytes()
    with pytest.raises(UsageError, match="already"):
        restore(str(copy), JsonlRecord(whole))
    assert copy.read_bytes() == before


class Interrupted(JsonlRecord):
    """An export whose reading fails in the middle of the second time."""

    times = 0

    def sealed(self) -> Iterator[tuple[Batch, list[EventRow]]]:
        self.times += 1
        for n, sealed in enumerate(super().sealed()):
            if self.times == 2 and n == 1:
                raise CannotRead("the stick was pulled out")
            yield sealed


def test_an_import_that_is_interrupted_leaves_nothing_and_can_be_made_again(place: Place, whole: Path) -> None:
    with pytest.raises(CannotRead, match="pulled out"):
        restore(place.where, Interrupted(whole))
    with place.open() as ledger:
        assert ledger.head().seq == 0
    head = restore(place.where, JsonlRecord(whole))
    with place.open(readonly=True) as ledger:
        assert ledger.head() == head == JsonlRecord(whole).head()
        assert not ledger.check().problems


def test_an_export_of_an_empty_record_is_an_empty_record(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        assert ledger.head().seq == 0
    path = exported(tmp_path / "vm.db", tmp_path / "a.jsonl")
    assert path.read_text().count("\n") == 2
    assert restore(str(tmp_path / "made.db"), JsonlRecord(path)).seq == 0
    assert say("--db", path, "check").code == 3
    assert verify(path).returncode == 4


def test_an_export_is_never_written_over_a_file(original: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    ran = say("--db", original, "export", tmp_path / "mine")
    assert (ran.code, ran.err.count("\n")) == (4, 1)
    assert "is there already" in ran.err
    assert (tmp_path / "mine").read_text() == "mine"


def test_exporting_and_reading_an_export_hold_one_batch_at_a_time(tmp_path: Path) -> None:
    """However long the record is: ten times the events, the same memory."""
    peaks = []
    for batches in (10, 100):
        where, path = tmp_path / f"{batches}.db", tmp_path / f"{batches}.jsonl"
        with Ledger.open(where, durable=False) as ledger:
            ledger.record(*guests(1))
            for n in range(batches):
                ledger.record(*(event for k in range(20) for event in conversion(2, 16 * (n * 20 + k), reference=-1 - k)))
        tracemalloc.start()
        exported(where, path)
        for _ in JsonlRecord(path).events():
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert path.stat().st_size > batches * 2000
    assert peaks[1] < 1.2 * peaks[0] + 50_000


# --- without a database


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The surroundings of a process in which neither SQLAlchemy nor Alembic nor psycopg is installed."""
    folder = tmp_path_factory.mktemp("bare")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(("sqlalchemy", "alembic", "psycopg", "_")) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return {**PLAIN, "PYTHONPATH": f"{ROOT}:{folder}"}


def test_every_question_is_answered_from_an_export_without_sqlalchemy(
    original: Path, whole: Path, bare: dict[str, str]
) -> None:
    """Word for word as from the ledger; only what `check` has looked at is another thing."""
    lacking = subprocess.run([sys.executable, "-S", "-c", "import sqlalchemy"], capture_output=True, env=bare, check=False)
    assert b"ModuleNotFoundError" in lacking.stderr
    chosen = {words[0]: words for words in questions(original)}
    asked = [words for verb, words in chosen.items() if verb != "check"]
    asked += [["replay"], ["replay", "--steps"], ["diff", "--from", "40"]]
    done = subprocess.run(
        [sys.executable, "-S", "-c", ASKED_AT_ONCE, whole, json.dumps([*asked, ["check"], ["diff", str(whole)]])],
        capture_output=True,
        text=True,
        check=True,
        env=bare,
        cwd=whole.parent,
    )
    *said, check, same = [Ran(*ran) for ran in json.loads(done.stdout)]
    assert (check.code, same.code) == (0, 0), (check, same)
    returned = iter(said)
    assert answers(whole, asked, lambda *_: next(returned)) == answers(original, asked)


ASKED_AT_ONCE = """
import contextlib, io, json, sys
from gmemstate.cli.main import main
said = []
for words in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["--db", sys.argv[1], *words])
        except SystemExit as left:
            said.append((left.code, out.getvalue(), err.getvalue()))
print(json.dumps(said))
"""
