"""What holds for the tree as a whole: who may import whom, what is said of each name, and that nothing ties it to one place."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.law.tree import MODULES, PACKAGE, TOP
from tests.traces import CAPTURES, CASES


def files() -> list[Path]:
    """All files of the project, as git knows them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, capture_output=True, check=True).stdout
    return [TOP / name for name in listed.decode().split("\0") if name and (TOP / name).is_file()]


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [
        (["--help"], {"sqlalchemy", "alembic", "transitions", "rich", "gmemstate.cli.lists", "json"}),
        (["--version"], {"sqlalchemy", "alembic", "transitions", "rich", "gmemstate.cli.verbs"}),
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str], heavy: set[str]) -> None:
    """A person who asks for help does not wait for a database."""
    program = (
        "import sys\n"
        "from gmemstate.cli.main import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 0, done.stderr
    assert "gmemstate" in done.stdout
    assert heavy.isdisjoint(done.stderr.split())


def test_the_model_can_be_used_without_anything_installed_but_transitions() -> None:
    """A fold needs the standard library only; live machines need `transitions`."""
    program = "import sys; import gmemstate.model.memory; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=TOP)
    assert set(done.stdout.split()) - set(sys.stdlib_module_names) <= {"gmemstate", "__main__"}


# --- words


def spelled(*parts: str) -> str:
    """A word that this file itself must not hold."""
    return "".join(parts)


FORBIDDEN = {
    "a path of one machine": re.compile(spelled("/wo", "rk/|/ro", "ot/|/ho", "me/\\w|/tm", "p/v/|/opt/w", "heels")),
    "an address of a package registry": re.compile(spelled("index-", "url|find-", "links|:/", "/[^ ]*(?:pypi|registry)")),
    "an address on a local network": re.compile(r"\b(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+\b"),
    "a note to oneself": re.compile(spelled("TO", "DO|FIX", "ME|XX", "X\\b")),
    "a merge that went wrong": re.compile(spelled("^<<<", "<<<<|^>>>", ">>>>"), re.MULTILINE),
}


def test_nothing_in_the_tree_names_the_place_where_it_was_written() -> None:
    """Traces may: what a kernel has printed is left as it is."""
    found = []
    for path in files():
        if CAPTURES in path.parents or path.suffix in (".gz", ".txt"):
            continue
        text = path.read_text()
        found += [f"{path.relative_to(TOP)}: {what}: {m[0]}" for what, word in FORBIDDEN.items() for m in word.finditer(text)]
    assert not found


# --- captures


def test_captures_hold_a_trace_and_its_truth_and_what_a_test_names() -> None:
    held = {path.relative_to(CAPTURES).as_posix() for path in CAPTURES.rglob("*") if path.is_file()}
    usual = {f"{case}/{name}" for case in CASES for name in ("ftrace.txt.gz", "meta.json")}
    assert usual <= held
    tests = "\n".join(path.read_text() for path in (TOP / "tests").rglob("*.py"))
    assert not [name for name in held - usual if Path(name).name.removesuffix(".gz") not in tests]


def test_no_rule_knows_a_capture_by_its_name() -> None:
    """In the package a capture is a file like any other; only the two of `demo` are named, as its data."""
    demo = {path.stem for path in (PACKAGE / "data" / "demo").iterdir()}
    named = {
        f"{path.relative_to(TOP)}: {case}"
        for path in MODULES
        for case in CASES
        if case.startswith(("ip_", "st_")) or "_" in case
        if re.search(rf"\b{case}\b", path.read_text()) and case not in demo
    }
    assert not named
