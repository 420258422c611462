"""The format of scenarios: the page tells all of it, and what is wrong in a file is said with its line and the next step."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from gmemstate.convert.engine.dialects.rfc_v2 import DEFECTS
from gmemstate.convert.engine.ioctl import VmType
from gmemstate.convert.engine.policies import DIALECT_NAMES, POLICIES, Policy
from gmemstate.convert.scenario import definition, tables
from gmemstate.convert.scenario import load as reading
from gmemstate.convert.scenario.load import catalogue, load
from gmemstate.convert.scenario.tables import BadScenario
from gmemstate.convert.simulation.facts import FORMS
from tests.cli.running import run, say

PAGE = Path(reading.__file__).parents[2] / "docs" / "scenarios.md"
TEXT = PAGE.read_text(encoding="utf-8")
IDS = [f"sc-{n:02}" for n in range(1, 45)] + [f"ip-{n:02}" for n in range(1, 39)]


# --- the page


def section(heading: str) -> str:
    """What stands below a heading."""
    (found,) = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return re.sub(r"```.*?```", "", found, flags=re.DOTALL)


def rows(heading: str, first: str) -> list[list[str]]:
    """The rows of the table below a heading whose first column is called so."""
    found: list[list[str]] = []
    reading_it = False
    for line in section(heading).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("|"):
            reading_it = False
        elif cells[0] == first:
            reading_it = True
        elif reading_it and not set(line) <= set("|-"):
            found.append(cells)
    assert found, f"no table of {first} below {heading}"
    return found


def words(heading: str, first: str) -> list[str]:
    """The words in the first column."""
    return [cells[0].strip("`") for cells in rows(heading, first)]


def quoted(text: str) -> set[str]:
    return {word.strip('"') for word in re.findall(r"`([^`]*)`", text)}


@pytest.mark.parametrize(
    ("heading", "first", "known"),
    [
        ("The file", "key", reading.TOP),
        ("[guest]", "key", reading.GUEST),
        ("[[guest.memslot]]", "key", reading.MEMSLOT),
        ("[[user]]", "key", reading.USER),
        ("[[user]]", "is", [*definition.MAPPERS, *definition.HOLDERS]),
        ("[[fault]]", "key", reading.FAULT),
        ("[[fault]]", "at", reading.FAULTS),
        ("[[do]]", "verb", reading.STEPS),
        ("[expect]", "fact", FORMS),
        ("How things are written", "dialect", DIALECT_NAMES),
        ("How things are written", "policy", [policy.value for policy in Policy]),
    ],
)
def test_the_page_names_every_word_of_the_reader_and_no_other(heading: str, first: str, known: Iterable[str]) -> None:
    assert sorted(words(heading, first)) == sorted(known)


def test_the_page_names_all_options_of_each_verb() -> None:
    for cells in rows("[[do]]", "verb"):
        named = quoted(cells[2] if len(cells) > 2 else "")
        others = {"private", "shared", "vm", "as returned", *reading.PATHS}
        assert set(reading.STEPS[cells[0].strip("`")]) <= named, cells[0]
        assert named <= {*reading.STEPS[cells[0].strip("`")], *others}, cells[0]


def test_the_page_names_all_values_of_what_is_chosen() -> None:
    meaning = {cells[0].strip("`"): cells[1] for cells in rows("[guest]", "key")}
    assert quoted(meaning["type"]) == {kind.value for kind in VmType}
    assert quoted(meaning["huge"]) == set(reading.HUGE)
    assert quoted(meaning["defects"]) == set(DEFECTS)
    faults = {cells[0].strip("`"): cells[1] for cells in rows("[[fault]]", "key")}
    assert quoted(faults["step"]) == {"private_unmap", *reading.UNMAP_STEPS}
    verbs = {cells[0].strip("`"): cells[2] for cells in rows("[[do]]", "verb")}
    assert set(reading.PATHS) <= quoted(verbs["guest_asks"])


def test_the_page_gives_each_fact_its_form() -> None:
    assert {cells[0].strip("`"): cells[2] for cells in rows("[expect]", "fact")} == {name: form for name, form in FORMS.items()}


def test_the_page_says_which_dialects_can_have_a_policy() -> None:
    for name, _, where in rows("How things are written", "policy"):
        can = [dialect for dialect, kind in DIALECT_NAMES.items() if Policy(name.strip("`")) in POLICIES[kind]]
        assert sorted(where.split(", ")) == (sorted(can) if len(can) < len(DIALECT_NAMES) else ["all"])


def test_each_id_of_the_specification_is_a_scenario_or_stands_on_the_page_with_its_reason() -> None:
    missing = {cells[0].lower(): cells[2] for cells in rows("What comes with the program", "id")}
    for each in IDS:
        named = [name for name in catalogue() if f"-{each}-" in f"-{name}-"]
        assert (len(named), each in missing) in ((1, False), (0, True)), each
    assert all(len(reason) > 20 for reason in missing.values())


def test_the_example_of_the_page_works_as_it_stands(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    path = tmp_path / "pin.toml"
    path.write_text(example, encoding="utf-8")
    commands = [line.strip().split("   ")[0].split() for line in TEXT.splitlines() if line.startswith("    gmemstate simulate")]
    assert len(commands) == 6
    commands.remove(["gmemstate", "simulate", "--list"])  # all that comes with the program is played elsewhere
    for command in commands:
        ran = say("--db", tmp_path / "example.db", *[path if word == "pin.toml" else word for word in command[1:]])
        assert ran.code == 0, command
        assert ran.out, command


def test_help_lists_the_pages_and_prints_one() -> None:
    listed = say("help")
    assert listed.code == 0
    pages = {path.stem: path.read_text(encoding="utf-8") for path in PAGE.parent.glob("*.md")}
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == sorted(pages)
    for topic, text in pages.items():
        assert text.startswith(f"# {re.split('  +', next(s for s in listed.out.splitlines() if s.split()[0] == topic))[1]}\n")
        assert say("help", topic) == (0, text, "")


def test_help_on_nothing_known_names_the_topics() -> None:
    ran = say("help", "../scenarios")
    assert (ran.code, ran.out) == (2, "")
    assert "there is no page '../scenarios'; there are " in ran.err
    assert "scenarios" in ran.err


# --- what is wrong

GOOD = """\
title = "Good"

