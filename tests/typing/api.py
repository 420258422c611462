"""The library as a program outside of the package uses it. It is checked by mypy --strict; nothing runs it."""

import gmemstate
from gmemstate import Blame, Cause, Dialect, Gfn, Label, Listing, Ns, PageRange, PageUser, Policy, Unit, UnmapAnswer, User


class Device:
    """A page user of one's own."""

    name = "device"
    kind = User.IOMMU

    def unmap(self, start: int, end: int, *, ask: bool) -> UnmapAnswer:
        return UnmapAnswer(0 if ask else 11, end - start)

    def references(self, start: int, end: int, *, drained: bool) -> int:
        return 0 if drained else end - start


def ask(ledger: gmemstate.Queries) -> None:
    rows: Listing[gmemstate.ConversionRow] = ledger.conversions(
        "gfn:0x100+4", guest="vm1", to="private", label=Label.FAILED, at=42
    )
    first: Gfn | None = rows[0].start
    ended: Ns | None = rows[0].ended_ns
    missing: tuple[str, ...] = rows.missing
    applied: int | None = ledger.requests(at="5.31")[0].applied_pages
    pages: int = sum(row.pages or 0 for row in ledger.state(PageRange(Unit.GFN, 0x100, 0x200), known=True))
    pfns = [row.pfn for row in ledger.messed_up(cause=Cause.POISONED)]
    incidents: tuple[gmemstate.Incident, ...] = ledger.incidents(blame=Blame.KERNEL, guest="vm1").incidents
    why: gmemstate.Why = ledger.why("idx:0x5")
    changes: tuple[gmemstate.Change, ...] = ledger.diff(since=1, at="5.31").changes
    sentences = [event.text for event in ledger.events(kind="convert_returned", since=10)]
    owners: list[int] = [gmem.id for gmem in ledger.status().guest_memfds]
    head: gmemstate.Head = ledger.export("copy.jsonl")
    checked: gmemstate.Checked = ledger.check(ledger.checkpoint())
    steps: list[str] = [str(step) for step in ledger.steps(since=1, at=42)]
    replayed: gmemstate.Replayed = ledger.replay()
    broken = [(one.id, one.outcome is gmemstate.InvariantOutcome.BROKEN, one.evaluations) for one in replayed.invariants]
    problems: list[gmemstate.Problem] = [one for one in checked.problems if one.severity is gmemstate.Severity.FATAL]
    range_: gmemstate.RangeMachine = ledger.range(0x100, "vm1")
    print(
        first,
        ended,
        missing,
        applied,
        pages,
        pfns,
        incidents,
        why.to_json(),
        changes,
        sentences,
        owners,
        head,
        checked,
        range_,
        steps,
        broken,
        problems,
    )


def convert(where: str) -> None:
    device: PageUser = Device()
    with gmemstate.open(where) as ledger:
        result = ledger.convert(1, 0, 4, "private", users=[device], dialect=Dialect.INPLACE, policy=Policy.BUG_VM)
        ledger.resolve(result.id, "declare", "old")
        for ingested in ledger.ingest("trace.txt"):
            lines: int = ingested.account.used
            within: Ns | None = ingested.within_ns
            print(lines, within, ingested.to_json())
        refused: list[str] = [one.reason for one in ledger.read("dmesg.txt") if isinstance(one, gmemstate.Refused)]
    words: list[str] = [word.text for word in gmemstate.explain("EAGAIN").words]
    rows: list[str] = [row.trigger for row in gmemstate.machine("range").rows]
    played: Listing[gmemstate.ScenarioOutcome] = gmemstate.simulate("sc-10", Dialect.RFC_V2, Policy.UNINFORMED)
    facts: list[gmemstate.ScenarioFacts] = [one.facts for one in played]
    print(refused, words, rows, facts, gmemstate.dot(gmemstate.machine("conversion")))
    with gmemstate.read(where) as record:
        ask(record)
    try:
        gmemstate.open("missing.db", readonly=True)
    except gmemstate.GmemstateError as error:
        print(error.code)
