"""Installed into an empty environment, away from the checkout, gmemstate has all that it needs."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that sees nothing of this environment or of the checkout."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "GMEMSTATE"))}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that pip builds of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, TOP, cwd=folder)
    assert built.returncode == 0, built.stderr
    (found,) = folder.glob("gmemstate-*.whl")
    return found


def installed(wheel: Path, folder: Path) -> Path:
    """The bin folder of a new environment with nothing but the wheel and what it asks for."""
    venv.create(folder)
    python = folder / "bin" / "python"
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_the_wheel_has_all_modules_migrations_and_data_and_no_tests(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {path for path in (TOP / "gmemstate").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(TOP).as_posix() for path in package} <= held
    migrations = {path.relative_to(TOP / "migrations").as_posix() for path in (TOP / "migrations").rglob("*.py")}
    assert migrations
    assert {f"gmemstate/_migrations/{name}" for name in migrations} <= held
    assert {name.split("/")[0].split("-")[0] for name in held} == {"gmemstate"}


def test_an_installed_copy_needs_nothing_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Any folder will do: the demo is told, a new ledger is made by migrations and read again, types are shipped."""
    program = installed(wheel, tmp_path / "environment")

    told = run(program / "gmemstate", "demo", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "ENOMEM" in told.stdout
    assert list(tmp_path.glob("*.html"))

    trace = TOP / "tests" / "captures" / "half_done" / "ftrace.txt.gz"
    assert run(program / "gmemstate", "ingest", trace, cwd=tmp_path).returncode == 0
    asked = run(program / "python", "-m", "gmemstate", "conversions", "--json", cwd=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert [conversion["errno"] for conversion in json.loads(asked.stdout)["rows"]] == [0, 12]

    scenarios = run(program / "gmemstate", "simulate", "--list", "--json", cwd=tmp_path)
    assert scenarios.returncode == 0, scenarios.stderr
    known = {path.stem for path in (TOP / "gmemstate" / "data" / "scenarios").glob("*.toml")}
    assert {each["scenario"]["name"] for each in json.loads(scenarios.stdout)["rows"]} == known
    page = run(program / "gmemstate", "help", "scenarios", cwd=tmp_path).stdout
    (tmp_path / "mine.toml").write_text(page.partition("```toml\n")[2].partition("```")[0])
    mine = run(program / "gmemstate", "simulate", "mine.toml", "--dialect", "all", "--policy", "all", cwd=tmp_path)
    assert (mine.returncode, mine.stdout.count(" yes ")) == (0, 2), mine.stderr

    said = run(
        program / "python",
        "-c",
        "import gmemstate, importlib.metadata, importlib.resources as r;"
        "print(gmemstate.__version__, importlib.metadata.version('gmemstate'), "
        "r.files('gmemstate').joinpath('py.typed').is_file())",
        cwd=tmp_path,
    )
    version, distribution, typed = said.stdout.split()
    assert (version, typed) == (distribution, "True")
