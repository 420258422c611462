"""Several witnesses of one run in one ledger: the trace says what it said alone, and nobody contradicts it."""

import gzip
from pathlib import Path

import pytest

from gmemstate.audit.history.history import History
from gmemstate.ledger.ledger import Ledger
from gmemstate.model.events import OWNER, SOURCE, VmSeen
from tests import views
from tests.traces import ALL_CASES, SHARED, capture, lines_of, read_case, read_file

WITNESSES = {case: [path for name in ("strace.txt", "dmesg.txt") for path in SHARED.glob(
    f"captures/**/{case}/{name}") if path.stat().st_size]
             for case in ALL_CASES}  # fmt: skip
"""The other logs of each case, where the captures are at hand."""
TOGETHER = [
    case
    for case in ("half_done", "enomem", "hwpoison_private", "race", "ip_eagain_pin", "ip_enomem", "kill_mid")
    if WITNESSES.get(case)
]


def place(case: str, folder: Path) -> Path:
    """The trace of a case as a plain file."""
    path = folder / "ftrace.txt"
    data = capture(case).read_bytes()
    path.write_bytes(gzip.decompress(data) if capture(case).suffix == ".gz" else data)
    return path


def told(history: History, source: int) -> list[views.Json]:
    """What is said of the conversions that one source has shown, but for their numbers."""
    numbers = ("id", "request", "evidence", "corroborations")
    return [
        {name: value for name, value in views.conversion(history, conversion).items() if name not in numbers}
        for conversion in history.ordered()
        if conversion.source == source
    ]


@pytest.mark.skipif(not TOGETHER, reason="the other logs of the captures are not at hand")
@pytest.mark.parametrize("case", TOGETHER)
@pytest.mark.parametrize("order", [1, -1], ids=["trace first", "trace last"])
def test_other_witnesses_change_nothing_of_what_the_trace_says(case: str, order: int, tmp_path: Path) -> None:
    trace = place(case, tmp_path)
    alone = read_case(case).history
    with Ledger.open(tmp_path / "a.db", durable=False) as ledger:
        results = ledger.ingest(*[trace, *WITNESSES[case]][::order])
        history = ledger.history()
        rows = list(ledger.record_.events())
    assert all(result.complete for result in results)
    assert not history.findings
    (source,) = [info.id for info in history.sources.values() if info.name == str(trace)]
    assert told(history, source) == told(alone, next(iter(alone.sources)))
    assert all(row[OWNER] is None for row in rows if row[SOURCE] != source), "no other witness names a guest"
    assert sum(row[2] == VmSeen.code for row in rows) == len(alone.memory.vms)


@pytest.mark.skipif(not TOGETHER, reason="the other logs of the captures are not at hand")
@pytest.mark.parametrize("case", TOGETHER)
def test_strace_and_the_trace_agree_on_every_result(case: str) -> None:
    """Both saw the same calls; what each calls an errno is the same number."""
    (path,) = [path for path in WITNESSES[case] if path.name == "strace.txt"]
    strace = [(one["thread"], one["through"], one["errno"]) for one in read_file(path).conversions]
    trace = [(one["thread"], one["through"], one["errno"]) for one in read_case(case).conversions]
    if case == "kill_mid":  # strace is told of the end of a killed thread, not of what its call returned
        assert strace == [(thread, through, None) for thread, through, _ in trace]
    else:
        assert sorted(strace) == sorted(trace)


ALL_LOGS = [pytest.param(path, id=f"{path.parent.name}-{path.name}") for paths in WITNESSES.values() for path in paths]


@pytest.mark.skipif(not ALL_LOGS, reason="the other logs of the captures are not at hand")
@pytest.mark.parametrize("path", ALL_LOGS)
def test_every_line_of_a_log_is_understood_and_nothing_contradicts_itself(path: Path) -> None:
    read = read_file(path)
    assert read.account.unparsed == 0, read.account.first_unparsed
    assert not read.history.findings


def test_lines_of_other_witnesses_between_those_of_a_trace_change_nothing(tmp_path: Path) -> None:
    """One file with everything in it, as a serial console has it."""
    others = [b"[    9.000000] kvm_intel: tdh_mng_key_freeid() failed. HKID 35 is leaked.", b"[    9.000001] eth0: link is up",
              b"kvm_convert_memory start 0x100004000 size 0x4000 shared_to_private",
                  b"77 ioctl(4, KVM_SET_MEMORY_ATTRIBUTES, 0x7ffc) = 0"]  # fmt: skip
    mixed = []
    for number, line in enumerate(lines_of("simple")):
        mixed += [line, others[number % 4]] if number > 20 else [line]
    path = tmp_path / "mixed.txt"
    path.write_bytes(b"\n".join(mixed) + b"\n")
    history, alone = read_file(path).history, read_case("simple").history
    traced = [one for one in views.conversions(history) if one["thread"] != 77]
    numbers = ("id", "evidence")
    assert [{k: v for k, v in one.items() if k not in numbers} for one in traced] == [
        {k: v for k, v in one.items() if k not in numbers} for one in views.conversions(alone)
    ]
    assert not history.findings
