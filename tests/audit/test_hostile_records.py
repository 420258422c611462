"""A sealed record may say anything: what cannot be an event is a finding, and every verb goes on without it and says so."""

import json
import random
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import DETAIL, KIND, OWNER, RESULT, SEQ, SOURCE, ConvertReturned, EventRow
from tests.audit import hostile_records as hostile
from tests.audit.alterations import forged
from tests.audit.verifier import verify
from tests.cli.running import Ran, say
from tests.traces import capture

VERBS = (
    ("status",), ("conversions",), ("requests",), ("state",), ("messed-up",), ("events",), ("postmortem",), ("host",),
    ("replay",),
    ("replay", "--steps"), ("diff", "--from", "1"), ("why", "gfn:0x100000"), ("why", "idx:0x0"), ("events", "--guest", "vm1"),
    ("conversions", "--at", "40"), ("state", "--at", "9.5"),
)  # fmt: skip
BOTH_FORMS = [(*verb, *form) for verb in VERBS for form in ((), ("--json",))]
LOG = b"""\
[    7.000000] virt/tdx: Memory map: 0x1-0x2
[   60.100000] SEAMCALL TDH_MEM_PAGE_REMOVE failed: 0xc0000b0d00000001, entry 0x7654321077, level_state 0x400
[   60.200000] Memory failure: 0x1234: recovery action for clean unevictable LRU page: Failed
[   61.000000] SEV-SNP: Leaking PFN range 0x1000-0x1200
[   62.000000] WARNING: arch/x86/kvm/vmx/tdx.c:1 at tdx_mem_page_aug+0x1/0x2 [kvm_intel], CPU#3: CPU 3/KVM/77
"""
QEMU = b"""\
qemu-system-x86_64: Convert non guest_memfd backed memory region (0xf0000 ,+ 0x1000) to private
error: kvm run failed Input/output error
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> list[list[EventRow]]:
    """Records of a trace of either kind, of logs, and of traces and logs together."""
    folder = tmp_path_factory.mktemp("honest")
    (folder / "dmesg.log").write_bytes(LOG)
    (folder / "qemu.log").write_bytes(QEMU)
    captures = [capture(case) for case in ("half_done", "ip_hwpoison_shared", "ip_eagain_pin", "kill_mid")]
    records = []
    for n, paths in enumerate([*[[path] for path in captures], [*folder.glob("*.log")], [captures[0], folder / "dmesg.log"]]):
        with Ledger.open(folder / f"{n}.db", durable=False) as ledger:
            ledger.ingest(*paths)
            records.append(list(ledger.record_.events()))
    return records


def fine(ran: Ran, words: object) -> None:
    """Any answer, or one line, and no traceback."""
    assert ran.code in (0, 1, 2, 3, 4), (words, ran)
    assert "Traceback" not in ran.err
    assert ran.code != 4 or ran.err.count("\n") == 1, (words, ran)


def named(path: Path) -> set[int]:
    """The events that `check` names as such that cannot be."""
    ran = say("--db", path, "check", "--json")
    assert ran.code in (1, 3), ran
    return {one["seq"] for one in json.loads(ran.out)["findings"] if one["code"] in ("EVENT-INVALID", "UNKNOWN-KIND")}


def try_all(path: Path, verbs: Iterator[tuple[str, ...]], how_many: int) -> None:
    """Ask some verbs of a record; of one with unusable events, check and import name them, and no verb is silent."""
    bad = hostile.unusable(path)
    if bad:
        assert set(bad) <= named(path)
        ran = say("--db", path.with_suffix(".new"), "import", path)
        assert (ran.code, f"{path}:{min(bad) + 2}: " in ran.err) == (4, True) or ran.code == 4, ran
    else:
        fine(say("--db", path, "check"), "check")
    for _ in range(how_many):
        words = next(verbs)
        ran = say("--db", path, *words)
        fine(ran, words)
        if bad and "--at" not in words and ran.code != 2:
            assert ran.code in (1, 3), (words, ran, bad)
            assert "cannot be used" in ran.err + ran.out, (words, ran, bad)


def mutations(honest: list[list[EventRow]], folder: Path, dice: random.Random, rounds: int, verbs: int) -> None:
    turn = (BOTH_FORMS[n % len(BOTH_FORMS)] for n in count())
    for n in range(rounds):
        rows = hostile.mutation(honest[n % len(honest)], dice)
        path = hostile.write(folder / "hostile.jsonl", rows)
        try:
            try_all(path, turn, verbs)
        except BaseException:
            shutil.copy(path, folder / f"kept-{n}.jsonl")
            print(folder / f"kept-{n}.jsonl")
            raise


def test_no_mutation_of_a_record_breaks_a_verb_or_goes_unsaid(honest: list[list[EventRow]], tmp_path: Path) -> None:
    mutations(honest, tmp_path, random.Random(1), 150, 2)


@pytest.mark.fuzz
def test_no_mutation_of_twenty_thousand_does(honest: list[list[EventRow]], tmp_path: Path) -> None:
    mutations(honest, tmp_path, random.Random(), 20_000, 2)


KEPT = sorted((Path(__file__).parent / "hostile").glob("*.jsonl"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_every_verb_goes_on_without_what_cannot_be_and_says_so(path: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(path, tmp_path / "a.jsonl"))
    try_all(copied, iter(BOTH_FORMS), len(BOTH_FORMS))


FLAWS = {
    "no JSON": (DETAIL, "{not json", "detail is no JSON: '{not json'"),
    "no object": (DETAIL, "[]", "detail is no object of JSON: '[]'"),
    "too deep": (DETAIL, "[" * 100_000, "detail is no JSON"),
    "another type": (DETAIL, '{"hva":[]}', "detail: 'hva' cannot be []"),
    "too large": (DETAIL, f'{{"size_of":{10**40}}}', "detail: 'size_of' cannot be 1000"),
    "no number": (DETAIL, '{"x":NaN}', "detail: 'x' cannot be nan"),
    "no errno": (RESULT, 1 << 40, "result cannot be 1099511627776"),
    "no source": (SOURCE, 99_999, "99999 is not a source on record"),
    "no guest": (OWNER, 99_999, "99999 is not a guest or a guest_memfd on record"),
    "a source as a guest": (OWNER, 1, "1 is not a guest or a guest_memfd on record"),
}


@pytest.mark.parametrize(("column", "value", "why"), FLAWS.values(), ids=FLAWS)
@pytest.mark.parametrize("form", ["export", "ledger"])
def test_check_names_what_cannot_be_with_its_seq_and_import_refuses_it_with_the_line(
    column: int, value: int | str, why: str, form: str, honest: list[list[EventRow]], tmp_path: Path
) -> None:
    at = next(row[SEQ] for row in honest[0] if row[KIND] == ConvertReturned.code)
    rows = [(*row[:column], value, *row[column + 1 :]) if row[SEQ] == at else row for row in honest[0]]
    path = hostile.write(tmp_path / "a.jsonl", rows)  # type: ignore[arg-type]
    where = path if form == "export" else forged(tmp_path / "a.db", rows)  # type: ignore[arg-type]
    ran = say("--db", where, "check")
    assert ran.code == 1
    assert f"error: {at}: convert_returned: {why}" in ran.out
    ran = say("--db", where, "status")
    assert ran.code == 3
    assert f"1 event cannot be used, the first is {at}" in ran.err
    ran = say("--db", tmp_path / "new.db", "import", path)
    assert ran.code == 4
    assert f"{path}:{at + 2}: convert_returned: {why}" in ran.err


def test_a_time_of_recording_that_no_clock_shows_is_refused(honest: list[list[EventRow]], tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "a.jsonl", honest[0])
    text = path.read_text().replace('"recorded":1,', f'"recorded":{1 << 70},')
    path.write_text(text)
    for verb in (("check",), ("status",), ("export", tmp_path / "b.jsonl")):
        fine(say("--db", path, *verb), verb)
    assert say("--db", tmp_path / "new.db", "import", path).code == 4
    assert verify(path).returncode == 1


@pytest.mark.parametrize("size", [1 << 70, 1 << 62, -1, 10**4200])
def test_the_second_verifier_believes_no_size(size: int, honest: list[list[EventRow]], tmp_path: Path) -> None:
    path = hostile.write(tmp_path / "a.jsonl", honest[0])
    path.write_text(path.read_text().replace(f'"size":{len(honest[0])},', f'"size":{size},'))
    assert verify(path).returncode in (1, 4)
    fine(say("--db", path, "check"), "check")
    fine(say("--db", path, "status"), "status")


@pytest.mark.parametrize("line", ["[" * 200_000, '{"a":' * 200_000, "[9" + "9" * 5000 + "]", "\x00", "{}", '{"first":1}'])
def test_a_line_that_is_deep_or_huge_is_refused_by_both(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"gmemstate":"record","format":1}\n' + line + "\n")
    done = verify(path)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    ran = say("--db", path, "check")
    assert ran.code == 4
    assert ran.err.count("\n") == 1
