"""The flight recorder, auditor and reference model of guest_memfd shared/private conversions."""

from gmemstate._version import __version__

__all__ = ["Ledger", "__version__", "open"]


def __getattr__(name: str) -> object:
    """Load the ledger, and with it the database, only when it is asked for."""
    if name in ("Ledger", "open"):
        from gmemstate.ledger import ledger

        return getattr(ledger, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
