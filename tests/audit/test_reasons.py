"""Events as sentences: whatever they hold, they can be told, and their evidence is named."""

from gmemstate.audit.reasons import Teller
from hypothesis import given

from gmemstate.model.events import ConvertReturned, Event, PrivateUnmapFailed, UnmapStep
from gmemstate.model.memory import Memory
from tests.model.drawn import EVENTS

TELLER = Teller(Memory(), {7: "trace.txt"})


@given(EVENTS)
def test_any_event_can_be_told(event: Event) -> None:
    returned = TELLER.tell(event)
    assert returned
    assert "None" not in returned
    assert "\n" not in returned


def test_the_evidence_of_an_event_is_a_line_of_its_source() -> None:
    event = ConvertReturned(conversion=3, result=12, source=7, line=40)
    assert (TELLER.tell(event), TELLER.evidence(event)) == ("conversion 3 returns ENOMEM", "trace.txt:40")
    assert TELLER.evidence(ConvertReturned(conversion=3, result=12)) == ""


def test_a_failed_unmap_says_which_step_of_whose_page_failed() -> None:
    event = PrivateUnmapFailed(step=UnmapStep.REMOVE, pfn=0x500, owner=None, status=0x8000)
    assert TELLER.tell(event) == "host page 0x500 cannot be taken back from a guest: REMOVE fails with 0x8000"
