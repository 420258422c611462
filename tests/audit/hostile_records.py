"""Records that are sealed as they should be and say anything: made of honest ones by changing a few values."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gmemstate.model.encoding import NO_HASH, seal
from gmemstate.model.events import DETAIL, KIND, KINDS, SEQ, UNUSABLE, EventRow, details
from gmemstate.store.jsonl import JsonlRecord

NUMBERS = (0, 1, 2, -1, -5, 7, 3, 4096, 1 << 31, 1 << 52, (1 << 63) - 1, -(1 << 63), 999_999)
FACTS: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, 1.5, "", "x", "0x", "0x1g", "0xffffffffffffffff", "-0x1", "\x1b[31m", "\ud800",
    "a\u202eb", "9" * 400, [], {}, [1], [[1, 2]], [["0x1", "0x2"]], {"a": 1}, {"a": [1]}, [[[]]], 10**300,
)  # fmt: skip
DETAILS = (
    "", "{", "{not json", "null", "[]", "1", "NaN", '"x"', '{"a":NaN}', "[" * 5000, '{"a":' * 3000, "9" * 5000, "\x00",
    '{"name":null}', '{"format":[]}', '{"head_size":"x"}', '{"comm":7}', '{"hva":"x"}',
    '{"gpa":"y","pages":"z"}', '{"context":[]}',
)  # fmt: skip
KEYS = [
    "name",
    "format",
    "head",
    "head_size",
    "comm",
    "code",
    "what",
    "why",
    "to",
    "pages",
    "gpa",
    "gfn",
    "size",
    "address",
    "hva",
    "thread",
    "entries",
    "context",
    "lines",
    "used",
    "unparsed",
    "damage",
    "text",
    "user",
    "page",
    "leaf",
    "status",
    "state",
    "level",
    "entry",
    "path",
    "function",
    "reported",
    "cause",
    "action",
    "replaced",
    "calls",
    "within",
    "kept",
    "at",
    "last",
    "near",
]


def mutated(row: EventRow, dice: random.Random) -> EventRow:
    """A row with one column, or one fact of its detail, changed to something."""
    values: list[Any] = list(row)
    way = dice.randrange(10)
    if way < 4:
        column = dice.randrange(1, DETAIL)
        values[column] = dice.choice((None, *NUMBERS, *([row[SEQ], row[SEQ] - 1, row[SEQ] + 1] if way else sorted(KINDS))))
        if column == KIND and values[column] is None:
            values[column] = 0
    elif way < 6:
        values[DETAIL] = dice.choice(DETAILS)
    else:
        try:
            facts = details(values[DETAIL])
        except (ValueError, RecursionError):
            facts = {}
        facts = facts if isinstance(facts, dict) else {}
        name = dice.choice(sorted(facts)) if facts and dice.random() < 0.6 else dice.choice(KEYS)
        if dice.random() < 0.2:
            facts.pop(name, None)
        else:
            facts[name] = dice.choice(FACTS)
        values[DETAIL] = json.dumps(facts)
    return tuple(values)


def mutation(rows: Sequence[EventRow], dice: random.Random, most: int = 3) -> list[EventRow]:
    """A record in which one event, or a few, say something else."""
    changed = list(rows)
    for _ in range(dice.randint(1, most)):
        at = dice.randrange(len(changed))
        changed[at] = mutated(changed[at], dice)
    return changed


def write(path: Path, rows: Sequence[EventRow], recorded: int = 1) -> Path:
    """An export of one batch with these rows, sealed as they are."""
    batch = seal(rows, 1, recorded, NO_HASH)
    lines: list[Any] = [
        {"gmemstate": "record", "format": 1},
        {**batch._asdict(), "previous": batch.previous.hex(), "hash": batch.hash.hex()},
        *(row[1:] for row in rows),
        {"events": len(rows), "hash": batch.hash.hex()},
    ]
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines), encoding="utf-8")
    return path


def unusable(path: Path) -> dict[int, str]:
    """The events of an export that cannot be events by themselves, and why."""
    found = (row for row in JsonlRecord(path).events() if row[KIND] == UNUSABLE)
    return {row[SEQ]: details(row[DETAIL])["why"] for row in found}
