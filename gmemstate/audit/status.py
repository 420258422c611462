"""What a ledger holds, at a glance."""

from typing import Any

from gmemstate.audit.history.history import History
from gmemstate.model.events import details
from gmemstate.model.record import Head


def _clock(history: History, source: int) -> str:
    """How the clock of a source compares with that of the others, where there are others."""
    sources, labels = history.memory.sources, history.labels()
    known = sources.get(source)
    if known is None or len(sources) < 2:
        return ""
    if known.reference is not None:
        return f"; its clock is compared with that of {labels[known.reference]}"
    if any(other.reference == source for other in sources.values()):
        return ""
    return "; its clock cannot be compared with that of the others: its events keep the order of reading"


def summary(where: str, head: Head, history: History) -> dict[str, Any]:
    """Facts about a ledger, by name."""
    memory = history.memory
    return {
        "ledger": where,
        "events": head.seq,
        "head": head.hash.hex(),
        "sources": [
            f"{source.name} ({source.format}): {source.account.get('lines', '?')} lines{_clock(history, source.id)}"
            for source in history.sources.values()
        ],
        "guests": [
            f"{vm.name} ({details(vm.detail).get('comm', '?')} {vm.thread})" + (f", {vm.gone}" if vm.gone else "")
            for vm in memory.vms.values()
        ],
        "conversions": len(history.ordered()),
        "requests": len(history.requests),
        "messed up": sum(entry.state != "cleared" for entry in memory.messed_up.values()),
        "durability": "recorded and followed events, and pipes: every commit (synchronous FULL); "
        "ingested files: at the end, as they can be read again",
    }
