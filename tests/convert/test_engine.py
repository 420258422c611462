"""Whatever is asked, whoever uses the pages and whatever goes wrong: the engine does what a naive host does, page by page."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests.convert.naive import PRIVATE, SHARED, Person, Request
from tests.convert.pair import GMEM_DIALECTS, ORDER, PAGE, PAGES, POINTS, SPAN, Pair, World, requests, worlds

KIND = st.sampled_from([SHARED, PRIVATE])
FEW = st.integers(1, 3)
ANYBODY = st.integers(0, 3)
going = precondition(lambda self: not self.pair.stuck)


class Hosts(RuleBasedStateMachine):
    """Two hosts, to which the same happens. Once a conversion never returns, nothing does: its lock is held for ever."""

    pair: Pair

    def begin(self, world: World) -> None:
        self.pair = Pair(world)
        self.look()

    def look(self) -> None:
        self.pair.agree()
        self.pair.laws()

    def somebody(self, n: int, *kinds: str) -> Person | None:
        found = [person for person in self.pair.naive.people if person.kind in kinds]
        return found[n % len(found)] if found else None

    def all_answer(self) -> bool:
        return all(person.answer is not None for person in self.pair.naive.people)

    @going
    @rule(request=requests())
    def convert(self, request: Request) -> None:
        if not self.pair.naive.closed or self.pair.world.dialect == "mainline":
            told, expected = self.pair.convert(request)
            assert told == expected
            self.look()

    @going
    @rule(request=requests(), at=st.sampled_from(POINTS), where=st.one_of(st.none(), PAGE), nth=FEW, times=FEW)
    def convert_in_trouble(self, request: Request, at: str, where: int | None, nth: int, times: int) -> None:
        """Something goes wrong somewhere in the request; what did not come to pass is still to come."""
        start, pages = request.address >> 12, max(1, request.size >> 12)
        self.pair.trouble(at, None if where is None else start + where % pages, nth, times)
        if at in ("store", "split", "merge"):
            self.pair.trouble("undo", None if where is None else where % PAGES)
        self.convert(request)

    @going
    @rule(n=ANYBODY, page=PAGE)
    def host_touches(self, n: int, page: int) -> None:
        if person := self.somebody(n, "host"):
            served, errno = self.pair.touch(person, page)
            assert served == (errno == 0)
            self.look()

    @going
    @rule(page=PAGE, kind=KIND)
    def guest_touches(self, page: int, kind: str) -> None:
        if person := self.somebody(0, "guest"):
            served, errno = self.pair.touch(person, page, kind)
            assert served == (errno == 0)
            self.look()

    @going
    @rule(kind=st.sampled_from(["pin", "reference", "lru"]), pages=st.sets(PAGE, min_size=1, max_size=3))
    def hold(self, kind: str, pages: set[int]) -> None:
        """get_user_pages() finds what is shared; a stray reference can be to any page that has memory."""
        naive = self.pair.naive
        pages = {page for page in pages if page in naive.folio and (kind != "pin" or naive.kind[page] == SHARED)}
        if pages:
            self.pair.add(Person(f"{kind}{len(naive.people)}", kind, pages))

    @going
    @rule(n=ANYBODY)
    def let_go(self, n: int) -> None:
        if person := self.somebody(n, "pin", "reference", "lru"):
            self.pair.release(person)

    @going
    @rule(span=SPAN)
    def punch(self, span: tuple[int, int]) -> None:
        """Whole huge pages: what becomes of a part of one is not said anywhere."""
        size = 1 << self.pair.world.order
        start, end = span[0] // size * size, -(-min(PAGES, sum(span)) // size) * size
        if self.all_answer():
            self.pair.punch(start, end)
            self.look()

    @going
    @rule(page=PAGE)
    def poison(self, page: int) -> None:
        if self.all_answer() and page in self.pair.naive.folio and page not in self.pair.naive.poisoned:
            self.pair.poison(page)
            self.look()

    @precondition(lambda self: not self.pair.stuck and not self.pair.naive.closed)
    @rule(sure=st.sampled_from([False, False, False, True]))
    def close(self, sure: bool) -> None:
        if sure and self.all_answer():
            self.pair.close()
            self.look()

    @precondition(lambda self: self.pair.stuck)
    @rule()
    def wait(self) -> None:
        """Nobody gets the lock any more."""

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.folds_alike()


def machine(dialect: str) -> type:
    """The two hosts under one dialect."""

    class OfDialect(Hosts):
        @initialize(world=worlds(dialect))
        def begin(self, world: World) -> None:
            super().begin(world)

    OfDialect.__name__ = OfDialect.__qualname__ = f"Hosts[{dialect}]"
    case = OfDialect.TestCase
    case.settings = settings(stateful_step_count=20)
    return case


TestMainline = machine("mainline")
TestRfcV2 = machine("rfc-v2")
TestInplace = machine("inplace")
TestCheckFirst = machine("check-first")
