"""The memory is what a toy kernel is, page by page; where its trace shows less, the memory knows less and never otherwise."""

import re

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gmemstate.model import events as e
from gmemstate.model.fold.apply import fold
from gmemstate.model.memory import Memory
from tests.model.kernel import FIRST_GFN, PAGES, SHOWN, Call, Kernel, Trace

KIND = st.sampled_from(["shared", "private"])
THREAD = st.sampled_from([11, 12, 13])
PAGE = st.integers(0, PAGES - 1)
PROOFS = [e.ConvertAsked, e.ConvertAttempted, e.ConvertReturned]
"""A tracer shows one of these of each conversion; else there may be conversions that nobody knows of."""


class Converting(RuleBasedStateMachine):
    """Threads convert pages, at any pace."""

    kernel: Kernel
    trace: Trace

    @rule(thread=THREAD, start=PAGE, npages=st.integers(1, PAGES), to=KIND, fails=st.booleans())
    def convert(self, thread: int, start: int, npages: int, to: str, fails: bool) -> None:
        if thread not in self.kernel.calls:
            self.kernel.begin(Call(thread, start, min(PAGES, start + npages), to, fails), self.trace)

    @rule(thread=THREAD, steps=st.integers(1, 12))
    def go_on(self, thread: int, steps: int) -> None:
        while steps and thread in self.kernel.calls:
            self.kernel.go_on(thread)
            steps -= 1

    @rule(page=PAGE)
    def touch(self, page: int) -> None:
        """A fault is served as the page is; inside an invalidation it waits."""
        holder, trace = self.kernel.holder, self.trace
        if holder is not None and page in holder.pages:
            return
        kind = self.kernel.attribute[page]
        if trace.lost or e.FaultServed not in trace.visible or (self.kernel.inplace and kind == "private"):
            return
        access = e.Access.GUEST_PRIVATE if kind == "private" else e.Access.GUEST_SHARED
        if self.kernel.inplace:
            access = e.Access.HOST
        trace.record(e.FaultServed(access=access, start=trace.number(page), npages=1, owner=trace.owner, source=1))

    @invariant()
    def nobody_is_accused(self) -> None:
        """The kernel did nothing wrong, whatever was not seen."""
        assert self.trace.memory.findings == []

    def teardown(self) -> None:
        """Live machines and compiled tables make the same memory, and so does one fold of all rows."""
        if hasattr(self, "trace"):
            memory, live = fold(self.trace.rows), fold(self.trace.rows, Memory(live=True))
            for other in (memory, live):
                assert other.ranges == self.trace.memory.ranges
                assert other.conversions == self.trace.memory.conversions
                assert other.ended == self.trace.memory.ended


class SeenWhole(Converting):
    """Everything is shown from the birth of the guest on: the memory says just what is."""

    @initialize(inplace=st.booleans(), first=KIND)
    def begin(self, inplace: bool, first: str) -> None:
        self.kernel = Kernel([first if inplace else "shared"] * PAGES, inplace=inplace)
        self.trace = Trace(self.kernel, set(SHOWN), born=True)
        self.active = False

    @invariant()
    def each_page_is_what_it_is(self) -> None:
        states = [self.trace.state(page) for page in range(PAGES)]
        if self.kernel.inplace and not self.trace.memory.gmems[self.trace.owner].inplace:
            assert set(states) == {"unknown"}
            return
        assert states == self.kernel.seen

    @invariant()
    def runs_tile_the_guest(self) -> None:
        runs = list(self.trace.memory.guest_runs(self.trace.vm, FIRST_GFN, FIRST_GFN + PAGES))
        at = FIRST_GFN
        for run in runs:
            assert run.start == at < run.end
            assert {self.trace.state(gfn - FIRST_GFN) for gfn in range(run.start, run.end)} == {run.state}
            at = run.end
        assert at == FIRST_GFN + PAGES


class SeenInPart(Converting):
    """Some steps are never shown, lines are lost, the trace began late: what is still said is true."""

    @initialize(
        inplace=st.booleans(),
        born=st.booleans(),
        attribute=st.lists(KIND, min_size=PAGES, max_size=PAGES),
        visible=st.sets(st.sampled_from(list(SHOWN))),
        proof=st.sampled_from(PROOFS),
        rereads=st.booleans(),
    )
    def begin(
        self, inplace: bool, born: bool, attribute: list[str], visible: set[type[e.Event]], proof: type[e.Event], rereads: bool
    ) -> None:
        if born:
            attribute = [attribute[0] if inplace else "shared"] * PAGES
        if proof is e.ConvertAttempted and inplace:
            proof = e.ConvertAsked
        rereads |= proof is e.ConvertReturned
        self.kernel = Kernel(attribute, inplace=inplace)
        self.trace = Trace(self.kernel, visible | {proof}, born=born, rereads=rereads)
        self.all_calls: list[Call] = []

    @rule(thread=THREAD, start=PAGE, npages=st.integers(1, PAGES), to=KIND, fails=st.booleans())
    def convert(self, thread: int, start: int, npages: int, to: str, fails: bool) -> None:
        super().convert(thread, start, npages, to, fails)
        self.all_calls.append(self.kernel.calls[thread])

    @precondition(lambda self: not self.trace.lost)
    @rule()
    def lose_lines(self) -> None:
        self.trace.lost = True

    @precondition(lambda self: self.trace.lost)
    @rule()
    def lines_come_again(self) -> None:
        self.trace.lost = False
        self.trace.record(e.Gap(gap=e.GapKind.LOST, source=1))

    @invariant()
    def what_is_said_is_true(self) -> None:
        """Of pages that no conversion is about, as far as kernel or record know."""
        if self.trace.lost:
            return
        going = set(self.trace.memory.conversions)
        busy = {page for call in self.all_calls if call.id in going for page in call.pages}
        busy |= {page for call in self.kernel.calls.values() for page in call.pages}
        for page in set(range(PAGES)) - busy:
            state = self.trace.state(page)
            assert state in (self.kernel.attribute[page], "unknown", "torn"), page

    @invariant()
    def what_is_in_flight_was_asked(self) -> None:
        """A page inside a conversion is old or new, and in the record that conversion is still going on."""
        if self.trace.lost:
            return
        going = [call for call in self.all_calls if call.id in self.trace.memory.conversions]
        for page in range(PAGES):
            if match := re.fullmatch(r"\w+\((\w+)>(\w+)\)", self.trace.state(page)):
                assert any(page in call.pages for call in going), page
                assert match[2] in ("unknown", *(call.to for call in going if page in call.pages))


TestSeenWhole = SeenWhole.TestCase
TestSeenInPart = SeenInPart.TestCase
TestSeenWhole.settings = settings(max_examples=100, stateful_step_count=30)
TestSeenInPart.settings = settings(max_examples=200, stateful_step_count=30)
