"""What is recorded can be true: anything else is refused with the field, the value and what is allowed, and nothing is
stored."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmemstate.ledger.ledger import Ledger
from gmemstate.model import events as e
from gmemstate.model.errors import BadEvent
from tests.store.histories import event

GUEST, FILE, CALL = 2, 3, 4
SEEN = (
    e.SourceOpened(source=-1, detail=e.detail(name="test", format="ftrace")),
    e.VmSeen(source=-1, owner=-2, made=1),
    e.GmemCreated(source=-1, owner=-3, vm=-2, npages=16, flags=0, result=0),
    e.ConvertAsked(source=-1, conversion=-4, through=e.Through.GMEM_IOCTL, owner=-3, start=0, npages=4, attributes=8),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with Ledger.open(tmp_path / "a.db", durable=False) as opened:
        opened.record(*SEEN)
        yield opened


def stored(owner: Any = FILE, **how: Any) -> e.AttrsStored:
    return e.AttrsStored(**{"owner": owner, "start": 0, "npages": 4, "attributes": 8, **how})


@pytest.mark.parametrize(
    ("wrong", "field", "allowed"),
    [
        (stored(npages="4"), "npages", "an integer"),
        (stored(npages=1.5), "npages", "an integer"),
        (stored(npages=True), "npages", "an integer"),
        (stored(start=-1), "start", "0 to"),
        (stored(attributes=1 << 64), "attributes", "0 to 18446744073709551615"),
        (stored(result=-11), "result", "0 to 4095"),
        (stored(result=5000), "result", "0 to 4095"),
        (stored(start=14), "start", "pages of a guest_memfd that has 16"),
        (stored(start=1 << 63, owner=GUEST), "start", "0 to 9223372036854775807"),
        (stored(owner=1), "owner", "a guest or a guest_memfd on record"),
        (stored(owner=99), "owner", "a guest or a guest_memfd on record"),
        (stored(conversion=GUEST), "conversion", "a conversion on record"),
        (stored(source=GUEST), "source", "a source on record"),
        (e.ConvertReturned(conversion=CALL, result=None), "result", "an integer"),  # type: ignore[arg-type]
        (e.ConvertReturned(conversion=77, result=0), "conversion", "a conversion on record"),
        (e.VmCreated(owner=FILE), "owner", "a guest on record"),
        (e.VmCreated(owner=GUEST, dialect=9), "dialect", "one of UNKNOWN (0), MAINLINE (1)"),  # type: ignore[arg-type]
        (e.VmSeen(owner=GUEST), "owner", "a negative number for a new one"),
        (e.GmemBound(owner=GUEST, start=0, npages=8, index=12, gmem=FILE), "index", "pages of a guest_memfd that has 16"),
        (e.VmmSaid(detail="[1]"), "detail", "the facts of gmemstate.model.events.detail(...)"),
        (e.VmmSaid(detail="{"), "detail", "the facts of gmemstate.model.events.detail(...)"),
    ],
)
def test_what_cannot_be_true_is_refused_with_its_field_and_nothing_is_stored(
    ledger: Ledger, wrong: e.Event, field: str, allowed: str
) -> None:
    before = ledger.head()
    with pytest.raises(BadEvent) as caught:
        ledger.record(e.VmSeen(owner=-1), wrong)
    assert caught.value.data["field"] == field
    assert allowed in str(caught.value)
    assert repr(getattr(wrong, field))[:20] in str(caught.value)
    assert ledger.head() == before
    ledger.record(e.VmSeen(owner=-1))
    assert len(ledger.memory().vms) == 2
    assert not ledger.stale_projections(ledger.history())


def test_what_is_no_event_is_refused(ledger: Ledger) -> None:
    with pytest.raises(BadEvent, match="is no event"):
        ledger.record("vm_seen")  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_is_accepted_every_question_is_answered(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any events in any order: what is refused leaves nothing, and what is accepted is a record like any other."""
    dice, accepted = random.Random(seed), 0
    with Ledger.open(tmp_path_factory.mktemp("any") / "a.db", durable=False) as ledger:
        ledger.record(*SEEN)
        for _ in range(120):
            try:
                ledger.record(event(dice))
            except BadEvent:
                continue
            accepted += 1
        assert accepted
        for ask in (ledger.conversions, ledger.requests, ledger.state, ledger.messed_up, ledger.incidents, ledger.status):
            ask().to_json()
        assert [one.text for one in ledger.events()]
        ledger.why("gfn:0x1", guest="vm1")
        checked = ledger.check()
        assert checked.problems == ()
        assert not ledger.stale_projections(ledger.history())
