"""``check`` names whatever was done to a record, and says what it has looked at."""

import json
import os
from pathlib import Path

import pytest

from gmemstate.audit.check.check import Checked, Checkpoint
from gmemstate.audit.check.problems import CODES
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import CannotRead
from gmemstate.model.events import SourceOpened
from gmemstate.model.findings import CATALOGUE
from gmemstate.store.record import StoredRecord
from tests.audit.alterations import ALTERATIONS, HISTORIES, Alteration, forged, returned
from tests.audit.verifier import ROOT, verify
from tests.cli.running import say
from tests.store.places import contents
from tests.traces import capture


def checked(where: Path, checkpoint: Checkpoint | None = None) -> Checked:
    with Ledger.open(where, readonly=True) as ledger:
        return ledger.check(checkpoint)


def codes(result: Checked) -> set[str]:
    return {problem.code for problem in result.problems}


# --- what it has looked at


def test_a_whole_record_is_found_whole_and_says_what_was_looked_at(original: Path) -> None:
    result = checked(original)
    assert (result.problems, result.findings, result.not_covered) == ((), (), ())
    assert result.events > 100
    assert list(result.looked_at) == [
        "every hash and link", "PRAGMA integrity_check", "the schema", "machines", "invariants", "tables", "snapshots",
    ]  # fmt: skip
    assert len(result.invariants) == 49
    assert verify(original).returncode == 0


def test_each_event_is_read_once_so_what_is_folded_is_what_was_sealed(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(StoredRecord, "events")
    result = checked(original)
    assert (result.problems, result.not_covered, len(result.invariants)) == ((), (), 49)


def test_what_the_record_cannot_show_is_named_with_the_reason(original: Path) -> None:
    result, ran = checked(original), say("--db", str(original), "check")
    lacking = result.not_evaluable
    assert sum(map(len, lacking.values())) == sum(one.missing is not None for one in result.invariants) > 5
    for reason, invariants in lacking.items():
        assert f"not evaluable: {', '.join(invariants)}: {reason}" in ran.out.splitlines()


def test_an_empty_record_is_never_ok(tmp_path: Path) -> None:
    where = tmp_path / "vm.db"
    with Ledger.open(where) as ledger:
        result = ledger.check()
    assert (result.problems, result.batches) == ((), 0)
    assert result.not_covered == ("the record is empty: there is nothing to check",)
    assert "every hash and link" not in result.looked_at
    ran = say("--db", str(where), "check")
    assert (ran.code, "nothing is wrong" in ran.out) == (3, False)
    assert verify(where).returncode == 4


def test_a_record_of_one_event_is_checked_like_any_other(tmp_path: Path) -> None:
    where = tmp_path / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.record(SourceOpened(source=-1))
        result = ledger.check()
    assert (result.problems, result.not_covered, result.events, result.batches) == ((), (), 1, 1)
    assert say("--db", str(where), "check").code == 0
    assert verify(where).returncode == 0


def test_a_damaged_record_is_not_folded_and_that_is_said(copy: Path) -> None:
    """What does not verify is no ground for answers."""
    ALTERATIONS[0].do(copy)
    result = checked(copy)
    assert result.invariants == ()
    assert result.not_covered == ("fold, machines, invariants and tables: the record itself is damaged",)


# --- what it finds


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda alteration: alteration.name)
def test_what_was_altered_is_named(copy: Path, alteration: Alteration) -> None:
    alteration.do(copy)
    result = checked(copy)
    assert alteration.code in codes(result)
    done = verify(copy)
    assert "Traceback" not in done.stderr
    if alteration.code != "DATABASE":  # which only the database sees
        assert (done.returncode != 0) == alteration.of_the_record


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda alteration: alteration.name)
def test_the_command_line_tells_it_and_ends_with_1(copy: Path, alteration: Alteration) -> None:
    alteration.do(copy)
    ran = say("--db", str(copy), "check", "--json")
    assert (ran.code, ran.err) == (1, "")
    returned = [problem for problem in json.loads(ran.out)["problems"] if problem["code"] == alteration.code]
    assert returned[0]["severity"] == CODES[alteration.code].severity
    assert returned[0]["next_step"] == CODES[alteration.code].next_step


def test_every_code_has_an_alteration_that_provokes_it() -> None:
    of_checkpoints = {"CHECKPOINT-SHORT", "CHECKPOINT-HASH"}
    assert {alteration.code for alteration in ALTERATIONS} | of_checkpoints == set(CODES)
    assert set(HISTORIES) == set(CATALOGUE)


@pytest.mark.parametrize("code", HISTORIES)
def test_a_history_that_cannot_be_is_found_in_a_record_that_is_whole(tmp_path: Path, code: str) -> None:
    where = forged(tmp_path / "vm.db", returned(HISTORIES[code]))  # type: ignore[arg-type]
    result = checked(where)
    assert result.problems == ()
    assert code in {finding.code for finding in result.findings}
    assert say("--db", str(where), "check").code == 1
    assert verify(where).returncode == 0, "the record is as it was sealed"


