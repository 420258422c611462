"""The tables, as migrations make them; a test compares the two.

``event`` and ``batch`` are the record: append-only, chained, gapless. All other tables can be dropped and made again:
projections are for readers of SQL, and ``snapshot`` has the whole memory at some seqs (:mod:`gmemstate.model.snapshot`).
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

from gmemstate.model.events import COLUMNS

HEAD = "0003"
"""The newest revision that this version knows."""

APPLICATION_ID = 0x676D656D
"""``gmem``, in the header of an SQLite file."""

metadata = MetaData()
_INTEGER = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *columns: Column[object], **options: Any) -> Table:
    return Table(name, metadata, *columns, sqlite_strict=True, **options)


def _integer(name: str, *, key: bool = False, null: bool = True) -> Column[object]:
    return Column(name, _INTEGER, primary_key=key, nullable=null and not key, autoincrement=False)


def _text(name: str, *, null: bool = True) -> Column[object]:
    return Column(name, Text, nullable=null)


event = _table(
    "event",
    _integer("seq", key=True),
    *(_text(name) if name == "detail" else _integer(name, null=name != "kind") for name in COLUMNS[1:]),
)

batch = _table(
    "batch",
    _integer("first", key=True),
    _integer("size", null=False),
    _integer("recorded", null=False),
    Column("previous", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)

range_ = _table(
    "range",
    _integer("space", key=True),
    _integer("start", key=True),
    _integer("npages"),
    _text("state", null=False),
    sqlite_with_rowid=False,
)

conversion = _table(
    "conversion",
    _integer("id", key=True),
    _integer("guest"),
    _integer("space"),
    _integer("thread"),
    _text("through", null=False),
    _integer("start"),
    _integer("npages"),
    _integer("attributes"),
    _text("target"),
    _integer("errno"),
    _integer("error_offset"),
    _text("state", null=False),
    _text("label", null=False),
    _text("trigger", null=False),
    _integer("request"),
    _integer("asked"),
    _integer("returned"),
    _integer("source"),
    _integer("first_line"),
    _integer("last_line"),
    _integer("last", null=False),
)

request = _table(
    "request",
    _integer("id", key=True),
    _integer("guest"),
    _integer("thread"),
    _integer("start"),
    _integer("npages"),
    _integer("flags"),
    _integer("conversions", null=False),
    _integer("result"),
    _integer("asked"),
    _integer("answered"),
    _integer("source"),
    _integer("last", null=False),
)

messed_up = _table(
    "messed_up",
    _integer("id", key=True),
    _text("cause", null=False),
    _text("state", null=False),
    _integer("pfn"),
    _integer("count"),
    _integer("guest"),
    _integer("gfn"),
    _integer("gmem"),
    _integer("page_index"),
    _text("reuse_risk", null=False),
    _text("cleared_by", null=False),
    _integer("since"),
    _integer("last", null=False),
)

source = _table(
    "source",
    _integer("id", key=True),
    _text("name"),
    _text("format"),
    _text("head", null=False),
    _integer("head_size", null=False),
    _integer("read_to", null=False),
    _integer("whole", null=False),
    _integer("last", null=False),
)

snapshot = _table(
    "snapshot",
    _integer("seq", key=True),
    _integer("fold", null=False),
    _integer("latest"),
    Column("content", LargeBinary, nullable=False),
)

PROJECTIONS = (range_, conversion, request, messed_up, source)
