"""Whether a record can be relied on: check and its codes, the second verifier, exports, and the reasons for a page."""

import json
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gmemstate.answers import Exported
from gmemstate.audit.check import CODES, Checked, Checkpoint
from gmemstate.audit.diff import between, divergence
from gmemstate.audit.steps import steps
from gmemstate.audit.why import Spot, facts, find_spot, why
from gmemstate.jsonl import JsonlRecord, export
from gmemstate.ledger import Ledger, restore
from gmemstate.model.errors import CannotRead, GmemstateError, UsageError
from gmemstate.model.memory import Memory
from tests.traces import capture

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two captures in many batches."""
    where = tmp_path_factory.mktemp("trust") / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        ledger.ingest(capture("ip_eagain_pin"))
    return where


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    where = tmp_path / "copy.db"
    where.write_bytes(original.read_bytes())
    return where


def tamper(where: Path, *statements: str) -> None:
    """What somebody does who can write the file and knows SQL."""
    connection = sqlite3.connect(where)
    for name in (
        "event_no_update",
        "event_no_delete",
        "event_no_replace",
        "batch_no_update",
        "batch_no_delete",
        "batch_no_replace",
    ):
        (text,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,)).fetchone()
        connection.execute(f"DROP TRIGGER {name}")
        connection.execute("CREATE TEMP TABLE IF NOT EXISTS kept (sql TEXT)")
        connection.execute("INSERT INTO kept VALUES (?)", (text,))
    for statement in statements:
        connection.execute(statement)
    for (text,) in connection.execute("SELECT sql FROM kept").fetchall():
        connection.execute(text)
    connection.commit()
    connection.close()


def checked(where: Path, checkpoint: Checkpoint | None = None) -> Checked:
    with Ledger.open(where, readonly=True) as ledger:
        return ledger.check(checkpoint)


def codes(result: Checked) -> set[str]:
    return {problem.code for problem in result.problems}


def verify(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """The second verifier, which shares no code."""
    return subprocess.run(
        [sys.executable, ROOT / "tools" / "verify", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_a_whole_record_is_found_whole_and_says_what_was_looked_at(original: Path) -> None:
    result = checked(original)
    assert not result.problems
    assert not result.not_covered
    assert result.events == result.history.memory.seq > 100  # type: ignore[union-attr]
    assert "PRAGMA integrity_check" in result.medium
    assert verify(original).returncode == 0


def test_an_empty_record_is_never_ok(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        result = ledger.check()
    assert result.not_covered
    assert verify(tmp_path / "vm.db").returncode == 4


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE event SET start = start + 1 WHERE seq = 35", "BATCH-HASH"),
        ("UPDATE event SET detail = NULL WHERE seq = 1", "BATCH-HASH"),
        ("DELETE FROM event WHERE seq = 35", "ROW-MISSING"),
        ("INSERT INTO event (seq, kind) VALUES (99999, 3)", "ROW-OUTSIDE"),
        ("REPLACE INTO event (seq, kind) VALUES (20, 3)", "BATCH-HASH"),
        ("DELETE FROM batch WHERE first = 1", "BATCH-ORDER"),
        ("UPDATE batch SET recorded = recorded + 1 WHERE first = 1", "BATCH-HASH"),
        ("UPDATE batch SET previous = zeroblob(32) WHERE first > 1", "BATCH-LINK"),
        ("UPDATE batch SET size = size + 1 WHERE first = 1", "BATCH-HASH"),
        ("DROP TABLE request", "SCHEMA"),
        ("UPDATE conversion SET errno = 5", "PROJECTION"),
        ("DELETE FROM source", "PROJECTION"),
        ("DROP VIEW convert_asked", "SCHEMA"),
    ],
)
def test_what_was_altered_is_named(copy: Path, statement: str, code: str) -> None:
    tamper(copy, statement)
    assert code in codes(checked(copy))
    if code.startswith(("BATCH", "ROW")):
        done = verify(copy)
        assert (done.returncode, "faults" in done.stdout) == (1, True)


def test_a_dropped_guard_is_named(copy: Path) -> None:
    connection = sqlite3.connect(copy)
    connection.execute("DROP TRIGGER event_no_update")
    connection.close()
    assert codes(checked(copy)) == {"SCHEMA"}


def test_every_code_says_what_it_means_and_what_to_do() -> None:
    for meaning in CODES.values():
        assert meaning.meaning
        assert meaning.next_step


def test_flipped_bits_of_events_and_batches_are_named_or_change_nothing(original: Path, tmp_path: Path) -> None:
    """A sample of all bits of the file: a flip is a problem, or no row differs and no verdict either."""
    dice, data = random.Random(7), original.read_bytes()
    with Ledger.open(original, readonly=True) as ledger:
        rows, hashes = list(ledger.record_.events()), [batch.hash for batch in ledger.record_.batches()]
    where, unnoticed = tmp_path / "flipped.db", 0
    for _ in range(150):
        bit = dice.randrange(4096 * 8, len(data) * 8)
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        where.write_bytes(flipped)
        try:
            result = checked(where)
        except GmemstateError:
            continue  # it cannot even be opened, and says so
        if result.problems:
            continue
        unnoticed += 1
        with Ledger.open(where, readonly=True) as ledger:
            assert list(ledger.record_.events()) == rows
            assert [batch.hash for batch in ledger.record_.batches()] == hashes
    assert unnoticed < 150


def test_a_checkpoint_exposes_a_chain_that_was_written_anew(original: Path, tmp_path: Path) -> None:
    with Ledger.open(original, readonly=True) as ledger:
        kept = str(ledger.checkpoint())
        rows = list(ledger.record_.events())
    assert not checked(original, Checkpoint.parse(kept)).problems
    forged = tmp_path / "forged.db"
    with Ledger.open(forged) as ledger:
        ledger.record_rows(rows)
    assert not checked(forged).problems
    assert "CHECKPOINT-HASH" in codes(checked(forged, Checkpoint.parse(kept)))
    (tmp_path / "kept").write_text(kept)
    assert verify(original, tmp_path / "kept").returncode == 0
    assert verify(forged, tmp_path / "kept").returncode == 1
    short = tmp_path / "short.db"
    with Ledger.open(short) as ledger:
        ledger.ingest(capture("half_done"))
    assert "CHECKPOINT-SHORT" in codes(checked(short, Checkpoint.parse(kept)))
    with pytest.raises(CannotRead, match="no checkpoint"):
        Checkpoint.parse("events 1")


# --- exports ----------------------------------------------------------------------------------------------------------


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
    assert not checked(made).problems
    assert not Exported(first).check().problems
    assert verify(first).returncode == 0


def test_an_altered_export_is_refused_with_the_line_and_nothing_is_kept(original: Path, tmp_path: Path) -> None:
    path = exported(original, tmp_path / "a.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[40])
    row[6] = (row[6] or 0) + 1
    changed = {
        "altered": [*lines[:40], json.dumps(row), *lines[41:]],
        "dropped": [*lines[:40], *lines[41:]],
        "twice": [*lines[:40], lines[40], *lines[40:]],
        "cut": lines[:-1],
        "goes on": [*lines, lines[-1]],
        "no json": [*lines[:40], "{", *lines[41:]],
        "not ours": ["{}"],
    }
    for name, content in changed.items():
        path.write_text("\n".join(content) + "\n", encoding="utf-8")
        where = tmp_path / f"{name}.db"
        with pytest.raises(CannotRead, match=rf"{path}:\d+: "):
            restore(str(where), JsonlRecord(path))
        assert not where.exists(), name
        assert verify(path).returncode != 0, name


def test_an_import_does_not_touch_a_ledger_that_is_there(original: Path, tmp_path: Path, copy: Path) -> None:
    path, before = exported(original, tmp_path / "a.jsonl"), copy.read_bytes()
    with pytest.raises(UsageError, match="already"):
        restore(str(copy), JsonlRecord(path))
    assert copy.read_bytes() == before


def test_an_export_is_read_without_a_database(original: Path, tmp_path: Path) -> None:
    path = exported(original, tmp_path / "a.jsonl")
    code = (
        "import sys\nsys.modules['sqlalchemy'] = None\n"
        "from gmemstate.cli.main import main\n"
        f"main(['--db', {str(path)!r}, *sys.argv[1:]])"
    )
    for verb in (["check"], ["replay"], ["conversions"], ["why", "gfn:0x100004", "--guest", "vm1"]):
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, (verb, done.stderr)


# --- why --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["half_done", "ip_eagain_pin", "hwpoison_private", "ip_two_slots", "ip_punch", "nogmem", "ip_swap", "late_attach"]
)
def test_the_reasons_of_a_page_are_enough_and_none_can_be_left_out(case: str, tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db", durable=False) as ledger:
        ledger.ingest(capture(case))
        memory = ledger.memory()
        spots = [Spot("gfn", page, vm.id) for vm in memory.vms.values() for page in _pages(memory, vm.id)]
        rows = {row[0]: row for row in ledger.record_.events()}
        for spot in random.Random(3).sample(spots, min(3, len(spots))):
            answer = why(ledger.record_, spot)
            assert answer.facts == facts(memory, spot)
            kept = [rows[seq] for seq, _ in answer.events]
            assert _facts(kept, spot) == answer.facts
            for n in range(len(kept)):
                fewer = kept[:n] + kept[n + 1 :]
                assert _facts(fewer, spot) != answer.facts or _accuses(fewer, memory), (case, spot, kept[n])


def _pages(memory: Memory, vm: int) -> list[int]:
    runs = [run for run in memory.guest_runs(vm) if run.start < run.end]
    return [page for run in runs for page in {run.start, min(run.end - 1, run.start + 7)}]


def _facts(rows: list, spot: Spot) -> object:  # type: ignore[type-arg]
    memory = Memory()
    try:
        for row in rows:
            memory.apply(row)
        return facts(memory, spot)
    except (KeyError, AttributeError, StopIteration):
        return None


def _accuses(rows: list, whole: Memory) -> bool:  # type: ignore[type-arg]
    """Whether a fold finds what the whole record does not."""
    memory = Memory()
    for row in rows:
        memory.apply(row)
    return bool(memory.findings)


def test_a_page_of_several_guests_is_asked_for_by_name(original: Path) -> None:
    with Ledger.open(original, readonly=True) as ledger:
        memory = ledger.memory()
        with pytest.raises(UsageError, match="whose page"):
            find_spot(memory, "gfn", 0x100004)
        assert find_spot(memory, "gfn", 0x100004, "vm1").space == min(memory.vms)


# --- moments ----------------------------------------------------------------------------------------------------------


def test_the_difference_of_two_moments_is_what_was_converted_between_them(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        first = ledger.conversions()[0]
        changed = between(ledger.record_, first["id"] + 5, None)
        assert [(change.start, change.end, change.before, change.after) for change in changed] == [
            (int(first["start"], 16), int(first["end"], 16), "shared", "private")
        ]


def test_two_records_part_at_their_first_difference(original: Path, tmp_path: Path) -> None:
    with Ledger.open(original, readonly=True) as one, Ledger.open(tmp_path / "other.db") as other:
        rows = list(one.record_.events())
        other.record_rows([*rows[:50], (*rows[50][:6], 7, *rows[50][7:]), *rows[51:]])
        parted = divergence(one.record_, other.record_)
        assert parted is not None
        assert parted.seq == 51
        assert divergence(one.record_, one.record_) is None


def test_the_steps_of_a_conversion_are_told_in_order(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        told = [step for _, step in steps(ledger.record_.events())]
    zap = next(n for n, step in enumerate(told) if "shared x zap_to_private -> zapping(shared>private)" in step)
    stored = next(n for n, step in enumerate(told) if "x store_private -> stored(shared>private)" in step)
    assert zap < stored
    assert any(step.endswith("(final)") for step in told)