def test_an_event_of_a_newer_version_is_named_with_its_version(tmp_path: Path) -> None:
    where = forged(tmp_path / "vm.db", returned(HISTORIES["UNKNOWN-KIND"]))  # type: ignore[arg-type]
    texts = [finding.text for finding in checked(where).findings]
    assert texts == [
        "event kind 250 of version 1 is unknown",
        "event kind 40 of version 8 is unknown",
        "a private_unmap_failed of a sort that this version does not know",
    ]


def test_a_broken_invariant_is_a_finding(tmp_path: Path) -> None:
    """A host page that was given away although its private unmap had failed (INV-22)."""
    where = forged(tmp_path / "vm.db", returned(HISTORIES["PFN-REUSED"]))  # type: ignore[arg-type]
    assert {"INV-22", "PFN-REUSED"} <= {finding.code for finding in checked(where).findings}


def test_a_lost_page_does_not_hide_what_lies_behind_it(copy: Path) -> None:
    """Batches on other pages are read and verified; the lost events are named with their batch."""
    next(alteration for alteration in ALTERATIONS if alteration.name == "a lost sector").do(copy)
    whole = checked(copy)
    lost = [problem for problem in whole.problems if problem.code == "UNREADABLE" and problem.first is not None]
    with Ledger.open(copy, readonly=True) as ledger:
        batches = list(ledger.record_.batches())
    assert len(lost) == 1, "one run of events, not one line for each"
    assert (lost[0].first, lost[0].last) in [(batch.first, batch.last) for batch in batches]
    assert whole.batches == len(batches)
    assert batches[-1].last - whole.events < 200


def test_a_checkpoint_exposes_a_chain_that_was_written_anew(original: Path, tmp_path: Path) -> None:
    with Ledger.open(original, readonly=True) as ledger:
        kept = str(ledger.checkpoint())
        rows = list(ledger.record_.events())
    assert not checked(original, Checkpoint.parse(kept)).problems
    other, short = forged(tmp_path / "forged.db", rows), tmp_path / "short.db"
    with Ledger.open(short) as ledger:
        ledger.ingest(capture("half_done"))
    (tmp_path / "kept").write_text(kept)
    for where, code in ((other, "CHECKPOINT-HASH"), (short, "CHECKPOINT-SHORT")):
        assert not checked(where).problems
        assert codes(checked(where, Checkpoint.parse(kept))) == {code}
        assert say("--db", str(where), "check", "--checkpoint", str(tmp_path / "kept")).code == 1
        assert verify(where, tmp_path / "kept").returncode == 1
    assert verify(original, tmp_path / "kept").returncode == 0


def test_a_record_that_has_grown_fits_its_older_checkpoints(tmp_path: Path) -> None:
    """That of the empty record too."""
    where, kept = tmp_path / "vm.db", []
    with Ledger.open(where) as ledger:
        for _ in range(3):
            kept.append(str(ledger.checkpoint()))
            ledger.record(SourceOpened(source=-1))
    assert kept[0].splitlines()[1:3] == ["events 0", f"head {'0' * 64}"]
    for n, text in enumerate(kept):
        assert checked(where, Checkpoint.parse(text)).problems == ()
        path = tmp_path / f"kept{n}"
        path.write_text(text)
        assert verify(where, path).returncode == 0


@pytest.mark.parametrize("text", ["", "events 1", "gmemstate checkpoint 1\nevents 1\nhead 00\nat 5\n", "\N{SNOWMAN}"])
def test_what_is_no_checkpoint_is_refused(original: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "kept"
    path.write_text(text, encoding="utf-8")
    ran = say("--db", str(original), "check", "--checkpoint", str(path))
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1)
    with pytest.raises(CannotRead):
        Checkpoint.parse(text)
    assert verify(original, path).returncode == 4


def test_the_second_verifier_leaves_nothing_beside_what_it_reads(copy: Path) -> None:
    """So that it works on a medium that cannot be written."""
    before = contents(copy.parent), copy.stat().st_mtime_ns
    assert verify(copy).returncode == 0
    assert (contents(copy.parent), copy.stat().st_mtime_ns) == before


def test_the_second_verifier_sees_what_is_still_in_the_wal(copy: Path) -> None:
    with Ledger.open(copy) as ledger:
        seq = ledger.record(SourceOpened(source=-1)).seq
        assert f"{seq} events in 3 batches" in verify(copy).stdout


# --- the page


PAGE = ROOT / "gmemstate" / "docs" / "check.md"


def codes_in_words() -> str:
    """The two catalogues as the page shows them."""
    parts = [
        f"### {code} ({entry.severity})\n\n{entry.meaning[0].upper()}{entry.meaning[1:]}.\nNext: {entry.next_step}.\n"
        for catalogue in (CODES, CATALOGUE)
        for code, entry in catalogue.items()
    ]
    return "\n".join(parts)


def test_the_page_has_every_code_word_for_word() -> None:
    text, _, said = PAGE.read_text(encoding="utf-8").partition("\n### BATCH-HASH")
    if os.environ.get("GMEMSTATE_RENEW"):
        PAGE.write_text(f"{text}\n{codes_in_words()}", encoding="utf-8")
    assert f"### BATCH-HASH{said}" == codes_in_words()
