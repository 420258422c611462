"""The form of the text: one incident in 80 columns, whatever is in it."""

from pathlib import Path

import pytest

from gmemstate.model.units import Ns
from gmemstate.postmortem.incident import (
    Blame,
    Covered,
    Evidence,
    Incident,
    IncidentKind,
    IncidentTable,
    PostMortem,
    Section,
    TimelineRow,
    cited,
)
from gmemstate.postmortem.render import text
from tests.postmortem.telling import post_mortem_of
from tests.traces import lines_of, read_file, read_lines

LONG = "x" * 200


def incident(**facts: object) -> Incident:
    known = {
        "number": 1,
        "kind": IncidentKind.NOT_APPLIED,
        "blame": Blame.VMM,
        "title": "not applied",
        "guest": "vm1",
        "who": "vm1",
        "ranges": (),
        "seq": 1,
        "t": None,
        "summary": "One page was in use.",
        "timeline": (),
        "omitted": 0,
        "table": None,
        "sections": (),
        "parts": (),
        "known_problems": (),
        "next_steps": (),
        "evidence": (),
        "missing": (),
        "complete": True,
    }
    return Incident(**{**known, **facts})  # type: ignore[arg-type]


def lines(one: Incident) -> list[str]:
    return text.render(one, 1).splitlines()


@pytest.mark.parametrize(
    "long",
    [
        incident(sections=(Section("Why", LONG),)),
        incident(timeline=(TimelineRow("asked", Ns(5_267_216_000), f"gfn {LONG} to private", "EAGAIN", "3.61 ms"),)),
        incident(timeline=(TimelineRow("", Ns(5_267_216_000), "gfn [0x1,0x2) to private", "EAGAIN", LONG),)),
        incident(evidence=(Evidence(f"/a/{LONG}", LONG, 1, 2),)),
        incident(missing=(LONG,)),
        incident(title=LONG, who=LONG, summary=LONG),
    ],
    ids=["paragraph", "row", "note", "file", "missing", "head"],
)
def test_even_a_word_that_is_too_long_keeps_to_the_width(long: Incident) -> None:
    head, *rest = lines(long)
    assert [line for line in rest if len(line) > 80] == []
    assert len(head) <= 80 or long.title == LONG


def test_columns_of_a_timeline_stand_under_each_other_and_one_long_row_does_not_move_them() -> None:
    rows = (
        TimelineRow("ioctl", Ns(5_275_009_000), "gfn [0x1,0x2) to private", "0", "3.61 ms"),
        TimelineRow("", Ns(15_306_156_000), f"gfn {'y' * 40} to private", "ENOMEM", "attributes 0x8"),
        TimelineRow("answer", Ns(15_331_450_000), "-12 to the guest"),
        TimelineRow("", None, "gfn [0x1,0x22) to private", "EAGAIN", "idx 0x1 in use", logged="15.4"),
    )
    shown = lines(incident(timeline=rows))[4:]
    assert shown[0] == "  ioctl   5.275009  gfn [0x1,0x2) to private   0       3.61 ms"
    assert shown[-1] == "              15.4  gfn [0x1,0x22) to private  EAGAIN  idx 0x1 in use"
    assert shown[1].endswith("to private")
    assert shown[2].strip() == "ENOMEM  attributes 0x8"


def test_a_table_that_would_be_too_wide_is_set_closer() -> None:
    wide = IncidentTable(("gfn", "now", "answer to guest"), (("a" * 40, "private", "b" * 28),))
    assert lines(incident(table=wide))[-1] == f"  {'a' * 40} private {'b' * 28}"


def test_lines_are_cited_by_file_and_the_first_eight_places() -> None:
    places = [Evidence("/tmp/a/ftrace.txt", "a/ftrace.txt", n, n + 1 if n % 2 else n) for n in range(10, 21)]
    assert cited(places) == "a/ftrace.txt:10, 11-12, 12, 13-14, 14, 15-16, 16, 17-18 and 3 more"


def test_a_report_of_nothing_says_so_and_what_it_looked_at() -> None:
    covered = Covered("/tmp/t.txt", "t.txt", None, 3, 1, 1, 1, 1, 7, whole=True)
    assert text.report(PostMortem((), 0, (covered,), (), "No failure is on record.")) == (
        "No failure is on record.\n\n"
        "Covered t.txt: 3 lines (1 used, 1 context, 1 not understood), 1 gap, at least 7\n        events lost"
    )
    assert text.report(PostMortem((), 0, (), ())).endswith("Covered nothing: the ledger has no source")


def test_of_a_trace_that_is_not_whole_it_is_not_said_that_nothing_is_lost(tmp_path: Path) -> None:
    """Its header counts more entries than there are."""
    lines = [line for line in lines_of("half_done") if b"vm_ioctl_ret: " not in line]
    shown = text.report(post_mortem_of(read_lines(lines, tmp_path)))
    assert "entries that its header names are missing" in " ".join(shown.split())
    assert "none lost" not in shown


def test_two_sources_of_the_same_name_are_distinguished_by_their_folders(tmp_path: Path) -> None:
    """The text names a file by the shortest tail of its path that no other source has; the data have the whole path."""
    folder = tmp_path / "somewhere" / "half_done"
    folder.mkdir(parents=True)
    read = read_lines(lines_of("half_done"), folder)
    assert "Lines   trace.txt:642-777" in text.report(post_mortem_of(read))
    (one,) = post_mortem_of(read_file(folder / "trace.txt")).incidents
    assert one.evidence[0].file == str(folder / "trace.txt")
