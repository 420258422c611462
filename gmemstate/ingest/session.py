"""One reading of one source: its lines become events, and every line is accounted for.

The same lines give the same events, however often and in how many pieces they are read: that is how a file that has grown
is continued.
"""

from collections.abc import Iterator

from gmemstate.ingest.correlate.tracker import Tracker
from gmemstate.ingest.fact import Context, Fact, Marker
from gmemstate.ingest.input import Account, LineReader, as_text
from gmemstate.ingest.merge.clocks import Calls
from gmemstate.ingest.readers.detect import FormatDetector, formats, proves
from gmemstate.model.errors import CannotRead
from gmemstate.model.events import Event, SourceOpened, SourceRead, detail
from gmemstate.model.reports import SourceFormat, formats_of
from gmemstate.text import printable

EVENTS_AT_ONCE = 1000
"""About how many events are handed over at once."""
LOGS = frozenset((SourceFormat.KERNEL_LOG, SourceFormat.QEMU, SourceFormat.VMM_LOG))
"""Formats in which people read that something failed."""
GIVE_UP_AFTER = 100_000
"""After how many lines without one that is understood an input is given up."""


class IngestSession:
    """Turns an input into events. ``pauses`` are the offsets at which earlier readings of the same source ended.

    ``caught_up`` says that everything which earlier readings have put on record was made again: only then may this one
    pause of its own.
    """

    def __init__(self, source: LineReader, pauses: tuple[int, ...] = ()) -> None:
        self.input = source
        self.account = Account()
        self.tracker = Tracker()
        self.calls: Calls | None = None
        """where the calls that it shows are noted, if its clock is to be compared"""
        self.gaps = 0
        self.caught_up = not pauses
        self._reader = FormatDetector()
        self._pauses = set(pauses)
        self._expected = 0
        self._understood = False
        self._of_a_log = False

    @property
    def clock(self) -> str | None:
        """The clock of the times so far, if they name one."""
        return self._reader.clock.name

    @property
    def damage(self) -> str | None:
        """Why the source is not whole, if it is not."""
        if self.input.damage is not None:
            return self.input.damage
        if self._reader.entries < self._expected:
            return f"{self._expected - self._reader.entries} of {self._expected} entries that its header names are missing"
        return None

    def events(self) -> Iterator[list[Event]]:
        """All events in order, in lists. Raises CannotRead before the first if nothing is understood."""
        name = printable(self.input.name)
        known, clock = formats(self.input.first_lines())
        self._of_a_log = not formats_of(known).isdisjoint(LOGS)
        opened = SourceOpened(
            source=self.tracker.source,
            detail=detail(name=name, format=known, clock=clock, head=self.input.head(), head_size=self.input.head_size),
        )
        self.tracker.made.append(opened)
        if self.input.offset in self._pauses:
            yield self._pause()
        yield from self._lines()
        if not self._understood:
            if self.input.stopped and not self.account.lines:
                return
            raise CannotRead(self._complaint(name))
        if self.input.stopped and not self.caught_up:
            yield self.tracker.take()
        if self.input.offset not in self._pauses and (self.caught_up or not self.input.stopped):
            yield self._pause()

    def _lines(self) -> Iterator[list[Event]]:
        """The events of all lines; they end early where none of the first ones is understood."""
        for raw in self.input.lines():
            if raw is None:
                yield from self._due()
                continue
            self._read(as_text(raw))
            if len(self.tracker.made) >= EVENTS_AT_ONCE and self._understood:
                yield self.tracker.take()
            if self.account.lines == GIVE_UP_AFTER and not self._understood:
                break
            if self.input.offset in self._pauses:
                yield self._pause()

    def _due(self) -> Iterator[list[Event]]:
        """What is known so far, and the report that the kernel is printing. Pages in a row wait for the end of their row.

        Only the second makes a pause that has to be on record: the same lines read without it would make other events.
        """
        if self._understood and self.tracker.made:
            yield self.tracker.take()
        if self.tracker.report is not None and self.caught_up and self.input.offset not in self._pauses:
            yield self._pause()

    def _complaint(self, name: str) -> str:
        first = (
            f"; line {self.account.first_unparsed[0][0]} is: {self.account.first_unparsed[0][1]}"
            if self.account.unparsed
            else ""
        )
        cut = f"; {self.input.damage}" if self.input.damage is not None else ""
        return (
            f"{name}: no line of a known format among {self.account.lines}{first}{cut}. "
            "gmemstate reads ftrace, perf, strace and bpftrace, kernel logs, and logs of QEMU and other VMMs, plain or .gz"
        )

    def _read(self, text: str) -> None:
        account = self.account
        account.lines += 1
        parsed = self._reader.parse(account.lines, text)
        if isinstance(parsed, Fact):
            self._understood = True
            if self.calls is not None:
                self.calls.note(parsed)
            self._count(self.tracker.feed(parsed), parsed.name)
        elif parsed is None:
            account.add_unparsed(account.lines, text)
            if self._of_a_log:
                account.note_failure(account.lines, text)
        elif isinstance(parsed, Context):
            self._understood = self._understood or parsed.proof
            account.context[parsed.kind] += 1
            if parsed.kind in LOGS:
                account.note_failure(account.lines, text)
        elif isinstance(parsed, list):
            self._understood = True
            used = [self.tracker.feed(fact) for fact in parsed]
            self._count(any(used), parsed[0].name)
        else:
            self._mark(parsed)

    def _count(self, used: bool, name: str) -> None:
        """Count a line that says something; and the one before, if it took both to say it."""
        lines = 1 + self._reader.joined
        if self._reader.joined:
            self.account.take_back_unparsed()
        if used:
            self.account.used += lines
        else:
            self.account.context[name] += lines

    def _mark(self, marker: Marker) -> None:
        self._understood = self._understood or proves(marker)
        if marker.name == "header" and self.tracker.threads:
            self.tracker.restart()
        self._expected += marker.entries or 0
        if marker.name == "header" or (marker.name == "entries" and not marker.lost):
            self.account.context["header and blank lines"] += 1
        else:
            self.gaps += 1
            self.tracker.mark(marker)
            self.account.used += 1

    def _pause(self) -> list[Event]:
        """The end of the input, for now: what is pending becomes events, and the account is put on record."""
        self._pauses.add(self.input.offset)
        self.tracker.flush()
        damage = self.damage
        facts = {**self.account.stored(), "digest": self.input.digest, "damage": damage, "entries": self._reader.entries}
        read = SourceRead(
            offset=self.input.offset, whole=int(damage is not None), line=self.account.lines, detail=detail(**facts)
        )
        self.tracker.emit(read)
        return self.tracker.take()
