"""Exit codes: 0 clean, 1 findings, 2 usage, 3 incomplete, 4 cannot read; and the questions that lead to each."""

import json
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from gmemstate.cli.exits import Exit, worst
from tests.cli.running import GMEMSTATE, PLAIN, ledger_of, put, run, say

VERBS = ("conversions", "requests", "state", "messed-up", "events", "status", "replay", "postmortem")


@pytest.mark.parametrize("verb", VERBS)
def test_a_whole_record_is_answered_with_0(verb: str, half_done: Path) -> None:
    ran = say("--db", half_done, verb)
    assert ran.code == 0
    assert ran.err == ("no page is messed up, as far as the record goes\n" if verb == "messed-up" else "")


def test_a_finding_is_1_and_so_is_a_table_that_is_not_the_record(tmp_path: Path) -> None:
    swapped = ledger_of(tmp_path, "ip_swap")
    ran = say("--db", swapped, "replay")
    assert ran.code == 1
    assert "[SLOT-SWAP-FLIP]" in ran.out
    ledger = ledger_of(tmp_path, "half_done")
    with sqlite3.connect(ledger) as connection:
        connection.execute("DELETE FROM conversion")
    connection.close()
    ran = say("--db", ledger, "replay")
    assert ran.code == 1
    assert "table conversion is not what the record folds to: `gmemstate rebuild` makes it again" in ran.out
    assert say("--db", ledger, "rebuild").code == 0
    assert say("--db", ledger, "replay").code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("state", "0x100-"), "invalid range '0x100-': write 0x100000-0x100080"),
        (("state", "0x200-0x100"), "invalid range"),
        (("state", "pfn:0x1"), "invalid range"),
        (("state", "--at", "yesterday"), "invalid moment 'yesterday': give the number of an event"),
        (("state", "--at", "1000"), "there is no event 1000: the last one is 76"),
        (("events", "--kind", "nonsense"), "invalid kind of event 'nonsense': kinds are attrs_compared"),
        (("postmortem", "2"), "there is no incident 2: 1 incident is on record"),
        (("postmortem", "0"), "there is no incident 0"),
        (("postmortem", "first"), "'first' is not a valid integer"),
        (("nonsense",), "No such command 'nonsense'"),
        (("state", "--nonsense"), "No such option"),
        (("machine", "bicycle"), "'bicycle' is not one of"),
        (("ingest",), "Missing argument 'FILE...'"),
        ((), "Usage: gmemstate"),
    ],
)
def test_what_cannot_be_asked_is_2_with_the_way_to_ask_it(words: tuple[str, ...], said: str, half_done: Path) -> None:
    ran = say("--db", half_done, *words)
    assert ran.code == 2
    assert ran.out == ""
    assert said in ran.err


def test_missing_evidence_is_3_and_says_what_is_missing(tmp_path: Path) -> None:
    cut = ledger_of(tmp_path, "ip_lost_overrun")
    asked = (("conversions",), ("requests",), ("state",), ("messed-up",), ("status",), ("replay",), ("why", "idx:0"))
    for words in asked:
        ran = say("--db", cut, *words)
        assert ran.code == 3
        assert "incomplete: ip_lost_overrun.txt.gz:3: 3139 events lost" in ran.err
    ran = say("--db", cut, "postmortem")
    assert ran.code == 3
    assert "3139 events" in ran.out


def test_results_that_were_not_seen_are_3(tmp_path: Path) -> None:
    assert say("--db", ledger_of(tmp_path, "simple_tp"), "conversions").code == 3


def test_what_cannot_be_read_is_4(tmp_path: Path) -> None:
    for verb in VERBS:
        ran = say("--db", tmp_path / "none.db", verb)
        assert (ran.code, ran.out) == (4, "")
        assert (
            ran.err
            == f"gmemstate: {tmp_path}/none.db: no ledger here; `gmemstate ingest FILE` makes one, `--db PATH` names another\n"
        )
    assert not (tmp_path / "none.db").exists()


def test_the_worst_counts() -> None:
    order = (Exit.CANNOT_READ, Exit.USAGE, Exit.FINDINGS, Exit.INCOMPLETE, Exit.CLEAN)
    for n, code in enumerate(order):
        assert worst(*reversed(order[n:])) is code
    assert worst() is Exit.CLEAN


def test_findings_go_before_what_is_missing_and_what_cannot_be_read_before_both(tmp_path: Path) -> None:
    assert say("--db", ledger_of(tmp_path, "ip_swap", "kill_mid"), "replay").code == 1
    ran = say("--db", tmp_path / "x.db", "ingest", put("ip_lost_overrun", tmp_path), tmp_path / "nothing.txt")
    assert ran.code == 4
    assert say("--db", tmp_path / "y.db", "ingest", tmp_path / "nothing.txt", put("ip_lost_overrun", tmp_path)).code == 4
    assert say("--db", tmp_path / "z.db", "ingest", put("ip_lost_overrun", tmp_path)).code == 3


def made(ledger: Path) -> bool:
    """Whether a ledger has its schema."""
    if not ledger.exists():
        return False
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        return connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()


