"""One reading of one source: its lines in, its events out, every line accounted for.

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
from gmemstate.text import printable

AT_ONCE = 1000
"""About how many events are handed over at once."""
PATIENCE = 100_000
"""After how many lines without one that is understood the input is given up."""


class Reading:
    """Turns an input into events. ``pauses`` are the offsets at which earlier readings of the same source ended.

    ``caught_up`` says that everything which earlier readings have put on record was made again: only then may this one
    pause of its own.
    """

    def __init__(self, source: LineReader, pauses: tuple[int, ...] = ()) -> None:
        self.input = source
        self.account = Account()
        self.tracker = Tracker()
        self.calls: Calls | None = None
        """where the calls that it shows are noted, if somebody wants to compare its clock"""
        self.gaps = 0
        self.caught_up = not pauses
        self._reader = FormatDetector()
        self._pauses = set(pauses)
        self._expected = 0
        self._understood = False

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
        opened = SourceOpened(
            source=self.tracker.source,
            detail=detail(name=name, format=known, clock=clock, head=self.input.head(), head_size=self.input.head_size),
        )
        self.tracker.made.append(opened)
        if self.input.offset in self._pauses:
            yield self._pause()
        number = 0
        for raw in self.input.lines():
            if raw is None:
                yield from self._due()
                continue
            number += 1
            self._take(number, as_text(raw))
            if len(self.tracker.made) >= AT_ONCE and self._understood:
                yield self.tracker.take()
            if number == PATIENCE and not self._understood:
                break
            if self.input.offset in self._pauses:
                yield self._pause()
        if not self._understood:
            if self.input.stopped and not number:
                return
            raise CannotRead(self._complaint(name))
        if self.input.stopped and not self.caught_up:
            yield self.tracker.take()
        if self.input.offset not in self._pauses and (self.caught_up or not self.input.stopped):
            yield self._pause()

    def _due(self) -> Iterator[list[Event]]:
        """What is known so far, and what the kernel is in the middle of telling. Pages in a row wait for the end of their row.

        Only the second makes a pause that has to be on record, as the same lines read without it would tell it otherwise.
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

    def _take(self, number: int, text: str) -> None:
        account = self.account
        account.lines += 1
        said = self._reader.parse(number, text)
        if isinstance(said, Fact):
            self._understood = True
            if self.calls is not None:
                self.calls.note(said)
            self._count(self.tracker.feed(said), said.name)
        elif said is None:
            account.add_unparsed(number, text)
        elif isinstance(said, Context):
            self._understood = self._understood or said.proof
            account.context[said.kind] += 1
        elif isinstance(said, list):
            self._understood = True
            used = [self.tracker.feed(fact) for fact in said]
            self._count(any(used), said[0].name)
        else:
            self._mark(said)

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
        if marker.name == "header":
            if self.tracker.threads:
                self.tracker.restart()
            self.account.context["header and blank lines"] += 1
        elif marker.name == "entries":
            self._expected += marker.entries or 0
            if marker.lost:
                self.gaps += 1
                self.tracker.mark(marker)
                self.account.used += 1
            else:
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
        facts = {**self.account.as_facts(), "digest": self.input.digest, "damage": damage, "entries": self._reader.entries}
        self.tracker.emit(
            SourceRead(
                source=self.tracker.source, offset=self.input.offset, whole=int(damage is not None), line=self.account.lines,
                detail=detail(**facts),
            )
        )  # fmt: skip
        return self.tracker.take()
