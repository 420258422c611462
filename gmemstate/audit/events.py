"""Events as JSON, and which of them are wanted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, Self

from gmemstate.model.document import Answer, Json
from gmemstate.model.errors import UsageError
from gmemstate.model.events import KIND, NPAGES, OWNER, START, Event, EventRow, conversion_of, details
from gmemstate.model.memory import Memory
from gmemstate.model.units import END, PageRange, Unit
from gmemstate.narrate import Narrator

_HEX = ("pointer", "pfn", "attributes", "flags", "offset", "error_offset", "address", "iova")


def event_facts(seq: int, event: Event) -> dict[str, Any]:
    """What an event says, with the names of its kind, as JSON has it."""
    facts: dict[str, Any] = {"seq": seq, "kind": event.name}
    for name in event.columns:
        value = getattr(event, name)
        if value is None or name == "detail":
            continue
        if isinstance(value, IntEnum):
            value = value.name.lower()
        elif name in _HEX or name in ("start", "index"):
            value = f"{value:#x}"
        elif name == "t":
            value = str(value)
        facts[name] = value
    if event.detail is not None:
        facts["detail"] = details(event.detail)
    return facts


@dataclass(frozen=True, slots=True)
class RecordedEvent(Answer):
    """An event with its seq, and one sentence for it."""

    seq: int
    event: Event
    narrator: Callable[[], Narrator] = field(repr=False, compare=False)

    @property
    def text(self) -> str:
        """What happened, in one sentence without a full stop."""
        return self.narrator().sentence(self.event)

    @property
    def evidence(self) -> str | None:
        """The line that shows it (``dmesg.txt:7``); None where it was not read anywhere."""
        return self.narrator().evidence(self.event) or None

    def __str__(self) -> str:
        return self.narrator().line(self.seq, self.event)

    def _facts(self) -> dict[str, Json]:
        """The names of its kind with what it says of each, the sentence, and the line that shows it."""
        return {**event_facts(self.seq, self.event), "text": self.text, "evidence": self.evidence}


class Filter(NamedTuple):
    """Which events are wanted; None lets everything through."""

    kind: int | None = None
    owners: frozenset[int] | None = None
    conversion: int | None = None
    start: int = 0
    end: int = END

    @classmethod
    def of(
        cls, memory: Memory | None, kind: int | None, guest: str | None, conversion: int | None, place: PageRange | None
    ) -> Self:
        """A filter in the words of a person; ``memory`` knows the guests. Raises UsageError for a guest that is not there."""
        owners: frozenset[int] | None = None
        if memory is not None:
            vms = {vm.id for vm in memory.vms.values() if guest in (None, vm.name)}
            if not vms:
                names = ", ".join(vm.name for vm in memory.vms.values()) or "there are none"
                raise UsageError(f"{guest!r} is not a guest of this ledger: {names}")
            gmems = {gmem.id for gmem in memory.gmems.values() if guest is None or gmem.vm in vms}
            owners = frozenset(vms | gmems if place is None else gmems if place.unit is Unit.INDEX else vms)
        start, end = (0, END) if place is None else (place.start, place.end)
        return cls(kind, owners, conversion, start, end)

    def lets(self, row: EventRow) -> bool:
        """Whether an event is wanted; one without pages is wanted only where no pages are asked for."""
        if self.kind not in (None, row[KIND]) or self.conversion not in (None, conversion_of(row)):
            return False
        if self.owners is not None and row[OWNER] not in self.owners:
            return False
        if (self.start, self.end) == (0, END):
            return True
        start = row[START]
        return (
            start is not None and start < self.end and self.start < (END if row[NPAGES] is None else start + (row[NPAGES] or 1))
        )
