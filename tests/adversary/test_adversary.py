"""Logs whose truth is known, by the thousand: the program claims nothing beyond it and uses every decisive line.

What fails today stands in ``open.txt``, a kind and a law each; ``GMEMSTATE_RENEW=1`` takes out what holds, and adds nothing.
"""

import os
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest

from tests.adversary.envelopes import wrapped
from tests.adversary.mixtures import MIXTURES
from tests.adversary.platforms import STARTS
from tests.adversary.program import Answers, ask, write
from tests.adversary.reports import REPORTS
from tests.adversary.steps import STEPS
from tests.adversary.truth import LAWS, Truth

KINDS = {**REPORTS, **STARTS, **STEPS, **MIXTURES}
SAMPLE, MANY = 6, 10_000
OPEN_FILE = Path(__file__).with_name("open.txt")


@cache
def still_open() -> frozenset[str]:
    return frozenset(OPEN_FILE.read_text().splitlines())


def one(kind: str, seed: int) -> tuple[list[str], Truth, Answers]:
    """A log of a kind, its truth, and what the program answers."""
    rng = Random(f"{kind} {seed}")
    log = KINDS[kind](rng)
    lines = wrapped(rng, log.lines, name=log.envelope)
    other = wrapped(rng, log.other, name=log.envelope) if log.other else []
    with TemporaryDirectory() as folder:
        files = [write(Path(folder), f"{name}.log", text) for name, text in (("a", lines), ("b", other)) if text]
        return [*lines, *other], log.truth, ask(*files)


@cache
def sample(kind: str) -> list[tuple[list[str], Truth, Answers]]:
    return [one(kind, seed) for seed in range(SAMPLE)]


def broken(kind: str, law: str) -> list[str]:
    """How the program breaks a law in the sample of a kind."""
    return [f"{wrong}\n" + "\n".join(lines) for lines, truth, said in sample(kind) for wrong in LAWS[law](truth, said)]


def parameters() -> list[object]:
    found: list[object] = []
    for kind in KINDS:
        for law in LAWS:
            mark = [pytest.mark.xfail(strict=True, reason="broken so far")] if f"{kind} {law}" in still_open() else []
            found.append(pytest.param(kind, law, id=f"{kind}-{law}", marks=mark))
    return found


@pytest.mark.parametrize(("kind", "law"), parameters())
def test_no_claim_goes_beyond_the_truth_and_every_decisive_line_is_used(kind: str, law: str) -> None:
    wrong = broken(kind, law)
    assert not wrong, "\n\n".join(wrong[:2])


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", KINDS)
def test_of_ten_thousand_logs_none_breaks_a_law_that_holds(kind: str) -> None:
    start = SAMPLE + Random().randrange(10**9)
    wrong = []
    for seed in range(start, start + MANY // len(KINDS) + 1):
        lines, truth, said = one(kind, seed)
        for law, holds in LAWS.items():
            if f"{kind} {law}" not in still_open():
                wrong += [f"{law} (seed {seed}): {why}\n" + "\n".join(lines) for why in holds(truth, said)]
    assert not wrong, f"{len(wrong)} of them\n" + "\n\n".join(wrong[:3])


@pytest.mark.skipif(not os.environ.get("GMEMSTATE_RENEW"), reason="renews what is still open")
def test_what_holds_is_not_open_any_more() -> None:
    left = [name for name in sorted(still_open()) if broken(*name.rsplit(" ", 1))]
    OPEN_FILE.write_text("".join(f"{name}\n" for name in left))


def test_only_kinds_and_laws_are_open() -> None:
    assert still_open() <= {f"{kind} {law}" for kind in KINDS for law in LAWS}
