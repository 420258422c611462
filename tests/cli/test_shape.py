"""The shape of ``--json``: every key is there always, u64 are hex strings, times decimal strings, what is not known is null."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.running import ledger_of, say
from tests.ingest.truth import returned
from tests.traces import capture, lines_of

HEX = re.compile(r"0x(0|[1-9a-f][0-9a-f]{0,15})").fullmatch
NS = re.compile(r"0|[1-9][0-9]*").fullmatch

CONVERSION = {
    "id", "guest", "thread", "through", "arguments_known", "gpa", "offset", "size", "attributes", "to",
        "start", "end", "errno", "error_offset",
    "applied", "residue", "label", "stuck", "dying", "trigger", "request", "observed_ns", "started_ns", "ended_ns", "evidence",
    "corroborations",
}  # fmt: skip
LABELS = {
    "committed",
    "noop",
    "rejected",
    "failed",
    "failed_residue",
    "partial",
    "unknown",
    "attempted",
    "cut",
    "in_flight",
    "declared",
}
CASES = ("half_done", "enomem", "einval", "simple_tp", "ip_eagain_pin", "ip_einval", "ip_lost_overrun", "kill_mid")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """``conversions --json`` of some captures."""
    folder = tmp_path_factory.mktemp("shape")
    return {case: json.loads(say("--db", ledger_of(folder, case), "conversions", "--json").out)["rows"] for case in CASES}


def of(kind: Any, value: object) -> bool:
    return value is None or bool(isinstance(value, str) and kind(value))


@pytest.mark.parametrize("case", CASES)
def test_each_conversion_has_all_keys_in_their_forms(case: str, answers: dict[str, list[dict[str, Any]]]) -> None:
    assert answers[case]
    for row in answers[case]:
        assert set(row) == CONVERSION
        assert isinstance(row["id"], int)
        assert re.fullmatch(r"vm\d+|\?", row["guest"])
        assert all(of(HEX, row[key]) for key in ("gpa", "offset", "size", "attributes", "start", "end", "error_offset"))
        assert all(of(NS, row[key]) for key in ("observed_ns", "started_ns", "ended_ns"))
        assert row["to"] in ("private", "shared", None)
        assert row["errno"] is None or (isinstance(row["errno"], int) and row["errno"] >= 0)
        assert row["label"] in LABELS
        assert row["trigger"] in ("guest_request", "fault_mismatch", "vmm_after_fault", "vmm", "unknown")
        assert row["request"] is None or isinstance(row["request"], int)
        assert set(row["applied"]) == {"extent", "ranges", "unit", "basis"}
        assert row["applied"]["extent"] in ("all", "part", "none", "unknown")
        assert row["applied"]["basis"] in ("observed", "implied", "assumed", None)
        assert all(HEX(start) and HEX(end) for start, end in row["applied"]["ranges"])
        for left in row["residue"] or ():
            assert set(left) == {"what", "unit", "start", "end", "entries", "basis"}
        assert set(row["evidence"]) == {"file", "first", "last"}
        assert row["evidence"]["first"] <= row["evidence"]["last"] <= len(lines_of(case))
        assert row["corroborations"] == []  # there is one source


@pytest.mark.parametrize("case", CASES)
def test_a_conversion_says_what_the_line_of_its_return_says(case: str, answers: dict[str, list[dict[str, Any]]]) -> None:
    shown = [row for row in answers[case] if row["errno"] is not None]
    lines = [
        one for one in returned(case) if (one.call.errno, one.t) in {(row["errno"], int(row["ended_ns"])) for row in shown}
    ]
    assert len(lines) == len(shown) == len(returned(case))
    for row in shown:
        one = next(one for one in lines if one.t == int(row["ended_ns"]))
        assert row["thread"] == one.call.thread
        address = row["gpa"] if row["through"] == "vm_ioctl" else row["offset"]
        if address is not None:
            assert (int(address, 16), int(row["size"], 16)) == (one.call.address, one.call.size)
            assert int(row["attributes"], 16) == one.call.attributes
        last = lines_of(case)[row["evidence"]["last"] - 1]
        assert f"ret={-one.call.errno if one.call.errno else 0} ".encode() in last


def test_addresses_of_the_vm_and_of_the_file_are_not_mixed(answers: dict[str, list[dict[str, Any]]]) -> None:
    first, *_ = answers["half_done"]
    assert (first["gpa"], first["offset"], first["start"], first["end"]) == ("0x100000000", None, "0x100000", "0x100080")
    assert first["applied"]["unit"] == "gfn"
    first, *_ = answers["ip_eagain_pin"]
    assert (first["gpa"], first["offset"], first["start"], first["end"]) == ("0x100000000", "0x0", "0x100000", "0x100010")
    assert (first["error_offset"], first["applied"]["unit"]) == ("0x5000", "idx")


def test_what_the_kernel_did_not_read_is_null(answers: dict[str, list[dict[str, Any]]]) -> None:
    (unread,) = (row for row in answers["einval"] if row["errno"] == 14)
    assert [unread[key] for key in ("gpa", "size", "attributes", "to", "start", "end")] == [None] * 6


def test_other_answers_have_their_keys(half_done: Path, poisoned: Path) -> None:
    (request,) = json.loads(say("--db", half_done, "requests", "--json").out)["rows"]
    assert set(request) == {"id", "guest", "thread", "path", "gpa", "pages", "flags", "to", "conversions",
        "applied_pages", "returned",
                            "notes", "asked_ns", "answered_ns", "evidence"}  # fmt: skip
    for row in json.loads(say("--db", half_done, "state", "--json").out)["rows"]:
        assert set(row) == {"guest", "unit", "gmem", "start", "end", "pages", "state", "unbacked", "held_by", "guest_gone"}
        assert of(HEX, row["start"])
        assert of(HEX, row["end"])
    (page,) = json.loads(say("--db", poisoned, "messed-up", "--json").out)["rows"]
    assert set(page) == {"id", "cause", "state", "pfn", "count", "guest", "gfn", "gmem", "index", "reuse_risk", "cleared_by",
                         "since_ns"}  # fmt: skip


def test_events_are_lines_of_json_that_cite_lines_of_the_trace(half_done: Path) -> None:
    events = [json.loads(line) for line in say("--db", half_done, "events", "--json").out.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    asked = next(event for event in events if event["kind"] == "guest_asked")
    assert b"kvm_hypercall: nr 0xc" in lines_of("half_done")[asked["line"] - 1]
    assert of(NS, asked["t"])


def test_the_evidence_names_the_file_as_it_was_given(half_done: Path) -> None:
    (first, _) = json.loads(say("--db", half_done, "conversions", "--json").out)["rows"]
    assert Path(first["evidence"]["file"]).read_bytes() == capture("half_done").read_bytes()
