"""Stories of what no capture shows: events recorded one by one, as a harness or a VMM records them."""

from pathlib import Path

from gmemstate.audit.history.corroboration import compared
from gmemstate.audit.history.history import History
from gmemstate.ingest.input import Account
from gmemstate.model.events import (
    ConvertAsked,
    Event,
    PageAdded,
    PrivateUnmapFailed,
    Through,
    Undone,
    UnmapStep,
    VmCreated,
    VmSeen,
)
from gmemstate.model.record import resolve
from gmemstate.postmortem.incident import Incident
from tests.cli.running import say
from tests.postmortem.telling import about, post_mortem_of
from tests.traces import Read


def tell_events(*events: Event) -> list[Incident]:
    """The incidents of a record of some events about one guest."""
    guest = (VmSeen(owner=-1, made=1, pointer=0xFFFF888000000000, thread=7), VmCreated(owner=-1))
    rows, _ = resolve([event.row() for event in (*guest, *events)], 1, {})
    return [incident for incident in post_mortem_of(Read(compared(History().fold(rows)), rows, Account())).incidents]


def story_of(*events: Event) -> Incident:
    (incident,) = tell_events(*events)
    return incident


def titled(incidents: list[Incident], title: str) -> Incident:
    (incident,) = (incident for incident in incidents if incident.title == title)
    return incident


def test_a_page_that_could_not_be_unmapped_is_reported_with_what_it_means_for_the_host() -> None:
    incident = story_of(PrivateUnmapFailed(step=UnmapStep.REMOVE, pfn=0x1A2B3C4, owner=-1, start=0x100))
    assert (incident.blame, incident.title) == ("kernel or module", "host suspect, VM dead")
    assert "pfn 0x1a2b3c4, gfn 0x100" in incident.rows()[0][2]
    assert "a new TD is refused" in about(incident, "Reuse")
    assert "reboot" in about(incident, "Do")


def test_a_page_that_nobody_named_is_said_to_be_unknown_and_asked_for() -> None:
    incident = story_of(PrivateUnmapFailed(step=UnmapStep.RMPUPDATE, owner=-1))
    assert "pfn not known" in incident.rows()[0][2]
    assert "which host page it is" in about(incident, "Missing")


def test_an_event_that_fits_no_state_is_reported_in_the_words_of_runtime_verification() -> None:
    asked = ConvertAsked(conversion=-2, through=Through.VM_IOCTL, owner=-1, thread=7, start=0, npages=1, attributes=8)
    undone = Undone(conversion=-2, owner=-1, start=0, npages=1, result=0)
    incident = titled(tell_events(asked, undone), "impossible history")
    assert incident.blame == "unknown"
    assert "4: event undone not expected in the state asked" in about(incident, "Event")
    assert "wrong join" in about(incident, "Do")
    assert not incident.complete


def test_a_bad_page_that_is_given_away_is_an_incident() -> None:
    bad = PrivateUnmapFailed(step=UnmapStep.REMOVE, pfn=0x1A2B3C4, owner=-1, start=0x100)
    given = PageAdded(owner=-1, start=7, npages=1, pfn=0x1A2B3C4)
    incident = titled(tell_events(bad, given), "bad page given away")
    assert incident.blame == "kernel or module"
    assert "host page 0x1a2b3c4 was given away" in about(incident, "Event")
    assert about(incident, "Do").startswith("stop the new owner")


def test_an_ioctl_that_returned_0_and_converted_a_part_is_an_incident_of_the_kernel(tmp_path: Path) -> None:
    """The hidden errno of RFC v2: the list of work is one item short."""
    ledger = tmp_path / "a.db"
    assert say("--db", ledger, "simulate", "sc-41-returned-ok-half-converted", "--store").code == 0
    report = " ".join(say("--db", ledger, "postmortem").out.split())
    assert report.startswith("kernel or module: RETURNED SUCCESS, PARTLY APPLIED incident 1 of 1 vm1 ")
    assert "Now idx [0x0,0xc) shared, [0xc,0x10) private" in report
