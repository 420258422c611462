"""A trace that was mutilated without a word about it says less, never something else."""

from collections import Counter
from pathlib import Path

import pytest

from tests.evidence.answers import Answers, lost, wrong
from tests.evidence.mutilations import CASES, Mutilation, at_random, by_kind, trace
from tests.traces import read_lines

QUICK = ("simple", "half_done", "ip_basic", "ip_eagain_pin", "nogmem")
SEEDS = 3
NOT_SEEN_TO_BE_LOST = 200
"""So many wrong answers are known to be left: whole calls were lost, and no line that is left shows it, or shows it later."""
WITHOUT_A_WORD = 800
"""So many answers that lost something are known to end with exit code 0."""


def held(case: str, losses: list[Mutilation], folder: Path) -> tuple[list[str], list[str]]:
    """What is wrong in the answers of a mutilated capture, and what is lost with exit code 0."""
    whole = Answers(read_lines(trace(case), folder))
    false, gone = [], []
    for loss in losses:
        if not any(loss.lines[20:]):
            continue
        less = Answers(read_lines(loss.lines, folder))
        false += [f"{case}, {loss.name}: {what}" for what in wrong(whole, less, loss)]
        if loss.end is None:
            gone += [f"{case}, {loss.name}: {verb} {what}" for verb, what in lost(whole, less)]
    return false, gone


@pytest.mark.parametrize("case", QUICK)
def test_without_a_kind_of_line_no_answer_is_wrong(case: str, tmp_path: Path) -> None:
    assert held(case, list(by_kind(case)), tmp_path)[0] == []


@pytest.mark.parametrize("case", QUICK)
def test_without_lines_here_and_there_no_answer_is_wrong(case: str, tmp_path: Path) -> None:
    losses = [loss for loss in at_random(case, 0) if "lines" not in loss.name]
    assert held(case, losses, tmp_path)[0] == []


@pytest.mark.exhaustive
def test_all_captures_without_each_kind_and_without_lines_at_random(tmp_path: Path) -> None:
    """All of it, with its numbers: they may only become smaller."""
    false: list[str] = []
    gone: list[str] = []
    count = 0
    for case in CASES:
        losses = [*by_kind(case), *(loss for seed in range(SEEDS) for loss in at_random(case, seed))]
        count += len(losses)
        now = held(case, losses, tmp_path)
        false, gone = false + now[0], gone + now[1]
    print(f"{len(CASES)} captures, {count} mutilations, {len(false)} wrong, {len(gone)} lost with exit code 0")
    print(*false, sep="\n")
    print(Counter(one.split(":")[1].split()[0] for one in gone))
    assert len(false) <= NOT_SEEN_TO_BE_LOST
    assert len(gone) <= WITHOUT_A_WORD