def test_an_interrupt_is_130_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*GMEMSTATE, "--db", tmp_path / "a.db", "ingest", "-"], env=PLAIN, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    patience = time.monotonic() + 60
    while not made(tmp_path / "a.db") and time.monotonic() < patience:
        time.sleep(0.05)
    time.sleep(0.5)  # from here on it waits for its standard input
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err


# --- state: known, unknown, in flight -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ("0x100000-0x100100", 0),
        ("gpa:0x100000000", 0),
        ("gfn:0x100004+4", 0),
        ("idx:5", 3),  # no guest_memfd of this guest holds attributes
    ],
)
def test_state_is_0_where_every_page_that_was_asked_for_is_known(question: str, code: int, half_done: Path) -> None:
    assert say("--db", half_done, "state", question).code == code


def test_state_is_3_where_a_page_that_was_asked_for_is_unknown(tmp_path: Path) -> None:
    """Of a guest that was there before the record began, only what was converted since is known."""
    late = ledger_of(tmp_path, "ip_kill_mid")
    assert say("--db", late, "state", "idx:0x3fff0+16").code == 0
    ran = say("--db", late, "state", "0x100000+17")
    assert ran.code == 3
    assert "unknown" in ran.out


def test_in_place_every_gfn_is_known_where_all_memslots_are(poisoned: Path) -> None:
    """Without a guest_memfd a gfn is shared."""
    ran = say("--db", poisoned, "state", "0x100000+17")
    assert ran.code == 0
    assert "[0x100000,0x100011)  17     shared" in ran.out
    assert say("--db", poisoned, "state").code == 0


def test_a_conversion_in_flight_is_an_answer(half_done: Path) -> None:
    ran = say("--db", half_done, "state", "0x100000", "--at", "44")
    assert ran.code == 0
    assert "stored(shared>private)" in ran.out
    assert "in conversion 35" in ran.out


def test_a_moment_is_an_event_or_a_time(half_done: Path) -> None:
    by_time = json.loads(say("--db", half_done, "state", "--at", "5.30", "--json").out)["rows"]
    events = [json.loads(line) for line in say("--db", half_done, "events", "--at", "5.30", "--json").out.splitlines()]
    by_event = json.loads(say("--db", half_done, "state", "--at", events[-1]["seq"], "--json").out)["rows"]
    assert by_time == by_event
    assert {row["state"] for row in by_time} == {"shared", "private"}
    (one,) = json.loads(say("--db", half_done, "conversions", "--at", "5.30", "--json").out)["rows"]
    assert one["errno"] == 0


# --- two guests in one ledger ---------------------------------------------------------------------------------------


def test_two_guests_keep_their_names_and_their_states(both: Path, half_done: Path, poisoned: Path) -> None:
    rows = json.loads(say("--db", both, "conversions", "--json").out)["rows"]
    assert [row["guest"] for row in rows] == ["vm1"] * 2 + ["vm2"] * 5
    for alone, guest in ((half_done, "vm1"), (poisoned, "vm2")):
        states = json.loads(say("--db", alone, "state", "--json").out)["rows"]
        found = [row for row in json.loads(say("--db", both, "state", "--json").out)["rows"] if row["guest"] == guest]
        assert [(row["start"], row["end"], row["state"]) for row in found] == [
            (row["start"], row["end"], row["state"]) for row in states
        ]


def test_two_guests_are_told_apart_in_one_postmortem(both: Path) -> None:
    report = json.loads(say("--db", both, "postmortem", "--json").out)
    assert [incident["who"].split()[0] for incident in report["incidents"]] == ["vm1", "vm2", "vm2"]
    assert [Path(source["file"]).name for source in report["covered"]] == ["half_done.txt.gz", "ip_hwpoison_shared.txt.gz"]
    assert say("--db", both, "postmortem", "3").out.startswith("host platform: NOT APPLIED, THEN APPLIED")


@pytest.mark.parametrize("at", ["5.3", "76.1", "9999.5"])
def test_a_time_is_refused_where_two_traces_have_each_a_clock(at: str, both: Path) -> None:
    ran = say("--db", both, "state", "--at", at)
    assert (ran.code, ran.out) == (2, "")
    assert (
        "each have a clock of their own; name the moment by the number of an event (`gmemstate events` lists them)" in ran.err
    )
    assert say("--db", both, "state", "--at", "60").code == 0


# --- nothing to answer from -----------------------------------------------------------------------------------------


def test_a_ledger_without_events_is_no_clean_bill(tmp_path: Path) -> None:
    """A file that could not be read leaves an empty ledger behind."""
    assert say("--db", tmp_path / "a.db", "ingest", tmp_path / "nothing.txt").code == 4
    ran = say("--db", tmp_path / "a.db", "postmortem")
    assert ran.code == 3
    assert "nothing: the ledger has no source" in ran.out
    assert "Missing no event is on record: `gmemstate ingest FILE` reads a trace" in ran.out
    assert say("--db", tmp_path / "a.db", "conversions")[::2] == (
        3,
        "no conversion is on record\nincomplete: no event is on record: `gmemstate ingest FILE` reads a trace\n",
    )


def test_the_ledger_is_found_by_the_environment(half_done: Path) -> None:
    assert run("status", env={"GMEMSTATE_DB": str(half_done)}).code == 0
