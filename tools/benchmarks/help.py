"""The time until a person sees the help, against the least that a program made with click needs."""

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.rounds import folder, rounds, show

EMPTY = """
import click

@click.group()
def main():
    pass

@main.command()
def verb():
    "Do nothing."

main()
"""
OURS = """
from gmemstate.cli.main import main

main()
"""


def show_help() -> None:
    with folder(None) as place:
        programs = {}
        for name, text in (("an empty click program", EMPTY), ("gmemstate", OURS)):
            programs[name] = Path(place, f"the_{name.split()[-1]}.py")
            programs[name].write_text(text)
        show("--help", rounds({name: lambda file=file: spent(file) for name, file in programs.items()}, 1, 21))


def spent(program: Path) -> float:
    """The CPU time (s) of a process that prints the help."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, str(program), "--help"], stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
