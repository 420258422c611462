"""What a database says of itself: its own check, and whether its schema is the one that the migrations make."""

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import create_engine, text

from gmemstate.model.events import KINDS
from gmemstate.store.engine import upgrade
from gmemstate.store.schema import metadata

Ask = Callable[[str], list[Any]]
"""Runs a query; what cannot be read is noted, and gives no rows."""
Note = Callable[..., None]


def of_sqlite(ask: Ask, note: Note) -> list[str]:
    """SQLite's check of the whole file, and all tables, triggers and views; names what was looked at."""
    for (line,) in ask("PRAGMA integrity_check"):
        if line != "ok":
            note("DATABASE", f"integrity_check: {line}")
    expected, have = _new_schema(), {f"{kind} {name}": _one_line(sql) for kind, name, sql in ask(_SCHEMA)}
    for name in sorted(expected.keys() | have.keys()):
        if name not in have:
            note("SCHEMA", f"the {name} is gone")
        elif name not in expected:
            note("SCHEMA", f"the {name} does not belong here")
        elif have[name] != expected[name]:
            note("SCHEMA", f"the {name} was changed")
    return ["PRAGMA integrity_check", "the schema"]


@cache
def _new_schema() -> dict[str, str]:
    """The schema of a new ledger."""
    fresh = create_engine("sqlite://")
    try:
        upgrade(fresh)
        with fresh.connect() as connection:
            return {f"{kind} {name}": _one_line(sql) for kind, name, sql in connection.execute(text(_SCHEMA))}
    finally:
        fresh.dispose()


_SCHEMA = "SELECT type, name, sql FROM sqlite_master WHERE type != 'table' OR name NOT GLOB 'sqlite_stat[0-9]'"
"""Everything but the statistics of ``ANALYZE``, which no answer depends on."""


@lru_cache(256)
def _one_line(sql: str | None) -> str:
    return re.sub(r"\s+", " ", str(sql))


def of_postgresql(ask: Ask, note: Note) -> list[str]:
    """Whether indexes hold all rows; the columns, the views, what guards or could bend the record; what was looked at."""
    for table, key in (("event", "seq"), ("batch", "first")):
        by_table, by_index = (_asked(ask, how, f"SELECT count(*) FROM {table}") for how in (_BY_TABLE, _BY_INDEX))
        if by_table != by_index:
            note("DATABASE", f"the index of {table}.{key} does not hold the rows that the table holds")
    _guards(ask, note)
    for what, name, table in ask(_FOREIGN):
        note("SCHEMA", f"the {what} {name} of the table {table} does not belong here")
    have = {(table, column): (kind, null) for table, column, kind, null in ask(_FIELDS)}
    for column in (column for table in metadata.sorted_tables for column in table.columns):
        expected = (_TYPES[type(column.type).__name__], "YES" if column.nullable else "NO")
        if have.get((column.table.name, column.name)) != expected:
            note("SCHEMA", f"the column {column.table.name}.{column.name} was changed")
    views = dict(ask("SELECT viewname, definition FROM pg_views WHERE schemaname = current_schema()"))
    for kind in KINDS.values():
        if f"kind = {kind.code})" not in views.get(kind.name, ""):
            note("SCHEMA", f"the view {kind.name} is gone or was changed")
    return ["the rows by table and by index", "columns and views", "the guards of the record"]


def _asked(ask: Ask, settings: Sequence[str], query: str) -> list[Any]:
    for setting in settings:
        ask(setting)
    found = ask(query)
    for setting in settings:
        ask(setting.replace("off", "DEFAULT"))
    return found


def _guards(ask: Ask, note: Note) -> None:
    guards = {str(table): guard for table, *guard in ask(_GUARDS)}
    for table in ("event", "batch"):
        guard = guards.get(table)
        if guard is None:
            note("SCHEMA", f"the trigger {table}_append_only is gone")
        elif guard[0] not in ("O", "A"):
            note("SCHEMA", f"the trigger {table}_append_only is disabled")
        elif guard[1] != _UPDATE_DELETE_TRUNCATE or "RAISE EXCEPTION" not in guard[2]:
            note("SCHEMA", f"the trigger {table}_append_only was changed")


_BY_TABLE = ("SET LOCAL enable_indexscan = off", "SET LOCAL enable_indexonlyscan = off", "SET LOCAL enable_bitmapscan = off")
_BY_INDEX = ("SET LOCAL enable_seqscan = off",)
"""How the planner is made to read the rows themselves, and the index: until the end of the transaction, or until they are
undone."""

_GUARDS = """
    SELECT tgrelid::regclass::text, tgenabled::text, tgtype, prosrc FROM pg_trigger JOIN pg_proc ON pg_proc.oid = tgfoid
    WHERE tgname = tgrelid::regclass::text || '_append_only'
"""
_UPDATE_DELETE_TRUNCATE = 2 | 8 | 16 | 32
"""``tgtype`` of a trigger that fires before these statements (``TRIGGER_TYPE_*`` in PostgreSQL's pg_trigger.h)."""

_FOREIGN = """
    WITH record AS (SELECT oid, relname, relrowsecurity FROM pg_class WHERE oid IN ('event'::regclass, 'batch'::regclass))
    SELECT 'trigger', tgname, relname FROM pg_trigger JOIN record ON record.oid = tgrelid
        WHERE NOT tgisinternal AND tgname != relname || '_append_only'
    UNION ALL SELECT 'rule', rulename, relname FROM pg_rewrite JOIN record ON record.oid = ev_class
    UNION ALL SELECT 'row security', '', relname FROM record WHERE relrowsecurity
    UNION ALL SELECT 'child', inhrelid::regclass::text, relname FROM pg_inherits JOIN record ON record.oid = inhparent
"""
"""What makes a table hide, change or add rows."""

_FIELDS = """
    SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns
    WHERE table_schema = current_schema()
"""
_TYPES = {"BigInteger": "bigint", "Text": "text", "LargeBinary": "bytea"}
