"""The first schema: the record, its guards, its projections and one view per kind of event."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INTEGER = sa.BigInteger().with_variant(sa.Integer, "sqlite")

EVENT_COLUMNS = ("t", "kind", "source", "space", "conversion", "start", "npages", "result", "value", "actor", "line", "detail")

# number name: its columns of the table `event`, each with the name that it has in the view
VIEWS = """
1 source_opened:
2 clock_pair: value other, actor clock
3 gap: actor gap, value count, space
4 source_shows: value capability, space
5 source_read: value offset, result whole
10 host_booted:
11 vm_seen: space, result made, value pointer, actor thread
12 vm_created: space, value dialect
13 vm_destroyed: space
14 vm_bugged: space, value cause
15 vm_dead: space, value cause
16 vcpu_exited: actor thread, space, value reason, result
17 dialect_seen: space, value dialect
20 slot_set: actor slot, space, start, npages, value flags, result
21 gmem_created: actor vm, npages, value flags, result, space
22 gmem_seen: space, value pointer, actor vm
23 gmem_bound: space, start, npages, value index, actor gmem, result
24 gmem_unbound: space, start, npages, value index
25 gmem_released: space, npages
30 guest_asked: conversion request, actor thread, space, start, npages, value flags, result path
31 guest_answered: conversion request, result, space, actor thread, value next_gpa
32 memory_fault_exit: actor thread, result, space, start, npages, value flags, conversion raced
39 convert_met: conversion, result through, space, actor thread, start, npages, value attributes
40 convert_asked: conversion, result through, space, actor thread, start, npages, value attributes
41 convert_attempted: conversion, start, npages, value attributes, space, actor thread
42 convert_returned: conversion, result, start, npages, space, value error_offset, actor thread
43 attrs_compared: start, npages, value attributes, result equal, space, conversion, actor thread
44 work_item: conversion, space, start, npages
45 reserved: conversion, result, space
46 zap_started: conversion, start, npages, space, value attributes, actor slot
47 invalidate_added: start, npages, space, conversion
48 invalidate_ended: conversion, space
49 user_answered: actor user, start, npages, space, conversion, result, value entries
50 users_checked: conversion, start, npages, result, space, value references, actor expected
51 attrs_stored: start, npages, value attributes, space, conversion, result
52 folio_split: conversion, space, start, npages, result, value order
53 folio_merged: conversion, space, start, npages, result, value order
54 undone: conversion, space, start, npages, result, value attributes
55 hva_unmapped: start, npages, space, conversion
60 fault_served: actor access, start, npages, space, result, value pfn
61 private_mapped: value pfn, space, start, npages
62 private_map_failed: value pfn, space, start, npages, result status
63 private_unmap_failed: actor step, value pfn, space, conversion, start, npages, result status
64 page_leaked: start pfn, npages, space
65 hkid_leaked: value hkid
66 reclaim_failed: value pfn, space, result status
67 page_added: space, start, npages, value pfn, actor order
68 page_freed: space, start, npages, value pfn, actor order
69 punched: value mode, result, space, start, npages, actor thread
70 poisoned: space, start, npages, value pfn
71 rmp_violation: value pfn, space
72 general_protection: value address
73 machine_check: value pfn
80 dma_mapped: space, start, npages, actor owner, value iova, result
81 dma_unmapped: space, start, npages, actor owner, value iova, result
82 pinned: space, start, npages, actor owner
83 unpinned: space, start, npages, actor owner
84 spinning: conversion, space, value references
85 task_stuck: actor thread, conversion, space
86 task_signalled: actor thread, value signal, result reason, space, conversion
87 kernel_warned: actor thread, space
88 vmm_said: space, result
89 dma_faulted: space, start, npages, actor owner
90 declared: conversion, result how, space
91 interrupted: conversion, space
"""


def _table(name: str, *columns: "sa.Column[object]", **options: object) -> None:
    op.create_table(name, *columns, sqlite_strict=True, **options)


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
    for line in VIEWS.strip().splitlines():
        kind, name, columns = re.fullmatch(r"(\d+) (\w+):(.*)", line).groups()
        chosen = "".join(f", {column}" for column in re.sub(r"(\w+) (\w+)", r'\1 AS "\2"', columns).split(",") if column)
        op.execute(f'CREATE VIEW "{name}" AS SELECT seq, t, source, line{chosen}, detail FROM event WHERE kind = {kind}')


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
        for table, key in (("event", "seq"), ("batch", "first")):
            # REPLACE deletes without firing a trigger of DELETE.
            taken = f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
            for name, when in (("update", "UPDATE"), ("delete", "DELETE"), ("replace", "INSERT")):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{name} BEFORE {when} ON {table} {taken if when == 'INSERT' else ''} "
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
    _table(
        "range",
        _integer("space", key=True),
        _integer("start", key=True),
        _integer("npages"),
        _text("state", null=False),
        sqlite_with_rowid=False,
    )
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
