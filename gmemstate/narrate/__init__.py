"""One sentence for each event: what ``why``, ``events``, ``diff`` and ``simulate`` say of it.

A recorded host is described with hexadecimal pages, names of guests and numbers of conversions; a simulated host, where
one conversion follows another on a few pages, without them.
"""

from gmemstate.model.events import Event, Unusable, details
from gmemstate.model.units import seconds
from gmemstate.narrate.names import Names
from gmemstate.narrate.sentences import SENTENCES
from gmemstate.text import printable


class Narrator(Names):
    """Says in one sentence what an event is."""

    def sentence(self, event: Event) -> str:
        """What happened, without a full stop."""
        facts = details(event.detail)
        if isinstance(event, Unusable):
            return f"cannot be used: {facts['why']}"
        return SENTENCES[type(event)](event, facts, self)

    def line(self, seq: int, event: Event) -> str:
        """The event on one line: seq, seconds of the clock of its source, kind, sentence, and the line that shows it."""
        shown_by = self.evidence(event)
        text = f"{seq:>6} {seconds(event.t):>14} {event.name:20} {printable(self.sentence(event))}"
        return f"{text}  [{printable(shown_by)}]" if shown_by else text

    def evidence(self, event: Event) -> str:
        """The source and the line of it that show the event; empty where no line does."""
        return "" if event.line is None else f"{self.sources.get(event.source or 0, '?')}:{event.line}"
