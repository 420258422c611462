"""The help: every verb is listed with a whole sentence, and has the options that are promised for all."""

import pytest

from gmemstate.cli.verbs import VERBS
from tests.cli.running import say

NO_DATA = ("demo", "rebuild", "import", "export", "checkpoint")
"""Verbs that tell what they did, or whose output has a form of its own: JSON lines, a checkpoint."""


def test_each_verb_is_listed_with_a_sentence_that_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = say("--help")
    assert ran.code == 0
    lines = {
        line.split()[0]: line for line in ran.out.split("Commands:")[1].splitlines() if line.startswith("  ") and line[2] != " "
    }
    for verb in VERBS:
        assert lines[verb].endswith("."), f"{verb}: make the first sentence of its help shorter"
        assert not lines[verb].endswith("..."), f"{verb}: make the first sentence of its help shorter"


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_says_of_a_verb_what_the_verb_says_first(verb: str) -> None:
    """The list is written down once more, so that it can be shown without importing the verbs."""
    command = VERBS[verb].load()
    assert VERBS[verb].says == command.get_short_help_str(200)
    assert (command.name, command.callback is not None) == (verb, True)


def test_the_examples_stand_as_they_are_typed() -> None:
    said = say("--help").out
    assert "  gmemstate demo               what it is about" in said
    assert "\\b" not in said
    assert "Exit codes: 0 clean, 1 findings, 2 usage, 3 incomplete, 4 cannot read." in said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_prints_json(verb: str) -> None:
    ran = say(verb, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: gmemstate {verb}")
    assert ("--json" in ran.out) == (verb not in NO_DATA)
    assert [line for line in ran.out.splitlines() if len(line) > 80] == []


def test_without_a_verb_the_help_is_shown_as_an_error() -> None:
    ran = say()
    assert (ran.code, ran.out) == (2, "")
    assert "Commands:" in ran.err
