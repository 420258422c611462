"""Moments as a caller names them: the seq of an event, or a time of the clock that all sources are compared with."""

import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from gmemstate.audit.history.history import MARKS
from gmemstate.audit.history.moment import moment_at
from gmemstate.model import events as e
from gmemstate.model.errors import UsageError
from gmemstate.model.events import KIND, SEQ, SOURCE, T, event_of
from gmemstate.model.objects import Source
from gmemstate.model.record import Record
from gmemstate.model.units import NS, seconds


def seq_of(record: Record, at: str | int | None) -> int | None:
    """The seq that a moment means: a seq itself, or a time of the source's clock in seconds ("5.31", "5s").

    A time means the state before the first event that is later and did not come late. Raises UsageError for an
    invalid moment, for an event that is not on record, and for a time where several sources have each their own clock.
    """
    if at is None:
        return None
    match = _MOMENT.fullmatch(str(at).strip())
    if match is None:
        raise UsageError(f"invalid moment {at!r}: give the number of an event (like 42) or a time in seconds (like 5.31)")
    if match["seq"] is not None:
        wanted, head = int(match["seq"]), record.head().seq
        if wanted > head:
            raise UsageError(f"there is no event {wanted}: the last one is {head}", last=head)
        return wanted
    return _event_at(record, int(Decimal(match["time"]) * NS))


def since(record: Record, at: str | int | None) -> int:
    """The first seq from a moment on: a seq itself, or that of the first event not earlier than a time.

    Raises UsageError as :func:`seq_of`.
    """
    if at is None:
        return 1
    match = _MOMENT.fullmatch(str(at).strip())
    if match is None or match["seq"] is not None:
        return seq_of(record, at) or 1
    return _event_at(record, int(Decimal(match["time"]) * NS) - 1) + 1


_MOMENT = re.compile(r"(?P<seq>[0-9]{1,18})|(?P<time>[0-9]{1,12}(?:\.[0-9]*)?|\.[0-9]+)s?")


def _event_at(record: Record, time: int) -> int:
    """The seq of the last event before the first that is later than a time (ns) and did not come late."""
    now = moment_at(record)
    sources = now.memory.sources
    clocks = [source.id for source in sources.values() if source.reference is None]
    if len(clocks) > 1:
        names = ", ".join(now.sources[id].name for id in clocks[:4])
        raise UsageError(
            f"{seconds(time)} s is ambiguous: {names} each have a clock of their own; "
            "name the moment by the number of an event (`gmemstate events` lists them)"
        )
    last = 0 if len(sources) > 1 else record.remembered(time=time).memory.seq
    for row, late in _with_lateness(record.events(last + 1)):
        if not late and (t := _time(row, sources)) is not None and t > time:
            break
        last = row[SEQ]
    return last


def late_marks(record: Record, at: str | int | None, last: int | None) -> Iterator[e.EventRow]:
    """Late events after event ``last`` that mark host pages up to a time, with the events about their sources."""
    match = _MOMENT.fullmatch(str(at).strip())
    if last is None or match is None or match["time"] is None:
        return
    sources = moment_at(record).memory.sources
    if not any(source.late for source in sources.values()):
        return
    time = int(Decimal(match["time"]) * NS)
    for row, late in _with_lateness(record.events(last + 1)):
        source = sources.get(row[SOURCE] or 0)
        if source is None or not source.late:
            continue
        about = row[KIND] in (e.SourceOpened.code, e.ClockPair.code) or (row[KIND] == e.Gap.code and late)
        if about or (late and row[KIND] in MARKS and (t := _time(row, sources)) is not None and t <= time):
            yield row


def _time(row: e.EventRow, sources: Mapping[int, Source]) -> int | None:
    """The time of an event on the clock that all sources are compared with."""
    source = sources.get(row[SOURCE] or 0)
    ahead = source.ahead if source is not None else 0
    return None if row[T] is None or row[KIND] == e.ClockPair.code else row[T] - ahead


def _with_lateness(rows: Iterable[e.EventRow]) -> Iterator[tuple[e.EventRow, bool]]:
    """Events, each with whether it came later than others of its time."""
    until: dict[int | None, int] = {}
    for row in rows:
        source, t = row[SOURCE], row[T]
        if row[KIND] == e.Gap.code and t is not None and _begins_late(row):
            until[source] = t
        elif until and source in until and t is not None and t > until[source]:
            del until[source]
        yield row, source in until


def _begins_late(gap: e.EventRow) -> bool:
    event = event_of(gap)
    return isinstance(event, e.Gap) and event.gap is e.GapKind.LATE
