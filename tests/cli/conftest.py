"""Ledgers that the tests of the command line share; nobody writes to them."""

from pathlib import Path

import pytest

from tests.cli.running import ledger_of


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test says does not depend on who runs it."""
    for name in ("GMEMSTATE_DB", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="session")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mainline guest asks, the VMM does one half and gives up."""
    return ledger_of(tmp_path_factory.mktemp("half_done"), "half_done")


@pytest.fixture(scope="session")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An in-place conversion meets a poisoned page."""
    return ledger_of(tmp_path_factory.mktemp("poisoned"), "ip_hwpoison_shared")


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two guests from two traces in one ledger."""
    return ledger_of(tmp_path_factory.mktemp("both"), "half_done", "ip_hwpoison_shared")
