"""What differs between two moments and two records, and the steps that were taken between them."""

import json
from pathlib import Path

from gmemstate.audit.diff import changes, divergence
from gmemstate.audit.transitions import steps
from gmemstate.ledger.ledger import Ledger
from tests.cli.running import say
from tests.traces import capture


def test_the_difference_of_two_moments_is_what_was_converted_between_them(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        first = ledger.conversions()[0]
        changed = list(changes(ledger.memory(first.id + 5), ledger.memory()))
        assert [(change.start, change.end, change.before, change.after) for change in changed] == [
            (first.start, first.end, "unknown", "private")
        ]


def test_two_records_part_at_their_first_difference(original: Path, tmp_path: Path) -> None:
    with Ledger.open(original, readonly=True) as one, Ledger.open(tmp_path / "other.db") as other:
        rows = list(one.record_.events())
        other.record_rows([*rows[:50], (*rows[50][:6], 7, *rows[50][7:]), *rows[51:]])
        parted = divergence(one.record_, other.record_)
        assert parted is not None
        assert [row and row[0] for row in parted] == [51, 51]
        assert divergence(one.record_, one.record_) is None


def test_the_steps_of_a_conversion_are_told_in_order(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "vm.db") as ledger:
        ledger.ingest(capture("half_done"))
        returned = [step.text for step in steps(ledger.record_.events())]
    zap = next(n for n, step in enumerate(returned) if "shared x zap_to_private -> zapping(shared>private)" in step)
    stored = next(n for n, step in enumerate(returned) if "x store_private -> stored(shared>private)" in step)
    assert zap < stored
    assert any(step.endswith("(final)") for step in returned)


def shown(where: Path, *words: str) -> list[int]:
    """The seqs of the lines that a verb prints."""
    ran = say("--db", where, *words)
    assert ran.code == 0, ran
    return [int(line.split()[0]) for line in ran.out.splitlines()]


def test_moments_are_seqs_or_times_wherever_one_asks_from_and_to(tmp_path: Path) -> None:
    """Both ends are included: an event at exactly that time as well."""
    where = tmp_path / "vm.db"
    with Ledger.open(where) as ledger:
        ledger.ingest(capture("half_done"))
        times = {one.seq: one.event.t or 0 for one in ledger.events()}
    seq = next(n for n in range(40, 80) if times[n - 1] < times[n] < times[n + 1])
    time = f"{times[seq] / 1e9:.9f}"
    whole = list(range(1, max(times) + 1))
    assert shown(where, "events", "--from", time) == shown(where, "events", "--from", str(seq)) == whole[seq - 1 :]
    assert shown(where, "events", "--at", time) == shown(where, "events", "--at", str(seq)) == whole[:seq]
    every = shown(where, "replay", "--steps")
    for moment in (time, str(seq)):
        assert shown(where, "replay", "--steps", "--from", moment) == [step for step in every if step >= seq]
        assert shown(where, "replay", "--steps", "--to", moment) == [step for step in every if step <= seq]
    assert say("--db", where, "replay", "--steps", "--from", "soon").code == 2


def test_events_are_chosen_by_kind_guest_conversion_and_pages(original: Path) -> None:
    with Ledger.open(original, readonly=True) as ledger:
        events, memory = {one.seq: one.event for one in ledger.events()}, ledger.memory()
        wanted = ledger.conversions()[0]
    vm = next(vm for vm in memory.vms.values() if vm.name == "vm1")
    returned = {seq for seq, event in events.items() if event.name == "convert_returned"}
    assert set(shown(original, "events", "--kind", "convert_returned")) == returned
    own = {seq for seq, event in events.items() if getattr(event, "conversion", None) == wanted.id}
    assert own <= set(shown(original, "events", "--conversion", str(wanted.id)))
    of_guest = set(shown(original, "events", "--guest", "vm1"))
    assert of_guest >= {seq for seq, event in events.items() if getattr(event, "owner", None) == vm.id}
    both = set(shown(original, "events", "--guest", "vm1", "--kind", "convert_returned"))
    assert both == of_guest & returned
    low, high = wanted.start, wanted.end
    for seq in shown(original, "events", f"{low:#x}-{high:#x}"):
        start, npages = events[seq].start, events[seq].npages  # type: ignore[attr-defined]
        assert start < high
        assert npages is None or low < start + max(npages, 1)


def test_two_records_are_told_apart_by_their_first_difference_and_their_states(original: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with Ledger.open(other) as ledger:
        ledger.ingest(capture("half_done"))
    ran = say("--db", original, "diff", other, "--json")
    assert ran.code == 1
    returned = json.loads(ran.out)
    assert returned["first_difference"]["seq"] == 77
    assert returned["first_difference"]["other"] is None, "it has ended"
    assert returned["first_difference"]["this"]["kind"] == "source_opened"
    assert {change["after"] for change in returned["changes"]} == {"not there"}
    assert {change["guest"] for change in returned["changes"]} == {"vm2"}
    assert "other: has ended" in say("--db", original, "diff", other).out
