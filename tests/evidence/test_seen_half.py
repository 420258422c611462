"""Calls that are seen half, requests whose conversions are not shown, two guests: small inputs with the right answer."""

from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from tests.cli.running import say

INPUTS = Path(__file__).parent / "inputs"
INCOMPLETE = 3


def ledger_of(name: str, folder: Path) -> Path:
    where = folder / "a.db"
    with Ledger.open(where, durable=False) as ledger:
        ledger.ingest(INPUTS / f"{name}.txt")
    return where


@pytest.mark.parametrize("name", ["attempt-only", "state-stale-after-attempt-without-result"])
def test_pages_of_a_call_whose_result_is_not_on_record_are_unknown(name: str, tmp_path: Path) -> None:
    where = ledger_of(name, tmp_path)
    with Ledger.open(where, readonly=True) as ledger:
        assert {row.state for row in ledger.state("0x100008-0x100048")} == {"unknown"}
        assert any("vm_ioctl_ret" in reason for reason in ledger.state().missing)
    ran = say("--db", where, "state")
    assert ran.code == INCOMPLETE
    assert "0x100048)" in ran.out


def test_pages_of_a_call_that_shows_its_steps_and_has_shown_none_are_what_they_were_while_it_goes_on(tmp_path: Path) -> None:
    """Up to its first step it waits for the lock; only where the record ends inside of it nobody can say more."""
    where = ledger_of("attempt-only", tmp_path)
    with Ledger.open(where, readonly=True) as ledger:
        first = ledger.conversions()[1].id
        assert {row.state for row in ledger.state("0x100008-0x100048", at=first - 1)} == {"private"}
        assert {row.state for row in ledger.state("0x100008-0x100048", at=first)} == {"unknown"}


NOT_KNOWN = "Whether a conversion followed is not known"


@pytest.mark.parametrize("name", ["request-refused-only-hypercall-lines", "request-refused-only-hypercall-lines-mainline"])
def test_that_nothing_followed_is_not_said_where_a_conversion_need_not_have_been_shown(name: str, tmp_path: Path) -> None:
    ran = say("--db", ledger_of(name, tmp_path), "postmortem")
    assert NOT_KNOWN in " ".join(ran.out.split())
    assert "nothing was changed" not in " ".join(ran.out.split())
    assert ran.code == INCOMPLETE


def test_conversions_before_the_answer_are_told_and_their_share_in_the_request_is_not_known(tmp_path: Path) -> None:
    where = ledger_of("request-refused-nothing-followed", tmp_path)
    told = " ".join(say("--db", where, "postmortem").out.split())
    assert "3 conversions were made before the answer, and whether for this request is not known" in told
    assert "No conversion followed" not in told
    with Ledger.open(where, readonly=True) as ledger:
        assert [row.applied_pages for row in ledger.requests()] == [None]


def test_static_tracepoints_alone_apply_nothing_that_is_known(tmp_path: Path) -> None:
    with Ledger.open(ledger_of("tponly-mainline", tmp_path), readonly=True) as ledger:
        assert [row.applied_pages for row in ledger.requests()] == [None]
        assert {row.state for row in ledger.state("0x100000-0x100100")} <= {"unknown"}


def test_the_conversions_of_another_guest_change_nothing_about_a_request(tmp_path: Path) -> None:
    found = []
    for name in ("two-vms-applied-lost.min", "two-vms-applied-lost.min.without-other-vm"):
        (tmp_path / name).mkdir()
        with Ledger.open(ledger_of(name, tmp_path / name), readonly=True) as ledger:
            (request,) = ledger.requests()
            own = [one for one in ledger.incidents().incidents if one.guest == "vm1"]
            found.append((request.to, request.applied_pages, request.notes, [(one.kind, one.summary) for one in own]))
    assert found[0] == found[1]
    assert found[0][:2] == ("private", 44)
