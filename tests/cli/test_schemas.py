"""What verbs print with ``--json`` is what their schemas in the package say.

After a change of a document: ``GMEMSTATE_RENEW=1 pytest tests/cli/test_schemas.py``.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gmemstate
from gmemstate import Listing
from gmemstate.cli.verbs import VERBS
from tests import schemas
from tests.cli.running import ledger_of, say

ANSWERS: dict[str, Any] = {
    "conversions": Listing[gmemstate.ConversionRow],
    "requests": Listing[gmemstate.RequestRow],
    "state": Listing[gmemstate.StateRow],
    "messed-up": Listing[gmemstate.MessedUpRow],
    "events": gmemstate.RecordedEvent,
    "status": gmemstate.Status,
    "why": gmemstate.Why,
    "diff": gmemstate.Diff,
    "postmortem": gmemstate.PostMortem,
    "check": gmemstate.Checked,
    "replay": gmemstate.Replayed,
    "replay-steps": gmemstate.Step,
}
"""What each verb prints; of ``events`` and ``replay --steps`` each line."""
WITHOUT = {"host", "simulate", "machine", "decode", "help", "ingest"}
CASES = ("half_done", "ip_hwpoison_shared", "ip_pin_middle", "kill_mid", "ip_lost_overrun", "einval")


@pytest.mark.parametrize("verb", ANSWERS)
def test_the_schema_of_a_verb_is_that_of_its_documents(verb: str) -> None:
    path = schemas.FOLDER / f"{verb}.json"
    made = schemas.schema(verb, ANSWERS[verb])
    if os.environ.get("GMEMSTATE_RENEW"):
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made
    jsonschema.Draft202012Validator.check_schema(json.loads(made))


def test_each_verb_with_json_has_a_schema() -> None:
    verbs = {name for name, verb in VERBS.items() if any("--json" in one.opts for one in verb.load().params)}
    assert verbs - WITHOUT == set(ANSWERS) - {"replay-steps"}
    assert {path.stem for path in schemas.FOLDER.iterdir()} == set(ANSWERS)


def valid(verb: str, text: str) -> None:
    """Hold a document against the schema of its verb."""
    document = json.loads(text)
    if verb not in WITHOUT:
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


def test_every_answer_fits_its_schema(ledger: Path) -> None:
    for verb, *arguments in questions(ledger):
        said = say("--db", ledger, verb, *arguments, "--json")
        assert said.code in (0, 1, 3), said
        name = "replay-steps" if "--steps" in arguments else verb
        for text in said.out.splitlines() if name in ("events", "replay-steps") else [said.out]:
            valid(name, text)
