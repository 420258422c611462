"""What a record answers, verb by verb; and what of it a mutilated one may not say."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from gmemstate.audit.history.corroboration import history
from gmemstate.audit.history.history import History
from gmemstate.audit.queries import conversions, messed_up, requests, state
from gmemstate.conclusions.host import MayStart, host
from gmemstate.model.events import LINE, T
from gmemstate.postmortem.incident import PostMortem
from gmemstate.postmortem.render import text
from tests.evidence.mutilations import Mutilation
from tests.ingest.compare import changed
from tests.postmortem.telling import Rows, post_mortem_of
from tests.traces import Read

IDS = {
    "id",
    "conversions",
    "request",
    "evidence",
    "held_by",
    "seq",
    "gmem",
    "corroborations",
    "number",
    "missing",
    "observed_ns",
}
"""Fields that name events and lines, not facts."""
CERTAIN = {"shared", "private"}
CLAIMS = re.compile(r"No conversion followed|did not undo|nothing discarded it|Nothing is left over|no longer access")
"""What a story says on the strength of silence."""


@dataclass
class Answers:
    """A trace that was read, with what each verb answers."""

    read: Read

    @cached_property
    def post_mortem(self) -> PostMortem:
        return post_mortem_of(self.read)

    @cached_property
    def said(self) -> str:
        return " ".join(text.report(self.post_mortem).split())

    @cached_property
    def rows(self) -> dict[str, list[str]]:
        """The answers of all verbs, without what names events and lines."""
        now = self.read.history
        known = [row for row in state.state(now) if row.state != "unknown"]
        incidents = [f"{one.guest} {one.kind} {one.blame} {one.ranges} {one.summary}" for one in self.post_mortem.incidents]
        return {
            "state": _bare(known),
            "conversions": _bare(conversions.conversions(now)),
            "requests": _bare(requests.requests(now)),
            "messed-up": _bare(messed_up.messed_up(now)),
            "postmortem": incidents,
            "host": [f"{one.guests} {one.verdict}" for one in host(now).answers],
        }

    @cached_property
    def incomplete(self) -> dict[str, bool]:
        """Which verbs end with exit code 3."""
        now = self.read.history
        missing = bool(now.missing())
        states = [row.state for row in state.state(now)]
        labels = [row.label for row in conversions.conversions(now)]
        return {
            "state": missing or not states or "torn" in states,
            "conversions": missing or bool({"attempted", "cut"} & set(labels)),
            "requests": missing,
            "messed-up": missing,
            "postmortem": not self.post_mortem.complete,
            "host": missing or any(one.verdict is not MayStart.YES for one in host(now).answers),
        }

    def at(self, time: int) -> History:
        """The history of all that had happened at a time (ns)."""
        rows = self.read.rows
        count = next((n for n, row in enumerate(rows) if row[T] is not None and row[T] > time), len(rows))
        return History(last=count).fold(rows[:count])

    @cached_property
    def returns(self) -> list[int]:
        """When conversions returned (ns)."""
        return sorted(one.returned for one in self.read.history.conversions.values() if one.returned is not None)


def _bare(rows: object) -> list[str]:
    return [repr({k: v for k, v in row.to_json().items() if k not in IDS}) for row in rows]  # type: ignore[attr-defined]


def wrong(whole: Answers, less: Answers, loss: Mutilation, moments: int = 4) -> Iterator[str]:
    """What the mutilated trace says and the whole one does not."""
    if loss.end is None:
        yield from changed(whole.read, less.read)
    else:
        rows = whole.read.rows
        count = next((n for n, row in enumerate(rows) if (row[LINE] or 0) > loss.end), len(rows))
        then = replace(whole.read, history=history(Rows(rows), count))
        yield from changed(whole.read, less.read, then=then)
    times = whole.returns if loss.end is None else less.returns
    for time in times[:: max(1, len(times) // moments)]:
        yield from _states_at(whole, less, time + 1)
    for claim in sorted(set(CLAIMS.findall(less.said)) - set(CLAIMS.findall(whole.said))):
        if loss.end is None:
            yield f"postmortem claims: {claim}"
    if less.rows["host"] != whole.rows["host"]:
        verdicts = zip(less.rows["host"], whole.rows["host"], strict=True)
        yield from (f"host: {now}, was {before}" for now, before in verdicts if now.endswith("yes") and now != before)


def _states_at(whole: Answers, less: Answers, time: int) -> Iterator[str]:
    before, after = whole.at(time).memory, less.at(time).memory
    for vm in after.vms.values():
        known = [other.id for other in before.vms.values() if other.pointer == vm.pointer]
        for run in after.guest_runs(vm.id):
            if run.start < run.end and run.state in CERTAIN and known:
                states = [{part.state for part in before.guest_runs(other, run.start, run.end)} for other in known]
                if {run.state} not in states:
                    yield f"at {time}: {run} was {states}"


def lost(whole: Answers, less: Answers) -> Iterator[tuple[str, str]]:
    """The verbs whose answer differs and that end with exit code 0, with what differs."""
    for verb, rows in less.rows.items():
        if rows != whole.rows[verb] and not less.incomplete[verb]:
            gone = [row for row in whole.rows[verb] if row not in rows]
            new = [row for row in rows if row not in whole.rows[verb]]
            yield verb, f"{gone[:1]} -> {new[:1]}"
