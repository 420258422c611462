"""The JSON Schemas in the package are those of the documents.

After a change of one: ``GMEMSTATE_RENEW=1 pytest tests/law/test_schemas.py``.
"""

import json
import os

import jsonschema
import pytest

from gmemstate.cli.verbs import VERBS
from tests import schemas
from tests.schemas import ANSWERS


@pytest.mark.parametrize("verb", ANSWERS)
def test_the_schema_of_a_verb_is_that_of_its_documents(verb: str) -> None:
    path = schemas.FOLDER / f"{verb}.json"
    made = schemas.schema(verb, ANSWERS[verb])
    if os.environ.get("GMEMSTATE_RENEW"):
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made, (
        "a document was changed: GMEMSTATE_RENEW=1 pytest tests/law/test_schemas.py"
    )
    jsonschema.Draft202012Validator.check_schema(json.loads(made))


def test_each_verb_with_json_has_a_schema() -> None:
    verbs = {name for name, verb in VERBS.items() if any("--json" in one.opts for one in verb.load().params)}
    assert verbs == set(ANSWERS) - {"replay-steps", "convert"}
    assert {path.stem for path in schemas.FOLDER.iterdir()} == set(ANSWERS)
