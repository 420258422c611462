"""The first schema: the record, its guards, its projections and one view per kind of event."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

EVENT_COLUMNS = (
    "t",
    "kind",
    "source",
    "space",
    "conversion",
    "start",
    "npages",
    "result",
    "value",
    "actor",
    "line",
    "detail",
)

# name: (number, {name of the view's column: name of the event's column})
VIEWS = {
    "source_opened": (1, {"t": "t", "source": "source", "line": "line", "detail": "detail"}),
    "clock_pair": (2, {"t": "t", "source": "source", "other": "value", "clock": "actor", "line": "line", "detail": "detail"}),
    "gap": (
        3,
        {"t": "t", "source": "source", "gap": "actor", "count": "value", "space": "space", "line": "line", "detail": "detail"},
    ),
    "source_shows": (4, {"t": "t", "source": "source", "capability": "value", "line": "line", "detail": "detail"}),
    "source_read": (
        5,
        {"t": "t", "source": "source", "offset": "value", "whole": "result", "line": "line", "detail": "detail"},
    ),
    "host_booted": (10, {"t": "t", "source": "source", "line": "line", "detail": "detail"}),
    "vm_seen": (
        11,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "made": "result",
            "pointer": "value",
            "thread": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "vm_created": (
        12,
        {"t": "t", "source": "source", "space": "space", "dialect": "value", "line": "line", "detail": "detail"},
    ),
    "vm_destroyed": (13, {"t": "t", "source": "source", "space": "space", "line": "line", "detail": "detail"}),
    "vm_bugged": (14, {"t": "t", "source": "source", "space": "space", "cause": "value", "line": "line", "detail": "detail"}),
    "vm_dead": (15, {"t": "t", "source": "source", "space": "space", "cause": "value", "line": "line", "detail": "detail"}),
    "vcpu_exited": (
        16,
        {
            "t": "t",
            "source": "source",
            "thread": "actor",
            "space": "space",
            "reason": "value",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "slot_set": (
        20,
        {
            "t": "t",
            "source": "source",
            "slot": "actor",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "flags": "value",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "gmem_created": (
        21,
        {
            "t": "t",
            "source": "source",
            "vm": "actor",
            "npages": "npages",
            "flags": "value",
            "result": "result",
            "space": "space",
            "line": "line",
            "detail": "detail",
        },
    ),
    "gmem_seen": (
        22,
        {"t": "t", "source": "source", "space": "space", "pointer": "value", "vm": "actor", "line": "line", "detail": "detail"},
    ),
    "gmem_bound": (
        23,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "index": "value",
            "gmem": "actor",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "gmem_unbound": (
        24,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "index": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "gmem_released": (
        25,
        {"t": "t", "source": "source", "space": "space", "npages": "npages", "line": "line", "detail": "detail"},
    ),
    "guest_asked": (
        30,
        {
            "t": "t",
            "source": "source",
            "request": "conversion",
            "thread": "actor",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "flags": "value",
            "path": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "guest_answered": (
        31,
        {
            "t": "t",
            "source": "source",
            "request": "conversion",
            "result": "result",
            "space": "space",
            "thread": "actor",
            "next_gpa": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "memory_fault_exit": (
        32,
        {
            "t": "t",
            "source": "source",
            "thread": "actor",
            "result": "result",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "flags": "value",
            "raced": "conversion",
            "line": "line",
            "detail": "detail",
        },
    ),
    "convert_asked": (
        40,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "through": "result",
            "space": "space",
            "thread": "actor",
            "start": "start",
            "npages": "npages",
            "attributes": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "convert_attempted": (
        41,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "start": "start",
            "npages": "npages",
            "attributes": "value",
            "space": "space",
            "thread": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "convert_returned": (
        42,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "result": "result",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "error_offset": "value",
            "thread": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "attrs_compared": (
        43,
        {
            "t": "t",
            "source": "source",
            "start": "start",
            "npages": "npages",
            "attributes": "value",
            "equal": "result",
            "space": "space",
            "conversion": "conversion",
            "thread": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "work_item": (
        44,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "line": "line",
            "detail": "detail",
        },
    ),
    "reserved": (
        45,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "result": "result",
            "space": "space",
            "line": "line",
            "detail": "detail",
        },
    ),
    "zap_started": (
        46,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "attributes": "value",
            "slot": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "invalidate_added": (
        47,
        {
            "t": "t",
            "source": "source",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "conversion": "conversion",
            "line": "line",
            "detail": "detail",
        },
    ),
    "invalidate_ended": (
        48,
        {"t": "t", "source": "source", "conversion": "conversion", "space": "space", "line": "line", "detail": "detail"},
    ),
    "user_answered": (
        49,
        {
            "t": "t",
            "source": "source",
            "user": "actor",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "conversion": "conversion",
            "result": "result",
            "entries": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "users_checked": (
        50,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "start": "start",
            "npages": "npages",
            "result": "result",
            "space": "space",
            "references": "value",
            "expected": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "attrs_stored": (
        51,
        {
            "t": "t",
            "source": "source",
            "start": "start",
            "npages": "npages",
            "attributes": "value",
            "space": "space",
            "conversion": "conversion",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "folio_split": (
        52,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "result": "result",
            "order": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "folio_merged": (
        53,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "result": "result",
            "order": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "undone": (
        54,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "hva_unmapped": (
        55,
        {
            "t": "t",
            "source": "source",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "conversion": "conversion",
            "line": "line",
            "detail": "detail",
        },
    ),
    "fault_served": (
        60,
        {
            "t": "t",
            "source": "source",
            "access": "actor",
            "start": "start",
            "npages": "npages",
            "space": "space",
            "result": "result",
            "pfn": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "private_mapped": (
        61,
        {
            "t": "t",
            "source": "source",
            "pfn": "value",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "line": "line",
            "detail": "detail",
        },
    ),
    "private_map_failed": (
        62,
        {
            "t": "t",
            "source": "source",
            "pfn": "value",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "status": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "private_unmap_failed": (
        63,
        {
            "t": "t",
            "source": "source",
            "step": "actor",
            "pfn": "value",
            "space": "space",
            "conversion": "conversion",
            "start": "start",
            "npages": "npages",
            "status": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "page_leaked": (
        64,
        {
            "t": "t",
            "source": "source",
            "pfn": "start",
            "npages": "npages",
            "space": "space",
            "line": "line",
            "detail": "detail",
        },
    ),
    "hkid_leaked": (65, {"t": "t", "source": "source", "hkid": "value", "line": "line", "detail": "detail"}),
    "reclaim_failed": (
        66,
        {
            "t": "t",
            "source": "source",
            "pfn": "value",
            "space": "space",
            "status": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "page_added": (
        67,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "pfn": "value",
            "order": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "page_freed": (
        68,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "pfn": "value",
            "order": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "punched": (
        69,
        {
            "t": "t",
            "source": "source",
            "mode": "value",
            "result": "result",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "thread": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "poisoned": (
        70,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "pfn": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "rmp_violation": (71, {"t": "t", "source": "source", "pfn": "value", "space": "space", "line": "line", "detail": "detail"}),
    "general_protection": (72, {"t": "t", "source": "source", "address": "value", "line": "line", "detail": "detail"}),
    "machine_check": (73, {"t": "t", "source": "source", "pfn": "value", "line": "line", "detail": "detail"}),
    "dma_mapped": (
        80,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "owner": "actor",
            "iova": "value",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "dma_unmapped": (
        81,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "owner": "actor",
            "iova": "value",
            "result": "result",
            "line": "line",
            "detail": "detail",
        },
    ),
    "pinned": (
        82,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "owner": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "unpinned": (
        83,
        {
            "t": "t",
            "source": "source",
            "space": "space",
            "start": "start",
            "npages": "npages",
            "owner": "actor",
            "line": "line",
            "detail": "detail",
        },
    ),
    "spinning": (
        84,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "space": "space",
            "references": "value",
            "line": "line",
            "detail": "detail",
        },
    ),
    "task_stuck": (
        85,
        {
            "t": "t",
            "source": "source",
            "thread": "actor",
            "conversion": "conversion",
            "space": "space",
            "line": "line",
            "detail": "detail",
        },
    ),
    "task_signalled": (
        86,
        {
            "t": "t",
            "source": "source",
            "thread": "actor",
            "signal": "value",
            "reason": "result",
            "space": "space",
            "conversion": "conversion",
            "line": "line",
            "detail": "detail",
        },
    ),
    "kernel_warned": (
        87,
        {"t": "t", "source": "source", "thread": "actor", "space": "space", "line": "line", "detail": "detail"},
    ),
    "vmm_said": (88, {"t": "t", "source": "source", "space": "space", "result": "result", "line": "line", "detail": "detail"}),
    "declared": (
        90,
        {
            "t": "t",
            "source": "source",
            "conversion": "conversion",
            "how": "result",
            "space": "space",
            "line": "line",
            "detail": "detail",
        },
    ),
}


def _table(name: str, *columns: "sa.Column[object]") -> None:
    op.create_table(name, *columns, sqlite_strict=True)


def _integer(name: str, *, key: bool = False, null: bool = True) -> "sa.Column[object]":
    return sa.Column(name, INTEGER, primary_key=key, nullable=null and not key, autoincrement=False)


def _text(name: str, *, null: bool = True) -> "sa.Column[object]":
    return sa.Column(name, sa.Text, nullable=null)


def _blob(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    _record()
    _guards()
    _projections()
    for name, (kind, columns) in VIEWS.items():
        chosen = ", ".join(column if column == shown else f'{column} AS "{shown}"' for shown, column in columns.items())
        op.execute(f'CREATE VIEW "{name}" AS SELECT seq, {chosen} FROM event WHERE kind = {kind}')


def _record() -> None:
    _table(
        "event",
        _integer("seq", key=True),
        *(_text(name) if name == "detail" else _integer(name, null=name != "kind") for name in EVENT_COLUMNS),
    )
    _table(
        "batch",
        _integer("first", key=True),
        _integer("size", null=False),
        _integer("recorded", null=False),
        _blob("previous"),
        _blob("hash"),
    )


def _guards() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in ("event", "batch"):
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, 'the record is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION gmemstate_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the record is append-only'; END $$"
    )
    for table in ("event", "batch"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION gmemstate_append_only()"
        )


def _projections() -> None:
    _table("range", _integer("space", key=True), _integer("start", key=True), _integer("npages"), _text("state", null=False))
    _table(
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
    _table(
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
    _table(
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
    _table(
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
