"""One sentence for each event: every kind has one, whatever an event holds, and its evidence is named."""

import pytest
from hypothesis import given

from gmemstate.model.events import (
    KINDS,
    Access,
    ConvertAsked,
    ConvertReturned,
    Event,
    FaultServed,
    PrivateUnmapFailed,
    Through,
    UnmapStep,
    VmSeen,
)
from gmemstate.model.fold.apply import fold
from gmemstate.model.memory import Memory
from gmemstate.narrate import Narrator
from gmemstate.narrate.sentences import SENTENCES
from tests.model.drawn import EVENTS

NARRATOR = Narrator(Memory(), {7: "trace.txt"})


def test_every_kind_of_event_has_its_sentence() -> None:
    assert set(SENTENCES) == set(KINDS.values())


@pytest.mark.parametrize("simulated", [False, True])
@given(event=EVENTS)
def test_any_event_is_one_sentence_without_what_is_not_known(event: Event, simulated: bool) -> None:
    said = Narrator(Memory(), simulated=simulated).sentence(event)
    assert said
    assert "\n" not in said
    if not simulated:
        assert "None" not in said


def test_the_evidence_of_an_event_is_a_line_of_its_source() -> None:
    event = ConvertReturned(conversion=3, result=12, source=7, line=40, t=1_500_000_000)
    assert (NARRATOR.sentence(event), NARRATOR.evidence(event)) == ("conversion 3 returns ENOMEM", "trace.txt:40")
    assert NARRATOR.line(9, event).split() == (
        ["9", "1.500000", "convert_returned", "conversion", "3", "returns", "ENOMEM", "[trace.txt:40]"]
    )
    assert NARRATOR.evidence(ConvertReturned(conversion=3, result=12)) == ""


def test_a_failed_unmap_names_the_step_the_page_and_the_guest() -> None:
    event = PrivateUnmapFailed(step=UnmapStep.REMOVE, pfn=0x500, owner=None, status=0x8000)
    assert NARRATOR.sentence(event) == (
        "host page 0x500 cannot be unmapped: TDH.MEM.PAGE.REMOVE fails with 0x8000, the S-EPT still maps it"
    )


def test_a_recorded_host_names_guests_and_conversions_and_a_simulated_one_the_pages_alone() -> None:
    memory = fold([(1, *VmSeen(owner=1, made=1).row()[1:])])
    asked = ConvertAsked(conversion=2, through=Through.VM_IOCTL, owner=1, thread=41, start=4, npages=4, attributes=8)
    assert Narrator(memory).sentence(asked) == (
        "thread 41 asks for [0x4,0x8) of vm1 as private: KVM_SET_MEMORY_ATTRIBUTES (conversion 2)"
    )
    assert Narrator(memory, simulated=True).sentence(asked) == (
        "the VMM asks for gfns 4 to 7 as private: KVM_SET_MEMORY_ATTRIBUTES"
    )


def test_a_fault_is_by_the_guest_or_by_the_host_as_its_access_says() -> None:
    served = (
        FaultServed(access=Access.GUEST_PRIVATE, start=1, npages=1),
        FaultServed(access=Access.HOST, start=1, npages=1, result=14),
    )
    assert [NARRATOR.sentence(event) for event in served] == (
        ["the guest accesses [0x1,0x2) as private: faulted in", "the host accesses [0x1,0x2): fails (EFAULT)"]
    )
