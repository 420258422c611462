"""The way of logs into a ledger: several sources at once become one ordered history, and what was read before adds nothing."""

import contextlib
from collections.abc import Callable, Iterable, Iterator

from gmemstate.ingest.input import Input, LineReader
from gmemstate.ingest.merge.clocks import Distance, distance, stated
from gmemstate.ingest.merge.pairing import Pairing, placed
from gmemstate.ingest.readers.envelopes import REALTIME
from gmemstate.ingest.session import EVENTS_AT_ONCE
from gmemstate.ledger.source import INSIDE_OF, ComparedClock, Ingested, IngestedSource, RecordedSource, Refused
from gmemstate.model.errors import GmemstateError
from gmemstate.model.events import SOURCE, ClockPair, EventRow, T, details, event_of
from gmemstate.store.record import StoredRecord
from gmemstate.store.recorder import Recorder


class Intake:
    """Reads sources into one record."""

    def __init__(self, record: StoredRecord, recorder: Recorder) -> None:
        self._record = record
        self._recorder = recorder

    def read(self, names: Iterable[str], progress: Callable[[int], None] | None = None) -> Iterator[Ingested | Refused]:
        """Read sources together: those whose clocks can be compared in the order of time, all others one after the other.

        ``progress`` is given how many bytes have been read by now.
        """
        so_far: dict[int, int] = {}

        def opened(number: int, name: str) -> Input | Refused:
            def tell(offset: int) -> None:
                so_far[number] = offset
                if progress is not None:
                    progress(sum(so_far.values()))

            try:
                return Input(name, tell)
            except GmemstateError as error:
                return Refused(name, error)

        waiting = [opened(number, name) for number, name in enumerate(names)]
        while waiting:
            # The same file once more is read when the first reading is on record: nothing is added then.
            heads: set[str] = set()
            now: list[Input | Refused] = []
            later: list[Input | Refused] = []
            for one in waiting:
                head = one.head() if isinstance(one, Input) else ""
                (later if later or (head and head in heads) else now).append(one)
                heads.add(head)
            yield from self._together(now)
            waiting = later

    def follow(self, opened: LineReader) -> Ingested:
        """Read one source as it comes, each event as soon as it is known. Raises CannotRead, SourceChanged."""
        known: dict[int, int] = {}
        with contextlib.closing(IngestedSource(self._record, opened, 0, 1, known)) as source:
            self._alone(source, known, live=True)
            result = source.result(apart=False)
        if isinstance(result, Refused):
            raise result.error
        return result

    def _alone(self, source: IngestedSource, known: dict[int, int], *, live: bool = False) -> None:
        """Append the events of a source that stands for itself."""
        rows: list[EventRow] = []
        now: int | None = None
        for item in source.items():
            t = item.row[T]
            now = t if now is None else now if t is None else max(now, t)
            if item.stored is None:
                rows += [*source.introduced(item.row, now), item.row]
                source.added += 1
            if item.last:
                if rows:
                    self._recorder.append(rows, known, live=live)
                    rows.clear()
                for reference in item.closed:
                    known.pop(reference, None)

    def _together(self, opened: list[Input | Refused]) -> Iterator[Ingested | Refused]:
        known: dict[int, int] = {}
        with contextlib.ExitStack() as stack:
            sources: dict[int, IngestedSource] = {}
            for number, one in enumerate(opened):
                if isinstance(one, Input):
                    stack.callback(one.close)
                    sources[number] = IngestedSource(self._record, one, number, len(opened), known)
                    stack.callback(sources[number].close)
            stored = self._others(list(sources.values()))
            if len(sources) + len(stored) > 1:
                for source in sources.values():
                    source.look_ahead()
                self._compare(list(sources.values()), stored)
            groups = _groups(list(sources.values()))
            for group in groups:
                self._append(group, known, stored)
            good = [source for source in sources.values() if source.error is None]
            several = len(good) + len(stored) > 1
            alone = {group[0].number for group in groups if len(group) == 1} if several else set()
            for number, one in enumerate(opened):
                yield one if isinstance(one, Refused) else sources[number].result(apart=number in alone)

    def _others(self, sources: list[IngestedSource]) -> list[RecordedSource]:
        """The sources on record that are not read now, with the calls that they have shown."""
        now = {source.before.id for source in sources if source.before is not None}
        stored = {info.id: RecordedSource(self._record, info) for info in self._record.sources() if info.id not in now}
        for row in self._record.of_kinds(sorted({*INSIDE_OF, ClockPair.code})) if stored else ():
            if row[SOURCE] in stored:
                stored[row[SOURCE]].note(row)
        return list(stored.values())

    def _compare(self, sources: list[IngestedSource], stored: list[RecordedSource]) -> None:
        """Compare the clock of each source with that of the one that it shares most calls with, or that states what it was."""
        clock_pairs = {
            event.source: event
            for row in self._record.of_kinds((ClockPair.code,))
            if isinstance(event := event_of(row), ClockPair) and event.clock is not None
        }
        others: list[IngestedSource | RecordedSource] = [*sources, *stored]
        for source in sources:
            found = [
                ComparedClock(far, one.name, one.reference)
                for one in (others if source.calls.spans or source.clock == REALTIME else ())
                if one is not source and (far := _distance(source, one)) is not None
            ]
            pair = clock_pairs.get(source.id)
            if pair is not None and pair.t is not None:
                facts = details(pair.detail)
                within, mostly, calls = (facts.get(name, 0) for name in ("within", "mostly", "calls"))
                by = Distance(pair.t - pair.other, within, mostly, calls, pair.t)
                same = {one.reference: one.name for one in others if pair.clock == one.id}
                found = [one._replace(stated=True) for one in found if one.reference in same] or [
                    ComparedClock(by, name, reference, stated=True) for reference, name in same.items()
                ]
            best = max(found, key=lambda one: one.distance.calls, default=None)
            # Two sources that state what the time was may be of two hosts.
            source.compared = best if best is None or best.distance.calls or best.stated or len(found) == 1 else None

    def _append(self, group: list[IngestedSource], known: dict[int, int], stored: list[RecordedSource]) -> None:
        """Append the events of sources whose clocks are compared, in the order of time."""
        self._find_late(group, stored)
        if len(group) == 1 and group[0].compared is None:
            self._alone(group[0], known)
            return
        far = {source.number: source.compared.distance for source in group if source.compared is not None}
        pairing = Pairing(far, lambda reference: reference if reference >= 0 else known.get(reference))
        wanted = {source.compared.reference for source in group if source.compared is not None}
        streams = [placed(-one.reference, one.items(), None) for one in stored if one.reference in wanted]
        rows: list[EventRow] = []
        sources = {source.number: source for source in group}
        for source in group:  # all are introduced before the first of them says something of another one
            items = source.items()
            if (first := next(items, None)) is not None:
                if first.stored is None:
                    rows += [*source.introduced(first.row, None), first.row]
                    source.added += 1
                streams.append(placed(source.number, items, far.get(source.number)))
        for one in pairing.merged(streams):
            row, of = pairing.take(one), sources.get(one.source)
            if of is not None and one.item.stored is None:
                ahead = far[one.source].ns if one.source in far else 0
                rows += [*of.introduced(row, one.key + ahead), row]
                of.added += 1
            if len(rows) >= EVENTS_AT_ONCE or (one.item.closed and not rows):
                self._write(rows, known, pairing)
        self._write(rows, known, pairing)

    def _write(self, rows: list[EventRow], known: dict[int, int], pairing: Pairing) -> None:
        if rows:
            self._recorder.append(rows, known)
            rows.clear()
        for reference in pairing.done:
            known.pop(reference, None)
        pairing.done.clear()

    def _find_late(self, group: list[IngestedSource], stored: list[RecordedSource]) -> None:
        """Find until when what is read is older than what the others of its clock have put on record."""
        ends: list[tuple[int, int]] = []
        for source in group:
            ahead = source.compared.distance.ns if source.compared is not None else 0
            if source.before is not None and (last := self._record.last_time(source.before.id)) is not None:
                ends.append((source.number, last - ahead))
        main = next((source for source in group if source.compared is None), None)
        for one in stored:
            by = distance(one.calls, main.calls) if main is not None and one.calls.spans else None
            inside = any(source.compared is not None and source.compared.reference == one.reference for source in group)
            if (by is not None or inside) and (last := self._record.last_time(one.reference)) is not None:
                ends.append((-1, last - (by.ns if by is not None else 0)))
        for source in group:
            ahead = source.compared.distance.ns if source.compared is not None else 0
            source.until = max((end + ahead for number, end in ends if number != source.number), default=None)


def _distance(source: IngestedSource, other: IngestedSource | RecordedSource) -> Distance | None:
    """How far the clock of a source that sees calls from outside is ahead: by calls that both show, else by what is stated."""
    found = distance(source.calls, other.calls) if other.calls.moments else None
    return stated(other.calls) if found is None and source.clock == REALTIME else found


def _groups(sources: list[IngestedSource]) -> list[list[IngestedSource]]:
    """The sources whose clocks are compared with one another; each group in the place of its first."""
    groups: dict[int, list[IngestedSource]] = {}
    for source in sources:
        groups.setdefault(source.compared.reference if source.compared is not None else source.reference, []).append(source)
    return sorted(groups.values(), key=lambda group: group[0].number)
