"""Public reports that nobody had in mind: five answers to each, right or honestly not known, and no claim beyond their lines.

What is answered wrongly stands in ``field_open.txt``; ``GMEMSTATE_RENEW=1`` takes out what has become right and adds nothing.
"""

import os
from functools import cache
from pathlib import Path

import pytest

from tests.adversary.program import Answers, ask
from tests.postmortem.field_cases import CASES, QUESTIONS
from tests.traces import SHARED

FOLDER = SHARED / "samples" / "field"
STILL_OPEN = Path(__file__).with_name("field_open.txt")

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the public sample logs are not at hand")


@cache
def still_open() -> frozenset[str]:
    return frozenset(STILL_OPEN.read_text().splitlines())


@cache
def asked(names: tuple[str, ...]) -> Answers:
    return ask(*(FOLDER / f"{name}.log" for name in names))


def wrong(names: tuple[str, ...], question: str) -> list[str]:
    return list(QUESTIONS[question](CASES[names], asked(names)))


def parameters() -> list[object]:
    found: list[object] = []
    for names in CASES:
        for question in QUESTIONS:
            name = f"{'+'.join(names)} {question}"
            mark = [pytest.mark.xfail(strict=True, reason="answered wrongly so far")] if name in still_open() else []
            found.append(pytest.param(names, question, id=name, marks=mark))
    return found


@pytest.mark.parametrize(("names", "question"), parameters())
def test_the_answer_is_right_or_honestly_not_known(names: tuple[str, ...], question: str) -> None:
    assert wrong(names, question) == [], asked(names)


@pytest.mark.skipif(not os.environ.get("GMEMSTATE_RENEW"), reason="renews what is still open")
def test_what_has_become_right_is_not_open_any_more() -> None:
    left = [name for name in sorted(still_open()) if wrong(tuple(name.split()[0].split("+")), name.split()[1])]
    STILL_OPEN.write_text("".join(f"{name}\n" for name in left))


def test_every_log_has_its_answers() -> None:
    assert {path.stem for path in FOLDER.glob("*.log")} <= {name for names in CASES for name in names}


def test_only_what_is_asked_is_open() -> None:
    assert still_open() <= {f"{'+'.join(names)} {question}" for names in CASES for question in QUESTIONS}
