"""What only a server has: writers on other machines, roles and passwords, and a schema that others may alter."""

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import CannotRead, CannotWrite, GmemstateError, NotALedger
from gmemstate.model.events import ConvertReturned, Dialect, GmemBound, GmemCreated, PageAdded, SlotSet, VmCreated, VmSeen
from tests.store.places import ROOT, ServerPlace, assert_chained, conversion, guests, python
from tests.store.postgres import GUARDED, PASSWORD, Server, cluster


@pytest.fixture
def place(server: Server) -> Iterator[ServerPlace]:
    """A database with the guests 2 and 3."""
    made = ServerPlace(server.database("empty"), server)
    with made.open() as ledger:
        ledger.record(*guests(2))
    yield made
    server.sql(f"DROP DATABASE IF EXISTS {made.database} WITH (FORCE)")


# --- recorders and readers


WRITER = """
import sys
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.errors import Conflict
from tests.store.places import conversion
where, guest, last, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
conflicts = 0
with Ledger.open(where) as ledger:
    print("ready", flush=True)
    for n in range(rounds):
        sys.stdin.readline()
        while True:
            try:
                last = ledger.record(*conversion(guest, 16 * n), expect={guest: last}).seq
                break
            except Conflict as error:
                assert error.data["guest"] == guest and error.data["expected"] == last < error.data["found"]
                last = error.data["found"]
                conflicts += 1
        print(conflicts, flush=True)
"""


