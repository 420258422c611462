"""The library is typed for those who use it: mypy --strict accepts right programs and refuses wrong ones, from outside of the
package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import gmemstate
from tests.store.places import ROOT

HEAD = "import gmemstate\nledger = gmemstate.open('a.db')\n"
WRONG = {
    "ledger.conversions(gest='vm1')": "call-arg",
    "ledger.conversions(to='secret')": "arg-type",
    "ledger.conversions(label='committed')": "arg-type",
    "ledger.convert(1, 0, 4, 'secret')": "arg-type",
    "ledger.convert(1, 0, 4, 'private', dialect='mainline')": "arg-type",
    "ledger.convert(1, 0, 4, 'private', policy='bug-vm')": "arg-type",
    "ledger.convert(1, 0, 4, 'private', user=[])": "call-arg",
    "ledger.convert(1, 0, 4, 'private', users=[object()])": "list-item",
    "ledger.resolve(1, 'declare', 'newish')": "arg-type",
    "ledger.incidents(blame='kernel')": "arg-type",
    "ledger.messed_up(cause='poisoned')": "arg-type",
    "ledger.conversions()[0].begin": "attr-defined",
    "ledger.check().problems.append(None)": "attr-defined",
    "gmemstate.machine('rang')": "arg-type",
    "gmemstate.simulate('sc-10', 'rfc-v2')": "arg-type",
    "ledger.ingest('a.txt')[0].events = 1": "misc",
    "ledger.check('checkpoint.txt')": "arg-type",
    "ledger.replay().invariants[0].outcome = None": "misc",
    "ledger.steps(first=1)": "call-arg",
    "gmemstate.Leger": "attr-defined",
    "first: str = ledger.conversions()[0].id": "assignment",
}


def checked(folder: Path, programs: dict[str, str]) -> str:
    """What mypy says of programs that lie in a folder of their own."""
    for name, program in programs.items():
        (folder / name).write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(folder / "cache"), *programs]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
def test_programs_that_use_the_library_are_typed_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    readme = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    right = {f"readme_{n}.py": program for n, program in enumerate(readme)}
    right["api.py"] = (ROOT / "tests" / "typing" / "api.py").read_text()
    wrong = {f"wrong_{n}.py": HEAD + program + "\n" for n, program in enumerate(WRONG)}
    said = checked(tmp_path, right | wrong)
    assert len(right) == 3
    assert not [line for line in said.splitlines() if line.startswith(tuple(right))], said
    for name, (program, code) in zip(wrong, WRONG.items(), strict=True):
        assert re.search(rf"^{name}:3: error: .*\[{code}\]$", said, re.MULTILINE), (program, said)


def test_every_public_name_can_be_imported_and_is_known_to_type_checkers() -> None:
    typed = re.findall(r"^    from \S+ import (\w+) as \1", (ROOT / "gmemstate" / "__init__.py").read_text(), re.MULTILINE)
    assert sorted(["__version__", *typed]) == sorted(dir(gmemstate))
    for name in dir(gmemstate):
        assert getattr(gmemstate, name) is not None
    with pytest.raises(AttributeError, match="Leger"):
        gmemstate.Leger  # noqa: B018
