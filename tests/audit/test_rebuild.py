"""The record is the truth: without its tables for readers it answers as before, and they are made anew."""

import sqlite3
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.store.schema import metadata
from tests.audit.questions import answers, questions
from tests.cli.running import say
from tests.traces import capture

DERIVED = [table.name for table in metadata.sorted_tables if table.name not in ("event", "batch")]


def contents(where: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    connection = sqlite3.connect(where)
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    found = {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in tables}
    connection.close()
    return found


@pytest.mark.parametrize("cases", [("half_done", "ip_hwpoison_shared"), ("ip_guest_ask", "kill_mid")])
def test_after_all_tables_are_emptied_and_rebuilt_nothing_that_a_user_can_see_has_changed(
    tmp_path: Path, cases: tuple[str, ...]
) -> None:
    where = tmp_path / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(*(capture(case) for case in cases))
    asked = questions(where)
    before, rows = answers(where, asked), contents(where)

    connection = sqlite3.connect(where)
    emptied = sum(connection.execute(f'DELETE FROM "{table}"').rowcount for table in DERIVED)
    connection.commit()
    connection.close()
    assert emptied > 10
    without = answers(where, [words for words in asked if words[0] not in ("check", "replay")])
    assert without == {key: before[key] for key in without}, "answers come from the record, not from the tables"
    assert "rebuild" in say("--db", where, "check").out

    assert say("--db", where, "rebuild").code == 0
    assert answers(where, asked) == before
    assert contents(where) == rows
