"""Events one by one, for people and for other programs."""

import json
from enum import IntEnum
from typing import Any

from gmemstate.model.events import Event, SourceOpened, details
from gmemstate.model.units import END, seconds, span

_HEX = ("pointer", "pfn", "attributes", "flags", "offset", "error_offset", "address", "iova")


def event_json(seq: int, event: Event) -> str:
    """One event as one line of JSON."""
    return json.dumps(event_facts(seq, event), ensure_ascii=False)


def event_facts(seq: int, event: Event) -> dict[str, Any]:
    """What an event says, with the names of its kind, as JSON has it."""
    facts: dict[str, Any] = {"seq": seq, "kind": event.name}
    for field in event.columns:
        value = getattr(event, field)
        if value is None or field == "detail":
            continue
        if isinstance(value, IntEnum):
            value = value.name.lower()
        elif field in _HEX or field in ("start", "index"):
            value = f"{value:#x}"
        elif field == "t":
            value = str(value)
        facts[field] = value
    if event.detail is not None:
        facts["detail"] = details(event.detail)
    return facts


def event_line(seq: int, event: Event) -> str:
    """One event as a person reads it."""
    parts = [f"{seq:>6} {seconds(event.t):>14} {event.name:20}"]
    start, npages = getattr(event, "start", None), getattr(event, "npages", None)
    if start is not None:
        parts.append(span(start, END if npages is None else start + npages))
    for field in event.columns:
        value = getattr(event, field)
        if value is None or field in ("t", "source", "line", "detail", "start", "npages"):
            continue
        if isinstance(value, IntEnum):
            value = value.name.lower()
        parts.append(f"{field}={value:#x}" if field in _HEX else f"{field}={value}")
    if isinstance(event, SourceOpened):
        facts = details(event.detail)
        parts.append(f"name={facts.get('name', '?')} format={facts.get('format', '?')}")
    if event.line is not None:
        parts.append(f"line={event.line}")
    return " ".join(parts).rstrip()
