"""The second verifier, which shares no code with the program: as a process, and as a module for those who ask it very often."""

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tools" / "verify"


def verify(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run it."""
    return subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False)


def module() -> ModuleType:
    """Load it."""
    loader = importlib.machinery.SourceFileLoader("verify", str(PROGRAM))
    spec = importlib.util.spec_from_loader("verify", loader)
    assert spec is not None
    found = importlib.util.module_from_spec(spec)
    writing, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(found)
    finally:
        sys.dont_write_bytecode = writing
    return found