def side_by_side(place: ServerPlace, writers: list[tuple[int, int]], rounds: int) -> list[int]:
    """Processes that record in rounds, each as soon as all have ended the round before; the conflicts that each has met."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, place.where, str(guest), str(last), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for guest, last in writers
    ]
    said = [child.stdout.readline() for child in children if child.stdout]
    assert said == ["ready\n"] * len(children)
    for _ in range(rounds):
        for child in children:
            assert child.stdin
            child.stdin.write("go\n")
            child.stdin.flush()
        said = [child.stdout.readline() for child in children if child.stdout]
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    return [int(word) for word in said]


def test_writers_on_different_guests_succeed_in_turn_without_conflict(place: ServerPlace) -> None:
    assert side_by_side(place, [(2, 4), (3, 5)], 15) == [0, 0]
    with place.open(readonly=True) as ledger:
        assert_chained(ledger)
        assert ledger.head().seq == 5 + 2 * 2 * 15
        assert ledger.check().problems == ()
        assert {row.label for row in ledger.conversions()} == {"committed"}


def test_writers_on_one_guest_get_conflicts_and_can_retry(place: ServerPlace) -> None:
    """In each round one comes second; it is told what was expected and found, and succeeds with that."""
    assert sum(side_by_side(place, [(2, 4), (2, 4)], 10)) >= 10
    with place.open(readonly=True) as ledger:
        assert_chained(ledger)
        assert ledger.head().seq == 5 + 2 * 2 * 10
        assert ledger.check().problems == ()


def test_a_reader_in_the_middle_does_not_stop_the_recorder(place: ServerPlace) -> None:
    with place.open() as ledger, place.open(readonly=True) as reader, reader.record_.read_transaction():
        before = reader.head()
        rows = reader.record_.events()
        next(rows)
        assert ledger.record(*conversion(2, 0)).seq == 7
        assert reader.head() == before, "what is read inside is of one moment"
        assert len(list(rows)) == 4


def test_a_recorder_in_the_middle_does_not_stop_readers(place: ServerPlace) -> None:
    hold = place.hold()
    hold.execute("INSERT INTO event (seq, kind) VALUES (6, 1)")
    try:
        with place.open(readonly=True) as reader:
            assert reader.head().seq == 5
            assert len(list(reader.events())) == 5
            assert reader.check().problems == ()
    finally:
        hold.close()


def test_a_check_sees_one_moment_while_others_record(place: ServerPlace) -> None:
    stop = threading.Event()

    def record() -> None:
        with place.open() as ledger:
            for n in range(1000):
                ledger.record(*conversion(2, 16 * n))
                if stop.is_set():
                    return

    thread = threading.Thread(target=record)
    thread.start()
    try:
        with place.open(readonly=True) as reader:
            while (head := reader.head().seq) < 50:
                assert reader.check().problems == ()
        assert head > 5
    finally:
        stop.set()
        thread.join()


def test_a_ledger_is_made_once_by_those_who_come_at_once(server: Server) -> None:
    where = server.database()
    program = "import sys; from gmemstate.ledger.ledger import Ledger; Ledger.open(sys.argv[1]).close()"
    children = [subprocess.Popen([sys.executable, "-c", program, where], cwd=ROOT) for _ in range(3)]
    assert [child.wait(60) for child in children] == [0, 0, 0]
    with Ledger.open(where) as ledger:
        assert ledger.record(*guests(1)).seq == 3


GMEM = 3


def test_conversions_of_one_guest_memfd_take_turns_over_processes(server: Server) -> None:
    where = server.database("empty")
    with Ledger.open(where) as ledger:
        ledger.record(
            VmSeen(owner=-1, made=1),
            VmCreated(owner=-1, dialect=Dialect.INPLACE),
            GmemCreated(owner=-2, vm=-1, npages=16, flags=2, result=0),
            SlotSet(slot=0, owner=-1, start=0x100, npages=16, flags=4),
            GmemBound(owner=-1, start=0x100, npages=16, index=0, gmem=-2),
            PageAdded(owner=-2, start=0, npages=16, pfn=0x1000),
        )
    program = textwrap.dedent(f"""
        import sys, gmemstate
        with gmemstate.open(sys.argv[1]) as ledger:
            for kind in ("private", "shared", "private"):
                ledger.convert({GMEM}, 0, 12, kind)
    """)
    children = [subprocess.Popen([sys.executable, "-c", program, where], cwd=ROOT) for _ in range(2)]
    assert [child.wait(60) for child in children] == [0, 0]
    inside = None
    with Ledger.open(where, readonly=True) as ledger:
        for event in (one.event for one in ledger.events()):
            conversion = getattr(event, "conversion", None)
            if conversion is not None:
                assert inside in (None, conversion)
                inside = None if isinstance(event, ConvertReturned) else conversion
        history = ledger.history()
        assert len(history.conversions) == 6
        assert not history.findings
        assert ledger.check().problems == ()


# --- what check finds


ALTERED = {
    "a disabled trigger": (["ALTER TABLE event DISABLE TRIGGER event_append_only"], "SCHEMA", "event_append_only is disabled"),
    "a dropped trigger": (["DROP TRIGGER batch_append_only ON batch"], "SCHEMA", "batch_append_only is gone"),
    "a trigger that refuses less": (
        [
            "DROP TRIGGER batch_append_only ON batch",
            "CREATE TRIGGER batch_append_only BEFORE DELETE ON batch EXECUTE FUNCTION gmemstate_append_only()",
        ],
        "SCHEMA",
        "batch_append_only was changed",
    ),
    "a function that refuses nothing": (
        ["CREATE OR REPLACE FUNCTION gmemstate_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"],
        "SCHEMA",
        "event_append_only was changed",
    ),
    "another type": (["DROP VIEW pinned", 'ALTER TABLE "range" ALTER COLUMN npages TYPE integer'], "SCHEMA", "range.npages"),
    "a lost column": (["ALTER TABLE source DROP COLUMN head_size"], "SCHEMA", "source.head_size"),
    "an altered row": (
        ["SET session_replication_role = replica; UPDATE event SET value = 99 WHERE seq = 2"],
        "BATCH-HASH",
        "batch 1..5",
    ),
    "a missing row": (
        ["SET session_replication_role = replica; DELETE FROM event WHERE seq = 3"],
        "ROW-MISSING",
        "the first is 3",
    ),
    "a missing batch": (
        ["SET session_replication_role = replica; DELETE FROM batch WHERE first = 1"],
        "ROW-OUTSIDE",
        "5 events from 1 to 5",
    ),
    "a row outside of batches": (["INSERT INTO event (seq, kind) VALUES (9, 1)"], "ROW-OUTSIDE", "1 events from 9 to 9"),
    "a row in front of everything": (["INSERT INTO event (seq, kind) VALUES (-7, 1)"], "ROW-OUTSIDE", "1 events from -7 to -7"),
    "a trigger that drops rows": (
        [
            "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "CREATE TRIGGER zz BEFORE INSERT ON event FOR EACH ROW EXECUTE FUNCTION drops()",
        ],
        "SCHEMA",
        "the trigger zz of the table event does not belong here",
    ),
    "a rule that drops rows": (
        ["CREATE RULE quiet AS ON INSERT TO batch DO INSTEAD NOTHING"],
        "SCHEMA",
        "the rule quiet of the table batch does not belong here",
    ),
    "rows that are hidden from some": (["ALTER TABLE event ENABLE ROW LEVEL SECURITY"], "SCHEMA", "row security"),
    "a table that adds rows": (["CREATE TABLE more () INHERITS (event)"], "SCHEMA", "the child more of the table event"),
    "a dropped view": (["DROP VIEW pinned"], "SCHEMA", "the view pinned is gone or was changed"),
    "a view of something else": (
        ["CREATE OR REPLACE VIEW hkid_leaked AS SELECT seq, t, source, line, value AS hkid, detail FROM event WHERE kind = 1"],
        "SCHEMA",
        "the view hkid_leaked is gone or was changed",
    ),
    "a changed table": (["DELETE FROM conversion"], "PROJECTION", "the table conversion"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_check_finds_what_was_altered(place: ServerPlace, what: str) -> None:
    statements, code, said = ALTERED[what]
    with place.open() as ledger:
        ledger.record(*conversion(2, 0))
        assert ledger.check().problems == ()
    for statement in statements:
        place.sql(statement)
    with place.open(readonly=True) as ledger:
        problems = ledger.check().problems
    assert [problem for problem in problems if problem.code == code and said in problem.text], problems


# --- what cannot be opened


def said(url: str, verb: str = "status") -> str:
    """What the command line says of a URL: one line, exit code 4, no password."""
    done = python("from gmemstate.cli.main import main; main()", "--db", url, verb)
    assert (done.returncode, done.stdout) == (4, ""), done
    assert done.stderr.count("\n") == 1, done.stderr
    assert PASSWORD not in done.stderr
    assert "sesame" not in done.stderr
    with pytest.raises(GmemstateError) as caught:
        Ledger.open(url, readonly=verb == "status").close()
    assert "sesame" not in str(caught.value)
    return done.stderr


def test_the_right_password_opens_and_is_not_shown(server: Server) -> None:
    done = python(
        "from gmemstate.cli.main import main; main()", "--db", server.url("empty", role=GUARDED, password=PASSWORD), "status"
    )
    assert "permission denied for table" in done.stderr, "it was let in, and may read nothing yet"
    assert "sesame" not in done.stderr
    assert done.returncode == 4


def test_a_wrong_password_is_refused(server: Server) -> None:
    line = said(server.url("empty", role=GUARDED, password="sesame-open"))
    assert "password authentication failed" in line
    assert "look at the URL" in line
    assert "password authentication failed" in said(server.url("empty", role=GUARDED) + "&password=sesame-open")


def test_a_server_that_is_down_is_named(tmp_path: Path) -> None:
    line = said(f"postgresql://me:{PASSWORD}@/x?host={tmp_path}")
    assert str(tmp_path) in line
    assert "whether the server runs" in line
    assert "whether the server runs" in said("postgresql://me:sesame@127.0.0.1:1/x")


def test_a_database_that_is_not_there_is_named(server: Server) -> None:
    assert 'database "nowhere" does not exist' in said(server.url("nowhere"))


def test_a_database_of_others_is_refused_and_left_alone(server: Server) -> None:
    where = server.database()
    place = ServerPlace(where, server)
    place.sql("CREATE TABLE event (id integer)")
    for readonly in (True, False):
        with pytest.raises(NotALedger, match="not a ledger of gmemstate"):
            Ledger.open(where, readonly=readonly)
    assert "not a ledger of gmemstate" in said(where)
    assert place.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("event",)]


def test_an_empty_database_is_filled_by_writing_only(server: Server) -> None:
    where = server.database()
    assert "the ledger is empty" in said(where)
    assert ServerPlace(where, server).sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == []


def test_a_newer_schema_is_refused(place: ServerPlace) -> None:
    place.sql("UPDATE alembic_version SET version_num = '9999'")
    assert "made by a newer gmemstate (schema 9999" in said(place.where)
    place.sql("DELETE FROM alembic_version")
    assert "lost the version of its schema" in said(place.where)


def test_a_standby_can_be_read_and_refuses_to_be_written(place: ServerPlace) -> None:
    place.sql(f"ALTER DATABASE {place.database} SET default_transaction_read_only = on")
    with place.open() as ledger:
        assert ledger.check().problems == ()
        with pytest.raises(CannotWrite, match="read-only"):
            ledger.record(*conversion(2, 0))


def test_a_server_that_dies_is_named_and_what_it_has_acknowledged_is_there_again() -> None:
    """The server is killed as a whole and recovers by its log; the same ledger goes on."""
    with cluster(settings=()) as server, Ledger.open(server.database("empty")) as ledger:
        ledger.record(*guests(1))
        for n in range(5):
            done = ledger.record(*conversion(2, 16 * n))
        server.end()
        with pytest.raises(CannotRead, match="whether the server runs"):
            ledger.record(*conversion(2, 0x100))
        with pytest.raises(CannotRead, match="whether the server runs"):
            ledger.head()
        with pytest.raises(CannotRead, match="whether the server runs"):
            ledger.convert(2, 0, 16, "shared")
        server.begin()
        assert ledger.head() == done
        assert ledger.record(*conversion(2, 0x100)).seq == done.seq + 2
        assert ledger.convert(2, 0, 16, "shared").errno == 0
        assert ledger.check().problems == ()
        assert_chained(ledger)