[guest]
type = "tdx"
pages = 16
starts = "shared"

[[guest.memslot]]
gfn = 0
count = 16

[[user]]
name = "A"
is = "host"
pages = "0+16"

[[user]]
name = "guest"
is = "guest"

[[user]]
name = "nic"
is = "pin"
pages = 5

[[fault]]
at = "reserve"

[[do]]
convert = "0+16"
to = "private"

[[do]]
access = "A"
page = 3

[expect.inplace]
returned = ["ENOMEM"]
lost = {}
"""
BAD = [
    # a change of the good file, the line and key that are named, and what is said
    ('title = "Good"', "", 1, "title", "is missing"),
    ('title = "Good"', "title = 5", 1, "title", "5 is no text: put it in quotes"),
    ('title = "Good"', 'titel = "Good"', 1, "titel", "is not known here; known are title, about"),
    ('title = "Good"', 'title = "Good"\ndialects = "inplace"', 2, "dialects", "'inplace' is no list: write [...]"),
    ('title = "Good"', 'title = "Good"\ndialects = ["in-place"]', 2, "dialects", "'in-place' is none of mainline, rfc-v2"),
    ('title = "Good"', 'title = "Good"\ndialects = ["mainline"]', 38, "inplace", "is not among the dialects"),
    ('title = "Good"', 'title = "Good"\npolicies = ["panic"]', 2, "policies", "'panic' is none of uninformed"),
    ('type = "tdx"', 'type = "sev"', 4, "type", "'sev' is none of sw, tdx, snp"),
    ("pages = 16", "pages = -1", 5, "pages", "-1 is no number from 0 to 2^64 - 1"),
    ("pages = 16", "pages = true", 5, "pages", "True is no number"),
    ("pages = 16", 'pages = "many"', 5, "pages", "'many' is no number"),
    ("pages = 16", "pages = 0", 5, "pages", "0 is no size"),
    ("pages = 16", "pages = 0x1000000", 5, "pages", "is no size: 1 to 1048576"),
    ("pages = 16", 'pages = 16\nhuge = "2M"', 5, "pages", "a multiple of 512"),
    ('starts = "shared"', 'starts = "shared"\nshared = 5', 7, "shared", "says nothing: all pages start shared"),
    ('starts = "shared"', 'starts = "shared"\nprivate = "16+1"', 7, "private", "page 16 is not there: the last one is 15"),
    ('starts = "shared"', 'starts = "shared"\nmmap = 1', 7, "mmap", "1 is neither true nor false"),
    ('starts = "shared"', 'starts = "shared"\ndefects = ["all"]', 7, "defects", "'all' is none of shadowed-ret"),
    ("gfn = 0\n", "", 8, "gfn", "is missing in [guest.memslot]"),
    ("count = 16", "count = 0", 10, "count", "0 is no size"),
    ("count = 16", "count = 17", 10, "count", "the guest_memfd ends at page 16: 17 pages from 0 on do not fit"),
    ("count = 16", "count = 16\nvm = 3", 11, "vm", "3 is neither 1 nor 2"),
    (
        "[[guest.memslot]]\ngfn = 0\ncount = 16",
        "[guest.memslot]\ngfn = 0",
        8,
        "memslot",
        "is a list of tables: write [[guest.memslot]]",
    ),
    ('name = "A"\n', "", 12, "name", "is missing in [user]"),
    ('name = "guest"', 'name = "A"', 18, "name", "there is another user 'A'"),
    ('is = "host"', 'is = "gpu"', 14, "is", "'gpu' is none of host, guest, iommu, pin, reference, lru batch"),
    ('pages = "0+16"', 'pages = "16-0"', 15, "pages", "'16-0' is no run of pages"),
    ('pages = "0+16"', 'pages = "0..16"', 15, "pages", "'0..16' are no pages: write 5"),
    ('pages = "0+16"', "pages = 1.5", 15, "pages", "1.5 are no pages"),
    ('pages = "0+16"', 'pages = "0+16"\nrefuses = "NO"', 16, "refuses", "'NO' is no errno: write one like EAGAIN"),
    ('pages = "0+16"', 'pages = "0+16"\nweight = 2', 16, "weight", "is not known here; known are name, is, pages"),
    ("pages = 5", 'pages = 5\nrefuses = "EBUSY"', 25, "refuses", "a pin is never notified"),
    ("pages = 5", "pages = 5\nchecks = 3", 25, "checks", "a pin does not go by itself"),
    ('at = "reserve"', 'at = "boot"', 27, "at", "'boot' is none of reserve"),
    ('at = "reserve"', 'at = "reserve"\nerrno = 12', 28, "errno", "12 is no errno"),
    ('at = "reserve"', 'at = "private_unmap"\nstep = "PSMASH"', 28, "step", "'PSMASH' is none of BLOCK, TRACK"),
    ('at = "reserve"', "page = 5", 26, "at", "is missing in [fault]"),
    ('to = "private"', 'to = "secret"', 31, "to", "'secret' is none of shared, private"),
    ('to = "private"', 'to = "private"\npunch = 5', 32, "punch", "a step does one thing, one of convert"),
    ('to = "private"', 'to = "private"\npath = "vmcall"', 32, "path", "is no option of convert; known are to"),
    ('to = "private"', 'to = "private"\nflag = 1', 32, "flag", "is not known here"),
    ('to = "private"', 'to = "private"\nwritable = "no"', 32, "writable", "'no' is neither true nor false"),
    ('convert = "0+16"', "convert = []", 30, "convert", "names no pages"),
    ('convert = "0+16"', "convert = false", 30, "convert", "are no pages"),
    ('convert = "0+16"\nto = "private"', "bug_vm = false", 30, "bug_vm", "is written true, or the step is left out"),
    ('convert = "0+16"\nto = "private"', "wait = true", 30, "wait", "is not known here"),
    ('convert = "0+16"\nto = "private"', 'to = "private"', 29, "do", "a step does one thing"),
    ('convert = "0+16"\nto = "private"', 'punch = "0+17"', 30, "punch", "page 16 is not there"),
    ('convert = "0+16"\nto = "private"', "poison = 16", 30, "poison", "page 16 is not there"),
    ('convert = "0+16"\nto = "private"', 'guest_asks = 0\nanswers = ["no"]', 31, "answers", "'no' is no errno"),
    ('convert = "0+16"\nto = "private"', "memslot = 0", 29, "gfn", "is missing in [do]"),
    ('convert = "0+16"\nto = "private"', "memslot = 4\ndelete = true", 30, "memslot", "there is no memslot 4 to delete"),
    ('convert = "0+16"\nto = "private"', "memslot = 1\ngfn = 16\ncount = 17", 32, "count", "the guest_memfd ends at page 16"),
    ('access = "A"', 'access = "B"', 34, "access", "'B' is no user; there are A, guest, nic"),
    ('access = "A"\npage = 3', 'access = "A"', 33, "page", "is missing in [do]"),
    ("page = 3", "page = 99", 35, "page", "page 99 is not there: the last one is 15"),
    ("page = 3", 'page = 3\nas = "private"', 36, "as", "A is no guest"),
    ('access = "A"\npage = 3', 'release = "A"', 34, "release", "A maps pages and holds none"),
    ('type = "tdx"', 'type = "sw"', None, None, None),  # good as well
    ("lost = {}", 'lost = { A = [5, "0x6-8"] }\nundone = ["4+4 WARN"]\nprivate = ["gmem 2: 5"]', None, None, None),
    ('title = "Good"', 'title = " "', 1, "title", "says nothing: write one sentence"),
    ('at = "reserve"', 'at = "reserve"\npage = 16', 28, "page", "page 16 is not there: the last one is 15"),
    ('at = "reserve"', 'at = "reserve"\ntimes = 0', 28, "times", "0 is no count: write 1 or more"),
    ('at = "reserve"', 'at = "reserve"\nnth = 0', 28, "nth", "0 is no count: write 1 or more"),
    ('at = "reserve"', 'at = "reserve"\nstep = "REMOVE"', 28, "step", "only private_unmap has steps"),
    (
        'at = "reserve"',
        'at = "rmp_update"',
        27,
        "at",
        "rmp_update never happens to a guest of type tdx; it takes one of type snp",
    ),
    (
        'convert = "0+16"',
        'guest_asks = "0+16"\npath = "psc ghcb"',
        31,
        "path",
        "a guest of type tdx cannot ask by psc ghcb; it takes one of type snp",
    ),
    (
        'convert = "0+16"',
        'guest_asks = "0+16"\ninterrupted = 1',
        31,
        "interrupted",
        "only a tdvmcall is cut into chunks, and this is a vmcall",
    ),
    ("returned = [", "tolled = [", 38, "tolled", "is not known here; known are"),
    ('returned = ["ENOMEM"]', 'returned = "ENOMEM"', 38, "returned", "'ENOMEM' is no list: write [...]"),
    ("lost = {}", "lost = []", 39, "lost", "is a table"),
    ("lost = {}", 'lost = { A = "0+3" }', 39, "A", "'0+3' is no list"),
    ("lost = {}", 'invalidations = "two"', 39, "invalidations", "'two' is no number"),
    ("lost = {}", 'lost = { A = ["0+99x"] }', 39, "A", "'0+99x' are no pages: write 5"),
    ("lost = {}", "lost = { B = [5] }", 39, "B", "'B' is no user; there are A, guest, nic"),
    ("lost = {}", "vm = 1", 39, "vm", "1 is none of ok, bugged, dead"),
    ("lost = {}", 'verdicts = ["success"]', 39, "verdicts", "'success' is none of committed, noop"),
    ("lost = {}", 'private = ["gmem 2: all"]', 39, "private", "'all' are no pages: write 5"),
    ('returned = ["ENOMEM"]', 'returned = ["ENOMEN"]', 38, "returned", "'ENOMEN' is no errno: write one like EAGAIN"),
    (
        "lost = {}",
        'lost = {}\n\n[expect.inplace.track]\nreturned = ["0"]',
        41,
        "track",
        "inplace cannot have this policy; it can have bug-vm",
    ),
    ("[expect.inplace]", "[expect.in-place]", 37, "in-place", "is not known here"),
    ("[expect.inplace]", "[expect.inplace", 37, None, "is no TOML: "),
    ('title = "Good"', 'title = "Good"\ntitle = "Twice"', 2, None, "is no TOML: "),
]


@pytest.mark.parametrize(("old", "new", "line", "key", "said"), BAD)
def test_what_is_wrong_is_named_with_file_line_and_key(
    old: str, new: str, line: int | None, key: str | None, said: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "wrong.toml"
    assert GOOD.count(old) >= 1
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    if said is None:
        assert load(str(path)).title == "Good"
        return
    with pytest.raises(BadScenario) as caught:
        load(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path}:{line}: {f'{key}: ' if key else ''}")
    assert said in text
    assert re.search(r"; `gmemstate help scenarios` has (the format|an example)$", text)


def test_what_is_expected_may_be_written_in_any_way_that_the_page_names(tmp_path: Path) -> None:
    """Pages as 5, "5+1" or "0x5-6", numbers as decimal or hexadecimal: all mean the same."""
    path = tmp_path / "pin.toml"
    for page, offset, returned in ((5, '"0x5000"', '"0"'), ('"5+1"', "0x5000", "0"), ('"0x5-6"', "20480", "0")):
        path.write_text(
            f'title = "T"\n[guest]\ntype = "sw"\n[[user]]\nname = "nic"\nis = "pin"\npages = 5\n'
            f'[[do]]\nconvert = "0+8"\n[[do]]\nrelease = "nic"\n[[do]]\nconvert = 5\n'
            f'[expect.inplace]\nreturned = ["EAGAIN", {returned}]\nerror_offset = [{offset}, "-"]\nprivate = [{page}]\n',
            encoding="utf-8",
        )
        assert say("simulate", path).code == 0


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD, encoding="utf-8")
    assert say("simulate", path).code == 0


def test_a_guest_without_a_shared_bit_cannot_think_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    touching = GOOD.replace('access = "A"\npage = 3', 'access = "guest"\npage = 3\nas = "private"')
    path.write_text(touching, encoding="utf-8")
    assert load(str(path)).steps[1][2]["as"] == "private"
    path.write_text(touching.replace('"tdx"', '"sw"'), encoding="utf-8")
    with pytest.raises(BadScenario, match="36: as: a guest of type sw has no shared bit"):
        load(str(path))
    path.write_text(touching.replace('as = "private"', "accept = true").replace('"tdx"', '"snp"'), encoding="utf-8")
    with pytest.raises(BadScenario, match="36: accept: only a guest of type tdx accepts pages"):
        load(str(path))


def test_a_line_is_found_behind_texts_that_look_like_tables(tmp_path: Path) -> None:
    """The reader of TOML keeps no lines: they are looked up, and a text of several lines is no table."""
    path = tmp_path / "wrong.toml"
    path.write_text(
        'title = "T"\nabout = """\n[[user]]\nis = "nobody"\n"""\n[[user]]\nname = "A"\nis = "gpu"\n[[do]]\nclose = true\n'
    )
    with pytest.raises(BadScenario, match=r"wrong\.toml:8: is: 'gpu'"):
        load(str(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "is no text (byte 8); a scenario is a TOML file, see `gmemstate help scenarios`"),
        (b"\x00\x01\x02", ":1: is no TOML: "),
        (b"", ":1: title: is missing; `gmemstate help scenarios` has the format"),
        (b"just words\n", ":1: is no TOML: "),
        (b'title = "T"\n', ":1: do: is missing"),
        (b'title = "T"\ndo = 5\n', ":2: do: is a list of tables: write [[do]]"),
        (b'title = "T"\nguest = 5\ndo = [{close = true}]\n', ":2: guest: is a table"),
    ],
)
def test_what_is_no_scenario_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(content)
    ran = run("simulate", path)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err.startswith(f"gmemstate: {path}")
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_no_file_and_a_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    ran = run("simulate", tmp_path)
    assert (ran.code, ran.out) == (4, "")
    assert ran.err == f"gmemstate: {tmp_path}: is a directory; name a scenario file in it\n"
    ran = run("simulate", tmp_path / "none.toml")
    assert (ran.code, ran.out) == (4, "")
    assert "neither a file nor a scenario of the catalogue; `gmemstate simulate --list` shows those" in ran.err
    ran = run("simulate")
    assert (ran.code, ran.out) == (2, "")
    assert "name a scenario file, or one of `gmemstate simulate --list`" in ran.err


def test_pages_are_written_as_the_page_says() -> None:
    def runs(text: str) -> tuple[tables.PageRun, ...]:
        content = tables.tomllib.loads(f"p = {text}")
        return tables.ScenarioTable(tables.ScenarioText("f", f"p = {text}"), "", 0, content, ("p",)).runs("p")

    assert runs("5") == ((5, 6),)
    assert runs('"0+16"') == ((0, 16),)
    assert runs('"0-16"') == ((0, 16),)
    assert runs('"0x10+0x10"') == ((16, 32),)
    assert runs('[5, "8+2"]') == ((5, 6), (8, 10))
    assert runs("[]") == ()
