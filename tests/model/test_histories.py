"""What short histories fold to, one promise each; and that no history, however wrong, is a crash."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmemstate.model import events as e
from gmemstate.model.findings import CATALOGUE, Severity
from gmemstate.model.fold.apply import apply, fold
from gmemstate.model.linux import KVM_MEM_GUEST_MEMFD
from gmemstate.model.memory import Memory
from gmemstate.model.objects import MAPPED, UNMAPPED
from gmemstate.model.verdict import Label, label, verdict
from tests.model.drawn import crowded

SHARED, PRIVATE = 0, 8
EAGAIN, ENOMEM, EFAULT, EINVAL = 11, 12, 14, 22
VM, THREAD = 2, 11
ALL_SHOWN = tuple(e.Capability)


class Story(Memory):
    """A memory of one guest with 64 pages of guest_memfd, whose birth and whose everything is on record."""

    def __init__(self, shown: tuple[e.Capability, ...] = ALL_SHOWN, *, born: bool = True, live: bool = False) -> None:
        super().__init__(live=live)
        self.record(e.SourceOpened())
        self.tell(e.VmSeen, owner=VM, made=1)
        if born:
            self.tell(e.VmCreated, owner=VM, dialect=e.Dialect.MAINLINE)
        self.tell(e.SlotSet, slot=0, owner=VM, start=0, npages=64, flags=KVM_MEM_GUEST_MEMFD, result=0)
        for capability in shown:
            self.tell(e.SourceShows, owner=VM, capability=capability)

    def apply(self, row: e.EventRow) -> None:
        apply(self, row)

    def record(self, event: e.Event) -> None:
        self.apply((self.seq + 1, *event.row()[1:]))

    def tell(self, kind: Callable[..., e.Event], **facts: object) -> int:
        self.record(kind(source=1, **facts))
        return self.seq

    def ask(self, start: int, npages: int, attributes: int, thread: int = THREAD) -> int:
        return self.tell(e.ConvertAsked, conversion=self.seq + 1, through=e.Through.VM_IOCTL, owner=VM, thread=thread,
                         start=start, npages=npages, attributes=attributes)  # fmt: skip

    def zap(self, conversion: int, start: int, npages: int) -> None:
        self.tell(e.ZapStarted, conversion=conversion, owner=VM, start=start, npages=npages)

    def answer(self, conversion: int, result: int) -> None:
        self.tell(e.ConvertReturned, conversion=conversion, owner=VM, result=result)

    def convert(self, start: int, npages: int, attributes: int) -> int:
        conversion = self.ask(start, npages, attributes)
        self.zap(conversion, start, npages)
        self.tell(e.AttrsStored, conversion=conversion, owner=VM, start=start, npages=npages, attributes=attributes)
        self.answer(conversion, 0)
        return conversion

    def states(self) -> list[tuple[int, int, str]]:
        return [tuple(run) for run in self.runs(VM, 0, 64)]

    def codes(self) -> list[str]:
        return [finding.code for finding in self.findings]


# --- ranges


def test_a_guest_whose_birth_is_on_record_is_shared_and_any_other_unknown() -> None:
    assert Story().states() == [(0, 64, "shared")]
    assert Story(born=False).states() == [(0, 64, "unknown")]


def test_a_gap_costs_what_was_known_until_evidence_comes_again() -> None:
    """R10, R2, R14: settled ranges are unknown, ranges in flight torn; a success and a served fault tell anew."""
    story = Story()
    story.convert(0, 8, PRIVATE)
    conversion = story.ask(8, 8, PRIVATE)
    story.zap(conversion, 8, 8)
    story.tell(e.Gap, gap=e.GapKind.LOST, count=5)
    assert story.states() == [(0, 8, "unknown"), (8, 16, "torn"), (16, 64, "unknown")]
    story.tell(e.FaultServed, access=e.Access.GUEST_PRIVATE, start=4, npages=1, owner=VM)
    story.answer(conversion, 0)
    assert story.states() == [(0, 4, "unknown"), (4, 5, "private"), (5, 8, "unknown"), (8, 16, "private"), (16, 64, "unknown")]
    assert story.findings == []


def test_a_conversion_whose_result_is_never_seen_leaves_its_pages_unknown() -> None:
    """R18: a thread that asks anew has left its last call; only where old and new value are the same is it known."""
    story = Story()
    story.convert(0, 8, PRIVATE)
    story.ask(4, 8, PRIVATE)
    story.ask(60, 4, SHARED)
    assert story.states() == [(0, 8, "private"), (8, 12, "unknown"), (12, 64, "shared")]


def test_a_success_of_which_the_range_is_not_known_may_have_changed_any_page() -> None:
    story = Story()
    conversion = story.seq + 1
    story.tell(e.ConvertMet, conversion=conversion, through=e.Through.VM_IOCTL, owner=VM, thread=THREAD)
    story.tell(e.ZapStarted, conversion=conversion, owner=VM, start=8, npages=8, attributes=PRIVATE)
    story.answer(conversion, 0)
    assert story.states() == [(0, 8, "unknown"), (8, 16, "private"), (16, 64, "unknown")]


@pytest.mark.parametrize("live", [False, True])
def test_a_second_conversion_of_pages_in_flight_is_a_finding_and_changes_nothing(live: bool) -> None:
    story = Story(live=live)
    story.zap(story.ask(0, 8, PRIVATE), 0, 8)
    story.zap(story.ask(4, 8, PRIVATE, thread=12), 4, 8)
    assert story.codes() == ["SERIALISATION"]
    assert (story.findings[0].start, story.findings[0].end) == (4, 8)
    assert "zap_to_private not expected in the state zapping(shared>private)" in str(story.findings[0])
    assert story.states() == [(0, 12, "zapping(shared>private)"), (12, 64, "shared")]


def test_a_comparison_of_one_page_tells_its_value_whether_equal_or_not() -> None:
    """R2: there are two values; of several pages that are not all equal nothing is known."""
    story = Story(born=False)
    story.tell(e.AttrsCompared, owner=VM, start=0, npages=4, attributes=PRIVATE, equal=1)
    story.tell(e.AttrsCompared, owner=VM, start=4, npages=1, attributes=PRIVATE, equal=0)
    story.tell(e.AttrsCompared, owner=VM, start=5, npages=4, attributes=PRIVATE, equal=0)
    assert story.states() == [(0, 4, "private"), (4, 5, "shared"), (5, 64, "unknown")]


def test_a_store_that_is_merged_with_its_neighbours_shows_what_they_have() -> None:
    story = Story(born=False)
    conversion = story.ask(8, 4, PRIVATE)
    story.tell(e.AttrsStored, conversion=conversion, owner=VM, start=6, npages=8, attributes=PRIVATE)
    assert story.states() == [
        (0, 6, "unknown"),
        (6, 8, "private"),
        (8, 12, "stored(unknown>private)"),
        (12, 14, "private"),
        (14, 64, "unknown"),
    ]


def test_a_failure_settles_all_that_was_zapped() -> None:
    """R11: slot by slot, and whatever lies between."""
    story = Story()
    conversion = story.ask(0, 16, PRIVATE)
    story.zap(conversion, 0, 4)
    story.zap(conversion, 8, 4)
    assert [run.state for run in story.runs(VM, 0, 16)] == ["zapping(shared>private)", "shared"] * 2
    story.answer(conversion, EAGAIN)
    assert story.states() == [(0, 64, "shared")]


def test_steps_behind_a_gap_accuse_nobody() -> None:
    """C22: what they follow upon was lost."""
    story = Story()
    conversion = story.ask(0, 8, PRIVATE)
    story.tell(e.Gap, gap=e.GapKind.LOST)
    story.tell(e.Undone, conversion=conversion, owner=VM, start=0, npages=4, result=0)
    story.tell(e.UserAnswered, conversion=conversion, user=e.User.PIN, start=4, npages=1, owner=VM, result=EAGAIN)
    story.answer(conversion, EAGAIN)
    assert story.findings == []
    assert set(run.state for run in story.runs(VM)) <= {"unknown", "torn"}


def test_a_memslot_changes_no_attribute_but_a_plain_one_over_private_pages_is_a_finding() -> None:
    story = Story()
    story.convert(8, 8, PRIVATE)
    before = story.states()
    story.tell(e.SlotSet, slot=0, owner=VM, start=0, npages=0, flags=0, result=0)
    story.tell(e.SlotSet, slot=3, owner=VM, start=0, npages=64, flags=0, result=0)
    assert story.states() == before
    assert [(found.code, found.start, found.end) for found in story.findings] == [("SLOT-SWAP-FLIP", 8, 16)]


def test_an_event_of_a_conversion_that_nobody_opened_is_a_finding() -> None:
    story = Story()
    story.answer(999, 0)
    assert story.codes() == ["UNKNOWN-CONVERSION"]


def test_an_event_of_a_newer_version_is_a_finding_not_a_crash() -> None:
    story = Story()
    story.apply((story.seq + 1, None, 250, *[None] * 10))
    assert story.codes() == ["UNKNOWN-KIND"]


@pytest.mark.parametrize("kind", [e.KINDS[code] for code in sorted(e.WORDS)], ids=lambda kind: kind.name)
def test_a_word_of_a_newer_version_is_a_finding_not_a_crash(kind: type[e.Event]) -> None:
    for column, words in e.WORDS[kind.code]:
        story = Story()
        row = [story.seq + 1, None, kind.code, *[None] * 10]
        for other, known in e.WORDS[kind.code]:
            row[other] = min(known)
        row[column] = max(words) + 1
        story.apply(tuple(row))  # type: ignore[arg-type]
        assert story.codes() == ["UNKNOWN-KIND"]


# --- mappings and messed-up pages


def test_who_maps_a_page_is_who_touched_it_last_and_was_not_unmapped() -> None:
    story = Story()
    assert story.mapped(VM, e.User.GUEST, 5) == 0
    story.tell(e.FaultServed, access=e.Access.GUEST_PRIVATE, start=4, npages=4, owner=VM)
    story.tell(e.FaultServed, access=e.Access.HOST, start=4, npages=1, owner=VM)
    story.tell(e.UserAnswered, user=e.User.GUEST, start=6, npages=8, owner=VM, result=0, entries=2)
    assert [story.mapped(VM, e.User.HOST, page) for page in (3, 4, 5)] == [0, MAPPED, 0]
    assert [story.mapped(VM, e.User.GUEST, page) for page in (3, 4, 5, 6, 7, 8)] == [0, MAPPED, MAPPED, *[UNMAPPED] * 3]


def test_a_messed_up_page_that_is_given_away_is_fatal_and_a_reboot_clears_it() -> None:
    """INV-22: the entry outlives the conversion, which is told success."""
    story = Story()
    conversion = story.ask(0, 1, SHARED)
    story.tell(e.PrivateUnmapFailed, step=e.UnmapStep.REMOVE, pfn=0x1234, owner=VM, conversion=conversion, start=0, npages=1)
    (entry,) = story.messed_up.values()
    assert (entry.state, entry.pfn, entry.cause) == ("messed_up", 0x1234, e.Cause.SEPT_STILL_MAPS)
    assert story.conversions[conversion].suspects == 1
    story.tell(e.PrivateMapped, pfn=0x1235)
    assert story.findings == []
    story.tell(e.PrivateMapped, pfn=0x1234)
    assert [found.severity for found in story.findings] == [Severity.FATAL]
    assert entry.state == "reused"
    story.tell(e.HostBooted)
    assert entry.state == "cleared"


# --- verdicts


def ended(story: Story, conversion: int) -> Label:
    return label(next(c for c in (*story.ended, *story.conversions.values()) if c.id == conversion))


@pytest.mark.parametrize(
    ("result", "zapped", "word"),
    [
        (0, True, Label.COMMITTED),
        (ENOMEM, False, Label.FAILED),
        (EINVAL, False, Label.REJECTED),
        (EFAULT, False, Label.REJECTED),
    ],
)
def test_a_result_has_its_word(result: int, zapped: bool, word: Label) -> None:
    story = Story()
    conversion = story.ask(0, 8, PRIVATE)
    if zapped:
        story.zap(conversion, 0, 8)
    story.answer(conversion, result)
    assert ended(story, conversion) == word
    assert story.states() == ([(0, 8, "private"), (8, 64, "shared")] if result == 0 else [(0, 64, "shared")])


def test_success_over_pages_that_have_the_value_already_is_a_noop() -> None:
    story = Story()
    conversion = story.ask(0, 8, SHARED)
    story.answer(conversion, 0)
    assert ended(story, conversion) == Label.NOOP
    assert story.ended[-1].stored is False


def test_users_that_lost_their_mappings_in_a_failure_are_its_residue() -> None:
    story = Story()
    conversion = story.ask(0, 8, PRIVATE)
    story.zap(conversion, 0, 8)
    story.tell(e.UserAnswered, conversion=conversion, user=e.User.GUEST, start=2, npages=3, owner=VM, result=0, entries=3)
    story.answer(conversion, EAGAIN)
    found = verdict(story.ended[-1])
    assert (found.result, found.label, found.applied.extent) == (EAGAIN, Label.FAILED_RESIDUE, "none")
    assert [(left.what, left.start, left.end, left.entries) for left in found.residue or ()] == [("guest mapping", 2, 5, 3)]


def test_without_a_result_nothing_is_claimed() -> None:
    """In flight while the record grows, cut where results are shown and the record ends, attempted where they never are."""
    story = Story()
    conversion = story.conversions[story.ask(0, 8, PRIVATE)]
    assert label(conversion, story.sources[1]) == Label.IN_FLIGHT
    story.tell(e.SourceRead, offset=100)
    assert label(conversion, story.sources[1]) == Label.CUT
    silent = Story(shown=(e.Capability.ASKED,))
    conversion = silent.conversions[silent.ask(0, 8, PRIVATE)]
    silent.tell(e.SourceRead, offset=100)
    assert label(conversion, silent.sources[1]) == Label.ATTEMPTED
    assert verdict(conversion).applied.extent == "unknown"


def test_what_an_operator_declares_counts_as_said_and_not_as_seen() -> None:
    for how, state in ((0, "private"), (1, "shared"), (2, "unknown")):
        story = Story()
        conversion = story.ask(0, 64, PRIVATE)
        story.tell(e.Declared, conversion=conversion, how=how)
        assert (ended(story, conversion), story.states()) == (Label.DECLARED, [(0, 64, state)])


# --- any history


@settings(max_examples=150)
@given(st.lists(st.sampled_from(list(e.kinds())), min_size=2, max_size=6).flatmap(
    lambda kinds: st.lists(st.sampled_from(kinds).flatmap(lambda kind: crowded(kind, 12)), max_size=25)
))  # fmt: skip
def test_no_history_is_a_crash(history: list[e.Event]) -> None:
    """Wrong histories make findings of the catalogue; live machines and compiled tables agree on them, too."""
    rows = [(seq, *event.row()[1:]) for seq, event in enumerate(history, 1)]
    memory, live = fold(rows), fold(rows, Memory(live=True))
    assert memory.findings == live.findings
    assert memory.ranges == live.ranges
    for finding in memory.findings:
        assert finding.code in CATALOGUE
        assert 1 <= finding.seq <= len(rows)
        assert f"[{finding.code}]" in str(finding)
    for vm in memory.vms:
        runs = list(memory.guest_runs(vm))
        assert all(first.end == second.start for first, second in pairwise(runs) if first.start < first.end)
    for conversion in (*memory.ended, *memory.conversions.values()):
        assert verdict(conversion, memory.sources.get(conversion.source or 0)).label in Label
