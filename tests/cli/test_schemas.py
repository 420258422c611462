"""What verbs print with ``--json`` is what their schemas in the package say."""

import json
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

import gmemstate
from tests import schemas
from tests.cli.running import ledger_of, put, say

CASES = ("half_done", "ip_hwpoison_shared", "ip_pin_middle", "kill_mid", "ip_lost_overrun", "einval")


def valid(verb: str, text: str) -> None:
    """Hold a document against the schema of its verb."""
    document = json.loads(text)
    jsonschema.Draft202012Validator(json.loads((schemas.FOLDER / f"{verb}.json").read_text())).validate(document)


def questions(where: Path) -> Iterator[list[str]]:
    """Verbs with their arguments, for a ledger."""
    with gmemstate.read(where) as ledger:
        rows = [row for row in ledger.state(known=True) if row.start is not None]
        seq = ledger.head().seq
    yield from ([verb] for verb in ("conversions", "requests", "state", "messed-up", "status", "postmortem", "events", "host"))
    yield from (["check"], ["replay"], ["replay", "--steps"], ["diff", "--to", str(seq)])
    yield from (["why", f"{row.unit}:{row.start:#x}", "--guest", row.gmem or row.guest] for row in rows[:3])


@pytest.fixture(scope="module", params=[*CASES, None])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of a capture, or an empty one."""
    folder = tmp_path_factory.mktemp("schemas")
    if request.param is not None:
        return ledger_of(folder, request.param)
    gmemstate.open(folder / "empty.db").close()
    return folder / "empty.db"


@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "sc-10", "--dialect", "all", "--policy", "all"),
        ("simulate", "ip-27", "--dialect", "inplace"),
        *(("machine", name) for name in ("range", "conversion", "messed-up")),
        ("decode", "39", "0xdeadbeef", "0xc0000b0d00000001", "KVM: unknown exit reason 24"),
        ("help",),
        ("help", "json"),
    ],
    ids=" ".join,
)
def test_what_needs_no_ledger_fits_its_schema(words: tuple[str, ...]) -> None:
    said = say(*words, "--json")
    assert said.code in (0, 1, 3), said
    valid(words[0], said.out)


def test_what_came_of_reading_fits_its_schema(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    names = [put("half_done", tmp_path), put("ip_lost_overrun", tmp_path), tmp_path / "empty", tmp_path / "missing"]
    said = say("--db", tmp_path / "a.db", "ingest", *names, "--json")
    valid("ingest", said.out)
    assert [row["name"] for row in json.loads(said.out)["rows"]] == [str(name) for name in names]


def test_the_result_of_a_conversion_fits_its_schema(tmp_path: Path) -> None:
    where = tmp_path / "a.db"
    assert say("--db", where, "simulate", "sc-10", "--dialect", "mainline", "--store").code in (0, 1, 3)
    with gmemstate.open(where) as ledger:
        guest = ledger.status().guests[0]
        pages = next(row for row in ledger.state(known=True) if row.state == "shared" and row.end is not None)
        result = ledger.convert(guest.id, pages.start or 0, pages.end or 0, "private")
        valid("convert", json.dumps(result.to_json()))


def test_every_answer_fits_its_schema(ledger: Path) -> None:
    for verb, *arguments in questions(ledger):
        said = say("--db", ledger, verb, *arguments, "--json")
        assert said.code in (0, 1, 3), said
        name = "replay-steps" if "--steps" in arguments else verb
        for text in said.out.splitlines() if name in ("events", "replay-steps") else [said.out]:
            valid(name, text)
